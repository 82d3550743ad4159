from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.geometry import project, transform_points
from momap_ros.simulation.cameras import View, draw_over_shoulder_view, draw_view, look_at
from momap_ros.simulation.scene import WORK_AREA_CENTRE

UP = np.array([0.0, 0.0, 1.0])


def test_look_at_puts_the_target_in_the_centre_and_up_in_the_image_up() -> None:
    position, target = np.array([1.0, -2.0, 1.5]), np.array([0.2, 0.1, 0.0])
    world_from_camera = look_at(position, target, UP)
    view = View(draw_view(np.random.default_rng(0), 64, 48, np.zeros((1, 2))).camera, world_from_camera)
    np.testing.assert_allclose(world_from_camera[:3, :3] @ world_from_camera[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(world_from_camera[:3, :3]) == pytest.approx(1.0)
    target_in_camera = transform_points(view.camera_from_world, target)
    distance = float(np.linalg.norm(target - position))
    np.testing.assert_allclose(target_in_camera, [0.0, 0.0, distance], atol=1e-12)
    above = project(transform_points(view.camera_from_world, target + 0.1 * UP), view.camera)
    np.testing.assert_allclose(above[0], 31.5, atol=1e-9)
    assert above[1] < 23.5


def test_half_of_the_square_cameras_aim_at_the_table_and_the_rest_at_any_object() -> None:
    rng, far = np.random.default_rng(0), np.array([[50.0, 0.0]])
    views = [draw_view(rng, 128, 128, far) for _ in range(400)]
    near_table = np.mean([view.world_from_camera[0, 3] < 5 for view in views])
    assert near_table == pytest.approx(0.5, abs=0.1)


def test_other_sizes_have_square_pixels() -> None:
    camera = draw_view(np.random.default_rng(0), 320, 240, np.zeros((1, 2))).camera
    assert camera.fx == camera.fy
    assert (camera.width, camera.height, camera.cx, camera.cy) == (320, 240, 159.5, 119.5)


def test_the_video_camera_stands_behind_the_robot_and_sees_the_table() -> None:
    for seed in range(20):
        view = draw_over_shoulder_view(np.random.default_rng(seed), 320, 240)
        assert view.world_from_camera[0, 3] < WORK_AREA_CENTRE[0] - 0.1
        centre = project(transform_points(view.camera_from_world, np.array([*WORK_AREA_CENTRE, 0.0])), view.camera)
        assert np.all(np.abs(centre - [159.5, 119.5]) < [40, 40])
