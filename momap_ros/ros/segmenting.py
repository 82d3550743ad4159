"""Instances with ids that stay the same over the frames of a stream, by the method the settings name."""

from __future__ import annotations

import threading
import time

import numpy as np

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import PinholeCamera
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

    def warm_up(self, width: int, height: int) -> float:
        """Segment a synthetic box on a table, so that the first real frame is not slow; returns seconds."""
        depth_m = np.full((height, width), 0.8, np.float32)
        box = np.s_[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
        depth_m[box] = 0.7
        camera = PinholeCamera.from_fov(width, height, vertical_fov_rad=0.8)
        started = time.perf_counter()
        self._segmenter(RGBDFrame(np.full((height, width, 3), 128, np.uint8), depth_m, camera))
        return time.perf_counter() - started

    def reset(self) -> None:
        """Ids start anew with the next frame; may be called from another thread."""
        self._start_anew.set()
