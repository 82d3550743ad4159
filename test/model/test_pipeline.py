from __future__ import annotations

import itertools
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.conditioning import GRID, MAX_INSTANCES
from momap_ros.instances import InstanceMap
from momap_ros.model.checkpoint import write_info
from momap_ros.model.noise import InstanceFrames, draw_noise
from momap_ros.model.pipeline import (
    ARTICULATION_RESIDUAL,
    FEW_STEPS,
    GOAL_SHARE,
    MIN_ARTICULATED_CELLS,
    MoMapPipeline,
    goals_of,
    moving_instances,
)
from momap_ros.model.prediction import PREDICTIONS, target_of
from momap_ros.model.warm_start import remaining_latents
from momap_ros.rgbd import FrameError, RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.model.output import MoMapOutput
    from momap_ros.model.scene_encoder import SceneEncoding


def scene_of(sample: Sample) -> tuple[RGBDFrame, InstanceMap]:
    return RGBDFrame(sample.rgb, sample.depth_m, sample.camera), sample.instance_map(merge_robot=True)


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> MoMapPipeline:
    return MoMapPipeline.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def scene(simulated: list[Sample]) -> tuple[RGBDFrame, InstanceMap]:
    """The scene with the most instances."""
    return scene_of(max(simulated, key=lambda sample: len(sample.instance_map(merge_robot=True).areas_px)))


@pytest.fixture
def constant(tiny_checkpoint: Path) -> tuple[MoMapPipeline, torch.Tensor]:
    """A pipeline that predicts the same latents (C,) in every cell, at every step, for a motion of two seconds."""
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    wanted = torch.randn(pipeline.codec.latent_channels, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        pipeline.denoiser.conv_out.weight.zero_()
        pipeline.denoiser.conv_out.bias[: 4 * len(wanted)] = wanted.repeat_interleave(4)
        pipeline.scene_encoder.duration.weight.zero_()
    return pipeline, wanted


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(pipeline: MoMapPipeline, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, pipeline.codec.latent_channels, 32, 32), generator=seeded(seed))


def foreground(instances: InstanceMap, stride: int = 7) -> np.ndarray:
    rows, columns = np.nonzero(instances.ids)
    return np.stack([columns, rows], axis=-1)[::stride].astype(np.int32)


def displacement(output: MoMapOutput, pixels: np.ndarray) -> np.ndarray:
    """(N, P, T, 3) metres."""
    positions = output.trajectories(pixels).positions
    return positions - positions[:, :, :1]


# --- metres in, metres out


def test_a_predicted_translation_arrives_in_metres(
    constant: tuple[MoMapPipeline, torch.Tensor], scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    pipeline, latents = constant
    output = pipeline(*scene, num_hypotheses=2)
    frame, instances = scene
    expected = pipeline.codec.decode(latents).numpy() * np.nanmedian(output.grid.points_in_camera[..., 2])
    moved = displacement(output, foreground(instances))
    np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=1e-4)
    assert np.linalg.norm(expected, axis=-1).max() > 0.1
    rows, columns = np.nonzero((instances.ids == 0) & frame.valid)
    background = displacement(output, np.stack([columns, rows], axis=-1).astype(np.int32))
    assert not background.any()
    assert output.step_s == pytest.approx(2.0 / 49)
    assert not output.articulated.any()


@pytest.mark.parametrize("num_inference_steps", [1, 3, 7, 50])
def test_the_result_is_the_last_prediction_without_noise(
    constant: tuple[MoMapPipeline, torch.Tensor], scene: tuple[RGBDFrame, InstanceMap], num_inference_steps: int
) -> None:
    pipeline, latents = constant
    output = pipeline(*scene, num_hypotheses=1, num_inference_steps=num_inference_steps)
    torch.testing.assert_close(output.latents, latents[None, :, None].expand(1, -1, 1024))


def test_a_scene_of_twice_the_size_moves_twice_as_far(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    frame, instances = scene
    doubled = RGBDFrame(frame.rgb, 2 * frame.depth_m, frame.camera)
    latents, pixels = noise(pipeline, 3), foreground(instances)
    once = displacement(pipeline(frame, instances, num_hypotheses=3, latents=latents), pixels)
    twice = displacement(pipeline(doubled, instances, num_hypotheses=3, latents=latents), pixels)
    assert np.linalg.norm(once, axis=-1).max() > 0.1
    np.testing.assert_allclose(twice, 2 * once, atol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (640, 480)])
def test_the_size_of_the_image_hardly_matters(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap], size: tuple[int, int]
) -> None:
    frame, instances = scene
    latents = noise(pipeline, 2)
    small = pipeline(frame, instances, num_hypotheses=2, latents=latents)
    large = pipeline(frame.resized(*size), instances.resized(*size), num_hypotheses=2, latents=latents)
    pixels = foreground(instances)
    same = ((pixels + 0.5) * [size[0] / 128, size[1] / 128]).astype(np.int32)
    first, second = displacement(small, pixels), displacement(large, same)
    # Colours are interpolated and a cell may choose a neighbouring pixel.
    assert np.linalg.norm(first - second, axis=-1).mean() < 0.05 * np.linalg.norm(first, axis=-1).mean()
    assert large.step_s == pytest.approx(small.step_s, rel=0.01)


def test_the_networks_time_is_that_of_encoder_and_denoiser(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is made slower by another time: of the two networks, the noise between them, and the inputs."""

    def slow_down(name: str, pause_s: float) -> None:
        real = getattr(pipeline, name)

        def slower(*arguments: object, **options: object) -> object:
            time.sleep(pause_s)
            return real(*arguments, **options)

        monkeypatch.setattr(pipeline, name, slower)

    for name, pause_s in (("encode_scene", 0.03), ("denoise", 0.07), ("_noise", 0.2), ("condition", 0.3)):
        slow_down(name, pause_s)
    started = time.perf_counter()
    output = pipeline(*scene, num_hypotheses=1, num_inference_steps=1)
    assert 0.1 <= output.network_s <= time.perf_counter() - started - 0.5
    assert output.reordered(np.arange(1)).network_s == output.network_s


# --- drawing


def test_equal_seeds_give_equal_forecasts(pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    first, second, third = (pipeline(*scene, num_hypotheses=2, generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.moving_probability, second.moving_probability)
    assert not torch.allclose(first.latents, third.latents, atol=1e-3)


def test_a_seed_draws_the_noise_that_could_be_given(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    drawn = pipeline(*scene, num_hypotheses=2, generator=seeded(5))
    conditioning = pipeline.condition(drawn.grid, pipeline.vocabulary.encode("")[0], {}, 0)
    shares, channels = pipeline.denoiser.noise_shares, pipeline.codec.latent_channels
    latents = draw_noise(InstanceFrames.of(conditioning), shares, 2, channels, generator=seeded(5))
    given = pipeline(*scene, num_hypotheses=2, latents=latents)
    assert torch.equal(drawn.latents, given.latents)


def test_a_batch_of_hypotheses_equals_them_one_by_one(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    latents = noise(pipeline, 3)
    together = pipeline(*scene, "lift the red block", num_hypotheses=3, latents=latents)
    for row in range(3):
        alone = pipeline(*scene, "lift the red block", num_hypotheses=1, latents=latents[row : row + 1])
        torch.testing.assert_close(together.latents[row], alone.latents[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(together.maps[row], alone.maps[0], rtol=1e-3, atol=1e-2)


def test_a_frame_does_not_depend_on_what_was_forecast_before(
    pipeline: MoMapPipeline, simulated: list[Sample], scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    first = pipeline(*scene, num_hypotheses=1, generator=seeded(0))
    pipeline(*scene_of(simulated[0]), num_hypotheses=2, num_inference_steps=2)
    assert torch.equal(pipeline(*scene, num_hypotheses=1, generator=seeded(0)).latents, first.latents)


def test_save_and_load_reproduce_the_forecast(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap], tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path / "copy")
    write_info(tmp_path / "copy", pipeline.codec.num_steps, {})
    copy = MoMapPipeline.from_pretrained(tmp_path / "copy")
    first, second = (p(*scene, "lift it", num_hypotheses=1, generator=seeded(1)) for p in (pipeline, copy))
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.maps, second.maps)
    assert first.step_s == second.step_s
    assert copy.vocabulary.words == pipeline.vocabulary.words


def test_half_precision_files_are_computed_with_in_single_precision(
    tiny_checkpoint: Path, scene: tuple[RGBDFrame, InstanceMap], tmp_path: Path
) -> None:
    exact = MoMapPipeline.from_pretrained(tiny_checkpoint)
    rounded = MoMapPipeline.from_pretrained(tiny_checkpoint)
    rounded.scene_encoder.half()
    rounded.denoiser.half()
    rounded.save_pretrained(tmp_path / "half")
    write_info(tmp_path / "half", 50, {})
    loaded = MoMapPipeline.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.denoiser.parameters()} == {torch.float32}
    assert torch.equal(loaded.codec.basis, exact.codec.basis)
    first, second = (p(*scene, num_hypotheses=1, generator=seeded(1)).latents for p in (exact, loaded))
    assert float((first - second).abs().mean()) < 0.01 * float(first.abs().mean())


# --- conditions


def test_every_condition_is_read(pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    draw = partial(pipeline, *scene, num_hypotheses=1, latents=noise(pipeline, 1))
    plain = draw().latents
    hints = {max(scene[1].areas_px): (1, 0, -1)}
    for changed in (draw(prompt="lift the red block"), draw(hints=hints), draw(color_seed=1)):
        assert not torch.allclose(plain, changed.latents, atol=1e-4)


def test_words_the_model_does_not_know_are_reported(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    assert pipeline(*scene, "Lift the zygote.", num_hypotheses=1).ignored_words == ("zygote",)


def test_a_scene_without_instances_rests(pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    frame, instances = scene
    output = pipeline(frame, InstanceMap(np.zeros_like(instances.ids)), num_hypotheses=2)
    assert output.instance_moving_probability() == {}
    assert not displacement(output, foreground(instances)).any()


def test_articulation_agrees_with_least_squares(pipeline: MoMapPipeline, simulated: list[Sample]) -> None:
    """Random weights draw latents that no affine map explains, more so for large instances."""
    compared = 0
    for sample in simulated[:4]:
        output = pipeline(*scene_of(sample), num_hypotheses=2, generator=seeded(0))
        slots = output.grid.slots.ravel()
        points = output.grid.points_in_camera.reshape(-1, 3) / output.grid.scale_m
        latents = output.latents.numpy()
        for slot in range(1, MAX_INSTANCES):
            cells = np.flatnonzero(slots == slot)
            if len(cells) < MIN_ARTICULATED_CELLS:
                assert not output.articulated[slot]
                continue
            design = np.concatenate([np.ones((len(cells), 1)), points[cells] - points[cells].mean(axis=0)], axis=1)
            target = latents[:, :, cells].transpose(2, 0, 1).reshape(len(cells), -1)
            fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
            ratio = np.linalg.norm(target - fitted) / np.linalg.norm(target)
            if abs(ratio - ARTICULATION_RESIDUAL) > 0.05:  # the ridge moves it a little
                assert bool(output.articulated[slot]) == (ratio > ARTICULATION_RESIDUAL)
                compared += 1
    assert compared >= 4


# --- refusals


def test_hints_for_an_instance_that_is_not_there_are_refused(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    with pytest.raises(ValueError, match="got 4321"):
        pipeline(*scene, hints={4321: (0, 0, 1)}, num_hypotheses=1)


def test_noise_of_another_shape_is_refused(pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    with pytest.raises(ValueError, match=r"latents: expected \(2, 30, 32, 32\), got \(3, 30, 32, 32\)"):
        pipeline(*scene, num_hypotheses=2, latents=noise(pipeline, 3))


def test_a_frame_without_depth_is_refused(pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    frame, instances = scene
    blind = RGBDFrame(frame.rgb, np.full_like(frame.depth_m, math.nan), frame.camera)
    with pytest.raises(FrameError, match="none in the whole image"):
        pipeline(blind, instances, num_hypotheses=1)


def test_an_instance_moves_by_the_mean_of_two_logits() -> None:
    """Cells say 0.2 and 0.4 for slot 1, so 0.3; the scene encoder says 0.9 with twice the weight."""
    probability = torch.tensor([[0.2, 0.4, 0.5], [1.0, 1.0, 0.5]])
    scene_logits = torch.tensor([0.0, math.log(9.0), -20.0])
    moving = moving_instances(probability, scene_logits, torch.tensor([1, 1, 2]))
    expected = (math.log(0.3 / 0.7) + 2 * math.log(9.0)) / 3
    assert float(moving[0, 1]) == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-5)
    assert float(moving[1, 1]) > float(moving[0, 1])  # sure cells count, but not without bounds
    assert float(moving[1, 1]) < 0.9999
    assert float(moving[0, 2]) < 1e-4


# --- going on from the forecast before


def test_a_continued_forecast_starts_half_way_from_what_is_left(
    pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pipeline(*scene, num_hypotheses=2, generator=seeded(1))
    begun: list[tuple[torch.Tensor, torch.Tensor]] = []
    denoise = MoMapPipeline.denoise

    def watched(self: MoMapPipeline, latents: torch.Tensor, encoding: SceneEncoding, timesteps: torch.Tensor) -> object:
        begun.append((latents, timesteps))
        return denoise(self, latents, encoding, timesteps)

    monkeypatch.setattr(MoMapPipeline, "denoise", watched)
    white = noise(pipeline, 2)
    second = pipeline(*scene, num_hypotheses=2, latents=white, previous=first, elapsed_s=0.3)
    (latents, timesteps) = begun[0]
    assert timesteps.tolist() == [499, 249]
    alpha = float(pipeline.scheduler.alphas_cumprod[timesteps[0]])
    rest = (latents - math.sqrt(1 - alpha) * white) / math.sqrt(alpha)
    torch.testing.assert_close(rest, remaining_latents(first, first.grid, 0.3, second.step_s), atol=1e-3, rtol=1e-3)


def test_another_number_of_futures_cannot_go_on(pipeline: MoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    first = pipeline(*scene, num_hypotheses=2, generator=seeded(1))
    with pytest.raises(ValueError, match="expected 3 futures, got 2"):
        pipeline(*scene, num_hypotheses=3, previous=first, elapsed_s=0.3)


# --- noise levels


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5, 7, 10, 20, 50])
def test_few_steps_go_through_all_noise_levels_and_more_end_at_a_third_of_them(
    pipeline: MoMapPipeline, num_steps: int
) -> None:
    timesteps = pipeline.timesteps(num_steps).tolist()
    assert len(timesteps) == num_steps
    assert timesteps[0] == 999
    if num_steps <= FEW_STEPS:
        assert timesteps[-1] == 999 - (num_steps - 1) * (1000 // num_steps)
    else:
        assert 332 < timesteps[-1] < 375
    for now, later in itertools.pairwise(timesteps):  # each step of the scheduler ends where the next one begins
        latents = torch.ones(1, 30, 2, 2)
        landed = pipeline.scheduler.step(torch.zeros_like(latents), now, latents).prev_sample
        noise_left = (1 - pipeline.scheduler.alphas_cumprod[[later, now]]).sqrt()
        torch.testing.assert_close(landed, latents * noise_left[0] / noise_left[1])


def test_a_predicted_noise_needs_all_noise_levels(tiny_checkpoint: Path) -> None:
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    pipeline.denoiser.prediction = "epsilon"
    assert pipeline.timesteps(10).tolist() == list(range(999, 0, -100))


# --- other outputs of the denoiser


class Knowing(torch.nn.Module):
    """Says of noisy latents what it should, for clean latents and noise that it knows."""

    def __init__(self, pipeline: MoMapPipeline, clean: torch.Tensor, noise: torch.Tensor, prediction: str) -> None:
        super().__init__()
        self.alphas, self.noise = pipeline.scheduler.alphas_cumprod, noise
        self.clean = torch.nn.Parameter(clean, requires_grad=False)
        self.prediction = prediction

    def forward(self, _: torch.Tensor, timestep: torch.Tensor, __: SceneEncoding) -> tuple[torch.Tensor, torch.Tensor]:
        target = target_of(self.clean, self.noise, self.alphas[timestep][:, None, None, None], self.prediction)
        return target, torch.zeros(len(target), GRID, GRID)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_whatever_is_predicted_the_sampler_ends_at_the_clean_latents(tiny_checkpoint: Path, prediction: str) -> None:
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    clean = noise(pipeline, 2).flip(0)
    timesteps = pipeline.timesteps(4)
    alpha = pipeline.scheduler.alphas_cumprod[timesteps[0]]
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise(pipeline, 2)
    pipeline.denoiser = Knowing(pipeline, clean, noise(pipeline, 2), prediction)
    found, _ = pipeline.denoise(noisy, None, timesteps)  # type: ignore[arg-type]  # this denoiser reads no scene
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_a_goal_is_what_most_of_the_way_leads_to_at_the_end(pipeline: MoMapPipeline) -> None:
    codec = pipeline.codec
    end = codec.decode(torch.eye(codec.latent_channels))[: codec.latent_channels // 3, -1, 0]  # of one axis
    course = end / (end @ end)  # latents that decode to 1 at the last step
    share = torch.zeros(5, 5)
    share[1, 2], share[1, 3] = 0.9, 0.4  # two ways: the longer one
    share[2, 1] = GOAL_SHARE - 0.05  # hardly begun
    share[3, 3], share[3, 0] = 0.9, 0.9  # itself, and the background
    share[1, 4] = 1.0  # no instance owns slot 4
    assert goals_of(share[..., None] * course, codec, (7, 9, 12)) == {7: 9}
    assert goals_of(share[..., None] * course, codec, ()) == {}
