from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from momap_ros.scoring.report import horizon_table, object_score_table, plot_scores, write_scores
from momap_ros.scoring.scores import ObjectScore, Outcome, summarise

HORIZONS_S = (1.0, 2.0)
SCORES = [
    ObjectScore(7, 3, "cup", 1.0, 1.0, Outcome.SCORED, (0.02, 0.01), 0.08),
    ObjectScore(7, 4, "", 1.0, 1.0, Outcome.SCORED, (0.011,), 0.001),
    ObjectScore(7, 3, "cup", 2.0, 2.1, Outcome.OCCLUDED),
]


def test_the_tables_state_errors_skills_and_what_is_missing() -> None:
    by_object = object_score_table(SCORES, HORIZONS_S, moving_threshold_m=0.02).splitlines()
    assert by_object[2].split() == ["3", "cup", "1", "s", "1", "0", "0", "0", "8.0", "cm", "2.0", "cm", "+0.75"]
    assert by_object[3].split() == ["3", "cup", "2", "s", "0", "1", "0", "0", "-", "-", "-"]
    assert by_object[4].split() == ["4", "-", "1", "s", "1", "0", "0", "0", "0.1", "cm", "1.1", "cm", "-"]
    by_horizon = horizon_table(summarise(SCORES, HORIZONS_S, moving_threshold_m=0.02)).splitlines()
    moved, still = ["1", "8.0", "cm", "2.0", "cm", "1.0", "cm", "+0.75"], ["1", "1.1", "cm", "0.1", "cm"]
    assert by_horizon[2].split() == ["1", "s", "2", "0", "0", "0", *moved, *still]
    assert by_horizon[3].split() == ["2", "s", "0", "1", "0", "0", "0", "-", "-", "-", "-", "0", "-", "-"]
    assert object_score_table([], HORIZONS_S, moving_threshold_m=0.02) == "no object at any horizon"


def test_the_file_holds_every_score_and_the_plot_can_be_read(tmp_path: Path) -> None:
    path = write_scores(tmp_path / "s.json", SCORES, HORIZONS_S, moving_threshold_m=0.02, facts={"model": "m"})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["format"], content["model"]) == ("momap-scores/1", "m")
    assert content["scores"][0]["errors_m"] == [0.02, 0.01]
    assert content["scores"][2]["static_error_m"] is None
    assert content["horizons"][0]["skill"] == 0.75
    assert content["horizons"][1]["skill"] is None
    summaries = summarise(SCORES, HORIZONS_S, moving_threshold_m=0.02)
    picture = cv2.imread(str(plot_scores(tmp_path / "s.png", SCORES, summaries, title="t")))
    assert picture is not None
    assert np.ptp(picture) == 255
