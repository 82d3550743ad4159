"""Generate shards of simulated samples: `python -m momap_ros.simulation.generate --help`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mujoco
from tqdm import tqdm

from momap_ros.data.sample import Sample, write_shard
from momap_ros.files import atomic_path
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.views import render_samples

EPISODES_PER_SHARD = 250
FORMAT = "momap_samples/1"
_SHARD_NAME = re.compile(r"-(\d{7})-(\d{7})\.json$")
_HELP = """\
Simulate table-top manipulation episodes and write them as training samples.

Every episode is one scripted demonstration in a random scene, seen by several cameras. A sample is its first frame
(colour, depth, body ids), the rigid motion of every body over 50 steps, and a sentence. An episode depends on the split
and its number alone: the same command gives the same bytes, and another computer can make the next range of episodes.

splits:
  train     what a model learns from
  val       the same kinds of scenes, never the same episode
  objects   the acted object is of a kind that never occurs in train: banana, sponge, cup or pot

examples:
  a first look, half a minute on one core
    python -m momap_ros.simulation.generate --split train --episodes 250 --out data_cache
  fifty thousand episodes, three views each, on two cores (about 40 minutes and 9 GB)
    python -m momap_ros.simulation.generate --split train --episodes 50000 --workers 2 --out data_cache
  more of them later, or on another computer
    python -m momap_ros.simulation.generate --split train --first-episode 50000 --episodes 50000 --out data_cache

Interrupted? Give the same command again: finished shards are kept. Failed demonstrations are dropped and counted in
manifest.json, beside the versions and seeds that make the data again.
"""


@dataclass(frozen=True)
class ShardTask:
    """A fixed range of episodes that becomes one file."""

    split: str
    first: int
    stop: int
    num_views: int
    size: int
    folder: str

    @property
    def path(self) -> Path:
        """The tar; the report lies beside it as .json and is written last."""
        return Path(self.folder) / f"{self.split}-{self.first:07d}-{self.stop:07d}.tar"


def make_shard(task: ShardTask, progress: queue.Queue[int] | None = None) -> dict[str, Any]:
    """Write one shard and its report.

    Args:
        task: what to write.
        progress: receives 1 after every episode.

    Returns:
        The report: numbers per skill, seconds.
    """
    tried: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    start_wall, start_cpu = time.perf_counter(), time.process_time()

    def samples() -> Iterator[Sample]:
        for index in range(task.first, task.stop):
            episode = simulate_episode(task.split, index)
            if episode is not None:
                tried[episode.scene.skill] += 1
                if episode.rollout.success:
                    succeeded[episode.scene.skill] += 1
                    yield from render_samples(episode, task.num_views, task.size)
            if progress is not None:
                progress.put(1)

    count = write_shard(task.path, samples())
    report = {
        "task": asdict(task) | {"folder": None},
        "samples": count,
        "tried": dict(sorted(tried.items())),
        "succeeded": dict(sorted(succeeded.items())),
        "wall_s": round(time.perf_counter() - start_wall, 2),
        "cpu_s": round(time.process_time() - start_cpu, 2),
    }
    with atomic_path(task.path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(report))
    return report


def generate(
    *, split: str, first_episode: int, num_episodes: int, num_views: int, size: int, num_workers: int, folder: Path
) -> dict[str, Any]:
    """Write every shard of a range of episodes that is not there yet, and the manifest of the whole folder.

    Args:
        split: one of SPLITS.
        first_episode: number of the first episode.
        num_episodes: how many.
        num_views: cameras per episode.
        size: pixels of a side of the square images.
        num_workers: processes, one core each.
        folder: where the shards lie.

    Returns:
        The manifest.

    Raises:
        ValueError: the folder holds shards of another size, number of views or range that overlaps this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stop = first_episode + num_episodes
    bounds = range(first_episode, stop, EPISODES_PER_SHARD)
    tasks = [
        ShardTask(split, start, min(start + EPISODES_PER_SHARD, stop), num_views, size, str(folder)) for start in bounds
    ]
    _refuse_conflicts(folder, tasks)
    missing = [task for task in tasks if not task.path.with_suffix(".json").exists()]
    done = num_episodes - sum(task.stop - task.first for task in missing)
    with tqdm(total=num_episodes, initial=done, unit="episode", desc=f"simulate {split}", smoothing=0.05) as bar:
        _run(missing, num_workers, bar)
    manifest = _manifest(folder)
    with atomic_path(folder / "manifest.json") as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _run(tasks: list[ShardTask], num_workers: int, bar: tqdm[Any]) -> None:
    context = multiprocessing.get_context("spawn")  # OpenGL and forked processes do not go together
    with context.Manager() as manager, ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        progress = manager.Queue()
        pending: set[Future[Any]] = {pool.submit(make_shard, task, progress) for task in tasks}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                while not progress.empty():
                    bar.update(progress.get())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _refuse_conflicts(folder: Path, tasks: list[ShardTask]) -> None:
    """Two samples of one episode, or of two shapes, must never lie in one folder."""
    wanted = tasks[0]
    for report_path in sorted(folder.glob(f"{wanted.split}-*.json")):
        stored = json.loads(report_path.read_text())["task"]
        for name in ("num_views", "size"):
            if stored[name] != getattr(wanted, name):
                raise ValueError(
                    f"{report_path}: expected {name} {getattr(wanted, name)}, got {stored[name]}; "
                    "choose another --out folder"
                )
        overlaps = stored["first"] < tasks[-1].stop and wanted.first < stored["stop"]
        if overlaps and not any((task.first, task.stop) == (stored["first"], stored["stop"]) for task in tasks):
            raise ValueError(
                f"{report_path}: expected the same range of episodes or a disjoint one, got "
                f"{stored['first']}..{stored['stop'] - 1}; start at a multiple of {EPISODES_PER_SHARD} "
                "or choose another --out folder"
            )


def _manifest(folder: Path) -> dict[str, Any]:
    """What the folder holds and what it takes to make it again."""
    splits: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*-*.json")):
        if not _SHARD_NAME.search(path.name):
            continue
        report = json.loads(path.read_text())
        entry = splits.setdefault(
            report["task"]["split"],
            {"episodes": [], "samples": 0, "tried": {}, "succeeded": {}, "wall_s": 0.0, "cpu_s": 0.0},
        )
        entry["episodes"].append([report["task"]["first"], report["task"]["stop"]])
        entry["num_views"], entry["size"] = report["task"]["num_views"], report["task"]["size"]
        for name in ("samples", "wall_s", "cpu_s"):
            entry[name] = round(entry[name] + report[name], 2)
        for name in ("tried", "succeeded"):
            entry[name] = _added(entry[name], report[name])
    return {"format": FORMAT, "mujoco": mujoco.__version__, "package": package_version(), "splits": splits}


def _added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(first) + Counter(second)).items()))


def package_version() -> str:
    """Version of the installed package, or "source" when it runs from a checkout."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("momap_ros")
    except PackageNotFoundError:
        return "source"


def main() -> None:
    """Parse the command line and generate."""
    parser = argparse.ArgumentParser(
        prog="python -m momap_ros.simulation.generate",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", choices=SPLITS, required=True, help="which set of episodes")
    parser.add_argument("--episodes", type=int, required=True, help="number of episodes; about 96 %% of them succeed")
    parser.add_argument("--first-episode", type=int, default=0, help="number of the first episode (default: 0)")
    parser.add_argument("--views", type=int, default=3, help="cameras per episode (default: 3)")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side of the square images (default: 128)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes, one core each (default: all cores)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards and manifest.json")
    options = parser.parse_args()
    manifest = generate(
        split=options.split,
        first_episode=options.first_episode,
        num_episodes=options.episodes,
        num_views=options.views,
        size=options.size,
        num_workers=options.workers,
        folder=options.out,
    )
    entry = manifest["splits"][options.split]
    cost = entry["cpu_s"] / max(1, entry["samples"])
    tqdm.write(f"{options.out}: {entry['samples']} samples of {options.split}, {cost:.3f} CPU-s each")


if __name__ == "__main__":
    main()
