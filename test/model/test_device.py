from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from threadpoolctl import ThreadpoolController

from momap_ros.conditioning import GRID
from momap_ros.model import device as device_module
from momap_ros.model.device import choose_device, fast_bfloat16, keep_numpy_single_threaded, training_autocast
from momap_ros.model.execution import made_up_scene
from momap_ros.model.pipeline import MoMapPipeline


def test_numpy_gives_its_threads_up_and_torch_keeps_its_own() -> None:
    libraries = ThreadpoolController().lib_controllers
    of_numpy = [library for library in libraries if library.user_api == "blas" and "torch" not in library.filepath]
    assert of_numpy
    before, threads = [library.num_threads for library in of_numpy], torch.get_num_threads()
    try:
        for library in of_numpy:
            library.set_num_threads(2)
        keep_numpy_single_threaded()
        assert [library.num_threads for library in of_numpy] == [1] * len(of_numpy)
        assert torch.get_num_threads() == threads
    finally:
        for library, count in zip(of_numpy, before, strict=True):
            library.set_num_threads(count)


def test_a_named_device_is_taken_as_it_is() -> None:
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("auto") in {"cpu", "cuda"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fma avx2", torch.float32), ("avx512f avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16)],
)
def test_a_training_computes_in_bfloat16_only_where_a_cpu_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, expected: torch.dtype
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name : of this test\nflags : fpu {flags} sse2\n")
    monkeypatch.setattr(device_module, "Path", lambda _: tmp_path / "cpuinfo")
    fast_bfloat16.cache_clear()
    try:
        with training_autocast(torch.device("cpu")):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
    finally:
        fast_bfloat16.cache_clear()
    assert product.dtype == expected


@pytest.mark.parametrize("num_inference_steps", [1, 4])
def test_nothing_that_the_network_reads_stays_on_the_cpu(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, num_inference_steps: int
) -> None:
    # Where there is no GPU: torch's meta device has no values, but refuses tensors of another device as a GPU does.
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    pipeline.to_device("meta")
    monkeypatch.setattr(pipeline, "_autocast", nullcontext)  # meta knows no precisions
    scene = pipeline.encode_scene(made_up_scene(pipeline)).repeat(3)
    noise = torch.empty((3, pipeline.codec.latent_channels, GRID, GRID), device="meta")
    with pytest.raises(RuntimeError, match="device"):
        pipeline.denoiser(noise, torch.zeros(3), scene)
    clean, moving_logits = pipeline.denoise(noise, scene, pipeline.timesteps(num_inference_steps))
    assert (clean.device.type, clean.shape) == ("meta", noise.shape)
    assert moving_logits.shape == (3, GRID, GRID)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_forecast_on_a_gpu_is_that_on_the_cpu(tiny_checkpoint: Path) -> None:
    pipeline = MoMapPipeline.from_pretrained(tiny_checkpoint)
    drawn = []
    for device in ("cpu", "cuda"):
        pipeline.to_device(device)
        with torch.inference_mode():
            scene = pipeline.encode_scene(made_up_scene(pipeline)).repeat(3)
            noise = torch.randn((3, pipeline.codec.latent_channels, GRID, GRID), generator=torch.manual_seed(0))
            drawn.append(pipeline.denoise(noise.to(device), scene, pipeline.timesteps(4))[0].cpu())
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-2, atol=1e-2)
