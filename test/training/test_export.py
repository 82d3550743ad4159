from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from momap_ros.model.checkpoint import read_info
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.rgbd import RGBDFrame
from momap_ros.training import export as export_module
from momap_ros.training.export import export
from momap_ros.training.small import SmallLaunch, run
from momap_ros.training.steps import SmallTraining

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

OPTIONS = SmallTraining(steps=2, batch_size=4, warmup_steps=1, channels=(32, 64))
TRAIN_SPLIT = {"episodes": [[0, 5], [5, 12], [20, 30]], "num_views": 3, "size": 64, "samples": 61}
STRANGE_SPLIT = {"episodes": [[5, 7]], "num_views": 2, "size": 64, "samples": 4}
MANIFEST = {
    "mujoco": "4.0.0",
    "package": "9.8.7",
    "splits": {"train": TRAIN_SPLIT, "val": TRAIN_SPLIT, "strange": STRANGE_SPLIT},
}


@pytest.fixture(scope="module")
def finished(prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with options.json as the command writes it and a manifest beside it."""
    folder = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    run(0, SmallLaunch(prepared_folder, folder, OPTIONS, workers=1, save_every=2))
    torch.set_num_threads(threads)
    (folder / "options.json").write_text(json.dumps(vars(OPTIONS)))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return folder


@pytest.fixture(scope="module")
def exported(finished: Path, prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights") / "fresh"
    size = export(finished, prepared_folder, finished / "manifest.json", out)
    assert size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return out


def test_the_averaged_weights_are_stored_in_half_precision(finished: Path, exported: Path) -> None:
    average = torch.load(finished / "state.pt", weights_only=True)["average"]
    stored: dict[str, torch.Tensor] = {}
    for component in ("scene_encoder", "denoiser"):
        (path,) = (exported / component).glob("*.safetensors")
        stored |= {f"{component}.{key}": value for key, value in load_file(path).items()}
    assert stored.keys() == average.keys()
    assert all(torch.equal(stored[key], average[key].half()) for key in average)


def test_the_codec_stays_in_single_precision(prepared_folder: Path, exported: Path) -> None:
    (path,) = (exported / "codec").glob("*.safetensors")
    (original,) = (prepared_folder / "codec").glob("*.safetensors")
    before, after = load_file(original), load_file(path)
    assert all(torch.equal(before[key], after[key]) and after[key].dtype == torch.float32 for key in before)


def test_an_exported_run_forecasts(exported: Path, prepared_folder: Path, simulated: list[Sample]) -> None:
    pipeline = MoMapPipeline.from_pretrained(exported)
    assert list(pipeline.vocabulary.words) == json.loads((prepared_folder / "vocabulary.json").read_text())
    sample = simulated[0]
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
    output = pipeline(frame, sample.instance_map(merge_robot=True), sample.text, num_hypotheses=1)
    assert output.ignored_words == ()
    assert output.step_s > 0


def test_the_checkpoint_says_how_it_came_to_be(exported: Path) -> None:
    info = read_info(exported)
    assert info["num_steps"] == 50
    training = info["training"]
    assert (training["steps_done"], training["samples_seen"]) == (2, 8)
    assert training["options"] == json.loads(json.dumps(vars(OPTIONS)))
    assert training["simulator"] == {
        "mujoco": "4.0.0",
        "package": "9.8.7",
        "splits": {
            "train": {"episodes": [[0, 12], [20, 30]], "views": 3, "size": 64, "samples": 61},
            "strange": {"episodes": [[5, 7]], "views": 2, "size": 64, "samples": 4},
        },
    }


def test_a_checkpoint_says_what_its_run_began_with(
    finished: Path, exported: Path, prepared_folder: Path, tmp_path: Path
) -> None:
    """No folder of this machine is written down; what was trained before is, as far back as there is a record."""
    for begun, steps_done in ((finished, 2), (exported, 2)):
        out = tmp_path / begun.name
        out.mkdir()
        options = replace(OPTIONS, steps=1, start_from=str(begun))
        run(0, SmallLaunch(prepared_folder, out, options, workers=1, save_every=1))
        (out / "options.json").write_text(json.dumps(vars(options)))
        export(out, prepared_folder, finished / "manifest.json", out / "weights")
        training = read_info(out / "weights")["training"]
        assert training["options"]["start_from"] == begun.name
        assert training["began_with"]["steps_done"] == steps_done
        assert training["began_with"]["options"]["steps"] == 2
        assert str(tmp_path) not in json.dumps(training)


def test_the_schedule_is_that_of_the_training(exported: Path) -> None:
    from momap_ros.model.schedule import shifted_cosine_scheduler

    stored = MoMapPipeline.from_pretrained(exported).scheduler
    assert torch.equal(stored.alphas_cumprod, shifted_cosine_scheduler(OPTIONS.shift).alphas_cumprod)
    assert not torch.equal(
        stored.alphas_cumprod, shifted_cosine_scheduler(replace(OPTIONS, shift=6.0).shift).alphas_cumprod
    )
    assert stored.config["prediction_type"] == "sample"


def test_the_command_replaces_a_checkpoint(
    finished: Path, prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    out.mkdir()
    (out / "old.bin").write_bytes(b"")
    arguments = ["--run", finished, "--data", prepared_folder, "--manifest", finished / "manifest.json", "--out", out]
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    assert export_module.main() == 0
    assert not (out / "old.bin").exists()
    assert read_info(out)["num_steps"] == 50
