"""Instance maps: which object every pixel belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from momap_ros.rgbd import UInt8, resize_nearest
from momap_ros.shapes import check_shapes

_LARGEST_IN_TABLE = 1 << 16  # tables are several times faster than sorting, but as long as the largest id
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class InstanceMap:
    """Instance ids per pixel.

    Attributes:
        ids: (H, W) int32; 0 = no instance (background), positive = instance, stable over the frames of a stream.
        labels: names of some instances; an instance without a name is legitimate.

    Raises:
        ValueError: ids are not int32 or negative.
    """

    ids: Int32
    labels: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check layout and value range."""
        check_shapes(ids=(self.ids, "H W"))
        if self.ids.dtype != np.int32 or (self.ids.size and self.ids.min() < 0):
            raise ValueError(f"ids: expected int32 values >= 0, got {self.ids.dtype} with minimum {self.ids.min()}")

    @cached_property
    def areas_px(self) -> dict[int, int]:
        """Instance id -> number of pixels, in rising order of id, background left out."""
        values, counts = count_ids(self.ids)
        return {int(value): int(count) for value, count in zip(values, counts, strict=True) if value > 0}

    def resized(self, width: int, height: int) -> InstanceMap:
        """The map at another size; every pixel takes the id of the nearest source pixel."""
        return InstanceMap(np.asarray(resize_nearest(self.ids, width, height), np.int32), self.labels)

    def color_image(self, seed: int = 0) -> UInt8:
        """(H, W, 3) uint8, one random colour per instance, black for the background.

        Paper: Sec. 3.3.3, the segmentation condition. The colour depends on seed and id alone, so an instance keeps it.
        """
        image = np.zeros((*self.ids.shape, 3), np.uint8)
        for instance_id in self.areas_px:
            image[self.ids == instance_id] = np.random.default_rng([seed, instance_id]).integers(40, 256, 3)
        return image


def count_ids(ids: Int32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The ids of an array of ids >= 0 in rising order, and how often each occurs."""
    if ids.size == 0 or ids.max() > _LARGEST_IN_TABLE:
        values, counts = np.unique(ids, return_counts=True)
        return values.astype(np.int64), counts.astype(np.int64)
    frequency = np.bincount(ids.ravel())
    present = np.flatnonzero(frequency)
    return present.astype(np.int64), frequency[present].astype(np.int64)


def renumbered(ids: Int32, old: Int32, new: Int32) -> Int32:
    """An array of ids >= 0 with every old id, in rising order, replaced by the new one at its place; all ids occur."""
    if not len(old) or old[-1] > _LARGEST_IN_TABLE:
        return np.asarray(new[np.searchsorted(old, ids)], np.int32)
    table = np.zeros(int(old[-1]) + 1, np.int32)
    table[old] = new
    return table[ids]
