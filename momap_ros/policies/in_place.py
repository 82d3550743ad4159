"""What a hand does to an object that gets nowhere: it turns it where it stands, or rubs the table with it.

Forecasts tell neither well: which way something is turned is a guess, and of strokes the draws' mean is at rest.
"""

from __future__ import annotations

import numpy as np

from momap_ros.articulation import Articulation, JointKind, joint_motions
from momap_ros.geometry import Float64, FloatArray, se3_from_parts, transform_points
from momap_ros.policies.contacts import Surroundings

_TURNED_RAD = np.pi / 2
_STROKES, _STROKES_M = 3.0, 0.06  # a path so many times as long as the way from its start, and so long, is to and fro
_NOWHERE_M = 0.03  # what does not get so far stays where it is
_UNTURNED_RAD = 0.4
_STANDS_M = 0.01  # above the table
_LIFTED_M = 0.06
_TURN_STEPS = 11


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
    """The way of an object that stands on the table and stays where it is: turned by a quarter, or rubbed on the table.

    Args:
        track: (T, 4, 4) motion of the object from step 0, base frame (z up).
        seen: its points, and the table's height.

    Returns:
        (U, 4, 4); the way itself where the object gets somewhere, is turned already, or does not stand on the table.
    """
    lowest_m = float(seen.points[:, 2].min())
    turn = np.arccos(np.clip((np.trace(track[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)).max()
    if lowest_m > seen.table_m + _STANDS_M or turn > _UNTURNED_RAD:
        return track
    centre = (seen.points.min(axis=0) + seen.points.max(axis=0)) / 2
    path = transform_points(track, centre) - centre
    if to_and_fro(path[None], np.ones(1)) and np.abs(path[:, 2]).max() < _LIFTED_M:
        return se3_from_parts(np.tile(np.eye(3), (len(path), 1, 1)), path * [1.0, 1.0, 0.0])
    if np.linalg.norm(path, axis=1).max() > _NOWHERE_M:
        return track
    angles = np.linspace(0.0, _TURNED_RAD, _TURN_STEPS)
    return joint_motions(Articulation(JointKind.REVOLUTE, np.array([0.0, 0.0, 1.0]), centre, angles))
