from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import Forecaster
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.model.execution import (
    Execution,
    ExecutionError,
    faster,
    made_up_scene,
    measure_precisions,
    missing_for_compile,
    prepare_execution,
)
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.rgbd import RGBDFrame

MISSING = missing_for_compile()
# Of latents, which are about 1: bfloat16 keeps 8 bits, and errors of one step enter the next.
BFLOAT16_RMS = 0.02


@pytest.fixture
def pipeline(tiny_checkpoint: Path) -> MoMapPipeline:
    return MoMapPipeline.from_pretrained(tiny_checkpoint)


@pytest.fixture
def config(tiny_checkpoint: Path) -> ForecastConfig:
    return ForecastConfig(checkpoint=str(tiny_checkpoint), device="cpu", num_hypotheses=2, max_points=300)


def blank_scene() -> tuple[RGBDFrame, InstanceMap]:
    """A plane with one instance on it."""
    ids = np.zeros((60, 80), np.int32)
    ids[20:40, 20:40] = 1
    camera = PinholeCamera.from_fov(80, 60, vertical_fov_rad=1.0)
    return RGBDFrame(np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), np.float32), camera), InstanceMap(ids)


@torch.inference_mode()
def drawn(pipeline: MoMapPipeline, num_steps: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Two futures of a made-up scene."""
    noise = torch.randn((2, 30, 32, 32), generator=torch.Generator().manual_seed(1))
    scene = pipeline.encode_scene(made_up_scene(pipeline)).repeat(2)
    return pipeline.denoise(noise, scene, pipeline.timesteps(num_steps))


# --- precision


def test_single_precision_is_the_networks_own(pipeline: MoMapPipeline, config: ForecastConfig) -> None:
    assert str(prepare_execution(pipeline, config, "cpu")) == "float32"
    found = drawn(pipeline)
    noise = torch.randn((2, 30, 32, 32), generator=torch.Generator().manual_seed(1))
    clean = logits = noise
    with torch.inference_mode():
        scene = pipeline.scene_encoder(made_up_scene(pipeline)).repeat(2)
        for timestep in pipeline.timesteps(4):
            clean, logits = pipeline.denoiser(noise, timestep.expand(2), scene)
            noise = pipeline.scheduler.step(clean, timestep, noise).prev_sample
    assert torch.equal(found[0], clean)
    assert torch.equal(found[1], logits)


def test_half_precision_stays_close_and_the_sampler_single(pipeline: MoMapPipeline, config: ForecastConfig) -> None:
    expected = drawn(pipeline)[0]
    assert prepare_execution(pipeline, replace(config, precision="bfloat16"), "cpu").precision == "bfloat16"
    found = drawn(pipeline)[0]
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert float((found - expected).square().mean().sqrt()) < BFLOAT16_RMS * float(expected.std())


def test_the_faster_precision_is_taken_where_it_is_clearly_faster() -> None:
    assert faster({"float32": 10.0, "bfloat16": 5.0}) == "bfloat16"
    assert faster({"float32": 10.0, "bfloat16": 9.5}) == "float32"
    assert faster({"float32": 10.0, "bfloat16": 40.0}) == "float32"


def test_measuring_changes_nothing(pipeline: MoMapPipeline) -> None:
    pipeline.precision = "bfloat16"
    step_ms = measure_precisions(pipeline, 1)
    assert step_ms.keys() == {"float32", "bfloat16"}
    assert min(step_ms.values()) > 0
    assert pipeline.precision == "bfloat16"


def test_a_forecast_says_how_its_network_ran(config: ForecastConfig) -> None:
    forecaster = Forecaster(replace(config, precision="auto"), ObjectMotionConfig())
    execution = forecaster.execution
    assert execution.precision == faster(dict(execution.probe_ms)) == forecaster.pipeline.precision
    assert forecaster(*blank_scene()).network == str(execution)
    assert str(execution).startswith(f"{execution.precision} (a step takes ")


def test_what_is_logged() -> None:
    measured = (("float32", 71.26), ("bfloat16", 40.1))
    assert str(Execution("bfloat16", "default", measured)) == (
        "bfloat16 (a step takes 71.3 ms in float32, 40.1 ms in bfloat16), compiled (default)"
    )


def test_the_full_model_takes_what_is_asked_for(tiny_full_checkpoint: Path, config: ForecastConfig) -> None:
    for asked, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.float32)):
        full = MoMapPipeline.from_pretrained(tiny_full_checkpoint)
        execution = prepare_execution(full, replace(config, precision=asked), "cpu")
        assert f"torch.{execution.precision}" == str(dtype)
        assert full.unet.dtype == dtype
        assert full.momap_vae.dtype == torch.float32


# --- what hypotheses share


@torch.inference_mode()
def test_the_scene_is_read_once_for_all_hypotheses_and_steps(pipeline: MoMapPipeline) -> None:
    read: list[int] = []
    denoised: list[int] = []
    pipeline.scene_encoder.register_forward_hook(lambda _module, given, _out: read.append(len(given[0].maps)))
    pipeline.denoiser.register_forward_hook(lambda _module, given, _out: denoised.append(len(given[0])))
    pipeline(*blank_scene(), num_hypotheses=5, num_inference_steps=3)
    assert read == [1]
    assert denoised == [5, 5, 5]


@torch.inference_mode()
def test_the_full_model_reads_a_sentence_once(tiny_full_checkpoint: Path) -> None:
    full, read = MoMapPipeline.from_pretrained(tiny_full_checkpoint), []
    full.text_encoder.register_forward_hook(lambda *_: read.append(1))
    frame, instances = blank_scene()
    for prompt in ("lift the block", "lift the block", "push the block", "push the block"):
        full(frame, instances, prompt, num_hypotheses=3, num_inference_steps=2)
    assert len(read) == 2


# --- torch.compile


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"torch.compile needs {' and '.join(MISSING)}")
def test_compiled_networks_draw_the_same(config: ForecastConfig) -> None:
    eager = Forecaster(config, ObjectMotionConfig())
    compiled = Forecaster(replace(config, compile="default"), ObjectMotionConfig())
    assert str(compiled.execution) == "float32, compiled (default)"
    compiled.warm_up(64, 48)
    torch.testing.assert_close(drawn(compiled.pipeline), drawn(eager.pipeline), rtol=1e-3, atol=1e-4)


def test_cuda_graphs_need_cuda(pipeline: MoMapPipeline, config: ForecastConfig) -> None:
    with pytest.raises(ExecutionError, match=r"reduce-overhead records CUDA graphs and needs a CUDA device, got 'cpu'"):
        prepare_execution(pipeline, replace(config, compile="reduce-overhead"), "cpu")


def test_a_missing_compiler_is_named(
    pipeline: MoMapPipeline, config: ForecastConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ExecutionError, match=r"a C\+\+ compiler 'no-such-compiler' .*, found none; install it"):
        prepare_execution(pipeline, replace(config, compile="default"), "cpu")


def test_the_full_model_is_not_compiled(tiny_full_checkpoint: Path, config: ForecastConfig) -> None:
    full = MoMapPipeline.from_pretrained(tiny_full_checkpoint)
    with pytest.raises(ExecutionError, match="expected none for a FullMoMapPipeline, got 'default'"):
        prepare_execution(full, replace(config, compile="default"), "cpu")
