from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from momap_ros.cli import main
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import SceneEncoder
from momap_ros.training.average import average

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def other_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint with all weights 0.5 larger."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    for part in ("scene_encoder", "denoiser"):
        weights = {name: value + 0.5 for name, value in load_file(folder / part / WEIGHTS).items()}
        save_file(weights, folder / part / WEIGHTS, metadata={"format": "pt"})
    return folder


def test_every_weight_is_the_weighted_mean(tiny_checkpoint: Path, other_checkpoint: Path, tmp_path: Path) -> None:
    average([str(tiny_checkpoint), str(other_checkpoint)], [0.75, 0.25], tmp_path / "mean")
    for part in ("scene_encoder", "denoiser"):
        before, mean = (load_file(folder / part / WEIGHTS) for folder in (tiny_checkpoint, tmp_path / "mean"))
        assert before.keys() == mean.keys()
        for name, value in mean.items():
            assert value.dtype == torch.float16
            torch.testing.assert_close(value.float(), before[name].float() + 0.125, atol=4e-3, rtol=1e-3)
    pipeline = MoMapPipeline.from_pretrained(str(tmp_path / "mean"))
    assert pipeline.num_steps == MoMapPipeline.from_pretrained(str(tiny_checkpoint)).num_steps


def test_it_says_what_it_was_made_of(tiny_checkpoint: Path, other_checkpoint: Path, tmp_path: Path) -> None:
    info = json.loads((other_checkpoint / "momap.json").read_text())
    (other_checkpoint / "momap.json").write_text(json.dumps(info | {"training": {"steps_done": 7}}))
    command = ["train", "average", "--out", str(tmp_path / "mean"), "--shares", "0.4", "0.6"]
    assert main([*command, "--checkpoints", str(tiny_checkpoint), str(other_checkpoint)]) == 0
    training = json.loads((tmp_path / "mean/momap.json").read_text())["training"]
    assert training == {"share": 0.4, "averaged_with": [{"share": 0.6, "steps_done": 7}]}
    for path in (tmp_path / "mean").rglob("*.json"):
        assert str(tiny_checkpoint.parent) not in path.read_text(), path.name


@pytest.mark.parametrize(
    ("shares", "said"),
    [([1.0], "a share for each"), ([0.5, 0.6], "add up to 1"), ([1.5, -0.5], "positive")],
)
def test_shares_that_are_none_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, shares: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        average([str(tiny_checkpoint)] * 2, shares, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_models_that_differ_in_more_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ in their weights alone, in scene_encoder too"):
        average([str(tiny_checkpoint), "small"], [0.5, 0.5], tmp_path / "mean")


def test_a_part_that_one_lacks_is_the_mean_of_those_that_have_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = MoMapPipeline.from_pretrained(str(tiny_checkpoint))
    config = {name: value for name, value in plain.scene_encoder.config.items() if not name.startswith("_")}
    encoder = SceneEncoder(**config | {"expects_turns": True})
    turning = {name: value.half() for name, value in encoder.state_dict().items() if name.startswith("turning.")}
    assert turning
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "turns"))
    encoder.half().save_pretrained(folder / "scene_encoder")
    average([str(folder), str(tiny_checkpoint)], [0.8, 0.2], tmp_path / "mean")
    found = load_file(tmp_path / "mean/scene_encoder" / WEIGHTS)
    for name, value in turning.items():
        torch.testing.assert_close(found[name], value)
    with pytest.raises(ValueError, match="differ in their weights alone"):
        average([str(tiny_checkpoint), str(folder)], [0.8, 0.2], tmp_path / "mean")


def test_another_basis_is_refused(tiny_checkpoint: Path, other_checkpoint: Path, tmp_path: Path) -> None:
    path = other_checkpoint / "codec" / WEIGHTS
    codec = load_file(path)
    save_file(codec | {"basis": -codec["basis"]}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="same temporal basis"):
        average([str(tiny_checkpoint), str(other_checkpoint)], [0.5, 0.5], tmp_path / "mean")
