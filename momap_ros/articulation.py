"""Joints told from motion: does an object turn about a fixed axis, slide along one, or move freely?

One track is looked at, not the object. What is pushed along a straight line moves as a drawer does, and nothing in its
motion says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import (
    Float64,
    FloatArray,
    continuous_quaternions,
    quaternions_from_rotations,
    transform_points,
)
from momap_ros.shapes import check_shapes

MIN_ANGLE_RAD = 0.1  # a smaller turn leaves the place of its axis open
REVOLUTE_GAIN = (
    0.5  # a hinge has two parameters more than a slide: it must halve the residual where both explain a track
)
REFINEMENTS = 2  # of axis point and angles in turn


class JointKind(IntEnum):
    """What a motion looks like; the values are those of Articulation.msg."""

    UNKNOWN = 0  # too little motion, or no rigid motion, to tell
    FREE = 1  # neither of the two below
    PRISMATIC = 2
    REVOLUTE = 3


def _unknown() -> Float64:
    return np.full(3, np.nan)


@dataclass(frozen=True, eq=False)
class Articulation:
    """A joint that explains a track.

    Attributes:
        kind: which.
        axis: (3,) unit direction, pointing so that the position farthest from 0 is positive (a right-handed turn); NaN
            where there is no joint.
        axis_point: (3,) metres, the point of the axis nearest to the object's centroid at step 0, which for a prismatic
            joint is that centroid; NaN where there is no joint.
        positions: (T,) of the joint relative to step 0: radians or metres; (0,) where there is no joint.
        residual_m: RMS distance of the object's points from where the joint would take them, over all steps after 0;
            for FREE the smaller of the two joints', NaN for UNKNOWN.
    """

    kind: JointKind = JointKind.UNKNOWN
    axis: Float64 = field(default_factory=_unknown)
    axis_point: Float64 = field(default_factory=_unknown)
    positions: Float64 = field(default_factory=lambda: np.zeros(0))
    residual_m: float = float("nan")

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest position, radians or metres; (0, 0) where there is no joint."""
        if not len(self.positions):
            return 0.0, 0.0
        return float(self.positions.min()), float(self.positions.max())


@dataclass(frozen=True, eq=False)
class PointSpread:
    """Where an object's points are, as far as rigid motions are concerned.

    Attributes:
        centroid: (3,) mean of the points at step 0, metres.
        covariance: (3, 3) their covariance, square metres.
    """

    centroid: Float64
    covariance: Float64

    @classmethod
    def of(cls, points: FloatArray) -> PointSpread:
        """Of (P, 3) points in metres; at least one."""
        check_shapes(points=(points, "P 3"))
        centroid = points.mean(axis=0, dtype=np.float64)
        centred = points - centroid
        return cls(centroid, np.asarray(centred.T @ centred / len(points), np.float64))

    def distance_m(self, motion: FloatArray, other: FloatArray) -> Float64:
        """(...) RMS distance between where two (..., 4, 4) motions take the points, metres."""
        apart = transform_points(motion, self.centroid) - transform_points(other, self.centroid)
        turned = motion[..., :3, :3] - other[..., :3, :3]
        square = ((turned @ self.covariance) * turned).sum(axis=(-2, -1))
        return np.asarray(np.sqrt(np.sum(apart**2, axis=-1) + np.maximum(square, 0.0)))


def fit_articulation(
    motion_t_from_0: FloatArray, points: PointSpread, *, min_travel_m: float, tolerance_m: float, tolerance_share: float
) -> Articulation:
    """`fit_articulations` of one object: (T, 4, 4) motion and its points."""
    check_shapes(motion_t_from_0=(motion_t_from_0, "T 4 4"))
    return fit_articulations(
        motion_t_from_0[None],
        [points],
        min_travel_m=min_travel_m,
        tolerance_m=tolerance_m,
        tolerance_share=tolerance_share,
    )[0]


def fit_articulations(
    motion_t_from_0: FloatArray,
    points: Sequence[PointSpread],
    *,
    min_travel_m: float,
    tolerance_m: float,
    tolerance_share: float,
) -> list[Articulation]:
    """The joints that explain the tracks of several objects, where one does.

    A joint explains a track where its residual is at most `tolerance_m` or `tolerance_share` of how far the points
    travel, whichever is larger. The choice by residual and number of parameters follows Sturm, Stachniss and Burgard, A
    Probabilistic Framework for Learning Kinematic Models of Articulated Objects, doi:10.1613/jair.3229.

    Args:
        motion_t_from_0: (M, T, 4, 4) rigid motions from step 0, the identity, to each step.
        points: of each object at step 0, same frame.
        min_travel_m: a track whose points (RMS) never get so far is UNKNOWN.
        tolerance_m: metres.
        tolerance_share: share of the travel.
    """
    check_shapes({"M": len(points)}, motion_t_from_0=(motion_t_from_0, "M T 4 4"))
    joints = [Articulation() for _ in points]
    if not points or motion_t_from_0.shape[1] < 3:
        return joints
    tracks = _Tracks.of(np.asarray(motion_t_from_0, np.float64), points)
    travel_m = tracks.distance_m(np.eye(3), tracks.centroid[:, None]).max(axis=1)
    far = np.flatnonzero(np.isfinite(travel_m) & (travel_m >= min_travel_m))
    tolerance = np.maximum(tolerance_m, tolerance_share * travel_m)
    slides, hinges = dict(zip(far.tolist(), _fit_prismatic(tracks.of_rows(far)), strict=True)), {}
    quaternions = np.swapaxes(
        continuous_quaternions(quaternions_from_rotations(np.swapaxes(tracks.turn[far], 0, 1))), 0, 1
    )
    # Twice a sine: not above the angle.
    turns = 2.0 * np.linalg.norm(quaternions[..., 1:], axis=-1).max(axis=1, initial=0.0) >= MIN_ANGLE_RAD
    if turns.any():
        fitted = _fit_revolute(tracks.of_rows(far[turns]), quaternions[turns])
        hinges = dict(zip(far[turns].tolist(), fitted, strict=True))
    for row, slide in slides.items():
        best, hinge = slide, hinges.get(row)
        gain = REVOLUTE_GAIN if slide.residual_m <= tolerance[row] else 1.0
        if hinge is not None and hinge.residual_m < gain * slide.residual_m:
            best = hinge
        explains = best.residual_m <= tolerance[row]
        joints[row] = best if explains else Articulation(JointKind.FREE, residual_m=best.residual_m)
    return joints


def joint_motions(articulation: Articulation) -> Float64:
    """(T, 4, 4) the motion of a joint from step 0 to each of its positions.

    Raises:
        ValueError: there is no joint.
    """
    if articulation.kind not in {JointKind.PRISMATIC, JointKind.REVOLUTE}:
        raise ValueError(f"articulation: expected PRISMATIC or REVOLUTE, got {articulation.kind.name}")
    motion = np.tile(np.eye(4), (len(articulation.positions), 1, 1))
    if articulation.kind == JointKind.PRISMATIC:
        motion[:, :3, 3] = articulation.positions[:, None] * articulation.axis
        return motion
    motion[:, :3, :3] = _turns(articulation.axis[None], articulation.positions[None])[0]
    motion[:, :3, 3] = articulation.axis_point - motion[:, :3, :3] @ articulation.axis_point
    return motion


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Tracks of M objects.

    Attributes:
        turn: (M, T, 3, 3) rotations.
        path: (M, T, 3) where the motions take the centroids, metres.
        centroid: (M, 3) at step 0.
        covariance: (M, 3, 3) of the points.
    """

    turn: Float64
    path: Float64
    centroid: Float64
    covariance: Float64

    @classmethod
    def of(cls, motion: Float64, points: Sequence[PointSpread]) -> _Tracks:
        """Of (M, T, 4, 4) motions."""
        centroid = np.stack([item.centroid for item in points])
        path = transform_points(motion, centroid[:, None])
        return cls(motion[..., :3, :3], path, centroid, np.stack([item.covariance for item in points]))

    def of_rows(self, rows: npt.NDArray[np.intp]) -> _Tracks:
        """Of some objects."""
        return _Tracks(self.turn[rows], self.path[rows], self.centroid[rows], self.covariance[rows])

    def distance_m(self, turn: Float64, path: Float64) -> Float64:
        """(M, T) RMS distance of the points from where another motion takes them, as in PointSpread.distance_m."""
        turned = self.turn - turn
        square = ((turned @ self.covariance[:, None]) * turned).sum(axis=(-2, -1))
        return np.asarray(np.sqrt(np.sum((self.path - path) ** 2, axis=-1) + np.maximum(square, 0.0)))


def _fit_prismatic(tracks: _Tracks) -> list[Articulation]:
    """The lines through the centroids' first positions that their paths fit best."""
    shift = tracks.path - tracks.centroid[:, None]
    axis = _principal_axes(shift)
    positions = (shift @ axis[..., None])[..., 0]
    distance = tracks.distance_m(np.eye(3), tracks.centroid[:, None] + positions[..., None] * axis[:, None])
    return _finished(JointKind.PRISMATIC, axis, tracks.centroid, positions, distance_m=distance)


def _fit_revolute(tracks: _Tracks, quaternions: Float64) -> list[Articulation]:
    """The axes whose directions fit all rotations, and whose places fit the centroids' paths."""
    axis = _principal_axes(quaternions[..., 1:])
    along = (quaternions[..., 1:] @ axis[..., None])[..., 0]
    angles = np.unwrap(2.0 * np.arctan2(along, quaternions[..., 0]), axis=1)
    shift = (tracks.path - tracks.centroid[:, None]).reshape(len(axis), -1, 1)
    # Two unit vectors across the axis: the place along it is free, and stays that of the centroid.
    across = np.swapaxes(np.linalg.svd(axis[:, None])[2][:, 1:], 1, 2)  # (M, 3, 2)
    axis_point = tracks.centroid
    for _ in range(REFINEMENTS):
        # (1 - R) p = c_t - R c_0, for the part of p - c_0 across the axis, where 1 - R stretches all alike
        system = ((np.eye(3) - _turns(axis, angles)) @ across[:, None]).reshape(len(axis), -1, 2)
        transposed = np.swapaxes(system, 1, 2)
        offset = np.linalg.pinv(transposed @ system, hermitian=True) @ (transposed @ shift)
        axis_point = tracks.centroid + (across @ offset)[..., 0]
        angles = _best_angles(tracks, axis, axis_point)
    turn = _turns(axis, angles)
    lever = (tracks.centroid - axis_point)[:, None, :, None]
    distance = tracks.distance_m(turn, axis_point[:, None] + (turn @ lever)[..., 0])
    return _finished(JointKind.REVOLUTE, axis, axis_point, angles, distance_m=distance)


def _best_angles(tracks: _Tracks, axis: Float64, axis_point: Float64) -> Float64:
    """(M, T) turns about axes that take the points nearest to where the motions take them; 0 at step 0."""
    lever, reached = tracks.centroid - axis_point, tracks.path - axis_point[:, None]
    # Mean over the points of (moved point)(point)^T, both relative to the axis point.
    moment = reached[..., None] * lever[:, None, None] + tracks.turn @ tracks.covariance[:, None]
    across = np.eye(3) - axis[:, :, None] * axis[:, None]
    sine, cosine = ((moment * form[:, None]).sum(axis=(-2, -1)) for form in (_cross_matrices(axis), across))
    angles = np.unwrap(np.arctan2(sine, cosine), axis=1)
    return np.asarray(angles - angles[:, :1])


def _finished(
    kind: JointKind, axis: Float64, axis_point: Float64, positions: Float64, *, distance_m: Float64
) -> list[Articulation]:
    """Joints with their signs and residuals, from (M, T) distances of the points from where they take them."""
    farthest = np.take_along_axis(positions, np.abs(positions).argmax(axis=1)[:, None], axis=1)
    sign = np.where(farthest >= 0, 1.0, -1.0)
    residual_m = np.sqrt(np.mean(distance_m[:, 1:] ** 2, axis=1)).tolist()
    rows = zip(sign * axis, axis_point, sign * positions + 0.0, residual_m, strict=True)  # no negative zeros
    return [Articulation(kind, *values) for values in rows]


def _turns(axis: Float64, angles: Float64) -> Float64:
    """(M, T, 3, 3) rotations about (M, 3) unit axes by (M, T) angles in radians (Rodrigues)."""
    cross = _cross_matrices(axis)
    sine, versine = np.sin(angles)[..., None, None], (1.0 - np.cos(angles))[..., None, None]
    return np.asarray(np.eye(3) + sine * cross[:, None] + versine * (cross @ cross)[:, None])


def _principal_axes(vectors: Float64) -> Float64:
    """(M, 3) unit directions along which (M, T, 3) vectors have the largest second moment."""
    return np.asarray(np.linalg.eigh(np.swapaxes(vectors, 1, 2) @ vectors)[1][..., 2])


def _cross_matrices(axis: Float64) -> Float64:
    """(M, 3, 3) matrices that take a vector x to axis x x."""
    matrices = np.zeros((len(axis), 3, 3))
    matrices[:, [2, 0, 1], [1, 2, 0]] = axis
    matrices[:, [1, 2, 0], [2, 0, 1]] = -axis
    return matrices
