from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from momap_ros.baselines.checkpoint import Baseline, Widths
from momap_ros.baselines.conditional_vae import (
    CODE_CHANNELS,
    CODE_GRID,
    CodeDecoder,
    ConditionalVAE,
    LossWeights,
    training_loss,
)
from momap_ros.data.prepared import PreparedSplit
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.training.batches import Batch, complete
from momap_ros.training.scenes import TRAINING, draw_scenes

HEADS = LossWeights()
ONES = torch.eye(30)


@pytest.fixture(scope="module")
def codec(prepared_folder: Path) -> TemporalBasisCodec:
    loaded: TemporalBasisCodec = TemporalBasisCodec.from_pretrained(
        prepared_folder / "codec", local_files_only=True, low_cpu_mem_usage=False
    )
    return loaded


@pytest.fixture(scope="module")
def batch(prepared_folder: Path, codec: TemporalBasisCodec) -> Batch:
    split = PreparedSplit.open(prepared_folder / "train")
    return complete(draw_scenes(split, np.arange(6), drops=TRAINING, rng=np.random.default_rng(0)), codec)


def new_model(codec: TemporalBasisCodec) -> ConditionalVAE:
    torch.manual_seed(0)
    model = Baseline.new("momap-vae", ["red"] * 400, codec, Widths(channels=(32, 64))).model
    assert isinstance(model, ConditionalVAE)
    return model


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, CODE_CHANNELS, CODE_GRID, CODE_GRID, generator=torch.Generator().manual_seed(seed))


def test_an_untrained_model_predicts_rest_and_diverges_by_nothing(codec: TemporalBasisCodec, batch: Batch) -> None:
    _, parts = training_loss(new_model(codec), batch, noise=noise(), weighing=ONES, kl_weight=1e-3, weights=HEADS)
    assert float(parts["latent"].detach()) == pytest.approx(float((batch.latents**2 * batch.weights).mean()), rel=1e-4)
    assert float(parts["kl"].detach()) == 0


def test_one_batch_is_learned_better_than_rest_and_its_futures_differ(codec: TemporalBasisCodec, batch: Batch) -> None:
    """Predicting that nothing moves costs the power of the latents: half of it must be explained."""
    model = new_model(codec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = copy.deepcopy(model.state_dict())
    parts: dict[str, torch.Tensor] = {}
    for step in range(25):
        loss, parts = training_loss(model, batch, noise=noise(step), weighing=ONES, kl_weight=1e-3, weights=HEADS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(parts["latent"].detach()) < 0.5 * float((batch.latents**2 * batch.weights).mean())
    assert float(parts["kl"].detach()) > 0
    same = [key for key, value in model.state_dict().items() if torch.equal(value, before[key])]
    assert all(key.startswith("scene_encoder.words") or "time.0.weight" in key for key in same), same
    with torch.no_grad():
        scene = model.scene_encoder(batch.conditioning)
        first, second = (model.decoder.decode(noise(seed), scene)[0] for seed in (1, 2))
    assert not torch.allclose(first, second)


def test_the_divergence_is_that_of_two_normal_distributions(codec: TemporalBasisCodec, batch: Batch) -> None:
    model = new_model(codec)
    with torch.no_grad():
        model.posterior.conv_out.weight.normal_(std=0.3)
        with torch.autocast("cpu", torch.bfloat16):
            scene = model.scene_encoder(batch.conditioning)
            mean, log_variance = model.posterior(batch.latents, scene)
        _, parts = training_loss(model, batch, noise=noise(), weighing=ONES, kl_weight=1e-3, weights=HEADS)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2, 3)).mean()
    assert float(parts["kl"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(expected) > 1


def test_the_code_is_a_part_of_the_pipelines_noise() -> None:
    white = torch.arange(30 * 1024.0).reshape(1, 30, 32, 32)
    code = CodeDecoder.code_of_noise(white)
    assert code.shape == (1, CODE_CHANNELS, CODE_GRID, CODE_GRID)
    assert len(code.unique()) == code.numel()  # as independent as the noise
