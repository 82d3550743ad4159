"""The checkpoint that is installed with the package, as users meet it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from momap_ros.evaluation.evaluate import frame_of, role_image, sampled_pixels
from momap_ros.evaluation.metrics import average_displacement_error
from momap_ros.model.checkpoint import BUNDLED, bundled_checkpoints, read_info
from momap_ros.model.pipeline import MoMapPipeline

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

if "small" not in bundled_checkpoints():
    pytest.skip("momap_ros/weights/small is not there yet", allow_module_level=True)

SMALL = BUNDLED / "small"


def test_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file()) < 30e6


def test_weights_are_stored_in_half_precision_and_the_codec_in_single() -> None:
    wanted = {"denoiser": torch.float16, "scene_encoder": torch.float16, "codec": torch.float32}
    for component, dtype in wanted.items():
        (path,) = (SMALL / component).glob("*.safetensors")
        weights = load_file(path)
        assert {value.dtype for value in weights.values()} == {dtype}
        assert all(value.isfinite().all() for value in weights.values())


def test_it_says_what_it_was_trained_on() -> None:
    training = read_info(SMALL)["training"]
    assert training["samples_seen"] > 100_000
    assert training["simulator"]["samples"] > 10_000


def test_forecasts_of_unseen_scenes_beat_a_world_at_rest(simulated: list[Sample]) -> None:
    """Best of ten over twelve validation scenes: the acted object's error falls by a quarter at least (ADE)."""
    from momap_ros.data.sample import Role

    pipeline = MoMapPipeline.from_pretrained("small")
    best, static = [], []
    for number, sample in enumerate(simulated):
        frame = frame_of(sample)
        pixels = sampled_pixels(role_image(sample) == Role.ACTED, np.random.default_rng(0))
        generator = torch.Generator().manual_seed(number)
        output = pipeline(frame, sample.instance_map(merge_robot=True), sample.text, generator=generator)
        assert output.num_hypotheses == 10
        assert output.ignored_words == ()
        truth = sample.momap().xyz[:, pixels[:, 1], pixels[:, 0]].transpose(1, 0, 2)
        still = np.repeat(truth[None, :, :1], truth.shape[1], axis=2)
        best.append(average_displacement_error(output.trajectories(pixels).positions, truth).min())
        static.append(average_displacement_error(still, truth)[0])
        assert 0.3 < output.step_s / sample.step_s < 3
    assert sum(best) < 0.75 * sum(static)
