"""The full-size model: Stable Diffusion's U-Net draws the latents of a MoMap, its VAE widened to T steps decodes them.

Paper: Sec. 3.3.3. Same call and same result as the small model's; `MoMapPipeline.from_pretrained` chooses by what the
checkpoint's momap.json says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from momap_ros.conditioning import GRID, HINT_CHANNELS, MAX_INSTANCES
from momap_ros.instances import InstanceMap
from momap_ros.model.dense_scene import (
    CONDITIONS,
    LATENT_STRIDE,
    DenseScene,
    check_image_size,
    condition_images,
    dense_scene,
    hint_maps_of,
    scene_colors,
)
from momap_ros.model.device import fast_bfloat16
from momap_ros.model.duration_head import DurationHead
from momap_ros.model.momap_vae import StepCodec, decode_displacement, num_steps_of
from momap_ros.model.output import MoMapOutput
from momap_ros.model.pipeline import MIN_ARTICULATED_CELLS, MoMapPipeline, fit_grid
from momap_ros.rgbd import RGBDFrame

# A cell moves if it is ever farther than this from where it was seen; the threshold of ObjectMotionConfig.
MOVING_THRESHOLD_M = 0.02
# An instance surely moves where half of its cells do; an arm's base rests while its hand moves.
SURELY_MOVING_SHARE = 0.5


class FullMoMapPipeline(MoMapPipeline):
    """Draws futures of a frame with networks of Stable Diffusion's size.

    Args:
        vae: Stable Diffusion's own image VAE, frozen; encodes the condition images.
        momap_vae: MoMap VAE.
        unet: denoiser of the MoMap latents.
        text_encoder: CLIP.
        tokenizer: its tokenizer.
        duration_head: length of the motion.
        scheduler: noise levels and the DDIM step.
        image_size: S, side of the square images, pixels.
    """

    model_cpu_offload_seq = "text_encoder->vae->duration_head->unet->momap_vae"
    weights = ("vae", "momap_vae", "unet", "text_encoder", "duration_head")
    can_continue = False

    def __init__(
        self,
        *,
        vae: AutoencoderKL,
        momap_vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        duration_head: DurationHead,
        scheduler: DDIMScheduler,
        image_size: int = 256,
    ) -> None:
        """Register the components; they are what `save_pretrained` writes.

        Raises:
            ValueError: the U-Net's inputs or outputs do not fit the latents.
        """
        DiffusionPipeline.__init__(self)
        self.register_modules(
            vae=vae,
            momap_vae=momap_vae,
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            duration_head=duration_head,
            scheduler=scheduler,
        )
        self.register_to_config(image_size=check_image_size(image_size))
        self.set_progress_bar_config(disable=True)
        self.latent_channels = int(momap_vae.config["latent_channels"])
        self.hint_channels = hint_channels(vae, momap_vae, unet)
        self.num_steps = num_steps_of(momap_vae)
        self._text: tuple[str, torch.Tensor, tuple[str, ...]] | None = None

    @classmethod
    def _from_folder(cls, folder: Path, info: dict[str, Any], options: dict[str, object]) -> MoMapPipeline:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would land in node logs
        return super()._from_folder(folder, info, options)

    def to_device(self, device: str, precision: str = "auto") -> None:
        """Move the networks; those whose rounding is not seen in millimetres may take bfloat16.

        Args:
            device: of torch.
            precision: "float32", "bfloat16", or "auto": bfloat16 on a GPU where that is fast.
        """
        half = precision == "bfloat16" or (precision == "auto" and device != "cpu" and fast_bfloat16(device))
        self.precision = "bfloat16" if half else "float32"
        for network in (self.vae, self.unet, self.text_encoder):
            network.to(device)
            network.bfloat16() if half else network.float()
        # A displacement is a difference of positions: eight bits of them would leave several millimetres.
        self.momap_vae.to(device)
        self.duration_head.to(device)
        self._text = None

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
        """Draw futures; arguments, result and errors as those of `MoMapPipeline.__call__`.

        Raises:
            ValueError: hints for a checkpoint that was made without them, or an earlier forecast to go on from.
        """
        if previous is not None:
            raise ValueError(f"previous: the full model starts every forecast anew, got one of {elapsed_s} s ago")
        # 1. Stretch the frame to the model's square; metres, optical frame.
        scene = dense_scene(frame, instances, self.config["image_size"])
        started = time.perf_counter()
        # 2. Condition images -> latents (1, 12, S/8, S/8), hints below them where the checkpoint takes any.
        conditions = self._conditions(scene, hints or {}, color_seed)
        # 3. Sentence -> (1, L, D).
        text, ignored = self._encode(prompt)
        # 4. Noise (N, C, S/8, S/8), drawn on the CPU so that a seed means the same on every device.
        side = self.config["image_size"] // LATENT_STRIDE
        shape = (num_hypotheses, self.latent_channels, side, side)
        if latents is None:
            latents = torch.randn(shape, generator=generator, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents: expected {shape}, got {tuple(latents.shape)}")
        # 5. Denoise all futures in one batch.
        clean = self.sample(latents.to(conditions.device), conditions, text, num_inference_steps)
        # 6. Decode one future after the other; displacements in scene scales, at one real pixel per cell.
        drawn = torch.stack([self._decode(row[None], scene) for row in clean])  # (N, 3T, cells)
        # 7. The predicted length of the motion gives the steps their seconds.
        duration_s = float(self.duration_head(text, conditions[:, : len(CONDITIONS) * 4])[0].exp())
        step_s = duration_s / max(self.num_steps - 1, 1)
        network_s = time.perf_counter() - started
        # 8. One affine motion per instance and step; whether an instance moves is what its cells do.
        grid = scene.grid
        min_cells = MIN_ARTICULATED_CELLS * grid.slots.size // GRID**2
        slots, maps, centres, articulated = fit_grid(drawn, grid, min_cells)
        moving = moving_instances(drawn, slots, grid.scale_m)
        codec = StepCodec(self.num_steps)
        return MoMapOutput(
            frame,
            instances,
            grid,
            codec,
            drawn,
            maps,
            centres,
            moving,
            articulated,
            step_s,
            ignored,
            network_s=network_s,
        )

    def sample(
        self, latents: torch.Tensor, conditions: torch.Tensor, text: torch.Tensor, num_inference_steps: int
    ) -> torch.Tensor:
        """Clean latents (N, C, h, w) from noise, for N futures of one scene."""
        self.scheduler.set_timesteps(num_inference_steps)
        dtype, count = self.unet.dtype, len(latents)
        told, words = conditions.expand(count, -1, -1, -1).to(dtype), text.expand(count, -1, -1).to(dtype)
        clean = latents
        for timestep in self.progress_bar(self.scheduler.timesteps):
            inputs = torch.cat([latents.to(dtype), told], dim=1)
            predicted = self.unet(inputs, timestep, encoder_hidden_states=words).sample
            step = self.scheduler.step(predicted.float(), timestep, latents)
            latents, clean = step.prev_sample, step.pred_original_sample
        # Not `latents`: where the steps do not divide the timesteps, the last one would leave a little noise in them.
        return clean

    def _conditions(self, scene: DenseScene, hints: Mapping[int, Sequence[int]], color_seed: int) -> torch.Tensor:
        """(1, 12 + hint channels, S/8, S/8)."""
        if hints and not self.hint_channels:
            raise ValueError(
                "hints: expected none, this full-size checkpoint was made without them; make one that takes them with "
                "`momap init-full --hints`, or say it in the prompt"
            )
        images = torch.from_numpy(condition_images(scene, scene_colors(scene, color_seed)))
        latents = encode_conditions(self.vae, images[None])
        if not self.hint_channels:
            return latents
        maps = torch.from_numpy(hint_maps_of(scene, hints))[None]
        return torch.cat([latents, maps.to(latents)], dim=1)

    def _encode(self, prompt: str) -> tuple[torch.Tensor, tuple[str, ...]]:
        """(1, L, D) hidden states of a sentence, and the words beyond CLIP's length; the last sentence is kept."""
        if self._text is None or self._text[0] != prompt:
            hidden = encode_text(self.text_encoder, self.tokenizer, [prompt])
            self._text = (prompt, hidden, words_cut_off(self.tokenizer, prompt))
        return self._text[1], self._text[2]

    def _decode(self, clean: torch.Tensor, scene: DenseScene) -> torch.Tensor:
        """(1, C, h, w) latents -> (3T, cells) displacements of the cells' pixels, on the CPU."""
        displacement = decode_displacement(self.momap_vae, clean)[0].flatten(0, 1)  # (3T, S, S)
        rows, columns = (torch.from_numpy(index.ravel()) for index in (scene.cell_rows, scene.cell_columns))
        of_cells: torch.Tensor = displacement[:, rows.to(displacement.device), columns.to(displacement.device)].cpu()
        return of_cells


def hint_channels(vae: AutoencoderKL, momap_vae: AutoencoderKL, unet: UNet2DConditionModel) -> int:
    """How many of the U-Net's inputs are direction hints: HINT_CHANNELS or 0.

    Raises:
        ValueError: its inputs or outputs do not fit the latents.
    """
    drawn, told = int(momap_vae.config["latent_channels"]), len(CONDITIONS) * int(vae.config["latent_channels"])
    found = int(unet.config["in_channels"]), int(unet.config["out_channels"])
    for hints in (0, HINT_CHANNELS):
        if found == (drawn + told + hints, drawn):
            return hints
    raise ValueError(
        f"unet: expected {drawn + told} inputs ({HINT_CHANNELS} more with hints) and {drawn} outputs, got {found}; "
        "the folder was put together from two models"
    )


@torch.no_grad()
def encode_conditions(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3, S, S) condition images in [-1, 1] -> (B, 12, S/8, S/8) float32 latents on the VAE's device.

    Paper: Sec. 3.3.3: "encoded by 2D VAE encoders into low-resolution latents".
    """
    parameter = next(vae.parameters())
    flat = images.flatten(0, 1).to(device=parameter.device, dtype=parameter.dtype)
    latents = vae.encode(flat).latent_dist.mode().float() * float(vae.config["scaling_factor"])
    together: torch.Tensor = latents.unflatten(0, tuple(images.shape[:2])).flatten(1, 2)
    return together


@torch.no_grad()
def encode_text(text_encoder: Any, tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:  # noqa: ANN401
    """(B, L, D) float32 hidden states of CLIP, as in Stable Diffusion; sentences are cut at its length."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=text_encoder.config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    )
    device = next(text_encoder.parameters()).device
    hidden: torch.Tensor = text_encoder(tokens.input_ids.to(device))[0]
    return hidden.float()


def words_cut_off(tokenizer: Any, prompt: str) -> tuple[str, ...]:  # noqa: ANN401
    """The words of a sentence that are beyond CLIP's length."""
    kept = tokenizer.model_max_length - 1  # the last token says that the text ends
    numbers = tokenizer(prompt, truncation=False, verbose=False).input_ids[:-1]
    return tuple(tokenizer.decode(numbers[kept:], skip_special_tokens=True).split())


def moving_instances(drawn: torch.Tensor, slots: torch.Tensor, scale_m: float) -> torch.Tensor:
    """How surely every instance moves in every future.

    Args:
        drawn: (N, 3T, P) displacements in scene scales.
        slots: (P,) slot of each cell.
        scale_m: scene scale.

    Returns:
        (N, MAX_INSTANCES) in [0, 1]: the share of its cells that move, 1 from SURELY_MOVING_SHARE on.
    """
    farthest_m = drawn.unflatten(1, (-1, 3)).norm(dim=2).amax(dim=1) * scale_m  # (N, P)
    member = torch.nn.functional.one_hot(slots, MAX_INSTANCES).float()
    share: torch.Tensor = (farthest_m > MOVING_THRESHOLD_M).float() @ member / member.sum(dim=0).clamp(min=1)
    return torch.clamp(share / SURELY_MOVING_SHARE, max=1)
