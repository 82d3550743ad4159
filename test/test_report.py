"""Words, table and CSV of forecasts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from momap_ros.config import ObjectMotionConfig
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.report import (
    CSV_COLUMNS,
    ForecastRecord,
    direction_from_words,
    direction_in_words,
    largest_residual_m,
    object_table,
    write_objects_csv,
)


def sliding_object(move_m: tuple[float, float, float]) -> ObjectMotion:
    start = np.random.default_rng(0).uniform(-0.1, 0.1, (20, 3)) + np.array([0, 0, 1])
    positions = start[:, None] + np.linspace(0, 1, 6)[:, None] * np.array(move_m)
    trajectories = PointTrajectories(
        positions[None].astype(np.float32),
        np.full(20, 7, np.int32),
        np.zeros((20, 2), np.int32),
        640,
        480,
        0.1,
        stamp_ns=5,
    )
    (motion,) = estimate_object_motions(trajectories, ObjectMotionConfig(), labels={7: "red cup"})
    return motion


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((0, 0, 0), "stays"),
        ((1, 0, 0), "right"),
        ((-1, 0, 0), "left"),
        ((0, 1, 0), "down"),
        ((0, -1, 0), "up"),
        ((0, 0, 1), "away"),
        ((0, 0, -1), "closer"),
        ((-1, -1, 1), "left, up, away"),
    ],
)
def test_direction_words_are_those_of_the_optical_frame(flags: tuple[int, int, int], words: str) -> None:
    assert direction_in_words(np.array(flags, np.int8)) == words
    assert direction_from_words(words) == flags


@pytest.mark.parametrize("words", ["", "north", "left, right", "up,, down"])
def test_words_that_are_no_direction_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="expected stays, or some of left right up down closer away"):
        direction_from_words(words)


def test_table_shows_centimetres_millimetres_and_percent() -> None:
    table = object_table(
        [
            replace(sliding_object((0.12, -0.05, 0.0)), goal_id=12),
            replace(sliding_object((0, 0, 0)), instance_id=12, label=""),
        ]
    )
    header, rule, cup, still = table.splitlines()
    assert header.split() == ["id", "label", "moves", "direction", "goes", "to", "distance", "residual", "spread"]
    assert set(rule) == {"-", " "}
    assert cup.split() == ["7", "red", "cup", "100%", "right,", "up", "12", "13.0", "cm", "0.0", "mm", "0.0", "cm"]
    assert still.split() == ["12", "-", "0%", "stays", "-", "0.0", "cm", "0.0", "mm", "0.0", "cm"]
    assert header.index("distance") + len("distance") == cup.index("13.0 cm") + len("13.0 cm"), "columns are aligned"
    assert object_table([]) == "no objects"


def test_objects_without_a_fitted_motion_show_no_numbers() -> None:
    motion = replace(sliding_object((0.1, 0, 0)), valid=False)
    assert "unknown" in object_table([motion])
    assert "cm" not in object_table([motion])
    assert np.isnan(largest_residual_m(motion))


def test_csv_has_a_line_per_object_in_si_units(tmp_path: Path) -> None:
    motion = sliding_object((0.12, -0.05, 0.0))
    records = [
        ForecastRecord(5, "push, then stop", [motion, motion]),
        ForecastRecord(6, "", []),
        ForecastRecord(7, "x", [motion]),
    ]
    write_objects_csv(tmp_path / "objects.csv", records)
    with (tmp_path / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stamp_ns"], row["prompt"]) for row in rows] == [("5", "push, then stop")] * 2 + [("7", "x")]
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["direction"] == "right, up"
    assert float(rows[0]["displacement_m"]) == pytest.approx(0.13, abs=1e-6)
    assert float(rows[0]["direction_y"]) == pytest.approx(-5 / 13, abs=1e-6)
    assert float(rows[0]["speed_m_s"]) == pytest.approx(0.26, abs=1e-6)
