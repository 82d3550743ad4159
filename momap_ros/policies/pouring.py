"""What is carried to a dish and stays beside it in the air is poured into it, whether or not the forecast tilts it.

Forecasts carry a bottle to where it would be poured from, and tilt it by a fifth of what pouring takes. Nobody holds a
thing over the rim of a bowl for nothing: what is put into the bowl goes to its middle, and down.
"""

from __future__ import annotations

import numpy as np

from momap_ros.articulation import Articulation, JointKind, joint_motions
from momap_ros.geometry import Float64
from momap_ros.policies.contacts import Surroundings
from momap_ros.policies.supports import Support, carried_path, numbered, progress, raised, supports_of

# Chosen on 25 train episodes of each skill that carries something: 21 of 25 pours are found, and 1 of 199 others.
_STAYS_UP = 0.3  # share of its greatest height at which what is put down no longer is when its way ends
_AWAY_M = 0.02  # so far short of the goal's middle and above its rim, together, is not where something is put down
_BEYOND_M, _BELOW_M = 0.02, 0.01  # what ends so far beyond the middle, or so far below the rim, is put down
_TALL_M = 0.04  # what is lower is no vessel
_ON_TABLE_M = 0.05  # what is seen down to this height stands on the table, its foot hidden
_TILT_RAD, _TILT_STEPS = 1.75, 12
_CLEAR_M = 0.015  # between rim and mouth, and between rim and foot before it tilts


def poured(track: Float64, seen: Surroundings, goal_id: int) -> Float64 | None:
    """(U, 4, 4) a way on which a vessel is carried beside its goal, tilted until its mouth is over it, and back.

    It tilts to the side as seen from the arm, so that the wrist rolls and the hand need not turn over.

    Args:
        track: (T, 4, 4) motion of the object from step 0, base frame (z up).
        seen: its points and those around it, with the instances that these belong to.
        goal_id: instance that the object is expected to go to; 0 = not known.

    Returns:
        None where the object is not poured: it is not carried, is too low, has no goal that is seen, or is put down.
    """
    path = carried_path(track, seen)
    low, high = seen.points.min(axis=0), seen.points.max(axis=0)
    foot_m = low[2] if low[2] > seen.table_m + _ON_TABLE_M else min(low[2], seen.table_m + _CLEAR_M)
    if path is None or high[2] - foot_m < _TALL_M:
        return None
    goal = numbered(supports_of(seen, path[0, :2]), goal_id)
    if goal is None or not _stays_beside(path, low[2], goal):
        return None
    half_m, radius_m = float(high[2] - foot_m) / 2, float((high - low)[:2].max()) / 2
    aside = np.array([-goal.middle_xy[1], goal.middle_xy[0], 0.0]) / np.linalg.norm(goal.middle_xy)
    toward = -aside if (path[0, :2] - goal.middle_xy) @ aside[:2] > 0 else aside
    up = np.array([0.0, 0.0, 1.0])
    mouth = np.array([*goal.middle_xy, goal.top_m + radius_m + _CLEAR_M])
    tilted = mouth - half_m * (np.sin(_TILT_RAD) * toward + np.cos(_TILT_RAD) * up)
    beside = tilted.copy()
    beside[2] = max(tilted[2], goal.top_m + _CLEAR_M + half_m)
    along = progress(path)
    ways = path + along[:, None] * (beside - path[-1])
    ways[:, 2] = np.maximum(ways[:, 2], path[0, 2] + raised(along) * (beside[2] - path[0, 2]))
    share = np.linspace(0.0, 1.0, _TILT_STEPS + 1)[1:]
    share = np.concatenate([np.zeros(len(ways)), share, share[-2::-1], [0.0]])
    ways = np.append(ways, np.tile(beside, (len(share) - len(ways), 1)), axis=0) + share[:, None] * (tilted - beside)
    middle = np.array([*path[0, :2], (high[2] + foot_m) / 2])
    tilt = Articulation(JointKind.REVOLUTE, np.cross(up, toward), middle, share * _TILT_RAD)
    motion = joint_motions(tilt)
    motion[:, :3, 3] += ways - path[0]
    return np.asarray(motion)


def _stays_beside(path: Float64, bottom_m: float, goal: Support) -> bool:
    """Whether a (T, 3) way of something ends beside a goal and above it."""
    end, raised_m = path[-1], path[:, 2] - path[0, 2]
    way = end[:2] - path[0, :2]
    short_m = (goal.middle_xy - end[:2]) @ way / np.linalg.norm(way)
    above_m = bottom_m + raised_m[-1] - goal.top_m
    away = short_m > -_BEYOND_M and above_m > -_BELOW_M and short_m + above_m > _AWAY_M
    return bool(away and raised_m[-1] > _STAYS_UP * raised_m.max())
