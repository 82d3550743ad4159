"""Joints told from motion: does an object turn about a fixed axis, slide along one, or move freely?

One track is looked at, not the object. What is pushed along a straight line moves as a drawer does, and nothing in its
motion says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

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
    """The joint that explains a track, if one does.

    A joint explains the track where its residual is at most `tolerance_m` or `tolerance_share` of how far the points
    travel, whichever is larger. The choice by residual and number of parameters follows Sturm, Stachniss and Burgard, A
    Probabilistic Framework for Learning Kinematic Models of Articulated Objects, doi:10.1613/jair.3229.

    Args:
        motion_t_from_0: (T, 4, 4) rigid motion from step 0, the identity, to each step.
        points: of the object at step 0, same frame.
        min_travel_m: a track whose points (RMS) never get so far is UNKNOWN.
        tolerance_m: metres.
        tolerance_share: share of the travel.
    """
    check_shapes(motion_t_from_0=(motion_t_from_0, "T 4 4"))
    motion = np.asarray(motion_t_from_0, np.float64)
    travel_m = float(points.distance_m(motion, np.eye(4)).max())
    if len(motion) < 3 or not np.isfinite(travel_m) or travel_m < min_travel_m:
        return Articulation()
    tolerance = max(tolerance_m, tolerance_share * travel_m)
    slide = _fit_prismatic(motion, points)
    quaternions = continuous_quaternions(quaternions_from_rotations(motion[:, :3, :3]))
    best = slide
    if 2.0 * np.linalg.norm(quaternions[:, 1:], axis=1).max() >= MIN_ANGLE_RAD:  # twice a sine: not above the angle
        hinge = _fit_revolute(motion, points, quaternions)
        if hinge.residual_m < (REVOLUTE_GAIN if slide.residual_m <= tolerance else 1.0) * slide.residual_m:
            best = hinge
    if best.residual_m <= tolerance:
        return best
    return Articulation(JointKind.FREE, residual_m=best.residual_m)


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
    motion[:, :3, :3] = _turns(articulation.axis, articulation.positions)
    motion[:, :3, 3] = articulation.axis_point - motion[:, :3, :3] @ articulation.axis_point
    return motion


def _fit_prismatic(motion: Float64, points: PointSpread) -> Articulation:
    """The line through the centroid's first position that its path fits best."""
    path = transform_points(motion, points.centroid) - points.centroid
    axis = _principal_axis(path)
    return _finished(JointKind.PRISMATIC, axis, points.centroid, path @ axis, motion=motion, points=points)


def _fit_revolute(motion: Float64, points: PointSpread, quaternions: Float64) -> Articulation:
    """The axis whose direction fits all rotations, and whose place fits the centroid's path."""
    axis = _principal_axis(quaternions[:, 1:])
    angles = np.unwrap(2.0 * np.arctan2(quaternions[:, 1:] @ axis, quaternions[:, 0]))
    path = transform_points(motion, points.centroid)
    # Two unit vectors across the axis: the place along it is free, and stays that of the centroid.
    across = np.linalg.svd(axis[None])[2][1:].T
    axis_point = points.centroid
    for _ in range(REFINEMENTS):
        turn = _turns(axis, angles)
        # (1 - R) p = c_t - R c_0, for the part of p - c_0 across the axis
        system = np.concatenate((np.eye(3) - turn) @ across)
        offset = np.linalg.lstsq(system, (path - points.centroid).reshape(-1), rcond=1e-9)[0]
        axis_point = points.centroid + across @ offset
        angles = _best_angles(motion, points, axis, axis_point)
    return _finished(JointKind.REVOLUTE, axis, axis_point, angles, motion=motion, points=points)


def _best_angles(motion: Float64, points: PointSpread, axis: Float64, axis_point: Float64) -> Float64:
    """(T,) turns about an axis that take the points nearest to where the motions take them; 0 at step 0."""
    lever = points.centroid - axis_point
    reached = transform_points(motion, points.centroid) - axis_point
    # Mean over the points of (moved point)(point)^T, both relative to the axis point.
    moment = np.einsum("ti,j->tij", reached, lever) + motion[:, :3, :3] @ points.covariance
    across = np.eye(3) - np.outer(axis, axis)
    sine, cosine = (np.einsum("tij,ij->t", moment, form) for form in (_cross_matrix(axis), across))
    angles = np.unwrap(np.arctan2(sine, cosine))
    return np.asarray(angles - angles[0])


def _finished(
    kind: JointKind,
    axis: Float64,
    axis_point: Float64,
    positions: Float64,
    *,
    motion: Float64,
    points: PointSpread,
) -> Articulation:
    """The joint with its sign and its residual."""
    sign = 1.0 if positions[np.abs(positions).argmax()] >= 0 else -1.0
    joint = Articulation(kind, sign * axis, axis_point, sign * positions + 0.0)  # no negative zeros
    distance = points.distance_m(motion[1:], joint_motions(joint)[1:])
    return Articulation(kind, joint.axis, axis_point, joint.positions, float(np.sqrt(np.mean(distance**2))))


def _turns(axis: Float64, angles: Float64) -> Float64:
    """(T, 3, 3) rotations about a unit axis by angles in radians (Rodrigues)."""
    cross = _cross_matrix(axis)
    sine, versine = np.sin(angles)[:, None, None], (1.0 - np.cos(angles))[:, None, None]
    return np.asarray(np.eye(3) + sine * cross + versine * (cross @ cross))


def _principal_axis(vectors: Float64) -> Float64:
    """(3,) unit direction along which (T, 3) vectors have the largest second moment."""
    return np.asarray(np.linalg.eigh(vectors.T @ vectors)[1][:, 2])


def _cross_matrix(axis: Float64) -> Float64:
    """(3, 3) matrix that takes a vector x to axis x x."""
    x, y, z = axis.tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
