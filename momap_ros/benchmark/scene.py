"""What the stages work on: one real frame, and a made-up scene of twenty moving objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from momap_ros.bag import BagReader
from momap_ros.geometry import PinholeCamera, se3_from_parts, transform_points, unproject_depth
from momap_ros.instances import Int32
from momap_ros.momap import MoMap, PointTrajectories
from momap_ros.rgbd import RGBDFrame

WIDTH, HEIGHT = 640, 480
NUM_STEPS = 50
# Columns and rows of objects: each covers 80 % of its part of a 256x256 image in either direction.
OBJECT_COLUMNS, OBJECT_ROWS = 5, 4
OUTLIER_SHARE = 0.15
NOISE_M = 0.004


@dataclass(frozen=True, eq=False)
class Scene:
    """The frame that is measured.

    Attributes:
        frame: 640x480.
        prompt: its sentence.
    """

    frame: RGBDFrame
    prompt: str


def first_scene(bag: Path) -> Scene:
    """The first usable frame of a bag at 640x480, with its sentence.

    Raises:
        BagError: no bag, or none with RGB-D frames.
    """
    with BagReader(bag) as reader:
        item = next(iter(reader.frames()))
    return Scene(item.frame.resized(WIDTH, HEIGHT), item.prompt)


def twenty_objects() -> PointTrajectories:
    """65 536 trajectories of 50 steps: 20 rigid objects that turn and travel, with outliers and growing noise.

    15 % of the trajectories of the objects go anywhere; the noise of the others grows to 4 mm.
    """
    rng = np.random.default_rng(0)
    camera = PinholeCamera.from_fov(256, 256, vertical_fov_rad=0.9)
    ids = _object_grid(256)
    points = unproject_depth(np.full((256, 256), 0.8, np.float32), camera)
    progress = np.linspace(0.0, 1.0, NUM_STEPS)
    xyz = np.repeat(points[None], NUM_STEPS, axis=0)
    for instance_id in range(1, OBJECT_COLUMNS * OBJECT_ROWS + 1):
        rows, columns = np.nonzero(ids == instance_id)
        start = points[rows, columns]
        motion = _turn_and_travel(rng, start.mean(axis=0), progress)
        moved = transform_points(motion[:, None], start[None])
        moved += rng.normal(size=moved.shape) * NOISE_M * progress[:, None, None]
        astray = rng.random(len(start)) < OUTLIER_SHARE
        moved[:, astray] += progress[:, None, None] * rng.normal(size=(int(astray.sum()), 3)) * 0.1
        moved[0] = start
        xyz[:, rows, columns] = moved
    momap = MoMap(xyz, np.ones((256, 256), np.bool_), step_s=0.1)
    return PointTrajectories.from_momap(momap, ids, stride=1)


def _object_grid(size: int) -> Int32:
    """(size, size) ids 1 to 20 in rows and columns, 0 between them."""
    v, u = np.mgrid[:size, :size] / size
    column, row = np.floor(u * OBJECT_COLUMNS), np.floor(v * OBJECT_ROWS)
    inside = (np.abs(u * OBJECT_COLUMNS - column - 0.5) < 0.4) & (np.abs(v * OBJECT_ROWS - row - 0.5) < 0.4)
    return np.where(inside, 1 + row * OBJECT_COLUMNS + column, 0).astype(np.int32)


def _turn_and_travel(rng: np.random.Generator, centre: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """(T, 4, 4) motion about z of the camera by up to 90 degrees, and up to 0.2 m away."""
    angle = progress * rng.uniform(-np.pi / 2, np.pi / 2)
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rotation = np.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1], axis=-1).reshape(-1, 3, 3)
    travel = progress[:, None] * rng.uniform(-0.2, 0.2, 3)
    return se3_from_parts(rotation, centre + travel - rotation @ centre)
