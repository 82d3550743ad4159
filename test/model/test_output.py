from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from known_outputs import (
    BALL,
    BLIND,
    BOX,
    CODEC,
    SHIFT,
    SPECK,
    STEPS,
    TURN,
    every_pixel,
    output_of,
    scene,
)

from momap_ros.conditioning import GRID, MAX_INSTANCES
from momap_ros.geometry import Float64, transform_points
from momap_ros.model.output import RIDGE, fit_instances
from momap_ros.rgbd import RGBDFrame
from momap_ros.shapes import ShapeError


def truth(frame: RGBDFrame, pixels: np.ndarray, motion: Float64) -> Float64:
    """(P, T, 3) metres."""
    points = frame.points_in_camera[pixels[:, 1], pixels[:, 0]]
    return np.swapaxes(transform_points(motion[:, None], points), 0, 1)


# --- motions come out as they went in


@pytest.mark.parametrize("size", [(256, 256), (320, 240)])
@pytest.mark.parametrize("instance_id", [BOX, BALL])
def test_a_translation_comes_out_exactly_at_every_pixel(size: tuple[int, int], instance_id: int) -> None:
    frame, instances = scene(*size)
    output = output_of(frame, instances, [{instance_id: SHIFT}])
    pixels = every_pixel(instances, instance_id)
    drawn = output.trajectories(pixels).positions
    np.testing.assert_allclose(drawn[0], truth(frame, pixels, SHIFT), atol=2e-6)


@pytest.mark.parametrize("instance_id", [BOX, BALL])
def test_a_rotation_comes_out_up_to_the_ridge(instance_id: int) -> None:
    """The ridge shrinks the linear part by ridge / (variance + ridge) along every principal direction."""
    frame, instances = scene()
    output = output_of(frame, instances, [{instance_id: TURN}])
    pixels = every_pixel(instances, instance_id)
    slot = output.grid.slot_ids.index(instance_id) + 1
    points = output.grid.points_in_camera[output.grid.slots == slot] / output.grid.scale_m
    variance, directions = np.linalg.eigh(np.cov(points.T, bias=True))
    shrink = RIDGE / (variance.clip(min=0) + RIDGE)
    linear = TURN[:, :3, :3] - np.eye(3)  # displacement per offset from the centre
    offsets = frame.points_in_camera[pixels[:, 1], pixels[:, 0]] - points.mean(axis=0) * output.grid.scale_m
    along = (offsets @ directions) * shrink @ directions.T
    bound = np.linalg.norm(np.einsum("tij,pj->pti", linear, along), axis=-1)
    error = np.linalg.norm(output.trajectories(pixels).positions[0] - truth(frame, pixels, TURN), axis=-1)
    np.testing.assert_allclose(error, bound, atol=1e-5)
    way = np.linalg.norm(truth(frame, pixels, TURN) - truth(frame, pixels, TURN)[:, :1], axis=-1)
    assert error.max() < 0.12 * way.max()  # both are larger than what the ridge holds back


def test_hypotheses_do_not_mix() -> None:
    frame, instances = scene()
    output = output_of(frame, instances, [{BOX: SHIFT}, {BOX: TURN}, {BALL: SHIFT}])
    pixels = every_pixel(instances, BOX)[::50]
    drawn = output.trajectories(pixels)
    assert drawn.num_hypotheses == output.num_hypotheses == 3
    np.testing.assert_allclose(drawn.positions[0], truth(frame, pixels, SHIFT), atol=2e-6)
    alone = output_of(frame, instances, [{BOX: TURN}]).trajectories(pixels)
    np.testing.assert_allclose(drawn.positions[1], alone.positions[0], atol=1e-6)
    np.testing.assert_allclose(drawn.positions[2], drawn.positions[2][:, :1].repeat(STEPS, axis=1), atol=1e-7)
    chosen = output.trajectories(pixels, [2, 0])
    np.testing.assert_array_equal(chosen.positions, drawn.positions[[2, 0]])


def test_noise_that_no_rigid_motion_explains_is_removed() -> None:
    frame, instances = scene()
    clean = output_of(frame, instances, [{BOX: SHIFT}])
    noise = 0.3 * torch.randn(clean.latents.shape, generator=torch.Generator().manual_seed(0))
    points = torch.from_numpy(clean.grid.points_in_camera / clean.grid.scale_m).reshape(-1, 3)
    slots = torch.from_numpy(clean.grid.slots).long().flatten()
    maps, _ = fit_instances(clean.latents + noise, slots, points, ~torch.isnan(points[:, 2]))
    slot = clean.grid.slot_ids.index(BOX) + 1
    cells = int((slots == slot).sum())
    error = (maps[0, slot, 0] - clean.maps[0, slot, 0]).std()
    assert float(error) == pytest.approx(0.3 / cells**0.5, rel=0.35)  # the mean of independent draws


def test_an_instance_without_depth_moves_as_its_cells_say() -> None:
    frame, instances = scene()
    output = output_of(frame, instances, [{BLIND: SHIFT}])
    slot = output.grid.slot_ids.index(BLIND) + 1
    np.testing.assert_allclose(
        CODEC.decode(output.maps[0, slot, 0]) * output.grid.scale_m, SHIFT[:, :3, 3], rtol=1e-5, atol=1e-6
    )
    assert not output.maps[0, slot, 1:].any()


# --- what does not move, and what is not known


def test_the_background_rests() -> None:
    frame, instances = scene()
    output = output_of(frame, instances, [{BOX: SHIFT, BALL: TURN}])
    pixels = every_pixel(instances, 0)[::37]
    drawn = output.trajectories(pixels)
    start = frame.points_in_camera[pixels[:, 1], pixels[:, 0]]
    np.testing.assert_array_equal(drawn.positions[0], start[:, None].repeat(STEPS, axis=1))
    assert drawn.confidence is not None
    assert (drawn.confidence == 1).all()
    assert not drawn.object_ids.any()


def test_an_instance_the_model_could_not_see_is_unknown() -> None:
    frame, instances = scene()
    output = output_of(frame, instances, [{BOX: SHIFT}])
    assert output.grid.dropped_ids == (SPECK,)
    pixels = every_pixel(instances, SPECK)
    drawn = output.trajectories(pixels)
    np.testing.assert_array_equal(drawn.positions[0, 0, 0], frame.points_in_camera[pixels[0, 1], pixels[0, 0]])
    assert np.isnan(drawn.positions[:, :, 1:]).all()
    assert drawn.confidence is not None
    assert not drawn.confidence.any()
    assert SPECK not in output.instance_moving_probability()


def test_a_pixel_without_depth_is_unknown() -> None:
    frame, instances = scene()
    drawn = output_of(frame, instances, [{BLIND: SHIFT}]).trajectories(every_pixel(instances, BLIND))
    assert np.isnan(drawn.positions).all()
    assert drawn.confidence is not None
    assert not drawn.confidence.any()


def test_an_instance_moves_where_its_probability_says_so() -> None:
    frame, instances = scene()
    output = output_of(frame, instances, [{BOX: SHIFT}, {BOX: SHIFT}])
    slot = output.grid.slot_ids.index(BOX) + 1
    output.moving_probability[:, slot] = torch.tensor([0.2, 0.9])
    pixels = every_pixel(instances, BOX)[::40]
    drawn = output.trajectories(pixels)
    np.testing.assert_array_equal(drawn.positions[0], drawn.positions[0][:, :1].repeat(STEPS, axis=1))
    np.testing.assert_allclose(drawn.positions[1], truth(frame, pixels, SHIFT), atol=2e-6)
    assert drawn.confidence is not None
    np.testing.assert_allclose(drawn.confidence, [[0.8] * len(pixels), [0.9] * len(pixels)])
    assert output.instance_moving_probability()[BOX] == pytest.approx(0.55)


# --- articulated instances


def test_points_of_an_articulated_instance_follow_the_nearest_of_its_cells() -> None:
    frame, instances = scene()
    rigid = output_of(frame, instances, [{BOX: SHIFT}])
    slot = rigid.grid.slot_ids.index(BOX) + 1
    articulated = torch.arange(MAX_INSTANCES) == slot
    latents = torch.randn(rigid.latents.shape, generator=torch.Generator().manual_seed(0))
    output = dataclasses.replace(rigid, latents=latents, articulated=articulated)
    pixels = every_pixel(instances, BOX)[::23]
    drawn = output.trajectories(pixels).positions[0]
    cell_rows, cell_columns = np.nonzero(output.grid.slots == slot)
    for pixel, positions in zip(pixels, drawn, strict=True):
        centre_distance = np.hypot(8 * cell_columns + 3.5 - pixel[0], 8 * cell_rows + 3.5 - pixel[1])
        near = np.flatnonzero(centre_distance < centre_distance.min() + 1e-6)  # equally near ones are equally right
        cells = cell_rows[near] * GRID + cell_columns[near]
        start = frame.points_in_camera[pixel[1], pixel[0]]
        candidates = start + CODEC.decode(latents[0][:, cells].T).numpy() * output.grid.scale_m
        assert abs(candidates - positions).max(axis=(1, 2)).min() < 1e-6


# --- dense maps


@pytest.mark.parametrize("size", [(256, 256), (320, 240)])
def test_the_dense_map_equals_the_trajectories(size: tuple[int, int]) -> None:
    frame, instances = scene(*size)
    output = output_of(frame, instances, [{BOX: TURN}, {BOX: SHIFT, BALL: TURN}])
    rows, columns = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=-1).astype(np.int32)
    sparse = output.trajectories(pixels, [1])
    momap = output.momap(1, *size)
    np.testing.assert_allclose(momap.xyz.reshape(STEPS, -1, 3).transpose(1, 0, 2), sparse.positions[0], atol=1e-6)
    np.testing.assert_array_equal(momap.valid, frame.valid)
    assert (momap.step_s, momap.frame_id, momap.stamp_ns) == (0.25, "eye", 7)
    assert (sparse.step_s, sparse.frame_id, sparse.stamp_ns) == (0.25, "eye", 7)
    assert (sparse.image_width, sparse.image_height) == size


def test_a_dense_map_of_another_size_shows_the_same_motion() -> None:
    frame, instances = scene(320, 240)
    momap = output_of(frame, instances, [{BALL: SHIFT}]).momap(0, 128, 96)
    ids = instances.resized(128, 96).ids
    expected = np.zeros((STEPS, 96, 128, 3))
    expected[:, ids == BALL] = SHIFT[:, None, :3, 3]
    known = momap.valid & (ids != SPECK)
    np.testing.assert_allclose(momap.displacement_m[:, known], expected[:, known], atol=2e-6)
    np.testing.assert_array_equal(momap.xyz[0][momap.valid], frame.resized(128, 96).points_in_camera[momap.valid])


def test_pixels_of_another_shape_are_refused() -> None:
    frame, instances = scene()
    with pytest.raises(ShapeError, match="pixels"):
        output_of(frame, instances, [{}]).trajectories(np.zeros((4, 3), np.int32))


def test_no_pixels_give_no_trajectories() -> None:
    frame, instances = scene()
    drawn = output_of(frame, instances, [{}]).trajectories(np.zeros((0, 2), np.int32))
    assert drawn.positions.shape == (1, 0, STEPS, 3)
