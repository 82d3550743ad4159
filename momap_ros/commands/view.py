"""`momap view`: a forecast in space."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import add_command, say

if TYPE_CHECKING:
    from momap_ros.viewer import ViewScene

DESCRIPTION = """
Look at a forecast in 3D: the scene's points, the moving ones in motion, their tracks coloured by time.

A window opens (Open3D; drag to turn, wheel to zoom, space to pause, left and right to step, R to start again). On a
machine without a display, --save writes a swing around the scene as a moving picture instead.

example:
  momap view out/cup
  momap view out/cup --save out/cup/orbit.gif
  momap view out/cup/momap_0000.npz

what it takes: the folder of `momap forecast` or `momap demo`, any recording with forecasts, or a dense motion map
(.npz).
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "view",
        "look at a forecast in 3D",
        usage="DIR_OR_FILE [--index N] [--save FILE]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument("source", type=Path, metavar="DIR_OR_FILE", help="results folder, recording, or .npz")
    parser.add_argument("--index", type=int, default=0, metavar="N", help="which forecast of a recording (default: 0)")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write a moving picture (.gif or .mp4), open no window"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show or save."""
    from momap_ros.viewer import ORBIT_FRAME_S, orbit_frames, show_window

    scene = load_scene(arguments.source, arguments.index)
    if arguments.save is None:
        show_window(scene, f"momap: {arguments.source}")
        return 0
    from tqdm import tqdm

    from momap_ros.animation import save_animation

    pictures = tqdm(orbit_frames(scene), desc=arguments.save.name, unit="picture")
    say(f"wrote {save_animation(arguments.save, pictures, frame_s=ORBIT_FRAME_S)}")
    return 0


def load_scene(source: Path, index: int) -> ViewScene:
    """The scene of a results folder, a recording or a dense motion map."""
    from itertools import islice

    from momap_ros.bag_forecasts import read_forecasts
    from momap_ros.forecast_files import BAG_NAME
    from momap_ros.momap import MoMap
    from momap_ros.viewer import scene_from_forecast, scene_from_momap, scene_from_points

    if source.suffix == ".npz":
        return scene_from_momap(MoMap.load(source))
    bag = source / BAG_NAME if (source / BAG_NAME).is_dir() else source
    stored = next(islice(read_forecasts(bag), index, None), None)
    if stored is None:
        raise ValueError(f"{bag}: expected a forecast number {index}, got fewer; give a smaller --index")
    if stored.source is None:
        return scene_from_points(stored.trajectories)
    return scene_from_forecast(stored.source.frame, stored.trajectories)
