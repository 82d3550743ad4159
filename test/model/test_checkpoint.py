from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from momap_ros.model import checkpoint as checkpoint_module
from momap_ros.model.checkpoint import CheckpointError, bundled_checkpoints, find_checkpoint, read_info, write_info
from momap_ros.model.pipeline import MoMapPipeline

Weights = dict[str, torch.Tensor]
WEIGHTS = Path("denoiser/diffusion_pytorch_model.safetensors")


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def change_weights(folder: Path, change: Callable[[Weights], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_untouched_copy_loads(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    loaded = MoMapPipeline.from_pretrained(copy).denoiser.state_dict()
    assert weights.keys() == loaded.keys()
    assert all(torch.equal(weights[key], loaded[key]) for key in weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("conv_out.bias"), r"missing \['conv_out.bias'\]"),
        (lambda weights: weights.update(extra=torch.zeros(3)), r"unexpected \['extra'\]"),
        (lambda weights: weights.update({"conv_out.bias": torch.zeros(3)}), r"conv_out\.bias"),
    ],
    ids=["missing", "extra", "other shape"],
)
def test_weights_that_do_not_fit_are_refused(copy: Path, change: Callable[[Weights], object], message: str) -> None:
    change_weights(copy, change)
    with pytest.raises(CheckpointError, match=message):
        MoMapPipeline.from_pretrained(copy)


@pytest.mark.parametrize("component", ["denoiser", "scene_encoder", "codec"])
def test_weights_that_are_absent_are_refused(copy: Path, component: str) -> None:
    (copy / component / WEIGHTS.name).unlink()
    with pytest.raises(CheckpointError, match=component):
        MoMapPipeline.from_pretrained(copy)


@pytest.mark.parametrize("size", [0, 4, 100, 200_000])
def test_truncated_weights_are_refused(copy: Path, size: int) -> None:
    content = (copy / WEIGHTS).read_bytes()
    assert len(content) > size
    (copy / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(CheckpointError, match="denoiser"):
        MoMapPipeline.from_pretrained(copy)


@pytest.mark.parametrize("name", ["denoiser/diffusion_pytorch_model.bin", "extra.pt", "codec/old/weights.ckpt"])
def test_files_that_would_be_unpickled_are_refused(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"safetensors only, got .*{Path(name).name}"):
        MoMapPipeline.from_pretrained(copy)


def test_a_codec_of_another_length_is_refused(copy: Path) -> None:
    change_json(copy / "momap.json", num_steps=16)
    with pytest.raises(CheckpointError, match=r"T = 16, its codec has T = 50"):
        MoMapPipeline.from_pretrained(copy)


def test_another_format_is_refused(copy: Path) -> None:
    change_json(copy / "momap.json", format="momap-checkpoint/99")
    with pytest.raises(CheckpointError, match="expected format 'momap-checkpoint/1', got 'momap-checkpoint/99'"):
        MoMapPipeline.from_pretrained(copy)
    (copy / "momap.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_info(copy)


@pytest.mark.parametrize("name", ["model_index.json", "momap.json"])
def test_a_folder_that_is_no_checkpoint_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"expected .*{name}.* in it"):
        MoMapPipeline.from_pretrained(copy)


def test_a_configuration_that_does_not_fit_is_refused(copy: Path) -> None:
    change_json(copy / "denoiser/config.json", channels=[64, 64])
    with pytest.raises(CheckpointError, match=r"could not be loaded.*size mismatch for conv_in\.weight") as refused:
        MoMapPipeline.from_pretrained(copy)
    assert len(str(refused.value)) < 600


def test_an_unknown_name_lists_the_bundled_ones(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "BUNDLED", tmp_path)
    for name in ("small", "large"):
        shutil.copytree(tiny_checkpoint, tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert bundled_checkpoints() == ["large", "small"]
    with pytest.raises(CheckpointError, match=r"'smal'.*\['large', 'small'\]"):
        MoMapPipeline.from_pretrained("smal")
    assert find_checkpoint("small") == tmp_path / "small"
    assert find_checkpoint(str(tiny_checkpoint)) == tiny_checkpoint


def test_the_information_says_where_weights_come_from(tmp_path: Path) -> None:
    write_info(tmp_path, 50, {"steps_done": 3})
    info = read_info(tmp_path)
    assert info["num_steps"] == 50
    assert info["training"] == {"steps_done": 3}
    assert info["package_version"]
