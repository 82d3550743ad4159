"""The MoMap VAE learns, measures its latents, and leaves a checkpoint that full training takes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.data.sample import write_shard
from momap_ros.data.shard_index import ShardIndex
from momap_ros.model.checkpoint import read_info
from momap_ros.model.full_checkpoint import load_full
from momap_ros.model.momap_vae import encode_momaps
from momap_ros.training.dense import EXACT, DenseBatch, collate, dense_sample
from momap_ros.training.dense_loop import DenseLaunch, start
from momap_ros.training.vae import VaeObjective, VaeTraining, measure_latents, vae_loss

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

OPTIONS = VaeTraining(steps=12, batch_size=2, learning_rate=3e-3, warmup_steps=2, ema_decay=0.5)


@pytest.fixture(scope="module")
def shards(simulated: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "train-0000000-0000004.tar", simulated[:4])
    return folder


def batch_of(shards: Path, count: int = 2) -> DenseBatch:
    index = ShardIndex(shards, "train")
    return collate([dense_sample(index[n], 64, EXACT, np.random.default_rng(n)) for n in range(count)])


class Perfect:
    """A network that returns what it is given, from latents of unit Gaussians."""

    def __init__(self, offset: torch.Tensor | float = 0.0) -> None:
        self.offset = offset

    def encode(self, images: torch.Tensor) -> object:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
        from diffusers.models.modeling_outputs import AutoencoderKLOutput

        self.images = images
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(torch.zeros(len(images), 64, 8, 8)))

    def decode(self, _: torch.Tensor) -> object:
        from diffusers.models.autoencoders.vae import DecoderOutput

        return DecoderOutput(sample=self.images + self.offset)


def test_a_loss_is_computed_where_the_network_is(tiny_full_checkpoint: Path, shards: Path, tmp_path: Path) -> None:
    """On torch's device without memory, which refuses to mix with others like a GPU does."""
    objective = VaeObjective(DenseLaunch(tiny_full_checkpoint, shards, "train", tmp_path), OPTIONS, "meta")
    loss, parts = objective.loss(batch_of(shards).to("meta"))
    loss.backward()
    assert {value.device.type for value in parts.values()} == {"meta"}
    assert all(parameter.grad is not None for parameter in objective.model.parameters())


def test_a_perfect_reconstruction_costs_nothing(shards: Path) -> None:
    batch = batch_of(shards)
    loss, parts = vae_loss(Perfect(), batch, OPTIONS)
    assert float(loss) == 0
    assert set(parts) == {"loss", "position", "motion", "divergence", "moving_mm"}
    assert float(parts["moving_mm"]) == 0


def test_a_shift_costs_positions_but_no_displacement(shards: Path) -> None:
    loss, parts = vae_loss(Perfect(0.25), batch_of(shards), OPTIONS)
    assert float(parts["position"]) == pytest.approx(0.25, rel=1e-4)
    assert float(parts["motion"]) == pytest.approx(0, abs=1e-6)
    assert float(loss) == pytest.approx(0.25, rel=1e-4)


def test_a_wrong_step_costs_millimetres_of_what_moves(shards: Path) -> None:
    """Step 10 of 50 is wrong by 0.1 scales along x everywhere."""
    batch = batch_of(shards, 1)
    offset = torch.zeros(150, 1, 1)
    offset[30] = 0.1
    _, parts = vae_loss(Perfect(offset), batch, OPTIONS)
    assert float(parts["moving_mm"]) == pytest.approx(1e3 * 0.1 * float(batch.scale_m[0]) / 50, rel=1e-3)
    assert float(parts["motion"]) == pytest.approx(0.1 / 150, rel=1e-3)


def test_pixels_that_move_weigh_more_and_those_without_depth_nothing(shards: Path) -> None:
    batch = batch_of(shards, 1)
    moving = (batch.moving * batch.valid)[0, 0].bool()
    rest = ~moving & batch.valid[0, 0].bool()
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[0, :20] = True
    batch = replace(batch, valid=batch.valid * ~hole)
    costs = []
    for pixels in (moving & ~hole, rest & ~hole, hole):
        offset = torch.zeros(1, 1, 64, 64)
        offset[0, 0, pixels] = 1.0
        costs.append(float(vae_loss(Perfect(offset), batch, OPTIONS)[1]["position"]) / max(int(pixels.sum()), 1))
    assert costs[0] == pytest.approx(5 * costs[1], rel=1e-3)
    assert costs[2] == 0


def test_latents_are_measured_over_the_samples(tiny_full_checkpoint: Path, shards: Path) -> None:
    _, pipeline, _ = load_full(tiny_full_checkpoint)
    index = ShardIndex(shards, "train")
    assert measure_latents(pipeline.momap_vae, index, 64, samples=100, seed=0, progress=False) == 4
    with torch.no_grad():
        latents = encode_momaps(pipeline.momap_vae, batch_of(shards, 4).momaps)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(32), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3), correction=0), torch.ones(32), rtol=1e-2, atol=1e-2)


def test_a_run_learns_and_leaves_a_checkpoint(tiny_full_checkpoint: Path, shards: Path, tmp_path: Path) -> None:
    launch = DenseLaunch(tiny_full_checkpoint, shards, "train", tmp_path, save_every=5, log_every=4)
    start(launch, OPTIONS, VaeObjective)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert float(rows[-1]["loss"]) < 0.9 * float(rows[0]["loss"])
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 12

    info = read_info(tmp_path / "checkpoint")
    assert info["latent_samples"] == 4
    assert info["training"]["vae"]["samples_seen"] == 24
    _, before, _ = load_full(tiny_full_checkpoint)
    _, after, _ = load_full(tmp_path / "checkpoint")
    batch = batch_of(shards, 4)
    with torch.no_grad():
        first, second = (vae_loss(p.momap_vae, batch, OPTIONS)[1]["loss"] for p in (before, after))
        latents = encode_momaps(after.momap_vae, batch.momaps)
    assert second < 0.9 * first
    torch.testing.assert_close(latents.std(dim=(0, 2, 3), correction=0), torch.ones(32), rtol=1e-2, atol=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before.vae.parameters(), after.vae.parameters(), strict=True))


def test_no_steps_measure_alone(tiny_full_checkpoint: Path, shards: Path, tmp_path: Path) -> None:
    launch = DenseLaunch(tiny_full_checkpoint, shards, "train", tmp_path)
    start(launch, replace(OPTIONS, steps=0), VaeObjective)
    _, before, _ = load_full(tiny_full_checkpoint)
    _, after, info = load_full(tmp_path / "checkpoint")
    assert info["latent_samples"] == 4
    pairs = zip(before.momap_vae.parameters(), after.momap_vae.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert after.momap_vae.config["latents_std"] != before.momap_vae.config["latents_std"]
