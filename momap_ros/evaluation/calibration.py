"""Whether stated probabilities come true, and whether the draws cover what can happen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64
from momap_ros.shapes import check_shapes

Bool = npt.NDArray[np.bool_]
NUM_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Stated probabilities against how often they came true.

    Attributes:
        expected_error: ECE, the mean over all cases of |stated - came true| of their bin.
        brier: mean squared difference of probability and outcome; a proper score.
        count: cases per bin, bins of equal width from 0 to 1.
        stated: mean probability per bin; NaN where empty.
        true_share: how often it came true per bin; NaN where empty.
    """

    expected_error: float
    brier: float
    count: npt.NDArray[np.int64]
    stated: Float64
    true_share: Float64


def reliability(probability: Float64, outcome: Bool, num_bins: int = NUM_BINS) -> Reliability:
    """Compare probabilities with outcomes.

    Reference: Guo et al., On calibration of modern neural networks, ICML 2017, Sec. 2; Brier,
    doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Args:
        probability: (C,) in [0, 1].
        outcome: (C,) whether it came true; C at least 1.
        num_bins: of equal width; 1.0 belongs to the last.
    """
    check_shapes(probability=(probability, "C"), outcome=(outcome, "C"))
    bin_of_case = np.minimum((probability * num_bins).astype(np.int64), num_bins - 1)
    count = np.bincount(bin_of_case, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        stated = np.bincount(bin_of_case, probability, num_bins) / count
        true_share = np.bincount(bin_of_case, outcome, num_bins) / count
    gap = np.where(count > 0, np.abs(stated - true_share), 0.0)
    brier = float(((probability - outcome) ** 2).mean())
    return Reliability(float((gap * count).sum() / count.sum()), brier, count, stated, true_share)


@dataclass(frozen=True)
class Coverage:
    """How many of several true futures of one scene some draw comes close to.

    Attributes:
        futures: true futures.
        covered: those that some draw comes close to.
        distinct: true futures that are not close to another one counted before.
        distinct_covered: those of them that some draw comes close to.
    """

    futures: int
    covered: int
    distinct: int
    distinct_covered: int


def coverage(distance_m: Float64, between_futures_m: Float64, *, threshold_m: float) -> Coverage:
    """Count the covered futures.

    Args:
        distance_m: (N, F) of every draw to every true future.
        between_futures_m: (F, F) of the true futures to each other.
        threshold_m: close means at most this.
    """
    check_shapes(distance_m=(distance_m, "N F"), between_futures_m=(between_futures_m, "F F"))
    covered = np.asarray((distance_m <= threshold_m).any(axis=0))
    kept: list[int] = []
    for future in range(len(between_futures_m)):
        if all(between_futures_m[future, other] > threshold_m for other in kept):
            kept.append(future)
    return Coverage(len(covered), int(covered.sum()), len(kept), int(covered[kept].sum()))
