"""Record a simulated episode, the bundled demo by default: `python -m momap_ros.simulation.demo_bag --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from momap_ros.simulation.camera_paths import FIXED, MOTIONS
from momap_ros.simulation.cameras import ALL_SECTORS
from momap_ros.simulation.episode_bag import truth_path, write_episode_bag
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.video import render_video

# An episode of the validation split, which training never sees.
SPLIT, EPISODE, CAMERA = "val", 882, 0
WIDTH, HEIGHT, FRAME_RATE_HZ = 640, 480, 2.5

DESCRIPTION = """Record a simulated episode as a bag: colour, depth, camera info and the sentence.

With --with-truth also the instances, the camera's pose on /tf and, in OUT.truth.tar, a sample with the true Motion Map.
The same arguments give the same images on one machine and MuJoCo version; graphics drivers may differ in single grey
levels. The bundled demo recording is what the defaults make."""

EXAMPLES = """examples:
  python -m momap_ros.simulation.demo_bag --out demo
  python -m momap_ros.simulation.demo_bag --out moving --split train --episode 3 --motion hand_held --with-truth
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    options = _parser().parse_args(arguments)
    video = render_video(
        options.split,
        options.episode,
        width=options.width,
        height=options.height,
        camera_index=options.camera,
        frame_rate_hz=options.rate,
        sector=options.sector,
        motion=options.motion,
    )
    write_episode_bag(video, options.out, with_truth=options.with_truth)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    beside = f", truth in {truth_path(options.out)}" if options.with_truth else ""
    tqdm.write(f"{options.out}: {len(video.frames)} frames, {size / 1e6:.1f} MB, {video.sample.text!r}{beside}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m momap_ros.simulation.demo_bag",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="recording to make; one that exists is replaced")
    parser.add_argument("--split", default=SPLIT, choices=list(SPLITS), help="set of episodes (default: %(default)s)")
    parser.add_argument("--episode", type=int, default=EPISODE, help="number in the set (default: %(default)s)")
    parser.add_argument("--camera", type=int, default=CAMERA, help="number of the camera (default: %(default)s)")
    parser.add_argument(
        "--sector", choices=list(ALL_SECTORS), help="where it stands (default: behind the robot, framing all)"
    )
    parser.add_argument("--motion", default=FIXED, choices=MOTIONS, help="of the camera (default: %(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=HEIGHT, help="pixels (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=FRAME_RATE_HZ, help="frames per second (default: %(default)s)")
    parser.add_argument("--with-truth", action="store_true", help="write also what only the simulator knows")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
