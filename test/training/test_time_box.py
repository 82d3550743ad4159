from __future__ import annotations

import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from momap_ros.training.small import Run, SmallLaunch, build_parser, options_of
from momap_ros.training.small import run as run_process
from momap_ros.training.steps import SmallTraining
from momap_ros.training.time_box import MARGIN, TimeBox, fit_steps, steps_per_s

OPTIONS = SmallTraining(steps=1, batch_size=4, warmup_steps=5, channels=(32, 64), encoder_width=32, encoder_layers=1)


def new_run(prepared_folder: Path, out: Path) -> Run:
    return Run(prepared_folder, out, OPTIONS, rank=0, world=1)


def test_as_many_steps_as_fit(prepared_folder: Path, tmp_path: Path) -> None:
    """Half of the time for either kind: the numbers of steps are as the rates, which are measured once more here."""
    run = new_run(prepared_folder, tmp_path)
    box = TimeBox(minutes=10, encoder_share=0.5, measured_steps=6)
    options = fit_steps(run, box, loaders=0)
    with run.rehearsal():
        run.options = replace(OPTIONS, steps=1000, encoder_steps=0)
        whole_per_s = steps_per_s(run, 0, 6, limit_s=60)
    fitting = MARGIN * box.left_s * 0.5 * whole_per_s
    assert 0.4 * fitting < options.steps - options.encoder_steps < 2.5 * fitting
    assert options.encoder_steps > options.steps - options.encoder_steps  # they are faster
    assert replace(options, steps=1, encoder_steps=0) == OPTIONS


def test_measuring_leaves_no_trace(prepared_folder: Path, tmp_path: Path) -> None:
    run, untouched = new_run(prepared_folder, tmp_path), new_run(prepared_folder, tmp_path)
    fit_steps(run, TimeBox(minutes=10, measured_steps=2), loaders=0)
    for each in (run, untouched):
        each.options = replace(OPTIONS, steps=100)
        for _ in range(3):
            each.train_step()
    assert run.step == untouched.step == 3
    for one, other in zip(run.model.parameters(), untouched.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(run.average.parameters(), untouched.average.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_has_begun_is_not_rehearsed(prepared_folder: Path, tmp_path: Path) -> None:
    run = new_run(prepared_folder, tmp_path)
    run.train_step()
    with pytest.raises(ValueError, match="got step 1"), run.rehearsal():
        pass


def test_too_little_time_says_so(prepared_folder: Path, tmp_path: Path) -> None:
    late = TimeBox(minutes=1, measured_steps=2, started_s=time.monotonic() - 100)
    with pytest.raises(ValueError, match="give more"):
        fit_steps(new_run(prepared_folder, tmp_path), late, loaders=0)


@pytest.mark.parametrize(("minutes", "share"), [(0.0, 0.2), (-1.0, 0.2), (1.0, 1.0), (1.0, -0.1)])
def test_impossible_boxes_are_refused(minutes: float, share: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        TimeBox(minutes, share)


def test_a_run_ends_in_time_and_goes_on_with_the_steps_that_it_chose(prepared_folder: Path, tmp_path: Path) -> None:
    box = TimeBox(minutes=0.15, measured_steps=2)
    run_process(0, SmallLaunch(prepared_folder, tmp_path, OPTIONS, workers=1, save_every=1000, box=box))
    chosen = json.loads((tmp_path / "options.json").read_text())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] <= chosen["steps"]
    assert state["step"] == chosen["steps"] or box.left_s < 0
    assert box.left_s > -20  # one step and the saving, on a busy machine
    with (tmp_path / "log.csv").open(newline="") as file:
        assert int(list(csv.DictReader(file))[-1]["step"]) == state["step"]
    command = ["--data", str(prepared_folder), "--out", str(tmp_path), "--minutes", "1", "--batch-size", "4"]
    again = options_of(build_parser().parse_args(command))
    assert (again.steps, again.encoder_steps) == (chosen["steps"], chosen["encoder_steps"])
