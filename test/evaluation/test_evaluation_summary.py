from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from evaluation_scenes import STEPS, Around, pushed

from momap_ros.evaluation.baselines import Static
from momap_ros.evaluation.scoring import Condition, Row, score_sample
from momap_ros.evaluation.summary import Bootstrap, summarise, summarise_futures, summarise_skill

if TYPE_CHECKING:
    from momap_ros.evaluation.predictor import Predictor


def rows_of(predictor: Predictor) -> list[Row]:
    """Of two views each of an episode in which the cup goes 10 cm, and one in which it goes 20 cm."""
    rows = []
    for number in range(4):
        sample = pushed(f"val_{number // 2:07d}_{number % 2}", 0.1 * (1 + number // 2))
        row = score_sample(sample, [predictor], Condition(), number)[predictor.name]
        assert row is not None
        rows.append(row)
    return rows


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """400 times: 60 episodes of two equal views; the interval holds the mean in about 95 %."""
    rng = np.random.default_rng(0)
    episodes = [f"e{i:03d}" for i in range(60) for _ in range(2)]
    bootstrap, held, naive = Bootstrap(episodes, 500), 0, 0
    alone = Bootstrap([f"{i:03d}" for i in range(120)], 500)
    for _ in range(400):
        values = np.repeat(rng.normal(size=60), 2)
        for which, figures in (("episodes", bootstrap.mean(values)), ("samples", alone.mean(values))):
            inside = figures["low"] <= 0 <= figures["high"]
            held, naive = (held + inside, naive) if which == "episodes" else (held, naive + inside)
    assert 0.90 < held / 400 < 0.98
    # Views taken for independent samples would promise too much: their interval is narrower by sqrt(2).
    assert naive / 400 < 0.88


def test_intervals_are_those_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(size=400)
    figures = Bootstrap([str(i) for i in range(400)], 4000).mean(values)
    half = 1.96 * values.std() / 20
    assert figures["value"] == pytest.approx(values.mean())
    assert figures["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert figures["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert figures["samples"] == 400


def test_ratios_are_of_sums_and_leave_out_what_is_unknown() -> None:
    bootstrap = Bootstrap(["a", "a", "b", "c"])
    figures = bootstrap.ratio(np.array([1.0, 2.0, np.nan, 3.0]), np.array([10.0, 10.0, 10.0, np.nan]))
    assert (figures["value"], figures["samples"]) == (pytest.approx(0.15), 2)
    assert "low" not in figures, "both rows are of one episode"
    assert bootstrap.ratio(np.ones(4), np.zeros(4)) == {}
    assert bootstrap.mean(np.full(4, np.nan)) == {}
    assert bootstrap.mean(np.arange(4.0)) == Bootstrap(["a", "a", "b", "c"]).mean(np.arange(4.0))


def test_means_and_shares_of_static() -> None:
    """Two episodes of 10 and 20 cm, two views each; the draws are 3 and 5 cm beside the truth."""
    late = (STEPS - 1) / STEPS
    found = summarise(rows_of(Around(((0.0, 0.03, 0.0), (0.0, 0.0, 0.05)))))
    assert (found["samples"], found["episodes"]) == (4, 2)
    acted = found["roles"]["acted"]
    assert acted["static_ade_m"]["value"] == pytest.approx(0.075, rel=1e-4)
    assert acted["ade_m"]["best"]["value"] == pytest.approx(0.03 * late, rel=1e-4)
    assert acted["ade_share_of_static"]["mean"]["value"] == pytest.approx(0.04 * late / 0.075, rel=1e-4)
    # A resample is one of three: the first episode twice, both, the second twice.
    shares = acted["ade_share_of_static"]["mean"]
    assert (shares["low"], shares["high"]) == pytest.approx((0.04 * late / 0.1, 0.04 * late / 0.05), rel=1e-4)
    # Depth is half a metre everywhere.
    assert acted["ate_dtw_depths"]["mean"]["value"] == pytest.approx(acted["ate_dtw_m"]["mean"]["value"] / 0.5)
    assert found["right_object"]["value"] == 1.0
    assert found["binding"]["samples"] == 4
    assert found["chance"]["value"] == found["binding_chance"]["value"] == pytest.approx(1 / 3)


def test_dispersion_is_one_for_draws_like_truths() -> None:
    """Rows made by hand: variance 3, error 3 (N + 1) / N."""
    rows: list[Row] = rows_of(Around(((0.0, 0.0, 0.01),) * 10))
    for row in rows:
        row["roles"]["acted"] |= {"variance_path": 3e-4, "error_path": 3.3e-4}
    found = summarise(rows)["roles"]["acted"]["dispersion_path"]
    assert found["ratio"]["value"] == pytest.approx(1.0)
    assert (found["spread_m"], found["error_of_mean_m"]) == pytest.approx((3e-4**0.5, 3.3e-4**0.5))
    # Ten equal draws, one centimetre away: no spread at all.
    assert summarise(rows)["roles"]["acted"]["dispersion_end"]["ratio"]["value"] == 0.0
    assert summarise(rows_of(Static(STEPS)))["roles"]["acted"]["dispersion_path"] == {}


def test_probabilities_of_objects_and_robots_are_apart() -> None:
    found = summarise(rows_of(Around(((0.0, 0.0, 0.0),), probability=0.75)))["moving_probability"]
    # Per sample one of three objects moves, and the robot does.
    assert found["objects"]["expected_error"] == pytest.approx(0.75 - 1 / 3)
    assert found["robot"]["expected_error"] == pytest.approx(0.25)
    assert (found["objects"]["cases"], found["robot"]["cases"]) == (12, 4)
    assert found["robot"]["bins"][0] == {"count": 0, "stated": None, "true_share": None}
    assert summarise(rows_of(Static(STEPS)))["moving_probability"] == {}


def test_skills_have_the_same_means() -> None:
    rows = rows_of(Around(((0.0, 0.03, 0.0), (0.0, 0.0, 0.05))))
    found, everything = summarise_skill(rows), summarise(rows)
    assert found["acted"]["best"] == everything["roles"]["acted"]["ade_m"]["best"]
    assert found["robot"]["static"] == everything["roles"]["robot"]["static_ade_m"]


def test_coverage_is_summed_over_first_frames() -> None:
    counts = {"futures": 4, "covered": 1, "distinct": 3, "distinct_covered": 1}
    more = {"futures": 6, "covered": 4, "distinct": 2, "distinct_covered": 2}
    groups = [{"episode": "a", "end": counts, "path": counts}, {"episode": "b", "end": more, "path": counts}]
    found = summarise_futures(groups)
    assert found["first_frames"] == 2
    assert found["end"]["covered_share"]["value"] == 0.5
    assert found["end"]["distinct_covered_share"]["value"] == pytest.approx(3 / 5)
    assert (found["end"]["distinct_covered"], found["end"]["distinct"]) == (3, 5)
