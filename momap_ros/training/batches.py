"""Prepared samples -> training batches: faults drawn, conditions dropped, targets and loss weights computed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as functional

from momap_ros.conditioning import GRID, HASH_BUCKETS, MAX_INSTANCES, Conditioning, assemble, slot_colors
from momap_ros.data import augment
from momap_ros.data.prepared import CELL_ROLES, PreparedSplit
from momap_ros.geometry import Float32
from momap_ros.model.codec import TemporalBasisCodec

HINT_THRESHOLD_M = 0.02
# Shares of the loss per sample, each spread over the cells of its group: a small object counts like a large one.
LOSS_SHARE = {"world": 0.25, "robot": 0.30, "moved": 0.30, "still": 0.15}
MIN_GROUP_CELLS = 4
# Words of a sentence that are replaced by unknown ones: any, and those that name something in the scene. Then the rest
# of the name, what else is there, and what can be done with it at all has to say what is meant.
STRANGE_SHARE, STRANGE_NAME_SHARE = 0.03, 0.12


@dataclass(frozen=True, eq=False)
class Drops:
    """Which conditions a batch is given.

    Attributes:
        text: probability that a prompt is kept.
        hints: "random" (half of the scenes none, a quarter all objects, a quarter moved ones only), "all" or "none".
        faults: True draws sensor and segmentation faults, and which wording is read; False: the sentence itself.
        mirrored: probability that a scene is seen in a mirror, its motion, left and right included.
    """

    text: float
    hints: str
    faults: bool
    mirrored: float = 0.0


TRAINING = Drops(text=0.85, hints="random", faults=True, mirrored=0.5)


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch.

    Attributes:
        conditioning: model inputs.
        latents: (B, C, 32, 32) clean latents.
        moving: (B, 32, 32) float, cells that move.
        slot_moves: (B, MAX_INSTANCES) float, slots most of whose cells move.
        slot_latents: (B, MAX_INSTANCES, C) mean latent of a slot's cells.
        slot_names: (B, MAX_INSTANCES, MAX_NAME_WORDS) int64 words of the name of the body that most of a slot's cells
            belong to; zeros where it has none.
        weights: (B, 1, 32, 32) loss weights with mean 1.
        log_duration: (B,).
    """

    conditioning: Conditioning
    latents: torch.Tensor
    moving: torch.Tensor
    slot_moves: torch.Tensor
    slot_latents: torch.Tensor
    slot_names: torch.Tensor
    weights: torch.Tensor
    log_duration: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "conditioning"}
        inputs = {f.name: getattr(self.conditioning, f.name).to(device) for f in fields(self.conditioning)}
        return Batch(Conditioning(**inputs), **moved)


def target_latents(split: PreparedSplit, indices: np.ndarray) -> torch.Tensor:
    """(B, C, 32, 32) exact whitened latents of the cells' points."""
    points = np.asarray(split.points_in_camera[indices], np.float32).reshape(len(indices), -1, 3)
    mover = np.asarray(split.mover[indices], np.intp).reshape(len(indices), -1)
    matrices = np.asarray(split.latent_from_point[indices])
    latents = np.zeros((*mover.shape, matrices.shape[2]), np.float32)
    sample, cell = np.nonzero(mover)
    homogeneous = np.concatenate([points[sample, cell], np.ones((len(sample), 1), np.float32)], axis=1)
    latents[sample, cell] = np.einsum("nij,nj->ni", matrices[sample, mover[sample, cell]], homogeneous)
    return torch.from_numpy(latents).transpose(1, 2).reshape(len(indices), -1, GRID, GRID)


def loss_weights(split: PreparedSplit, indices: np.ndarray, slots: np.ndarray) -> torch.Tensor:
    """(B, 1, 32, 32) weights with mean 1: each group of cells gets its share, whatever its size.

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
    result = torch.from_numpy(weights)[:, None]
    return result / result.mean()


def _hints(
    *,
    latents: torch.Tensor,
    slots: torch.Tensor,
    slot_moves: torch.Tensor,
    scale_m: torch.Tensor,
    codec: TemporalBasisCodec,
    drops: Drops,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """True direction flags per slot and which slots are told: (B, M, 3) and (B, M)."""
    batch = len(slots)
    final = (codec.basis[-1] * codec.coefficient_std) @ latents.reshape(batch, 3, -1, GRID * GRID)  # (B, 3, 1024)
    member = functional.one_hot(slots.reshape(batch, -1), MAX_INSTANCES).float()
    count = member.sum(dim=1)
    mean = torch.einsum("bpm,bcp->bmc", member, final) / count.clamp(min=1)[..., None] * scale_m[:, None, None]
    flags = torch.where(mean.abs() > HINT_THRESHOLD_M, mean.sign(), torch.zeros(())).long()
    modes = {"all": np.ones(batch), "none": np.zeros(batch), "random": rng.choice([0, 0, 1, 2], batch)}
    mode = torch.from_numpy(np.asarray(modes[drops.hints], np.int64))[:, None]
    given = ((mode == 1) | ((mode == 2) & (slot_moves > 0))) & (count > 0)
    given[:, 0] = False
    return flags, given


@dataclass(frozen=True, eq=False)
class _Views:
    """What is drawn for B samples: numpy arrays as `assemble` takes them, and which rows are mirrored."""

    rgb: Float32
    points: Float32
    slots: np.ndarray
    colors: Float32
    words: np.ndarray
    mirrored: np.ndarray


def _draw_views(split: PreparedSplit, indices: np.ndarray, drops: Drops, rng: np.random.Generator) -> _Views:
    batch = len(indices)
    points = np.asarray(split.seen_points_in_camera[indices], np.float32)
    rgb = np.asarray(split.rgb[indices], np.float32) / 127.5 - 1
    slots = np.zeros((batch, GRID, GRID), np.int64)
    colors = np.zeros((batch, MAX_INSTANCES, 3), np.float32)
    mirrored = rng.random(batch) < drops.mirrored
    words = np.zeros((batch, split.words.shape[2]), np.int64)
    for row, index in enumerate(indices):
        labels = np.asarray(split.label[index], np.int32)
        if drops.faults and not split.observed[index]:
            labels = augment.faulty_labels(split.body[index], split.role[index], rng)
            points[row] = augment.faulty_points(points[row], labels, rng)
        slots[row] = augment.slots_from_labels(labels, rng)
        colors[row] = slot_colors(range(1, MAX_INSTANCES), int(rng.integers(2**31)))
        wordings = (split.mirrored_words if mirrored[row] else split.words)[index]
        wording = rng.integers(max(int(wordings.any(axis=1).sum()), 1)) if drops.faults else 0
        words[row] = wordings[wording]
        if drops.faults:
            rgb[row] = augment.faulty_colors(rgb[row], rng)
            names = np.isin(words[row], split.names[index])
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


def _mirror(image: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """(B, H, W, ...) images with the given rows flipped from left to right."""
    choose = mirrored.reshape(-1, *(1,) * (image.ndim - 1))
    return np.where(choose, image[:, :, ::-1], image)


def make_batch(
    split: PreparedSplit, indices: np.ndarray, codec: TemporalBasisCodec, *, drops: Drops, rng: np.random.Generator
) -> Batch:
    """Build one batch; the same generator state gives the same batch."""
    batch = len(indices)
    views = _draw_views(split, indices, drops, rng)
    weights = loss_weights(split, indices, views.slots)
    names = torch.from_numpy(slot_names(split, indices, views.slots))
    mirror = torch.from_numpy(views.mirrored)
    flip = mirror[:, None, None, None]
    latents = target_latents(split, indices)
    of_x = torch.arange(latents.shape[1])[:, None, None] < latents.shape[1] // 3  # x, then y, then z
    latents = torch.where(flip, torch.where(of_x, -1, 1) * latents.flip(-1), latents)
    weights = torch.where(flip, weights.flip(-1), weights)
    moving = torch.from_numpy(_mirror(np.asarray(split.moving[indices], np.float32), views.mirrored))
    slots = torch.from_numpy(_mirror(views.slots, views.mirrored))
    points = _mirror(views.points, views.mirrored)
    points[..., 0] *= np.where(views.mirrored, -1, 1)[:, None, None]
    member = functional.one_hot(slots.reshape(batch, -1), MAX_INSTANCES).float()
    count = member.sum(dim=1).clamp(min=1)
    slot_moves = (torch.einsum("bpm,bp->bm", member, moving.reshape(batch, -1)) / count > 0.5).float()
    slot_latents = torch.einsum("bpm,bcp->bmc", member, latents.flatten(2)) / count[..., None]
    scale_m = torch.from_numpy(np.array(split.scale_m[indices]))
    flags, given = _hints(
        latents=latents, slots=slots, slot_moves=slot_moves, scale_m=scale_m, codec=codec, drops=drops, rng=rng
    )
    conditioning = assemble(
        rgb=torch.from_numpy(_mirror(views.rgb, views.mirrored)),
        points_in_camera=torch.from_numpy(points),
        scale_m=scale_m,
        slots=slots,
        colors=torch.from_numpy(views.colors),
        hint_flags=flags,
        hint_given=given,
        words=torch.from_numpy(views.words),
    )
    log_duration = torch.from_numpy(np.log(np.array(split.duration_s[indices])))
    return Batch(conditioning, latents, moving, slot_moves, slot_latents, names, weights, log_duration)
