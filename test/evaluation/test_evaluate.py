"""The command: what comes out, whoever is killed when, and however many work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from evaluation_scenes import CUP, STEPS, made_sample, moved, pushed

from momap_ros.data.sample import write_shard
from momap_ros.evaluation.evaluate import build_parser, main

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

# Predictors of one's own: draws around the truth, and one that ends its process at a sample, the first time only.
OWN = """
import os, signal
from pathlib import Path
from evaluation_scenes import Around, STEPS
from momap_ros.evaluation.baselines import Static

def around(millimetres):
    return Around(((0.0, float(millimetres) / 1e3, 0.0), (0.0, 0.0, 0.05)), name="around", told="")

class Deadly(Static):
    def __call__(self, scene, *, num_hypotheses, seed):
        marker = Path(os.environ["MARKER"])
        if scene.sample.key == "val_0000004_0" and marker.exists():
            marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(scene, num_hypotheses=num_hypotheses, seed=seed)

def deadly():
    return Deadly(STEPS, name="deadly")
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three shards of two episodes of two views, a shard of training episodes, and a group of futures."""
    folder = tmp_path / "data"
    for first in (0, 2, 4):
        keys = [f"val_{episode:07d}_{view}" for episode in (first, first + 1) for view in (0, 1)]
        samples = [pushed(key, 0.05 + 0.01 * number) for number, key in enumerate(keys)]
        write_shard(folder / f"val-{first:07d}-{first + 2:07d}.tar", samples)
    write_shard(folder / "train-0000000-0000004.tar", [pushed(f"train_{i:07d}_0", 0.04 * i) for i in range(1, 5)])
    frame = "futures_0000000_0"
    futures = [made_sample({CUP: moved((0.1 * i, 0, 0))}, f"{frame}_{i}", first_frame=frame) for i in range(3)]
    write_shard(folder / "futures-0000000-0000001.tar", futures)
    (tmp_path / "own_predictors.py").write_text(OWN)
    return folder


def evaluate(data: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(data.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "MARKER": str(data.parent / "marker"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "momap_ros.cli", "evaluate", "--data", str(data), "--out", str(out)]
    command += ["--instances", "true", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def contents(out: Path) -> dict[str, bytes]:
    """What the command leaves, by name; but for what a killed process left behind."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("[!.]*")) if path.is_file()}


OPTIONS = ("--splits", "val", "futures", "--predictors", "static", "skill_mean", "retrieval", "own_predictors:deadly")


@pytest.mark.slow
def test_neither_workers_nor_a_kill_change_the_report(data: Path, tmp_path: Path) -> None:
    options = (*OPTIONS, "own_predictors:around=30")
    (tmp_path / "marker").touch()
    killed = evaluate(data, tmp_path / "killed", *options, "--workers", "1")
    assert killed.returncode == -signal.SIGKILL
    before = contents(tmp_path / "killed")
    assert before
    assert all(name.startswith("rows/") and "val-0000004" not in name for name in before)
    resumed = evaluate(data, tmp_path / "killed", *options, "--workers", "1")
    assert resumed.returncode == 0, resumed.stderr
    several = evaluate(data, tmp_path / "two", *options, "--workers", "2")
    assert several.returncode == 0, several.stderr
    expected = contents(tmp_path / "two")
    assert {"report.json", "report.md"} <= expected.keys()
    assert contents(tmp_path / "killed") == expected


def test_the_report_says_everything(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(data.parent)
    out = tmp_path / "out"
    command = ["momap evaluate", "--data", str(data), "--out", str(out), "--splits", "val", "futures", "--workers", "1"]
    command += ["--instances", "true", "--moving-mm", "15", "--predictors", "static", "skill_mean", "retrieval"]
    monkeypatch.setattr(sys, "argv", [*command, "rigid_oracle", "own_predictors:around=30"])
    assert main() == 0
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["thresholds"]["moving_m"] == 0.015
    assert "--workers" not in report["settings"]["command"]
    named = {(result["split"], result["predictor"]): result for result in report["results"]}
    assert len(named) == len(report["results"]) == 10
    late = (STEPS - 1) / STEPS
    around = named["val", "around"]
    assert around["samples"] == 12
    assert around["roles"]["acted"]["ade_m"]["best"]["value"] == pytest.approx(0.03 * late, rel=1e-4)
    assert named["val", "rigid oracle"]["roles"]["acted"]["ade_m"]["best"]["value"] < 1e-5
    # Half of the mean distance of 5, 6, 7 and 8 cm.
    assert named["val", "static"]["roles"]["acted"]["ade_m"]["best"]["value"] == pytest.approx(0.0325, rel=1e-4)
    assert named["val", "skill mean"]["told"] == "the skill and the acted object"
    assert named["futures", "around"]["futures"]["end"]["futures"] == 3
    assert named["futures", "skill mean"].get("futures") is None
    page = (out / "report.md").read_text()
    for heading in (
        "Errors",
        "The paper's columns: robot",
        "Visible and occluded",
        "Draws as a distribution",
        "Skills",
    ):
        assert f"\n## {heading}" in page
    assert "momap evaluate" in page
    assert "15 mm from its start" in page
    assert "`--visibility`" in page
    for part in page.split("\n\n"):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1, part
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == [
        f"{kind}_{split}_true_text_around.png"
        for kind in ("reliability", "skills", "spread")
        for split in ("futures", "val")
    ]
    image = cv2.imread(str(out / pictures[-1]))
    assert image is not None
    assert np.unique(image.reshape(-1, 3), axis=0).shape[0] > 20


@pytest.mark.slow
def test_the_command_scores_a_checkpoint(tiny_checkpoint: Path, simulated: list[Sample], tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "val-0000000-0000004.tar", simulated[:4])
    write_shard(tmp_path / "data" / "train-0000000-0000012.tar", simulated)
    options = ("--checkpoint", str(tiny_checkpoint), "--splits", "val", "--steps", "1", "2", "--workers", "1")
    done = evaluate(
        tmp_path / "data", tmp_path / "out", *options, "--draws", "12", "--instances", "true", "tabletop", "--hints"
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "report.json").read_text())["results"]
    ours = [result for result in results if result["predictor"].startswith("ours")]
    assert [(result["condition"], result["predictor"]) for result in ours] == [
        (f"{ids}, text, hints", f"ours, 12 draws, {steps}")
        for ids in ("true", "tabletop")
        for steps in ("1 step", "2 steps")
    ]
    assert all(result["samples"] == 4 for result in ours)
    assert ours[0]["acted_segmented"]["value"] == 1.0
    assert done.stdout.count("| val, ") == 4
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "mean of N = 10 draws; those of ours speak for N groups of 12 draws. Brackets" in page


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        build_parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert "momap evaluate --checkpoint small" in text
    for name in ("rigid_oracle", "report.md", "docs/metrics.md", "--covered-end-mm"):
        assert name in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "report.json"], "--out: expected a folder, got report.json"),
        (["--out", "out", "--limit", "0"], "--limit: expected a whole number from 1 on, got 0"),
        (["--out", "out", "--draws", "0"], "--draws: expected a whole number from 1 on, got 0"),
        (["--out", "out", "--steps", "4", "0"], "--steps: expected whole numbers from 1 on"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["momap evaluate", "--data", "data", *options])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert message in capsys.readouterr().err
