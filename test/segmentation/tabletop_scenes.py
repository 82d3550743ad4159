"""Table-top scenes whose depth and ids are computed exactly, ray by ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float64, PinholeCamera
from momap_ros.instances import Int32
from momap_ros.rgbd import RGBDFrame


@dataclass(frozen=True)
class Box:
    """An axis-parallel box: centre of its bottom and size, metres, table frame (x right, y away, z up)."""

    bottom: tuple[float, float, float]
    size: tuple[float, float, float]

    def hit(self, origin: Float64, directions: Float64) -> Float64:
        """(H, W) ray length to the box; infinite where it is missed."""
        low = np.array(self.bottom) - np.array([self.size[0] / 2, self.size[1] / 2, 0.0])
        with np.errstate(divide="ignore"):
            first, second = (low - origin) / directions, (low + np.array(self.size) - origin) / directions
        near = np.minimum(first, second).max(axis=-1)
        far = np.maximum(first, second).min(axis=-1)
        return np.asarray(np.where((near < far) & (near > 0), near, np.inf))


@dataclass(frozen=True)
class Bowl:
    """The lower half of a thin sphere that touches the table."""

    touches: tuple[float, float]
    radius: float

    def hit(self, origin: Float64, directions: Float64) -> Float64:
        """(H, W) ray length to the outside or, over the rim, to the inside of the shell."""
        to_centre = np.array([*self.touches, self.radius]) - origin
        along, square = directions @ to_centre, np.sum(directions**2, axis=-1)
        discriminant = along**2 - square * (to_centre @ to_centre - self.radius**2)
        root = np.sqrt(np.where(discriminant > 0, discriminant, np.nan))
        hit = np.full(along.shape, np.inf)
        for length in ((along + root) / square, (along - root) / square):
            below_rim = origin[2] + length * directions[..., 2] <= self.radius
            hit = np.where(below_rim, length, hit)
        return np.asarray(np.where(np.isnan(root), np.inf, hit))


@dataclass(frozen=True)
class Surroundings:
    """What a scene has besides objects, and what is wrong with its images."""

    table_x: tuple[float, float] = (-10.0, 10.0)
    table_y: tuple[float, float] = (-10.0, 1000.0)
    floor_z: float = -0.7
    wall_y: float | None = None
    noise_m: float = 0.0
    holes: float = 0.0
    pitch_rad: float = 0.8
    width: int = 320
    height: int = 240


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame, its true ids (1, 2, ... in the order of the objects) and the plane of its table."""

    frame: RGBDFrame
    ids: Int32
    normal: Float64
    offset_m: float


def build_scene(objects: tuple[Box | Bowl, ...], around: Surroundings = Surroundings(), seed: int = 0) -> Scene:
    """See a table from 0.9 m away; the camera looks at the table frame's origin."""
    camera = PinholeCamera.from_fov(around.width, around.height, vertical_fov_rad=0.8)
    sine, cosine = np.sin(around.pitch_rad), np.cos(around.pitch_rad)
    table_from_camera = np.array([[1.0, 0.0, 0.0], [0.0, -sine, cosine], [0.0, -cosine, -sine]])
    origin = -0.9 * table_from_camera[:, 2]
    directions = camera.rays.astype(np.float64) @ table_from_camera.T
    with np.errstate(divide="ignore", invalid="ignore"):
        table = -origin[2] / directions[..., 2]
        point = origin + table[..., None] * directions
        inside = (
            (table > 0)
            & (point[..., 0] > around.table_x[0])
            & (point[..., 0] < around.table_x[1])
            & (point[..., 1] > around.table_y[0])
            & (point[..., 1] < around.table_y[1])
        )
        floor = (around.floor_z - origin[2]) / directions[..., 2]
        wall = (
            (around.wall_y - origin[1]) / directions[..., 1] if around.wall_y is not None else np.full_like(floor, -1.0)
        )
    background = np.where(inside, table, np.where(floor > 0, floor, np.inf))
    background = np.where((wall > 0) & (wall < background), wall, background)
    lengths = np.stack([background, *(thing.hit(origin, directions) for thing in objects)])
    ids = lengths.argmin(axis=0).astype(np.int32)
    # A ray's optical z is 1, so its length is the depth.
    depth = lengths.min(axis=0)
    generator = np.random.default_rng(seed)
    depth += around.noise_m * generator.normal(size=depth.shape)
    depth[generator.random(depth.shape) < around.holes] = np.nan
    depth_m = np.where(np.isfinite(depth) & (depth > 0.2), depth, np.nan).astype(np.float32)
    rgb = np.random.default_rng(1).integers(0, 256, (len(objects) + 1, 3), dtype=np.uint8)[ids]
    return Scene(RGBDFrame(rgb, depth_m, camera), ids, table_from_camera[2], float(origin[2]))
