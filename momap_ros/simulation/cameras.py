"""Where a camera stands and what it looks at; never chosen by which object will move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float64, PinholeCamera, invert_se3, se3_from_parts
from momap_ros.simulation.intrinsics import draw_intrinsics
from momap_ros.simulation.scene import WORK_AREA_CENTRE


@dataclass(frozen=True)
class Sector:
    """Where cameras of one kind stand.

    Attributes:
        share: of the views.
        azimuths_rad: middles of the arcs they stand on, 0 in front of the robot and pi behind it.
        half_arc_rad: how far they stand from the middle of the arc.
        elevation_deg: range, above the table's plane.
    """

    share: float
    azimuths_rad: tuple[float, ...]
    half_arc_rad: float
    elevation_deg: tuple[float, float]


TOP_DOWN = "top_down"
SECTORS = {
    "over_shoulder": Sector(0.54, (np.pi,), 1.05, (24, 55)),
    "front": Sector(0.16, (0.0,), 1.0, (24, 55)),
    TOP_DOWN: Sector(0.14, (0.0,), np.pi, (82, 90)),
    "wrist_height": Sector(0.16, (np.pi, 0.0), 1.0, (5, 20)),
}
# What training never sees: cameras at the robot's sides, and steep ones that are not straight down.
HELD_OUT_SECTORS = {
    "side": Sector(0.6, (-np.pi / 2, np.pi / 2), 0.45, (24, 75)),
    "steep": Sector(0.4, (np.pi, 0.0), 1.0, (57, 78)),
}
ALL_SECTORS = SECTORS | HELD_OUT_SECTORS
# What the image spans at its aim, as geometric mean of across and down, and how far above the table the aim may be,
# metres. Close views show the acted object large, wide and higher ones the robot.
_CLOSE_M, _WIDE_M = ((0.07, 0.15), 0.08), ((0.17, 0.32), 0.18)
_WIDE_SHARE = 0.55
_MIN_DISTANCE_M, _MIN_HEIGHT_M = 0.17, 0.035
_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class View:
    """A camera in the scene.

    Attributes:
        camera: intrinsics.
        world_from_camera: (4, 4) pose of the optical frame (x right, y down, z forward), metres.
        sector: where it stands: a name of ALL_SECTORS.
        intrinsics: which camera it is: a name of intrinsics.REAL_CAMERAS, or a kind of pinhole.
    """

    camera: PinholeCamera
    world_from_camera: Float64
    sector: str = ""
    intrinsics: str = ""

    @property
    def camera_from_world(self) -> Float64:
        """(4, 4) world points into the optical frame."""
        return invert_se3(self.world_from_camera)


@dataclass(frozen=True)
class Framing:
    """What is drawn once per view, before anybody looks whether the task can be seen.

    Cameras that do not see the task are drawn again with the same framing, from farther and farther away. Were the aim
    drawn again as well, most accepted views would aim at the object that moves.

    Attributes:
        camera: intrinsics.
        sector: a name of ALL_SECTORS.
        intrinsics: which camera it is.
        aim: (3,) what the camera looks at, metres, world.
        extent_m: what the image spans at the aim: geometric mean of across and down.
    """

    camera: PinholeCamera
    sector: str
    intrinsics: str
    aim: Float64
    extent_m: float


def look_at(position: Float64, target: Float64, up: Float64) -> Float64:
    """(4, 4) world_from_camera of an optical frame at `position` that sees `target` in its centre."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return se3_from_parts(np.stack([right, np.cross(forward, right), forward], axis=1), position)


def draw_framing(
    rng: np.random.Generator,
    width: int,
    height: int,
    candidates_xy: Float64,
    *,
    held_out: bool = False,
    sector: str | None = None,
    wide: bool = False,
) -> Framing:
    """Draw a camera, where it stands, and what it looks at, for an image of this size.

    Args:
        rng: source of every choice.
        width: pixels.
        height: pixels.
        candidates_xy: (K, 2) what seven in ten cameras aim at instead of the middle of the table: any object, acted on
            or not.
        held_out: stand where cameras of training never stand: HELD_OUT_SECTORS instead of SECTORS.
        sector: stand there, instead of anywhere.
        wide: show much of the table, as for several futures.

    Raises:
        ValueError: the sector is unknown.
    """
    sectors = HELD_OUT_SECTORS if held_out else SECTORS
    if sector is None:
        sector = str(rng.choice(list(sectors), p=[item.share for item in sectors.values()]))
    elif sector not in ALL_SECTORS:
        raise ValueError(f"sector: expected one of {list(ALL_SECTORS)}, got {sector!r}")
    name, camera = draw_intrinsics(rng, width, height)
    at_table = rng.random() < 0.3 or not len(candidates_xy)
    aim = WORK_AREA_CENTRE if at_table else candidates_xy[rng.integers(len(candidates_xy))]
    extent_range_m, height_m = _WIDE_M if rng.random() < _WIDE_SHARE or wide else _CLOSE_M
    target = np.array([aim[0] + rng.uniform(-0.06, 0.06), aim[1] + rng.uniform(-0.08, 0.08), rng.uniform(0, height_m)])
    return Framing(camera, sector, name, target, float(rng.uniform(*extent_range_m)))


def draw_view(rng: np.random.Generator, framing: Framing, step_back: float = 1.0) -> View:
    """Draw the pose of a camera with this framing; the image spans `step_back` times the extent of the framing."""
    sector = ALL_SECTORS[framing.sector]
    azimuth = rng.choice(sector.azimuths_rad) + rng.uniform(-1, 1) * sector.half_arc_rad
    elevation = np.radians(rng.uniform(*sector.elevation_deg))
    camera = framing.camera
    focal_in_images = np.sqrt(camera.fx * camera.fy / (camera.width * camera.height))
    distance = max(_MIN_DISTANCE_M, framing.extent_m * focal_in_images) * step_back
    position = framing.aim + distance * _unit(azimuth, elevation)
    position[2] = max(position[2], _MIN_HEIGHT_M)
    # No camera is mounted perfectly level; one that looks straight down has its own bearing as the way up.
    up = _unit(azimuth + np.pi, 0.0) if framing.sector == TOP_DOWN else _UP
    pose = look_at(position, framing.aim, up + rng.normal(0, 0.04, 3))
    return View(camera, pose, framing.sector, framing.intrinsics)


def draw_over_shoulder_view(rng: np.random.Generator, width: int, height: int) -> View:
    """A camera with square pixels where BRIDGE mounts its main one: behind the robot, above it, to one side."""
    camera = PinholeCamera.from_fov(width, height, vertical_fov_rad=np.radians(rng.uniform(42, 50)))
    azimuth = np.pi + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
    elevation = np.radians(rng.uniform(35, 50))
    target = np.array([*(WORK_AREA_CENTRE + rng.uniform(-0.03, 0.03, 2)), 0.02])
    position = target + rng.uniform(0.5, 0.65) * _unit(azimuth, elevation)
    return View(camera, look_at(position, target, _UP), "over_shoulder", "pinhole")


def _unit(azimuth: float, elevation: float) -> Float64:
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
