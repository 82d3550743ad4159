from __future__ import annotations

import numpy as np
import pytest

from momap_ros.evaluation.calibration import coverage, reliability


def test_probabilities_that_come_true_are_reliable() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(20000)
    found = reliability(probability, rng.random(20000) < probability)
    assert found.expected_error < 0.02
    # E[p (1 - p)] of a uniform p.
    assert found.brier == pytest.approx(1 / 6, abs=0.01)
    np.testing.assert_allclose(found.stated, np.arange(0.05, 1, 0.1), atol=0.01)


def test_overconfidence_is_the_gap() -> None:
    """90 % stated, half of it true; and one bin of 10 % that never comes true."""
    found = reliability(np.array([0.9] * 4 + [0.1] * 2), np.array([True, False] * 2 + [False] * 2))
    assert found.expected_error == pytest.approx((4 * 0.4 + 2 * 0.1) / 6)
    assert found.brier == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.01) / 6)
    assert found.count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 4]
    assert np.isnan(found.stated[0])


def test_certainty_belongs_to_the_last_bin() -> None:
    assert reliability(np.array([1.0]), np.array([True])).count[-1] == 1


def test_futures_are_covered_by_some_draw() -> None:
    """Futures 0 and 1 are one, 2 is another; the draws come close to 1 and 2, and to 1 again."""
    between = np.array([[0, 0.02, 0.5], [0.02, 0, 0.5], [0.5, 0.5, 0]])
    distance = np.array([[0.04, 0.01, 0.5], [0.5, 0.5, 0.03], [0.06, 0.02, 0.4]])
    found = coverage(distance, between, threshold_m=0.03)
    assert (found.futures, found.covered, found.distinct, found.distinct_covered) == (3, 2, 2, 1)
    found = coverage(distance, between, threshold_m=0.05)
    assert (found.futures, found.covered, found.distinct, found.distinct_covered) == (3, 3, 2, 2)
