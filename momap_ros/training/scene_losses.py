"""Losses of whole instances: what they are called, which of them moves, how, for how long, and how it turns."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from momap_ros.conditioning import MAX_INSTANCES
from momap_ros.model.device import training_autocast
from momap_ros.model.noise import InstanceFrames
from momap_ros.model.scene_encoder import SceneEncoder, SceneEncoding
from momap_ros.training.batches import Batch
from momap_ros.training.steps import END_SCALES, squared_error

TURNING_CELLS = 6  # fewer do not tell a turn from noise
SMALLEST_RADIUS = 0.02  # scene scales, of an instance whose turn counts in full
SMALLEST_WAY = 0.05  # root of a squared error, below which motions and their errors no longer count by their size


def encoder_loss(
    encoder: SceneEncoder, batch: Batch, weighing: torch.Tensor, *, by_length: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of the steps that train the scene encoder alone, and its parts."""
    with training_autocast(batch.latents.device):
        scene = encoder(batch.conditioning)
    parts = scene_losses(scene, batch, weighing, turns=encoder.turning is not None, by_length=by_length)
    shares = {"instance": 1.0, "motion": 1.0, "naming": 0.3, "duration": 0.1, "expected_turn": 1.0}
    return torch.stack([shares[name] * value for name, value in parts.items()]).sum(), parts


def scene_losses(
    scene: SceneEncoding, batch: Batch, weighing: torch.Tensor, *, turns: bool = False, by_length: bool = False
) -> dict[str, torch.Tensor]:
    """What instances are called, which of them moves, how it is expected to, for how long: what needs no denoiser.

    Args:
        scene: encodings.
        batch: the truth.
        weighing: (C, C + 3), see `error_map`.
        turns: also how instances are expected to turn; of an encoder that expects that.
        by_length: errors of expected motions count by their length, see `expected_motion_loss`.
    """
    known = batch.conditioning.token_valid.clone()
    known[:, 0] = False
    parts = {
        "instance": functional.binary_cross_entropy_with_logits(
            scene.moving_logits.float(), batch.slot_moves, weight=known / known.sum().clamp(min=1), reduction="sum"
        ),
        "naming": naming_loss(scene.names.float(), batch.slot_names),
        "motion": expected_motion_loss(scene.motion.float(), batch, known, weighing, by_length=by_length),
        "duration": functional.l1_loss(scene.log_duration.float(), batch.log_duration),
    }
    if turns:
        expected = scene.maps[:, -batch.latents.shape[1] :].float()
        parts["expected_turn"] = turning_loss(expected - batch.latents, batch, weighing)
    return parts


def naming_loss(names: torch.Tensor, slot_names: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the words that name an instance, summed over words, mean over instances with a name.

    Args:
        names: (B, MAX_INSTANCES, W) logits.
        slot_names: (B, MAX_INSTANCES, MAX_NAME_WORDS) the truth; 0 = no word.
    """
    target = torch.zeros_like(names).scatter_(2, slot_names, 1.0)
    target[..., 0] = 0
    has_name = (slot_names > 0).any(dim=2)
    loss = functional.binary_cross_entropy_with_logits(names, target, reduction="none").sum(dim=2)
    return torch.as_tensor((loss * has_name).sum() / has_name.sum().clamp(min=1))


def expected_motion_loss(
    motion: torch.Tensor, batch: Batch, known: torch.Tensor, weighing: torch.Tensor, *, by_length: bool = False
) -> torch.Tensor:
    """Error of the instances' mean latents: those that move weigh as much as those that do not.

    Squared, it teaches the mean of what could happen, and what is carried across the table outweighs a door or a
    drawer tenfold. The error itself teaches a median, and counts every millimetre alike, as evaluation does.

    Args:
        motion: (B, MAX_INSTANCES, C) predicted.
        batch: the truth.
        known: (B, MAX_INSTANCES) bool, slots that own a cell.
        weighing: (C, C + 3), see `error_map`.
        by_length: the error itself instead of its square; the square below SMALLEST_WAY.
    """
    error = squared_error(motion - batch.slot_latents, weighing)
    if by_length:
        error = _length(error) - SMALLEST_WAY
    moves = known & (batch.slot_moves > 0)
    still = known & (batch.slot_moves == 0)
    of_moving = (error * moves).sum() / moves.sum().clamp(min=1)
    of_still = (error * still).sum() / still.sum().clamp(min=1)
    return torch.as_tensor((of_moving + of_still) / 2)


def _length(square: torch.Tensor) -> torch.Tensor:
    """Its root, smooth at zero and never below SMALLEST_WAY."""
    return (square + SMALLEST_WAY**2).sqrt()


def weighed_by_length(
    weights: torch.Tensor, motion: torch.Tensor, batch: Batch, weighing: torch.Tensor
) -> torch.Tensor:
    """Loss weights of cells, divided by how far the instances that move are expected to go.

    Squares of errors grow with the square of a motion; divided by its length, they grow with that. It is the expected
    length that divides: by the true one, short motions would be drawn too often where both are possible.

    Args:
        weights: (B, 1, 32, 32) of a `Batch`.
        motion: (B, MAX_INSTANCES, C) expected.
        batch: the truth.
        weighing: (C, C + 3), see `error_map`.

    Returns:
        (B, 1, 32, 32), without a gradient.
    """
    way = _length(squared_error(motion.detach(), weighing))
    divisor = torch.where(batch.slot_moves > 0, way, torch.ones_like(way))
    return weights / divisor.gather(1, batch.conditioning.slots.flatten(1)).view_as(weights)


def turning_loss(error: torch.Tensor, batch: Batch, weighing: torch.Tensor) -> torch.Tensor:
    """Error of how the cells of moving instances move against each other, in units of their size: of their turn.

    The mean of log(1 + squared error).

    A knob's turn moves nothing farther than a centimetre. In the error of its cells it is lost among the errors of
    what is carried across the table; measured by the knob, it is as large as any other turn.

    Args:
        error: (B, C, 32, 32) of clean latents.
        batch: the truth.
        weighing: (C, C + 3), see `error_map`.
    """
    frames = InstanceFrames.of(batch.conditioning)
    member = functional.one_hot(frames.slots, MAX_INSTANCES).to(error.dtype)  # (B, 1024, M)
    count = member.sum(dim=1)
    cells = error.flatten(2)
    mean = torch.einsum("bcp,bpm->bcm", cells, member) / count.clamp(min=1)[:, None]
    against = cells - mean.gather(2, frames.slots[:, None].expand_as(cells))
    square = squared_error(against.transpose(1, 2), weighing)  # (B, 1024)
    turn = torch.einsum("bp,bpm->bm", square, member) / count.clamp(min=1)
    turn = turn * (END_SCALES / frames.radius.to(error.dtype).clamp(min=SMALLEST_RADIUS)) ** 2
    asked = (batch.slot_moves > 0) & (count >= TURNING_CELLS)
    asked[:, 0] = False
    # An instance that a segmenter made of two bodies has errors as large as the way between them.
    return torch.as_tensor((turn.log1p() * asked).sum() / asked.sum().clamp(min=1))
