"""Instances on a table from depth alone: no weights, no training, a few milliseconds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import Float32, PinholeCamera
from momap_ros.instances import InstanceMap, Int32
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.patches import (
    concave_cuts,
    depth_jumps,
    fill_holes,
    grow,
    join_patches,
    numbered,
    parted_cores,
)
from momap_ros.segmentation.table import find_table

REFERENCE_WIDTH_PX = 640  # the settings' pixels are pixels of an image of this width
NOISE_FACTOR = 4.0  # heights below this many standard deviations of the table's noise are table
TOP_FACTOR = 1.5  # an object rises above the height threshold by this factor somewhere
HOLE_FACTOR = 4  # holes in an object of up to this many smallest areas are missing depth or the bottom of a container


class TabletopSegmenter:
    """What stands on the table the camera looks at, cut where surfaces meet in concave edges or hide each other.

    Colour is not used: printing splits real objects more often than colour separates touching ones.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        """A segmenter without memory: the same frame gives the same ids."""
        self.config = config

    def __call__(self, frame: RGBDFrame) -> InstanceMap:
        """The instances on the table; an empty table gives an empty map.

        Raises:
            SegmentationError: no depth was measured, or the image shows no table.
        """
        config = self.config
        stride = max(1, round(config.stride * frame.camera.width / REFERENCE_WIDTH_PX))
        depth_m = _smoothed(frame.depth_m[::stride, ::stride])
        camera = _strided(frame.camera, stride)
        table = find_table(depth_m, camera, tolerance_m=config.plane_tolerance_m, seed=0)
        lowest_m = max(config.min_height_m, NOISE_FACTOR * table.noise_m)
        with np.errstate(invalid="ignore"):
            raised = table.over & (table.height_m > lowest_m) & (table.height_m < config.max_height_m)
        cuts = concave_cuts(depth_m, camera.fx, config.concavity) | depth_jumps(depth_m, config.depth_jump_m)
        cores = parted_cores(raised, cuts, depth_m, config.depth_jump_m)
        small_px = round(config.min_area_px * (frame.camera.width / REFERENCE_WIDTH_PX / stride) ** 2)
        labels = grow(cores, raised, depth_m, jump_m=config.depth_jump_m, rounds=config.grow_px)
        if labels.any():
            labels = join_patches(labels, cores, depth_m, table.height_m, min_px=small_px)
            labels = fill_holes(labels, HOLE_FACTOR * small_px)
        max_px = config.max_area_share * labels.size
        labels = _plausible(labels, table.height_m, (small_px, max_px), TOP_FACTOR * lowest_m)
        return InstanceMap(_enlarged(labels, stride, frame.depth_m.shape))


def _smoothed(depth_m: Float32) -> Float32:
    """(H, W) median of 5x5 pixels; NaN stays where most of them are unknown."""
    import cv2

    median = cv2.medianBlur(np.nan_to_num(depth_m, nan=0.0), 5)
    return np.asarray(np.where(median > 0, median, np.nan), np.float32)


@lru_cache(maxsize=4)
def _strided(camera: PinholeCamera, stride: int) -> PinholeCamera:
    """The camera of every stride-th pixel; kept, because its rays are computed once."""
    width, height = -(-camera.width // stride), -(-camera.height // stride)
    return PinholeCamera(width, height, camera.fx / stride, camera.fy / stride, camera.cx / stride, camera.cy / stride)


def _plausible(labels: Int32, height_m: Float32, limits_px: tuple[int, float], lowest_top_m: float) -> Int32:
    """Labels of allowed area that rise high enough, numbered 1, 2, ..."""
    areas = np.bincount(labels.ravel())
    keep = (areas >= limits_px[0]) & (areas <= limits_px[1])
    with np.errstate(invalid="ignore"):
        high = np.bincount(labels[height_m > lowest_top_m], minlength=len(areas))
    return numbered(labels, keep & (high >= 0.1 * areas))


def _enlarged(labels: Int32, stride: int, shape: tuple[int, ...]) -> Int32:
    """Labels at the source size; label (i, j) was measured at source pixel (stride i, stride j)."""
    rows = np.minimum((np.arange(shape[0]) + stride // 2) // stride, labels.shape[0] - 1)
    columns = np.minimum((np.arange(shape[1]) + stride // 2) // stride, labels.shape[1] - 1)
    return np.ascontiguousarray(labels[rows][:, columns])
