"""What a hand does to an object that gets nowhere: it turns it where it stands, or rubs the table with it.

Forecasts tell neither well: which way something is turned is a guess, and of strokes the draws' mean is at rest. Nor do
they tell that what is lifted and put back where it lay has been stood up.
"""

from __future__ import annotations

import numpy as np

from momap_ros.articulation import Articulation, JointKind, joint_motions
from momap_ros.geometry import Float64, FloatArray, se3_from_parts, transform_points
from momap_ros.policies.contacts import Surroundings

_TURNED_RAD = np.pi / 2
_STROKES, _STROKES_M = 3.0, 0.06  # a path so many times as long as the way from its start, and so long, is to and fro
_NOWHERE_M, _KNOB_NOWHERE_M = 0.03, 0.015  # what does not get so far stays where it is; the same above the table
_TURNED_ENOUGH_RAD, _TURNING_RAD = 1.2, 0.1  # a forecast turn that is left as it is, and one that tells the way round
_STANDS_M = 0.01  # above the table
_LIFTED_M = 0.06
_TURN_STEPS = 11
_PANEL_M, _LEAST_PANEL = 0.08, 30  # from a knob to what it is on, and points that tell its slope
_LONG, _LIES = 1.4, 0.8  # spread along to across of what is long; level share of its axis when it lies
# Least height that it is lifted to; how near to its place, and below what share of that height, it is put back; a gap.
_TAKEN_UP_M, _PUT_BACK_M, _PUT_DOWN, _SET_DOWN_M = 0.04, 0.03, 0.75, 0.002
_DOWN_M = 0.004  # what goes down so far, and goes nowhere else, is pressed


def to_and_fro(paths: FloatArray, weights: FloatArray) -> bool:
    """Whether (K, T, 3) drawn paths, metres, with (K,) weights are much longer than the ways from their starts."""
    share = np.asarray(weights) / np.sum(weights)
    way_m = float(share @ np.linalg.norm(paths - paths[:, :1], axis=-1).max(axis=1))
    path_m = float(share @ path_lengths_m(paths))
    return path_m > max(_STROKES * way_m, _STROKES_M)


def path_lengths_m(paths: FloatArray) -> Float64:
    """(K,) lengths of (K, T, 3) paths."""
    return np.asarray(np.linalg.norm(np.diff(paths, axis=1), axis=-1).sum(axis=1))


def in_place(track: Float64, seen: Surroundings) -> Float64:
    """The way of an object that stays where it is: turned by a quarter, or rubbed on the table that it stands on.

    What does not stand on the table is a knob, and turns about the normal of what it is on.

    Args:
        track: (T, 4, 4) motion of the object from step 0, base frame (z up).
        seen: its points, and the table's height.

    Returns:
        (U, 4, 4); the way itself where the object gets somewhere, is turned already, or is pressed.
    """
    from scipy.spatial.transform import Rotation

    turns = np.asarray(Rotation.from_matrix(track[:, :3, :3]).as_rotvec())
    turn = turns[int(np.linalg.norm(turns, axis=1).argmax())]
    if np.linalg.norm(turn) > _TURNED_ENOUGH_RAD:
        return track
    centre = (seen.points.min(axis=0) + seen.points.max(axis=0)) / 2
    path = transform_points(track, centre) - centre
    if (upright := _set_upright(path, centre, seen)) is not None:
        return upright
    stands = float(seen.points[:, 2].min()) <= seen.table_m + _STANDS_M
    if stands and to_and_fro(path[None], np.ones(1)) and np.abs(path[:, 2]).max() < _LIFTED_M:
        return se3_from_parts(np.tile(np.eye(3), (len(path), 1, 1)), path * [1.0, 1.0, 0.0])
    nowhere_m = _NOWHERE_M if stands else _KNOB_NOWHERE_M
    if np.linalg.norm(path, axis=1).max() > nowhere_m or (not stands and _is_pressed(path)):
        return track
    axis = np.array([0.0, 0.0, 1.0]) if stands else _normal(seen, centre)
    axis = -axis if turn @ axis < -_TURNING_RAD else axis  # where a way round is forecast, that way
    angles = np.linspace(0.0, _TURNED_RAD, _TURN_STEPS)
    return joint_motions(Articulation(JointKind.REVOLUTE, axis, centre, angles))


def _set_upright(path: Float64, centre: Float64, seen: Surroundings) -> Float64 | None:
    """(T, 4, 4) of something long that lies, is lifted and put back where it lay: it is stood up, its thinner end up.

    Nobody lifts a thing for nothing. None where it is not so.

    Args:
        path: (T, 3) way of its centre, from 0.
        centre: (3,) where that begins.
        seen: its points, and the table's height.
    """
    middle = seen.points.mean(axis=0)
    _, spread, axes = np.linalg.svd(seen.points - middle, full_matrices=False)
    axis = np.array([axes[0][0], axes[0][1], 0.0])
    level = float(np.linalg.norm(axis))
    raised_m, away_m = float(path[:, 2].max()), float(np.linalg.norm(path[-1, :2]))
    put_back = away_m < _PUT_BACK_M and path[-1, 2] < _PUT_DOWN * raised_m
    if spread[0] < _LONG * spread[1] or level < _LIES or raised_m < _TAKEN_UP_M or not put_back:
        return None
    axis /= level
    along = (seen.points - centre) @ axis
    along -= (along.min() + along.max()) / 2
    across = (seen.points - centre) @ np.array([-axis[1], axis[0], 0.0])
    half_m = float(np.ptp(along)) / 2
    if seen.points[:, 2].min() > seen.table_m + np.ptp(across) / 2 + _STANDS_M:  # its lower half may be hidden
        return None
    widths_m = [float(np.ptp(across[sign * along > 0.7 * half_m])) for sign in (1, -1)]
    top = axis if widths_m[0] < widths_m[1] else -axis
    # In the middle of the way, when it is in the air; at the end it stands on the table.
    share = np.clip(2.0 * np.linspace(0.0, 1.0, len(path)) - 0.5, 0.0, 1.0)
    axis = np.cross(top, [0.0, 0.0, 1.0])
    upright = joint_motions(Articulation(JointKind.REVOLUTE, axis, centre, share * _TURNED_RAD))
    upright[:, :3, 3] += path
    lowest_m = seen.table_m + half_m + _SET_DOWN_M - centre[2]
    upright[:, 2, 3] += share * np.maximum(lowest_m - path[:, 2], 0.0)
    return np.asarray(upright)


def _is_pressed(path: Float64) -> bool:
    """Whether a (T, 3) way from 0 goes mostly down."""
    lowest = path[int(path[:, 2].argmin())]
    return bool(-lowest[2] > max(_DOWN_M, float(np.linalg.norm(lowest[:2])), float(path[:, 2].max())))


def _normal(seen: Surroundings, centre: Float64) -> Float64:
    """(3,) upward normal of the surface around what is not on the table; up where too little of it is seen."""
    around = np.linalg.norm(seen.others - centre, axis=1) < _PANEL_M
    panel = seen.others[around & (seen.others[:, 2] > seen.table_m + _STANDS_M)]
    if len(panel) < _LEAST_PANEL:
        return np.array([0.0, 0.0, 1.0])
    normal = np.linalg.svd(panel - panel.mean(axis=0), full_matrices=False)[2][2]
    return np.asarray(normal * np.copysign(1.0, normal[2]))
