from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import nn

from momap_ros.training.drive import (
    Course,
    Launch,
    add_run_options,
    drive,
    given_launch,
    given_options,
    logged_mean,
    start,
)
from momap_ros.training.loop import device_of
from momap_ros.training.scene_run import SceneRun
from momap_ros.training.steps import PhasedTraining
from momap_ros.training.time_box import TimeBox

OPTIONS = PhasedTraining(steps=250, batch_size=4, learning_rate=0.1)


class Falling(SceneRun[nn.Linear, PhasedTraining]):
    """One weight, whose square is the loss."""

    def __init__(self, out: Path, options: PhasedTraining = OPTIONS, seconds: float = 0.0) -> None:
        super().__init__(out, nn.Linear(1, 1, bias=False), options)
        self.options, self.seconds, self.loaders = options, seconds, -1

    def steps_ahead(self, loaders: int) -> Iterator[None]:
        self.loaders = loaders
        return (None for _ in range(self.step, self.options.steps))

    def step_loss(self, drawn: object) -> NoReturn:
        pytest.fail(f"asked for a loss of {drawn}")

    def train_step(self, drawn: object = None) -> dict[str, torch.Tensor]:
        assert drawn is None
        time.sleep(self.seconds)
        self.optimizer.zero_grad()
        loss = self.model.weight.square().sum()
        loss.backward()
        self.update(0.01)
        parts = {"loss": loss.detach(), "step": torch.tensor(float(self.step))}
        return parts | ({"late": torch.ones(())} if self.step > 100 else {})


def launch(out: Path, box: TimeBox | None = None, workers: int = 1) -> Launch[PhasedTraining]:
    return Launch(out, out, OPTIONS, workers, save_every=120, loaders=3, box=box)


COURSE = Course("fall", ("loss", "late"), ("loss",))


def test_a_run_is_logged_and_saved_as_it_goes(tmp_path: Path) -> None:
    state, saved = Falling(tmp_path), []
    drive(state, COURSE, launch(tmp_path), lambda: saved.append(state.step))
    assert saved == [120, 240, 250]
    assert state.loaders == 3
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [(row["step"], row["late"]) for row in rows] == [("100", ""), ("200", "1.0"), ("250", "1.0")]
    losses = [float(row["loss"]) for row in rows]
    assert losses[0] > losses[1] > losses[2] >= 0
    drive(state, COURSE, launch(tmp_path), lambda: saved.append(-1))  # nothing is left
    assert saved[-1] == 250


def test_one_process_of_a_run_writes(tmp_path: Path) -> None:
    state = Falling(tmp_path)
    drive(state, replace(COURSE, writes=False), launch(tmp_path), lambda: pytest.fail("saved"))
    assert state.step == 250
    assert not list(tmp_path.iterdir())


def test_a_run_whose_time_is_up_ends_with_what_it_has(tmp_path: Path) -> None:
    state, saved = Falling(tmp_path, seconds=0.05), []
    box = TimeBox(minutes=0.2 / 60)
    drive(state, COURSE, launch(tmp_path, box=box), lambda: saved.append(state.step))
    assert saved == [state.step]
    assert 1 <= state.step < 250
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_parts_are_averaged_over_the_steps_that_had_them() -> None:
    history = [{"one": torch.tensor(1.0)}, {"one": torch.tensor(2.0), "two": torch.tensor(1 / 3)}]
    assert (logged_mean(history, "one"), logged_mean(history, "two"), logged_mean(history, "three")) == (
        1.5,
        0.33333,
        "",
    )


def test_several_workers_cannot_measure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one worker"):
        start(print, launch(tmp_path / "new", workers=2, box=TimeBox(1)))
    assert not (tmp_path / "new").exists()


def test_a_command_line_has_the_defaults_of_the_options(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    arguments = parser.parse_args(["--data", "here", "--out", str(tmp_path), "--steps", "7"])
    assert PhasedTraining(**given_options(arguments, PhasedTraining)) == PhasedTraining(steps=7)
    made = Launch(options=PhasedTraining(7), **given_launch(arguments))
    assert made == Launch(Path("here"), tmp_path, PhasedTraining(7), workers=2, save_every=250)
    assert (device_of("cpu", 1), device_of("cuda", 1)) == ("cpu", "cuda:1")
    with pytest.raises(SystemExit):
        parser.parse_args(["--data", "here", "--out", "there", "--steps", "7", "--minutes", "1"])
