"""`momap bag`: what is in a recording, can it be used, and recordings made of images."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands import bag_score
from momap_ros.commands.common import add_bag_options, add_command, chosen_topics, say, warn

if TYPE_CHECKING:
    from momap_ros.bag_import import CameraFile

DESCRIPTION = """
Recordings (rosbag2, mcap or sqlite3): look inside, check whether a forecast can be made of them, score
forecasts of them, make them of images, play them. Only `play` needs ROS.

example:
  momap bag check kitchen_bag
"""

INFO = """
List a recording's topics with their types, numbers of messages and mean rates, its duration and size.

example:
  momap bag info kitchen_bag
"""

CHECK = """
Say whether momap can use a recording: each requirement with what was found and, where it fails, what to do.

Looked at: is the recording complete; colour, depth and camera_info topics; stamps and how far colour and depth are
apart; intrinsics; image size and frame of depth against colour (registration); share of missing depth and its unit.

example:
  momap bag check kitchen_bag --depth-topic /camera/aligned_depth_to_color/image_raw

exit code: 0 when forecasts can be made (warnings are allowed), 1 when not.
"""

FROM_IMAGES = """
Make a recording of a folder of images, or of a video.

Recognised: color/ and depth/ with equal file names; *_color.jpg and *_depth.png (and *_label.png) side by side; a
folder of colour images alone; a video. Depth is 16-bit PNG, 0 = no reading, registered to colour; its unit is a
millimetre unless --depth-unit-m or camera.json says otherwise. A camera.json beside the images is read: width, height,
fx, fy, cx, cy (pixels), and where given depth_unit_m, stamps_s, instruction.

example:
  momap bag from-images photos/ kitchen_bag --fx 615 --fy 615 --cx 320 --cy 240
  momap bag from-images photos/ kitchen_bag --camera realsense.json --rate 10 --prompt "open the drawer"
  momap bag from-images episode.mp4 colour_only_bag

what comes out: OUT/ with /color/image_raw (rgb8), /depth/image_raw (16UC1, or 32FC1 where the unit is not a
millimetre), /color/camera_info, /instances and /prompt, as far as there is something to write. Without depth no
forecast can be made.
"""

PLAY = """
Publish a recording on live topics at its recorded rate, with /clock. Needs ROS: the wheels of `make setup`, or a
sourced installation. It is the same program as
`ros2 run momap_ros bag_player`; `momap bag play -- --help` lists its options.

example:
  momap bag play kitchen_bag --rate 0.5 --loop
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command and its parts."""
    parser = add_command(
        commands,
        "bag",
        "look into, check, score, make and play recordings",
        usage="PART ...",
        description=DESCRIPTION,
        run=run_info,
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    info = add_command(
        parts, "info", "list topics, counts, rates, duration", usage="BAG", description=INFO, run=run_info
    )
    info.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, or a bare .mcap or .db3 file")
    check = add_command(
        parts, "check", "can momap use it, and if not, why", usage="BAG [options]", description=CHECK, run=run_check
    )
    add_bag_options(check)
    bag_score.add_part(parts)
    _add_from_images(parts)
    play = add_command(
        parts,
        "play",
        "publish it on live topics (needs ROS)",
        usage="BAG [options of the player]",
        description=PLAY,
        run=run_play,
    )
    play.add_argument("arguments", nargs=argparse.REMAINDER, metavar="BAG ...", help="the recording, then options")


def _add_from_images(parts: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    parser = add_command(
        parts,
        "from-images",
        "make one of images or a video",
        usage="FOLDER OUT [options]",
        description=FROM_IMAGES,
        run=run_from_images,
    )
    parser.add_argument("source", type=Path, metavar="FOLDER", help="folder of images, or a video file")
    parser.add_argument("out", type=Path, metavar="OUT", help="recording to make; must not exist")
    parser.add_argument(
        "--camera", type=Path, metavar="JSON", help="camera file (default: camera.json beside the images)"
    )
    for name, text in (
        ("fx", "focal length"),
        ("fy", "focal length"),
        ("cx", "principal point"),
        ("cy", "principal point"),
    ):
        parser.add_argument(f"--{name}", type=float, metavar="PX", help=f"{text}, pixels; instead of --camera")
    parser.add_argument("--depth-unit-m", type=float, metavar="M", help="metres of one step of depth (default: 0.001)")
    parser.add_argument("--prompt", help="sentence to write on /prompt (default: the camera file's instruction)")
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="frames per second where there are no stamps (default: 5)"
    )
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="default: %(default)s")


def run_info(arguments: argparse.Namespace) -> int:
    """Print the summary."""
    from momap_ros.bag_check import summarise
    from momap_ros.report import aligned

    summary = summarise(arguments.bag)
    start = datetime.fromtimestamp(summary.start_ns * 1e-9, timezone.utc) if summary.topics else None
    say(f"{arguments.bag}: {summary.storage}, {summary.size_bytes / 1e6:.1f} MB, {summary.duration_s:.2f} s")
    if start is not None and any(topic.count for topic in summary.topics):
        say(f"starts {start:%Y-%m-%d %H:%M:%S} UTC")
    rows = [("topic", "type", "messages", "rate", "content")]
    rows += [
        (topic.name, topic.type_name, str(topic.count), f"{summary.rate_hz(topic):.1f} Hz", topic.content)
        for topic in summary.topics
    ]
    say(aligned(rows, left=(0, 1, 4)))
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Print the verdicts; 1 where a forecast cannot be made."""
    from momap_ros.bag_check import FAILURE, OK, WARNING, check_bag

    findings = check_bag(arguments.bag, chosen_topics(arguments), tolerance_s=arguments.sync_tolerance_s)
    marks = {OK: "ok  ", WARNING: "note", FAILURE: "FAIL"}
    for finding in findings:
        say(f"{marks[finding.verdict]}  {finding.requirement}: {finding.detail}")
        if finding.advice:
            say(f"      -> {finding.advice}")
    failures = sum(finding.verdict == FAILURE for finding in findings)
    say(f"\n{arguments.bag}: " + (f"cannot be used yet, {failures} to fix" if failures else "can be used"))
    return 1 if failures else 0


def run_from_images(arguments: argparse.Namespace) -> int:
    """Make the recording."""
    from tqdm import tqdm

    from momap_ros.bag_import import find_images, import_images

    files = find_images(arguments.source)
    description = _described(arguments, files.color[0])
    total = len(files.color) if len(files.color) > 1 else None
    with tqdm(total=total, desc=arguments.out.name, unit="image") as bar:
        result = import_images(
            files, description, arguments.out, storage=arguments.storage, rate_hz=arguments.rate, on_image=bar.update
        )
    for reason, count in result.skipped.most_common():
        warn(f"skipped {count}x: {reason}")
    if not result.has_depth:
        warn(f"{arguments.out} has colour only; `momap bag check {arguments.out}` says what a forecast needs")
    say(f"{arguments.out}: {result.written} frames, {'colour and depth' if result.has_depth else 'colour only'}")
    return 0


def run_play(arguments: argparse.Namespace) -> int:
    """Hand over to the player."""
    try:
        from momap_ros.ros.bag_player import main as play
    except ImportError as error:
        raise ImportError(
            f"play: expected ROS, could not import it ({error}); run `make setup`, or source a ROS 2 workspace with "
            "this package"
        ) from error
    return play([sys.argv[0], *(item for item in arguments.arguments if item != "--")])


def _described(arguments: argparse.Namespace, first_image: Path) -> CameraFile:
    """The camera file, with what the command line says instead."""
    from momap_ros.bag_import import CameraFile, image_size, read_camera_file

    beside = (arguments.source if arguments.source.is_dir() else arguments.source.parent) / "camera.json"
    path = arguments.camera or (beside if beside.is_file() else None)
    description = CameraFile() if path is None else read_camera_file(path)
    numbers = [getattr(arguments, name) for name in ("fx", "fy", "cx", "cy")]
    if any(number is not None for number in numbers):
        if None in numbers:
            raise ValueError("intrinsics: expected all of --fx --fy --cx --cy, got some; add the others")
        from momap_ros.geometry import PinholeCamera

        description = dataclasses.replace(description, camera=PinholeCamera(*image_size(first_image), *numbers))
    changes = {"depth_unit_m": arguments.depth_unit_m, "instruction": arguments.prompt}
    if arguments.rate is not None:
        changes["stamps_s"] = ()
    return dataclasses.replace(description, **{name: value for name, value in changes.items() if value is not None})
