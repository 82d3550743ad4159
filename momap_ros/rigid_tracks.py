"""One rigid motion per step for many point trajectories, some of which belong to something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import (
    Float64,
    FloatArray,
    continuous_quaternions,
    invert_se3,
    quaternions_from_rotations,
    rotations_from_quaternions,
)
from momap_ros.rigid_inliers import MIN_TRAJECTORIES, find_inliers
from momap_ros.rigid_moments import Bool, Moments
from momap_ros.shapes import check_shapes

BATCH_VALUES = 1 << 20  # coordinates that are fitted together; fewer leave more to the interpreter, more to memory


@dataclass(frozen=True, eq=False)
class RigidTracks:
    """Rigid motions of one object in N hypotheses.

    Attributes:
        motion_t_from_0: (N, T, 4, 4): point_at_t = motion_t_from_0[n, t] applied to point_at_0; identity at step 0.
        residual_m: (N, T) RMS distance of the inliers from the motion, metres; NaN where no inlier's position is known.
        inliers: (N, P) trajectories that follow the motion.
        inlier_fraction: (N,) their share of the trajectories that are known beyond step 0.
        valid: (N,) False where fewer than three trajectories are known; the motion is then the identity at all steps.
    """

    motion_t_from_0: Float64
    residual_m: Float64
    inliers: Bool
    inlier_fraction: Float64
    valid: Bool


@dataclass(frozen=True, eq=False)
class TrackJob:
    """Trajectories of one object in N futures; the arguments of `fit_rigid_tracks`.

    Attributes:
        source_points: (P, 3) metres; NaN = unknown.
        positions: (N, P, T, 3) metres; NaN = unknown.
        weights: (N, P) in [0, 1], or None.
    """

    source_points: FloatArray
    positions: FloatArray
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        """Check that the arrays speak of the same points."""
        lengths = check_shapes(source_points=(self.source_points, "P 3"), positions=(self.positions, "N P T 3"))
        if self.weights is not None:
            check_shapes(lengths, weights=(self.weights, "N P"))

    def moving_rows(self) -> npt.NDArray[np.intp]:
        """Futures in which something leaves where it was seen, or too little is known to say that nothing does."""
        num_futures, num_points, num_steps = self.positions.shape[:3]
        moves = np.ones(num_futures, np.bool_)
        if num_points >= MIN_TRAJECTORIES and num_steps > 1:
            # Most that move are told by their last step.
            moves = (self.positions[:, :, -1] != self.source_points).any(axis=(1, 2))
            rest = np.flatnonzero(~moves)
            at = self.positions if len(rest) == num_futures else self.positions[rest]
            moves[rest] = (at[:, :, 1:] != at[:, :, :-1]).any(axis=(1, 2, 3))
        return np.flatnonzero(moves)


def fit_rigid_tracks(
    source_points: FloatArray,
    positions: FloatArray,
    *,
    iterations: int,
    weights: FloatArray | None = None,
    smoothing_steps: float = 0.0,
    max_fit_steps: int | None = None,
) -> RigidTracks:
    """Fit one rigid motion per hypothesis and step, with one robust weight per trajectory.

    A trajectory belongs to the object or it does not, for its whole length, so its weight comes from its RMS distance
    over all steps after the first. Weights are Geman-McClure's with a scale of 1.5 times the median distance, until the
    median settles; the last round is plain least squares on the inliers, the trajectories within three times the
    median. Where the median of plain least squares is above DOUBTFUL_M, and stays there, the same starts also from the
    minimal set with the least median distance, and the better of the two is kept.

    Where the inliers of a step do not determine a rotation (fewer than three, or on a line) the step keeps the rotation
    of the step before and only its translation is fitted; where no inlier is known it keeps the whole motion. A step at
    which no trajectory has moved gives the identity exactly.

    Reference: Kabsch, doi:10.1107/S0567739476001873; Umeyama, doi:10.1109/34.88573; Geman and McClure, Bulletin of the
    International Statistical Institute 52 (1987); least median of squares: Rousseeuw,
    doi:10.1080/01621459.1984.10477105.

    Args:
        source_points: (P, 3) observed points, metres; NaN = unknown.
        positions: (N, P, T, 3) their trajectories, metres, step 0 = source_points; NaN = unknown.
        iterations: most rounds of fitting; 1 = plain least squares on all known trajectories.
        weights: (N, P) how much each trajectory counts, in [0, 1]; 0 = not at all; all the same where None.
        smoothing_steps: changes faster than about this many steps are damped, see `smooth_tracks`; 0 = off.
        max_fit_steps: weights come from at most this many steps, evenly spread; the inliers are fitted at all. None =
            no limit.

    Returns:
        The motions of all hypotheses.

    Raises:
        ShapeError: the arrays do not describe the same points.
    """
    job = TrackJob(source_points, positions, weights)
    return fit_many_rigid_tracks(
        [job], iterations=iterations, smoothing_steps=smoothing_steps, max_fit_steps=max_fit_steps
    )[0]


def fit_many_rigid_tracks(
    jobs: Sequence[TrackJob], *, iterations: int, smoothing_steps: float = 0.0, max_fit_steps: int | None = None
) -> list[RigidTracks]:
    """`fit_rigid_tracks` of many objects at once: the same motions to rounding, in a fraction of the time.

    Futures of one job settle together; jobs do not depend on each other.

    Args:
        jobs: objects, or parts of their futures; any lengths.
        iterations: as for `fit_rigid_tracks`.
        smoothing_steps: as for `fit_rigid_tracks`.
        max_fit_steps: as for `fit_rigid_tracks`.

    Raises:
        ShapeError: the arrays of a job do not describe the same points.
    """
    results = [_resting_tracks(job.positions.shape[:3]) for job in jobs]
    moving = [job.moving_rows() for job in jobs]
    moved = [
        job.positions if len(rows) == len(job.positions) else job.positions[rows]
        for job, rows in zip(jobs, moving, strict=True)
    ]
    for batch in _batches(jobs, moving):
        moments = Moments([jobs[number].source_points for number in batch], [moved[number] for number in batch])
        usable: Bool = np.asarray(moments.known[:, :, 1:].any(axis=2))
        share, groups = np.ones(usable.shape), np.repeat(batch, [len(moving[number]) for number in batch])
        for number in batch:
            weights = jobs[number].weights
            if weights is not None:
                share[groups == number, : weights.shape[1]] = weights[moving[number]]
        usable &= share > 0
        tracks = _fitted(
            moments,
            usable,
            share,
            groups,
            iterations=iterations,
            smoothing_steps=smoothing_steps,
            max_fit_steps=max_fit_steps,
        )
        for number in batch:
            num_points, rows = jobs[number].positions.shape[1], groups == number
            for field in fields(RigidTracks):
                values = getattr(tracks, field.name)[rows]
                getattr(results[number], field.name)[moving[number]] = (
                    values[:, :num_points] if field.name == "inliers" else values
                )
    return results


def _batches(jobs: Sequence[TrackJob], moving: Sequence[npt.NDArray[np.intp]]) -> Iterator[list[int]]:
    """Numbers of jobs that are fitted together: of equal steps and precision, and not too many for the cache."""
    alike: dict[object, list[int]] = {}
    for number, job in enumerate(jobs):
        if len(moving[number]):
            alike.setdefault((job.positions.shape[2], job.positions.dtype), []).append(number)
    for numbers in alike.values():
        batch: list[int] = []
        rows = most = 0
        for number in sorted(numbers, key=lambda number: jobs[number].positions.shape[1]):
            most = jobs[number].positions.shape[1]  # rising: what the others are padded to
            rows += len(moving[number])
            if batch and rows * most * jobs[number].positions.shape[2] * 3 > BATCH_VALUES:
                yield batch
                batch, rows = [], len(moving[number])
            batch.append(number)
        yield batch


def _fitted(
    moments: Moments,
    usable: Bool,
    share: Float64,
    groups: npt.NDArray[np.intp],
    *,
    iterations: int,
    smoothing_steps: float,
    max_fit_steps: int | None,
) -> RigidTracks:
    """The motions of a batch's rows; rows of one group settle together."""
    inliers = usable
    if iterations > 1:
        inliers = find_inliers(_weighed_at(moments, max_fit_steps), usable, share, groups, iterations=iterations)
    rotation, translation = moments.fit(inliers * share)
    if smoothing_steps > 0:
        rotation, translation = smooth_tracks(rotation, translation, smoothing_steps)
    residual = moments.step_residuals(rotation, translation, inliers)
    motion = moments.in_input_coordinates(rotation, translation)
    valid = usable.sum(axis=1) >= MIN_TRAJECTORIES
    motion[~valid] = np.eye(4)
    residual[~valid] = np.nan
    inliers = inliers & valid[:, None]
    fraction = inliers.sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    return RigidTracks(motion, residual, inliers, fraction, valid)


def _weighed_at(moments: Moments, max_fit_steps: int | None) -> Moments:
    """The same at the steps that tell which trajectories belong together; at step 0, the observation, all do.

    Where trajectories are known at some steps only, every step counts: a few might miss some of them.
    """
    count = moments.known.shape[2] - 1
    if count < 1:
        return moments
    if max_fit_steps is not None and moments.whole.all():
        count = min(count, max_fit_steps)
    return moments.at_steps(np.linspace(0, moments.known.shape[2] - 1, count + 1).round().astype(int)[1:])


def incremental_motions(motion_t_from_0: FloatArray) -> Float64:
    """(..., T, 4, 4) rigid motions from each step before to its own, of motions from step 0; the identity at step 0.

    Both are in the same fixed frame: incremental[t] @ motion_t_from_0[t - 1] = motion_t_from_0[t].
    """
    check_shapes(motion_t_from_0=(motion_t_from_0, "... T 4 4"))
    before = np.concatenate([motion_t_from_0[..., :1, :, :], motion_t_from_0[..., :-1, :, :]], axis=-3)
    return np.asarray(motion_t_from_0 @ invert_se3(before), np.float64)


def smooth_tracks(rotation: Float64, translation: Float64, smoothing_steps: float) -> tuple[Float64, Float64]:
    """Damp what changes faster than about `smoothing_steps` steps; step 0, the observation, stays as it is.

    Whittaker's smoother: the track with the least sum of squared distances plus lambda times its squared second
    differences, with lambda = (smoothing_steps / 2 pi)^4, for which a sine of that period keeps about half its
    amplitude. Steady motion passes unchanged. Rotations are smoothed as sign-continuous quaternions of unit length, so
    a step should turn by much less than a half turn.

    Reference: Eilers, A perfect smoother, doi:10.1021/ac034173t.

    Args:
        rotation: (N, T, 3, 3).
        translation: (N, T, 3) of the same point, metres.
        smoothing_steps: positive.
    """
    smoother = whittaker_matrix(rotation.shape[1], smoothing_steps)
    quaternions = np.swapaxes(continuous_quaternions(np.swapaxes(quaternions_from_rotations(rotation), 0, 1)), 0, 1)
    still = (rotation == np.eye(3)).all(axis=(1, 2, 3))  # what does not turn at all stays exact
    turned = np.where(still[:, None, None, None], rotation, rotations_from_quaternions(smoother @ quaternions))
    moved = np.asarray(smoother @ translation)
    turned[:, 0], moved[:, 0] = rotation[:, 0], translation[:, 0]  # without rounding
    return turned, moved


def whittaker_matrix(num_steps: int, smoothing_steps: float) -> Float64:
    """(T, T) matrix that smooths a column of values over T equal steps and leaves the first as it is."""
    if num_steps < 3:
        return np.eye(num_steps)
    differences = np.diff(np.eye(num_steps), n=2, axis=0)
    system = np.eye(num_steps) + (smoothing_steps / (2.0 * np.pi)) ** 4 * differences.T @ differences
    system[0] = np.eye(num_steps)[0]
    return np.asarray(np.linalg.inv(system))


def _resting_tracks(shape: tuple[int, ...]) -> RigidTracks:
    """What the fit gives for (N, P, T) trajectories that are all known and at rest."""
    count, points, steps = shape
    motion = np.empty((count, steps, 4, 4))
    motion[:] = np.eye(4)
    everything: Bool = np.ones((count, points), np.bool_)
    return RigidTracks(motion, np.zeros((count, steps)), everything, np.ones(count), np.ones(count, np.bool_))
