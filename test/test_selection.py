from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import Forecast, Forecaster, all_pixels
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories, representative_order
from momap_ros.object_motion import estimate_object_motions
from momap_ros.rgbd import RGBDFrame
from momap_ros.selection import (
    in_frame,
    mean_velocity_m_s,
    objects_in_frame,
    published_trajectories,
)

# Quarter turn about z, x becomes y and y becomes -x, and a shift.
TARGET_FROM_SOURCE = np.array([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]])
# Sums of distances from the other ends, as pencil and paper give them: 5.7, 19.3, 5.3, 5.4, 5.5.
ENDS_M = [0.0, 5.0, 0.2, 0.1, 0.4]


def futures(ends_m: list[float], *, points: int = 10, steps: int = 6) -> PointTrajectories:
    """One hypothesis per end: all points go along x from 0 to there, at y = their index."""
    share = np.linspace(0.0, 1.0, steps)
    positions = np.zeros((len(ends_m), points, steps, 3), np.float32)
    positions[..., 0] = np.array(ends_m)[:, None, None] * share
    positions[..., 1] = np.arange(points)[:, None]
    return PointTrajectories(
        positions,
        np.ones(points, np.int32),
        np.stack([np.arange(points), 2 * np.arange(points)], axis=-1).astype(np.int32),
        64,
        48,
        0.2,
        np.tile(np.array(ends_m, np.float32)[:, None], (1, points)),
        "optical",
        9,
    )


def forecast_of(trajectories: PointTrajectories) -> Forecast:
    objects = estimate_object_motions(
        trajectories, ObjectMotionConfig(), labels={1: "box"}, moving_probability={1: 0.9}
    )
    # The model's own drawing is for dense output only.
    objects = [dataclasses.replace(motion, goal_id=4) for motion in objects]
    return Forecast(trajectories, objects, cast("Any", None), {}, (), ())


def test_medoid_comes_first_and_the_outlier_last() -> None:
    assert representative_order(futures(ENDS_M)).tolist() == [2, 3, 4, 0, 1]


def test_points_with_an_unknown_end_do_not_decide_the_order() -> None:
    forecast = futures(ENDS_M)
    forecast.positions[3, 4, -1] = np.nan
    forecast.positions[0, 4, -1] = 100.0
    assert representative_order(forecast).tolist() == [2, 3, 4, 0, 1]


def test_one_hypothesis_and_no_points_are_legitimate() -> None:
    assert representative_order(futures([1.0])).tolist() == [0]
    published = published_trajectories(forecast_of(futures([1.0, 2.0], points=0)), ForecastConfig())
    assert published.positions.shape == (1, 0, 6, 3)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_first_hypothesis_or_all_are_published_as_they_were_drawn(count: int) -> None:
    config = ForecastConfig(published_hypotheses=count)
    published = published_trajectories(forecast_of(futures([0.2, 0.1, 5.0])), config)
    ends = [[0.2, 3.0, 0.0], [0.1, 3.0, 0.0], [5.0, 3.0, 0.0]][:count]
    np.testing.assert_allclose(published.positions[:, 3, -1], ends, rtol=1e-6)
    assert published.confidence is not None
    np.testing.assert_allclose(published.confidence[:, 0], [0.2, 0.1, 5.0][:count], rtol=1e-6)
    assert (published.stamp_ns, published.frame_id, published.step_s) == (9, "optical", 0.2)


def box_on_a_wall() -> tuple[RGBDFrame, InstanceMap]:
    depth_m = np.full((60, 80), 0.8, np.float32)
    depth_m[20:40, 30:50], depth_m[:2] = 0.7, np.nan
    ids = np.zeros((60, 80), np.int32)
    ids[20:40, 30:50] = 3
    frame = RGBDFrame(np.zeros((60, 80, 3), np.uint8), depth_m, PinholeCamera(80, 60, 70.0, 70.0, 39.5, 29.5))
    return frame, InstanceMap(ids)


@pytest.mark.parametrize("dense", [False, True])
def test_some_of_many_futures_are_the_first_and_those_that_speak_for_others(
    *, tiny_checkpoint: Path, dense: bool
) -> None:
    pytest.importorskip("torch", reason="needs the model's requirements")
    from momap_ros.model.groups import first_and_others

    config = ForecastConfig(checkpoint=str(tiny_checkpoint), num_hypotheses=8, published_hypotheses=3, dense=dense)
    forecast = Forecaster(config, ObjectMotionConfig())(*box_on_a_wall())
    chosen = first_and_others(forecast.output, 3).tolist()
    assert chosen[0] == 0
    assert len(chosen) == 3
    published = published_trajectories(forecast, config)
    pixels = all_pixels(forecast.output.frame) if dense else forecast.trajectories.pixels
    expected = forecast.output.trajectories(pixels, chosen)
    np.testing.assert_allclose(published.positions, expected.positions, atol=1e-6)
    np.testing.assert_array_equal(published.object_ids, expected.object_ids)
    assert (published.num_hypotheses, published.stamp_ns) == (3, forecast.trajectories.stamp_ns)


def test_dense_publishes_every_pixel_with_depth(tiny_checkpoint: Path) -> None:
    pytest.importorskip("torch", reason="needs the model's requirements")
    frame, instances = box_on_a_wall()
    ids = instances.ids
    config = ForecastConfig(checkpoint=str(tiny_checkpoint), num_hypotheses=2, published_hypotheses=2, dense=True)
    forecast = Forecaster(config, ObjectMotionConfig())(frame, instances)
    published = published_trajectories(forecast, config)
    assert published.positions.shape == (2, 58 * 80, 50, 3)
    np.testing.assert_array_equal(published.object_ids, ids[2:].ravel())
    background = published.positions[:, published.object_ids == 0]
    np.testing.assert_array_equal(background, np.repeat(background[:, :, :1], 50, axis=2))
    # The followed pixels are among them, with the same futures.
    u, v = forecast.trajectories.pixels.T
    followed = published.positions[:, (v - 2) * 80 + u]
    np.testing.assert_allclose(followed, forecast.trajectories.positions[:2], atol=1e-5)


def test_another_frame_turns_and_shifts_positions_and_keeps_nan() -> None:
    forecast = futures([1.0])
    forecast.positions[0, 1, 2] = np.nan
    turned = in_frame(forecast, TARGET_FROM_SOURCE, "base_link")
    assert turned.frame_id == "base_link"
    np.testing.assert_allclose(turned.positions[0, 3, -1], [10 - 3, 20 + 1, 30], rtol=1e-6)
    assert np.isnan(turned.positions[0, 1, 2]).all()
    assert np.isnan(turned.positions).sum() == 3
    assert turned.positions.dtype == np.float32


def test_objects_in_another_frame_have_its_directions_and_sizes() -> None:
    forecast = forecast_of(futures([1.0]))
    (before,) = forecast.objects
    (after,) = objects_in_frame(forecast, TARGET_FROM_SOURCE, "base_link", ObjectMotionConfig())
    assert before.direction_flags.tolist() == [1, 0, 0]
    assert after.direction_flags.tolist() == [0, 1, 0]
    np.testing.assert_allclose(before.size_m, [0, 9, 0], atol=1e-6)
    np.testing.assert_allclose(after.size_m, [9, 0, 0], atol=1e-6)
    np.testing.assert_allclose(after.centroid_m, [10 - 4.5, 20, 30], atol=1e-5)
    assert (after.label, after.moving_probability, after.goal_id) == ("box", 0.9, 4)


def test_mean_velocity_is_the_displacement_over_the_horizon() -> None:
    forecast = futures([3.0])
    forecast.positions[0, 2, -1] = np.nan
    velocity = mean_velocity_m_s(forecast)
    np.testing.assert_allclose(velocity[0], [3.0, 0.0, 0.0], rtol=1e-6)  # 5 steps of 0.2 s are one second
    assert np.isnan(velocity[2]).all()
