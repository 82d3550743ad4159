"""Rates, intervals and tables of closed-loop runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import binomtest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.simulation.closed_loop_report import Row, markdown, summarise, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 5), (5, 5), (91, 108), (1, 1)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    reference = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_without_trials_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def row(policy: str, skill: str, failure: str = "") -> Row:
    return Row("val", 1, skill, "block", policy, not failure, failure, "", "grasp", 1.0, sentence="lift the block")


def test_the_report_counts_per_policy_and_skill_and_names_failures() -> None:
    rows = [
        row("oracle", "lift"),
        row("oracle", "push"),
        row("ours, text", "lift"),
        row("ours, text", "push", "no grasp"),
    ]
    summary = summarise(rows)
    assert summary["ours, text"]["all"]["rate"] == 0.5
    assert summary["ours, text"]["failures"] == {"no grasp": 1}
    text = markdown("val", summary, {"no camera sees the task": 2})
    assert "| ours, text | 1/2 | 0.500 | 0.095 to 0.905 | 0.50 |" in text
    assert "| push | 1/1 | 0/1 |" in text
    assert "| no grasp | 0 | 1 |" in text
    assert "replans" not in text
    assert "Episodes left out: no camera sees the task 2." in text


def test_the_report_counts_replans_of_every_rate_apart() -> None:
    again = replace(row("oracle, every 0.5 s", "lift"), replan_every_s=0.5, replans_taken=2, replans_kept=1)
    stopped = replace(again, success=False, failure="stopped on disagreement", replans_stopped=1)
    summary = summarise([row("oracle", "lift"), again, stopped])
    assert summary["oracle, every 0.5 s"]["replans"] == {"every_s": 0.5, "taken": 4, "kept": 2, "stopped": 1}
    text = markdown("val", summary, {})
    assert "| replans | taken | kept | stopped |" in text
    assert "| oracle, every 0.5 s | 4 | 2 | 1 |" in text
    assert "| oracle | 0 | 0 | 0 |" not in text
