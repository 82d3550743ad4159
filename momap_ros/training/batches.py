"""Prepared samples -> training batches: faults drawn, conditions dropped, targets and loss weights computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional

from momap_ros.conditioning import GRID, HASH_BUCKETS, MAX_INSTANCES, Conditioning, assemble, slot_colors
from momap_ros.data import augment
from momap_ros.data.prepared import CELL_ROLES, PreparedSplit
from momap_ros.model.codec import TemporalBasisCodec

HINT_THRESHOLD_M = 0.02
# Shares of the loss per sample, each spread over the cells of its group: a small object counts like a large one.
LOSS_SHARE = {"world": 0.25, "robot": 0.30, "moved": 0.30, "still": 0.15}
MIN_GROUP_CELLS = 4


@dataclass(frozen=True, eq=False)
class Drops:
    """Which conditions a batch is given.

    Attributes:
        text: probability that a prompt is kept.
        hints: "random" (half of the scenes none, a quarter all objects, a quarter moved ones only), "all" or "none".
        faults: True draws sensor and segmentation faults.
    """

    text: float
    hints: str
    faults: bool


TRAINING = Drops(text=0.85, hints="random", faults=True)


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch.

    Attributes:
        conditioning: model inputs.
        latents: (B, C, 32, 32) clean latents.
        moving: (B, 32, 32) float, cells that move.
        slot_moves: (B, MAX_INSTANCES) float, slots most of whose cells move.
        weights: (B, 1, 32, 32) loss weights with mean 1.
        log_duration: (B,).
    """

    conditioning: Conditioning
    latents: torch.Tensor
    moving: torch.Tensor
    slot_moves: torch.Tensor
    weights: torch.Tensor
    log_duration: torch.Tensor


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


def loss_weights(split: PreparedSplit, indices: np.ndarray) -> torch.Tensor:
    """(B, 1, 32, 32) weights with mean 1: each group of cells gets its share, whatever its size."""
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


def make_batch(
    split: PreparedSplit, indices: np.ndarray, codec: TemporalBasisCodec, *, drops: Drops, rng: np.random.Generator
) -> Batch:
    """Build one batch; the same generator state gives the same batch."""
    batch = len(indices)
    points = np.asarray(split.points_in_camera[indices], np.float32)
    rgb = np.asarray(split.rgb[indices], np.float32) / 127.5 - 1
    slots = np.zeros((batch, GRID, GRID), np.int64)
    colors = np.zeros((batch, MAX_INSTANCES, 3), np.float32)
    words = np.array(split.words[indices])
    for row, index in enumerate(indices):
        make_labels = augment.faulty_labels if drops.faults else lambda b, r, _: augment.true_labels(b, r)
        labels = make_labels(split.body[index], split.role[index], rng)
        slots[row] = augment.slots_from_labels(labels, rng)
        colors[row] = slot_colors(range(1, MAX_INSTANCES), int(rng.integers(2**31)))
        if drops.faults:
            points[row] = augment.faulty_points(points[row], labels, rng)
            rgb[row] = augment.faulty_colors(rgb[row], rng)
            strange = (words[row] > 0) & (rng.random(words.shape[1]) < 0.03)
            words[row] = np.where(strange, 1 + rng.integers(0, HASH_BUCKETS, words.shape[1]), words[row])
        words[row] *= rng.random() < drops.text
    latents = target_latents(split, indices)
    moving = torch.from_numpy(np.asarray(split.moving[indices], np.float32))
    slot_tensor = torch.from_numpy(slots)
    member = functional.one_hot(slot_tensor.reshape(batch, -1), MAX_INSTANCES).float()
    share = torch.einsum("bpm,bp->bm", member, moving.reshape(batch, -1)) / member.sum(dim=1).clamp(min=1)
    slot_moves = (share > 0.5).float()
    scale_m = torch.from_numpy(np.array(split.scale_m[indices]))
    flags, given = _hints(
        latents=latents,
        slots=slot_tensor,
        slot_moves=slot_moves,
        scale_m=scale_m,
        codec=codec,
        drops=drops,
        rng=rng,
    )
    conditioning = assemble(
        rgb=torch.from_numpy(rgb),
        points_in_camera=torch.from_numpy(points),
        scale_m=scale_m,
        slots=slot_tensor,
        colors=torch.from_numpy(colors),
        hint_flags=flags,
        hint_given=given,
        words=torch.from_numpy(words),
    )
    log_duration = torch.from_numpy(np.log(np.array(split.duration_s[indices])))
    return Batch(conditioning, latents, moving, slot_moves, loss_weights(split, indices), log_duration)
