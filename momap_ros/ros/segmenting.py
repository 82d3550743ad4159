"""Instances with ids that stay the same over the frames of a stream, by the method the settings name."""

from __future__ import annotations

import threading

from momap_ros.config import SegmentationConfig
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.conversions import MAX_LABEL
from momap_ros.segmentation.base import Segmenter
from momap_ros.segmentation.sam2 import Sam2Segmenter
from momap_ros.segmentation.tabletop import TabletopSegmenter
from momap_ros.segmentation.tracking import InstanceTracker


class StableSegmenter:
    """Segments frame after frame; settings that are not read-only may change in between."""

    def __init__(self, config: SegmentationConfig) -> None:
        """Load what the method needs.

        Raises:
            SegmentationError: the method's weights are missing.
        """
        self._segmenter: Segmenter
        if config.method == "sam2":
            self._segmenter = Sam2Segmenter(config)
            self._tabletop = self._segmenter.tabletop
        else:
            self._segmenter = self._tabletop = TabletopSegmenter(config)
        self._tracker = InstanceTracker(config.max_lost_frames)
        self._start_anew = threading.Event()

    def __call__(self, frame: RGBDFrame, config: SegmentationConfig) -> InstanceMap:
        """The instances of a frame under stable ids up to MAX_LABEL; beyond that ids start anew.

        Raises:
            SegmentationError: the frame does not show what the segmenter needs.
        """
        if self._start_anew.is_set():
            self._start_anew.clear()
            self._tracker.reset()
        self._tabletop.config = config
        self._tracker.max_lost_frames = config.max_lost_frames
        found = self._segmenter(frame)
        stable = self._tracker(frame, found)
        if max(stable.areas_px, default=0) > MAX_LABEL:
            self._tracker.reset()
            stable = self._tracker(frame, found)
        return stable

    def reset(self) -> None:
        """Ids start anew with the next frame; may be called from another thread."""
        self._start_anew.set()
