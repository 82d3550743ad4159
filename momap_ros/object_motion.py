"""How every object moves: one rigid motion per object and step, fitted to many point trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.articulation import Articulation, PointSpread, fit_articulation
from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import Float64, se3_from_parts, transform_points
from momap_ros.hypotheses import cluster_ends, end_covariance
from momap_ros.momap import PointTrajectories, direction_flags
from momap_ros.rigid_tracks import Bool, RigidTracks, fit_rigid_tracks, incremental_motions

Int8 = npt.NDArray[np.int8]

FLAG_STEPS = (1, 4, 16)  # Paper: Sec. 4.2 item 6, the dT of d_sig
CLUSTER_SHARE = 0.25  # hypotheses agree when their ends differ by less than this share of the displacement


@dataclass(frozen=True, eq=False)
class MotionHypothesis:
    """One of several ways in which an object may move: drawn futures whose ends agree, and one that stands for them.

    Attributes:
        weight: share of all drawn futures, in (0, 1].
        motion_t_from_0: (T, 4, 4) rigid motion from step 0 (identity) to each step in the representative future.
        end_covariance: (6, 6) of the ends about the representative's, see momap_ros.hypotheses.end_covariance; NaN
            where it is the only one.
    """

    weight: float
    motion_t_from_0: Float64
    end_covariance: Float64


@dataclass(frozen=True, eq=False)
class ObjectMotion:
    """Where one object goes: the content of ObjectMotion.msg. All positions are in the trajectories' frame.

    Attributes:
        instance_id: positive, stable while the object is tracked.
        label: name of the object, or empty.
        moving_probability: probability that the object moves within the horizon, in [0, 1].
        centroid_m: (3,) mean of the object's points at step 0; NaN where none is known.
        size_m: (3,) extent of these points along the frame's axes.
        direction_flags: (3,) in {-1, 0, 1}, from step 0 to the last step.
        direction_flags_1: (3,) from step 0 to step 1.
        direction_flags_4: (3,) from step 0 to step 4 (to the last step where there are fewer).
        direction_flags_16: (3,) from step 0 to step 16 (to the last step where there are fewer).
        direction: (3,) unit vector from the first to the last position of the centroid; zeros where it does not move.
        displacement_m: distance between the first and the last position of the centroid.
        speed_m_s: length of the centroid's path over the horizon, metres per second.
        motion_t_from_0: (T, 4, 4) rigid motion from step 0 (identity) to each step.
        residual_m: (T,) RMS distance of the inliers from the rigid motion; NaN where no inlier's position is known.
        inlier_fraction: share of the object's trajectories that follow the rigid motion, in [0, 1].
        rigid: the residual stays small enough to treat the object as one rigid body.
        valid: a motion could be fitted; otherwise motions are identities and the other results zeros.
        hypothesis_weight: share of all hypotheses that agree with the one described here, in [0, 1].
        hypothesis_spread_m: RMS distance of the centroid's end in all hypotheses from its end in this one.
        end_covariance: (6, 6) of the ends of all valid hypotheses about this one's, see
            momap_ros.hypotheses.end_covariance; NaN where there are fewer than two.
        hypotheses: the different ends that were drawn, the most frequent first, `config.max_hypotheses` at most; their
            weights add up to 1 where none was left out and all are valid. Empty where not valid.
        articulation: the joint that the motion looks like; UNKNOWN where it is too small, or not rigid.
    """

    instance_id: int
    label: str
    moving_probability: float
    centroid_m: Float64
    size_m: Float64
    direction_flags: Int8
    direction_flags_1: Int8
    direction_flags_4: Int8
    direction_flags_16: Int8
    direction: Float64
    displacement_m: float
    speed_m_s: float
    motion_t_from_0: Float64
    residual_m: Float64
    inlier_fraction: float
    rigid: bool
    valid: bool
    hypothesis_weight: float
    hypothesis_spread_m: float
    end_covariance: Float64 = field(default_factory=lambda: np.full((6, 6), np.nan))
    hypotheses: tuple[MotionHypothesis, ...] = ()
    articulation: Articulation = field(default_factory=Articulation)

    @property
    def deformable(self) -> bool:
        """The points move, but not as one rigid body: the largest residual is beyond `config.rigid_residual_m`."""
        return self.valid and not self.rigid

    @cached_property
    def motion_t_from_previous(self) -> Float64:
        """(T, 4, 4) rigid motion from the step before to each step, the identity at step 0, in the same fixed frame."""
        return incremental_motions(self.motion_t_from_0)

    @cached_property
    def frame_from_object(self) -> Float64:
        """(T, 4, 4) pose of the object: at step 0 its origin is the centroid, its axes are the frame's."""
        return object_poses(self.motion_t_from_0, self.centroid_m)


def object_poses(motion_t_from_0: Float64, centroid_m: Float64) -> Float64:
    """(T, 4, 4) frame_from_object of a rigid motion: where it takes a pose at the centroid with the frame's axes."""
    return se3_from_parts(motion_t_from_0[..., :3, :3], transform_points(motion_t_from_0, centroid_m))


def estimate_object_motions(
    trajectories: PointTrajectories,
    config: ObjectMotionConfig,
    *,
    hypothesis: int | None = None,
    labels: Mapping[int, str] | None = None,
    moving_probability: Mapping[int, float] | None = None,
) -> list[ObjectMotion]:
    """The motion of every object in the trajectories.

    Hypotheses are never averaged. Each is fitted alone and one is reported. Another hypothesis agrees with it when
    their ends differ by at most `config.moving_threshold_m` or a quarter of the reported displacement, whichever is
    larger.

    Args:
        trajectories: N futures of P points; all hypotheses share step 0, the observation.
        config: thresholds and limits.
        hypothesis: the one to report, the same for all objects, so that together they are one possible future; where
            None, each object's own medoid, whose centroid track has the smallest mean distance from the others'.
        labels: names of some objects.
        moving_probability: the model's own probability that an object moves; where absent, the share of hypotheses in
            which the centroid at any step is farther than `config.moving_threshold_m` from its start.

    Returns:
        One motion per object id > 0, in rising order of id; empty where all points are background.
    """
    order = np.argsort(trajectories.object_ids, kind="stable")
    ids, starts = np.unique(trajectories.object_ids[order], return_index=True)
    members = np.split(order, starts)[1:]
    motions = []
    for instance_id, points in zip(ids.tolist(), members, strict=True):
        if instance_id == 0:
            continue
        label = (labels or {}).get(instance_id, "")
        probability = (moving_probability or {}).get(instance_id)
        motion = _object_motion(
            trajectories, points, config, hypothesis=hypothesis, label=label, probability=probability
        )
        motions.append(motion)
    return motions


def _object_motion(
    trajectories: PointTrajectories,
    points: npt.NDArray[np.intp],
    config: ObjectMotionConfig,
    *,
    hypothesis: int | None,
    label: str,
    probability: float | None,
) -> ObjectMotion:
    """The motion of the object that owns these trajectories."""
    instance_id = int(trajectories.object_ids[points[0]])
    # (3, P): reductions along a long last axis are several times faster.
    observed = np.ascontiguousarray(trajectories.positions[0, points, 0].T, np.float64)
    observed = observed[:, np.isfinite(observed).all(axis=0)]
    centroid = observed.mean(axis=1) if observed.size else np.full(3, np.nan)
    fit = _Fitter(trajectories, points, config, seed=instance_id)
    if hypothesis is None or probability is None:
        tracks = every = fit.tracks()
        paths = _carried(tracks, centroid)
        chosen = row = _medoid(paths, tracks.valid) if hypothesis is None else hypothesis
        ends = every.motion_t_from_0[:, -1]
    else:  # of the other hypotheses only the ends are asked for
        tracks, every = fit.tracks([hypothesis]), fit.tracks(ends_only=True)
        paths, chosen, row = _carried(tracks, centroid), hypothesis, 0
        ends = every.motion_t_from_0[:, -1]
        ends[chosen] = tracks.motion_t_from_0[row, -1]
    if probability is None:
        farthest = np.linalg.norm(paths - paths[:, :1], axis=-1).max(axis=1)[tracks.valid]
        probability = float(np.mean(farthest > config.moving_threshold_m)) if len(farthest) else 0.0
    path = _path_numbers(paths[row], trajectories.step_s, config.moving_threshold_m)
    tolerance_m = max(config.moving_threshold_m, CLUSTER_SHARE * path["displacement_m"])
    weight, spread = _agreement(transform_points(ends, np.nan_to_num(centroid)), every.valid, chosen, tolerance_m)
    own, residual, valid = tracks.motion_t_from_0[row], tracks.residual_m[row], bool(tracks.valid[row])
    rigid = valid and bool(np.nanmax(residual) <= config.rigid_residual_m)
    body = PointSpread.of(observed.T) if valid else None
    return ObjectMotion(
        instance_id=instance_id,
        label=label,
        moving_probability=probability,
        centroid_m=centroid,
        size_m=np.ptp(observed, axis=1) if observed.size else np.zeros(3),
        motion_t_from_0=own,
        residual_m=residual,
        inlier_fraction=float(tracks.inlier_fraction[row]),
        rigid=rigid,
        valid=valid,
        hypothesis_weight=weight,
        hypothesis_spread_m=spread,
        end_covariance=end_covariance(ends[every.valid], ends[chosen], centroid),
        hypotheses=_alternatives(fit, ends, every.valid, body, tolerance_m=tolerance_m, known={chosen: own}),
        articulation=_articulation(own, body if rigid else None, config),
        **path,
    )


def _path_numbers(path: Float64, step_s: float, threshold_m: float) -> dict[str, Any]:
    """What ObjectMotion says of its centroid's path (T, 3), by field."""
    displacements = path - path[0]
    last = len(path) - 1
    steps = [last, *(min(step, last) for step in FLAG_STEPS)]
    length = float(np.linalg.norm(displacements[-1]))
    path_length = float(np.linalg.norm(np.diff(path, axis=0), axis=-1).sum())
    names = ("direction_flags", *(f"direction_flags_{step}" for step in FLAG_STEPS))
    return {
        **dict(zip(names, direction_flags(displacements[steps], threshold_m), strict=True)),
        "direction": displacements[-1] / length if length > threshold_m else np.zeros(3),
        "displacement_m": length,
        "speed_m_s": path_length / (last * step_s) if last else 0.0,
    }


class _Fitter:
    """Fits of one object's trajectories: all hypotheses or some, whole or their ends alone."""

    def __init__(
        self, trajectories: PointTrajectories, points: npt.NDArray[np.intp], config: ObjectMotionConfig, *, seed: int
    ) -> None:
        limit = config.max_points_per_object
        if len(points) > limit:
            # Drawn at random, because an even stride over the rows of an image can fall on a single column.
            points = np.sort(np.random.default_rng(seed).choice(points, limit, replace=False))
        is_run = points[-1] - points[0] == len(points) - 1  # then nothing needs to be copied
        chosen = slice(points[0], points[-1] + 1) if is_run else points
        self._positions = trajectories.positions[:, chosen]
        self._weights = None if trajectories.confidence is None else trajectories.confidence[:, chosen]
        self._config = config
        self.max_hypotheses = config.max_hypotheses

    def tracks(self, hypotheses: list[int] | None = None, *, ends_only: bool = False) -> RigidTracks:
        """The motions of these hypotheses, of all where None; of their first and last step where `ends_only`."""
        rows = slice(None) if hypotheses is None else hypotheses
        positions = self._positions[rows]
        return fit_rigid_tracks(
            self._positions[0, :, 0],
            positions[:, :, [0, -1]] if ends_only else positions,
            iterations=self._config.reweighting_iterations,
            weights=None if self._weights is None else self._weights[rows],
            smoothing_steps=self._config.smoothing_steps,
        )


def _alternatives(
    fit: _Fitter,
    ends: Float64,
    valid: Bool,
    body: PointSpread | None,
    *,
    tolerance_m: float,
    known: Mapping[int, Float64],
) -> tuple[MotionHypothesis, ...]:
    """The clusters of ends, the whole motion of each representative fitted unless `known`; none without a body."""
    if body is None:
        return ()
    clusters = cluster_ends(ends, valid, body, tolerance_m)[: fit.max_hypotheses]
    missing = [cluster.representative for cluster in clusters if cluster.representative not in known]
    motions = dict(known)
    if missing:
        motions |= dict(zip(missing, fit.tracks(missing).motion_t_from_0, strict=True))
    return tuple(
        MotionHypothesis(cluster.weight, motions[cluster.representative], cluster.end_covariance)
        for cluster in clusters
    )


def _articulation(motion_t_from_0: Float64, body: PointSpread | None, config: ObjectMotionConfig) -> Articulation:
    """The joint of a rigid body's track; UNKNOWN without a body."""
    if body is None:
        return Articulation()
    return fit_articulation(
        motion_t_from_0,
        body,
        min_travel_m=config.joint_min_travel_m,
        tolerance_m=config.joint_tolerance_m,
        tolerance_share=config.joint_tolerance_share,
    )


def _carried(tracks: RigidTracks, centroid: Float64) -> Float64:
    """(N, T, 3) where the motions take the centroid, metres; an unknown one starts at the origin."""
    return transform_points(tracks.motion_t_from_0[:, :, None], np.nan_to_num(centroid)[None])[:, :, 0]


def _medoid(paths: Float64, valid: Bool) -> int:
    """The valid hypothesis whose (N, T, 3) centroid track is nearest to all others'; 0 where none is valid."""
    indices = np.flatnonzero(valid)
    if not len(indices):
        return 0
    tracks = paths[indices]
    apart = np.linalg.norm(tracks[:, None] - tracks[None], axis=-1).mean(axis=(1, 2))
    return int(indices[np.argmin(apart)])


def _agreement(ends: Float64, valid: Bool, chosen: int, tolerance_m: float) -> tuple[float, float]:
    """Share of all hypotheses that end near the chosen one, and the valid ones' RMS distance from its end, metres."""
    if not valid.any():
        return 0.0, 0.0
    apart = np.linalg.norm(ends[valid] - ends[chosen], axis=-1)
    return float(np.sum(apart <= tolerance_m) / len(ends)), float(np.sqrt(np.mean(apart**2)))
