"""2D tracks of points on straight lines, whose images follow from similar triangles."""

from __future__ import annotations

import numpy as np
import pytest

from momap_ros.geometry import PinholeCamera
from momap_ros.momap import MoMap, PointTrajectories
from momap_ros.policies.tracks_2d import atm_reference_points, atm_tracks, im2flow2act_flow

WIDTH, HEIGHT, FOCAL_PX, DEPTH_M = 160, 120, 100.0, 2.0
CAMERA = PinholeCamera(WIDTH, HEIGHT, FOCAL_PX, FOCAL_PX, 79.5, 59.5)
NUM_STEPS, STEP_S = 11, 0.2


def plane(velocity_px_s: tuple[float, float], *, stride: int = 4) -> PointTrajectories:
    """A wall at a constant depth: object 1 (the left half) moves so many pixels a second, object 0 stays."""
    v, u = (axis.ravel() for axis in np.mgrid[0:HEIGHT:stride, 0:WIDTH:stride])
    ids = (u < WIDTH // 2).astype(np.int32)
    start = np.stack([(u - 79.5) / FOCAL_PX, (v - 59.5) / FOCAL_PX, np.ones(u.size)], axis=-1) * DEPTH_M
    shift = np.array([*velocity_px_s, 0.0]) / FOCAL_PX * DEPTH_M * STEP_S
    path = np.arange(NUM_STEPS)[:, None] * shift
    positions = start[:, None] + np.where(ids[:, None, None] == 1, path, 0.0)
    pixels = np.stack([u, v], axis=-1).astype(np.int32)
    return PointTrajectories(positions[None].astype(np.float32), ids, pixels, WIDTH, HEIGHT, STEP_S)


def test_im2flow2act_is_the_projection_stretched_to_a_square() -> None:
    flow = im2flow2act_flow(plane((5.0, -2.0)), CAMERA, [1])
    assert flow.uv.shape == (32, 128, 2)
    assert flow.uv.dtype == np.float32
    np.testing.assert_allclose(flow.times_s, np.linspace(0, 2.0, 32))
    u = flow.pixels[:, 0] + 5.0 * flow.times_s[:, None]
    v = flow.pixels[:, 1] - 2.0 * flow.times_s[:, None]
    x = np.clip((u + 0.5) * 256 / WIDTH - 0.5, 0, 255) / 256
    y = np.clip((v + 0.5) * 256 / HEIGHT - 0.5, 0, 255) / 256
    np.testing.assert_allclose(flow.uv, np.stack([x, y], axis=-1), atol=1e-5)
    np.testing.assert_array_equal(flow.valid, v >= -0.5)
    assert set(flow.object_ids.tolist()) == {1}
    np.testing.assert_allclose(flow.points_in_camera[:, 2], DEPTH_M)
    np.testing.assert_allclose(flow.points_in_camera[:, 0], (flow.pixels[:, 0] - 79.5) / 50, atol=1e-6)


def test_im2flow2act_draws_by_its_seed_and_takes_the_hypothesis() -> None:
    one = plane((5.0, 0.0))
    two = PointTrajectories(
        np.concatenate([one.positions, plane((10.0, 0.0)).positions]), one.object_ids, one.pixels, 160, 120, STEP_S
    )
    first, again = im2flow2act_flow(two, CAMERA, [1]), im2flow2act_flow(two, CAMERA, [1])
    np.testing.assert_array_equal(first.uv, again.uv)
    assert (im2flow2act_flow(two, CAMERA, [1], seed=1).pixels != first.pixels).any()
    fast = im2flow2act_flow(two, CAMERA, [1], hypothesis=1)
    np.testing.assert_allclose(fast.uv[-1, :, 0] - fast.uv[0, :, 0], 20.0 / WIDTH, atol=1e-5)
    with pytest.raises(ValueError, match="expected 0 to 1, got 2"):
        im2flow2act_flow(two, CAMERA, [1], hypothesis=2)
    with pytest.raises(ValueError, match=r"among \[0, 1\], got \[3\]"):
        im2flow2act_flow(two, CAMERA, [3])


def test_unknown_positions_hold_the_last_known_one() -> None:
    tracks = plane((5.0, 0.0))
    positions = tracks.positions.copy()
    positions[:, :, 6:] = np.nan
    cut = PointTrajectories(positions, tracks.object_ids, tracks.pixels, WIDTH, HEIGHT, STEP_S)
    flow = im2flow2act_flow(cut, CAMERA, [1], num_steps=NUM_STEPS)
    assert np.isfinite(flow.uv).all()
    assert flow.valid[:6].all()
    assert not flow.valid[6:].any()
    np.testing.assert_array_equal(flow.uv[6:], np.broadcast_to(flow.uv[5], flow.uv[6:].shape))


def test_points_behind_the_camera_are_not_valid() -> None:
    tracks = plane((0.0, 0.0))
    positions = tracks.positions.copy()
    positions[:, :, -1, 2] = -1.0
    behind = PointTrajectories(positions, tracks.object_ids, tracks.pixels, WIDTH, HEIGHT, STEP_S)
    flow = im2flow2act_flow(behind, CAMERA, [1], num_steps=NUM_STEPS)
    assert flow.valid[:-1].all()
    assert not flow.valid[-1].any()
    assert np.isfinite(flow.uv).all()


def test_atm_takes_the_points_nearest_to_two_grids() -> None:
    reference = atm_reference_points()
    assert reference.shape == (32, 2)
    np.testing.assert_allclose(reference[[0, 1, 4, 15, 16, 31]], [
        (0.05, 0.05), (0.05, 0.05 + 0.8 / 3), (0.05 + 0.8 / 3, 0.05), (0.85, 0.85), (0.15, 0.15), (0.95, 0.95),
    ])  # fmt: skip
    tracks = atm_tracks(plane((6.0, 3.0), stride=1), CAMERA)
    assert tracks.uv.shape == (16, 32, 2)
    assert tracks.uv.dtype == np.float32
    # Every pixel has a point, so none is farther than half a pixel from its reference point, along either axis.
    assert (np.abs(tracks.uv[0] - reference).max(axis=0) <= [0.51 / WIDTH, 0.51 / HEIGHT]).all()
    moved = tracks.uv - tracks.uv[:1]
    left = tracks.object_ids == 1
    assert left.tolist() == (tracks.pixels[:, 0] < WIDTH // 2).tolist()
    expected = (np.arange(16) * 0.05)[:, None] * np.array([6.0 / WIDTH, 3.0 / HEIGHT])
    np.testing.assert_allclose(moved[:, left], np.repeat(expected[:, None], left.sum(), axis=1), atol=1e-5)
    np.testing.assert_allclose(moved[:, ~left], 0.0, atol=1e-6)
    assert tracks.valid.all()


def test_atm_tracks_rest_after_the_forecast_and_may_leave_the_image() -> None:
    tracks = atm_tracks(plane((0.0, -60.0)), CAMERA, step_s=1.0)  # the forecast ends after 2 s
    np.testing.assert_array_equal(tracks.uv[3:], np.broadcast_to(tracks.uv[2], tracks.uv[3:].shape))
    left = tracks.object_ids == 1
    np.testing.assert_allclose(tracks.uv[2, left, 1] - tracks.uv[0, left, 1], -120.0 / HEIGHT, atol=1e-5)
    assert not tracks.valid[2:, left].any()
    with pytest.raises(ValueError, match="step_s: expected positive"):
        atm_tracks(plane((0.0, 0.0)), CAMERA, step_s=0.0)


def test_a_dense_map_goes_in_by_a_stride() -> None:
    sparse = plane((8.0, 0.0), stride=1)
    xyz = sparse.positions[0].reshape(HEIGHT, WIDTH, NUM_STEPS, 3).transpose(2, 0, 1, 3)
    momap = MoMap(np.ascontiguousarray(xyz), np.ones((HEIGHT, WIDTH), np.bool_), STEP_S)
    ids = sparse.object_ids.reshape(HEIGHT, WIDTH)
    from_map = atm_tracks(PointTrajectories.from_momap(momap, ids, stride=1), CAMERA)
    np.testing.assert_array_equal(from_map.uv, atm_tracks(sparse, CAMERA).uv)
