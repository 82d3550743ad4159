"""Where a carried object is put down: on something that is seen, not beside it.

A forecast that carries an object through the air and ends a few centimetres beside a bowl means the bowl. What can
carry the object is seen in the same image, so the end of the way is moved onto it and the way is raised over its rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float64, transform_points
from momap_ros.policies.contacts import Surroundings

_CARRIED_M, _RAISED_M = 0.05, 0.03  # least way over the table, and above it, of what is carried
_TILTED_COS = 0.8  # what is tilted more than this on its way is poured, or set upright
_MIN_POINTS = 20
_CENTRED_M = 0.025  # an end so near to the middle is left as forecast
_HEIGHT_M = 0.12  # a support so much higher or lower than the forecast's end is not meant
_LARGEST_M = 0.15  # half the side of what is a support and not the room
_OVER_RIM_M, _SET_DOWN_M = 0.012, 0.004


@dataclass(frozen=True, eq=False)
class Support:
    """Something seen that can carry an object.

    Attributes:
        instance_id: positive.
        middle_xy: (2,) of the box around it, base frame, metres.
        half_m: half the longer horizontal side of that box.
        surface_m: height of what is seen around its middle: of a bowl, the ground.
        top_m: its highest point: of a bowl, the rim.
    """

    instance_id: int
    middle_xy: Float64
    half_m: float
    surface_m: float
    top_m: float


def onto_support(track: Float64, seen: Surroundings, reach_m: float, goal_id: int = 0) -> Float64:
    """A carried object's way, its end moved onto the support that it is to go to, or else that it ends beside.

    Args:
        track: (T, 4, 4) motion of the object from step 0, base frame (z up).
        seen: its points and those around it, with the instances that these belong to.
        reach_m: an end so far outside of a support is still meant to be on it; 0 = the way stays as it is.
        goal_id: instance that the object is to go to, however far off the end is; 0 = not known.

    Returns:
        (T, 4, 4), or (T + 1, 4, 4) with the setting down as the last step; the way itself where it is not carried, is
        tilted, or ends in the middle of a support, or of nothing.
    """
    path = carried_path(track, seen)
    if not reach_m or path is None:
        return track
    supports = supports_of(seen, path[0, :2])
    goal = numbered(supports, goal_id)
    level = track[:, 2, 2].min() > _TILTED_COS
    if not (goal or level):
        return track
    if goal:  # as it stands: forecasts tilt what is put down about as much as what is poured
        track = np.repeat(np.eye(4)[None], len(track), axis=0)
        track[:, :3, 3] = path - path[0]
    bottom = np.array([np.quantile(transform_points(motion, seen.points)[:, 2], 0.02) for motion in track])
    support = goal or _meant(supports, path[-1, :2], float(bottom[-1]), reach_m)
    if support is None:
        return track
    shift = support.middle_xy - path[-1, :2]
    if np.linalg.norm(shift) < _CENTRED_M:
        return track
    share = progress(path)
    moved = track.copy()
    moved[:, :2, 3] += share[:, None] * shift
    over = np.maximum(support.top_m + _OVER_RIM_M - bottom, 0.0)
    moved[:, 2, 3] += raised(share) * over
    down = moved[-1].copy()
    down[2, 3] = track[-1, 2, 3] + support.surface_m + _SET_DOWN_M - bottom[-1]
    return np.append(moved, down[None], axis=0)


def carried_path(track: Float64, seen: Surroundings) -> Float64 | None:
    """(T, 3) way of an object's middle, base frame, under (T, 4, 4) motions; None where it is not carried anywhere."""
    path = transform_points(track, (seen.points.min(axis=0) + seen.points.max(axis=0)) / 2)
    far = np.linalg.norm(path[-1, :2] - path[0, :2]) >= _CARRIED_M
    return path if far and path[:, 2].max() - path[0, 2] >= _RAISED_M else None


def progress(path: Float64) -> Float64:
    """(T,) share of a (T, 3) way over the table that is behind at each step, never falling."""
    along = np.linalg.norm(path[:, :2] - path[0, :2], axis=1)
    return np.asarray(np.clip(np.maximum.accumulate(along) / along[-1], 0.0, 1.0))


def raised(share: Float64) -> Float64:
    """(T,) share of a height that is kept to go over something at the end of the way; full before half of it."""
    return np.asarray(np.clip(3.0 * share - 0.5, 0.0, 1.0))


def supports_of(seen: Surroundings, start_xy: Float64) -> list[Support]:
    """What may carry something: instances of moderate size on which the object does not stand already.

    Args:
        seen: with the instances of the points around the object; without them there are no supports.
        start_xy: (2,) where the object is, metres.
    """
    if seen.other_ids is None:
        return []
    found = []
    for instance_id in np.unique(seen.other_ids[seen.other_ids > 0]):
        points = seen.others[seen.other_ids == instance_id]
        if len(points) < _MIN_POINTS:
            continue
        low, high = np.quantile(points, 0.02, axis=0), np.quantile(points, 0.98, axis=0)
        middle, half_m = (low + high)[:2] / 2, float((high - low)[:2].max()) / 2
        stands_on = ((start_xy > low[:2] - 0.01) & (start_xy < high[:2] + 0.01)).all()
        if stands_on or half_m > _LARGEST_M:
            continue
        inside = np.linalg.norm(points[:, :2] - middle, axis=1) < max(0.4 * half_m, 0.01)
        surface_m = float(np.median(points[inside, 2])) if inside.sum() >= 3 else float(high[2])
        found.append(Support(int(instance_id), middle, half_m, surface_m, float(high[2])))
    return found


def numbered(supports: list[Support], instance_id: int) -> Support | None:
    """The support that is an instance."""
    return next((support for support in supports if support.instance_id == instance_id), None)


def _meant(supports: list[Support], end_xy: Float64, bottom_m: float, reach_m: float) -> Support | None:
    """The support whose middle is nearest to an end, of those within reach and at a height that fits."""
    fitting = []
    for support in supports:
        apart_m = float(np.linalg.norm(support.middle_xy - end_xy))
        if apart_m < support.half_m + reach_m and abs(support.surface_m - bottom_m) < _HEIGHT_M:
            fitting.append((apart_m, support))
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None
