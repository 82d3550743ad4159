"""`momap data stats`: what a set of samples consists of, in numbers and plots."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from momap_ros.commands.common import add_command, add_settings, say
from momap_ros.config import ObjectMotionConfig

DESCRIPTION = """
Count and plot what a folder of samples consists of: how many pixels move (robot against objects), how far and where to
the acted objects go, skills, words, depth, instances, durations.

Samples are read one after the other, about a hundred per second and core at 256x256; a few numbers of each
are kept.

example:
  momap data stats data_cache --out out/stats
  momap data stats data_cache --split objects --limit 2000 --out out/stats_objects

what comes out: the tables, printed and as DIR/stats.md; DIR/stats.json with the same numbers and the histograms (SI
units, shares from 0 to 1); DIR/stats.png with the plots.

how to read them: a pixel moves if it is at any step farther than --moving-threshold-m from where it was seen. Shares
are parts of all pixels of an image. Directions are those of the acted object's centre from the first to the last step:
left, right, up, down, closer and away in the camera's frame (one sample may count in three of them), the round plot
over the ground. Recordings count only where they have what a figure needs.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "stats",
        "count and plot what samples consist of",
        usage="FOLDER --out DIR [options]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with the shards SPLIT-*.tar")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--split", default="train", metavar="NAME", help="which shards (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples (default: all)")
    add_settings(parser, ObjectMotionConfig, only=("moving_threshold_m",))


def run(arguments: argparse.Namespace) -> int:
    """Read, count and write."""
    from itertools import islice

    from tqdm import tqdm

    from momap_ros.commands.common import read_settings
    from momap_ros.data.plots import plot_statistics
    from momap_ros.data.sample import iterate_samples, shard_paths
    from momap_ros.data.statistics import Statistics, markdown
    from momap_ros.files import atomic_path

    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit: expected a number of samples from 1 on, got {arguments.limit}")
    statistics = Statistics(moving_threshold_m=read_settings(arguments, ObjectMotionConfig).moving_threshold_m)
    total = min(estimated_count(shard_paths(arguments.folder, arguments.split)), arguments.limit or 10**12)
    samples = islice(iterate_samples(arguments.folder, arguments.split), arguments.limit)
    for sample in tqdm(samples, total=total, desc="stats", unit="sample"):
        statistics.add(sample)
    if not statistics.num_samples:
        raise ValueError(f"{arguments.folder}: expected samples in the shards of {arguments.split}, they are empty")
    title = f"{statistics.num_samples:,} samples of {arguments.split} in {arguments.folder.resolve().name}"
    summary = {"folder": arguments.folder.resolve().name, "split": arguments.split, **statistics.summary()}
    tables = markdown(summary, title=title)
    for name, text in (("stats.json", json.dumps(summary, indent=1) + "\n"), ("stats.md", tables)):
        with atomic_path(arguments.out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    plot_statistics(arguments.out / "stats.png", statistics, title=title)
    say(tables)
    say(f"written to {arguments.out}: stats.md, stats.json, stats.png")
    return 0


def estimated_count(shards: Sequence[Path]) -> int:
    """About how many samples the shards hold: those of the first one, and the others by their size."""
    import tarfile

    with tarfile.open(shards[0], "r:") as tar:
        count = sum(name.endswith(".json") for name in tar.getnames())
    return round(count * sum(path.stat().st_size for path in shards) / shards[0].stat().st_size)
