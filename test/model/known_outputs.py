"""A scene with four instances, and the output of a model that drew known motions of them."""

from __future__ import annotations

import numpy as np
import torch
import transforms3d.axangles

from momap_ros.conditioning import GRID, MAX_INSTANCES, scene_grid
from momap_ros.geometry import Float64, PinholeCamera, se3_from_parts, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.output import MoMapOutput, fit_instances
from momap_ros.rgbd import RGBDFrame

STEPS = 12
CODEC = TemporalBasisCodec.pinned_cosines(STEPS, STEPS - 1)  # carries every motion
BOX, BALL, SPECK, BLIND = 3, 8, 11, 14


def scene(width: int = 256, height: int = 256) -> tuple[RGBDFrame, InstanceMap]:
    """A wall 0.8 m away with a slanted box, a bulging ball, a speck of one pixel and a box without depth."""
    camera = PinholeCamera(256, 256, 240.0, 240.0, 127.5, 127.5).resized(width, height)
    x, y = (np.arange(width) + 0.5) / width, ((np.arange(height) + 0.5) / height)[:, None]
    ids = np.zeros((height, width), np.int32)
    depth = np.full((height, width), 0.8, np.float32)
    box = (abs(x - 0.25) < 0.15) & (abs(y - 0.3) < 0.2)
    ball = (x - 0.7) ** 2 + (y - 0.65) ** 2 < 0.15**2
    blind = (abs(x - 0.75) < 0.1) & (abs(y - 0.15) < 0.1)
    ids[box], ids[ball], ids[blind] = BOX, BALL, BLIND
    ids[height - 3, 5] = SPECK
    depth[box] = (0.55 + 0.3 * x + 0 * y)[box]
    depth[ball] = 0.7 - np.sqrt(np.maximum(0.0225 - (x - 0.7) ** 2 - (y - 0.65) ** 2, 0))[ball]
    depth[blind] = np.nan
    return RGBDFrame(np.full((height, width, 3), 90, np.uint8), depth, camera, 7, "eye"), InstanceMap(ids)


def steady_motion(centre: Float64, axis: tuple[float, float, float], angle_rad: float, shift_m: Float64) -> Float64:
    """(T, 4, 4) steady turn about a point and steady shift."""
    share = np.linspace(0, 1, STEPS)
    turns = np.stack([transforms3d.axangles.axangle2mat(axis, angle_rad * s) for s in share])
    return se3_from_parts(turns, centre + share[:, None] * shift_m - turns @ centre)


TURN = steady_motion(np.array([-0.1, -0.1, 0.6]), (0.0, 0.6, 0.8), 1.2, np.array([0.05, -0.1, 0.02]))
SHIFT = steady_motion(np.zeros(3), (0.0, 0.0, 1.0), 0.0, np.array([0.2, 0.1, -0.15]))


def output_of(frame: RGBDFrame, instances: InstanceMap, futures: list[dict[int, Float64]]) -> MoMapOutput:
    """The output of a model that drew these motions: one dictionary, instance id -> (T, 4, 4), per hypothesis."""
    grid = scene_grid(frame, instances)
    slots = torch.from_numpy(grid.slots).long().flatten()
    points = grid.points_in_camera.reshape(-1, 3)
    latents = torch.zeros(len(futures), CODEC.latent_channels, GRID * GRID)
    for row, motions in enumerate(futures):
        for instance_id, motion in motions.items():
            cells = np.flatnonzero(slots == grid.slot_ids.index(instance_id) + 1)
            # A cell without depth has no point to carry; it says what the origin does.
            start = np.nan_to_num(points[cells])
            displacement = (transform_points(motion[:, None], start[None]) - start).swapaxes(0, 1) / grid.scale_m
            latents[row, :, cells] = CODEC.encode(torch.from_numpy(displacement)).T
    known = torch.from_numpy(points / grid.scale_m)
    maps, centres = fit_instances(latents, slots, known, ~torch.isnan(known[:, 2]))
    moving = torch.ones(len(futures), MAX_INSTANCES)
    still = torch.zeros(MAX_INSTANCES, dtype=torch.bool)
    return MoMapOutput(frame, instances, grid, CODEC, latents, maps, centres, moving, still, 0.25)


def every_pixel(instances: InstanceMap, instance_id: int) -> np.ndarray:
    rows, columns = np.nonzero(instances.ids == instance_id)
    return np.stack([columns, rows], axis=-1).astype(np.int32)
