"""Forecasts of a running node, scored in a thread of their own while the stream goes on."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from momap_ros.geometry import Float64
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.worker import LatestOnlyWorker
from momap_ros.scoring.camera import MovingCameraError
from momap_ros.scoring.scorer import HORIZONS_S, ForecastScorer
from momap_ros.scoring.scores import HorizonSummary, ObjectScore, Outcome, summarise

# Of one core: the forecast, which shares Python's lock, must not wait for its score.
MAX_BUSY_SHARE = 0.2
MAX_PAUSE_S = 2.0
MAX_SCORES = 4096  # in the window, however long it is
ERROR_SHOWN_S = 10.0


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One frame that the node has forecast.

    Attributes:
        trajectories: its forecast, in the camera's optical frame.
        frame: colour and depth.
        instances: with stable ids.
        world_from_camera: (4, 4) pose from TF, or None where the camera is taken to rest.
    """

    trajectories: PointTrajectories
    frame: RGBDFrame
    instances: InstanceMap
    world_from_camera: Float64 | None


class StreamScorer:
    """Scores what a node forecasts; its memory and its share of the processor are bounded.

    Every method may be called from any thread. A frame that comes while another is scored replaces the one that waits.
    """

    def __init__(self, *, period_s: float, window_s: float, moving_threshold_m: float) -> None:
        """Start the thread.

        Args:
            period_s: time between two forecasts that are kept, seconds of their stamps.
            window_s: how long scores count, seconds of their stamps.
            moving_threshold_m: what counts as moved, metres.
        """
        self._period_ns, self._window_ns = round(period_s * 1e9), round(window_s * 1e9)
        self._threshold_m = moving_threshold_m
        self._scorer = ForecastScorer()
        self._scores: deque[ObjectScore] = deque(maxlen=MAX_SCORES)
        self._kept_ns: int | None = None
        self._error, self._error_at = "", float("-inf")
        self._lock = threading.Lock()
        self._start_anew, self._stopping = threading.Event(), threading.Event()
        self._worker = LatestOnlyWorker(self._handle, self._report, name="scoring")

    def offer(self, seen: Seen) -> None:
        """Take a frame with its forecast; never waits."""
        trajectories = seen.trajectories
        if trajectories.num_hypotheses > 1:  # the others would only take memory
            confidence = None if trajectories.confidence is None else trajectories.confidence[:1]
            first = dataclasses.replace(
                trajectories, positions=trajectories.positions[:1].copy(), confidence=confidence
            )
            seen = dataclasses.replace(seen, trajectories=first)
        self._worker.offer(seen)

    def reset(self) -> None:
        """Ids and time start anew with the next frame."""
        self._worker.discard()
        self._start_anew.set()

    def stop(self) -> None:
        """End the thread after the frame it has."""
        self._stopping.set()
        self._worker.stop()

    def status(self, name: str) -> DiagnosticStatus:
        """The rolling scores as one diagnostic status: OK, or WARN with the reason while nothing can be scored."""
        with self._lock:
            scores, error = list(self._scores), self._error
            is_recent = time.monotonic() - self._error_at < ERROR_SHOWN_S
        values: dict[str, str] = {}
        for summary in summarise(scores, HORIZONS_S, moving_threshold_m=self._threshold_m):
            if sum(summary.counts.values()):
                values |= _values(summary)
        values["forecasts dropped"] = str(self._scorer.dropped)
        scored = sum(score.outcome == Outcome.SCORED for score in scores)
        level, message = DiagnosticStatus.OK, f"{scored} objects scored"
        if is_recent:
            level, message = DiagnosticStatus.WARN, error
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        return DiagnosticStatus(level=level, name=name, message=message, values=pairs)

    def _handle(self, seen: Seen) -> None:
        started = time.perf_counter()
        if self._start_anew.is_set():
            self._start_anew.clear()
            self._scorer.reset()
            self._kept_ns = None
            with self._lock:
                self._scores.clear()
        try:
            self._compare(seen)
        finally:
            busy_s = time.perf_counter() - started
            self._stopping.wait(min(busy_s * (1.0 / MAX_BUSY_SHARE - 1.0), MAX_PAUSE_S))

    def _compare(self, seen: Seen) -> None:
        stamp_ns = seen.frame.stamp_ns
        try:
            scores = self._scorer.observe(seen.frame, seen.instances, world_from_camera=seen.world_from_camera)
        finally:  # a camera that moved spoils the forecasts before, not this one
            if self._kept_ns is None or stamp_ns - self._kept_ns >= self._period_ns:
                self._kept_ns = stamp_ns
                self._scorer.add(
                    seen.trajectories, seen.frame, seen.instances, world_from_camera=seen.world_from_camera
                )
        with self._lock:
            self._scores.extend(scores)
            while self._scores and stamp_ns - self._scores[0].stamp_ns > self._window_ns:
                self._scores.popleft()

    def _report(self, error: Exception) -> None:
        advice = "; set forecast.target_frame to a frame that rests" if isinstance(error, MovingCameraError) else ""
        with self._lock:
            self._error, self._error_at = f"not scored: {error}{advice}", time.monotonic()


def _values(summary: HorizonSummary) -> dict[str, str]:
    """One horizon's figures by name."""
    horizon = f"{summary.horizon_s:g} s"
    values = {f"{horizon}: {outcome.value}": str(count) for outcome, count in summary.counts.items()}
    values[f"{horizon}: moved"] = str(summary.num_moved)
    if summary.num_moved:
        values[f"{horizon}: error [m]"] = f"{summary.moved_error_m:.4f}"
        values[f"{horizon}: error of 'nothing moves' [m]"] = f"{summary.moved_static_error_m:.4f}"
        values[f"{horizon}: skill"] = f"{summary.skill:.3f}"
    if summary.num_still:
        values[f"{horizon}: error of what stayed [m]"] = f"{summary.still_error_m:.4f}"
    return values
