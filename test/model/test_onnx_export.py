from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from momap_ros.cli import main
from momap_ros.conditioning import CONDITION_CHANNELS, Conditioning
from momap_ros.model import onnx_export
from momap_ros.model.execution import made_up_scene
from momap_ros.model.onnx_export import TOLERANCE, OnnxNetworks, export_onnx, require
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import SceneEncoding


def need_onnx() -> None:
    for name in onnx_export.LIBRARIES:
        pytest.importorskip(name, reason="needs the extra onnx")


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> MoMapPipeline:
    return MoMapPipeline.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as `momap export onnx` writes it."""
    need_onnx()
    out = tmp_path_factory.mktemp("onnx") / "tiny"
    assert main(["export", "onnx", "--checkpoint", str(tiny_checkpoint), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def info(exported: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((exported / "onnx.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.slow
def test_the_folder_holds_both_graphs_and_what_is_known_of_them(exported: Path, info: dict[str, Any]) -> None:
    import onnx

    assert {path.name for path in exported.iterdir()} == {"scene_encoder.onnx", "denoiser.onnx", "onnx.json"}
    for name in ("scene_encoder.onnx", "denoiser.onnx"):
        graph = onnx.load(exported / name)
        onnx.checker.check_model(graph)
        (opset,) = (entry.version for entry in graph.opset_import if not entry.domain)
        assert opset == info["opset"] == 18
    described = info["graphs"]
    assert [item["name"] for item in described["scene_encoder.onnx"]["inputs"]] == [
        f.name for f in fields(Conditioning)
    ]
    outputs = [item["name"] for item in described["scene_encoder.onnx"]["outputs"]]
    assert outputs == [f"scene_{f.name}" for f in fields(SceneEncoding)]
    inputs = {item["name"]: item["shape"] for item in described["denoiser.onnx"]["inputs"]}
    assert inputs["noisy"] == ["hypotheses", "30", "32", "32"]
    assert inputs["scene_maps"][:2] == ["1", str(CONDITION_CHANNELS + 16 + 30)]
    assert set(inputs) - {"noisy", "timestep"} <= set(outputs)


@pytest.mark.slow
def test_the_largest_differences_are_stated_and_small(info: dict[str, Any]) -> None:
    differences = info["max_difference"]
    assert {"scene_maps", "scene_moving_logits", "clean", "moving_logits", "clean after 4 steps"} <= differences.keys()
    assert all(0 <= value < TOLERANCE for value in differences.values())


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_any_number_of_futures_is_drawn_as_by_torch(
    exported: Path, pipeline: MoMapPipeline, count: int, num_steps: int
) -> None:
    networks, scene = OnnxNetworks(exported, num_threads=1), made_up_scene(pipeline, seed=7)
    noise = torch.randn((count, 30, 32, 32), generator=torch.Generator().manual_seed(1))
    timesteps = pipeline.timesteps(num_steps)
    with torch.inference_mode():
        clean, moving_logits = pipeline.denoise(noise, pipeline.scene_encoder(scene).repeat(count), timesteps)
    found = networks.sample(noise.numpy(), networks.encode(scene), timesteps.tolist())
    np.testing.assert_allclose(found[0], clean.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found[1], moving_logits.numpy(), atol=TOLERANCE)


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_not_kept(
    tiny_checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_graphs(_pipeline: object, _scene: object, folder: Path) -> dict[str, Any]:
        shutil.copytree(exported, folder, dirs_exist_ok=True)
        return {}

    other = MoMapPipeline.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        other.denoiser.conv_out.bias.add_(0.01)
    monkeypatch.setattr(onnx_export, "_write_graphs", other_graphs)
    monkeypatch.setattr(MoMapPipeline, "from_pretrained", lambda _: other)
    with pytest.raises(ValueError, match=r"expected outputs within 0.001 of torch's, got \{'clean'"):
        export_onnx(str(tiny_checkpoint), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"could not import no_such_library; pip install 'momap_ros\[onnx\]'"):
        require(("json", "no_such_library"))
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from momap_ros.cli import main\n"
        f"raise SystemExit(main(['export', 'onnx', '--out', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected the package's extra 'onnx', could not import" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_size_model_is_refused(tiny_full_checkpoint: Path, tmp_path: Path) -> None:
    need_onnx()
    with pytest.raises(ValueError, match="expected a small model, got FullMoMapPipeline"):
        export_onnx(str(tiny_full_checkpoint), tmp_path / "out")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    with pytest.raises(
        ValueError, match=r"expected onnx\.json of format 'momap-onnx/1', got None; make the folder with"
    ):
        OnnxNetworks(tmp_path)
