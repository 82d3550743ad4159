from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.warm_start import remaining_latents
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.model.output import MoMapOutput


@pytest.fixture(scope="module")
def previous(tiny_checkpoint: Path, simulated: list[Sample]) -> MoMapOutput:
    """A forecast of two futures in which every instance moves and turns."""
    sample = max(simulated, key=lambda sample: len(sample.instance_map(merge_robot=True).areas_px))
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    generator = torch.Generator().manual_seed(0)
    output = pipeline(frame, sample.instance_map(merge_robot=True), num_hypotheses=2, generator=generator)
    return dataclasses.replace(output, articulated=torch.zeros_like(output.articulated))


def decoded(latents: torch.Tensor, output: MoMapOutput, scale_m: float) -> np.ndarray:
    """(N, P, T, 3) metres of the latents of all cells."""
    return np.asarray(output.codec.decode(latents.flatten(2).transpose(1, 2)) * scale_m)


def test_after_no_time_everything_is_still_to_come(previous: MoMapOutput) -> None:
    grid = previous.grid
    latents = remaining_latents(previous, grid, 0.0, previous.step_s)
    slots = grid.slots.ravel()
    known = (slots > 0) & ~np.isnan(grid.points_in_camera[..., 2]).ravel()
    offset = torch.from_numpy(grid.points_in_camera.reshape(-1, 3) / grid.scale_m) - previous.centres[slots]
    expected = previous.maps[:, slots, 0] + torch.einsum("pi,npic->npc", offset, previous.maps[:, slots, 1:])
    torch.testing.assert_close(latents.flatten(2).transpose(1, 2)[:, known], expected[:, known], atol=1e-3, rtol=1e-3)
    assert not latents.flatten(2)[:, :, slots == 0].any()


@pytest.mark.parametrize("steps_later", [5, 20])
def test_the_rest_of_the_way_leads_to_the_same_place(previous: MoMapOutput, steps_later: int) -> None:
    """Cells of the first future's later frame, in which every point is where that future put it."""
    grid, num_steps = previous.grid, previous.codec.num_steps
    slots = grid.slots.ravel()
    points = grid.points_in_camera.reshape(-1, 3)
    known = np.flatnonzero((slots > 0) & ~np.isnan(points[:, 2]))
    start = remaining_latents(previous, grid, 0.0, previous.step_s)
    way = decoded(start, previous, grid.scale_m)[0]  # (1024, T, 3)
    later = dataclasses.replace(
        grid, points_in_camera=(points + way[:, steps_later]).reshape(grid.points_in_camera.shape).astype(np.float32)
    )
    rest = remaining_latents(previous, later, steps_later * previous.step_s, previous.step_s)
    found = decoded(rest, previous, later.scale_m)[0]
    expected = np.zeros_like(way)
    expected[:, : num_steps - steps_later] = way[:, steps_later:] - way[:, steps_later, None]
    expected[:, num_steps - steps_later :] = expected[:, num_steps - steps_later - 1, None]
    # The codec keeps ten functions of time, which a kink at the end does not quite fit.
    size = np.linalg.norm(expected[known], axis=-1).mean()
    assert np.linalg.norm(found[known] - expected[known], axis=-1).mean() < 0.12 * size
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-6)


def test_after_the_end_nothing_is_left(previous: MoMapOutput) -> None:
    latents = remaining_latents(previous, previous.grid, 100.0, previous.step_s)
    assert float(latents.abs().max()) < 1e-4


def test_what_was_unknown_or_at_rest_starts_from_nothing(previous: MoMapOutput) -> None:
    first, second = previous.grid.slot_ids[:2]
    ids = (999, *previous.grid.slot_ids[1:])
    renamed = dataclasses.replace(previous.grid, slot_ids=ids)
    resting = previous.moving_probability.clone()
    resting[0, 2] = 0.0
    latents = remaining_latents(
        dataclasses.replace(previous, moving_probability=resting), renamed, 0.0, previous.step_s
    )
    slots = torch.from_numpy(previous.grid.slots.astype(np.int64))
    assert first != second
    assert not latents[:, :, slots == 1].any()
    assert not latents[0][:, slots == 2].any()
    assert latents[1][:, slots == 2].any()


def test_a_scene_that_looks_larger_moves_as_far_in_metres(previous: MoMapOutput) -> None:
    grid = dataclasses.replace(previous.grid, scale_m=2 * previous.grid.scale_m)
    once = decoded(remaining_latents(previous, previous.grid, 0.0, previous.step_s), previous, previous.grid.scale_m)
    again = decoded(remaining_latents(previous, grid, 0.0, previous.step_s), previous, grid.scale_m)
    np.testing.assert_allclose(again, once, atol=1e-5)
