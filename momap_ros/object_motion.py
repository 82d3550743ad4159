"""How every object moves: one rigid motion per object and step, fitted to many point trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import Float64, transform_points
from momap_ros.momap import PointTrajectories, direction_flags
from momap_ros.rigid_tracks import Bool, RigidTracks, fit_rigid_tracks

Int8 = npt.NDArray[np.int8]

FLAG_STEPS = (1, 4, 16)  # Paper: Sec. 4.2 item 6, the dT of d_sig
CLUSTER_SHARE = 0.25  # hypotheses agree when their ends differ by less than this share of the displacement


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
    positions = _followed(trajectories, points, config.max_points_per_object, seed=instance_id)
    fit = partial(fit_rigid_tracks, positions[0, :, 0], iterations=config.reweighting_iterations)
    if hypothesis is None or probability is None:
        tracks = every = fit(positions)
        paths = _carried(tracks, centroid)
        chosen = row = _medoid(paths, tracks.valid) if hypothesis is None else hypothesis
        ends = paths[:, -1]
    else:  # of the other hypotheses only the ends are asked for
        tracks, every = fit(positions[[hypothesis]]), fit(positions[:, :, [0, -1]])
        paths, chosen, row = _carried(tracks, centroid), hypothesis, 0
        ends = _carried(every, centroid)[:, -1]
        ends[chosen] = paths[row, -1]
    if probability is None:
        farthest = np.linalg.norm(paths - paths[:, :1], axis=-1).max(axis=1)[tracks.valid]
        probability = float(np.mean(farthest > config.moving_threshold_m)) if len(farthest) else 0.0
    displacements = paths[row] - paths[row, 0]
    length = float(np.linalg.norm(displacements[-1]))
    last = trajectories.num_steps - 1
    steps = [last, *(min(step, last) for step in FLAG_STEPS)]
    weight, spread = _agreement(ends, every.valid, chosen, max(config.moving_threshold_m, CLUSTER_SHARE * length))
    path_length = float(np.linalg.norm(np.diff(paths[row], axis=0), axis=-1).sum())
    residual, valid = tracks.residual_m[row], bool(tracks.valid[row])
    flags = direction_flags(displacements[steps], config.moving_threshold_m)
    return ObjectMotion(
        instance_id=instance_id,
        label=label,
        moving_probability=probability,
        centroid_m=centroid,
        size_m=np.ptp(observed, axis=1) if observed.size else np.zeros(3),
        direction_flags=flags[0],
        direction_flags_1=flags[1],
        direction_flags_4=flags[2],
        direction_flags_16=flags[3],
        direction=displacements[-1] / length if length > config.moving_threshold_m else np.zeros(3),
        displacement_m=length,
        speed_m_s=path_length / (last * trajectories.step_s) if last else 0.0,
        motion_t_from_0=tracks.motion_t_from_0[row],
        residual_m=residual,
        inlier_fraction=float(tracks.inlier_fraction[row]),
        rigid=valid and bool(np.nanmax(residual) <= config.rigid_residual_m),
        valid=valid,
        hypothesis_weight=weight,
        hypothesis_spread_m=spread,
    )


def _followed(
    trajectories: PointTrajectories, points: npt.NDArray[np.intp], limit: int, *, seed: int
) -> npt.NDArray[np.floating]:
    """(N, P, T, 3) positions of these points, at most so many of them."""
    if len(points) > limit:
        # Drawn at random, because an even stride over the rows of an image can fall on a single column.
        points = np.sort(np.random.default_rng(seed).choice(points, limit, replace=False))
    is_run = points[-1] - points[0] == len(points) - 1  # then nothing needs to be copied
    return trajectories.positions[:, slice(points[0], points[-1] + 1) if is_run else points]


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
