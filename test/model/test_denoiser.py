from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.conditioning import CONDITION_CHANNELS, GRID, MAX_INSTANCES, MAX_WORDS
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import SceneEncoding
from momap_ros.training.small import SmallModel
from momap_ros.training.steps import SmallTraining

LATENTS = 30
LENGTH = 1 + MAX_WORDS + MAX_INSTANCES


@pytest.fixture(scope="module")
def denoiser(tiny_checkpoint: Path) -> SmallDenoiser:
    loaded: SmallDenoiser = MoMapPipeline.from_pretrained(tiny_checkpoint).denoiser
    return loaded


def scene(batch: int = 2) -> SceneEncoding:
    """Random encodings whose last twelve context tokens are padding."""
    generator = torch.Generator().manual_seed(1)
    bias = torch.zeros(batch, LENGTH)
    bias[:, -12:] = -1e4
    return SceneEncoding(
        torch.randn((batch, CONDITION_CHANNELS + 16 + LATENTS, GRID, GRID), generator=generator),
        torch.randn((batch, LENGTH, 128), generator=generator),
        bias,
        torch.randn((batch, 128), generator=generator),
        torch.zeros(batch, MAX_INSTANCES),
        torch.zeros(batch, MAX_INSTANCES, LATENTS),
        torch.zeros(batch, MAX_INSTANCES, MAX_INSTANCES, LATENTS // 3),
        torch.zeros(batch, MAX_INSTANCES, 1),
        torch.zeros(batch),
    )


def noise(batch: int = 2) -> torch.Tensor:
    return torch.randn((batch, LATENTS, GRID, GRID), generator=torch.Generator().manual_seed(2))


TIMES = torch.tensor([999, 250])


@torch.inference_mode()
def test_an_untrained_model_predicts_no_motion() -> None:
    denoiser = SmallModel(["block"], LATENTS, SmallTraining(steps=1, channels=(32, 64))).denoiser
    clean, moving_logits = denoiser(noise(), TIMES, scene())
    assert clean.shape == (2, LATENTS, GRID, GRID)
    assert moving_logits.shape == (2, GRID, GRID)
    assert not clean.any()
    assert not moving_logits.any()


@torch.inference_mode()
def test_a_batch_equals_its_scenes_one_by_one(denoiser: SmallDenoiser) -> None:
    clean, moving_logits = denoiser(noise(), TIMES, scene())
    both = scene()
    for row in range(2):
        one = SceneEncoding(*(getattr(both, name)[row : row + 1] for name in SceneEncoding.__dataclass_fields__))
        alone, alone_logits = denoiser(noise()[row : row + 1], TIMES[row : row + 1], one)
        torch.testing.assert_close(clean[row : row + 1], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(moving_logits[row : row + 1], alone_logits, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_padding_tokens_do_not_matter(denoiser: SmallDenoiser) -> None:
    first, second = scene(), scene()
    second.context[:, -12:] = 5.0
    torch.testing.assert_close(denoiser(noise(), TIMES, first)[0], denoiser(noise(), TIMES, second)[0])


@torch.inference_mode()
def test_the_order_of_context_tokens_does_not_matter(denoiser: SmallDenoiser) -> None:
    first, second = scene(), scene()
    order = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(0))
    second.context.copy_(first.context[:, order])
    second.context_bias.copy_(first.context_bias[:, order])
    torch.testing.assert_close(
        denoiser(noise(), TIMES, first)[0], denoiser(noise(), TIMES, second)[0], rtol=1e-4, atol=1e-4
    )


@torch.inference_mode()
@pytest.mark.parametrize("part", ["maps", "context", "summary"])
def test_every_part_of_the_scene_is_read(denoiser: SmallDenoiser, part: str) -> None:
    changed = scene()
    getattr(changed, part)[:, 0] += 3.0
    clean = denoiser(noise(), TIMES, scene())[0]
    assert not torch.allclose(denoiser(noise(), TIMES, changed)[0], clean, atol=1e-3)


@torch.inference_mode()
def test_noise_and_time_are_read(denoiser: SmallDenoiser) -> None:
    clean = denoiser(noise(), TIMES, scene())[0]
    assert not torch.allclose(denoiser(noise() + 1, TIMES, scene())[0], clean, atol=1e-3)
    assert not torch.allclose(denoiser(noise(), TIMES - 100, scene())[0], clean, atol=1e-3)


def test_the_shipped_size_is_small_enough() -> None:
    model = SmallModel([f"word{n}" for n in range(200)], LATENTS, SmallTraining(steps=1))
    parameters = sum(np.prod(parameter.shape) for parameter in model.parameters())
    assert 2 * parameters < 30e6  # bytes in half precision
