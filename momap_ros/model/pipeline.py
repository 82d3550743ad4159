"""From one RGB-D frame to N motion maps: the paper's sampler, in numbered steps.

Paper: Sec. 3.3.3. Loading goes through `MoMapPipeline.from_pretrained`, never through `DiffusionPipeline`: only ours
knows the classes and checks the folder.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils import logging as diffusers_logging

from momap_ros.conditioning import (
    GRID,
    MAX_WORDS,
    Conditioning,
    SceneGrid,
    Vocabulary,
    assemble,
    hint_arrays,
    scene_grid,
    slot_colors,
)
from momap_ros.instances import InstanceMap
from momap_ros.model.checkpoint import CheckpointError, check_weights, find_checkpoint, read_info
from momap_ros.model.codec import MotionCodec, TemporalBasisCodec
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.noise import InstanceFrames, draw_noise
from momap_ros.model.output import MoMapOutput, fit_instances
from momap_ros.model.prediction import clean_of
from momap_ros.model.scene_encoder import SceneEncoder, SceneEncoding
from momap_ros.model.warm_start import remaining_latents
from momap_ros.rgbd import RGBDFrame

# What momap.json calls a model -> the pipeline that draws with it, of this class or derived from it. Named and not
# imported, as in model_index.json: the full model needs libraries that the small one does not.
MODELS = {
    "small": ("momap_ros.model.pipeline", "MoMapPipeline"),
    "full": ("momap_ros.model.full_pipeline", "FullMoMapPipeline"),
}
# Share of an instance's drawn motion that its affine map leaves unexplained from which its parts move differently.
ARTICULATION_RESIDUAL = 0.35
MIN_ARTICULATED_CELLS = 16
# Of the scene encoder's opinion on what moves; chosen on 80 samples of `val`.
SCENE_SHARE = 2 / 3
MIN_PROBABILITY = 1e-3
# More steps than these end before the noise does: at lower levels they sharpen draws beyond what the network knows. On
# 120 samples of `train` ten steps to the end are worse than four (best of ten 0.477 and 0.458 of static, mean 0.775 and
# 0.682), ten steps to about a third of the noise levels are not (0.456, 0.679).
FEW_STEPS, LOWEST_LEVEL = 4, 1 / 3
# Of the way to another instance that an expected motion holds at its end, from which that instance is its goal; chosen
# on 400 samples of `train`.
GOAL_SHARE = 0.3


class MoMapPipeline(DiffusionPipeline):
    """Draws futures of a frame.

    Args:
        scene_encoder: reads words and instances once per scene.
        denoiser: predicts clean latents from noisy ones, or what they follow from.
        codec: latents <-> displacements over time.
        scheduler: noise levels and the DDIM step.
    """

    model_cpu_offload_seq = "scene_encoder->denoiser"  # type: ignore[assignment]  # diffusers declares None
    weights: ClassVar[tuple[str, ...]] = ("scene_encoder", "denoiser", "codec")
    can_continue: ClassVar[bool] = True  # takes an earlier forecast to go on from
    precision: str = "float32"  # of the networks: or "bfloat16", see momap_ros.model.execution

    def __init__(
        self,
        scene_encoder: SceneEncoder,
        denoiser: SmallDenoiser,
        codec: TemporalBasisCodec,
        scheduler: DDIMScheduler,
    ) -> None:
        """Register the components; they are what `save_pretrained` writes."""
        super().__init__()
        self.register_modules(scene_encoder=scene_encoder, denoiser=denoiser, codec=codec, scheduler=scheduler)
        self.vocabulary = Vocabulary(scene_encoder.config["vocabulary"])
        self.num_steps = codec.num_steps
        self.set_progress_bar_config(disable=True)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # ours also takes the name of a bundled checkpoint
        cls, name_or_folder: str | os.PathLike[str], **options: object
    ) -> MoMapPipeline:
        """Load a bundled checkpoint by name, or a folder.

        Raises:
            CheckpointError: no such checkpoint, pickled weights, missing or unexpected keys, or another T than it says.
        """
        folder = find_checkpoint(os.fspath(name_or_folder))
        info = read_info(folder)
        module, name = MODELS[info["model"]]
        chosen: type[MoMapPipeline] = getattr(import_module(module), name)
        return chosen._from_folder(folder, info, options)

    @classmethod
    def _from_folder(cls, folder: Path, info: dict[str, Any], options: dict[str, object]) -> MoMapPipeline:
        # Weights are stored in half precision to be small and always computed with in float32, the codec above all.
        fixed = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True, "low_cpu_mem_usage": False}
        diffusers_logging.disable_progress_bar()  # four small files; the bar would land in node logs
        try:
            pipeline: MoMapPipeline = super().from_pretrained(folder, **fixed, **options)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]  # torch lists every tensor
            raise CheckpointError(f"checkpoint {folder}: could not be loaded: {reason}") from error
        check_weights(folder, {name: getattr(pipeline, name) for name in cls.weights})
        if info["num_steps"] != pipeline.num_steps:
            raise CheckpointError(
                f"checkpoint {folder}: momap.json says T = {info['num_steps']}, its codec has "
                f"T = {pipeline.num_steps}; it was put together from two models"
            )
        return pipeline

    def to_device(self, device: str, precision: str = "float32") -> None:
        """Move the networks; the codec stays where its results are needed.

        Args:
            device: of torch.
            precision: "float32" or "bfloat16"; "auto" is float32 until somebody has measured which one is faster.
        """
        self.scene_encoder.to(device)
        self.denoiser.to(device)
        self.precision = "bfloat16" if precision == "bfloat16" else "float32"

    def _autocast(self) -> torch.autocast:
        """Matrix products in the chosen precision; weights, sums and the sampler stay in single precision."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    @torch.inference_mode()
    def __call__(
        self,
        frame: RGBDFrame,
        instances: InstanceMap,
        prompt: str = "",
        *,
        hints: Mapping[int, Sequence[int]] | None = None,
        num_hypotheses: int = 10,
        num_inference_steps: int = 4,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        color_seed: int = 0,
        previous: MoMapOutput | None = None,
        elapsed_s: float = 0.0,
    ) -> MoMapOutput:
        """Draw futures.

        Args:
            frame: registered colour and depth of any size; stretched to the model's square.
            instances: instance map of the same size; what is not an instance does not move.
            prompt: sentence that says what will happen; empty = the model decides.
            hints: instance id -> signs of its displacement along x, y, z of the optical frame (paper Sec. 3.4.2);
                those of instances that the model cannot see are not applied, see `MoMapOutput.applied_hints`.
            num_hypotheses: N, drawn in one batch.
            num_inference_steps: denoising steps.
            generator: source of the initial noise, on the CPU; the global one where None.
            latents: (N, C, 32, 32) initial noise instead of drawing it.
            color_seed: of the random instance colours.
            previous: forecast of an earlier frame of the same, unmoved camera, with the same N, to go on from: each
                future is begun with what is left of one of its, half noise, and half of the steps are taken.
            elapsed_s: seconds between that frame and this one.

        Returns:
            N futures in metres, in the frame's camera.

        Raises:
            ShapeError: frame, instances or latents of another size.
            FrameError: the frame has no depth.
            ValueError: a hint for an unknown instance, impossible flags, or an earlier forecast of another N.
        """
        # 1. Reduce the frame to 32x32 cells, one real pixel each. Metres, optical frame.
        grid = scene_grid(frame, instances)
        # 2. Words, hints and colours -> conditioning maps (1, 29, 32, 32) and instance tokens (1, 20, 27).
        words, ignored = self.vocabulary.encode(prompt)
        usable = {i: tuple(flags) for i, flags in (hints or {}).items() if i not in grid.dropped_ids}
        conditioning = self.condition(grid, words, usable, color_seed)
        # 3. Read the scene once; every hypothesis shares it. The motion's length gives steps seconds.
        started = time.perf_counter()
        scene = self.encode_scene(conditioning)
        step_s = float(scene.log_duration[0].float().exp()) / (self.codec.num_steps - 1)  # waits for a GPU to finish
        network_s = time.perf_counter() - started
        # 4. Noise (N, C, 32, 32), most of it shared by the cells of an instance.
        noise = self._noise(conditioning, num_hypotheses, generator) if latents is None else latents
        self._check_noise(noise, num_hypotheses)
        timesteps = self.timesteps(num_inference_steps)[num_inference_steps // 2 if previous else 0 :]
        if previous is not None:
            noise = self._begun(noise, previous, remaining_latents(previous, grid, elapsed_s, step_s), timesteps)
        # 5. Denoise. The network predicts the clean latents at every step.
        started = time.perf_counter()
        clean, moving_logits = self.denoise(noise.to(self._device), scene.repeat(num_hypotheses), timesteps)
        drawn = clean.flatten(2).float().cpu()  # (N, C, 1024)
        network_s += time.perf_counter() - started
        # 6. Project the final latents on one affine motion per instance; whitened latents over scene scales.
        probability = moving_logits.flatten(1).float().sigmoid().cpu()  # (N, 1024)
        slots, maps, centres, articulated = fit_grid(drawn, grid)
        # 7. Whether an instance moves is decided for it as a whole, never cell by cell.
        moving = moving_instances(probability, scene.moving_logits[0].float().cpu(), slots)
        return MoMapOutput(
            frame,
            instances,
            grid,
            self.codec,
            drawn,
            maps,
            centres,
            moving,
            articulated,
            step_s,
            ignored_words=tuple(ignored),
            applied_hints=usable,
            goals=goals_of(scene.courses[0].float().cpu(), self.codec, grid.slot_ids),
            network_s=network_s,
        )

    def _noise(
        self, conditioning: Conditioning, num_hypotheses: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        frames, channels = InstanceFrames.of(conditioning), self.codec.latent_channels
        return draw_noise(frames, self.denoiser.noise_shares, num_hypotheses, channels, generator=generator)

    def _check_noise(self, noise: torch.Tensor, num_hypotheses: int) -> None:
        expected = (num_hypotheses, self.codec.latent_channels, GRID, GRID)
        if noise.shape != expected:
            raise ValueError(f"latents: expected {expected}, got {tuple(noise.shape)}")

    def _begun(
        self, noise: torch.Tensor, previous: MoMapOutput, remaining: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """What is left of an earlier forecast, with the noise of the first of the timesteps."""
        if previous.num_hypotheses != len(noise):
            raise ValueError(f"previous: expected {len(noise)} futures, got {previous.num_hypotheses}")
        return torch.as_tensor(self.scheduler.add_noise(remaining, noise, timesteps[:1]))

    @property
    def _device(self) -> torch.device:
        return torch.device(next(self.denoiser.parameters()).device)  # diffusers' own property takes a millisecond

    def condition(
        self, grid: SceneGrid, words: np.ndarray, hints: Mapping[int, Sequence[int]], color_seed: int
    ) -> Conditioning:
        """Model inputs of one scene, on the network's device; `words` are the vocabulary's (MAX_WORDS,) numbers."""
        flags, given = hint_arrays(hints, grid.slot_ids)

        def on_device(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array)[None].to(self._device)

        return assemble(
            rgb=on_device(grid.rgb).float() / 127.5 - 1,
            points_in_camera=on_device(grid.points_in_camera),
            scale_m=torch.tensor([grid.scale_m], device=self._device),
            slots=on_device(grid.slots).long(),
            colors=on_device(slot_colors(grid.slot_ids, color_seed)),
            hint_flags=on_device(flags),
            hint_given=on_device(given),
            words=on_device(words.reshape(MAX_WORDS)),
        )

    def encode_scene(self, conditioning: Conditioning) -> SceneEncoding:
        """What the denoiser reads of one scene, for all hypotheses and steps."""
        with self._autocast():
            encoding: SceneEncoding = self.scene_encoder(conditioning)
        # What is shared by all steps is kept in single precision, whatever it was computed in.
        return SceneEncoding(*(getattr(encoding, field.name).float() for field in fields(encoding)))

    def timesteps(self, num_inference_steps: int) -> torch.Tensor:
        """The scheduler's timesteps, from pure noise on.

        Of more than FEW_STEPS none is below LOWEST_LEVEL, if the clean latents are predicted.
        """
        strides = num_inference_steps
        if num_inference_steps > FEW_STEPS and self.denoiser.prediction == "sample":
            strides = math.ceil((num_inference_steps - 1) / (1 - LOWEST_LEVEL) - 1e-6)
        self.scheduler.set_timesteps(strides)  # says how far one step goes
        count = int(self.scheduler.config["num_train_timesteps"])
        return count - 1 - count // strides * torch.arange(num_inference_steps)

    def denoise(
        self, latents: torch.Tensor, scene: SceneEncoding, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean latents (N, C, 32, 32) and moving-cell logits (N, 32, 32) of the last step.

        Args:
            latents: (N, C, 32, 32) at the first of the timesteps.
            scene: encodings, one per latent image.
            timesteps: the scheduler's, or the last of them.
        """
        clean, moving_logits = latents, torch.zeros(())
        for timestep in self.progress_bar(timesteps):
            with self._autocast():  # the scheduler's timesteps and products stay on the CPU
                output, moving_logits = self.denoiser(latents, timestep.to(latents.device).expand(len(latents)), scene)
            alpha = self.scheduler.alphas_cumprod[timestep]
            clean = clean_of(output.float(), latents, alpha, self.denoiser.prediction)
            latents = self.scheduler.step(clean, timestep, latents).prev_sample
        # Not `latents`: the steps end before the noise does.
        return clean, moving_logits


def moving_instances(cell_probability: torch.Tensor, scene_logits: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Probability that an instance moves in a drawn future: the mean of two opinions, as logits.

    The scene encoder knows best which object a sentence means, but not which of the likely futures was drawn.

    Args:
        cell_probability: (N, 1024) the denoiser's probability that a cell moves.
        scene_logits: (MAX_INSTANCES,) the scene encoder's logit that an instance moves.
        slots: (1024,) int64.

    Returns:
        (N, MAX_INSTANCES).
    """
    member = torch.nn.functional.one_hot(slots, len(scene_logits)).float()
    of_cells = (cell_probability @ member) / member.sum(dim=0).clamp(min=1)
    logits = torch.logit(of_cells.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    return torch.sigmoid((1 - SCENE_SHARE) * logits + SCENE_SHARE * scene_logits)


def goals_of(courses: torch.Tensor, codec: MotionCodec, slot_ids: Sequence[int]) -> dict[int, int]:
    """Instance id -> that of the instance that it is expected to go to, for those that are expected to go to one.

    Nobody told the scene encoder of goals: it is what its expected motions came to point at.

    Args:
        courses: (M, M, C / 3) of a `SceneEncoding`.
        codec: whose latents they are.
        slot_ids: instance id of slot 1, 2, ...
    """
    one_axis = torch.cat([courses, torch.zeros_like(courses), torch.zeros_like(courses)], dim=-1)
    share = codec.decode(one_axis)[..., -1, 0]  # of the way to each other instance, at the end
    count = len(slot_ids)
    share = share[1 : count + 1, 1 : count + 1].fill_diagonal_(0.0)
    if not count:
        return {}
    largest, goal = share.max(dim=1)
    return {slot_ids[slot]: slot_ids[int(goal[slot])] for slot in range(count) if float(largest[slot]) >= GOAL_SHARE}


def fit_grid(
    latents: torch.Tensor, grid: SceneGrid, min_cells: int = MIN_ARTICULATED_CELLS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An affine map for every instance, and which instances it does not explain.

    Args:
        latents: (N, C, P) drawn latents per cell.
        grid: of the same P cells.
        min_cells: how many make a large instance.

    Returns:
        (P,) slots of the cells; maps and centres as of `fit_instances`; (MAX_INSTANCES,) bool, large instances,
        never the background, whose cells move in ways that no affine map explains.
    """
    slots = torch.from_numpy(grid.slots).long().flatten()
    points = torch.from_numpy(grid.points_in_camera / grid.scale_m).reshape(-1, 3)
    valid = ~torch.isnan(points[:, 2])
    maps, centres = fit_instances(latents, slots, points, valid)
    articulated = torch.zeros(maps.shape[1], dtype=torch.bool)
    for slot in (torch.bincount(slots) >= min_cells).nonzero()[:, 0].tolist():
        if slot == 0:
            continue  # the background does not move
        cells = (slots == slot).nonzero()[:, 0]
        offset = torch.where(valid[cells, None], points[cells] - centres[slot], torch.zeros(()))  # (P, 3)
        design = torch.cat([torch.ones_like(offset[:, :1]), offset], dim=-1)
        drawn = latents[:, :, cells]
        residual = drawn - maps[:, slot].transpose(1, 2) @ design.T
        mean_square = [values.square().mean(dim=(0, 1)).sum() for values in (residual, drawn)]
        articulated[slot] = (mean_square[0] / mean_square[1].clamp(min=1e-9)).sqrt() > ARTICULATION_RESIDUAL
    return slots, maps, centres, articulated
