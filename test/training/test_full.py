"""The U-Net learns to draw latents; the result is a checkpoint that forecasts."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.data.sample import write_shard
from momap_ros.data.shard_index import ShardIndex
from momap_ros.model.checkpoint import CheckpointError, read_info
from momap_ros.model.full_checkpoint import load_full, replace_parts
from momap_ros.model.full_pipeline import FullMoMapPipeline, encode_conditions
from momap_ros.model.momap_vae import encode_momaps
from momap_ros.rgbd import RGBDFrame
from momap_ros.training.dense import EXACT, DenseBatch, collate, dense_sample
from momap_ros.training.dense_loop import DenseLaunch, start
from momap_ros.training.full import FullModel, FullObjective, FullTraining, conditions_of, full_loss
from momap_ros.training.vae import measure_latents

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

OPTIONS = FullTraining(steps=16, batch_size=4, learning_rate=5e-3, warmup_steps=2, ema_decay=0.5)


@pytest.fixture(scope="module")
def shards(simulated: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "train-0000000-0000004.tar", simulated[:4])
    return folder


@pytest.fixture(scope="module")
def measured(tiny_full_checkpoint: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with measured latents."""
    folder = tmp_path_factory.mktemp("measured") / "full"
    _, pipeline, _ = load_full(tiny_full_checkpoint)
    count = measure_latents(pipeline.momap_vae, ShardIndex(shards, "train"), 64, samples=4, seed=0, progress=False)
    parts = {"momap_vae": pipeline.momap_vae}
    replace_parts(tiny_full_checkpoint, folder, parts, {"latent_samples": count})
    return folder


def pipeline_of(folder: Path) -> FullMoMapPipeline:
    return load_full(folder)[1]


def batch_of(shards: Path, count: int = 4) -> DenseBatch:
    index = ShardIndex(shards, "train")
    return collate([dense_sample(index[n], 64, EXACT, np.random.default_rng(n)) for n in range(count)])


def test_the_loss_is_the_weighted_error_of_the_velocity(measured: Path, shards: Path) -> None:
    """A U-Net whose outputs are all zero leaves the velocity's own square: v = sqrt(a) e - sqrt(1 - a) x."""
    pipeline, batch = pipeline_of(measured), batch_of(shards)
    with torch.no_grad():
        pipeline.unet.conv_out.weight.zero_()
        pipeline.unet.conv_out.bias.zero_()
        latents = encode_momaps(pipeline.momap_vae, batch.momaps)
    loss, parts = full_loss(FullModel(pipeline), pipeline, batch, OPTIONS)
    alpha = pipeline.scheduler.alphas_cumprod[batch.timesteps(1000)][:, None, None, None]
    velocity = alpha.sqrt() * batch.noise(32, 8, 8) - (1 - alpha).sqrt() * latents
    moving = batch.moving.unflatten(2, (8, 8)).unflatten(4, (8, 8)).amax(dim=(3, 5))
    weight = 1 + OPTIONS.moving_weight * moving
    expected = float(((velocity.square() * weight).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3))).mean())
    assert float(parts["denoising"]) == pytest.approx(expected, rel=1e-4)
    seconds = torch.tensor(2.0).log() - batch.log_duration  # the head begins at two seconds
    assert float(parts["duration"]) == pytest.approx(float(seconds.abs().mean()), rel=1e-4)
    assert float(loss.detach()) == pytest.approx(float(parts["denoising"] + 0.05 * parts["duration"]), rel=1e-5)


def test_a_loss_is_computed_where_the_model_is(
    measured: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's device without memory, which refuses to mix with others like a GPU does."""
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())  # it does not know that device
    objective = FullObjective(DenseLaunch(measured, shards, "train", tmp_path), OPTIONS, "meta")
    loss, parts = objective.loss(batch_of(shards).to("meta"))
    loss.backward()
    assert {value.device.type for value in parts.values()} == {"meta"}
    assert all(parameter.grad is not None for parameter in objective.model.parameters())


def test_conditions_are_encoded_as_in_the_pipeline(measured: Path, simulated: list[Sample], shards: Path) -> None:
    pipeline, sample = pipeline_of(measured), simulated[0]
    batch = dense_sample(ShardIndex(shards, "train")[0], 64, EXACT, np.random.default_rng(0))
    told = conditions_of(pipeline, batch)
    # Colour and points as the pipeline encodes them; the instances' random colours differ.
    from momap_ros.model.dense_scene import dense_scene

    scene = dense_scene(RGBDFrame(sample.rgb, sample.depth_m, sample.camera), sample.instance_map(merge_robot=True), 64)
    drawn = pipeline._conditions(scene, {}, 0)
    assert told.shape == drawn.shape == (1, 12, 8, 8)
    torch.testing.assert_close(told[:, :4], drawn[:, :4], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(told[:, 8:], drawn[:, 8:], rtol=1e-3, atol=1e-2)  # depth is stored in 0.1 mm
    # Four latents of the frozen image VAE per image, times its scale.
    with torch.no_grad():
        alone = pipeline.vae.encode(batch.images[:, 2]).latent_dist.mode() * 0.18215
    torch.testing.assert_close(told[:, 8:], alone, rtol=1e-4, atol=1e-5)


def test_a_dropped_condition_is_zero(measured: Path, shards: Path) -> None:
    pipeline, batch = pipeline_of(measured), batch_of(shards, 2)
    kept = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    told, whole = conditions_of(pipeline, replace(batch, kept=kept)), encode_conditions(pipeline.vae, batch.images)
    for row in range(2):
        for image in range(3):
            channels = slice(4 * image, 4 * image + 4)
            assert torch.equal(told[row, channels], whole[row, channels] * kept[row, image])


def test_only_the_u_net_and_the_head_are_trained(measured: Path, shards: Path, tmp_path: Path) -> None:
    launch = DenseLaunch(measured, shards, "train", tmp_path, checkpointing=True)
    objective = FullObjective(launch, OPTIONS, "cpu")
    names = {name.split(".")[0] for name, _ in objective.model.named_parameters()}
    assert names == {"unet", "duration_head"}
    loss, _ = objective.loss(batch_of(shards, 2))
    loss.backward()
    assert all(parameter.grad is not None for parameter in objective.pipeline.unet.parameters())
    frozen = (objective.pipeline.vae, objective.pipeline.momap_vae, objective.pipeline.text_encoder)
    assert all(parameter.grad is None for network in frozen for parameter in network.parameters())


def test_gradient_checkpointing_changes_no_gradient(measured: Path, shards: Path, tmp_path: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        launch = DenseLaunch(measured, shards, "train", tmp_path, checkpointing=checkpointing)
        objective = FullObjective(launch, OPTIONS, "cpu")
        objective.loss(batch_of(shards, 2))[0].backward()
        gradients.append([parameter.grad for parameter in objective.model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_a_run_learns_and_leaves_a_checkpoint_that_forecasts(
    measured: Path, shards: Path, simulated: list[Sample], tmp_path: Path
) -> None:
    launch = DenseLaunch(measured, shards, "train", tmp_path, save_every=8, log_every=8)
    start(launch, OPTIONS, FullObjective)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["8", "16"]
    info = read_info(tmp_path / "checkpoint")
    assert info["training"]["full"]["samples_seen"] == 64
    before, after = pipeline_of(measured), pipeline_of(tmp_path / "checkpoint")
    batch = replace(batch_of(shards), seeds=(11, 12, 13, 14))
    with torch.no_grad():
        first, second = (full_loss(FullModel(p), p, batch, OPTIONS)[1] for p in (before, after))
    assert second["denoising"] < 0.9 * first["denoising"]
    for name in ("vae", "momap_vae", "text_encoder"):
        pairs = zip(getattr(before, name).parameters(), getattr(after, name).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), name
    sample = simulated[0]
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
    output = after(frame, sample.instance_map(merge_robot=True), sample.text, num_hypotheses=2)
    assert np.isfinite(output.latents.numpy()).all()


def test_latents_that_were_never_measured_are_refused(tiny_full_checkpoint: Path, shards: Path, tmp_path: Path) -> None:
    launch = DenseLaunch(tiny_full_checkpoint, shards, "train", tmp_path)
    with pytest.raises(CheckpointError, match="run momap train vae first"):
        start(launch, OPTIONS, FullObjective)
