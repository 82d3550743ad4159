"""Distances between drawn and true trajectories, one function each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, Float64
from momap_ros.shapes import check_shapes


def lengths(vectors: Float32) -> Float32:
    """(...) lengths of (..., 3) vectors; several times faster than numpy's norm over a short last axis."""
    return np.asarray(np.sqrt(np.einsum("...c,...c->...", vectors, vectors)))


def average_displacement_error(drawn: Float32, true: Float32) -> Float64:
    """Mean distance over points and steps, per hypothesis (ADE).

    Args:
        drawn: (N, P, T, 3) metres.
        true: (P, T, 3) metres.

    Returns:
        (N,) metres.
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    return np.asarray(lengths(drawn - true).mean(axis=(1, 2)), np.float64)


def final_displacement_error(drawn: Float32, true: Float32) -> Float64:
    """Mean distance over points at the last step, per hypothesis (FDE); shapes as in `average_displacement_error`."""
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    return np.asarray(lengths(drawn[:, :, -1] - true[:, -1]).mean(axis=1), np.float64)


def farthest_displacement(drawn: Float32) -> Float64:
    """Largest distance of a point set's centroid from its start, per hypothesis: how far an object goes.

    Args:
        drawn: (N, P, T, 3) metres.

    Returns:
        (N,) metres.
    """
    check_shapes(drawn=(drawn, "N P T 3"))
    centroid = drawn.mean(axis=1)
    return np.asarray(lengths(centroid - centroid[:, :1]).max(axis=1), np.float64)


def root_mean_square_distance(first: Float32, second: Float32) -> Float64:
    """Root of the mean squared distance over points and steps: (..., P, T, 3) and the same -> (...) metres."""
    offset = first - second
    square = np.einsum("...ptc,...ptc->...", offset, offset, dtype=np.float64)
    return np.asarray(np.sqrt(square / (offset.shape[-3] * offset.shape[-2])))


def energy_score(drawn: Float32, true: Float32) -> float:
    """Energy score of all points together, metres: the smaller, the better the draws as a distribution.

    A proper score: on average nobody gains by drawing from anything but what they believe. It is the mean distance of
    the draws to the truth less half of their mean distance to each other; distances are `root_mean_square_distance`.
    The mean over pairs of different draws makes it fair: its expectation does not depend on N, so that a single draw,
    whose score is its distance, can be compared. It can be negative for a single truth.

    Reference: Gneiting and Raftery, doi:10.1198/016214506000001437, Sec. 4.3; Ferro, doi:10.1002/qj.2270.

    Args:
        drawn: (N, P, T, 3) metres.
        true: (P, T, 3) metres.
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    to_truth = float(root_mean_square_distance(drawn, true).mean())
    if len(drawn) < 2:
        return to_truth
    first, second = np.triu_indices(len(drawn), 1)
    between = [root_mean_square_distance(drawn[i], drawn[j]) for i, j in zip(first, second, strict=True)]
    return to_truth - 0.5 * float(np.mean(between))


def spread_and_error(drawn: Float32, true: Float32) -> tuple[float, float]:
    """Variance of the draws about their mean, and squared error of that mean: square metres, over points and steps.

    Draws and truth from one distribution have, on average, error = (N + 1) / N x variance.

    Reference: Fortin et al., doi:10.1175/JHM-D-14-0008.1.

    Args:
        drawn: (N, P, T, 3) metres, N at least 2.
        true: (P, T, 3) metres.
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    variance = drawn.astype(np.float64).var(axis=0, ddof=1).sum(axis=-1).mean()
    offset = drawn.mean(axis=0, dtype=np.float64) - true
    return float(variance), float((offset * offset).sum(axis=-1).mean())


def masked_displacement_error(drawn: Float32, true: Float32, mask: npt.NDArray[np.bool_]) -> Float64:
    """ADE over the chosen points and steps only: (N, P, T, 3), (P, T, 3), (P, T) -> (N,) metres, NaN where none is."""
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"), mask=(mask, "P T"))
    if not mask.any():
        return np.full(len(drawn), np.nan)
    return np.asarray(lengths(drawn[:, mask] - true[mask]).mean(axis=1), np.float64)
