from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from momap_ros.data.prepared import PreparedSplit
from momap_ros.model.checkpoint import read_info, write_info
from momap_ros.model.codec import load_codec
from momap_ros.model.execution import made_up_scene
from momap_ros.model.noise import NoiseShares
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.schedule import shifted_cosine_scheduler
from momap_ros.training import distill
from momap_ros.training.distill import Distillation, Run, distillation_loss, lesson
from momap_ros.training.small import SmallModel
from momap_ros.training.steps import draw_step

OPTIONS = Distillation(
    steps=20, batch_size=4, warmup_steps=2, learning_rate=1e-3, channels=(32, 64), noise_shares=(0.0, 0.0, 1.0)
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that sums are taken in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def teacher(prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model with random weights, with codec and words of the prepared samples."""
    codec = load_codec(prepared_folder / "codec")
    torch.manual_seed(0)
    model = SmallModel(json.loads((prepared_folder / "vocabulary.json").read_text()), codec.latent_channels, OPTIONS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    pipeline = MoMapPipeline(model.scene_encoder, model.denoiser, codec, shifted_cosine_scheduler(OPTIONS.shift))
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    pipeline.save_pretrained(folder)
    write_info(folder, codec.num_steps, {"steps_done": 7})
    return folder


def new_run(teacher: Path, data: Path, out: Path, options: Distillation = OPTIONS) -> Run:
    out.mkdir(exist_ok=True)
    return Run(str(teacher), data, out, options)


def loss_of(run: Run, step: int = 0) -> float:
    drawn = draw_step(run.split, run.options, step, rank=0, world=1)
    batch = drawn.batch(run.teacher.codec, run.device)
    loss, _ = distillation_loss(
        run.model,
        run.teacher,
        batch,
        noise=drawn.noise(batch, NoiseShares(*run.options.noise_shares)),
        timesteps=drawn.timesteps,
        alphas_cumprod=run.alphas_cumprod,
        weighing=run.weighing,
        options=run.options,
    )
    return float(loss.detach())


# --- what is taught


@pytest.mark.parametrize(("segment", "teacher_steps", "student_steps"), [(0, 4, 2), (1, 4, 2), (0, 4, 1), (0, 2, 2)])
@torch.inference_mode()
def test_one_step_of_the_student_ends_where_the_teachers_do(
    tiny_checkpoint: Path, segment: int, teacher_steps: int, student_steps: int
) -> None:
    """Both ways by the checkpoint's own scheduler."""
    teacher = MoMapPipeline.from_pretrained(tiny_checkpoint)
    options = replace(OPTIONS, teacher_steps=teacher_steps, student_steps=student_steps)
    scene = teacher.encode_scene(made_up_scene(teacher)).repeat(2)
    noisy = torch.randn((2, 30, 32, 32), generator=torch.Generator().manual_seed(0))
    begins = teacher.timesteps(student_steps)[segment]

    each = teacher_steps // student_steps
    latents = moving_logits = noisy
    for timestep in teacher.timesteps(teacher_steps)[segment * each : (segment + 1) * each]:
        clean, moving_logits = teacher.denoiser(latents, timestep.expand(2), scene)
        latents = teacher.scheduler.step(clean, timestep, latents).prev_sample

    alphas_cumprod = teacher.scheduler.alphas_cumprod
    wanted, logits = lesson(
        teacher.denoiser, scene, noisy, begins.expand(2), alphas_cumprod=alphas_cumprod, options=options
    )
    teacher.timesteps(student_steps)
    landed = teacher.scheduler.step(wanted, begins, noisy).prev_sample
    torch.testing.assert_close(landed, latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, moving_logits, rtol=1e-4, atol=1e-4)


def test_a_teacher_that_needs_one_step_leaves_nothing_to_learn(
    teacher: Path, prepared_folder: Path, tmp_path: Path
) -> None:
    """Its prediction is the same at every noise level; then so is what four of its steps end with."""
    run = new_run(teacher, prepared_folder, tmp_path)
    with torch.no_grad():
        for denoiser in (run.model, run.teacher.denoiser):
            denoiser.conv_out.weight.zero_()
    assert loss_of(run) == 0.0


def test_a_student_of_as_many_steps_begins_with_nothing_to_learn(
    teacher: Path, prepared_folder: Path, tmp_path: Path
) -> None:
    run = new_run(teacher, prepared_folder, tmp_path, replace(OPTIONS, teacher_steps=1))
    assert loss_of(run) == 0.0


def test_steps_that_do_not_fit_are_refused() -> None:
    for teacher_steps, student_steps in ((3, 1), (4, 3)):
        with pytest.raises(ValueError, match=f"teacher's, got {teacher_steps} and {student_steps}"):
            replace(OPTIONS, teacher_steps=teacher_steps, student_steps=student_steps)


# --- runs


def test_the_student_learns_a_lesson_that_is_repeated(teacher: Path, prepared_folder: Path, tmp_path: Path) -> None:
    run = new_run(teacher, prepared_folder, tmp_path, replace(OPTIONS, learning_rate=4e-4))
    before, kept = loss_of(run), {k: v.clone() for k, v in run.teacher.denoiser.state_dict().items()}
    for _ in range(12):
        run.step = 0  # the same samples, faults and noise again
        run.train_step()
    assert loss_of(run) < 0.95 * before
    assert all(torch.equal(value, kept[key]) for key, value in run.teacher.denoiser.state_dict().items())


def test_an_interrupted_run_ends_with_the_same_weights(teacher: Path, prepared_folder: Path, tmp_path: Path) -> None:
    whole = new_run(teacher, prepared_folder, tmp_path / "whole")
    for _ in range(4):
        whole.train_step()
    first = new_run(teacher, prepared_folder, tmp_path / "interrupted")
    for _ in range(2):
        first.train_step()
    first.save()
    first.train_step()  # killed before this was saved
    second = new_run(teacher, prepared_folder, tmp_path / "interrupted")
    assert second.step == 2
    for _ in range(2):
        second.train_step()
    for name in ("model", "average"):
        one, other = getattr(whole, name).state_dict(), getattr(second, name).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_the_command_leaves_a_checkpoint(
    teacher: Path, prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--teacher", teacher, "--data", prepared_folder, "--out", tmp_path, "--steps", 2]
    monkeypatch.setattr(sys, "argv", ["distill", *map(str, arguments), "--batch-size", "4", "--student-steps", "2"])
    assert distill.main() == 0
    (row,) = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert (row["step"], row["samples"]) == ("2", "8")
    info = read_info(tmp_path / "checkpoint")
    assert info["num_inference_steps"] == 2
    assert info["training"]["steps_done"] == 2
    assert info["training"]["teacher"] == {"steps_done": 7}
    student, taught_by = (MoMapPipeline.from_pretrained(path) for path in (tmp_path / "checkpoint", teacher))
    average = torch.load(tmp_path / "state.pt", weights_only=True)["average"]
    for key, value in student.denoiser.state_dict().items():
        assert torch.equal(value, average[key].half().float()), key
    for key, value in student.scene_encoder.state_dict().items():
        assert torch.equal(value, taught_by.scene_encoder.state_dict()[key].half().float()), key
    assert torch.equal(student.scheduler.alphas_cumprod, taught_by.scheduler.alphas_cumprod)


def test_too_few_samples_are_refused(teacher: Path, prepared_folder: Path, tmp_path: Path) -> None:
    count = len(PreparedSplit.open(prepared_folder / "train"))
    with pytest.raises(ValueError, match=rf"expected at least {count + 1} samples, one batch, got {count}"):
        new_run(teacher, prepared_folder, tmp_path, replace(OPTIONS, batch_size=count + 1))


def test_teachers_of_another_kind_or_of_other_data_are_refused(
    tiny_checkpoint: Path, tiny_full_checkpoint: Path, prepared_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected a small model that predicts the clean sample, got another"):
        new_run(tiny_full_checkpoint, prepared_folder, tmp_path)
    with pytest.raises(ValueError, match="expected the teacher's own vocabulary and codec, got another"):
        new_run(tiny_checkpoint, prepared_folder, tmp_path)
