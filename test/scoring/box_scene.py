"""A table and a box above it, ray-cast by hand: depth, ids and colours whose truth is a formula."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from momap_ros.geometry import Float64, PinholeCamera, se3_from_parts
from momap_ros.instances import InstanceMap, Int32
from momap_ros.momap import PointTrajectories
from momap_ros.rgbd import RGBDFrame

CAMERA = PinholeCamera(320, 240, 300.0, 300.0, 159.5, 119.5)
SIZE_M = np.array([0.12, 0.08, 0.06])
TABLE_M = 1.0
BOX = 5
START_NS = 1_700_000_000_000_000_000
STILL = np.eye(4)


def pose(x_m: float = 0.0, y_m: float = 0.0, z_m: float = 0.9) -> Float64:
    """world_from_box; the world is the first camera."""
    rotation: Float64 = Rotation.from_euler("zyx", (20, 30, 10), degrees=True).as_matrix()
    return se3_from_parts(rotation, np.array([x_m, y_m, z_m]))


def moved(world_from_box: Float64, shift_m: tuple[float, float, float], turn_deg: float = 0.0) -> Float64:
    """Turned about the optical axis through its centre, and shifted."""
    after: Float64 = world_from_box.copy()
    after[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix() @ world_from_box[:3, :3]
    after[:3, 3] += shift_m
    return np.asarray(after, np.float64)


def render(
    world_from_box: Float64 | None,
    stamp_s: float = 0.0,
    *,
    world_from_camera: Float64 = STILL,
    size_m: Float64 = SIZE_M,
    screen: tuple[int, int] | None = None,
    textured: bool = True,
) -> tuple[RGBDFrame, InstanceMap]:
    """A frame; `screen` are the first and last column hidden by something nearer, instance 9."""
    rays = CAMERA.rays.reshape(-1, 3) @ world_from_camera[:3, :3].T
    origin = world_from_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        table = (TABLE_M - origin[2]) / rays[:, 2]
        depth = np.where(table > 0, table, np.nan)
        ids: Int32 = np.zeros(len(rays), np.int32)
        if world_from_box is not None:
            box_from_world = np.linalg.inv(world_from_box)
            start = box_from_world[:3, :3] @ origin + box_from_world[:3, 3]
            along = rays @ box_from_world[:3, :3].T
            near, far = (-size_m / 2 - start) / along, (size_m / 2 - start) / along
            enters, leaves = np.minimum(near, far).max(axis=1), np.maximum(near, far).min(axis=1)
            hit = (enters < leaves) & (enters > 0) & (enters < depth)
            depth, ids = np.where(hit, enters, depth), np.where(hit, BOX, ids).astype(np.int32)
    points = origin + rays * depth[:, None]
    wave = np.sin(60 * points[:, 0]) * np.sin(47 * points[:, 1]) + np.sin(23 * points[:, 0] + 31 * points[:, 1])
    gray = np.where(ids == 0, 127 + 50 * wave * textured, 220).reshape(CAMERA.height, CAMERA.width)
    depth, ids = depth.reshape(gray.shape), ids.reshape(gray.shape)
    if screen is not None:
        columns = slice(screen[0], screen[1] + 1)
        depth[:, columns], ids[:, columns], gray[:, columns] = 0.5, 9, 30
    rgb = np.repeat(gray[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
    stamp_ns = START_NS + round(stamp_s * 1e9)
    return RGBDFrame(rgb, depth.astype(np.float32), CAMERA, stamp_ns, "optical"), InstanceMap(ids, {BOX: "box"})


def forecast(
    frame: RGBDFrame, instances: InstanceMap, steps: list[Float64], *, step_s: float, scales: tuple[float, ...] = (1.0,)
) -> PointTrajectories:
    """The box's pixels carried by world_from_box at every step, the first the frame's; a hypothesis per scale."""
    rows, columns = np.nonzero(instances.ids == BOX)
    rows, columns = rows[::5], columns[::5]
    points = frame.points_in_camera[rows, columns].astype(np.float64)
    first_inverse = np.linalg.inv(steps[0])
    carried = [points @ (step @ first_inverse)[:3, :3].T + (step @ first_inverse)[:3, 3] for step in steps]
    path = np.stack(carried, axis=1)
    positions = np.stack([path[:, :1] + scale * (path - path[:, :1]) for scale in scales])
    return PointTrajectories(
        positions.astype(np.float32),
        np.full(len(points), BOX, np.int32),
        np.stack([columns, rows], axis=-1).astype(np.int32),
        CAMERA.width,
        CAMERA.height,
        step_s,
        None,
        frame.frame_id,
        frame.stamp_ns,
    )
