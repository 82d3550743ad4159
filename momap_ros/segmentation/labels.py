"""Instances that somebody else found: a label image becomes an instance map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError


def instances_from_labels(labels: npt.NDArray[np.integer], frame: RGBDFrame) -> InstanceMap:
    """Take the ids of a label image that belongs to a frame.

    Args:
        labels: (H, W) integers of any width; 0 = no instance.
        frame: the frame whose pixels are labelled.

    Returns:
        The same ids as an instance map.

    Raises:
        SegmentationError: the labels are no integers, negative, beyond 31 bits or of another size than the frame.
    """
    expected = frame.depth_m.shape
    if labels.shape != expected:
        raise SegmentationError(
            f"label image: expected {expected[1]}x{expected[0]} pixels as the colour image has, got shape "
            f"{labels.shape}; labels are not resized, because thin objects would vanish: segment the image itself"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise SegmentationError(
            f"label image: expected integers, got {labels.dtype}; cast class or instance ids yourself"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        raise SegmentationError(
            f"label image: expected values in [0, {np.iinfo(np.int32).max}], got [{lowest}, {highest}]; "
            "use 0 for pixels without an instance"
        )
    return InstanceMap(labels.astype(np.int32))
