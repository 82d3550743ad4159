from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.data.sample import iterate_samples
from momap_ros.simulation import generate as module
from momap_ros.simulation.generate import ShardTask, generate, make_shard

SMALL: dict[str, Any] = {"split": "val", "first_episode": 0, "num_views": 1, "size": 64, "num_workers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EPISODES_PER_SHARD", 3)
        generate(num_episodes=6, folder=path, **SMALL)
    return path


def test_shards_and_manifest_are_written(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        ["manifest.json"]
        + [f"val-{stem}.{suffix}" for stem in ("0000000-0000003", "0000003-0000006") for suffix in ("json", "tar")]
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["splits"]["val"]
    samples = list(iterate_samples(folder, "val"))
    assert manifest["mujoco"] == mujoco.__version__
    assert entry["episodes"] == [[0, 3], [3, 6]]
    assert entry["samples"] == len(samples) <= sum(entry["succeeded"].values())
    assert sum(entry["tried"].values()) <= 6
    assert len({sample.key for sample in samples}) == len(samples)
    assert all(sample.rgb.shape == (64, 64, 3) and sample.split == "val" for sample in samples)


def test_a_finished_shard_is_kept_and_a_missing_one_is_made_again_alike(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EPISODES_PER_SHARD", 3)
    kept, lost = folder / "val-0000000-0000003.tar", folder / "val-0000003-0000006.tar"
    before, digest = kept.stat().st_mtime_ns, hashlib.sha256(lost.read_bytes()).hexdigest()
    lost.with_suffix(".json").unlink()
    lost.unlink()
    generate(num_episodes=6, folder=folder, **SMALL)
    assert kept.stat().st_mtime_ns == before
    assert hashlib.sha256(lost.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 32}, "expected size 32, got 64"),
        ({"num_views": 2}, "expected num_views 2, got 1"),
        ({"first_episode": 1}, r"got 0\.\.2; start at a multiple of"),
    ],
)
def test_a_folder_is_never_mixed(folder: Path, changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(num_episodes=6, folder=folder, **{**SMALL, **changes})


def test_an_interrupted_shard_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(split: str, index: int) -> None:
        calls.append((split, index))
        if index == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "simulate_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shard(ShardTask("val", 0, 3, 1, 64, str(tmp_path)))
    assert calls == [("val", 0), ("val", 1)]
    assert list(tmp_path.iterdir()) == []


def test_the_help_teaches() -> None:
    command = [sys.executable, "-m", "momap_ros.simulation.generate", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(word in text for word in ("examples:", "splits:", "Interrupted?", "manifest.json", "--first-episode"))
