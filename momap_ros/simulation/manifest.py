"""manifest.json: what a folder of shards holds or is planned to, and what it takes to make the same bytes again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from momap_ros.files import atomic_path
from momap_ros.simulation.shards import SHAPE, ShardTask, describe_makers, sha256_of

FORMAT = "momap_samples/2"
LICENCE = "Apache-2.0"  # as the package: every byte is made by it, nothing is taken from elsewhere
SEEDS = (
    "numpy.random.default_rng([split, episode, stream]): a number per split, the episode's number, and a stream each "
    "for the scene, the demonstration and every camera (momap_ros/simulation/episodes.py)"
)
_MAY_CHANGE_BYTES = ("package", "commit", "numpy", "simd", "opencv")


def build_manifest(
    shards: Iterable[ShardTask | Mapping[str, Any]],
    dead_workers: list[dict[str, Any]],
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest of these shards.

    Args:
        shards: by split and episode: of one that is made the report, as `make_shard` returns it; of another its task.
        dead_workers: all that ever died over the folder: number, pid, cause, shard and episode.
        arguments: of the command that was given last.

    Returns:
        JSON. Per split: shape of the samples; ranges of episodes (first, one past the last); one entry per shard, with
        samples, bytes and sha256 where it is made. Of what is made: numbers of samples and rollouts (successful
        episodes that are stored); `skills` and `no_scene` as in `make_shard`; seconds, over all processes; the most
        memory that a worker held. `made_with`: one entry per combination of versions that made a shard.
        `planned_with`: the versions that are here, if a shard is still to be made; else None.
    """
    makers: list[dict[str, Any]] = []
    splits: dict[str, dict[str, Any]] = {}
    here = describe_makers()
    planned_with = None
    for shard in shards:
        if isinstance(shard, ShardTask):
            planned_with = here
            _list_shard(splits, shard, {})
            continue
        if shard["made_with"] not in makers:
            makers.append(shard["made_with"])
        task = ShardTask(**shard["task"])
        _count(_list_shard(splits, task, {name: shard[name] for name in ("samples", "bytes", "sha256")}), shard)
    for entry in splits.values():
        entry["skills"] = dict(sorted(entry["skills"].items()))
    return {
        "format": FORMAT,
        "licence": LICENCE,
        "mujoco": here["mujoco"],
        "package": here["package"],
        "made_with": makers,
        "planned_with": planned_with,
        "seeds": SEEDS,
        "arguments": dict(arguments),
        "splits": splits,
        "dead_workers": dead_workers,
    }


def _list_shard(splits: dict[str, dict[str, Any]], task: ShardTask, made: Mapping[str, Any]) -> dict[str, Any]:
    """Add a shard to its split's entry, which is returned."""
    entry = splits.setdefault(task.split, _empty_entry(task))
    if entry["episodes"] and entry["episodes"][-1][1] == task.first:
        entry["episodes"][-1][1] = task.stop
    else:
        entry["episodes"].append([task.first, task.stop])
    entry["shards"].append({"name": task.name, "first": task.first, "stop": task.stop, **made})
    return entry


def _count(entry: dict[str, Any], report: Mapping[str, Any]) -> None:
    for name in ("samples", "rollouts", "no_scene", "bytes", "wall_s", "cpu_s"):
        entry[name] = round(entry[name] + report[name], 2)
    for skill, counts in report["skills"].items():
        entry["skills"][skill] = dict(Counter(entry["skills"].get(skill, {})) + Counter(counts))
    entry["memory_mib"] = max(entry["memory_mib"], report["worker"]["memory_mib"])


def _empty_entry(task: ShardTask) -> dict[str, Any]:
    zeros = dict.fromkeys(("samples", "rollouts", "no_scene", "bytes", "memory_mib", "wall_s", "cpu_s"), 0)
    shape = {"size": f"{task.width}x{task.height}"} | task.shape
    return shape | zeros | {"skills": {}, "episodes": [], "shards": []}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write it whole or not at all, every shard on a line of its own."""
    text = json.dumps(manifest, indent=2)
    # JSON writes a line break inside a string as \\n, so these are all between its parts.
    text = re.sub(r"[{\[][^{}\[\]]*[}\]]", lambda innermost: re.sub(r"\n *", " ", innermost[0]), text)
    with atomic_path(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


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
    made_with = sorted({maker["mujoco"] for maker in _makers(manifest)} - {here})
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
    """What is installed here in another version than the manifest names, in words; bytes may differ for it."""
    here = describe_makers()
    differences = {
        f"{name}: made with {maker.get(name, 'an unknown one')}, here is {here[name]}": None
        for maker in _makers(manifest)
        for name in _MAY_CHANGE_BYTES
        if maker.get(name) != here[name]
    }
    return list(differences)


def _makers(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    planned_with = manifest.get("planned_with")
    return [*manifest["made_with"], *([planned_with] if planned_with else [])]


def first_difference(manifest: Mapping[str, Any], folder: Path) -> str | None:
    """Compare the shards of a folder with a manifest, byte for byte; the first one that differs, in words.

    A shard whose hash the manifest does not know differs from nothing; `unknown_hashes` names it.
    """
    for entry in manifest["splits"].values():
        for shard in entry["shards"]:
            if "sha256" not in shard:
                continue
            path = folder / f"{shard['name']}.tar"
            size, digest = path.stat().st_size, sha256_of(path)
            if digest != shard["sha256"]:
                return (
                    f"{path}: expected sha256 {shard['sha256']} ({shard['bytes']} bytes), got {digest} ({size} bytes)"
                )
    return None


def unknown_hashes(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the shards that were only planned when the manifest was written."""
    return [
        shard["name"] for entry in manifest["splits"].values() for shard in entry["shards"] if "sha256" not in shard
    ]
