"""Prepared samples -> drawn scenes: who sees what, with which faults and wordings; all that is drawn but the noise."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from momap_ros.conditioning import GRID, HASH_BUCKETS, MAX_INSTANCES
from momap_ros.data import augment
from momap_ros.data.growing import GrowingSplit
from momap_ros.data.prepared import CELL_ROLES, PreparedSplit
from momap_ros.geometry import Float32

# Shares of the loss per sample, each spread over the cells of its group: a small object counts like a large one.
LOSS_SHARE = {"world": 0.25, "robot": 0.30, "moved": 0.30, "still": 0.15}
MIN_GROUP_CELLS = 4
# Words of a sentence that are replaced by unknown ones: any, and those that name something in the scene. Then the rest
# of the name, what else is there, and what can be done with it at all has to say what is meant.
STRANGE_SHARE, STRANGE_NAME_SHARE = 0.03, 0.12
HINT_MODES = ("none", "all", "moved")


@dataclass(frozen=True, eq=False)
class Drops:
    """Which conditions a batch is given.

    Attributes:
        text: probability that a prompt is kept.
        hints: "random" (half of the scenes none, a quarter all objects, a quarter moved ones only), "all" or "none".
        faults: True draws sensor and segmentation faults, and which wording is read; False: the sentence itself.
        mirrored: probability that a scene is seen in a mirror, its motion, left and right included.
        cropped: probability that only a part of a scene is seen, see `augment.cropped`.
    """

    text: float
    hints: str
    faults: bool
    mirrored: float = 0.0
    cropped: float = 0.0


TRAINING = Drops(text=0.85, hints="random", faults=True, mirrored=0.5, cropped=0.5)


@dataclass(frozen=True, eq=False)
class DrawnScenes:
    """B scenes as they were drawn: small enough to send between processes; `batches.complete` computes the rest.

    Images are not mirrored yet, words are. Beside a GPU the process that receives them is what training waits for, so
    that nothing has more bits than it needs: 61 kB per scene.

    Attributes:
        rgb: (B, 64, 64, 3) float16, about [-1, 1].
        seen_points_in_camera: (B, 32, 32, 3) float32 metres, what the camera measured; NaN in holes.
        points_in_camera: (B, 32, 32, 3) float16 metres, exact.
        slots: (B, 32, 32) uint8.
        colors: (B, MAX_INSTANCES, 3) in [-1, 1].
        words: (B, MAX_WORDS) int64.
        slot_names: (B, MAX_INSTANCES, MAX_NAME_WORDS) int64, see `Batch`.
        mirrored: (B,) bool, scenes to be seen in a mirror.
        hint_modes: (B,) int64 indices of HINT_MODES.
        mover: (B, 32, 32) uint8 row of `latent_from_point` that moves a cell.
        latent_from_point: (B, MAX_MOVERS + 1, 3K, 4) float32.
        moving: (B, 32, 32) bool.
        weights: (B, 32, 32) float32 loss weights with mean 1.
        scale_m: (B,) float32 scene scale, metres.
        duration_s: (B,) float32.
    """

    rgb: torch.Tensor
    seen_points_in_camera: torch.Tensor
    points_in_camera: torch.Tensor
    slots: torch.Tensor
    colors: torch.Tensor
    words: torch.Tensor
    slot_names: torch.Tensor
    mirrored: torch.Tensor
    hint_modes: torch.Tensor
    mover: torch.Tensor
    latent_from_point: torch.Tensor
    moving: torch.Tensor
    weights: torch.Tensor
    scale_m: torch.Tensor
    duration_s: torch.Tensor

    def to(self, device: torch.device) -> DrawnScenes:
        """The same scenes on another device."""
        return DrawnScenes(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def pin_memory(self) -> DrawnScenes:
        """The same scenes in memory that a GPU reads by itself; torch's loaders call it."""
        return DrawnScenes(*(getattr(self, f.name).pin_memory() for f in fields(self)))


def loss_weights(split: PreparedSplit, indices: np.ndarray, slots: np.ndarray) -> Float32:
    """(B, 32, 32) weights with mean 1: each group of cells gets its share, whatever its size.

    What moves but belongs to no instance weighs nothing: a forecast cannot move it either.

    Args:
        split: the samples.
        indices: (B,) which of them.
        slots: (B, 32, 32) instance slot per cell, not mirrored.
    """
    weights = np.zeros((len(indices), GRID, GRID), np.float32)
    for row, index in enumerate(indices):
        role, body, moving = split.role[index], split.body[index], split.moving[index]
        is_object = (role != CELL_ROLES["world"]) & (role != CELL_ROLES["robot"])
        moved = [b for b in np.unique(body[is_object]) if moving[body == b].mean() > 0.5]
        in_moved = is_object & np.isin(body, moved)
        groups = [
            (role == CELL_ROLES["world"], LOSS_SHARE["world"]),
            (role == CELL_ROLES["robot"], LOSS_SHARE["robot"]),
            (is_object & ~in_moved, LOSS_SHARE["still"]),
            *((body == b, LOSS_SHARE["moved"] / len(moved)) for b in moved),
        ]
        for cells, share in groups:
            weights[row][cells] = share / max(int(cells.sum()), MIN_GROUP_CELLS)
        weights[row][(slots[row] == 0) & moving] = 0
    return np.asarray(weights / weights.mean(), np.float32)


@dataclass(frozen=True, eq=False)
class _Views:
    """What is drawn for B samples: numpy arrays as `assemble` takes them, and which rows are mirrored."""

    rgb: Float32
    points: Float32
    slots: np.ndarray
    colors: Float32
    words: np.ndarray
    mirrored: np.ndarray


def _draw_views(split: PreparedSplit, drops: Drops, rng: np.random.Generator) -> _Views:
    batch = len(split)
    points = np.array(split.seen_points_in_camera, np.float32)
    rgb = np.asarray(split.rgb, np.float32) / 127.5 - 1
    slots = np.zeros((batch, GRID, GRID), np.int64)
    colors = rng.uniform(-1, 1, (batch, MAX_INSTANCES, 3)).astype(np.float32)
    colors[:, 0] = 0
    mirrored = rng.random(batch) < drops.mirrored
    words = np.zeros((batch, split.words.shape[2]), np.int64)
    for row in range(batch):
        labels = np.asarray(split.label[row], np.int32)
        if drops.faults and not split.observed[row]:
            labels = augment.faulty_labels(split.body[row], split.role[row], rng)
            points[row] = augment.faulty_points(points[row], labels, rng)
        slots[row] = augment.slots_from_labels(labels, rng)
        wordings = (split.mirrored_words if mirrored[row] else split.words)[row]
        wording = rng.integers(max(int(wordings.any(axis=1).sum()), 1)) if drops.faults else 0
        words[row] = wordings[wording]
        if drops.faults:
            rgb[row] = augment.faulty_colors(rgb[row], rng)
            names = np.isin(words[row], split.names[row])
            share = np.where(names, STRANGE_NAME_SHARE, STRANGE_SHARE) * (words[row] > 0)
            strange = 1 + rng.integers(0, HASH_BUCKETS, words.shape[1])
            words[row] = np.where(rng.random(words.shape[1]) < share, strange, words[row])
        words[row] *= rng.random() < drops.text
    return _Views(rgb, points, slots, colors, words, mirrored)


def slot_names(split: PreparedSplit, indices: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(B, MAX_INSTANCES, MAX_NAME_WORDS) words of the name of each slot's body, the one with most of its cells.

    Args:
        split: the samples.
        indices: (B,) which of them.
        slots: (B, 32, 32) instance slot per cell, not mirrored.
    """
    batch, bodies = len(indices), split.names.shape[1]
    body = np.minimum(np.asarray(split.body[indices], np.intp), bodies - 1)
    pair = (np.arange(batch)[:, None, None] * MAX_INSTANCES + slots) * bodies + body
    cells = np.bincount(pair.ravel(), minlength=batch * MAX_INSTANCES * bodies).reshape(batch, MAX_INSTANCES, bodies)
    names = np.asarray(split.names[indices], np.int64)
    return np.asarray(names[np.arange(batch)[:, None], cells.argmax(axis=2)] * (cells.max(axis=2) > 0)[..., None])


def draw_scenes(
    split: PreparedSplit | GrowingSplit, indices: np.ndarray, *, drops: Drops, rng: np.random.Generator
) -> DrawnScenes:
    """Draw how B samples are seen; the same generator state gives the same scenes.

    Args:
        split: the samples.
        indices: (B,) which of them.
        drops: which conditions are given.
        rng: source.
    """
    chosen = split.take(indices)
    if drops.cropped:
        chosen = augment.cropped(chosen, drops.cropped, rng)
    rows = np.arange(len(chosen))
    views = _draw_views(chosen, drops, rng)
    given = [HINT_MODES.index(drops.hints)] if drops.hints in HINT_MODES else [0, 0, 1, 2]
    return DrawnScenes(
        rgb=torch.from_numpy(views.rgb).half(),
        seen_points_in_camera=torch.from_numpy(views.points),
        points_in_camera=torch.from_numpy(np.array(chosen.points_in_camera, np.float16)),
        slots=torch.from_numpy(views.slots.astype(np.uint8)),
        colors=torch.from_numpy(views.colors),
        words=torch.from_numpy(views.words),
        slot_names=torch.from_numpy(slot_names(chosen, rows, views.slots)),
        mirrored=torch.from_numpy(views.mirrored),
        hint_modes=torch.from_numpy(rng.choice(given, len(chosen))),
        mover=torch.from_numpy(np.array(chosen.mover, np.uint8)),
        latent_from_point=torch.from_numpy(np.array(chosen.latent_from_point)),
        moving=torch.from_numpy(np.array(chosen.moving, np.bool_)),
        weights=torch.from_numpy(loss_weights(chosen, rows, views.slots)),
        scale_m=torch.from_numpy(np.array(chosen.scale_m)),
        duration_s=torch.from_numpy(np.array(chosen.duration_s)),
    )
