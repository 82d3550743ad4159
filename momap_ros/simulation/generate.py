"""Generate shards of simulated samples: `momap simulate --help`."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from momap_ros.simulation import shards
from momap_ros.simulation.manifest import (
    build_manifest,
    differing_makers,
    first_difference,
    read_manifest,
    tasks_of,
    unknown_hashes,
    write_manifest,
)
from momap_ros.simulation.shard_folder import ShardFolder
from momap_ros.simulation.shard_run import ProgressBar, make_shards, note
from momap_ros.simulation.shards import ShardTask
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.workers import MAX_DEATHS

_LEAST = {"num_views": 1, "width": 16, "height": 16, "num_steps": 2, "episodes": 1, "count": 1, "first_episode": 0}
_CHOICES = ("split", "count", "episodes", "first_episode", "num_views", "size", "num_steps", "visibility")
_SPLIT_LINES = "\n".join(f"  {split.name:<12}{split.meaning}" for split in SPLITS.values())
_HELP = f"""\
Simulate table-top manipulation episodes and write them as training samples.

Every episode is one scripted demonstration in a random scene, seen by several cameras. A sample is its first frame
(colour, depth, body ids), the rigid motion of every body over the steps, and a sentence. An episode depends on the
split and its number alone: the same command gives the same bytes, with any number of workers and after any
interruption, and another computer can make the next range of episodes.

splits, each with episodes of its own:
{_SPLIT_LINES}

examples:
  a first look, half a minute on one core
    momap simulate --split train --count 100 --size 128 --out data_cache
  twenty thousand rollouts, two views each, on sixteen cores
    momap simulate --split train --count 20000 --workers 16 --out data_cache
  episodes 50000 to 59999, for instance on another computer; in a folder of their own or the same one
    momap simulate --split train --first-episode 50000 --episodes 10000 --out data_cache
  the very same shards again, elsewhere, compared byte for byte
    momap simulate --from-manifest data_cache/manifest.json --out copy
  a manifest for others to make shards from, before they are made here; hashes of those that are in data_cache
    momap simulate --split train --episodes 51000 --size 128 --plan plan.json --out data_cache

how many: --count asks for successful rollouts. Episodes are tried in the order of their numbers, in shards of
  {shards.EPISODES_PER_SHARD}, and the data set is the smallest number of whole shards that holds as many.
  --episodes tries an exact range instead, whatever succeeds.

what comes out: SPLIT-FIRST-STOP.tar per shard, a plain tar with WebDataset names, and beside it a report. Any tar tool,
  webdataset, or momap_ros.data.sample.read_shard reads it; a training job streams it without a file per image.
  manifest.json: versions, seeds, counts per skill (tried, failed, stored), sha256 of every shard, time, dead workers.
  A plan is a manifest too; it lacks the sha256 of shards that were not there.

interrupted? Give the same command again: whole shards are kept, nothing is lost but the shards being written. A worker
  that dies is named and replaced, and its shard made again; a shard that ends {MAX_DEATHS} workers stops the run
  and says which episode to look at.
"""


@dataclass(frozen=True)
class Request:
    """Which shards a run makes: consecutive ones from an episode on.

    Attributes:
        split: one of SPLITS.
        first_episode: number of the first episode.
        num_views: cameras per episode.
        width: pixels.
        height: pixels.
        num_steps: of the motion.
        visibility: whether samples say which points are seen at every step.
        episodes: how many are tried; None where `count` decides.
        count: stored rollouts wanted; None where `episodes` decides.
    """

    split: str
    first_episode: int = 0
    num_views: int = 2
    width: int = 256
    height: int = 256
    num_steps: int = 50
    visibility: bool = False
    episodes: int | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse requests that mean nothing."""
        if (self.episodes is None) == (self.count is None):
            raise ValueError(f"expected either episodes or count, got {self.episodes} and {self.count}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.visibility and SPLITS[self.split].num_futures > 1:
            raise ValueError(f"split {self.split}: expected no visibility, futures share one image; leave it out")

    def tasks(self) -> Iterator[ShardTask]:
        """The shards in order, without an end where rollouts are counted."""
        end = math.inf if self.episodes is None else self.first_episode + self.episodes
        for first in itertools.count(self.first_episode, shards.EPISODES_PER_SHARD):
            if first >= end:
                return
            stop = int(min(first + shards.EPISODES_PER_SHARD, end))
            yield ShardTask(self.split, first, stop, **{name: getattr(self, name) for name in shards.SHAPE})


def generate(request: Request, folder: Path, num_workers: int) -> dict[str, Any]:
    """Make every shard of a request that is not there yet, and the manifest of the whole folder.

    Args:
        request: which shards.
        folder: where they lie.
        num_workers: processes, one core each.

    Returns:
        The manifest, see `build_manifest`.

    Raises:
        ValueError: the folder holds shards of another shape, simulator or range that overlaps this one.
        FolderInUseError: another run writes into the folder.
        GenerationError: an episode ends every worker that tries it, or no episode succeeds.
    """
    shard_folder = ShardFolder(folder, note)
    with shard_folder.locked():
        shard_folder.refuse_conflicts(request.tasks())
        total, unit = (request.count, "rollout") if request.count else (request.episodes, "episode")
        bar = ProgressBar(total or 0, unit, f"simulate {request.split}")
        make_shards(shard_folder, request.tasks(), num_workers, bar=bar, count=request.count)
        arguments = asdict(request) | {"workers": num_workers}
        manifest = build_manifest(shard_folder.reports(), shard_folder.deaths(), arguments)
        shard_folder.finish(manifest, [request.split])
    return manifest


def plan(request: Request, folder: Path, path: Path) -> dict[str, Any]:
    """Write the manifest that a folder would have if all shards of a request were made; make none.

    Args:
        request: which shards.
        folder: where they would lie. Shards of the request that are there already are listed with their hashes; nothing
            in the folder is changed, and it may be missing.
        path: the manifest.

    Returns:
        The manifest, see `build_manifest`.

    Raises:
        ValueError: the request counts rollouts, or its shards do not fit into the folder, see `generate`.
    """
    if request.episodes is None:
        raise ValueError("plan: expected episodes, got a count: how many succeed is known once they are made")
    shard_folder = ShardFolder(folder, note)
    shard_folder.refuse_conflicts(request.tasks())
    made = {ShardTask(**report["task"]): report for report in shard_folder.reports()}
    manifest = build_manifest((made.get(task, task) for task in request.tasks()), [], asdict(request))
    write_manifest(path, manifest)
    return manifest


def regenerate(manifest_path: Path, folder: Path, num_workers: int) -> str | None:
    """Make the shards of a manifest again and compare them with it, byte for byte.

    Args:
        manifest_path: what `generate` or `plan` wrote.
        folder: for the new shards; not the manifest's own.
        num_workers: processes, one core each.

    Returns:
        The first difference in words, None where there is none. Shards whose hash the manifest does not know are named
        on standard error; the hashes are in the new folder's manifest.

    Raises:
        ValueError: the manifest was made by another simulator, or the folder holds something else.
    """
    expected = read_manifest(manifest_path)
    if folder.resolve() == manifest_path.resolve().parent:
        raise ValueError(f"{folder}: expected another --out folder than the manifest's own")
    for difference in differing_makers(expected):
        note(f"{difference}; the bytes may differ")
    tasks = tasks_of(expected)
    shard_folder = ShardFolder(folder, note)
    with shard_folder.locked():
        for split in expected["splits"]:
            shard_folder.refuse_conflicts(task for task in tasks if task.split == split)
        bar = ProgressBar(sum(task.num_episodes for task in tasks), "episode", "simulate again")
        make_shards(shard_folder, iter(tasks), num_workers, bar=bar)
        arguments = {"from_manifest": manifest_path.name, "workers": num_workers}
        manifest = build_manifest(shard_folder.reports(), shard_folder.deaths(), arguments)
        shard_folder.finish(manifest, expected["splits"])
        for name in unknown_hashes(expected):
            note(f"{name}.tar: made, hash not known before")
        return first_difference(expected, folder)


def main() -> int:
    """Parse the command line and generate."""
    parser = _parser()
    options = parser.parse_args()
    chosen = {name: value for name, value in vars(options).items() if name in _CHOICES and value is not None}
    if options.from_manifest is not None:
        given = sorted(chosen) + ["plan"] * (options.plan is not None)
        if given:
            parser.error(f"--from-manifest: the manifest says everything else, but {given} was given too")
        difference = regenerate(options.from_manifest, options.out, options.workers)
        note(difference or f"{options.out}: no difference from {options.from_manifest}")
        return int(difference is not None)
    if options.split is None:
        parser.error("expected --split")
    if "size" in chosen:
        chosen["width"], chosen["height"] = chosen.pop("size")
    request = Request(**chosen)
    if options.plan is not None:
        manifest = plan(request, options.out, options.plan)
        planned, unknown = len(tasks_of(manifest)), len(unknown_hashes(manifest))
        note(f"{options.plan}: {planned} shards, {planned - unknown} with hashes from {options.out}")
        return 0
    manifest = generate(request, options.out, options.workers)
    entry = manifest["splits"][options.split]
    note(
        f"{options.out}: {entry['rollouts']} rollouts, {entry['samples']} samples of {options.split}, "
        f"{entry['cpu_s'] / max(1, entry['samples']):.3f} CPU-s each"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="momap simulate", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", type=int, metavar="N", help="successful rollouts wanted")
    what.add_argument("--episodes", type=int, metavar="N", help="episodes to try, whether they succeed or not")
    what.add_argument(
        "--from-manifest", type=Path, metavar="FILE", help="make these shards again and compare; exit code 1: different"
    )
    parser.add_argument(
        "--plan", type=Path, metavar="FILE", help="write the manifest of all that --out would hold; make no shard"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--split", choices=SPLITS, help="which set of episodes")
    parser.add_argument("--first-episode", type=int, metavar="N", help="number of the first episode (default: 0)")
    parser.add_argument("--views", dest="num_views", type=int, metavar="N", help="cameras per episode (default: 2)")
    parser.add_argument("--size", type=_size, metavar="PIXELS", help="256, or 640x480 (default: 256)")
    parser.add_argument("--steps", dest="num_steps", type=int, metavar="N", help="of the motion (default: 50)")
    parser.add_argument(
        "--visibility", action="store_true", default=None, help="also store which points are seen at every step (slow)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes, one core each (default: all cores)",
    )
    return parser


def _size(text: str) -> tuple[int, int]:
    """Width and height of "256" or "640x480"."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a number of pixels or WIDTHxHEIGHT, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


if __name__ == "__main__":
    raise SystemExit(main())
