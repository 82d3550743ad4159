"""Instance maps: which object every pixel belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from momap_ros.rgbd import UInt8, resize_nearest
from momap_ros.shapes import check_shapes

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
        values, counts = np.unique(self.ids, return_counts=True)
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
