from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from momap_ros.training import loop
from momap_ros.training.loop import (
    TrainingState,
    append_row,
    average_gradients,
    batch_indices,
    forget_rows,
    learning_rate,
    start_workers,
    update_average,
)


@dataclass(frozen=True)
class Options:
    steps: int
    batch_size: int = 64
    learning_rate: float = 8e-4
    warmup_steps: int = 200
    seed: int = 0
    ema_decay: float = 0.99


def test_every_epoch_is_a_permutation() -> None:
    options = Options(steps=100, batch_size=4)
    epochs = [np.concatenate([batch_indices(12, 3 * epoch + step, options) for step in range(3)]) for epoch in range(4)]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), np.arange(12))
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(batch_indices(12, 7, options), batch_indices(12, 7, options))
    other = dataclasses.replace(options, seed=1)
    assert not np.array_equal(batch_indices(12, 0, options), batch_indices(12, 0, other))


def test_an_incomplete_batch_is_left_out_of_its_epoch() -> None:
    options = Options(steps=100, batch_size=5)
    seen = np.concatenate([batch_indices(12, step, options) for step in range(2)])
    assert len(np.unique(seen)) == 10
    assert len(batch_indices(12, 2, options)) == 5


def test_the_learning_rate_rises_and_falls_as_a_cosine() -> None:
    options = Options(steps=1000, warmup_steps=100, learning_rate=2e-3)
    rates = np.array([learning_rate(step, options) for step in range(1001)])
    assert rates[0] == pytest.approx(2e-5, rel=0.01)
    assert rates.argmax() in range(90, 101)
    assert rates[500] == pytest.approx(2e-3 * 0.51)
    assert rates[1000] == pytest.approx(4e-5)
    assert (np.diff(rates[100:]) < 0).all()
    assert (np.diff(rates[:90]) > 0).all()


def test_every_phase_of_a_run_has_its_own_cosine() -> None:
    options = Options(steps=1000, warmup_steps=100, learning_rate=2e-3)
    first = [learning_rate(step, options, last=400) for step in range(400)]
    np.testing.assert_allclose(first, [learning_rate(step, Options(400, 64, 2e-3, 100)) for step in range(400)])
    second = [learning_rate(step, options, first=400) for step in range(400, 1000)]
    np.testing.assert_allclose(second, [learning_rate(step, Options(600, 64, 2e-3, 100)) for step in range(600)])


def test_gradients_are_averaged_in_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process alone: the sum is its own, so that the mean over two is half of it, in every bundle."""
    monkeypatch.setattr(loop, "MESSAGE_VALUES", 5)
    parameters = [nn.Parameter(torch.zeros(size)) for size in ((2, 2), (3,), (7,), (1,), (2,))]
    for number, parameter in enumerate(parameters):
        parameter.grad = None if number == 1 else torch.full(parameter.shape, float(number + 1))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'here'}", rank=0, world_size=1)
    try:
        average_gradients(parameters, 2)
    finally:
        distributed.destroy_process_group()
    assert parameters[1].grad is None
    for number in (0, 2, 3, 4):
        gradient = parameters[number].grad
        assert gradient is not None
        assert torch.equal(gradient, torch.full(gradient.shape, (number + 1) / 2))


def test_the_average_is_quick_at_first_and_slow_later() -> None:
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for step, kept in ((0, 0.1), (989, 0.99), (10_000, 0.99)):
        nn.init.zeros_(average.weight)
        nn.init.ones_(model.weight)
        update_average(average, model, step, 0.99)
        assert float(average.weight.detach()) == pytest.approx(1 - kept, rel=1e-4)


def test_rows_share_one_header(tmp_path: Path) -> None:
    for step in (1, 2):
        append_row(tmp_path / "log.csv", {"step": step, "loss": 0.5})
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert rows == [{"step": "1", "loss": "0.5"}, {"step": "2", "loss": "0.5"}]
    with pytest.raises(ValueError, match="expected the columns step, kl, got step, loss"):
        append_row(tmp_path / "log.csv", {"step": 3, "kl": 0.5})
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_lines_of_steps_that_are_taken_again_leave_the_log(tmp_path: Path) -> None:
    state = TrainingState(tmp_path, nn.Linear(3, 2), Options(steps=10))
    for step in (100, 200, 300):
        state.log({"step": step, "loss": 0.5})
    state.step = 200
    state.save()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("15")  # cut off by a kill
    second = TrainingState(tmp_path, nn.Linear(3, 2), Options(steps=10))
    second.resume()
    second.log({"step": 300, "loss": 0.25})
    second.log({"step": 400, "loss": 0.125})
    second.log({"step": 300, "of": "another file"}, "other.csv")
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [(row["step"], row["loss"]) for row in rows] == [
        ("100", "0.5"),
        ("200", "0.5"),
        ("300", "0.25"),
        ("400", "0.125"),
    ]
    assert (tmp_path / "other.csv").read_text().split() == ["step,of", "300,another", "file"]


@pytest.mark.parametrize("beginning", ["", "step,lo"])
def test_a_log_whose_header_was_cut_off_begins_anew(tmp_path: Path, beginning: str) -> None:
    path = tmp_path / "log.csv"
    forget_rows(path, 5)  # none is there
    path.write_text(beginning)
    forget_rows(path, 5)
    assert not path.exists()


def test_a_state_goes_on_where_it_was_saved_under_the_name_of_its_model(tmp_path: Path) -> None:
    options, inputs = Options(steps=10), torch.ones(1, 3)

    def begun() -> TrainingState[nn.Linear]:
        torch.manual_seed(0)
        return TrainingState(tmp_path, nn.Linear(3, 2), options, name="student")

    def step(state: TrainingState[nn.Linear]) -> None:
        state.optimizer.zero_grad()
        state.model(inputs).square().sum().backward()
        state.update(0.1)

    whole = begun()
    assert whole.resume() == {}
    step(whole)
    whole.save(samples=7)
    step(whole)
    second = begun()
    assert second.resume()["samples"] == 7
    step(second)
    assert second.step == whole.step == 2
    for name in ("model", "average"):
        assert torch.equal(getattr(second, name).weight, getattr(whole, name).weight)
    assert not torch.equal(whole.model.weight, whole.average.weight)
    assert set(torch.load(tmp_path / "state.pt", weights_only=True)) == {
        "student",
        "average",
        "optimizer",
        "step",
        "samples",
    }
    assert list(second.log_row({"loss": 0.5})) == ["step", "samples", "loss", "samples_per_s"]


def note(rank: int, file: str) -> None:
    Path(file).write_text(f"ran as {rank}")


def test_a_worker_whose_parent_has_died_does_nothing(tmp_path: Path) -> None:
    loop.run_below(0, note, os.getpid(), str(tmp_path / "orphan"))  # not this process's parent
    assert not (tmp_path / "orphan").exists()
    loop.run_below(3, note, os.getppid(), str(tmp_path / "child"))
    assert (tmp_path / "child").read_text() == "ran as 3"


PARENT = """
import os, signal, sys, time
from pathlib import Path
from momap_ros.training.loop import start_workers

def beat(rank, file):
    while True:
        Path(file).write_text(str(os.getpid()))
        time.sleep(0.1)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it puts into the background
    start_workers(beat, sys.argv[1], out=Path(sys.argv[1]).parent, workers=1)
"""


@pytest.mark.slow
def test_workers_of_a_job_in_the_background_end_with_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    beats = tmp_path / "beats"
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(beats)])
    try:
        assert happens(beats.exists, within_s=60)
        parent.terminate()
        parent.wait(10)
        assert happens(lambda: time.time() - beats.stat().st_mtime > 2, within_s=20)
    finally:
        parent.kill()
        if beats.exists():
            with suppress(ProcessLookupError, ValueError):  # gone, or while it wrote
                os.kill(int(beats.read_text()), signal.SIGKILL)


def happens(condition: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not (happened := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return happened


def refuse(_rank: int, text: str) -> None:
    raise ValueError(text)


def divide(_rank: int, text: str) -> None:
    raise ZeroDivisionError(text)


@pytest.mark.slow
def test_what_a_worker_refuses_reaches_whoever_started_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--steps: expected more than 0, got 0$"):
        start_workers(refuse, "--steps: expected more than 0, got 0", out=tmp_path, workers=1)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="ZeroDivisionError: a bug"):
        start_workers(divide, "a bug", out=tmp_path, workers=1)
