"""Where a camera stands and what it looks at; never chosen by which object will move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float64, PinholeCamera, invert_se3, se3_from_parts
from momap_ros.simulation.scene import WORK_AREA_CENTRE

# (share of the views, aspect ratio of the field of view, range of the vertical field of view in degrees). A 640x480 or
# 1280x720 image reaches a model with a square input stretched, so square training images are stretched alike.
_FIELDS_OF_VIEW = (
    (0.25, 1.0, (45.0, 62.0)),
    (0.45, 4 / 3, (40.0, 55.0)),
    (0.30, 16 / 9, (32.0, 45.0)),
)


@dataclass(frozen=True)
class View:
    """A camera in the scene.

    Attributes:
        camera: intrinsics.
        world_from_camera: (4, 4) pose of the optical frame (x right, y down, z forward), metres.
    """

    camera: PinholeCamera
    world_from_camera: Float64

    @property
    def camera_from_world(self) -> Float64:
        """(4, 4) world points into the optical frame."""
        return invert_se3(self.world_from_camera)


def look_at(position: Float64, target: Float64, up: Float64) -> Float64:
    """(4, 4) world_from_camera of an optical frame at `position` that sees `target` in its centre."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return se3_from_parts(np.stack([right, np.cross(forward, right), forward], axis=1), position)


def draw_view(rng: np.random.Generator, width: int, height: int, candidates_xy: Float64) -> View:
    """Draw a camera for an image of this size.

    Square images show a 1:1, 4:3 or 16:9 field of view, stretched (fx != fy); other sizes have square pixels. Most
    cameras look over the robot's shoulder, as in BRIDGE; some from the front or the sides.

    Args:
        rng: source of every choice.
        width: pixels.
        height: pixels.
        candidates_xy: (K, 2) what the camera may aim at beside the middle of the table: every object, acted on or not.
    """
    choice = int(rng.choice(len(_FIELDS_OF_VIEW), p=[share for share, _, _ in _FIELDS_OF_VIEW]))
    _, aspect, fov_range_deg = _FIELDS_OF_VIEW[choice]
    vertical_fov = np.radians(rng.uniform(*fov_range_deg))
    if width == height:
        camera = PinholeCamera.from_fov(round(height * aspect), height, vertical_fov_rad=vertical_fov)
        camera = camera.resized(width, height)
    else:
        camera = PinholeCamera.from_fov(width, height, vertical_fov_rad=vertical_fov)
    return View(camera, _draw_pose(rng, candidates_xy))


def draw_over_shoulder_view(rng: np.random.Generator, width: int, height: int) -> View:
    """A camera with square pixels where BRIDGE mounts its main one: behind the robot, above it, to one side."""
    camera = PinholeCamera.from_fov(width, height, vertical_fov_rad=np.radians(rng.uniform(42, 50)))
    azimuth = np.pi + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
    elevation = np.radians(rng.uniform(35, 50))
    target = np.array([*(WORK_AREA_CENTRE + rng.uniform(-0.03, 0.03, 2)), 0.02])
    return View(
        camera, look_at(target + rng.uniform(0.5, 0.65) * _unit(azimuth, elevation), target, np.array([0, 0, 1.0]))
    )


def _draw_pose(rng: np.random.Generator, candidates_xy: Float64) -> Float64:
    sector = rng.random()
    if sector < 0.6:  # over the shoulder
        azimuth = np.pi + rng.uniform(-1.2, 1.2)
    elif sector < 0.8:  # from the front
        azimuth = rng.uniform(-1.2, 1.2)
    else:
        azimuth = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.5, 0.5)
    elevation = np.radians(rng.uniform(24, 62))
    distance = rng.uniform(0.32, 0.60) if rng.random() < 0.6 else rng.uniform(0.42, 0.85)
    at_table = rng.random() < 0.5
    aim = WORK_AREA_CENTRE if at_table else candidates_xy[rng.integers(len(candidates_xy))]
    target = np.array([aim[0] + rng.uniform(-0.06, 0.06), aim[1] + rng.uniform(-0.08, 0.08), rng.uniform(0, 0.08)])
    up = np.array([rng.normal(0, 0.04), rng.normal(0, 0.04), 1.0])  # no camera is mounted perfectly level
    return look_at(target + distance * _unit(azimuth, elevation), target, up)


def _unit(azimuth: float, elevation: float) -> Float64:
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
