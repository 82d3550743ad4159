"""Resampling in time against numpy's own interpolation, and which points are taken."""

from __future__ import annotations

import numpy as np
import pytest

from momap_ros.geometry import PinholeCamera
from momap_ros.momap import PointTrajectories
from momap_ros.policies.sampling import (
    check_hypothesis,
    check_in_camera,
    draw_points,
    farthest_points,
    points_of,
    resample_in_time,
    uniform_times_s,
)

CAMERA = PinholeCamera(64, 48, 50.0, 50.0, 31.5, 23.5)


def trajectories(positions: np.ndarray, ids: list[int]) -> PointTrajectories:
    """Trajectories whose pixels are where step 0 projects to, rounded."""
    x, y, z = np.nan_to_num(positions[0, :, 0], nan=1.0).T
    pixels = np.round(np.stack([50.0 * x / z + 31.5, 50.0 * y / z + 23.5], axis=-1)).astype(np.int32)
    return PointTrajectories(positions.astype(np.float32), np.array(ids, np.int32), pixels, 64, 48, 0.5)


def test_resampling_is_numpys_linear_interpolation() -> None:
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(2, 5, 7, 3))
    times_s = np.concatenate([np.arange(7) * 0.3, rng.uniform(0, 3.0, 20)])  # beyond the last step at 1.8 s too
    result = resample_in_time(positions, 0.3, times_s)
    assert result.shape == (2, 5, 27, 3)
    for n, p, axis in np.ndindex(2, 5, 3):
        expected = np.interp(times_s, np.arange(7) * 0.3, positions[n, p, :, axis])
        np.testing.assert_allclose(result[n, p, :, axis], expected, atol=1e-9)


def test_an_unknown_step_spoils_only_what_depends_on_it() -> None:
    positions = np.arange(12.0).reshape(1, 4, 3)
    positions[0, 2] = np.nan
    result = resample_in_time(positions, 0.1, np.array([0.1, 0.1 + 0.05, 0.2, 0.25, 0.1 * 3]))
    assert np.isnan(result[0, :, 0]).tolist() == [False, True, True, True, False]
    np.testing.assert_array_equal(result[0, 0], positions[0, 1])
    np.testing.assert_array_equal(result[0, 4], positions[0, 3])


def test_times_before_the_observation_are_refused() -> None:
    with pytest.raises(ValueError, match="expected seconds from step 0 on, got"):
        resample_in_time(np.zeros((1, 2, 3)), 1.0, np.array([-0.1]))


def test_uniform_times_cover_the_forecast() -> None:
    tracks = trajectories(np.ones((1, 1, 7, 3)), [1])
    np.testing.assert_allclose(uniform_times_s(tracks, 4), [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at least 2"):
        uniform_times_s(tracks, 1)


def test_points_of_objects_have_a_start() -> None:
    positions = np.ones((1, 4, 3, 3))
    positions[0, 1, 0] = np.nan
    tracks = trajectories(positions, [4, 4, 0, 7])
    assert points_of(tracks, [4, 7]).tolist() == [0, 3]
    with pytest.raises(ValueError, match=r"among \[0, 4, 7\], got \[5\]"):
        points_of(tracks, [5])


def test_draws_repeat_points_only_where_they_must() -> None:
    points = np.arange(10, 30)
    drawn = draw_points(points, 12, seed=3)
    assert len(set(drawn.tolist())) == 12
    assert set(drawn.tolist()) <= set(points.tolist())
    np.testing.assert_array_equal(drawn, draw_points(points, 12, seed=3))
    assert (drawn != draw_points(points, 12, seed=4)).any()
    many = draw_points(points, 50, seed=0)
    assert len(many) == 50
    assert set(many.tolist()) == set(points.tolist())


def test_farthest_points_of_a_square_are_its_corners() -> None:
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    square = np.pad(grid, ((0, 0), (0, 1)))
    chosen = square[farthest_points(square, 5)]
    corners = {(0.0, 0.0), (0.0, 4.0), (4.0, 0.0), (4.0, 4.0)}
    assert {(x, y) for x, y, _ in chosen[:4].tolist()} == corners
    assert chosen[4].tolist() == [2.0, 2.0, 0.0]  # then the centre is the farthest from all four
    np.testing.assert_array_equal(farthest_points(square, 100), np.arange(25))


def test_trajectories_of_another_camera_frame_or_future_are_refused() -> None:
    tracks = trajectories(np.full((1, 2, 3, 3), (0.1, 0.0, 1.0)), [1, 1])
    check_in_camera(tracks, CAMERA)
    with pytest.raises(ValueError, match="expected the one of the 64x48 image, got 32x24"):
        check_in_camera(tracks, CAMERA.resized(32, 24))
    moved = PointTrajectories(tracks.positions + np.float32(0.2), tracks.object_ids, tracks.pixels, 64, 48, 0.5)
    with pytest.raises(ValueError, match="px from them in frame 'camera_color_optical_frame'"):
        check_in_camera(moved, CAMERA)
    with pytest.raises(ValueError, match="hypothesis: expected 0 to 0, got 1"):
        check_hypothesis(tracks, 1)
