"""benchmarks/ablations.py: its figures against numbers computed by hand, and the whole way at tiny size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch

from momap_ros.training.small import SmallModel
from momap_ros.training.steps import SmallTraining

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


@pytest.fixture(scope="module")
def ablations(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/ablations.py")


def row(number: int, best: float, *, right: float | None = None) -> dict[str, object]:
    energy = {"energy_path_m": best}
    figures = {"key": f"val_{number:07d}_0", "episode": f"val_{number:07d}", "right_object": right}
    return figures | {"roles": {"acted": {"ade_m": {"best": best}} | energy}}


def test_arms_are_held_against_the_same_samples_of_the_reference(ablations: ModuleType) -> None:
    reference = [row(1, 0.1, right=1.0), row(2, 0.3, right=1.0), row(3, 9.0)]
    arm = [row(2, 0.6, right=0.0), row(1, 0.2, right=1.0), row(4, 9.0)]
    found = ablations.relative_to(reference, arm)
    assert found["acted best ADE v [mm]"] == pytest.approx({"value": 2.0, "samples": 2, "low": 2.0, "high": 2.0})
    assert found["right object ^"]["value"] == pytest.approx(0.5)
    assert (found["right object ^"]["low"], found["right object ^"]["high"]) == (0.0, 1.0)
    assert found["robot best ADE v [mm]"] == {}


def test_arms_share_weights_where_they_only_ask_differently(ablations: ModuleType) -> None:
    arms = ablations.ARMS
    assert next(iter(arms)) == "reference"
    for arm in arms.values():  # every arm can be trained
        SmallModel([], 30, replace(SmallTraining(1, channels=(32, 64)), **arm.training))
    asked = {"no-text", "hints", "no-projection", "steps-1", "steps-2", "steps-10", "steps-20"}
    assert {name for name, arm in arms.items() if arm.run == "10-functions"} == asked | {"reference"}
    assert arms["no-xyz"].run == "10-functions_points"
    assert (arms["raw"].basis, arms["raw"].run) == ("raw", "raw")
    assert len({arm.run for arm in arms.values()}) == len(arms) - len(asked) - 1  # two ask the same prediction


def test_a_folder_without_a_manifest_is_refused(
    ablations: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ablations.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "1"])
    assert "expected a folder with manifest.json" in capsys.readouterr().err


@pytest.mark.slow
def test_arms_are_trained_scored_and_not_done_again(
    ablations: ModuleType, simulated: list[Sample], prepared_folder: Path, tmp_path: Path
) -> None:
    from momap_ros.data.sample import write_shard

    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(prepared_folder / "shards", data)
    write_shard(data / "val-0000000-0000001.tar", simulated[:1])
    train = {"episodes": [[0, 12]], "num_views": 1, "size": 128, "samples": 12}
    manifest = {"mujoco": "4.0.0", "package": "9.8.7", "splits": {"train": train}}
    (data / "manifest.json").write_text(json.dumps(manifest))
    command = ["--data", str(data), "--out", str(out), "--steps", "2", "--batch-size", "4", "--splits", "val"]
    command += ["--workers", "1", "--arms", "no-text"]
    threads = torch.get_num_threads()
    try:
        assert ablations.main(command) == 0
        done = {
            path: path.stat().st_mtime_ns for folder in ("runs", "evaluation") for path in out.glob(f"{folder}/*/*")
        }
        assert ablations.main(command) == 0
    finally:
        torch.set_num_threads(threads)
    assert done == {path: path.stat().st_mtime_ns for path in done}
    report = json.loads((out / "ablations.json").read_text())
    assert list(report["arms"]) == ["reference", "no-text"]
    own = report["arms"]["reference"]["splits"]["val"]["relative"]["acted best ADE v [mm]"]
    assert (own["value"], own["samples"]) == (1.0, 1)
    page = (out / "ablations.md").read_text()
    assert "| no-text: is not given the sentence | 1 |" in page
    with pytest.raises(ValueError, match="steps 2; choose another --out"):
        ablations.main([*command, "--steps", "3"])
