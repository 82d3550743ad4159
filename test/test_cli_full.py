"""The full-size model by commands alone: made, trained, forecast with; as a user would, at tiny size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sd_folders import write_stable_diffusion

from momap_ros.cli import main
from momap_ros.data.sample import write_shard
from momap_ros.model.checkpoint import read_info

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


def test_init_full_makes_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_stable_diffusion(tmp_path / "sd", prediction_type="v_prediction")
    command = ["init-full", "--sd-dir", str(source), "--out", str(tmp_path / "full"), "--image-size", "128"]
    command += ["--num-steps", "16", "--latent-channels", "20", "--prediction-type", "epsilon", "--hints"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "It has to be trained" in told.out
    assert "init-full" in told.err, "a progress bar"
    index = json.loads((tmp_path / "full" / "model_index.json").read_text())
    assert index["image_size"] == 128
    unet, vae, scheduler = (
        json.loads((tmp_path / "full" / part).read_text())
        for part in ("unet/config.json", "momap_vae/config.json", "scheduler/scheduler_config.json")
    )
    assert (unet["in_channels"], unet["out_channels"]) == (20 + 12 + 10, 20)
    assert (vae["in_channels"], vae["latent_channels"]) == (48, 20)
    assert (scheduler["prediction_type"], scheduler["timestep_spacing"]) == ("epsilon", "trailing")
    assert read_info(tmp_path / "full")["num_steps"] == 16
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_the_committed_report_is_whole(repository: Path) -> None:
    report = json.loads((repository / "benchmarks/results/model/full_model_size.json").read_text())
    assert report["format"] == "momap-full-model-size/1"
    assert not str(report["commit"]).endswith("-dirty")
    for model in report["models"]:
        assert [size["image_size"] for size in model["sizes"]] == [256, 512]
        assert all(value > 0 for size in model["sizes"] for value in size["activations_mib"].values())


@pytest.mark.slow
def test_the_whole_way_by_commands(simulated: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "shards" / "train-0000000-0000004.tar", simulated[:4])
    source = write_stable_diffusion(tmp_path / "sd")
    monkeypatch.setattr(sys, "argv", ["momap"])  # the programs under `train` read and replace it
    assert main(["init-full", "--sd-dir", str(source), "--out", str(tmp_path / "full-0"), "--image-size", "64"]) == 0
    common = ["--data", str(tmp_path / "shards"), "--batch-size", "2", "--device", "cpu", "--loader-workers", "0"]
    vae = ["--checkpoint", str(tmp_path / "full-0"), "--out", str(tmp_path / "vae"), "--steps", "2"]
    assert main(["train", "vae", *vae, *common]) == 0
    full = ["--checkpoint", str(tmp_path / "vae" / "checkpoint"), "--out", str(tmp_path / "full"), "--steps", "2"]
    full += ["--accumulate", "2", "--gradient-checkpointing", "--precision", "bfloat16"]
    assert main(["train", "full", *full, *common]) == 0
    info = read_info(tmp_path / "full" / "checkpoint")
    assert {name: run["steps_done"] for name, run in info["training"].items()} == {"vae": 2, "full": 2}
    assert main(["train", "full", *full[:-3], "--seed", "1", *common]) == 1, "other options"
