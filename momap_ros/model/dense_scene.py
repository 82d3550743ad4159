"""Frame, instances and hints -> the condition images of the full model, and MoMaps -> the image that its VAE codes.

Where the small model sees one pixel per cell, the full one sees whole images. All lengths are divided by the scene
scale, the median depth, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from momap_ros.conditioning import (
    MAX_POINT_SCALES,
    RGB_GRID,
    SceneGrid,
    choose_cell_pixels,
    hint_arrays,
    scene_grid,
    slot_colors,
)
from momap_ros.geometry import Float32
from momap_ros.instances import InstanceMap, Int32
from momap_ros.momap import MoMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.shapes import check_shapes

CONDITIONS = ("rgb", "instances", "points")
# A latent cell covers 8x8 pixels; what is drawn is kept at one real pixel per 4x4.
LATENT_STRIDE = 8
CELL_STRIDE = 4
# The image VAE was trained on values in [-1, 1]; what lies two scene scales away is background.
CONDITION_LIMIT = 1.0
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DenseScene:
    """A frame stretched to the full model's square of S x S pixels, still in metres.

    Attributes:
        rgb: (S, S, 3) uint8.
        points_in_camera: (S, S, 3) float32, metres, optical frame; NaN where there is no depth.
        slots: (S, S) int32, slot of the instance at each pixel, 0 = background and instances without a slot.
        grid: the same scene on (S/4, S/4) cells, one real pixel each; names the slots and the scene scale.
        cell_rows: (S/4, S/4) row of each cell's pixel.
        cell_columns: (S/4, S/4) its column.
    """

    rgb: npt.NDArray[np.uint8]
    points_in_camera: Float32
    slots: Int32
    grid: SceneGrid
    cell_rows: npt.NDArray[np.intp]
    cell_columns: npt.NDArray[np.intp]


def check_image_size(image_size: int) -> int:
    """The image size itself.

    Raises:
        ValueError: it is no multiple of 64: eight pixels per latent, which the U-Net halves three times.
    """
    if image_size < RGB_GRID or image_size % RGB_GRID:
        raise ValueError(f"image_size: expected a multiple of {RGB_GRID} pixels, got {image_size}")
    return image_size


def dense_scene(frame: RGBDFrame, instances: InstanceMap, image_size: int) -> DenseScene:
    """Stretch a frame of any size to the model's square; training and inference both begin here.

    Raises:
        ShapeError: frame and instances differ in size.
        FrameError: no pixel has depth.
    """
    cells = check_image_size(image_size) // CELL_STRIDE
    grid = scene_grid(frame, instances, image_size=image_size, grid=cells)
    square = frame.resized(image_size, image_size)
    ids = instances.resized(image_size, image_size).ids
    rows, columns = choose_cell_pixels(ids, square.valid, cells)
    slots = np.zeros(ids.shape, np.int32)
    for slot, instance_id in enumerate(grid.slot_ids, start=1):
        slots[ids == instance_id] = slot
    return DenseScene(square.rgb, square.points_in_camera, slots, grid, rows, columns)


def nearest_known(valid: Bool) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns, (H, W) each, of the nearest pixel with depth; itself where it has one."""
    indices: Any = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return indices[0].astype(np.intp), indices[1].astype(np.intp)


def in_scales(points_in_camera: Float32, scale_m: float, limit: float) -> Float32:
    """(..., 3) metres -> scene scales from the point one scale in front of the camera, cut off at +-limit."""
    scaled = points_in_camera / np.float32(scale_m)
    scaled[..., 2] -= 1
    clipped: Float32 = np.clip(scaled, -limit, limit).astype(np.float32)
    return clipped


def condition_images(scene: DenseScene, colors: Float32) -> Float32:
    """What the U-Net is told of a scene, as three images.

    Paper: Sec. 3.3.3: the first frame, the instances in random colours, the XYZ map.

    Args:
        scene: the scene; holes in its depth are filled from the nearest pixel that has some.
        colors: (MAX_INSTANCES, 3) of the slots, in [-1, 1].

    Returns:
        (3, 3, S, S) float32 in [-1, 1], in the order of CONDITIONS.
    """
    filled = scene.points_in_camera[nearest_known(~np.isnan(scene.points_in_camera[..., 2]))]
    images = [
        scene.rgb.astype(np.float32) / 127.5 - 1,
        colors[scene.slots],
        in_scales(filled, scene.grid.scale_m, CONDITION_LIMIT),
    ]
    stacked: Float32 = np.stack(images).transpose(0, 3, 1, 2)
    return stacked


def scene_colors(scene: DenseScene, seed: int) -> Float32:
    """(MAX_INSTANCES, 3) random colour of every slot, see `slot_colors`."""
    return slot_colors(scene.grid.slot_ids, seed)


def hint_maps(slots: Int32, flags: npt.NDArray[np.int8], given: Bool) -> Float32:
    """Direction hints as channels of the latent image.

    Paper: Sec. 3.4.2: the direction DSL, grounded at the pixels of its instance.

    Args:
        slots: (S, S) slot per pixel.
        flags: (MAX_INSTANCES, 3) in {-1, 0, 1}.
        given: (MAX_INSTANCES,) which slots have a hint.

    Returns:
        (HINT_CHANNELS, S/8, S/8) float32: one of three per axis, and whether there is a hint; zeros without one.
    """
    check_shapes(slots=(slots, "S S"), flags=(flags, "M 3"), given=(given, "M"))
    one_hot = np.eye(3, dtype=np.float32)[flags.astype(int) + 1].reshape(len(flags), 9)
    per_slot = np.concatenate([one_hot, np.ones((len(flags), 1), np.float32)], axis=1) * given[:, None]
    half = LATENT_STRIDE // 2
    maps: Float32 = per_slot[slots[half::LATENT_STRIDE, half::LATENT_STRIDE]].transpose(2, 0, 1)
    return maps


def hint_maps_of(scene: DenseScene, hints: Mapping[int, Sequence[int]]) -> Float32:
    """(HINT_CHANNELS, S/8, S/8) maps of hints by instance id.

    Raises:
        ValueError: a hint for an unknown instance, or impossible flags.
    """
    return hint_maps(scene.slots, *hint_arrays(hints, scene.grid.slot_ids))


def momap_image(momap: MoMap, scale_m: float) -> Float32:
    """A MoMap as the image that the MoMap VAE codes; pixels without depth take their neighbour's trajectory.

    Paper: Sec. 3.3.2.

    Args:
        momap: (T, S, S, 3) metres.
        scale_m: scene scale.

    Returns:
        (3 T, S, S) float32 in scene scales, channel 3 t + c.
    """
    rows, columns = nearest_known(momap.valid)
    scaled = in_scales(momap.xyz[:, rows, columns], scale_m, MAX_POINT_SCALES)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).reshape(-1, *momap.valid.shape))
