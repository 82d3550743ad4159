from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.geometry import Float64, invert_se3, transform_points
from momap_ros.simulation.camera_paths import CARRIED, FIXED, HAND_HELD, MOTIONS, camera_path
from momap_ros.simulation.cameras import look_at
from momap_ros.simulation.scene import WORK_AREA_CENTRE

START = look_at(np.array([-0.3, 0.35, 0.5]), np.array([0.25, 0.02, 0.02]), np.array([0.05, 0, 1.0]))
TIMES_S = np.arange(0, 12, 0.01)


def path(motion: str, seed: int, times_s: Float64 = TIMES_S) -> Float64:
    return camera_path(START, motion, times_s, np.random.default_rng(seed))


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_path_begins_where_it_was_told_and_is_rigid(motion: str) -> None:
    poses = path(motion, 3)
    np.testing.assert_array_equal(poses[0], START)
    rotations = poses[:, :3, :3]
    identity = np.tile(np.eye(3), (len(poses), 1, 1))
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), identity, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_allclose(path(motion, 3, TIMES_S[::50]), poses[::50], atol=1e-12)  # whatever the times


@pytest.mark.parametrize("motion", [HAND_HELD, CARRIED])
def test_a_path_is_smooth(motion: str) -> None:
    for seed in range(10):
        position = path(motion, seed)[:, :3, 3]
        velocity = np.diff(position, axis=0) / 0.01
        acceleration = np.diff(velocity, axis=0) / 0.01
        assert np.linalg.norm(velocity, axis=1).max() < 0.25
        assert np.linalg.norm(acceleration, axis=1).max() < 1.0
        assert np.ptp(position, axis=0).max() > 0.005  # and it moves


def test_a_hand_sways_by_centimetres_and_degrees() -> None:
    for seed in range(20):
        moved = invert_se3(START) @ path(HAND_HELD, seed)
        angle = np.degrees(np.arccos(np.clip((np.trace(moved[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
        assert np.linalg.norm(moved[:, :3, 3], axis=1).max() < 0.12
        assert angle.max() < 8


def test_a_carried_camera_keeps_the_table_where_it_was_in_the_image() -> None:
    centre = np.array([*WORK_AREA_CENTRE, 0.02])
    for seed in range(10):
        poses = path(CARRIED, seed)
        seen = transform_points(invert_se3(poses), centre)
        rays = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        np.testing.assert_allclose(rays, np.tile(rays[0], (len(rays), 1)), atol=1e-9)
        distance = np.linalg.norm(seen, axis=1)
        assert 0.85 - 1e-9 <= distance[-1] / distance[0] <= 1.2 + 1e-9
        heading = np.arctan2(poses[[0, -1], 1, 0], poses[[0, -1], 0, 0])  # of the image's x axis, in the world
        swing = abs(np.degrees(np.angle(np.exp(1j * (heading[1] - heading[0])))))
        assert 7.9 < swing < 20.1


def test_a_fixed_camera_stays() -> None:
    np.testing.assert_array_equal(path(FIXED, 0), np.tile(START, (len(TIMES_S), 1, 1)))


def test_an_unknown_motion_is_refused() -> None:
    with pytest.raises(ValueError, match=r"motion: expected one of \['fixed', 'hand_held', 'carried'\], got 'drone'"):
        path("drone", 0)
