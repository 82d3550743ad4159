"""Is a MoMap true, and does its framing give nothing away? Rays cast at later steps must meet its points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.data.sample import Role, Sample
from momap_ros.geometry import Float64, FloatArray, invert_se3, transform_points
from momap_ros.simulation.episodes import Episode

RAY_TOLERANCE_M = 0.002
MIN_SEEN_SHARE = 0.0025  # of the pixels: smaller objects do not count as seen
# A ray through the very edge of a body can slip past it by a rounding, about one in a hundred thousand: before a point
# counts as wrong, rays a twentieth of a millimetre beside it must miss as well.
_NUDGES_M = 5e-5 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
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
    def violations(self) -> int:
        """Number of points with no surface at them or before them: their transport is wrong."""
        return int((self.gap_m > RAY_TOLERANCE_M).sum())

    @property
    def violation_share(self) -> float:
        """Share of points with no surface at them or before them."""
        return self.violations / max(1, len(self.gap_m))

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


def clearance_m(model: mujoco.MjModel, data: mujoco.MjData, pose: Float64) -> float:
    """Distance from a pose's (4, 4) origin to the nearest surface along its six half axes, metres; inf without one.

    A camera within a solid is as near to the surfaces around it, which a renderer does not draw from inside.
    """
    origin, geom = np.ascontiguousarray(pose[:3, 3]), np.zeros(1, np.int32)
    axes = np.concatenate([pose[:3, :3].T, -pose[:3, :3].T])
    hits = [mujoco.mj_ray(model, data, origin, axis, _RENDERED_GROUPS, 1, -1, geom, None) for axis in axes]
    return min((hit for hit in hits if hit >= 0), default=float("inf"))


def ray_check(
    episode: Episode,
    sample: Sample,
    steps: Sequence[int],
    *,
    num_points: int,
    rng: np.random.Generator,
    moving_only: bool = False,
    towards_camera_m: float = 0.0,
    lag_steps: int = 0,
) -> RayCheck:
    """Cast rays through points of a sample's MoMap at several steps, in the simulated scene of each step.

    Args:
        episode: what the sample shows.
        sample: one view of it, as rendered (not from a shard, where depth is rounded to 0.1 mm).
        steps: which steps to check.
        num_points: per step; half of them on moving bodies where enough of those are seen.
        rng: chooses the points.
        moving_only: choose on moving bodies alone.
        towards_camera_m: move the points by this much before casting: a known error that the check must report.
        lag_steps: compare with the scene this many steps later: another one.
    """
    num_steps = len(sample.motion_t_from_0)
    spans_all = np.isclose(sample.duration_s, episode.rollout.duration_s)
    states = episode.state_indices(num_steps, None if spans_all else sample.step_s)
    data = mujoco.MjData(episode.scene.model)
    xyz = sample.momap().xyz.reshape(num_steps, -1, 3)
    moving = np.flatnonzero(np.isin(sample.body_ids, sample.moving_bodies))
    gaps = []
    for step in steps:
        chosen = rng.choice(moving, min(num_points if moving_only else num_points // 2, len(moving)), replace=False)
        if not moving_only:
            rest = rng.choice(sample.body_ids.size, num_points - len(chosen), replace=False)
            chosen = np.append(chosen, rest)
        episode.restore(data, states[min(step + lag_steps, num_steps - 1)])
        points = xyz[step, chosen] - [0, 0, towards_camera_m]
        gap = cast_rays(episode.scene.model, data, points, sample.camera_from_world).gap_m
        for nudge_m in _NUDGES_M if (gap > RAY_TOLERANCE_M).any() else ():
            nudged = cast_rays(episode.scene.model, data, points + nudge_m, sample.camera_from_world).gap_m
            gap = np.where(gap > RAY_TOLERANCE_M, nudged, gap)
        gaps.append(gap)
    return RayCheck(np.concatenate(gaps))


@dataclass(frozen=True)
class FramingLeak:
    """How often the object nearest to the image centre is the one that will move.

    Attributes:
        hits: views where it is.
        expected: views where it would be by chance: the sum of 1 / (objects seen).
        variance: of the number of hits by chance.
        count: views with at least three objects.
    """

    hits: int
    expected: float
    variance: float
    count: int

    @property
    def excess(self) -> float:
        """Share of the views above chance; at most 0.05 is asked for."""
        return (self.hits - self.expected) / max(1, self.count)

    @property
    def standard_error(self) -> float:
        """Standard deviation of `excess` if the framing knows nothing."""
        return float(np.sqrt(self.variance)) / max(1, self.count)


def framing_leak(samples: Iterable[Sample]) -> FramingLeak:
    """Compare the object nearest to the centre with the acted one, in all samples where three or more are seen."""
    hits, count, expected, variance = 0, 0, 0.0, 0.0
    for sample in samples:
        seen = seen_objects(sample)
        if len(seen) < 3 or Role.ACTED not in {sample.body_roles[body] for body in seen}:
            continue
        hits += sample.body_roles[nearest_to_centre(sample)] == Role.ACTED
        count += 1
        expected += 1 / len(seen)
        variance += (1 - 1 / len(seen)) / len(seen)
    return FramingLeak(hits, expected, variance, count)


def seen_objects(sample: Sample) -> list[int]:
    """Bodies of the acted thing and the other objects that take at least MIN_SEEN_SHARE of the image."""
    counts = np.bincount(sample.body_ids.reshape(-1), minlength=len(sample.body_roles))
    loose = np.isin(sample.body_roles, [Role.ACTED, Role.OBJECT])
    return [int(body) for body in np.flatnonzero(loose & (counts >= MIN_SEEN_SHARE * sample.body_ids.size))]


def nearest_to_centre(sample: Sample) -> int:
    """The seen object whose pixels' mean is nearest to the middle of the image; -1 where none is seen."""
    middle = (np.array(sample.rgb.shape[:2]) - 1) / 2
    distances = {
        body: float(np.linalg.norm(np.argwhere(sample.body_ids == body).mean(0) - middle))
        for body in seen_objects(sample)
    }
    return min(distances, key=distances.__getitem__, default=-1)
