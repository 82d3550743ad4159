"""One rigid motion per step for many point trajectories, some of which belong to something else."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import (
    Float64,
    FloatArray,
    continuous_quaternions,
    invert_se3,
    kabsch_rotations,
    quaternions_from_rotations,
    rotations_from_quaternions,
    se3_from_parts,
)
from momap_ros.shapes import check_shapes

Bool = npt.NDArray[np.bool_]

MIN_TRAJECTORIES = 3  # fewer points leave a rotation open, whatever they do
MIN_SPREAD_M = 0.001  # points closer than this to one line do not determine the rotation about it
RESIDUAL_FLOOR_M = 0.001  # resolution of depth images: smaller residuals are not a reason to distrust a trajectory
SETTLED_SHARE = 0.95  # reweighting ends when the median distance shrinks by less than this
# A fit whose median trajectory is farther off than this may have settled between two groups of points: it is tried
# again from the best of many minimal sets. With 40 % outliers one of 32 triples is clean but for a chance of 4e-4.
DOUBTFUL_M = 0.005
MINIMAL_SETS = 32
MAX_VOTERS = 100  # trajectories
KEY_STEPS = 3  # at which minimal sets are compared on them


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


def fit_rigid_tracks(
    source_points: FloatArray,
    positions: FloatArray,
    *,
    iterations: int,
    weights: FloatArray | None = None,
    smoothing_steps: float = 0.0,
) -> RigidTracks:
    """Fit one rigid motion per hypothesis and step, with one robust weight per trajectory.

    A trajectory belongs to the object or it does not, for its whole length, so its weight comes from its RMS distance
    over all steps. Weights are Geman-McClure's with a scale of 1.5 times the median distance, until the median settles;
    the last round is plain least squares on the inliers, the trajectories within three times the median. Where the
    median stays above DOUBTFUL_M the same starts again from the minimal set with the least median distance, and the
    better of the two is kept.

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

    Returns:
        The motions of all hypotheses.

    Raises:
        ShapeError: the arrays do not describe the same points.
    """
    lengths = check_shapes(source_points=(source_points, "P 3"), positions=(positions, "N P T 3"))
    if weights is not None:
        check_shapes(lengths, weights=(weights, "N P"))
    moves = np.array([not _rests(source_points, trajectories) for trajectories in positions], np.bool_)
    if not moves.all():
        tracks = _resting_tracks(positions.shape[:3])
        if moves.any():
            fitted = fit_rigid_tracks(
                source_points,
                positions[moves],
                iterations=iterations,
                weights=None if weights is None else weights[moves],
                smoothing_steps=smoothing_steps,
            )
            for field in fields(RigidTracks):
                getattr(tracks, field.name)[moves] = getattr(fitted, field.name)
        return tracks
    moments = _Moments(source_points, positions)
    usable: Bool = np.asarray(moments.known[:, :, 1:].any(axis=2))
    share: Float64 = np.ones(usable.shape) if weights is None else np.asarray(weights, np.float64)
    usable &= share > 0
    fit = _settled(moments, usable, share, iterations=iterations)
    doubtful = np.flatnonzero((fit.scale_m > DOUBTFUL_M) & (usable.sum(axis=1) > MIN_TRAJECTORIES))
    if iterations > 1 and len(doubtful):
        starts = _best_minimal_sets(source_points, positions[doubtful], usable[doubtful])
        retried = _Moments(source_points, positions[doubtful])
        again = _settled(retried, usable[doubtful], share[doubtful], iterations=iterations, start=starts)
        better = again.scale_m < fit.scale_m[doubtful]
        for field in fields(_Fit):
            getattr(fit, field.name)[doubtful[better]] = getattr(again, field.name)[better]
    rotation, translation = fit.rotation, fit.translation
    if smoothing_steps > 0:
        rotation, translation = smooth_tracks(rotation, translation, smoothing_steps)
    inliers = fit.inliers
    residual = moments.step_residuals(rotation, translation, inliers)
    motion = moments.in_input_coordinates(rotation, translation)
    valid = usable.sum(axis=1) >= MIN_TRAJECTORIES
    motion[~valid] = np.eye(4)
    residual[~valid] = np.nan
    inliers = inliers & valid[:, None]
    fraction = inliers.sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    return RigidTracks(motion, residual, inliers, fraction, valid)


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


@dataclass(frozen=True, eq=False)
class _Fit:
    """Rotations (N, T, 3, 3), translations (N, T, 3), inliers (N, P), and the median distance (N,) of trajectories."""

    rotation: Float64
    translation: Float64
    inliers: Bool
    scale_m: Float64


def _settled(moments: _Moments, usable: Bool, share: Float64, *, iterations: int, start: Float64 | None = None) -> _Fit:
    """Reweighted fits from (N, P) starting weights, all usable trajectories where None."""
    inliers = usable
    rotation, translation = moments.fit(usable * share if start is None else start)
    scale = np.zeros(len(usable))
    previous_scale = np.full(len(usable), np.inf)
    for fits_left in reversed(range(iterations - 1)):
        distance = moments.trajectory_distances(rotation, translation)
        scale = np.maximum(_median_where(distance, usable), RESIDUAL_FLOOR_M)
        last = fits_left == 0 or bool(np.all(scale > SETTLED_SHARE * previous_scale))
        if last:
            inliers = usable & (distance <= 3.0 * scale[:, None])
            weights = inliers * share
        else:
            weights = np.where(usable, share / (1.0 + (distance / (1.5 * scale[:, None])) ** 2) ** 2, 0.0)
        rotation, translation = moments.fit(weights)
        if last:
            break
        previous_scale = scale
    return _Fit(rotation, translation, np.array(inliers), np.array(scale, np.float64))


def _best_minimal_sets(source_points: FloatArray, positions: FloatArray, usable: Bool) -> Float64:
    """(N, P) weights of three trajectories each: of many random ones those that half of all agree with most closely.

    Compared at a few steps and on some of the trajectories only; all that are usable count where too few are known at
    these steps.
    """
    steps = np.unique(np.linspace(0, positions.shape[2] - 1, KEY_STEPS + 1).round().astype(int))[1:]
    starts = usable.astype(np.float64)
    for n, start in enumerate(starts):
        known = np.isfinite(positions[n][:, steps]).all(axis=(1, 2)) & np.isfinite(source_points).all(axis=1)
        candidates = np.flatnonzero(usable[n] & known)
        if len(candidates) <= MIN_TRAJECTORIES:
            continue
        generator = np.random.default_rng(len(candidates))  # the same points give the same motion
        voters = generator.permutation(candidates)[:MAX_VOTERS]
        sets = generator.integers(len(voters), size=(MINIMAL_SETS, MIN_TRAJECTORIES))
        source = source_points[voters].astype(np.float64)
        target = positions[n][voters][:, steps].transpose(1, 0, 2).astype(np.float64)  # (K, V, 3)
        source_mean, target_mean = source[sets].mean(axis=1), target[:, sets].mean(axis=2)
        covariance = np.einsum(
            "ksia,sib->ksab", target[:, sets] - target_mean[:, :, None], source[sets] - source_mean[:, None]
        )
        rotation, _ = kabsch_rotations(covariance, MIN_SPREAD_M**2)
        translation = target_mean - np.einsum("ksab,sb->ksa", rotation, source_mean)
        error = source @ np.swapaxes(rotation, 2, 3) + translation[:, :, None] - target[:, None]  # (K, S, V, 3)
        square = np.einsum("ksva,ksva->sv", error, error)
        median = np.partition(square, len(voters) // 2, axis=1)[:, len(voters) // 2]
        start[:] = 0.0
        start[voters[sets[median.argmin()]]] = 1.0
    return starts


def _rests(source_points: FloatArray, trajectories: FloatArray) -> bool:
    """Whether nothing of (P, T, 3) trajectories, enough of them for a motion, ever leaves where it was seen."""
    if len(source_points) < MIN_TRAJECTORIES or trajectories.shape[1] < 2:
        return False
    # Most that move are told by their last step.
    return bool((trajectories[:, -1] == source_points).all() and (trajectories == source_points[:, None]).all())


def _resting_tracks(shape: tuple[int, ...]) -> RigidTracks:
    """What the fit gives for (N, P, T) trajectories that are all known and at rest."""
    count, points, steps = shape
    motion = np.broadcast_to(np.eye(4), (count, steps, 4, 4)).copy()
    everything: Bool = np.ones((count, points), np.bool_)
    return RigidTracks(motion, np.zeros((count, steps)), everything, np.ones(count), np.ones(count, np.bool_))


class _Moments:
    """Weighted least squares of many steps at once, by matrix products over the points.

    Coordinates are relative to the mean of the source points, which keeps the sums well conditioned. Products run in
    the precision of the positions: in single precision, that of forecasts, distances are good to 0.1 mm.
    """

    def __init__(self, source: FloatArray, positions: FloatArray) -> None:
        self.dtype = positions.dtype
        source = source.astype(self.dtype, copy=False)
        source_known: Bool = np.asarray(np.isfinite(source).all(axis=1))
        self.origin = source[source_known].mean(axis=0) if source_known.any() else np.zeros(3, self.dtype)
        self.source = np.where(source_known[:, None], source - self.origin, self.dtype.type(0))
        self.lifted = np.concatenate([np.ones((len(source), 1), self.dtype), self.source], axis=1)
        # One plane per coordinate, (N, 3, P, T): several times faster than a last axis of length three.
        self.target = np.array(positions.transpose(0, 3, 1, 2), order="C")
        self.known: Bool = np.isfinite(self.target.sum(axis=1)) & source_known[:, None]
        self.still = self._still_steps(source)
        self.mask = self.known.astype(self.dtype)
        self.target -= self.origin[:, None, None]
        if not self.known.all():
            self.target = np.where(self.known[:, None], self.target, self.dtype.type(0))
        self.known_steps = self.mask.sum(axis=2)
        self.target_square = np.einsum("ncpt,ncpt->np", self.target, self.target)

    def _still_steps(self, source: FloatArray) -> Bool:
        """(N, T) steps at which every known trajectory is exactly where it was seen, and at least one is known."""
        still: Bool = np.asarray(self.known.any(axis=1))
        # A few trajectories tell for most steps that something moves; the others are looked at closely.
        for points in (slice(None, None, 16), slice(None)):
            steps = np.flatnonzero(still.any(axis=0))
            moved = (self.target[:, :, points][..., steps] != source[points].T[:, :, None]).any(axis=1)
            still[:, steps] &= ~(moved & self.known[:, points][..., steps]).any(axis=1)
        return still

    def fit(self, weights: Float64) -> tuple[Float64, Float64]:
        """(N, T, 3, 3) rotations and (N, T, 3) translations for (N, P) weights in [0, 1]."""
        weighted = np.swapaxes(weights.astype(self.dtype)[..., None] * self.lifted, 1, 2)
        sums = np.swapaxes(weighted @ self.mask, 1, 2).astype(np.float64)
        cross = (weighted[:, None] @ self.target).transpose(0, 3, 1, 2).astype(np.float64)
        supported = sums[..., 0] > 0
        total = np.where(supported, sums[..., 0], 1.0)[..., None]
        source_mean, target_mean = sums[..., 1:] / total, cross[..., 0] / total
        covariance = cross[..., 1:] / total[..., None] - target_mean[..., None] * source_mean[..., None, :]
        # The second singular value is the variance across the line that fits the points best.
        rotation, determined = kabsch_rotations(covariance, MIN_SPREAD_M**2)
        rotation = np.where(self.still[..., None, None], np.eye(3), rotation)
        rotation = _hold(rotation, self.still | (supported & determined))
        translation = target_mean - np.einsum("ntij,ntj->nti", rotation, source_mean)
        translation = np.where(self.still[..., None], 0.0, translation)
        return _hold(rotation, supported), _hold(translation, supported)

    def trajectory_distances(self, rotation: Float64, translation: Float64) -> FloatArray:
        """(N, P) RMS distance of each trajectory from the motion over its known steps, metres."""
        model = _lifted_model(rotation, translation).astype(self.dtype)
        agreement = np.einsum("ncpk,pk->np", self.target @ model, self.lifted)
        # |R x + t|^2 = |x|^2 + |t|^2 + 2 (R^T t) x, summed over the known steps by one more product
        turned = 2.0 * np.einsum("ntij,nti->ntj", rotation, translation)
        square = np.concatenate([np.sum(translation**2, axis=2, keepdims=True), turned], axis=2)
        model_square = np.einsum("npk,pk->np", self.mask @ square.astype(self.dtype), self.lifted)
        model_square += self.known_steps * np.sum(self.source**2, axis=1)
        total = self.target_square - 2.0 * agreement + model_square
        return np.asarray(np.sqrt(np.maximum(total, 0.0) / np.maximum(self.known_steps, 1.0)))

    def step_residuals(self, rotation: Float64, translation: Float64, inliers: Bool) -> Float64:
        """(N, T) RMS distance of the inliers from the motion, metres; NaN where none is known."""
        model = np.swapaxes(_lifted_model(rotation, translation).astype(self.dtype), 2, 3)
        square, count = np.zeros(rotation.shape[:2]), np.zeros(rotation.shape[:2])
        for n, followers in enumerate(inliers):  # one hypothesis at a time: what is at work stays in the cache
            error = self.lifted[followers] @ model[n] - self.target[n][:, followers]
            weight = self.mask[n, followers]
            square[n] = np.einsum("cpt,cpt,pt->t", error, error, weight)
            count[n] = weight.sum(axis=0)
        mean = square / np.maximum(count, 1.0)
        return np.asarray(np.where(count > 0, np.sqrt(mean), np.nan))

    def in_input_coordinates(self, rotation: Float64, translation: Float64) -> Float64:
        """(N, T, 4, 4) the motion of points that are not relative to the mean; an identity stays exact."""
        return se3_from_parts(rotation, translation + self.origin - rotation @ self.origin)


def _lifted_model(rotation: Float64, translation: Float64) -> Float64:
    """(N, 3, T, 4) rows [t, R] of each coordinate, which take (1, x, y, z) to the moved point."""
    return np.asarray(np.concatenate([translation[..., None], rotation], axis=3).transpose(0, 2, 1, 3))


def _hold(values: Float64, known: Bool) -> Float64:
    """(N, T, ...) values where an unknown step repeats the last known one before it; step 0 is taken as it is."""
    steps = np.where(known, np.arange(known.shape[1]), 0)
    return np.asarray(values[np.arange(len(values))[:, None], np.maximum.accumulate(steps, axis=1)])


def _median_where(values: FloatArray, mask: Bool) -> FloatArray:
    """(N,) median (the upper one of an even number) of each row's values where the mask is True; 0 without any."""
    count = mask.sum(axis=1)
    rising = np.sort(np.where(mask, values, np.inf), axis=1)
    middle = rising[np.arange(len(values)), np.minimum(count // 2, values.shape[1] - 1)]
    return np.asarray(np.where(count > 0, middle, 0.0))
