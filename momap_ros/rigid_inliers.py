"""Which trajectories of an object follow the motion of most: robust weights, begun from all and from few of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64, FloatArray, kabsch_rotations
from momap_ros.rigid_moments import MIN_SPREAD_M, Bool, Moments

MIN_TRAJECTORIES = 3  # fewer points leave a rotation open, whatever they do
RESIDUAL_FLOOR_M = 0.001  # resolution of depth images: smaller residuals are not a reason to distrust a trajectory
SETTLED_SHARE = 0.95  # reweighting ends when the median distance shrinks by less than this
# A fit whose median trajectory is farther off than this may have settled between two groups of points: it is tried
# again from the best of many minimal sets. With 40 % outliers one of 32 triples is clean but for a chance of 4e-4.
DOUBTFUL_M = 0.005
MINIMAL_SETS = 32
MAX_VOTERS = 100  # trajectories
KEY_STEPS = 3  # at which minimal sets are compared on them


def find_inliers(
    moments: Moments, usable: Bool, share: Float64, groups: npt.NDArray[np.intp], *, iterations: int
) -> Bool:
    """(M, P) trajectories that follow the motion of most; (M,) groups settle together."""
    share = usable * share
    state = _Round(moments, moments.trajectory_distances(*moments.fit(share)), usable, share)
    if iterations < 3:
        return state.near
    following = state.following()
    doubtful = (following.scale_m > DOUBTFUL_M) & (usable.sum(axis=1) > MIN_TRAJECTORIES)
    again = np.flatnonzero(doubtful)
    if not len(again):
        return _settled(following, state.scale_m, groups, rounds=iterations - 2)[0]
    # Both starts side by side take half as many rounds as one after the other.
    retried = moments.of_rows(again)
    started = retried.fit(_best_minimal_sets(retried, usable[again]))
    second = retried.trajectory_distances(*started)
    rows, count = np.concatenate([np.arange(len(usable)), again]), len(usable)
    both = _Round(moments.of_rows(rows), np.concatenate([following.distance, second]), usable[rows], share[rows])
    before = np.concatenate([state.scale_m, np.full(len(again), np.inf)])
    apart = np.concatenate([groups, groups[again] + groups.max() + 1])
    inliers, scale_m = _settled(both, before, apart, rounds=iterations - 2)
    better = (scale_m[again] > DOUBTFUL_M) & (scale_m[count:] < scale_m[again])
    inliers[again[better]] = inliers[count:][better]
    return inliers[:count]


@dataclass(frozen=True, eq=False)
class _Round:
    """What one round of reweighting knows of M rows.

    Attributes:
        moments: of the rows.
        distance: (M, P) RMS distance of the trajectories from the last fit.
        usable: (M, P) trajectories that count.
        share: (M, P) how much; 0 of the others.
    """

    moments: Moments
    distance: FloatArray
    usable: Bool
    share: Float64

    @cached_property
    def scale_m(self) -> Float64:
        """(M,) median distance, but no less than what depth images resolve."""
        return np.asarray(np.maximum(_median_where(self.distance, self.usable), RESIDUAL_FLOOR_M))

    @property
    def near(self) -> Bool:
        """(M, P) trajectories within three times the median: the inliers."""
        return np.asarray(self.usable & (self.distance <= 3.0 * self.scale_m[:, None]))

    def following(self) -> _Round:
        """The next round: fitted with the weights that the distances give."""
        weights = self.share / (1.0 + (self.distance / (1.5 * self.scale_m[:, None])) ** 2) ** 2
        return replace(self, distance=self.moments.trajectory_distances(*self.moments.fit(weights)))

    def of_rows(self, rows: npt.NDArray[np.intp]) -> _Round:
        """The same of some rows only."""
        return _Round(self.moments.of_rows(rows), self.distance[rows], self.usable[rows], self.share[rows])


def _settled(state: _Round, before_m: Float64, groups: npt.NDArray[np.intp], *, rounds: int) -> tuple[Bool, Float64]:
    """Inliers (M, P) and median distances (M,) once these settle.

    Args:
        state: to begin with.
        before_m: (M,) median distances in the round before.
        groups: (M,) rows of one number settle together.
        rounds: at most.
    """
    inliers, scale_m = state.near, state.scale_m.copy()
    rows = np.arange(len(inliers))  # those that have not settled yet; what follows holds them alone
    for _ in range(rounds - 1):
        unsettled = np.bincount(groups, state.scale_m <= SETTLED_SHARE * before_m) > 0
        left = np.flatnonzero(unsettled[groups])
        if not len(left):
            break
        if len(left) < len(rows):
            state, rows, groups = state.of_rows(left), rows[left], groups[left]
        before_m, state = state.scale_m, state.following()
        inliers[rows], scale_m[rows] = state.near, state.scale_m
    return inliers, scale_m


def _best_minimal_sets(moments: Moments, usable: Bool) -> Float64:
    """(M, P) weights of three trajectories each: of many random ones those that half of all agree with most closely.

    Compared at a few steps and on some of the trajectories only; all that are usable count where too few are known at
    these steps.
    """
    steps = np.unique(np.linspace(-1, moments.known.shape[2] - 1, KEY_STEPS + 1).round().astype(int))[1:]
    starts = usable.astype(np.float64)
    candidates = usable & moments.known[:, :, steps].all(axis=2)
    drawn: dict[bytes, tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = {}
    voters = np.zeros((len(usable), MAX_VOTERS), np.intp)
    sets = np.zeros((len(usable), MINIMAL_SETS, MIN_TRAJECTORIES), np.intp)
    num_voters = np.zeros(len(usable), np.intp)
    for row, those in enumerate(candidates):
        key = those.tobytes()
        if key not in drawn:
            chosen = np.flatnonzero(those)
            generator = np.random.default_rng(len(chosen))  # the same points give the same motion
            some = generator.permutation(chosen)[:MAX_VOTERS]
            drawn[key] = some, generator.integers(max(len(some), 1), size=sets.shape[1:])
        some, sets[row] = drawn[key]
        num_voters[row] = len(some)
        voters[row, : len(some)] = some
    rows = np.flatnonzero(num_voters > MIN_TRAJECTORIES)
    voters, sets = voters[rows], sets[rows]
    source = moments.source[rows[:, None], voters].astype(np.float64)
    places = moments.target.reshape(*moments.known.shape, 3)
    target = places[rows[:, None, None], voters[:, :, None], steps].astype(np.float64)
    best = _median_errors(source, target, sets, num_voters[rows]).argmin(axis=1)
    at = np.arange(len(rows))
    starts[rows] = 0.0
    starts[rows[:, None], voters[at[:, None], sets[at, best]]] = 1.0
    return starts


def _median_errors(
    source: Float64, target: Float64, sets: npt.NDArray[np.intp], num_voters: npt.NDArray[np.intp]
) -> Float64:
    """(R, S) median over the voters of the squared error, summed over K steps, of the motion that a set of three has.

    Args:
        source: (R, V, 3).
        target: (R, V, K, 3).
        sets: (R, S, 3) voters of each set.
        num_voters: (R,) how many there are, at most V.
    """
    num_rows, most, num_steps = target.shape[:3]
    row = np.arange(num_rows)[:, None, None]
    corners, moved = source[row, sets], target[row, sets]  # (R, S, 3, 3), (R, S, 3, K, 3)
    source_mean, target_mean = (np.einsum("rsv...->rs...", values) / 3.0 for values in (corners, moved))
    # Relative to the mean of one side is as good as of both.
    cross = np.swapaxes(corners - source_mean[:, :, None], 2, 3) @ moved.reshape(*sets.shape, -1)
    covariance = cross.reshape(*sets.shape, num_steps, 3).transpose(0, 1, 3, 4, 2)
    rotation, _ = kabsch_rotations(covariance, MIN_SPREAD_M**2)  # (R, S, K, 3, 3)
    translation = target_mean - (rotation @ source_mean[:, :, None, :, None])[..., 0]
    # |R x + t - y|^2 as a product of what depends on the set and what depends on the voter, (R, S or V, 4 + 12 K)
    turned = (translation[..., None, :] @ rotation).sum(axis=2)[..., 0, :]
    square = np.einsum("rski,rski->rs", translation, translation)[..., None]
    by_step = [-2.0 * values.reshape(*sets.shape[:2], -1) for values in (translation, rotation)]
    of_set = np.concatenate([square, 2.0 * turned, *by_step], axis=-1)
    pairs = np.einsum("rvki,rvj->rvkij", target, source)
    by_step = [values.reshape(num_rows, most, -1) for values in (target, pairs)]
    of_voter = np.concatenate([np.ones_like(source[..., :1]), source, *by_step], axis=-1)
    error = of_set @ np.swapaxes(of_voter, 1, 2)
    alone = num_steps * np.einsum("rvi,rvi->rv", source, source) + np.einsum("rvki,rvki->rv", target, target)
    # Placeholders below all and above all, as many as leave the median of the others in the middle.
    middle, place = most // 2, np.arange(most)
    first_above = num_voters + middle - num_voters // 2
    alone = np.where(place < num_voters[:, None], alone, np.where(place < first_above[:, None], -np.inf, np.inf))
    error += alone[:, None]
    return np.asarray(np.partition(error, middle, axis=2)[..., middle])


def _median_where(values: FloatArray, mask: Bool) -> FloatArray:
    """(M,) median (the upper one of an even number) of each row's values where the mask is True; 0 without any."""
    count = mask.sum(axis=1)
    rising = np.sort(np.where(mask, values, np.inf), axis=1)
    middle = rising[np.arange(len(values)), np.minimum(count // 2, values.shape[1] - 1)]
    return np.asarray(np.where(count > 0, middle, 0.0))
