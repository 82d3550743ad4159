from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.fx.experimental._config

from momap_ros.baselines import train as train_module
from momap_ros.baselines.checkpoint import KINDS, Baseline, Widths
from momap_ros.baselines.train import BaselineTraining, Run, run
from momap_ros.cli import main
from momap_ros.data.growing import LATER
from momap_ros.training import loop
from momap_ros.training.drive import Launch
from momap_ros.training.loop import learning_rate
from momap_ros.training.steps import PhasedTraining, SmallTraining

TINY = Widths(channels=(32, 64), points=8, hidden=32)


def options(kind: str = "momap-vae", steps: int = 4) -> BaselineTraining:
    return BaselineTraining(kind=kind, steps=steps, kl_weight=1e-3, widths=TINY, batch_size=4, warmup_steps=2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a training process, so that sums are taken in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def new_run(data: Path, out: Path, chosen: BaselineTraining, *, rank: int = 0, world: int = 1) -> Run:
    out.mkdir(exist_ok=True)
    return Run(data, out, chosen, rank=rank, world=world)


def test_what_the_small_model_has_too_is_its_own() -> None:
    made = BaselineTraining(kind="momap-vae", steps=700, kl_weight=1.0, encoder_steps=100, seed=3)
    small = SmallTraining(steps=700, encoder_steps=100, seed=3)
    shared = [field.name for field in dataclasses.fields(PhasedTraining)]
    assert [getattr(made, name) for name in shared] == [getattr(small, name) for name in shared]
    assert set(train_module.KL_WEIGHTS) == set(KINDS)


def test_the_divergence_is_weighed_in_slowly() -> None:
    made = BaselineTraining(kind="momap-vae", steps=1100, encoder_steps=100, kl_weight=0.5, kl_warmup=0.1)
    weights = [made.kl_weight_at(step) for step in range(100, 1100)]
    assert weights[0] == pytest.approx(0.005)
    assert weights[49] == pytest.approx(0.25)
    assert set(weights[99:]) == {0.5}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_with_the_same_weights(kind: str, prepared_folder: Path, tmp_path: Path) -> None:
    whole = new_run(prepared_folder, tmp_path / "whole", options(kind))
    for _ in range(3):
        whole.train_step()
    first = new_run(prepared_folder, tmp_path / "interrupted", options(kind))
    first.train_step()
    first.save()
    first.train_step()  # killed before this was saved
    second = new_run(prepared_folder, tmp_path / "interrupted", options(kind))
    assert second.step == 1
    for _ in range(2):
        second.train_step()
    for name in ("model", "average"):
        one, other = getattr(whole, name).state_dict(), getattr(second, name).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.parametrize("kind", ["momap-vae", "general-flow-original"])
def test_a_run_leaves_a_checkpoint_of_its_average_and_a_log(kind: str, prepared_folder: Path, tmp_path: Path) -> None:
    chosen = dataclasses.replace(options(kind, 2), encoder_steps=int(kind == "momap-vae"))
    run(0, Launch(prepared_folder, tmp_path, chosen, workers=1, save_every=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "log.csv", "state.pt"]
    average = torch.load(tmp_path / "state.pt", weights_only=True)["average"]
    stored = Baseline.load(tmp_path / "checkpoint").model.state_dict()
    assert all(torch.equal(stored[key], average[key]) for key in average)
    training = json.loads((tmp_path / "checkpoint" / "baseline.json").read_text())["training"]
    assert (training["steps_done"], training["samples_seen"], training["samples"]) == (2, 8, 12)
    assert training["options"] == json.loads(json.dumps(dataclasses.asdict(chosen)))
    (row,) = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert (row["step"], row["samples"]) == ("2", "8")
    assert float(row["kl"]) >= 0
    assert float(row["duration"]) > 0
    before = (tmp_path / "state.pt").read_bytes()
    run(0, Launch(prepared_folder, tmp_path, chosen, workers=1, save_every=1))  # finished: nothing is done
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_computed_where_the_model_is(
    kind: str, prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's device without memory, which refuses to mix with others like a GPU does, through the optimizer."""
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())  # it does not know that device
    all_nonzero = torch.fx.experimental._config.patch(  # type: ignore[attr-defined]  # torch installs it at run time
        meta_nonzero_assume_all_nonzero=True
    )
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device="meta") + torch.ones(2)
    for encoder_steps in (0, 1) if kind == "momap-vae" else (0,):
        chosen = dataclasses.replace(options(kind), encoder_steps=encoder_steps)
        state = Run(prepared_folder, tmp_path, chosen, rank=0, world=1, device="meta")
        with all_nonzero:
            assert {value.device.type for value in state.train_step().values()} == {"meta"}
        assert {value.device.type for value in state.average.state_dict().values()} == {"meta"}
        assert state.step == 1


def test_a_run_in_a_given_time_chooses_its_steps_and_reads_what_came_later(
    prepared_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared_folder, data)
    shutil.copytree(prepared_folder / "train", data / LATER / "00001")
    command = ["train", "baseline", "--kind", "general-flow-rollout", "--data", str(data), "--out", str(tmp_path)]
    given = [*command, "--minutes", "0.3", "--batch-size", "4", "--workers", "1", "--loaders", "1", "--grows"]
    assert main(given) == 0
    kept = json.loads((tmp_path / "options.json").read_text())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["samples"], kept["grows"], kept["encoder_steps"]) == (24, True, 0)
    assert 1 <= state["step"] <= kept["steps"]


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "1"]
    with pytest.raises(SystemExit):
        main(["train", "baseline", "--kind", "gan", *common])
    assert "momap-vae" in capsys.readouterr().err
    assert main(["train", "baseline", "--kind", "general-flow-extend", "--encoder-steps", "1", *common]) == 1
    assert "has no scene encoder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- several processes, killed


class GradientsTakenError(Exception):
    """Stops a step where processes would exchange their gradients."""


def gradients_of_process(data: Path, out: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    def take(*_: object) -> None:
        raise GradientsTakenError

    monkeypatch.setattr(loop, "average_gradients", take)
    state = new_run(data, out, options("general-flow-original", 1), rank=rank, world=2)
    with pytest.raises(GradientsTakenError):
        state.train_step()
    return [parameter.grad.clone() for parameter in state.model.parameters() if parameter.grad is not None]


@pytest.mark.slow
def test_two_processes_take_one_step_with_their_mean_gradient(
    prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "two"
    out.mkdir()
    chosen = options("general-flow-original", 1)
    launch = Launch(prepared_folder, out, chosen, workers=2, save_every=1)
    torch.multiprocessing.start_processes(run, args=(launch,), nprocs=2, start_method="spawn")
    found = torch.load(out / "state.pt", weights_only=True)["model"]

    first, second = (gradients_of_process(prepared_folder, tmp_path / str(r), r, monkeypatch) for r in (0, 1))
    assert not torch.equal(first[0], second[0])  # other samples
    reference = new_run(prepared_folder, tmp_path / "one", chosen)
    parameters = list(reference.model.parameters())
    for parameter, one, other in zip(parameters, first, second, strict=True):
        parameter.grad = (one + other) / 2
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in reference.optimizer.param_groups:
        group["lr"] = learning_rate(0, chosen)
    reference.optimizer.step()
    for key, value in reference.model.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


PROGRAM = """
import sys
from pathlib import Path
from momap_ros.baselines.checkpoint import Widths
from momap_ros.baselines.train import BaselineTraining, run
from momap_ros.training.drive import Launch
chosen = BaselineTraining(kind="general-flow-rollout", steps=12, kl_weight=1e-3,
    widths=Widths(channels=(32, 64), points=8, hidden=32), batch_size=4, warmup_steps=2)
run(0, Launch(Path(sys.argv[1]), Path(sys.argv[2]), chosen, workers=1, save_every=2))
"""


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_end(prepared_folder: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    commands = [[sys.executable, "-c", PROGRAM, str(prepared_folder), str(folder)] for folder in folders]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(commands[0], check=True, capture_output=True, env=environment)
    process = subprocess.Popen(commands[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 240
    while not (folders[1] / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert torch.load(folders[1] / "state.pt", weights_only=True)["step"] < 12
    subprocess.run(commands[1], check=True, capture_output=True, env=environment)
    ends = [torch.load(folder / "state.pt", weights_only=True) for folder in folders]
    assert [end["step"] for end in ends] == [12, 12]
    for name in ("model", "average"):
        assert all(torch.equal(value, ends[1][name][key]) for key, value in ends[0][name].items())


def test_other_data_is_refused(prepared_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 64 samples, one batch, got 12"):
        new_run(prepared_folder, tmp_path, dataclasses.replace(options(), batch_size=64))
    begun = new_run(prepared_folder, tmp_path, options())
    begun.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(state | {"samples": 13}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="expected the 13 samples that the run began with, got 12"):
        new_run(prepared_folder, tmp_path, options())
