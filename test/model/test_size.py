"""Sizes known from elsewhere: published parameter counts, and arithmetic that can be done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from momap_ros.cli import main
from momap_ros.model import size as size_module
from momap_ros.model.size import LiveMemory, full_networks, gflop, parameters_of, size_table

MIB = 2**20


def test_live_memory_counts_what_is_alive_and_views_once() -> None:
    with LiveMemory() as memory:
        first = torch.empty(MIB, device="meta")  # 4 MiB
        view = first.view(1024, 1024)[:10]
        second = first + 1
        del first, view
        third = torch.empty(MIB // 4, device="meta")  # 1 MiB, after the first has gone
        assert memory.peak == 8 * MIB
    del second, third


def test_weights_that_were_there_before_are_not_counted() -> None:
    layer = nn.Linear(1024, 1024, bias=False, device="meta")
    inputs = torch.empty(1, 1024, device="meta")
    with LiveMemory() as memory, torch.no_grad():
        layer(inputs)
        layer.weight.t()
    assert memory.peak == 4 * 1024


def test_arithmetic_of_a_matrix_product() -> None:
    layer = nn.Linear(1000, 500, bias=False, device="meta")
    assert gflop(lambda: layer(torch.empty(1000, 1000, device="meta"))) == pytest.approx(2 * 1000 * 1000 * 500 / 1e9)


def test_parameters_are_those_of_stable_diffusion_and_the_new_layers() -> None:
    """Stable Diffusion 1.5: U-Net 859,520,964, VAE 83,653,863, CLIP-L 123,060,480 (its own files)."""
    networks = full_networks("sd-1.5")
    kernel = 3 * 3
    assert parameters_of(networks["vae"]) == 83_653_863
    assert parameters_of(networks["unet"]) == 859_520_964 + kernel * 320 * (44 - 4) + (kernel * 320 + 1) * (32 - 4)
    assert parameters_of(networks["text_encoder"]) == 123_060_480


@pytest.mark.slow
def test_the_command_says_everything_and_checkpointing_saves_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(size_module, "IMAGE_SIZES", (256,))
    assert main(["init-full", "--describe", "--out", str(tmp_path / "size.json")]) == 0
    report = json.loads((tmp_path / "size.json").read_text(encoding="utf-8"))
    assert [model["variant"] for model in report["models"]] == ["sd-1.5", "sd-2.1"]
    model = report["models"][1]
    (size,) = model["sizes"]
    assert set(size["gflop"]) == {"unet", "momap_vae_decode", "momap_vae_encode", "vae_encode"}
    # The published count of Stable Diffusion 2.1's U-Net is 865,910,724.
    assert model["parameters"]["unet"] == 865_910_724 + 9 * 320 * 40 + (9 * 320 + 1) * 28
    activations = size["activations_mib"]
    assert activations["unet"] < activations["unet_training_checkpointed"] < activations["unet_training"]
    assert activations["unet_10_futures"] == pytest.approx(10 * activations["unet"], rel=0.2)
    table = capsys.readouterr().out
    assert table.startswith(size_table(report))
    table = table.partition("sd-2.1")[2]
    assert f"| unet, GFLOP | {size['gflop']['unet']:,.1f} |" in table
    # Three images, 4 x 10 calls, 10 decodings.
    forecast = 3 * size["gflop"]["vae_encode"] + 40 * size["gflop"]["unet"] + 10 * size["gflop"]["momap_vae_decode"]
    assert f"| forecast, 10 futures, 4 steps, GFLOP | {forecast:,.0f} |" in table
    assert f"| forecast, 10 futures, 4 steps, ms at an assumed 100 TFLOP/s | {forecast / 100:,.1f} |" in table
    assert "nothing ran on a GPU" in table
