"""Code that is written for speed gives what its plain form gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.conditioning import GRID, MIN_CELL_SHARE, choose_cell_pixels, scene_grid
from momap_ros.forecaster import MIN_POINTS_PER_OBJECT, foreground_pixels
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap, Int32
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.model.output import MoMapOutput

IDS = (0, 3, 4, 90, 70_000)


def blocks(size: int, block: int, seed: int) -> Int32:
    """(size, size) labels in blocks, with single pixels of other labels strewn over them."""
    rng = np.random.default_rng(seed)
    image = np.kron(rng.choice(IDS, (size // block, size // block)), np.ones((block, block)))
    strewn = rng.random((size, size)) < 0.2
    image[strewn] = rng.choice(IDS, strewn.sum())
    return image.astype(np.int32)


def random_frame(width: int, height: int, seed: int) -> RGBDFrame:
    """Noise with holes in its depth."""
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(0.3, 1.2, (height, width)).astype(np.float32)
    depth_m[rng.random((height, width)) < 0.3] = np.nan
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return RGBDFrame(rgb, depth_m, PinholeCamera.from_fov(width, height, vertical_fov_rad=1.0))


def cell_pixel(ids: Int32, usable: npt.NDArray[np.bool_], areas: dict[int, int]) -> tuple[int, int]:
    """Row and column of the pixel that represents one cell, by the rule of `choose_cell_pixels`, word for word."""
    side = ids.shape[0]
    counts = {int(value): int((ids == value).sum()) for value in np.unique(ids)}
    large = [value for value in counts if counts[value] >= MIN_CELL_SHARE * side**2]
    winner = min(large, key=lambda value: (areas[value], value)) if large else max(counts, key=lambda v: counts[v])
    centre = (side - 1) / 2
    candidates = [(row, column) for row in range(side) for column in range(side) if ids[row, column] == winner]
    return min(candidates, key=lambda at: (not usable[at], (at[0] - centre) ** 2 + (at[1] - centre) ** 2, at))


@pytest.mark.parametrize(("size", "block"), [(256, 16), (256, 2), (128, 4)])
def test_cell_pixels_follow_the_rule(size: int, block: int) -> None:
    ids = blocks(size, block, seed=size + block)
    usable = np.random.default_rng(1).random(ids.shape) < 0.5
    areas = {value: int((ids == value).sum()) for value in IDS}
    rows, columns = choose_cell_pixels(ids, usable)
    cell = size // GRID
    for cell_row, cell_column in np.ndindex(GRID, GRID):
        window = np.s_[cell_row * cell : (cell_row + 1) * cell, cell_column * cell : (cell_column + 1) * cell]
        row, column = cell_pixel(ids[window], usable[window], areas)
        found = rows[cell_row, cell_column] - cell_row * cell, columns[cell_row, cell_column] - cell_column * cell
        assert found == (row, column)


def test_colour_cells_are_means() -> None:
    frame = random_frame(256, 256, seed=2)
    grid = scene_grid(frame, InstanceMap(blocks(256, 32, seed=3)))
    mean = frame.rgb.reshape(64, 4, 64, 4, 3).astype(np.float64).mean(axis=(1, 3))
    np.testing.assert_array_equal(grid.rgb, np.round(mean).astype(np.uint8))


@pytest.mark.parametrize("max_points", [40, 400, 1500, 100_000])
def test_foreground_pixels_follow_the_rule(max_points: int) -> None:
    frame = random_frame(160, 160, seed=4)
    ids = blocks(160, 40, seed=5)
    ids[:80][ids[:80] == IDS[-1]] = 0
    found = foreground_pixels(frame, InstanceMap(ids), max_points)
    usable = np.where(frame.valid, ids, 0)
    areas = {value: int((usable == value).sum()) for value in IDS[1:]}
    floor = min(MIN_POINTS_PER_OBJECT, max_points // len(areas))
    spare = max_points - floor * len(areas)
    expected = []
    for value, area in areas.items():
        rows, columns = np.nonzero(usable == value)
        count = min(area, floor + int(spare * area / sum(areas.values())))
        pick = [int((k + 0.5) * area / count) for k in range(count)]
        expected.append(np.stack([columns[pick], rows[pick]], axis=-1))
    np.testing.assert_array_equal(found, np.concatenate(expected))


@pytest.fixture(scope="module")
def output(simulated: list[Sample], tiny_checkpoint: Path) -> MoMapOutput:
    """Three futures of a simulated scene; the first of its instances is articulated, the second mostly rests."""
    import torch

    from momap_ros.model.pipeline import MoMapPipeline

    sample = max(simulated, key=lambda candidate: len(candidate.instance_map(merge_robot=True).areas_px))
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
    drawn = MoMapPipeline.from_pretrained(tiny_checkpoint)(
        frame,
        sample.instance_map(merge_robot=True),
        num_hypotheses=3,
        num_inference_steps=1,
        generator=torch.Generator().manual_seed(0),
    )
    articulated = torch.zeros_like(drawn.articulated)
    articulated[1] = True
    moving = drawn.moving_probability.clone()
    moving[1:, 2] = 0.1
    return dataclasses.replace(drawn, articulated=articulated, moving_probability=moving)


def test_trajectories_equal_those_drawn_one_by_one(output: MoMapOutput) -> None:
    """One hypothesis, one instance, one pixel at a time."""
    import torch

    frame, grid = output.frame, output.grid
    assert len(grid.slot_ids) >= 2
    rows, columns = np.nonzero(frame.valid)
    chosen = np.random.default_rng(0).choice(len(rows), 300, replace=False)
    pixels = np.stack([columns[chosen], rows[chosen]], axis=-1).astype(np.int32)
    found = output.trajectories(pixels, [2, 0])
    expected = np.repeat(found.positions[:, :, :1], output.codec.num_steps, axis=2)
    cells = np.stack(np.divmod(np.arange(GRID * GRID), GRID), axis=-1) + 0.5
    for index, (u, v) in enumerate(pixels):
        point = frame.points_in_camera[v, u]
        np.testing.assert_array_equal(expected[:, index, 0], np.stack([point, point]))
        instance_id = int(output.instances.ids[v, u])
        if instance_id == 0:
            continue
        if instance_id not in grid.slot_ids:
            expected[:, index, 1:] = np.nan
            continue
        slot = grid.slot_ids.index(instance_id) + 1
        for row, hypothesis in enumerate([2, 0]):
            if output.moving_probability[hypothesis, slot] <= 0.5:
                continue
            offset = torch.from_numpy(point / grid.scale_m).float() - output.centres[slot]
            latents = torch.cat([torch.ones(1), offset]) @ output.maps[hypothesis, slot]
            if output.articulated[slot]:
                at = np.array([(v + 0.5) * GRID / frame.camera.height, (u + 0.5) * GRID / frame.camera.width])
                apart = ((cells - at) ** 2).sum(axis=1) + 1e6 * (grid.slots.ravel() != slot)
                latents = output.latents[hypothesis, :, int(apart.argmin())]
            expected[row, index] += output.codec.decode(latents).numpy() * grid.scale_m
    np.testing.assert_allclose(found.positions, expected, rtol=1e-5, atol=1e-5)


def test_reordered_trajectories_equal_those_of_the_reordered_output(output: MoMapOutput) -> None:
    rows, columns = np.nonzero(output.frame.valid)
    pixels = np.stack([columns, rows], axis=-1)[::50].astype(np.int32)
    order = np.array([2, 0, 1])
    found, expected = output.trajectories(pixels).reordered(order), output.reordered(order).trajectories(pixels)
    np.testing.assert_allclose(found.positions, expected.positions, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert found.confidence is not None
    assert not np.array_equal(found.positions[0], found.positions[1], equal_nan=True)
