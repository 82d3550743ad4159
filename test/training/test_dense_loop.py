"""The loop: what was learned depends neither on interruptions nor on how the work is shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from momap_ros.data.sample import write_shard
from momap_ros.training.dense import EXACT
from momap_ros.training.dense_loop import DenseLaunch, DenseRun, mean_of, start
from momap_ros.training.loop import keep_options
from momap_ros.training.vae import VaeObjective, VaeTraining

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

OPTIONS = VaeTraining(steps=4, batch_size=4, learning_rate=1e-3, warmup_steps=1, ema_decay=0.9, statistics_samples=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that sums are taken in the same order everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shards(simulated: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "train-0000000-0000006.tar", simulated[:6])
    return folder


@pytest.fixture
def launch(tiny_full_checkpoint: Path, shards: Path, tmp_path: Path) -> DenseLaunch:
    return DenseLaunch(tiny_full_checkpoint, shards, "train", tmp_path)


def new_run(launch: DenseLaunch, options: VaeTraining = OPTIONS) -> DenseRun:
    launch.out.mkdir(exist_ok=True)
    torch.manual_seed(options.seed)
    return DenseRun(launch, options, VaeObjective(launch, options, "cpu"), rank=0, device="cpu")


def trained(launch: DenseLaunch, steps: int) -> DenseRun:
    state = new_run(launch)
    loader = state.loader()
    for _ in range(steps):
        state.train_step(loader)
    return state


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_an_interrupted_run_ends_with_the_same_weights(launch: DenseLaunch) -> None:
    whole = trained(replace(launch, out=launch.out / "whole"), 3)
    first = trained(replace(launch, out=launch.out / "interrupted"), 2)
    first.save()
    first.train_step(first.loader())  # killed before this was saved
    second = new_run(first.launch)
    assert second.step == 2
    second.train_step(second.loader())
    assert torch.equal(weights(whole.model), weights(second.model))
    assert torch.equal(weights(whole.average), weights(second.average))


def test_micro_batches_take_the_step_of_the_whole_batch(launch: DenseLaunch) -> None:
    begun, whole, parts = (
        trained(replace(launch, out=launch.out / name, accumulate=accumulate), steps)
        for name, accumulate, steps in (("0", 1, 0), ("1", 1, 1), ("2", 2, 1))
    )
    assert similarity(begun, weights(whole.model), weights(parts.model)) > 0.99


def similarity(begun: DenseRun, first: torch.Tensor, second: torch.Tensor) -> float:
    """Cosine of two steps. Adam divides by the gradient's size, so rounding turns the few steps of no gradient."""
    start_weights = weights(begun.model)
    assert float((first - start_weights).abs().mean()) > 1e-4
    return float(torch.nn.functional.cosine_similarity(first - start_weights, second - start_weights, dim=0))


def test_the_average_follows_the_weights(launch: DenseLaunch) -> None:
    """Its decay is (n + 1) / (n + 10) at first: 0.1."""
    begun, after = trained(replace(launch, out=launch.out / "0"), 0), trained(replace(launch, out=launch.out / "1"), 1)
    expected = 0.1 * weights(begun.model) + 0.9 * weights(after.model)
    torch.testing.assert_close(weights(after.average), expected, rtol=1e-4, atol=1e-7)


def test_batches_made_by_other_processes_are_the_same(launch: DenseLaunch) -> None:
    here = next(new_run(launch).loader())
    batches = new_run(launch).batches
    assert batches.drops == EXACT
    assert torch.equal(here.momaps, batches[0].momaps)
    assert here.seeds == batches[0].seeds


def test_a_run_keeps_its_options(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Options:
        steps: int = 3
        seed: int = 0

    keep_options(tmp_path, Options(), checkpoint="a")
    keep_options(tmp_path, Options(), checkpoint="a")
    with pytest.raises(ValueError, match=r"that this run began with, seed 0, steps 3; choose another --out"):
        keep_options(tmp_path, Options(4, 1), checkpoint="a")
    with pytest.raises(ValueError, match="checkpoint 'a'"):
        keep_options(tmp_path, Options(), checkpoint="b")

    @dataclass(frozen=True)
    class Later(Options):
        blind_to: tuple[str, ...] = ()

    keep_options(tmp_path, Later(), checkpoint="a")  # the run began before there was a choice
    with pytest.raises(ValueError, match=r"blind_to \[\]"):
        keep_options(tmp_path, Later(blind_to=("points",)), checkpoint="a")


def test_parts_of_the_loss_are_averaged() -> None:
    history = [{"a": torch.tensor(a), "b": torch.tensor(b)} for a, b in ((1.0, 0.0), (3.0, 1.0))]
    assert mean_of(history) == {"a": torch.tensor(2.0), "b": torch.tensor(0.5)}


def momap_train(launch: DenseLaunch, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "momap_ros.cli", "train", "vae", "--checkpoint", str(launch.checkpoint)]
    command += ["--data", str(launch.data), "--out", str(launch.out), "--device", "cpu", "--precision", "float32"]
    command += ["--batch-size", "4", "--warmup-steps", "1", "--learning-rate", "1e-3", "--save-every", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(launch: DenseLaunch) -> None:
    steps = 12
    options = ("--steps", str(steps), "--loader-workers", "1", "--statistics-samples", "1")
    killed = replace(launch, out=launch.out / "killed")
    first = momap_train(killed, *options)
    deadline = time.monotonic() + 900
    while not (killed.out / "state.pt").exists() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    state = torch.load(killed.out / "state.pt", weights_only=True)
    assert 0 < state["step"] < steps, "killed in the middle"
    assert not (killed.out / "checkpoint").exists()
    second = momap_train(killed, *options)
    _, errors = second.communicate()
    assert second.returncode == 0, errors.decode()[-2000:]
    end = torch.load(killed.out / "state.pt", weights_only=True)
    assert end["step"] == steps
    assert (killed.out / "checkpoint" / "momap.json").is_file()

    whole = replace(launch, out=launch.out / "whole", save_every=steps)
    whole.out.mkdir()
    start(whole, replace(OPTIONS, steps=steps, ema_decay=0.999), VaeObjective)
    expected = torch.load(whole.out / "state.pt", weights_only=True)
    for name, value in expected["average"].items():
        torch.testing.assert_close(end["average"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(launch: DenseLaunch) -> None:
    options = replace(OPTIONS, steps=2)
    two = replace(launch, out=launch.out / "two", processes=2)
    two.out.mkdir()
    start(two, options, VaeObjective)
    found = torch.load(two.out / "state.pt", weights_only=True)
    assert found["step"] == 2
    assert (two.out / "checkpoint" / "momap.json").is_file()
    one, begun = (trained(replace(launch, out=launch.out / str(steps)), steps) for steps in (2, 0))
    both = torch.cat([found["model"][name].flatten() for name, _ in one.model.named_parameters()])
    assert similarity(begun, weights(one.model), both) > 0.98
