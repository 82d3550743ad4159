"""A node that works on RGB-D frames: inputs feed a worker with one slot, failures are counted, named and survived."""

from __future__ import annotations

import time
import traceback
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from momap_ros.config import InputConfig, SegmentationConfig, Settings
from momap_ros.images import ConversionError, frame_from_messages
from momap_ros.rgbd import FrameError, RGBDFrame
from momap_ros.ros.camera_inputs import CameraInputs, CameraMessages
from momap_ros.ros.diagnostics import is_out_of_memory, release_gpu_memory
from momap_ros.ros.managed_node import ManagedNode
from momap_ros.ros.segmenting import StableSegmenter
from momap_ros.ros.target_frame import TransformError
from momap_ros.ros.worker import LatestOnlyWorker
from momap_ros.segmentation.base import SegmentationError

# A first run is many times slower than the others. Networks have input sizes of their own, so any image size will do.
WARM_UP_SIZE = (640, 480)
# Frames in a row for which the GPU's memory did not suffice, before the node stops trying.
OUT_OF_MEMORY_LIMIT = 3
# A failure that repeats is logged this often; it is counted every time.
REPEAT_S = 10.0

# What a camera or TF can do wrong; the text says what to do, so a traceback would only hide it.
INPUT_ERRORS = (ConversionError, FrameError, SegmentationError, TransformError)


class FrameNode(ManagedNode):
    """Handles the newest frame, again and again, in a thread of its own.

    Subclasses give `process` and `forget` beside `configure` and `cleanup`.
    """

    def __init__(self, name: str, groups: Sequence[type[Settings]], **node_arguments: Any) -> None:  # noqa: ANN401
        """See ManagedNode; the groups of the inputs are added."""
        super().__init__(name, [*groups, InputConfig], **node_arguments)
        self._inputs: CameraInputs | None = None
        self._worker: LatestOnlyWorker[tuple[float, CameraMessages]] | None = None
        self._out_of_memory = 0
        self._logged_at: dict[str, float] = {}

    @abstractmethod
    def process(self, messages: CameraMessages) -> None:
        """Work on one frame and publish; called in the worker's thread."""

    @abstractmethod
    def forget(self) -> None:
        """Time went back: drop what was remembered of earlier frames; called in the executor's thread."""

    @property
    def wants_instances(self) -> bool:
        """Whether a frame is complete only with its label image."""
        return False

    def activate(self) -> None:
        """Start the worker and subscribe."""
        self._out_of_memory = 0
        self._worker = LatestOnlyWorker(self._handle_timed, self._report, name=self.get_name())
        self._inputs = CameraInputs(
            self, with_instances=self.wants_instances, on_frame=self._offer, on_rewind=self._rewound
        )

    def deactivate(self) -> None:
        """Unsubscribe, and let the worker finish its frame; the result is not published any more."""
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def silent_inputs(self) -> list[str]:
        """Topics from which nothing comes."""
        return [] if self._inputs is None else self._inputs.silent()

    def load_segmenter(self) -> StableSegmenter:
        """The segmenter that the settings name, run once."""
        config = self.parameters.read(SegmentationConfig)
        with self.statistics.stage("load segmenter"):
            segmenter = StableSegmenter(config)
        load_s, warm_up_s = self.statistics.stage_s("load segmenter"), segmenter.warm_up(*WARM_UP_SIZE)
        self.get_logger().info(f"segmentation {config.method}: loaded in {load_s:.1f} s, first run {warm_up_s:.1f} s")
        return segmenter

    def decode(self, messages: CameraMessages) -> RGBDFrame:
        """The frame of some messages; the time it takes goes to the statistics."""
        with self.statistics.stage("images"):  # a forecast has a stage "decode" of its own
            rectified = self.parameters.read(InputConfig).rectified
            return frame_from_messages(messages.color, messages.depth, messages.info, rectified=rectified)

    def _offer(self, messages: CameraMessages) -> None:
        if self._worker is not None:
            self._worker.offer((time.perf_counter(), messages))
            self.statistics.set_skipped("frames replaced by newer ones", self._worker.dropped)

    def _rewound(self) -> None:
        if self._worker is not None:
            self._worker.discard()
        self.forget()

    def _handle_timed(self, item: tuple[float, CameraMessages]) -> None:
        arrived, messages = item
        self.statistics.set_stages({"wait": time.perf_counter() - arrived})
        self.process(messages)
        self._out_of_memory = 0
        self.statistics.count_arrival("results")
        self.statistics.set_stages({"all stages": time.perf_counter() - arrived})

    def _report(self, error: Exception) -> None:
        """Name a failed frame; called in the worker's thread by an except clause."""
        if not self.context.ok():
            return  # The process was told to end while the frame was under way.
        kind = type(error).__name__
        self.statistics.count_skipped(f"frames with {kind}")
        self.statistics.set_error(str(error))
        if is_out_of_memory(error):
            self._run_out_of_memory()
        now = time.monotonic()
        if now - self._logged_at.get(kind, float("-inf")) < REPEAT_S:
            return
        self._logged_at[kind] = now
        if isinstance(error, INPUT_ERRORS):
            self.get_logger().warning(f"frame skipped: {error}")
        else:
            self.get_logger().error(f"{traceback.format_exc()}frame skipped: {error}")

    def _run_out_of_memory(self) -> None:
        release_gpu_memory()
        self._out_of_memory += 1
        if self._out_of_memory < OUT_OF_MEMORY_LIMIT or self.executor is None:
            return
        self.get_logger().error(
            f"{OUT_OF_MEMORY_LIMIT} frames in a row did not fit into the GPU's memory: deactivating; lower "
            "forecast.num_hypotheses or free memory, then activate the node again"
        )
        # The executor's thread: this one is the worker's, which deactivation waits for.
        self.executor.create_task(self.trigger_deactivate)
