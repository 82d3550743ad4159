"""LeRobot observations: every value agrees with its feature's dtype and shape, as LeRobot checks frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.policies.lerobot import OBJECT_FIELDS, lerobot_features, lerobot_observation
from momap_ros.rgbd import RGBDFrame
from momap_ros.shapes import ShapeError

WIDTH, HEIGHT = 64, 48
VELOCITIES_M_S = {3: (0.1, 0.0, 0.0), 8: (0.0, -0.2, 0.1)}


def frame() -> RGBDFrame:
    camera = PinholeCamera(WIDTH, HEIGHT, 50.0, 50.0, 31.5, 23.5)
    return RGBDFrame(np.full((HEIGHT, WIDTH, 3), 7, np.uint8), np.ones((HEIGHT, WIDTH), np.float32), camera)


def trajectories() -> PointTrajectories:
    """Twenty points of each of two objects, 31 steps of 0.1 s."""
    rng = np.random.default_rng(0)
    ids = np.repeat(list(VELOCITIES_M_S), 20).astype(np.int32)
    start = rng.uniform(-0.1, 0.1, (40, 3)) + np.array([0.0, 0.0, 1.0])
    velocity = np.array([VELOCITIES_M_S[i] for i in ids.tolist()])
    positions = start[:, None] + np.arange(31)[:, None] * 0.1 * velocity[:, None]
    pixels = np.zeros((40, 2), np.int32)
    return PointTrajectories(positions[None].astype(np.float32), ids, pixels, WIDTH, HEIGHT, 0.1)


def objects() -> list[ObjectMotion]:
    return estimate_object_motions(trajectories(), ObjectMotionConfig(), moving_probability={3: 0.6, 8: 0.9})


def features(**changes: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401  (options of any type)
    return lerobot_features(camera_name="front", width=WIDTH, height=HEIGHT, **changes)


def test_every_value_has_the_dtype_and_shape_of_its_feature() -> None:
    described = features(state_names=["x", "y", "gripper"], num_points=32)
    observation = lerobot_observation(
        described, frame(), objects(), trajectories(), prompt="lift", state=np.array([1.0, 2.0, 3.0])
    )
    assert observation.pop("task") == "lift"
    assert observation.keys() == described.keys()
    for key, feature in described.items():
        assert observation[key].shape == feature["shape"], key
        dtype = "uint8" if feature["dtype"] == "video" else feature["dtype"]
        assert observation[key].dtype == np.dtype(dtype), key
        assert "/" not in key
    image = described["observation.images.front"]
    assert (image["shape"], image["names"]) == ((HEIGHT, WIDTH, 3), ["height", "width", "channels"])
    assert observation["observation.state"].tolist() == [1.0, 2.0, 3.0]
    assert features(video=False)["observation.images.front"]["dtype"] == "image"


def test_slots_are_filled_by_the_probability_to_move() -> None:
    described = features(max_objects=3)
    state = lerobot_observation(described, frame(), objects(), trajectories())["observation.environment_state"]
    names = described["observation.environment_state"]["names"]
    assert len(names) == len(set(names)) == 3 * len(OBJECT_FIELDS)
    value = dict(zip(names, state.tolist(), strict=True))
    assert [value[f"object_{slot}.moving_probability"] for slot in range(3)] == pytest.approx([0.9, 0.6, 0.0])
    assert [value[f"object_{slot}.present"] for slot in range(3)] == [1.0, 1.0, 0.0]
    moved = [value[f"object_0.displacement_{axis}_m"] for axis in "xyz"]
    assert moved == pytest.approx([0.0, -0.6, 0.3], abs=1e-4)  # 3 s
    assert [value[f"object_0.flag_{axis}"] for axis in "xyz"] == [0.0, -1.0, 1.0]
    start = trajectories().positions[0, trajectories().object_ids == 3, 0]
    centroid = [value[f"object_1.centroid_{axis}_m"] for axis in "xyz"]
    assert centroid == pytest.approx(start.mean(axis=0).tolist(), abs=1e-5)
    assert not state[2 * len(OBJECT_FIELDS) :].any()


def test_trajectories_are_spread_over_the_forecast() -> None:
    described = features(num_points=50)
    observation = lerobot_observation(described, frame(), objects(), trajectories(), seed=4)
    positions, valid = observation["observation.forecast.positions"], observation["observation.forecast.valid"]
    assert valid.all()
    moved = (positions - positions[:, :1]) / np.maximum(np.linspace(0, 3.0, 16), 1e-9)[:, None]
    expected = np.array(list(VELOCITIES_M_S.values()))
    apart = np.linalg.norm(moved[:, 1:, None] - expected, axis=-1)
    assert apart.min(axis=-1).max() < 1e-5
    again = lerobot_observation(described, frame(), objects(), trajectories(), seed=4)
    np.testing.assert_array_equal(again["observation.forecast.positions"], positions)


def test_an_empty_scene_is_zeros() -> None:
    nothing = PointTrajectories(
        np.zeros((1, 0, 31, 3), np.float32), np.zeros(0, np.int32), np.zeros((0, 2), np.int32), WIDTH, HEIGHT, 0.1
    )
    observation = lerobot_observation(features(num_points=5), frame(), [], nothing)
    assert not observation["observation.environment_state"].any()
    assert not observation["observation.forecast.valid"].any()
    assert not observation["observation.forecast.positions"].any()


def test_what_contradicts_the_features_is_refused() -> None:
    with pytest.raises(ShapeError, match="rgb"):
        lerobot_observation(features(), frame().resized(32, 24), objects(), trajectories())
    with pytest.raises(ValueError, match="state: expected one, as the features say, got none"):
        lerobot_observation(features(state_names=["x"]), frame(), objects(), trajectories())
    with pytest.raises(ValueError, match="state: expected none, as the features say, got one"):
        lerobot_observation(features(), frame(), objects(), trajectories(), state=np.zeros(1))
    with pytest.raises(ShapeError, match="state"):
        lerobot_observation(features(state_names=["x"]), frame(), objects(), trajectories(), state=np.zeros(2))
    with pytest.raises(ValueError, match="without slashes"):
        lerobot_features(camera_name="a/b", width=1, height=1)
