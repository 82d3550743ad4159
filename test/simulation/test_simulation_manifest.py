"""The committed manifest of the training data: whole, large enough, and of this simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.simulation.generate import Request, regenerate
from momap_ros.simulation.manifest import read_manifest, tasks_of, unknown_hashes
from momap_ros.simulation.shards import describe_makers

# The committed manifest is older than this entry of it; what made its shards had AVX-512.
MADE_WITH_SIMD = ("X86_V4", "AVX512_ICL", "AVX512_SPR")
EPISODES, ROLLOUTS, CORES, MINUTES = 51_000, 50_000, 16, 10


@pytest.fixture(scope="module")
def committed(repository: Path) -> dict[str, Any]:
    return read_manifest(repository / "benchmarks/results/data/train_128_manifest.json")


def test_it_lists_every_episode_once_and_in_order(committed: dict[str, Any]) -> None:
    request = Request("train", num_views=2, width=128, height=128, num_steps=50, episodes=EPISODES)
    assert tasks_of(committed) == list(request.tasks())
    assert committed["splits"]["train"]["episodes"] == [[0, EPISODES]]
    assert committed["licence"] == "Apache-2.0"


def test_what_is_made_says_that_it_is_enough_and_quick_enough(committed: dict[str, Any]) -> None:
    entry = committed["splits"]["train"]
    made = [shard for shard in entry["shards"] if "sha256" in shard]
    assert len(made) + len(unknown_hashes(committed)) == len(entry["shards"])
    assert len({shard["sha256"] for shard in made}) == len(made)
    assert sum(shard["samples"] for shard in made) == entry["samples"]
    tried = sum(shard["stop"] - shard["first"] for shard in made)
    assert tried >= 10_000
    assert entry["rollouts"] / tried * EPISODES >= ROLLOUTS
    assert entry["cpu_s"] / tried * EPISODES / CORES < MINUTES * 60


@pytest.mark.slow
def test_its_first_shard_is_made_again_byte_for_byte(committed: dict[str, Any], tmp_path: Path) -> None:
    if (simd := describe_makers()["simd"]) not in MADE_WITH_SIMD:
        pytest.skip(f"bytes depend on the processor: these were made with AVX-512, here is {simd}")
    entry = committed["splits"]["train"]
    path, out = tmp_path / "first.json", tmp_path / "out"
    path.write_text(json.dumps(committed | {"splits": {"train": entry | {"shards": entry["shards"][:1]}}}))
    difference = regenerate(path, out, num_workers=1)
    [then], [now] = committed["made_with"], json.loads((out / "manifest.json").read_text())["made_with"]
    others = [name for name in ("numpy", "opencv", "renderer") if then[name] != now[name]]
    if others:
        pytest.skip(f"bytes depend on {', '.join(others)}, of which another version is here")
    assert difference is None, f"{difference}; was the simulator changed? Then plan again: docs/data_card.md"
