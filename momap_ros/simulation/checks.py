"""Is a MoMap true? Rays cast into the simulated scene at later steps must meet its points."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.geometry import Float64, FloatArray, invert_se3, transform_points

RAY_TOLERANCE_M = 0.002
_RENDERED_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # collision-only geoms are not in the image either


@dataclass(frozen=True, eq=False)
class RayCheck:
    """Result of casting one ray from the camera through every point of one step.

    Attributes:
        gap_m: (P,) distance along the ray from the point to the surface hit; positive where the point floats in front
            of every surface, infinite where the ray hits nothing.
    """

    gap_m: Float64

    @property
    def violation_share(self) -> float:
        """Share of points with no surface at them or before them: their transport is wrong."""
        return float((self.gap_m > RAY_TOLERANCE_M).mean())

    @property
    def occluded_share(self) -> float:
        """Share of points behind another surface."""
        return float((self.gap_m < -RAY_TOLERANCE_M).mean())

    @property
    def visible_error_m(self) -> Float64:
        """(V,) absolute gap of the visible points, metres."""
        gap = np.abs(self.gap_m)
        return np.asarray(gap[gap <= RAY_TOLERANCE_M])


def cast_rays(
    model: mujoco.MjModel, data: mujoco.MjData, points_in_camera: FloatArray, camera_from_world: Float64
) -> RayCheck:
    """Compare points of one step with the scene in the state `data` is in.

    A point of a true MoMap is on the first surface its ray meets (visible) or behind it (occluded), never before it.

    Args:
        model: the scene.
        data: its state at the step in question.
        points_in_camera: (P, 3) metres, optical frame.
        camera_from_world: (4, 4).
    """
    world_from_camera = invert_se3(camera_from_world)
    points = transform_points(world_from_camera, np.asarray(points_in_camera, np.float64))
    origin = np.ascontiguousarray(world_from_camera[:3, 3])
    rays = points - origin
    lengths = np.linalg.norm(rays, axis=-1)
    directions = rays / lengths[:, None]
    geom = np.zeros(1, np.int32)
    hits = np.empty(len(points))
    for index, direction in enumerate(directions):
        hits[index] = mujoco.mj_ray(model, data, origin, direction, _RENDERED_GROUPS, 1, -1, geom, None)
    return RayCheck(np.where(hits >= 0, hits, np.inf) - lengths)
