"""What every step of a training run is made of: which samples, seen how, with what noise, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from momap_ros.data.growing import GrowingSplit
from momap_ros.data.prepared import PreparedSplit
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.noise import InstanceFrames, NoiseShares, draw_noise
from momap_ros.model.schedule import NUM_TIMESTEPS
from momap_ros.training.batches import Batch, complete
from momap_ros.training.loop import batch_indices, check_samples, learning_rate
from momap_ros.training.scenes import TRAINING, DrawnScenes, draw_scenes

END_SCALES = 0.3  # how far what is carried usually gets, in scene scales


@dataclass(frozen=True)
class PhasedTraining:
    """What the small model's training and those compared with it share, so that equal values are equal budgets.

    Attributes:
        steps: optimizer steps, all together.
        encoder_steps: the first of them, which train the scene encoder alone. To read a scene (which object the
            sentence means, where to) takes longest to learn and needs no denoiser: these steps are four times as fast.
        batch_size: scenes per step, all processes together.
        learning_rate: peak of the cosine.
        warmup_steps: linear rise.
        ema_decay: of the averaged weights that are kept.
        end_weight: of where a motion ends, beside its latents, see `error_map`.
        seed: of weights, data order, faults and noise.
        grows: samples that are prepared during the run are taken up; which step reads what then depends on when.
    """

    steps: int
    encoder_steps: int = 0
    batch_size: int = 64
    learning_rate: float = 8e-4
    warmup_steps: int = 200
    ema_decay: float = 0.999
    end_weight: float = 1.0
    seed: int = 0
    grows: bool = False

    def split(self, data: Path) -> PreparedSplit | GrowingSplit:
        """The samples that a run reads.

        Args:
            data: folder written by `momap train prepare`.

        Raises:
            FileNotFoundError: nothing was prepared.
            ValueError: less than a batch was.
        """
        split = GrowingSplit(data) if self.grows else PreparedSplit.open(data / "train")
        check_samples(data / "train", len(split), self)
        return split


@dataclass(frozen=True)
class SmallTraining(PhasedTraining):
    """Everything that decides the result of a run, beside the data.

    Attributes:
        shift: of the noise schedule, see `shifted_cosine_scheduler`.
        noise_shares: shift, tilt and white share of the noise, see `momap_ros.model.noise`.
        channels: widths of the denoiser.
        encoder_width: of the scene encoder's tokens.
        encoder_layers: of the scene encoder.
        mask_weight: of the moving-cell loss.
        instance_weight: of the which-instance-moves loss.
        naming_weight: of the loss of the words that name an instance.
        motion_weight: of the expected-motion-of-an-instance loss.
        duration_weight: of the duration loss.
        turning_weight: of the loss of how instances turn, see `scene_losses.turning_loss`.
        expects_turns: the scene encoder expects turns, see `momap_ros.model.turning`.
        expected_turn_weight: of the loss of the turns that it expects.
        by_length: errors count by the length of a motion and not by its square, see `scene_losses.expected_motion_loss`
            and `scene_losses.weighed_by_length`.
        start_from: run or checkpoint folder whose weights the run begins with; "" = random ones.
        prediction: what the denoiser predicts and its squared error is taken of, see `momap_ros.model.prediction`.
        blind_to: conditions that the model never sees, of `momap_ros.conditioning.BLINDABLE`.
        dropout: share of the hidden values that is dropped, in the residual blocks of the denoiser and in the layers of
            the scene encoder, as in Karras et al. 2022 (arXiv:2206.00364), App. F: few samples, read often, need it.
    """

    shift: float = 2.0
    noise_shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    channels: tuple[int, int] = (96, 192)
    encoder_width: int = 128
    encoder_layers: int = 3
    mask_weight: float = 0.15
    instance_weight: float = 0.1
    naming_weight: float = 0.1
    motion_weight: float = 0.3
    duration_weight: float = 0.05
    turning_weight: float = 0.0
    expects_turns: bool = False
    expected_turn_weight: float = 0.1
    by_length: bool = False
    start_from: str = ""
    prediction: str = "sample"
    blind_to: tuple[str, ...] = ()
    dropout: float = 0.0


def step_size(step: int, options: PhasedTraining) -> float:
    """Learning rate; the encoder's steps and those of the whole model rise and fall each for themselves."""
    if step < options.encoder_steps:
        return learning_rate(step, options, last=options.encoder_steps)
    return learning_rate(step, options, first=options.encoder_steps)


def error_map(codec: TemporalBasisCodec, end_weight: float) -> torch.Tensor:
    """(C, C + 3) what errors of latents are multiplied by before they are squared, see `squared_error`.

    Coefficients count by the root of their size, in x, y and z alike. Where a motion ends depends on all of them a
    little, so that a goal a sentence names would count for little: the last three columns are the error of the end.

    Args:
        codec: whose latents they are.
        end_weight: of the squared error of the end, in units of END_SCALES.
    """
    relative = (codec.coefficient_std / codec.coefficient_std[0]).sqrt()
    of_coefficients = torch.diag((relative / relative.mean()).repeat(3).sqrt())
    end = codec.decode(torch.eye(len(of_coefficients)))[:, -1] / END_SCALES
    return torch.cat([of_coefficients, (end_weight * len(end)) ** 0.5 * end], dim=1)


def squared_error(error: torch.Tensor, weighing: torch.Tensor) -> torch.Tensor:
    """(...) weighted mean square of (..., C) errors of latents; `weighing` is an `error_map`."""
    return (error @ weighing).square().sum(dim=-1) / len(weighing)


def latent_loss(error: torch.Tensor, weights: torch.Tensor, weighing: torch.Tensor) -> torch.Tensor:
    """Mean over cells of the weighted squared error of latent images.

    Args:
        error: (B, C, 32, 32).
        weights: (B, 1, 32, 32) of a `Batch`.
        weighing: (C, C + 3), see `error_map`.
    """
    return (squared_error(error.movedim(1, -1), weighing) * weights[:, 0]).mean()


@dataclass(frozen=True, eq=False)
class DrawnStep:
    """What one process needs for one step, drawn where the samples are; the rest is computed where the model is.

    Attributes:
        scenes: B of them.
        timesteps: (B,) int64.
        noise_seed: of the step's noise.
    """

    scenes: DrawnScenes
    timesteps: torch.Tensor
    noise_seed: int

    def pin_memory(self) -> DrawnStep:
        """The same step in memory that a GPU reads by itself; torch's loaders call it."""
        return DrawnStep(self.scenes.pin_memory(), self.timesteps.pin_memory(), self.noise_seed)

    def batch(self, codec: TemporalBasisCodec, device: torch.device) -> Batch:
        """The batch on a device."""
        return complete(self.scenes.to(device), codec)

    def noise(self, batch: Batch, shares: NoiseShares) -> torch.Tensor:
        """(B, C, 32, 32) noise of the batch, on its device, which decides what the seed means."""
        latents = batch.latents
        generator = torch.Generator(latents.device).manual_seed(self.noise_seed)
        frames = InstanceFrames.of(batch.conditioning)
        return draw_noise(frames, shares, len(latents), latents.shape[1], generator=generator)


def draw_step(
    split: PreparedSplit | GrowingSplit, options: PhasedTraining, step: int, *, rank: int, world: int
) -> DrawnStep:
    """Draw a step; it depends on the step and the process alone, so that a run can go on anywhere.

    Where samples grow, it depends on those that are there, too.
    """
    if isinstance(split, GrowingSplit):
        split.refresh()
    indices = batch_indices(len(split), step, options)[rank::world]
    rng = np.random.default_rng([options.seed, 2, step, rank])
    scenes = draw_scenes(split, indices, drops=TRAINING, rng=rng)
    timesteps = torch.from_numpy(rng.integers(NUM_TIMESTEPS, size=len(indices)))
    return DrawnStep(scenes, timesteps, int(rng.integers(2**62)))


class StepsAhead(Dataset[DrawnStep]):
    """The steps of a run as a data set, for worker processes to draw."""

    def __init__(
        self, split: PreparedSplit | GrowingSplit, options: PhasedTraining, steps: range, *, rank: int, world: int
    ) -> None:
        """Remember what is drawn from."""
        self.split, self.options, self.steps, self.rank, self.world = split, options, steps, rank, world

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.steps)

    def __getitem__(self, position: int) -> DrawnStep:
        """One of them."""
        torch.set_num_threads(1)
        return draw_step(self.split, self.options, self.steps[position], rank=self.rank, world=self.world)


def drawn_ahead(
    split: PreparedSplit | GrowingSplit,
    options: PhasedTraining,
    first: int,
    loaders: int,
    *,
    rank: int = 0,
    world: int = 1,
    pinned: bool = False,
) -> Iterator[DrawnStep | None]:
    """What the steps from `first` on need: drawn by other processes, or None: to be drawn in the step itself.

    Args:
        split: the samples.
        options: of the run.
        first: step.
        loaders: processes that draw; 0 = none.
        rank: of this process.
        world: processes that share a step.
        pinned: in memory that a GPU reads by itself.
    """
    remaining = range(first, options.steps)
    if not loaders:
        yield from (None for _ in remaining)
        return
    yield from DataLoader(
        StepsAhead(split, options, remaining, rank=rank, world=world),
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=4,
        multiprocessing_context="fork",
        pin_memory=pinned,
    )
