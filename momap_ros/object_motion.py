"""How every object moves: one rigid motion per object and step, fitted to many point trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.articulation import Articulation, PointSpread, fit_articulations
from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import Float64, FloatArray, se3_from_parts, transform_points
from momap_ros.hypotheses import EndCluster, agreement, cluster_ends, end_covariance, medoid
from momap_ros.momap import PointTrajectories, direction_flags
from momap_ros.rigid_moments import Bool
from momap_ros.rigid_tracks import RigidTracks, TrackJob, fit_many_rigid_tracks, incremental_motions

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
        goal_id: the instance that it is expected to go to, in the model's opinion; 0 = none.
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
    goal_id: int = 0

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

    Hypotheses are never averaged. Each is fitted alone and one is reported; where it and the probability are given, the
    others are followed to their ends only, unless they stand for one. Another hypothesis agrees with it when their ends
    differ by at most `config.moving_threshold_m` or a quarter of the reported displacement, whichever is larger.

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
    objects = [
        _Object.of(trajectories, points, config, hypothesis, labels or {}, moving_probability or {})
        for instance_id, points in zip(ids.tolist(), np.split(order, starts)[1:], strict=True)
        if instance_id != 0
    ]
    # All objects are fitted together: most of what a fit of one takes is not arithmetic.
    fitted = _fitted([item.job(ends_only=item.ends_only) for item in objects], config)
    drafts = [_Draft.of(item, tracks, config) for item, tracks in zip(objects, fitted, strict=True)]
    partial = [draft for draft in drafts if draft.item.ends_only]
    whole = iter(_fitted([draft.item.job(draft.wanted) for draft in partial], config))
    drafts = [draft.completed(next(whole)) if draft.item.ends_only else draft for draft in drafts]
    return [draft.motion(joint, config) for draft, joint in zip(drafts, _joints(drafts, config), strict=True)]


def _fitted(jobs: list[TrackJob], config: ObjectMotionConfig) -> list[RigidTracks]:
    return fit_many_rigid_tracks(
        jobs,
        iterations=config.reweighting_iterations,
        smoothing_steps=config.smoothing_steps,
        max_fit_steps=config.max_fit_steps,
    )


@dataclass(frozen=True, eq=False)
class _Object:
    """What is known of one object before anything is fitted.

    Attributes:
        instance_id: positive.
        label: its name, or empty.
        probability: the model's own that it moves, or None.
        hypothesis: the one to report, or None.
        step_s: seconds between two steps.
        observed: (3, P) its known points at step 0; reductions along a long last axis are several times faster.
        centroid: (3,) their mean; NaN without any.
        positions: (N, P, T, 3) the trajectories that are fitted.
        weights: (N, P) of them, or None.
    """

    instance_id: int
    label: str
    probability: float | None
    hypothesis: int | None
    step_s: float
    observed: Float64
    centroid: Float64
    positions: FloatArray
    weights: FloatArray | None

    @classmethod
    def of(  # noqa: PLR0917  (what `estimate_object_motions` was asked for)
        cls,
        trajectories: PointTrajectories,
        points: npt.NDArray[np.intp],
        config: ObjectMotionConfig,
        hypothesis: int | None,
        labels: Mapping[int, str],
        probabilities: Mapping[int, float],
    ) -> _Object:
        """The object that owns these trajectories."""
        instance_id = int(trajectories.object_ids[points[0]])
        observed = np.ascontiguousarray(trajectories.positions[0, points, 0].T, np.float64)
        observed = observed[:, np.isfinite(observed).all(axis=0)]
        limit = config.max_points_per_object
        if len(points) > limit:
            # Drawn at random, because an even stride over the rows of an image can fall on a single column.
            points = np.sort(np.random.default_rng(instance_id).choice(points, limit, replace=False))
        is_run = points[-1] - points[0] == len(points) - 1  # then nothing needs to be copied
        fitted = slice(points[0], points[-1] + 1) if is_run else points
        return cls(
            instance_id=instance_id,
            label=labels.get(instance_id, ""),
            probability=probabilities.get(instance_id),
            hypothesis=hypothesis,
            step_s=trajectories.step_s,
            observed=observed,
            centroid=observed.mean(axis=1) if observed.size else np.full(3, np.nan),
            positions=trajectories.positions[:, fitted],
            weights=None if trajectories.confidence is None else trajectories.confidence[:, fitted],
        )

    @cached_property
    def start(self) -> Float64:
        """(3,) the centroid, or the origin where it is not known."""
        return np.nan_to_num(self.centroid)

    @property
    def ends_only(self) -> bool:
        """Whether the ends of all hypotheses tell which of them are followed to the end."""
        return self.hypothesis is not None and self.probability is not None

    def job(self, hypotheses: list[int] | None = None, *, ends_only: bool = False) -> TrackJob:
        """The trajectories in these hypotheses, in all where None; their first and last step where `ends_only`."""
        rows = slice(None) if hypotheses is None else hypotheses
        positions = self.positions[rows]
        return TrackJob(
            self.positions[0, :, 0],
            positions[:, :, [0, -1]] if ends_only else positions,
            None if self.weights is None else self.weights[rows],
        )


@dataclass(frozen=True, eq=False)
class _Draft:
    """An object of which it is known which future is reported, and which futures stand for the different ends.

    Attributes:
        item: the object.
        tracks: of all futures, or of those that `rows` names.
        rows: future -> its row in `tracks`.
        chosen: the reported future.
        ends: (N, 4, 4) motion to the last step in every future.
        valid: (N,) futures in which the object has a motion.
        body: its points; None without any.
        tolerance_m: ends of futures that agree are no farther apart.
        clusters: of the ends, as many as are reported.
    """

    item: _Object
    tracks: RigidTracks
    rows: dict[int, int]
    chosen: int
    ends: Float64
    valid: Bool
    body: PointSpread | None
    tolerance_m: float
    clusters: list[EndCluster]

    @classmethod
    def of(cls, item: _Object, tracks: RigidTracks, config: ObjectMotionConfig) -> _Draft:
        """Choose the future, where that is open, and group the ends.

        Args:
            item: the object.
            tracks: of all futures, whole or, where `item.ends_only`, their first and last step.
            config: thresholds and limits.
        """
        paths = transform_points(tracks.motion_t_from_0, item.start)
        chosen = medoid(paths, tracks.valid) if item.hypothesis is None else item.hypothesis
        displacement_m = float(np.linalg.norm(paths[chosen, -1] - paths[chosen, 0]))
        tolerance_m = max(config.moving_threshold_m, CLUSTER_SHARE * displacement_m)
        body = PointSpread.of(item.observed.T) if item.observed.size else None
        ends = tracks.motion_t_from_0[:, -1].copy()
        clusters = [] if body is None else cluster_ends(ends, tracks.valid, body, tolerance_m)
        return cls(
            item,
            tracks,
            {future: future for future in range(len(ends))},
            chosen,
            ends=ends,
            valid=tracks.valid,
            body=body,
            tolerance_m=tolerance_m,
            clusters=clusters[: config.max_hypotheses],
        )

    @property
    def wanted(self) -> list[int]:
        """Futures whose whole motion is reported."""
        return list(dict.fromkeys([self.chosen, *(cluster.representative for cluster in self.clusters)]))

    @property
    def row(self) -> int:
        """Row of the reported future in `tracks`."""
        return self.rows[self.chosen]

    def completed(self, whole: RigidTracks) -> _Draft:
        """With the whole motions of the futures wanted."""
        rows = {future: row for row, future in enumerate(self.wanted)}
        self.ends[self.chosen] = whole.motion_t_from_0[rows[self.chosen], -1]
        return replace(self, tracks=whole, rows=rows)

    def rigid_motion(self, config: ObjectMotionConfig) -> Float64 | None:
        """(T, 4, 4) the reported motion, where it is that of a rigid body."""
        residual_m, valid = self.tracks.residual_m[self.row], self.tracks.valid[self.row]
        rigid = valid and np.nanmax(residual_m) <= config.rigid_residual_m
        return self.tracks.motion_t_from_0[self.row] if rigid else None

    def motion(self, joint: Articulation | None, config: ObjectMotionConfig) -> ObjectMotion:
        """The result.

        Args:
            joint: of a rigid motion, else None.
            config: thresholds and limits.
        """
        item, tracks, row = self.item, self.tracks, self.row
        paths = transform_points(tracks.motion_t_from_0, item.start)
        probability = item.probability
        if probability is None:
            farthest = np.linalg.norm(paths - paths[:, :1], axis=-1).max(axis=1)[tracks.valid]
            probability = float(np.mean(farthest > config.moving_threshold_m)) if len(farthest) else 0.0
        centroids = transform_points(self.ends, item.start)
        weight, spread = agreement(centroids, self.valid, self.chosen, self.tolerance_m)
        motions = {future: tracks.motion_t_from_0[at] for future, at in self.rows.items()}
        valid = bool(tracks.valid[row])
        return ObjectMotion(
            instance_id=item.instance_id,
            label=item.label,
            moving_probability=probability,
            centroid_m=item.centroid,
            size_m=np.ptp(item.observed, axis=1) if item.observed.size else np.zeros(3),
            motion_t_from_0=motions[self.chosen],
            residual_m=tracks.residual_m[row],
            inlier_fraction=float(tracks.inlier_fraction[row]),
            rigid=joint is not None,
            valid=valid,
            hypothesis_weight=weight,
            hypothesis_spread_m=spread,
            end_covariance=end_covariance(self.ends[self.valid], self.ends[self.chosen], item.centroid),
            hypotheses=tuple(
                MotionHypothesis(cluster.weight, motions[cluster.representative], cluster.end_covariance)
                for cluster in self.clusters
                if valid
            ),
            articulation=joint or Articulation(),
            **_path_numbers(paths[row], item.step_s, config.moving_threshold_m),
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


def _joints(drafts: list[_Draft], config: ObjectMotionConfig) -> list[Articulation | None]:
    """The joint of every rigid motion; None where there is no rigid motion."""
    rigid = [(draft.rigid_motion(config), draft.body) for draft in drafts]
    known = [(motion, body) for motion, body in rigid if motion is not None and body is not None]
    if not known:
        return [None for _ in drafts]
    joints = iter(
        fit_articulations(
            np.stack([motion for motion, _ in known]),
            [body for _, body in known],
            min_travel_m=config.joint_min_travel_m,
            tolerance_m=config.joint_tolerance_m,
            tolerance_share=config.joint_tolerance_share,
        )
    )
    return [None if motion is None or body is None else next(joints) for motion, body in rigid]
