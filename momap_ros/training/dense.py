"""Stored samples -> batches of whole images for the full model: faults drawn, conditions dropped, true MoMaps made.

Everything random about a sample depends on the run's seed, the step and its place in the batch alone, so neither an
interruption nor the number of processes changes what is learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from momap_ros.conditioning import MAX_INSTANCES
from momap_ros.data.prepared import MOVING_THRESHOLD_M
from momap_ros.data.sample import Sample
from momap_ros.data.segmentation_faults import faulty_instances
from momap_ros.data.sensor import observe
from momap_ros.data.shard_index import ShardIndex
from momap_ros.geometry import Float32
from momap_ros.model.dense_scene import (
    CONDITIONS,
    DenseScene,
    condition_images,
    dense_scene,
    hint_maps,
    momap_image,
    scene_colors,
)
from momap_ros.momap import MoMap, direction_flags
from momap_ros.rgbd import FrameError, RGBDFrame, resize_nearest
from momap_ros.training.batches import HINT_THRESHOLD_M
from momap_ros.training.loop import LoopOptions, batch_indices, check_samples


@dataclass(frozen=True)
class DenseDrops:
    """What a sample of a batch is given.

    Attributes:
        conditions: probability that each of CONDITIONS is kept.
        text: probability that the sentence is kept.
        hints: True tells nothing of half of the scenes, all instances of a quarter, the moved ones of a quarter.
        faults: True draws what a camera and a segmenter would have made of the exact sample.
    """

    conditions: tuple[float, float, float] = (0.95, 0.9, 0.95)
    text: float = 0.85
    hints: bool = True
    faults: bool = True


EXACT = DenseDrops(conditions=(1.0, 1.0, 1.0), text=1.0, hints=False, faults=False)


@dataclass(frozen=True, eq=False)
class DenseBatch:
    """B samples at the model's size of S x S pixels.

    Attributes:
        momaps: (B, 3 T, S, S) true MoMaps in scene scales, see `momap_image`.
        valid: (B, 1, S, S) float, pixels whose trajectory is known.
        moving: (B, 1, S, S) float, pixels whose point moves more than a centimetre.
        images: (B, 3, 3, S, S) condition images, see `condition_images`.
        kept: (B, 3) float, which of them are given.
        hints: (B, HINT_CHANNELS, S/8, S/8).
        scale_m: (B,) scene scales, metres.
        log_duration: (B,) natural logarithm of seconds.
        prompts: B sentences; empty where dropped.
        seeds: B, of each sample's noise.
    """

    momaps: torch.Tensor
    valid: torch.Tensor
    moving: torch.Tensor
    images: torch.Tensor
    kept: torch.Tensor
    hints: torch.Tensor
    scale_m: torch.Tensor
    log_duration: torch.Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """B."""
        return len(self.prompts)

    def to(self, device: str) -> DenseBatch:
        """The batch on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: value.to(device) for n, value in values.items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)

    def noise(self, *shape: int) -> torch.Tensor:
        """(B, *shape) of unit size, each sample's from its own seed, drawn on the CPU."""
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in self.seeds]
        return torch.stack(drawn).to(self.momaps.device)

    def timesteps(self, count: int) -> torch.Tensor:
        """(B,) noise levels in [0, count), each sample's from its own seed."""
        drawn = [np.random.default_rng([seed, 1]).integers(count) for seed in self.seeds]
        return torch.tensor(drawn, dtype=torch.int64, device=self.momaps.device)


class DenseBatches(Dataset[DenseBatch]):
    """The micro-batches of one process, by number: `accumulate` of them make its part of a step.

    Args:
        index: stored samples.
        image_size: S.
        num_steps: T that the model has.
        options: of the run.
        drops: what a sample is given.
        rank: of this process.
        world: processes.
        accumulate: micro-batches per step and process.

    Raises:
        ValueError: fewer samples than a batch, or a batch that does not divide.
    """

    def __init__(
        self,
        index: ShardIndex,
        options: LoopOptions,
        drops: DenseDrops,
        *,
        image_size: int,
        num_steps: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        """Check that the sizes fit."""
        check_samples(index.folder, len(index), options)
        if options.batch_size % (world * accumulate):
            raise ValueError(
                f"batch_size: expected a multiple of {world} processes x {accumulate} micro-batches, got "
                f"{options.batch_size}"
            )
        self.index, self.options, self.drops = index, options, drops
        self.image_size, self.num_steps = image_size, num_steps
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __len__(self) -> int:
        """Micro-batches of the whole run."""
        return self.options.steps * self.accumulate

    def __getitem__(self, number: int) -> DenseBatch:
        """Make one micro-batch."""
        step, part = divmod(number, self.accumulate)
        numbers = batch_indices(len(self.index), step, self.options)
        places = np.arange(len(numbers))[self.rank :: self.world]
        chosen = np.array_split(places, self.accumulate)[part]
        samples = []
        for place in chosen:
            rng = np.random.default_rng([self.options.seed, 2, step, int(place)])
            samples.append(self.sample(self.index[int(numbers[place])], rng))
        return collate(samples)

    def sample(self, sample: Sample, rng: np.random.Generator) -> DenseBatch:
        """One stored sample as a batch of one."""
        if len(sample.motion_t_from_0) != self.num_steps:
            raise ValueError(
                f"sample {sample.key}: expected T = {self.num_steps} steps, as the checkpoint has, got "
                f"{len(sample.motion_t_from_0)}; make the checkpoint with --num-steps {len(sample.motion_t_from_0)}"
            )
        return dense_sample(sample, self.image_size, self.drops, rng)


def dense_sample(sample: Sample, image_size: int, drops: DenseDrops, rng: np.random.Generator) -> DenseBatch:
    """A stored sample at the model's size, as a batch of one."""
    observed, instances = sample, sample.instance_map(merge_robot=True)
    if drops.faults:
        observed, instances = observe(sample, rng), faulty_instances(sample, rng)
    try:
        scene = dense_scene(RGBDFrame(observed.rgb, observed.depth_m, sample.camera), instances, image_size)
    except FrameError:
        # All of it is nearer than the drawn camera measures; the pipeline refuses such frames, so none is learned from.
        scene = dense_scene(RGBDFrame(observed.rgb, sample.depth_m, sample.camera), instances, image_size)
    momap = stretched(sample, image_size).momap()
    flags, moved = true_flags(momap, scene)
    # As in the small model's training: half of the scenes without hints.
    given = {0: np.zeros_like(moved), 1: np.ones_like(moved), 2: moved}[int(rng.choice([0, 0, 1, 2])) * drops.hints]
    text = str(rng.choice([sample.text, *sample.paraphrases]))
    kept = (rng.random(len(CONDITIONS)) < drops.conditions).astype(np.float32)
    return DenseBatch(
        momaps=torch.from_numpy(momap_image(momap, scene.grid.scale_m))[None],
        valid=torch.from_numpy(momap.valid.astype(np.float32))[None, None],
        moving=torch.from_numpy(momap.moving_mask(MOVING_THRESHOLD_M).astype(np.float32))[None, None],
        images=torch.from_numpy(condition_images(scene, scene_colors(scene, int(rng.integers(2**31)))))[None],
        kept=torch.from_numpy(kept)[None],
        hints=torch.from_numpy(hint_maps(scene.slots, flags, given & (np.arange(MAX_INSTANCES) > 0)))[None],
        scale_m=torch.tensor([scene.grid.scale_m], dtype=torch.float32),
        log_duration=torch.tensor([sample.duration_s], dtype=torch.float32).log(),
        prompts=(text if rng.random() < drops.text else "",),
        seeds=(int(rng.integers(2**62)),),
    )


def stretched(sample: Sample, size: int) -> Sample:
    """The sample at size x size pixels, as `RGBDFrame.resized` stretches a frame: the nearest pixel, never blended."""
    return replace(
        sample,
        rgb=resize_nearest(sample.rgb, size, size),
        depth_m=resize_nearest(sample.depth_m, size, size),
        body_ids=resize_nearest(sample.body_ids, size, size),
        camera=sample.camera.resized(size, size),
        visible=None,
    )


def true_flags(momap: MoMap, scene: DenseScene) -> tuple[np.ndarray, np.ndarray]:
    """Where instances go: (MAX_INSTANCES, 3) flags over the whole horizon, and (MAX_INSTANCES,) which ones move."""
    final: Float32 = momap.displacement_m[-1]
    farthest = momap.moving_mask(MOVING_THRESHOLD_M)
    flags, moved = np.zeros((MAX_INSTANCES, 3), np.int8), np.zeros(MAX_INSTANCES, np.bool_)
    for slot in range(1, len(scene.grid.slot_ids) + 1):
        pixels = (scene.slots == slot) & momap.valid
        if pixels.any():
            flags[slot] = direction_flags(final[pixels].mean(axis=0), HINT_THRESHOLD_M)
            moved[slot] = farthest[pixels].mean() > 0.5
    return flags, moved


def collate(samples: Sequence[DenseBatch]) -> DenseBatch:
    """Several batches as one."""
    joined: dict[str, Any] = {}
    for field in fields(DenseBatch):
        parts = [getattr(sample, field.name) for sample in samples]
        if isinstance(parts[0], torch.Tensor):
            joined[field.name] = torch.cat(parts)
        else:
            joined[field.name] = tuple(value for part in parts for value in part)
    return DenseBatch(**joined)
