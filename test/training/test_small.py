from __future__ import annotations

import copy
import csv
import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.data.growing import LATER
from momap_ros.data.prepared import PreparedSplit
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.prediction import PREDICTIONS
from momap_ros.training import loop
from momap_ros.training.batches import Batch, complete
from momap_ros.training.earlier_weights import start_from
from momap_ros.training.loop import batch_indices, learning_rate
from momap_ros.training.scenes import TRAINING, draw_scenes
from momap_ros.training.small import (
    Run,
    SmallLaunch,
    SmallModel,
    run,
    training_loss,
)
from momap_ros.training.steps import END_SCALES, SmallTraining, StepsAhead, draw_step, squared_error, step_size

OPTIONS = SmallTraining(steps=30, batch_size=4, warmup_steps=5, channels=(32, 64))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a training process, so that sums are taken in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def new_run(data: Path, out: Path, options: SmallTraining = OPTIONS, *, rank: int = 0, world: int = 1) -> Run:
    out.mkdir(exist_ok=True)
    return Run(data, out, options, rank=rank, world=world)


def assert_same_state(first: Run, second: Run) -> None:
    assert first.step == second.step
    for name in ("model", "average"):
        one, other = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_the_encoders_steps_have_a_cosine_of_their_own() -> None:
    options = SmallTraining(steps=1000, encoder_steps=400, warmup_steps=100, learning_rate=2e-3)
    short = [learning_rate(step, SmallTraining(steps=400, warmup_steps=100, learning_rate=2e-3)) for step in range(400)]
    long = [learning_rate(step, SmallTraining(steps=600, warmup_steps=100, learning_rate=2e-3)) for step in range(600)]
    np.testing.assert_allclose([step_size(step, options) for step in range(1000)], short + long)


# --- the loss


def batch_of(data: Path, count: int = 4) -> tuple[Batch, TemporalBasisCodec]:
    codec = TemporalBasisCodec.from_pretrained(data / "codec", local_files_only=True, low_cpu_mem_usage=False)
    split = PreparedSplit.open(data / "train")
    return complete(draw_scenes(split, np.arange(count), drops=TRAINING, rng=np.random.default_rng(0)), codec), codec


def loss_of(run_state: Run, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return training_loss(
        run_state.model,
        batch,
        noise=torch.randn(batch.latents.shape, generator=generator),
        timesteps=torch.randint(0, 1000, (len(batch.latents),), generator=generator),
        alphas_cumprod=run_state.alphas_cumprod,
        weighing=run_state.weighing,
        options=run_state.options,
    )


def test_the_loss_of_an_untrained_model_is_known(prepared_folder: Path, tmp_path: Path) -> None:
    """It predicts zero latents and logits of zero: the weighted power of latents and ends, and ln 2 per cell."""
    state = new_run(prepared_folder, tmp_path)
    batch, codec = batch_of(prepared_folder)
    loss, read = loss_of(state, batch)
    parts = {name: float(value) for name, value in read.items()}
    std = codec.coefficient_std.sqrt().repeat(3)
    power = (batch.latents**2 * (std / std.mean())[:, None, None]).mean(dim=1)
    ends = codec.decode(batch.latents.movedim(1, -1))[..., -1, :].square().sum(dim=-1) / END_SCALES**2
    weighted = ((power + state.options.end_weight * ends) * batch.weights[:, 0]).mean()
    assert parts["latent"] == pytest.approx(float(weighted), rel=1e-4)
    assert parts["mask"] == pytest.approx(math.log(2), rel=1e-4)
    assert float(loss.detach()) == pytest.approx(
        parts["latent"]
        + 0.15 * parts["mask"]
        + 0.1 * parts["instance"]
        + 0.1 * parts["naming"]
        + 0.3 * parts["motion"]
        + 0.05 * parts["duration"],
        rel=1e-4,
    )


def test_the_loss_falls(prepared_folder: Path, tmp_path: Path) -> None:
    state = new_run(prepared_folder, tmp_path)
    batch, _ = batch_of(prepared_folder, 12)
    with torch.no_grad():
        before = loss_of(state, batch)[1]
        for _ in range(OPTIONS.steps):
            with torch.enable_grad():
                state.train_step()
        after = loss_of(state, batch)[1]
    assert after["latent"] < 0.9 * before["latent"]
    assert after["mask"] < 0.95 * before["mask"]
    assert after["instance"] < before["instance"]


def test_the_encoders_steps_leave_the_denoiser_as_it_is(prepared_folder: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, steps=22, encoder_steps=20)
    state = new_run(prepared_folder, tmp_path, options)
    before = copy.deepcopy(state.model.state_dict())
    parts = [state.train_step() for _ in range(20)]
    assert all(set(step) == {"instance", "naming", "motion", "duration"} for step in parts)
    assert np.mean([step["instance"] for step in parts[-5:]]) < np.mean([step["instance"] for step in parts[:5]])
    for key, value in state.model.denoiser.state_dict().items():
        assert torch.equal(value, before[f"denoiser.{key}"]), key
    assert "latent" in state.train_step()
    assert not torch.equal(state.model.denoiser.conv_out.weight, before["denoiser.conv_out.weight"])


# --- runs


def test_two_steps_run_and_leave_state_and_log(prepared_folder: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, steps=2)
    run(0, SmallLaunch(prepared_folder, tmp_path, options, workers=1, save_every=1))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2
    (row,) = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert (row["step"], row["samples"]) == ("2", "8")
    assert float(row["latent"]) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "state.pt"]


def test_an_interrupted_run_ends_with_the_same_weights(prepared_folder: Path, tmp_path: Path) -> None:
    whole = new_run(prepared_folder, tmp_path / "whole")
    for _ in range(4):
        whole.train_step()
    first = new_run(prepared_folder, tmp_path / "interrupted")
    for _ in range(2):
        first.train_step()
    first.save()
    first.train_step()  # killed before this was saved
    second = new_run(prepared_folder, tmp_path / "interrupted")
    assert second.step == 2
    for _ in range(2):
        second.train_step()
    assert_same_state(whole, second)


def test_a_finished_run_is_not_trained_further(prepared_folder: Path, tmp_path: Path) -> None:
    launch = SmallLaunch(prepared_folder, tmp_path, dataclasses.replace(OPTIONS, steps=1), workers=1, save_every=1)
    run(0, launch)
    before = (tmp_path / "state.pt").read_bytes()
    run(0, launch)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_another_seed_gives_other_weights(prepared_folder: Path, tmp_path: Path) -> None:
    first = new_run(prepared_folder, tmp_path / "0")
    second = new_run(prepared_folder, tmp_path / "1", dataclasses.replace(OPTIONS, seed=1))
    assert not torch.equal(first.model.denoiser.conv_in.weight, second.model.denoiser.conv_in.weight)


def test_the_average_follows_the_weights(prepared_folder: Path, tmp_path: Path) -> None:
    """Its decay is (n + 1) / (n + 10) at first: 0.1, then 2/11."""
    state = new_run(prepared_folder, tmp_path)
    weights = [copy.deepcopy(state.model.state_dict())]
    for _ in range(2):
        state.train_step()
        weights.append(copy.deepcopy(state.model.state_dict()))
    for key, value in state.average.state_dict().items():
        after_first = 0.1 * weights[0][key] + 0.9 * weights[1][key]
        expected = 2 / 11 * after_first + 9 / 11 * weights[2][key]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-7)


def test_a_run_begins_with_the_averaged_weights_of_another(prepared_folder: Path, tmp_path: Path) -> None:
    first = new_run(prepared_folder, tmp_path / "first")
    first.train_step()
    first.save()
    second = new_run(
        prepared_folder, tmp_path / "second", dataclasses.replace(OPTIONS, start_from=str(tmp_path / "first"))
    )
    assert second.step == 0
    for kept in (second.model, second.average):
        assert all(torch.equal(first.average.state_dict()[key], value) for key, value in kept.state_dict().items())
    trained = {key: value.clone() for key, value in second.model.state_dict().items()}
    second.train_step()
    second.save()
    again = new_run(prepared_folder, tmp_path / "second", second.options)
    assert again.step == 1  # continues, and does not begin once more
    assert not torch.equal(again.model.denoiser.conv_in.weight, trained["denoiser.conv_in.weight"])


def test_a_run_begins_with_a_checkpoint_folder(tiny_checkpoint: Path, prepared_folder: Path) -> None:
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    vocabulary = list(pipeline.scene_encoder.config["vocabulary"])
    latents = pipeline.denoiser.config["latent_channels"]
    model = SmallModel(vocabulary, latents, dataclasses.replace(OPTIONS, channels=pipeline.denoiser.config["channels"]))
    assert start_from(model, tiny_checkpoint) == []
    assert torch.equal(model.denoiser.conv_in.weight, pipeline.denoiser.conv_in.weight)
    assert torch.equal(model.scene_encoder.moving.weight, pipeline.scene_encoder.moving.weight)
    fewer_words = SmallModel(vocabulary[:-1], latents, dataclasses.replace(OPTIONS, channels=(32, 64)))
    with pytest.raises(ValueError, match=r"\d+ do not fit, \S+ the first; .*--keep-codec"):
        start_from(fewer_words, tiny_checkpoint)
    with pytest.raises(ValueError, match="found neither"):
        start_from(model, prepared_folder)


def test_too_few_samples_for_a_batch_are_refused(prepared_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 64 samples, one batch, got 12"):
        new_run(prepared_folder, tmp_path, SmallTraining(steps=1))


# --- several processes


class GradientsTakenError(Exception):
    """Stops a step where processes would exchange their gradients."""


def gradients_of_process(data: Path, out: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    def take(*_: object) -> None:
        raise GradientsTakenError

    monkeypatch.setattr(loop, "average_gradients", take)
    state = new_run(data, out, rank=rank, world=2)
    with pytest.raises(GradientsTakenError):
        state.train_step()
    return [parameter.grad.clone() for parameter in state.model.parameters() if parameter.grad is not None]


@pytest.mark.slow
def test_two_processes_take_one_step_with_their_mean_gradient(
    prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "two"
    out.mkdir()
    options = dataclasses.replace(OPTIONS, steps=1)
    launch = SmallLaunch(prepared_folder, out, options, workers=2, save_every=1)
    torch.multiprocessing.start_processes(run, args=(launch,), nprocs=2, start_method="spawn")
    found = torch.load(out / "state.pt", weights_only=True)["model"]

    first, second = (gradients_of_process(prepared_folder, tmp_path / str(r), r, monkeypatch) for r in (0, 1))
    assert not torch.equal(first[0], second[0])  # other samples
    reference = new_run(prepared_folder, tmp_path / "one")
    parameters = list(reference.model.parameters())
    for parameter, one, other in zip(parameters, first, second, strict=True):
        parameter.grad = (one + other) / 2
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in reference.optimizer.param_groups:
        group["lr"] = learning_rate(0, options)
    reference.optimizer.step()
    for key, value in reference.model.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


def test_the_two_processes_share_one_batch_without_overlap() -> None:
    whole = batch_indices(12, 0, OPTIONS)
    parts = [whole[rank::2] for rank in (0, 1)]
    assert sorted(np.concatenate(parts)) == sorted(whole)


def test_the_model_is_scene_encoder_and_denoiser() -> None:
    model = SmallModel(["a"], 30, OPTIONS)
    assert {key.split(".")[0] for key in model.state_dict()} == {"scene_encoder", "denoiser"}
    assert model.denoiser.config["condition_channels"] == 29 + model.scene_encoder.config["written_channels"] + 30


# --- ablations


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_error_is_that_of_what_is_predicted(prepared_folder: Path, tmp_path: Path, prediction: str) -> None:
    """An untrained model says zero, so its error is the weighted power of the target."""
    state = new_run(prepared_folder, tmp_path, dataclasses.replace(OPTIONS, prediction=prediction))
    batch, _ = batch_of(prepared_folder)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(batch.latents.shape, generator=generator)
    timesteps = torch.randint(0, 1000, (len(batch.latents),), generator=generator)
    angle = torch.acos(state.alphas_cumprod[timesteps].sqrt())[:, None, None, None]
    target = {
        "sample": batch.latents,
        "epsilon": noise,
        "v": angle.cos() * noise - angle.sin() * batch.latents,
        "flow": noise - batch.latents,
    }[prediction]
    power = (squared_error(target.movedim(1, -1), state.weighing) * batch.weights[:, 0]).mean()
    assert loss_of(state, batch)[1]["latent"] == pytest.approx(float(power), rel=1e-4)
    assert state.model.denoiser.config["prediction"] == prediction


def test_a_blind_run_has_a_blind_encoder(prepared_folder: Path, tmp_path: Path) -> None:
    state = new_run(prepared_folder, tmp_path, dataclasses.replace(OPTIONS, blind_to=("points",)))
    batch, _ = batch_of(prepared_folder)
    assert not state.model.scene_encoder(batch.conditioning).maps[:, 15:19].any()


def test_a_run_that_expects_turns_learns_them(prepared_folder: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, expects_turns=True, steps=60, encoder_steps=60, learning_rate=3e-3)
    state = new_run(prepared_folder, tmp_path, options)
    drawn = draw_step(state.split, options, 0, rank=0, world=1)
    losses = [float(state.train_step(drawn)["expected_turn"]) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    batch, _ = batch_of(prepared_folder)
    assert {"expected_turn", "turning"} & set(loss_of(state, batch)[1]) == {"expected_turn"}
    assert "expected_turn" not in loss_of(new_run(prepared_folder, tmp_path / "plain"), batch)[1]


def test_a_run_whose_errors_count_by_length_learns(prepared_folder: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, by_length=True, steps=60, encoder_steps=20, learning_rate=3e-3)
    state = new_run(prepared_folder, tmp_path, options)
    batch, _ = batch_of(prepared_folder)
    squared = loss_of(new_run(prepared_folder, tmp_path / "squared"), batch)[1]
    before = loss_of(state, batch)[1]
    assert before["motion"] != pytest.approx(float(squared["motion"]), rel=0.05)
    assert before["latent"] != pytest.approx(float(squared["latent"]), rel=0.05)
    drawn = draw_step(state.split, options, 0, rank=0, world=1)
    losses = [state.train_step(drawn) for _ in range(60)]
    assert float(losses[-1]["motion"]) < 0.7 * float(losses[0]["motion"])
    assert float(losses[-1]["latent"]) < 0.9 * float(losses[20]["latent"])


@pytest.mark.parametrize("encoder_steps", [0, 4], ids=["whole", "encoder"])
def test_what_is_dropped_depends_on_the_step_alone(encoder_steps: int, prepared_folder: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, encoder_steps=encoder_steps, dropout=0.3)
    through = new_run(prepared_folder, tmp_path / "through", options)
    for _ in range(4):
        through.train_step()
    begun = new_run(prepared_folder, tmp_path / "interrupted", options)
    for _ in range(2):
        begun.train_step()
    begun.save()
    torch.randn(7)  # another process has drawn other numbers
    resumed = new_run(prepared_folder, tmp_path / "interrupted", options)
    for _ in range(2):
        resumed.train_step()
    assert_same_state(through, resumed)
    without = new_run(prepared_folder, tmp_path / "without", dataclasses.replace(options, dropout=0.0))
    for _ in range(4):
        without.train_step()
    name = "scene_encoder.motion.weight"
    assert not torch.equal(through.model.state_dict()[name], without.model.state_dict()[name])


def test_nothing_is_dropped_from_the_averaged_weights(prepared_folder: Path, tmp_path: Path) -> None:
    made = new_run(prepared_folder, tmp_path / "run", dataclasses.replace(OPTIONS, dropout=0.5))
    drawn = draw_step(made.split, made.options, 0, rank=0, world=1)
    with torch.no_grad():
        losses = [float(made.loss(made.average, drawn)[0]) for _ in range(2)]
    assert losses[0] == losses[1]


def test_a_run_that_grows_reads_what_came_later(prepared_folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(prepared_folder, tmp_path / "prepared"))
    growing = new_run(data, tmp_path / "run", dataclasses.replace(OPTIONS, grows=True))
    count = len(growing.split)
    ahead = StepsAhead(growing.split, growing.options, range(30), rank=0, world=1)
    assert len(ahead[0].scenes.scale_m) == OPTIONS.batch_size
    shutil.copytree(data / "train", data / LATER / "00001")
    drawn = [ahead[step] for step in range(30)]
    assert len(growing.split) == 2 * count
    assert all(len(step.scenes.scale_m) == OPTIONS.batch_size for step in drawn)
    shutil.copytree(data / "train", data / LATER / "00002")
    growing.train_step()  # without loaders
    assert len(growing.split) == 3 * count
