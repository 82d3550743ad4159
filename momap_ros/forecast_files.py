"""What a forecast leaves on disk: pictures, the table of objects, the bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from momap_ros.animation import forecast_frames, save_animation
from momap_ros.files import atomic_path
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion
from momap_ros.rgbd import RGBDFrame, UInt8
from momap_ros.visualization import draw_trajectories, overlay_instances

BAG_NAME = "forecast_bag"
OBJECTS_NAME = "objects.csv"


def write_picture(path: Path, rgb: UInt8) -> Path:
    """Write an RGB picture as PNG, whole or not at all; returns the path."""
    import cv2

    with atomic_path(path) as partial:
        if not cv2.imwrite(str(partial), np.ascontiguousarray(rgb[..., ::-1])):
            raise OSError(f"{path}: expected to write a PNG picture, OpenCV could not; check the disk")
    return path


@dataclass(frozen=True, eq=False)
class PicturedForecast:
    """A forecast with the image it starts from.

    Attributes:
        frame: the image.
        instances: of the same size.
        trajectories: positions in the camera's optical frame; the first hypothesis is the one that is shown in full.
        objects: the objects' motions.
        prompt: the sentence, or empty.
    """

    frame: RGBDFrame
    instances: InstanceMap
    trajectories: PointTrajectories
    objects: Sequence[ObjectMotion]
    prompt: str


def write_stills(folder: Path, forecast: PicturedForecast, *, suffix: str = "") -> list[Path]:
    """Write overlay.png and trajectories.png, with a suffix before the dot; returns their paths."""
    overlay = overlay_instances(forecast.frame, forecast.instances)
    tracks = draw_trajectories(forecast.frame, forecast.trajectories, forecast.objects, prompt=forecast.prompt)
    return [
        write_picture(folder / f"overlay{suffix}.png", overlay),
        write_picture(folder / f"trajectories{suffix}.png", tracks),
    ]


def write_animation(folder: Path, forecast: PicturedForecast) -> Path:
    """Write forecast.gif, which plays in real time; returns its path."""
    pictures = forecast_frames(
        forecast.frame, forecast.instances, forecast.trajectories, forecast.objects, prompt=forecast.prompt
    )
    return save_animation(folder / "forecast.gif", pictures, frame_s=forecast.trajectories.step_s)
