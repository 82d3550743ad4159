"""What every segmenter is: a function from a frame to its instance map."""

from __future__ import annotations

from typing import Protocol

from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame


class SegmentationError(ValueError):
    """Instances cannot be looked for: a frame without depth or table, or a segmenter without its weights."""


class Segmenter(Protocol):
    """Finds the instances of one frame. Ids of different frames are unrelated: InstanceTracker makes them stable."""

    def __call__(self, frame: RGBDFrame) -> InstanceMap:
        """The instances of a frame.

        Args:
            frame: the image; its depth may have holes.

        Returns:
            Ids at the frame's size, without any instance where nothing stands on the table.

        Raises:
            SegmentationError: the frame does not show what the segmenter needs.
        """
        ...
