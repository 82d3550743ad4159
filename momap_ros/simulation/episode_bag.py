"""An episode as a recording: what a robot's camera would publish, and the truth beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from momap_ros.bag_write import BagWriter
from momap_ros.data.sample import write_shard
from momap_ros.simulation.video import Video

WORLD_FRAME = "world"
# Stamps of a real clock: nodes take stamp 0 for a camera that does not know the time.
START_NS = 1_750_000_000_000_000_000
# The sentence comes before the first image, as it does on a robot.
_PROMPT_LEAD_NS = 500_000_000


def truth_path(bag: Path) -> Path:
    """Where the truth of a recording lies: a shard with one sample."""
    return bag.with_name(f"{bag.name}.truth.tar")


def write_episode_bag(video: Video, out: Path, *, with_truth: bool = True) -> None:
    """Write an episode as a bag; depth in millimetres, chunks compressed.

    The bag holds the sentence and, per frame, colour, depth and camera info; with the truth also the instances and the
    camera's pose in the world on /tf, and beside the bag, at `truth_path`, the first frame with the motion of every
    body: the true MoMap.

    Args:
        video: the rendered episode.
        out: the bag; one that exists is replaced.
        with_truth: whether to write what only the simulator knows.
    """
    with BagWriter(out, compress=True, overwrite=True) as bag:
        bag.write_prompt(video.sample.text, START_NS - _PROMPT_LEAD_NS)
        for frame, instances, pose in zip(video.frames, video.instance_maps, video.world_from_camera, strict=True):
            stamp_ns = START_NS + frame.stamp_ns
            if with_truth:
                bag.write_transform(pose, stamp_ns, parent=WORLD_FRAME, child=frame.frame_id)
                bag.write_instances(instances, stamp_ns, frame.frame_id)
            bag.write_frame(dataclasses.replace(frame, stamp_ns=stamp_ns), millimetres=True)
        if with_truth:
            write_shard(truth_path(out), [video.sample])
