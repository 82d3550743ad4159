"""Weighted least squares for many rigid motions at once: the sums over points that rigid_tracks fits from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64, FloatArray, kabsch_rotations, se3_from_parts

Bool = npt.NDArray[np.bool_]

MIN_SPREAD_M = 0.001  # points closer than this to one line do not determine the rotation about it
CACHED_VALUES = 1 << 17  # what is at work at a time stays in the processor's cache


class Moments:
    """Weighted least squares of many tracks and steps at once, by matrix products over the points.

    A row is one future of one object. Coordinates are relative to the mean of the object's source points, which keeps
    the sums well conditioned. Products run in the precision of the positions: in single precision, that of forecasts,
    distances are good to 0.1 mm.

    Attributes:
        target: (M, P, 3 T) positions, step after step as they come; 0 where not known.
        lifted: (M, P, 4) 1 x y z of the points at step 0; 0 where not known.
        columns: (M, 4, P) the same.
        known: (M, P, T) positions that are known, of source points that are.
        origin: (M, 3) what the coordinates are relative to.
    """

    def __init__(self, sources: Sequence[FloatArray], positions: Sequence[FloatArray]) -> None:
        """Rows of several objects, one after the other; objects with fewer points than others get unknown ones.

        Args:
            sources: (P, 3) of each object, metres; NaN = unknown.
            positions: (N, P, T, 3) of each object, all of one T and dtype; NaN = unknown.
        """
        dtype, num_steps = positions[0].dtype, positions[0].shape[2]
        owner = np.repeat(np.arange(len(sources)), [len(trajectories) for trajectories in positions])
        parts = [
            (slice(*np.searchsorted(owner, [number, number + 1])), slice(len(points)))
            for number, points in enumerate(sources)
        ]
        most = max(len(points) for points in sources)
        source = np.full((len(sources), most, 3), np.nan, dtype)  # of each object
        at = np.empty((len(owner), most, num_steps, 3), dtype)
        for number, (rows, those) in enumerate(parts):
            source[number, those] = sources[number]
            at[rows, those] = positions[number]
            at[rows, those.stop :] = 0
        seen: Bool = np.asarray(np.isfinite(source).all(axis=2))
        complete = bool(np.isfinite(at).all())
        self.known: Bool = np.repeat(seen[owner][:, :, None], num_steps, axis=2)
        if not complete:
            self.known &= np.isfinite(at[..., 0] + at[..., 1] + at[..., 2])
        self.target = at.reshape(len(owner), most, 3 * num_steps)
        self.still = self._still_steps(source[owner])
        origin = np.zeros((len(sources), 3), dtype)
        for number, (rows, those) in enumerate(parts):
            if seen[number].any():
                origin[number] = source[number, seen[number]].mean(axis=0)
            self.target[rows, those] -= np.tile(origin[number], num_steps)
            complete &= bool(seen[number, those].all())
        if not complete:
            at[~self.known] = 0  # the same memory
        self.origin = origin[owner]
        source = np.where(seen[:, :, None], source - origin[:, None], dtype.type(0))
        lifted = np.concatenate([seen[:, :, None], source], axis=2)
        self.lifted, self.columns = lifted[owner], np.ascontiguousarray(np.swapaxes(lifted, 1, 2))[owner]
        self._sums()

    def of_rows(self, rows: npt.NDArray[np.intp]) -> Moments:
        """The same of some rows only."""
        part = object.__new__(Moments)
        for name, values in vars(self).items():
            setattr(part, name, values[rows])
        return part

    def at_steps(self, steps: npt.NDArray[np.intp]) -> Moments:
        """The same at some steps only."""
        part = object.__new__(Moments)
        for name in ("origin", "lifted", "columns"):
            setattr(part, name, getattr(self, name))
        part.known, part.still = self.known[:, :, steps], self.still[:, steps]
        at = self.target.reshape(*self.known.shape, 3)
        part.target = np.take(at, steps, axis=2).reshape(*self.known.shape[:2], -1)
        part._sums()
        return part

    def _sums(self) -> None:
        """What every fit takes."""
        self.whole = (self.known == self.known[:, :, :1]).all(axis=(1, 2))  # nothing is known at some steps only
        steps = self.known[:, :, 0] * self.known.shape[2] if self.whole.all() else self.known.sum(axis=2)
        self.known_steps = steps.astype(self.target.dtype)

    @property
    def source(self) -> FloatArray:
        """(M, P, 3) points at step 0; 0 where not known."""
        return self.lifted[..., 1:]

    @cached_property
    def mask(self) -> FloatArray:
        """(M, P, T) 1 where known, else 0."""
        return self.known.astype(self.target.dtype)

    @cached_property
    def square(self) -> FloatArray:
        """(M, P) of each trajectory over its known steps, as far as no motion enters its distance from it."""
        square = np.einsum("npk,npk->np", self.target, self.target)
        square += self.known_steps * np.einsum("npc,npc->np", self.source, self.source)
        return np.asarray(square)

    def _still_steps(self, source: FloatArray) -> Bool:
        """(M, T) steps at which every known trajectory is exactly where it was seen, and at least one is known."""
        still: Bool = np.asarray(self.known.any(axis=1))
        at = self.target.reshape(*self.known.shape, 3)
        # A few trajectories tell for most steps that something moves; the others are looked at closely.
        some = slice(None, None, 16)
        moved = (at[:, some] != source[:, some, None]) & self.known[:, some, :, None]
        still &= ~moved.any(axis=1).any(axis=2)
        for step in np.flatnonzero(still.any(axis=0)):
            moved = (at[:, :, step] != source) & self.known[:, :, step, None]
            still[:, step] &= ~moved.any(axis=(1, 2))
        return still

    def fit(self, weights: Float64) -> tuple[Float64, Float64]:
        """(M, T, 3, 3) rotations and (M, T, 3) translations for (M, P) weights in [0, 1]."""
        weighted = weights.astype(self.target.dtype)[:, None] * self.columns
        sums = self._over_points(weighted).astype(np.float64)  # (M, 1 or T, 4)
        cross = (weighted @ self.target).astype(np.float64).reshape(len(weighted), 4, -1, 3).transpose(0, 2, 3, 1)
        supported = sums[..., 0] > 0
        total = np.where(supported, sums[..., 0], 1.0)[..., None]
        source_mean, target_mean = sums[..., 1:] / total, cross[..., 0] / total
        covariance = cross[..., 1:] / total[..., None] - target_mean[..., None] * source_mean[..., None, :]
        # The second singular value is the variance across the line that fits the points best.
        rotation, determined = kabsch_rotations(covariance, MIN_SPREAD_M**2)
        any_still = bool(self.still.any())
        if any_still:
            rotation = np.where(self.still[..., None, None], np.eye(3), rotation)
        rotation = _hold(rotation, self.still | (supported & determined))
        translation = target_mean - (rotation @ source_mean[..., None])[..., 0]
        if any_still:
            translation = np.where(self.still[..., None], 0.0, translation)
        supported = np.broadcast_to(supported, self.still.shape)
        return _hold(rotation, supported), _hold(translation, supported)

    def _over_points(self, values: FloatArray) -> FloatArray:
        """(M, C, P) values -> (M, 1 or T, C) sums over the points known at each step; 1 where these are the same."""
        if self.whole.all():  # and what is not known weighs nothing
            return np.asarray(values.sum(axis=2)[:, None])
        return np.asarray(np.swapaxes(values @ self.mask, 1, 2))

    def _over_steps(self, values: FloatArray) -> FloatArray:
        """(M, T, C) values -> (M, P or 1, C) sums over the known steps of each point; 1 where these are the same."""
        if self.whole.all():  # and what is not known is all zeros
            return np.asarray(values.sum(axis=1, keepdims=True))
        return np.asarray(self.mask @ values)

    def trajectory_distances(self, rotation: Float64, translation: Float64) -> FloatArray:
        """(M, P) RMS distance of each trajectory from the motion over its known steps, metres."""
        # |R x + t|^2 = |x|^2 + |t|^2 + 2 (R^T t) x, summed over the known steps by one product
        turned = 2.0 * (translation[..., None, :] @ rotation)[..., 0, :]
        square = np.concatenate([np.sum(translation**2, axis=2, keepdims=True), turned], axis=2)
        model = np.concatenate([translation[..., None], rotation], axis=3).reshape(len(rotation), -1, 4)
        changed = self._over_steps(square.astype(self.target.dtype))
        changed = changed - 2.0 * (self.target @ model.astype(self.target.dtype))
        total = self.square + np.einsum("npk,npk->np", changed, self.lifted)
        return np.asarray(np.sqrt(np.maximum(total, 0.0) / np.maximum(self.known_steps, 1.0)))

    def step_residuals(self, rotation: Float64, translation: Float64, inliers: Bool) -> Float64:
        """(M, T) RMS distance of the inliers from the motion, metres; NaN where none is known."""
        model = np.concatenate([translation[..., None], rotation], axis=3).astype(self.target.dtype)
        # Columns [t, R] of each step's coordinates, which take (1, x, y, z) to the moved point.
        model = np.ascontiguousarray(model.transpose(0, 3, 1, 2)).reshape(len(rotation), 4, -1)
        followers = (inliers & (self.known_steps > 0)).astype(self.target.dtype)
        square = np.zeros((len(rotation), self.target.shape[2]))
        at_once = max(1, CACHED_VALUES // max(1, self.target[:1].size))
        for start in range(0, len(rotation), at_once):
            rows = slice(start, start + at_once)
            error = self.lifted[rows] @ model[rows]
            error -= self.target[rows]
            error *= error
            if not self.whole[rows].all():
                error *= np.repeat(self.mask[rows], 3, axis=2)
            square[rows] = (followers[rows, None] @ error)[:, 0]
        count = followers.sum(axis=1)[:, None]
        if not self.whole.all():
            count = (followers[:, None] @ self.mask)[:, 0]
        mean = square.reshape(*rotation.shape[:2], 3).sum(axis=2) / np.maximum(count, 1.0)
        return np.asarray(np.where(count > 0, np.sqrt(mean), np.nan))

    def in_input_coordinates(self, rotation: Float64, translation: Float64) -> Float64:
        """(M, T, 4, 4) the motion of points that are not relative to the mean; an identity stays exact."""
        origin = self.origin[:, None].astype(np.float64)
        return se3_from_parts(rotation, translation + origin - (rotation @ origin[..., None])[..., 0])


def _hold(values: Float64, known: Bool) -> Float64:
    """(M, T, ...) values where an unknown step repeats the last known one before it; step 0 is taken as it is."""
    if known.all():
        return values
    steps = np.where(known, np.arange(known.shape[1]), 0)
    return np.asarray(values[np.arange(len(values))[:, None], np.maximum.accumulate(steps, axis=1)])
