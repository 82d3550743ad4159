"""`momap data show`: stored samples as contact sheets and videos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import add_command, say, warn

if TYPE_CHECKING:
    import numpy as np

    from momap_ros.data.sample import Sample
    from momap_ros.rgbd import UInt8

# So many samples are looked at for one that is shown: views of one episode lie beside each other.
_LOOKED_AT_PER_SHOWN = 8

DESCRIPTION = """
Look at samples: contact sheets of the images with their true motion, of depth and of instances, and videos.

example:
  momap data show data_cache --out out/samples
  momap data show data_cache --skill open_drawer --count 12 --video 3 --out out/drawers

what comes out, in the folder --out:
  samples.png     first frames; the acted object outlined in green; true paths of a few points, from blue (first frame)
                  to yellow (end); below: skill, key, sentence, duration, how far and where to the acted object goes
  instances.png   the same samples: depth, and instances with their ids
  KEY.gif         with --video: the image's own pixels carried along their true motion, in real time

Samples are drawn from all over the split; the same --seed shows the same ones. Recordings without depth or motion are
shown as plain images and say so.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "show",
        "draw samples: contact sheets and videos",
        usage="FOLDER --out DIR [options]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with the shards SPLIT-*.tar")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--split", default="train", metavar="NAME", help="which shards (default: %(default)s)")
    parser.add_argument("--skill", default="", metavar="NAME", help="only samples of this skill (default: all skills)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which samples are drawn (default: %(default)s)"
    )
    for name, default, text in (
        ("count", 24, "samples on a sheet"),
        ("columns", 6, "samples in a row"),
        ("tile", 320, "width of a sample, pixels"),
        ("video", 0, "videos, of the first samples that move"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")
    parser.add_argument("--mp4", action="store_true", help="videos as .mp4: smaller files, which browsers do not play")
    parser.add_argument("--small", action="store_true", help="sheets in 256 colours: a third of the size")


def run(arguments: argparse.Namespace) -> int:
    """Draw and write."""
    import numpy as np
    from tqdm import tqdm

    from momap_ros.data.pictures import depth_sheet, motion_sheet

    for name, least in (("count", 1), ("columns", 1), ("tile", 100), ("video", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name}: expected a number from {least} on, got {getattr(arguments, name)}")
    drawn = drawn_samples(
        arguments.folder,
        arguments.split,
        count=arguments.count,
        skill=arguments.skill,
        rng=np.random.default_rng(arguments.seed),
    )
    of_skill = f", {arguments.skill}" if arguments.skill else ""
    title = f"{arguments.folder.resolve().name}, {arguments.split}{of_skill}"
    for name, sheet in tqdm((("samples", motion_sheet), ("instances", depth_sheet)), desc="draw", unit="sheet"):
        picture = sheet(drawn, title=title, columns=arguments.columns, width=arguments.tile)
        path = arguments.out / f"{name}.png"
        write_sheet(path, picture, small=arguments.small)
        say(f"wrote {path}: {len(drawn)} samples, {picture.shape[1]}x{picture.shape[0]} pixels")
    if arguments.video:
        write_videos(arguments.out, drawn, count=arguments.video, suffix=".mp4" if arguments.mp4 else ".gif")
    return 0


def drawn_samples(folder: Path, split: str, *, count: int, skill: str, rng: np.random.Generator) -> list[Sample]:
    """Random samples from all over a split, without reading all of it: the first ones of shards in random order.

    Args:
        folder: with the shards.
        split: name of the split.
        count: how many, at most.
        skill: only samples of this skill; of all where empty.
        rng: draws shards and samples.

    Returns:
        In order of skill and key.

    Raises:
        ValueError: no sample of the skill.
        FileNotFoundError: no shard of the split.
    """
    from itertools import islice

    from tqdm import tqdm

    from momap_ros.data.sample import read_shard, shard_paths

    paths = shard_paths(folder, split)
    chosen = [paths[index] for index in rng.permutation(len(paths))[:count]]
    skills: set[str] = set()

    def wanted(path: Path) -> Iterator[Sample]:
        for sample in read_shard(path):
            skills.add(sample.skill)
            if sample.skill == skill or not skill:
                yield sample

    pool: list[Sample] = []
    seen = 0
    per_shard = -(-count * _LOOKED_AT_PER_SHOWN // len(chosen))
    for path in tqdm(chosen, desc="read", unit="shard"):
        for sample in islice(wanted(path), per_shard):
            # Reservoir sampling: every sample stays with the same probability, and no more than count are held.
            seen += 1
            if len(pool) < count:
                pool.append(sample)
            elif (slot := int(rng.integers(seen))) < count:
                pool[slot] = sample
    if not pool:
        raise ValueError(f"{folder}: expected samples of skill {skill!r}, found {sorted(skills)}; take one of these")
    return sorted(pool, key=lambda sample: (sample.skill, sample.key))


def write_sheet(path: Path, picture: UInt8, *, small: bool) -> None:
    """Write an RGB picture as PNG; `small` with 256 colours."""
    from PIL import Image

    from momap_ros.files import atomic_path

    image = Image.fromarray(picture)
    if small:
        palette = image.quantize(256)
        image = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    with atomic_path(path) as partial:
        image.save(partial, optimize=small)


def write_videos(folder: Path, samples: list[Sample], *, count: int, suffix: str) -> None:
    """Write videos of the first samples in which something moves, named by their keys."""
    from itertools import islice

    from tqdm import tqdm

    from momap_ros.animation import save_animation
    from momap_ros.data.pictures import moves, sample_frames

    shown = list(islice(filter(moves, samples), count))
    for sample in tqdm(shown, desc="videos", unit="video"):
        path = save_animation(folder / f"{sample.key}{suffix}", sample_frames(sample), frame_s=sample.step_s)
        say(f"wrote {path}")
    if len(shown) < count:
        warn(f"{len(shown)} videos instead of {count}: no more of the samples drawn have motion; give a larger --count")
