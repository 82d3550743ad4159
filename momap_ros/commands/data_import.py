"""`momap data import`: recordings that others made, as stored samples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import add_command, positive, say, warn

if TYPE_CHECKING:
    from momap_ros.data.importing.common import Importer

KINDS = ("lerobot", "bridge-rlds", "bag", "bridge-mp4")

DESCRIPTION = """
Make samples of recordings: the first frame of every episode with its instruction.

kinds, found by the names of the files:
  bridge-rlds   a folder of *.tfrecord* files, or one: BRIDGE and its relatives, made by TensorFlow Datasets
  bridge-mp4    a folder of videos, or one; the task is read from the names of BRIDGE's files
  lerobot       the folder of a LeRobot data set v2.0, v2.1 or v3.0 (needs pyarrow: pip install 'momap_ros[data]')
  bag           an RGB-D rosbag2 recording, or a folder of such recordings

A recording is no simulation, and every sample says so: `lacks` names what nobody measured. The first three kinds have
colour alone: no depth, no instances, no motion; a pinhole camera of the field of view --vertical-fov-deg is assumed.
Bags have depth and intrinsics, their own instances or those of --segment, and no motion.

example:
  momap data import bridge_dataset/1.0.0 --out data_bridge --licence "CC BY 4.0"
  momap data import lerobot_dataset --out data_lerobot --camera observation.images.top --every 30
  momap data import kitchen_bag --out data_kitchen --segment --licence own

what comes out, in the new folder --out, whole or not at all:
  NAME-0000000-0000250.tar   samples of 250 episodes and so on, to be read like those of `momap simulate`
  manifest.json              counts, what is lacking, episodes left out by reason, licence, SHA-256 of every file read
"""


def add_parser(parts: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the part."""
    parser = add_command(
        parts,
        "import",
        "make samples of recordings",
        usage="SOURCE --out DIR [options]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="file or folder to read; it is never changed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must not exist")
    parser.add_argument("--kind", choices=KINDS, help="kind of the recordings (default: found by their files' names)")
    parser.add_argument("--name", default="", help="name of the samples' split (default: bridge, lerobot or bag)")
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of the recordings, for the manifest")
    which = parser.add_argument_group("Which frames")
    which.add_argument("--camera", default="", metavar="NAME", help="which of several cameras (default: the first)")
    which.add_argument(
        "--every", type=positive, default=0, metavar="N", help="every N-th frame (default: the first alone)"
    )
    which.add_argument("--episodes", type=positive, metavar="N", help="stop after N episodes (default: all)")
    parser.add_argument(
        "--vertical-fov-deg",
        type=float,
        metavar="DEG",
        help="field of view to assume where intrinsics are unknown (default: 43.3, a Logitech C920 as in BRIDGE)",
    )
    parser.add_argument(
        "--segment", action="store_true", help="find instances on the table of bags that have no label images"
    )


def run(arguments: argparse.Namespace) -> int:
    """Import, and say what came of it."""
    from tqdm import tqdm

    from momap_ros.data.importing.common import ASSUMED_VERTICAL_FOV_DEG, Request
    from momap_ros.data.importing.importer import IMPORTERS, find_importer, import_recordings

    importer: Importer = IMPORTERS[arguments.kind] if arguments.kind else find_importer(arguments.source)
    request = Request(arguments.source, arguments.camera, arguments.every, arguments.segment)
    with tqdm(desc=f"import {importer.KIND}", unit="episode") as bar:
        manifest = import_recordings(
            request,
            importer,
            arguments.out,
            split=arguments.name,
            licence=arguments.licence,
            vertical_fov_deg=arguments.vertical_fov_deg or ASSUMED_VERTICAL_FOV_DEG,
            max_episodes=arguments.episodes,
            on_episode=bar.update,
        )
    for reason, skipped in manifest["skipped"].items():
        warn(f"skipped {skipped['count']}x: {reason} ({', '.join(skipped['episodes'][:3])})")
    for note, count in manifest["notes"].items():
        warn(f"{count}x: {note}")
    if not arguments.licence:
        warn("no --licence: manifest.json says 'not stated'")
    if count := manifest["samples_without_text"]:
        warn(f"{count} samples have no instruction")
    say(f"{arguments.out}: {manifest['samples']} samples of {manifest['episodes']} episodes ({importer.KIND})")
    say(f"nobody measured: {', '.join(manifest['lacks'])}")
    return 0
