from __future__ import annotations

import pytest

from momap_ros.pacing import StepBudget


def budget(*forecasts: tuple[int, float]) -> StepBudget:
    known = StepBudget()
    for num_steps, seconds in forecasts:
        known.record(num_steps, seconds)
    return known


def test_without_a_deadline_or_a_forecast_all_steps_are_taken() -> None:
    assert budget().steps_within(0.1, 4) == 4
    assert budget((4, 10.0)).steps_within(0.0, 4) == 4


@pytest.mark.parametrize(("deadline_s", "expected"), [(1.0, 4), (0.8, 4), (0.79, 3), (0.4, 2), (0.1, 1), (0.01, 1)])
def test_one_number_of_steps_is_taken_as_time_per_step(deadline_s: float, expected: int) -> None:
    """0.2 s per step."""
    assert budget((4, 0.8)).steps_within(deadline_s, 4) == expected


@pytest.mark.parametrize(("deadline_s", "expected"), [(0.31, 1), (0.41, 2), (0.51, 3), (0.99, 7), (5.0, 10)])
def test_two_numbers_of_steps_give_the_fixed_time(deadline_s: float, expected: int) -> None:
    """0.2 s and 0.1 s per step."""
    assert budget((4, 0.6), (2, 0.4)).steps_within(deadline_s, 10) == expected


def test_newer_forecasts_count_more() -> None:
    known = budget(*[(4, 0.4)] * 3, *[(4, 4.0)] * 30)
    assert known.steps_within(2.05, 4) == 2


def test_noise_is_no_reason_for_fewer_steps() -> None:
    assert budget((4, 0.2), (2, 0.21)).steps_within(0.5, 4) == 4
