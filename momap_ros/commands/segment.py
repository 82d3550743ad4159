"""`momap segment`: the instances of a recording, without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import (
    add_bag_options,
    add_command,
    add_frame_options,
    add_settings,
    build_segmenter,
    chosen_topics,
    opened_bag,
    read_settings,
    say,
    selected_frames,
    warn,
)
from momap_ros.config import SegmentationConfig

if TYPE_CHECKING:
    from momap_ros.instances import InstanceMap
    from momap_ros.rgbd import RGBDFrame

BAG_NAME = "instances_bag"

DESCRIPTION = """
Find the instances (objects, arm, hand) on the table in a recording's frames.

The method tabletop needs no weights: it fits the table, keeps what stands on it and cuts at edges of depth and colour.
The method sam2 refines its instances with a local SAM 2 folder. Ids stay with their objects from frame to frame.

example:
  momap segment kitchen_bag --out out/instances --every 10
  momap segment kitchen_bag --out out/instances --segmentation-min-height-m 0.01

what comes out, in the folder --out:
  overlay_0000.png   frame 0 with every instance coloured, outlined and numbered
  instances_bag/     rosbag2 (mcap) with the frames and their label images on /instances (16UC1, 0 = none), which
                     `momap forecast ... --instances bag` and the forecast node read

The printed table says of each instance: id, pixels, share of the image, median distance from the camera in metres.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "segment",
        "find the instances in a recording",
        usage="BAG --out DIR [options]",
        description=DESCRIPTION,
        run=run,
    )
    add_bag_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add_frame_options(parser)
    add_settings(parser, SegmentationConfig, prefix="segmentation-")


def run(arguments: argparse.Namespace) -> int:
    """Segment and write."""
    from momap_ros.bag_write import BagWriter
    from momap_ros.forecast_files import write_picture
    from momap_ros.segmentation.base import SegmentationError
    from momap_ros.segmentation.tracking import InstanceTracker
    from momap_ros.visualization import overlay_instances

    config = read_settings(arguments, SegmentationConfig, prefix="segmentation-")
    count = 0
    last_error = "nothing was selected"
    with (
        opened_bag(arguments.bag, chosen_topics(arguments)) as bag,
        BagWriter(arguments.out / BAG_NAME, compress=True, overwrite=True) as writer,
    ):
        segmenter, tracker = build_segmenter(config), InstanceTracker(config.max_lost_frames)
        for item in selected_frames(arguments, bag, what="segment"):
            try:
                instances = tracker(item.frame, segmenter(item.frame))
            except SegmentationError as error:
                last_error = str(error)
                warn(f"frame {item.index} skipped: {error}")
                continue
            say(f"\nframe {item.index}, {item.frame.stamp_ns * 1e-9:.3f} s")
            say(instance_table(item.frame, instances))
            write_picture(arguments.out / f"overlay_{item.index:04d}.png", overlay_instances(item.frame, instances))
            writer.write_frame(item.frame)
            writer.write_instances(instances, item.frame.stamp_ns, item.frame.frame_id)
            count += 1
        if not count:
            raise ValueError(f"{arguments.bag}: expected a frame to segment, got none; {last_error}")
    say(f"\n{count} frames; results in {arguments.out}")
    return 0


def instance_table(frame: RGBDFrame, instances: InstanceMap) -> str:
    """Id, pixels, share of the image and median distance of every instance."""
    import numpy as np

    from momap_ros.report import aligned

    if not instances.areas_px:
        return "no instances"
    rows = [("id", "pixels", "share", "distance")]
    for instance_id, area_px in instances.areas_px.items():
        measured = frame.depth_m[(instances.ids == instance_id) & frame.valid]
        distance = f"{np.median(measured):.2f} m" if measured.size else "-"
        rows.append((str(instance_id), str(area_px), f"{area_px / instances.ids.size:.1%}", distance))
    return aligned(rows, left=())
