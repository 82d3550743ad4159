"""What the drawn futures of an object have in common: the motion to follow where single draws are noisy.

Different outcomes are not averaged: only futures that end near each other are. Of these the mean is nearer to what
happens than any one of them, and a turn on which they do not agree is noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64, FloatArray, se3_from_parts, transform_points
from momap_ros.object_motion import ObjectMotion
from momap_ros.policies.in_place import path_lengths_m, to_and_fro
from momap_ros.shapes import check_shapes

_SAME_END_M, _SAME_END_SHARE = 0.03, 0.7  # ends this near, or this share of the usual way, are one outcome
_STROKES_LONGER = 2.1  # than drawn: of futures that cannot tell when it turns back each is too short
_WANDER_SHARE = 0.12  # of the longest way: a mean that is longer moves, however much the futures differ
_MOST_STRETCHED = 1.4  # more is no correction of a mean
_LEAST_TURN_RAD = 0.35  # a smaller mean turn is noise that draws have in common
_AGREED_TURN = 1.0  # a mean turn must be so many times as large as the draws' deviation from it


class DrawnMotion(Protocol):
    """One kind of future, as `momap_ros.object_motion.MotionHypothesis`."""

    @property
    def weight(self) -> float:
        """Share of all drawn futures."""

    @property
    def motion_t_from_0(self) -> Float64:
        """(T, 4, 4) rigid motion from step 0 to each step."""


def agreed(motion: ObjectMotion, min_displacement_m: float) -> ObjectMotion:
    """The same object on the way that its hypotheses agree on, with the spread of their ends about that way's end.

    The object itself where they agree on nothing that moves, as where one half turns left and the other right. Its
    other numbers stay those of the reported future.

    Args:
        motion: with all its hypotheses, so estimated with a `max_hypotheses` not below the number of draws.
        min_displacement_m: futures that get less far are at rest, see `agreed_motion`.
    """
    way = agreed_motion(motion.hypotheses, motion.centroid_m, min_displacement_m) if motion.valid else None
    if way is None or not _moving(way[None], motion.centroid_m, min_displacement_m)[0]:
        return motion
    futures = np.stack([future.motion_t_from_0 for future in motion.hypotheses])
    weights = np.array([future.weight for future in motion.hypotheses])
    weights = weights * _moving(futures, motion.centroid_m, min_displacement_m)
    ends = transform_points(futures[:, -1], motion.centroid_m)
    apart_m2 = ((ends - transform_points(way[-1], motion.centroid_m)) ** 2).sum(axis=1)
    # Of each kind of future one is known; how far the others end from it, its covariance says.
    apart_m2 += [np.nan_to_num(np.trace(future.end_covariance[:3, :3])) for future in motion.hypotheses]
    spread_m = float(np.sqrt(weights @ apart_m2 / weights.sum()))
    return replace(motion, motion_t_from_0=way, hypothesis_spread_m=spread_m)


def agreed_motion(futures: Sequence[DrawnMotion], centroid: FloatArray, min_displacement_m: float) -> Float64 | None:
    """(T, 4, 4) the mean of the futures that end as most do; None where no future moves.

    Futures at rest are left out: whether an object moves is its moving probability's to say. Of the others, those
    whose ends are near the end that has most others near it are averaged: the centroid's path, and the turns where the
    futures agree on them. Where all futures are the same, the result is that one;
    of strokes, the longest drawn, lengthened.

    Args:
        futures: of one object, any frame.
        centroid: (3,) of the object at step 0, same frame.
        min_displacement_m: a future in which neither the centroid nor anything 5 cm beside it gets so far is at rest.
    """
    check_shapes(centroid=(centroid, "3"))
    if not futures:
        return None
    weights = np.array([future.weight for future in futures])
    motions = np.stack([np.asarray(future.motion_t_from_0, np.float64) for future in futures])
    moving = _moving(motions, centroid, min_displacement_m)
    if not moving.any():
        return None
    paths = transform_points(motions[moving], np.asarray(centroid, np.float64))
    if to_and_fro(paths, weights[moving]):
        strokes = paths[int(path_lengths_m(paths).argmax())]
        motion = np.repeat(np.eye(4)[None], len(strokes), axis=0)
        motion[:, :3, 3] = _STROKES_LONGER * (strokes - strokes[0])
        return motion
    alike = _of_one_outcome(paths, weights[moving])
    share = weights[moving][alike] / weights[moving][alike].sum()
    path = _as_long(_mean_path(paths[alike], share), paths[alike], share)
    turns = _mean_turns(motions[moving][alike][..., :3, :3], share)
    agreed = se3_from_parts(turns, np.zeros((len(path), 3)))
    agreed[:, :3, 3] = path - turns @ np.asarray(centroid, np.float64)
    return agreed


def _mean_path(paths: Float64, share: Float64) -> Float64:
    """(T, 3) mean of (K, T, 3) paths; it rests where they begin while it is short and they differ more than it is long.

    What is drawn before an object moves wanders, and of wanderings the mean wanders too.
    """
    path = np.einsum("k,kti->ti", share, paths)
    away_m = np.linalg.norm(path - path[0], axis=1)
    deviation_m = np.sqrt(np.einsum("k,kti->t", share, (paths - path) ** 2))
    begun = (away_m >= deviation_m) & (away_m > 0) | (away_m > _WANDER_SHARE * away_m.max())
    return np.asarray(np.where((np.arange(len(path)) < int(begun.argmax()))[:, None], path[0], path))


def _as_long(path: Float64, paths: Float64, share: Float64) -> Float64:
    """(T, 3) a mean path, stretched until it ends as far away as (K, T, 3) paths do in the mean.

    Ways in different directions are longer than their mean.
    """
    ends_m = share @ np.linalg.norm(paths[:, -1] - paths[:, 0], axis=1)
    end_m = float(np.linalg.norm(path[-1] - path[0]))
    stretch = np.clip(ends_m / max(end_m, 1e-9), 1.0, _MOST_STRETCHED)
    return np.asarray(path[0] + stretch * (path - path[0]))


def _moving(motions: Float64, centroid: FloatArray, least_m: float) -> npt.NDArray[np.bool_]:
    """(K,) whether (K, T, 4, 4) motions take the centroid, or a place 5 cm beside it, so far."""
    around = np.asarray(centroid, np.float64) + np.concatenate([np.zeros((1, 3)), 0.05 * np.eye(3)])
    reached = transform_points(motions[:, :, None], around)  # (K, T, 4, 3)
    return np.asarray(np.linalg.norm(reached - around, axis=-1).max(axis=(1, 2)) >= least_m)


def _of_one_outcome(paths: Float64, weights: Float64) -> npt.NDArray[np.intp]:
    """Indices of (K, T, 3) paths near the one with the most weight near it, by their ends and middles."""
    marks = paths[:, [len(paths[0]) // 2, -1]]
    way_m = float(np.median(np.linalg.norm(paths - paths[:, :1], axis=-1).max(axis=1)))
    apart_m = np.linalg.norm(marks[:, None] - marks[None], axis=-1).max(axis=-1)
    near = apart_m <= max(_SAME_END_M, _SAME_END_SHARE * way_m)
    weight = near @ weights
    mean_m = (near * apart_m) @ weights / weight
    return np.flatnonzero(near[int(np.lexsort((mean_m, -np.round(weight, 9)))[0])])


def _mean_turns(rotations: Float64, share: Float64) -> Float64:
    """(T, 3, 3) mean of (K, T, 3, 3) rotations; identities where they differ more than they turn."""
    from scipy.spatial.transform import Rotation

    count, steps = rotations.shape[:2]
    vectors = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_rotvec().reshape(count, steps, 3)
    mean = np.einsum("k,kti->ti", share, vectors)
    step = int(np.linalg.norm(mean, axis=1).argmax())
    deviation = float(np.sqrt(share @ ((vectors[:, step] - mean[step]) ** 2).sum(axis=1)))
    if float(np.linalg.norm(mean[step])) < max(_AGREED_TURN * deviation, _LEAST_TURN_RAD):
        return np.repeat(np.eye(3)[None], steps, axis=0)
    means = [Rotation.from_matrix(rotations[:, t]).mean(weights=share).as_matrix() for t in range(steps)]
    return np.stack(means)
