from __future__ import annotations

import numpy as np
import pytest
from box_scene import moved, pose, render

from momap_ros.geometry import Float64, transform_points
from momap_ros.scoring.camera import BackgroundReference, CameraMotion

SWAY = moved(np.eye(4), (0.03, 0.01, -0.02), 1.5)


def compare(world_from_camera: Float64, *, textured: bool = True) -> CameraMotion:
    """The box moves too, farther than the camera; only the background counts."""
    reference = BackgroundReference(*render(pose(), textured=textured))
    later = render(moved(pose(), (0.1, 0, 0)), 1.0, world_from_camera=world_from_camera, textured=textured)
    return reference.compare(*later)


def test_a_camera_at_rest_rests() -> None:
    motion = compare(np.eye(4))
    assert motion.rests
    assert motion.shift_px < 0.1
    assert motion.depth_change_m == 0.0


def test_a_camera_that_sways_is_found_with_its_pose() -> None:
    motion = compare(SWAY)
    assert not motion.rests
    assert motion.camera_from_reference is not None
    table = np.array([[x, y, 1.0] for x in (-0.3, 0.3) for y in (-0.2, 0.2)])
    off = transform_points(motion.camera_from_reference, table) - transform_points(np.linalg.inv(SWAY), table)
    assert np.linalg.norm(off, axis=1).max() < 0.003


@pytest.mark.parametrize(("shift_m", "rests"), [((0, 0, 0), True), ((0, 0, 0.03), False)])
def test_without_corners_depth_tells(shift_m: tuple[float, float, float], *, rests: bool) -> None:
    motion = compare(moved(np.eye(4), shift_m), textured=False)
    assert np.isnan(motion.shift_px)
    assert motion.camera_from_reference is None
    assert motion.rests is rests


def test_without_background_nobody_can_tell() -> None:
    reference = BackgroundReference(*render(pose()))
    assert not reference.compare(*render(pose(), 1.0, screen=(0, 319))).rests
