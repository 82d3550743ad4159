from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.conditioning import GRID
from momap_ros.data.prepared import PreparedSplit
from momap_ros.model.codec import TemporalBasisCodec, load_codec
from momap_ros.model.noise import InstanceFrames
from momap_ros.training.batches import Batch, complete
from momap_ros.training.scene_losses import (
    SMALLEST_RADIUS,
    SMALLEST_WAY,
    expected_motion_loss,
    naming_loss,
    turning_loss,
    weighed_by_length,
)
from momap_ros.training.scenes import TRAINING, Drops, draw_scenes
from momap_ros.training.steps import END_SCALES

EXACT = Drops(text=1.0, hints="none", faults=False)


def batch_of(folder: Path, drops: Drops) -> tuple[Batch, TemporalBasisCodec]:
    """Twelve scenes."""
    codec, split = load_codec(folder / "codec"), PreparedSplit.open(folder / "train")
    return complete(draw_scenes(split, np.arange(12), drops=drops, rng=np.random.default_rng(0)), codec), codec


def test_moving_and_resting_instances_weigh_alike_in_the_expected_motion(prepared_folder: Path) -> None:
    """Errors of 2 on every moving and 1 on every resting instance: (4 + 1) / 2, however many there are of each."""
    batch, codec = batch_of(prepared_folder, TRAINING)
    known = batch.conditioning.token_valid.clone()
    known[:, 0] = False
    assert 0 < int(batch.slot_moves[known].sum()) != int((1 - batch.slot_moves[known]).sum())
    predicted = batch.slot_latents + 1 + batch.slot_moves[..., None]
    loss = expected_motion_loss(predicted, batch, known, torch.eye(codec.latent_channels))
    assert float(loss) == pytest.approx(2.5, rel=1e-5)


def test_errors_count_by_their_length_where_that_is_asked_for(prepared_folder: Path) -> None:
    """Errors of 2 and 1: (2 + 1) / 2 instead of (4 + 1) / 2, less what the smooth beginning of the root takes."""
    batch, codec = batch_of(prepared_folder, TRAINING)
    known = batch.conditioning.token_valid.clone()
    known[:, 0] = False
    weighing = torch.eye(codec.latent_channels)
    predicted = batch.slot_latents + 1 + batch.slot_moves[..., None]
    loss = expected_motion_loss(predicted, batch, known, weighing, by_length=True)
    assert float(loss) == pytest.approx(1.5 - SMALLEST_WAY, abs=2e-3)
    right = batch.slot_latents.clone().requires_grad_()
    expected_motion_loss(right, batch, known, weighing, by_length=True).backward()
    assert right.grad is not None
    assert not right.grad.any()  # and no division by zero


def test_cells_weigh_less_the_farther_their_instance_is_expected_to_go(prepared_folder: Path) -> None:
    batch, codec = batch_of(prepared_folder, EXACT)
    expected = torch.zeros_like(batch.slot_latents)
    expected[:6] = 3.0  # of every instance
    weights = weighed_by_length(batch.weights, expected, batch, torch.eye(codec.latent_channels))
    slots = batch.conditioning.slots
    moves = (batch.slot_moves.gather(1, slots.flatten(1)) > 0).view_as(slots)
    assert moves[:6].any()
    assert moves[6:].any()
    ratio = (batch.weights / weights)[:, 0]
    usable = batch.weights[:, 0] > 0
    torch.testing.assert_close(ratio[~moves & usable], torch.ones(int((~moves & usable).sum())))
    far, near = ratio[:6][(moves & usable)[:6]], ratio[6:][(moves & usable)[6:]]
    torch.testing.assert_close(far, torch.full_like(far, math.hypot(3, SMALLEST_WAY)))
    torch.testing.assert_close(near, torch.full_like(near, SMALLEST_WAY))


def test_naming_counts_instances_with_a_name_only() -> None:
    """Logits of 0 cost ln 2 per word, wherever an instance has a name; sure and right ones cost nothing."""
    truth = torch.tensor([[[0, 0], [3, 2], [4, 0]]])  # one scene: an instance without a name, "3 2", "4"
    assert float(naming_loss(torch.zeros(1, 3, 6), truth)) == pytest.approx(6 * math.log(2))
    sure = torch.full((1, 3, 6), -50.0)
    sure[0, 1, [2, 3]] = sure[0, 2, 4] = 50.0
    sure[0, 0] = 50.0  # nobody knows what this one is called
    assert float(naming_loss(sure, truth)) == pytest.approx(0.0, abs=1e-6)
    assert float(naming_loss(torch.zeros(1, 3, 6), torch.zeros(1, 3, 2, dtype=torch.int64))) == 0


def test_a_turn_counts_by_the_size_of_what_turns(prepared_folder: Path) -> None:
    """Cells that are wrong by an angle times their offset: the same error whatever the size; a shift is none."""
    batch, codec = batch_of(prepared_folder, EXACT)
    channels = codec.latent_channels
    frames = InstanceFrames.of(batch.conditioning)
    of_cell = frames.radius.gather(1, frames.slots)
    assert float(of_cell[frames.slots > 0].max() / of_cell[frames.slots > 0].min()) > 3

    per_slot = torch.randn(12, channels, frames.radius.shape[1], generator=torch.manual_seed(0))
    shifted = per_slot.gather(2, frames.slots[:, None].expand(-1, channels, -1)).unflatten(2, (GRID, GRID))
    assert float(turning_loss(shifted, batch, torch.eye(channels))) == pytest.approx(0.0, abs=1e-6)

    angle, losses = 0.3, []
    of_cell = of_cell.clamp(min=SMALLEST_RADIUS)
    for axis in range(3):
        turned = torch.zeros(12, channels, GRID * GRID)
        turned[:, 0] = angle * frames.offsets[:, axis] * of_cell  # wrong in one coefficient
        errors = (shifted.flatten(2) + turned).unflatten(2, (GRID, GRID))
        losses.append(float(turning_loss(errors, batch, torch.eye(channels)).expm1()))
    # The mean squares of the three offsets add up to one. The mean of logarithms is not quite the logarithm of means.
    assert sum(losses) == pytest.approx(angle**2 * END_SCALES**2 / channels, rel=0.02)
