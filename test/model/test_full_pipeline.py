"""The full-size pipeline at tiny size: same call, same result as the small one, chosen by the folder alone."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sd_folders import TEXT_LENGTH, write_stable_diffusion

from momap_ros.conditioning import HINT_CHANNELS, MAX_INSTANCES
from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import Forecaster
from momap_ros.instances import InstanceMap
from momap_ros.model.checkpoint import CheckpointError, read_info
from momap_ros.model.full_checkpoint import load_full, make_full_checkpoint, replace_parts
from momap_ros.model.full_pipeline import FullMoMapPipeline, moving_instances
from momap_ros.model.pipeline import MODELS, MoMapPipeline
from momap_ros.rgbd import FrameError, RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.model.output import MoMapOutput

STEP_M = np.array([0.004, -0.002, 0.006])


@pytest.fixture(scope="module")
def scene(simulated: list[Sample]) -> tuple[RGBDFrame, InstanceMap]:
    """The scene with the most instances."""
    sample = max(simulated, key=lambda sample: len(sample.instance_map(merge_robot=True).areas_px))
    return RGBDFrame(sample.rgb, sample.depth_m, sample.camera), sample.instance_map(merge_robot=True)


@pytest.fixture
def pipeline(tiny_full_checkpoint: Path) -> FullMoMapPipeline:
    """With random weights where inflation leaves zeros, so that every input is read."""
    _, loaded, _ = load_full(tiny_full_checkpoint)
    return shaken(loaded)


def shaken(pipeline: FullMoMapPipeline) -> FullMoMapPipeline:
    torch.manual_seed(5)
    with torch.no_grad():
        for layer in (pipeline.unet.conv_in, pipeline.unet.conv_out, pipeline.momap_vae.decoder.conv_in):
            layer.weight.add_(0.2 * torch.randn(layer.weight.shape))
        out = pipeline.momap_vae.decoder.conv_out
        out.weight.add_(0.1 * torch.randn(out.weight.shape))
    return pipeline


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, 32, 8, 8), generator=torch.Generator().manual_seed(seed))


def foreground(instances: InstanceMap) -> np.ndarray:
    rows, columns = np.nonzero(instances.ids)
    return np.stack([columns, rows], axis=-1)[::7].astype(np.int32)


def displacement(output: MoMapOutput, pixels: np.ndarray) -> np.ndarray:
    positions = output.trajectories(pixels).positions
    return positions - positions[:, :, :1]


# --- the folder decides


def test_the_folder_alone_chooses_the_model(tiny_full_checkpoint: Path, tiny_checkpoint: Path) -> None:
    assert type(MoMapPipeline.from_pretrained(tiny_full_checkpoint)) is FullMoMapPipeline
    assert type(MoMapPipeline.from_pretrained(tiny_checkpoint)) is MoMapPipeline
    assert set(MODELS) == {"small", "full"}
    with pytest.raises(CheckpointError, match="expected a full-size one, got a small one"):
        load_full(tiny_checkpoint)


def test_the_checkpoint_is_a_folder_of_diffusers(tiny_full_checkpoint: Path) -> None:
    parts = sorted(path.name for path in tiny_full_checkpoint.iterdir() if path.is_dir())
    assert parts == ["duration_head", "momap_vae", "scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    info = read_info(tiny_full_checkpoint)
    assert (info["model"], info["num_steps"], info["latent_samples"]) == ("full", 50, 0)
    unet = json.loads((tiny_full_checkpoint / "unet" / "config.json").read_text())
    assert (unet["in_channels"], unet["out_channels"]) == (44, 32)
    assert not [path for path in tiny_full_checkpoint.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]


def test_parts_are_replaced_and_the_others_kept(tiny_full_checkpoint: Path, tmp_path: Path) -> None:
    _, loaded, _ = load_full(tiny_full_checkpoint)
    with torch.no_grad():
        loaded.unet.conv_in.bias.fill_(7.0)
    replace_parts(tiny_full_checkpoint, tmp_path / "new", {"unet": loaded.unet}, {"training": {"full": 1}})
    _, copy, info = load_full(tmp_path / "new")
    assert float(copy.unet.conv_in.bias[0].detach()) == 7.0
    assert info == read_info(tiny_full_checkpoint) | {"training": {"full": 1}}
    for name in ("vae", "momap_vae", "text_encoder"):
        pairs = zip(getattr(loaded, name).parameters(), getattr(copy, name).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), name


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        make_full_checkpoint(tmp_path / "absent", tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        make_full_checkpoint(tmp_path / "absent", tmp_path / "out")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


# --- metres in, metres out


def translating(pipeline: FullMoMapPipeline, scale_m: float) -> FullMoMapPipeline:
    """A pipeline that decodes any latents as STEP_M metres per step everywhere, for three seconds."""
    with torch.no_grad():
        out = pipeline.momap_vae.decoder.conv_out
        out.weight.zero_()
        out.bias.copy_(torch.from_numpy(np.arange(50)[:, None] * STEP_M / scale_m).float().flatten() + 0.3)
        pipeline.duration_head.out.bias.fill_(np.log(3.0))
        pipeline.duration_head.out.weight.zero_()
    return pipeline


def test_a_decoded_translation_arrives_in_metres(
    pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    frame, instances = scene
    scale_m = float(np.nanmedian(frame.depth_m))
    output = translating(pipeline, scale_m)(frame, instances, num_hypotheses=2, num_inference_steps=1)
    factor = output.grid.scale_m / scale_m  # the median over the model's cells
    assert factor == pytest.approx(1, rel=0.05)
    pixels = foreground(instances)
    seen = ~np.isin(instances.ids[pixels[:, 1], pixels[:, 0]], output.grid.dropped_ids)
    assert seen.mean() > 0.9
    moved = displacement(output, pixels[seen])
    expected = np.arange(50)[:, None] * STEP_M * factor
    np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=1e-4)
    assert set(output.instance_moving_probability().values()) == {1.0}
    assert output.step_s == pytest.approx(3.0 / 49)
    assert not output.articulated.any()
    rows, columns = np.nonzero((instances.ids == 0) & frame.valid)
    assert not displacement(output, np.stack([columns, rows], axis=-1).astype(np.int32)).any()
    dense = output.momap(1, 64, 48)
    assert dense.xyz.shape == (50, 48, 64, 3)
    np.testing.assert_allclose(dense.displacement_m[-1, :, :].max(axis=(0, 1))[0], expected[-1, 0], rtol=1e-3)


def test_a_scene_of_twice_the_size_moves_twice_as_far(
    pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    frame, instances = scene
    doubled = RGBDFrame(frame.rgb, 2 * frame.depth_m, frame.camera)
    draw = partial(pipeline, instances=instances, num_hypotheses=1, num_inference_steps=2, latents=noise(1))
    pixels = foreground(instances)
    once, twice = draw(frame), draw(doubled)
    assert np.abs(once.latents.numpy()).max() > 0.01
    torch.testing.assert_close(once.latents, twice.latents, rtol=1e-3, atol=1e-4)
    moved = once.moving_probability[0] > 0.5
    assert moved.any()
    both = np.abs(displacement(once, pixels)).max(axis=(0, 2, 3)) > 0
    np.testing.assert_allclose(
        displacement(twice, pixels)[:, both], 2 * displacement(once, pixels)[:, both], rtol=1e-2, atol=1e-3
    )


def test_an_instance_moves_where_enough_of_its_cells_do() -> None:
    """Slot 1: all of its cells; slot 2: a quarter; slot 3: an eighth; slot 4: none far enough. Scale half a metre."""
    slots = torch.arange(1, 5).repeat_interleave(8)
    drawn = torch.zeros(2, 3 * 5, 32)
    share = {1: 8, 2: 2, 3: 1, 4: 0}
    for slot, count in share.items():
        cells = torch.nonzero(slots == slot)[:count, 0]
        drawn[0, 3 * 2 + 1, cells] = 0.05  # along y at step 2 only, 2.5 cm
        drawn[0, 3 * 4, torch.nonzero(slots == slot)[:, 0]] += 0.03  # 1.5 cm: not enough
    found = moving_instances(drawn, slots, 0.5)
    assert found.shape == (2, MAX_INSTANCES)
    assert found[0, :6].tolist() == [0.0, 1.0, 0.5, 0.25, 0.0, 0.0]
    assert not found[1].any()


# --- drawing


def test_equal_seeds_give_equal_forecasts(pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return pipeline(*scene, num_hypotheses=2, num_inference_steps=2, generator=generator).latents

    assert torch.equal(draw(5), draw(5))
    assert not torch.allclose(draw(5), draw(6), atol=1e-3)


def test_a_batch_of_hypotheses_equals_them_one_by_one(
    pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    latents = noise(3)
    draw = partial(pipeline, *scene, "lift it", num_inference_steps=2)
    together = draw(num_hypotheses=3, latents=latents)
    for row in range(3):
        alone = draw(num_hypotheses=1, latents=latents[row : row + 1])
        torch.testing.assert_close(together.latents[row], alone.latents[0], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"latents: expected \(2, 32, 8, 8\), got \(3, 32, 8, 8\)"):
        draw(num_hypotheses=2, latents=latents)


def test_save_and_load_reproduce_the_forecast(
    pipeline: FullMoMapPipeline, tiny_full_checkpoint: Path, scene: tuple[RGBDFrame, InstanceMap], tmp_path: Path
) -> None:
    names = ("unet", "momap_vae")
    replace_parts(tiny_full_checkpoint, tmp_path / "copy", {name: getattr(pipeline, name) for name in names}, {})
    copy = MoMapPipeline.from_pretrained(tmp_path / "copy")
    first, second = (p(*scene, "lift it", num_hypotheses=1, latents=noise(1)) for p in (pipeline, copy))
    assert torch.equal(first.latents, second.latents)
    assert first.step_s == second.step_s


# --- conditions


def test_every_condition_is_read(pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    frame, instances = scene
    draw = partial(pipeline, num_hypotheses=1, num_inference_steps=2, latents=noise(1))
    plain = draw(frame, instances).latents
    nearer = np.where(instances.ids > 0, 0.9 * frame.depth_m, frame.depth_m).astype(np.float32)
    for changed in (
        draw(frame, instances, "lift the red block"),
        draw(frame, instances, color_seed=1),
        draw(RGBDFrame(255 - frame.rgb, frame.depth_m, frame.camera), instances),
        draw(RGBDFrame(frame.rgb, nearer, frame.camera), instances),
    ):
        assert not torch.allclose(plain, changed.latents, atol=1e-5)


def test_an_untrained_u_net_ignores_its_conditions(
    tiny_full_checkpoint: Path, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    """What it draws is what Stable Diffusion would: inflation leaves the new inputs at zero."""
    _, pipeline, _ = load_full(tiny_full_checkpoint)
    frame, instances = scene
    draw = partial(pipeline, num_hypotheses=1, num_inference_steps=1, latents=noise(1))
    dark = RGBDFrame(frame.rgb // 2, frame.depth_m, frame.camera)
    torch.testing.assert_close(draw(frame, instances).latents, draw(dark, instances).latents)


def test_words_beyond_the_length_of_clip_are_reported(
    pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    """The test's tokenizer has one token per letter: start, ten letters, end."""
    assert TEXT_LENGTH == 12
    draw = partial(pipeline, *scene, num_hypotheses=1, num_inference_steps=1)
    assert draw("lift the cup").ignored_words == ()
    assert draw("lift the cup and saucer").ignored_words == ("and", "saucer")


def test_hints_need_a_checkpoint_that_takes_them(
    pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap], tmp_path: Path
) -> None:
    instance = max(scene[1].areas_px)
    with pytest.raises(ValueError, match="made without them"):
        pipeline(*scene, hints={instance: (1, 0, -1)}, num_hypotheses=1)
    source = write_stable_diffusion(tmp_path / "sd", prediction_type="v_prediction")
    make_full_checkpoint(source, tmp_path / "full", image_size=64, with_hints=True)
    _, hinted, _ = load_full(tmp_path / "full")
    assert (hinted.hint_channels, hinted.unet.config["in_channels"]) == (HINT_CHANNELS, 44 + HINT_CHANNELS)
    draw = partial(shaken(hinted), *scene, num_hypotheses=1, num_inference_steps=1, latents=noise(1))
    assert not torch.allclose(draw().latents, draw(hints={instance: (1, 0, -1)}).latents, atol=1e-5)
    with pytest.raises(ValueError, match="got 4321"):
        draw(hints={4321: (1, 0, 0)})


# --- refusals


def test_damaged_checkpoints_are_refused(tiny_full_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_full_checkpoint, tmp_path / "copy"))
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="safetensors only"):
        MoMapPipeline.from_pretrained(folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").unlink()
    info = json.loads((folder / "momap.json").read_text())
    (folder / "momap.json").write_text(json.dumps(info | {"num_steps": 16}))
    with pytest.raises(CheckpointError, match=r"T = 16, its codec has T = 50"):
        MoMapPipeline.from_pretrained(folder)
    (folder / "momap.json").write_text(json.dumps(info | {"model": "huge"}))
    with pytest.raises(CheckpointError, match=r"expected a model of \['small', 'full'\], got 'huge'"):
        MoMapPipeline.from_pretrained(folder)
    (folder / "momap.json").write_text(json.dumps(info))
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="text_encoder"):
        MoMapPipeline.from_pretrained(folder)


def test_a_frame_without_depth_is_refused(pipeline: FullMoMapPipeline, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    frame, instances = scene
    blind = RGBDFrame(frame.rgb, np.full_like(frame.depth_m, np.nan), frame.camera)
    with pytest.raises(FrameError, match="none in the whole image"):
        pipeline(blind, instances, num_hypotheses=1)


# --- the forecaster


def test_the_forecaster_takes_a_full_checkpoint(
    pipeline: FullMoMapPipeline, tiny_full_checkpoint: Path, scene: tuple[RGBDFrame, InstanceMap], tmp_path: Path
) -> None:
    frame, instances = scene
    scale_m = float(np.nanmedian(frame.depth_m))
    moving = translating(pipeline, scale_m)
    parts = {"momap_vae": moving.momap_vae, "duration_head": moving.duration_head}
    replace_parts(tiny_full_checkpoint, tmp_path / "moving", parts, {})
    config = ForecastConfig(
        checkpoint=str(tmp_path / "moving"), device="cpu", num_hypotheses=2, num_inference_steps=1, max_points=400
    )
    forecast = Forecaster(config, ObjectMotionConfig())(frame, instances, "lift it")
    assert forecast.trajectories.positions.shape[::2] == (2, 50)
    seen = [motion for motion in forecast.objects if motion.valid]
    assert seen
    factor = forecast.output.grid.scale_m / scale_m
    for motion in seen:
        np.testing.assert_allclose(motion.motion_t_from_0[-1, :3, 3], 49 * STEP_M * factor, atol=2e-3)
        assert motion.moving_probability == 1.0
    assert forecast.momap(0).xyz.shape == (50, 256, 256, 3)
    assert 0.0 < forecast.timings_s["network"] < forecast.timings_s["model"]
