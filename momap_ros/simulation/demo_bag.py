"""Render the bundled demo recording again: `python -m momap_ros.simulation.demo_bag --help`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from tqdm import tqdm

from momap_ros.bag_write import BagWriter
from momap_ros.simulation.video import Video, render_video

# An episode of the validation split, which training never sees.
SPLIT, EPISODE, CAMERA = "val", 28, 0
WIDTH, HEIGHT, FRAME_RATE_HZ = 640, 480, 2.5
# Stamps of a real clock: nodes take stamp 0 for a camera that does not know the time.
START_NS = 1_750_000_000_000_000_000
# The sentence comes before the first image, as it does on a robot.
PROMPT_LEAD_NS = 500_000_000

DESCRIPTION = """Render the demo recording: one simulated episode seen by a fixed camera over the robot's shoulder.

The same arguments give the same images on one machine and MuJoCo version; graphics drivers may differ in single grey
levels. The recording that is bundled was made with the defaults."""


def write_demo_bag(video: Video, out: Path) -> None:
    """Write the frames and the sentence of an episode; depth in millimetres, chunks compressed.

    Args:
        video: the rendered episode.
        out: the bag; one that exists is replaced.
    """
    with BagWriter(out, compress=True, overwrite=True) as bag:
        bag.write_prompt(video.sample.text, START_NS - PROMPT_LEAD_NS)
        for frame in video.frames:
            bag.write_frame(dataclasses.replace(frame, stamp_ns=START_NS + frame.stamp_ns), millimetres=True)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m momap_ros.simulation.demo_bag",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="recording to make; one that exists is replaced")
    parser.add_argument("--split", default=SPLIT, help="set of episodes (default: %(default)s)")
    parser.add_argument("--episode", type=int, default=EPISODE, help="number in the set (default: %(default)s)")
    parser.add_argument("--camera", type=int, default=CAMERA, help="number of the camera (default: %(default)s)")
    options = parser.parse_args()
    video = render_video(
        options.split,
        options.episode,
        width=WIDTH,
        height=HEIGHT,
        camera_index=options.camera,
        frame_rate_hz=FRAME_RATE_HZ,
    )
    write_demo_bag(video, options.out)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    tqdm.write(f"{options.out}: {len(video.frames)} frames, {size / 1e6:.1f} MB, {video.sample.text!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
