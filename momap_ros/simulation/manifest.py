"""manifest.json: what a folder of shards holds, and what it takes to make the same bytes again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from momap_ros.simulation.shards import SHAPE, ShardTask, describe_makers, sha256_of

FORMAT = "momap_samples/2"
LICENCE = "Apache-2.0"  # as the package: every byte is made by it, nothing is taken from elsewhere
SEEDS = (
    "numpy.random.default_rng([split, episode, stream]): a number per split, the episode's number, and a stream each "
    "for the scene, the demonstration and every camera (momap_ros/simulation/episodes.py)"
)
_MAY_CHANGE_BYTES = ("package", "commit", "numpy", "opencv")


def build_manifest(
    reports: Iterable[Mapping[str, Any]], dead_workers: list[dict[str, Any]], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of shards with these reports.

    Args:
        reports: of every shard, as `make_shard` returns them.
        dead_workers: all that ever died over the folder: number, pid, cause, shard and episode.
        arguments: of the command that was given last.

    Returns:
        JSON. Per split: shape of the samples; ranges of episodes (first, one past the last); numbers of samples and
        rollouts (successful episodes that are stored); `skills` and `no_scene` as in `make_shard`; one entry per shard;
        seconds, over all processes; the most memory that a worker held. `made_with`: one entry per combination of
        versions that made a shard.
    """
    makers: list[dict[str, Any]] = []
    splits: dict[str, dict[str, Any]] = {}
    for report in reports:
        if report["made_with"] not in makers:
            makers.append(report["made_with"])
        task = ShardTask(**report["task"])
        entry = splits.setdefault(task.split, _empty_entry(task))
        entry["episodes"].append([task.first, task.stop])
        for name in ("samples", "rollouts", "no_scene", "bytes", "wall_s", "cpu_s"):
            entry[name] = round(entry[name] + report[name], 2)
        for skill, counts in report["skills"].items():
            entry["skills"][skill] = dict(Counter(entry["skills"].get(skill, {})) + Counter(counts))
        entry["memory_mib"] = max(entry["memory_mib"], report["worker"]["memory_mib"])
        shard = {"name": task.name, "first": task.first, "stop": task.stop}
        entry["shards"].append(shard | {name: report[name] for name in ("samples", "bytes", "sha256")})
    for entry in splits.values():
        entry["skills"] = dict(sorted(entry["skills"].items()))
    now = describe_makers()
    return {
        "format": FORMAT,
        "licence": LICENCE,
        "mujoco": now["mujoco"],
        "package": now["package"],
        "made_with": makers,
        "seeds": SEEDS,
        "arguments": dict(arguments),
        "splits": splits,
        "dead_workers": dead_workers,
    }


def _empty_entry(task: ShardTask) -> dict[str, Any]:
    zeros = dict.fromkeys(("samples", "rollouts", "no_scene", "bytes", "memory_mib", "wall_s", "cpu_s"), 0)
    shape = {"size": f"{task.width}x{task.height}"} | task.shape
    return shape | zeros | {"skills": {}, "episodes": [], "shards": []}


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest from which the shards can be made again here.

    Raises:
        ValueError: it is no manifest, or another version of MuJoCo made the shards: the motions would differ.
    """
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the manifest.json of a folder of shards, got {error!r}") from None
    if found != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {found}; use the version of momap_ros that wrote it")
    here = describe_makers()["mujoco"]
    made_with = sorted({maker["mujoco"] for maker in manifest["made_with"]} - {here})
    if made_with:
        raise ValueError(
            f"{path}: expected shards made with mujoco {here}, which is installed, got mujoco {', '.join(made_with)}: "
            f"its motions differ; pip install mujoco=={made_with[0]}"
        )
    return manifest


def tasks_of(manifest: Mapping[str, Any]) -> list[ShardTask]:
    """Every shard of a manifest, by split and episode."""
    return [
        ShardTask(
            split=split,
            first=shard["first"],
            stop=shard["stop"],
            **{name: entry[name] for name in SHAPE},
        )
        for split, entry in manifest["splits"].items()
        for shard in entry["shards"]
    ]


def differing_makers(manifest: Mapping[str, Any]) -> list[str]:
    """What is installed here in another version than the shards were made with, in words; bytes may differ for it."""
    here = describe_makers()
    return [
        f"{name}: made with {maker[name]}, here is {here[name]}"
        for maker in manifest["made_with"]
        for name in _MAY_CHANGE_BYTES
        if maker[name] != here[name]
    ]


def first_difference(manifest: Mapping[str, Any], folder: Path) -> str | None:
    """Compare the shards of a folder with a manifest, byte for byte; the first one that differs, in words."""
    for entry in manifest["splits"].values():
        for shard in entry["shards"]:
            path = folder / f"{shard['name']}.tar"
            size, digest = path.stat().st_size, sha256_of(path)
            if digest != shard["sha256"]:
                return (
                    f"{path}: expected sha256 {shard['sha256']} ({shard['bytes']} bytes), got {digest} ({size} bytes)"
                )
    return None
