"""One call from frame to forecast: what the nodes and the command line share.

Loads the model once, draws the futures, picks the pixels that are followed and fits the objects' motions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap, Int32, count_ids
from momap_ros.momap import MoMap, PointTrajectories, representative_order
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.pacing import StepBudget
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.model.output import MoMapOutput

# Every object is followed at so many pixels at least (where it has them), however small its share of the image.
MIN_POINTS_PER_OBJECT = 48


@dataclass(frozen=True, eq=False)
class Forecast:
    """Everything known about the future of one frame.

    Attributes:
        trajectories: all hypotheses of the followed pixels, the most representative one first; metres, the camera's
            optical frame.
        objects: one motion per instance in that first hypothesis, in rising order of id.
        output: the model's drawing, for dense maps.
        timings_s: seconds per stage: model, decode, objects, one after the other; network is the part of model in which
            the networks ran, until what they drew was on the CPU.
        ignored_words: words of the prompt that the model does not know, or beyond its length limit.
        dropped_ids: instances the model could not see: too small for a cell or beyond its number of slots.
        num_inference_steps: denoising steps taken; fewer than configured for a deadline or after a warm start.
        continued: it went on from the forecast before.
        network: how the network ran: precision, what was measured to choose it, compilation.
        applied_hints: instance id -> (x, y, z) direction flags that the futures were drawn with.
    """

    trajectories: PointTrajectories
    objects: list[ObjectMotion]
    output: MoMapOutput
    timings_s: dict[str, float]
    ignored_words: tuple[str, ...]
    dropped_ids: tuple[int, ...]
    applied_hints: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    num_inference_steps: int = 0
    continued: bool = False
    network: str = "float32"

    @property
    def seconds(self) -> float:
        """What all of it took."""
        return sum(self.timings_s[stage] for stage in ("model", "decode", "objects"))

    def momap(self, hypothesis: int, width: int = 256, height: int = 256) -> MoMap:
        """One future as a dense MoMap of the frame stretched to width x height."""
        return self.output.momap(hypothesis, width, height)


def foreground_pixels(frame: RGBDFrame, instances: InstanceMap, max_points: int) -> Int32:
    """(P, 2) pixels (u, v) with depth, spread evenly over every instance; P <= max_points.

    Instances share the points by area, but none gets fewer than an even share or MIN_POINTS_PER_OBJECT, if it has them.
    """
    labelled = np.flatnonzero(frame.valid & (instances.ids > 0))
    of_pixel = instances.ids.ravel()[labelled]
    ids, areas = count_ids(of_pixel)
    if not len(ids):
        return np.zeros((0, 2), np.int32)
    floor = min(MIN_POINTS_PER_OBJECT, max_points // len(ids))
    spare = max_points - floor * len(ids)
    quota = np.minimum(areas, floor + (spare * areas / areas.sum()).astype(int))
    # Pixels by instance, in reading order within each; small numbers sort several times faster than the ids themselves.
    numbers = np.searchsorted(ids, of_pixel).astype(np.min_scalar_type(len(ids)))
    by_instance = labelled[np.argsort(numbers, kind="stable")]
    starts = np.cumsum(areas) - areas
    chosen = [
        by_instance[start + ((np.arange(count) + 0.5) * area / max(count, 1)).astype(int)]
        for start, area, count in zip(starts, areas, quota, strict=True)
    ]
    rows, columns = np.divmod(np.concatenate(chosen), frame.camera.width)
    return np.stack([columns, rows], axis=-1).astype(np.int32)


def all_pixels(frame: RGBDFrame) -> Int32:
    """(P, 2) every pixel (u, v) with depth."""
    rows, columns = np.nonzero(frame.valid)
    return np.stack([columns, rows], axis=-1).astype(np.int32)


class Forecaster:
    """A loaded model with its settings.

    Args:
        forecast: model, prompt and sampling settings.
        motion: settings of the object motions.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ExecutionError: compilation is asked for, and something for it is missing.
    """

    def __init__(self, forecast: ForecastConfig, motion: ObjectMotionConfig) -> None:
        """Load the checkpoint; takes seconds, done once."""
        # Threads that spin while they wait make a forecast several times slower on a robot whose cores are shared.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
        import torch

        from momap_ros.model.device import choose_device, keep_numpy_single_threaded
        from momap_ros.model.execution import prepare_execution
        from momap_ros.model.pipeline import MoMapPipeline

        if forecast.num_threads:
            torch.set_num_threads(forecast.num_threads)
        # Settings that a running node may change are read again for every frame.
        self.config, self.motion = forecast, motion
        self.pipeline = MoMapPipeline.from_pretrained(forecast.checkpoint)
        self.device = choose_device(forecast.device)
        self.execution = prepare_execution(self.pipeline, forecast, self.device)
        keep_numpy_single_threaded()
        self._budget = StepBudget()
        self._last: tuple[str, MoMapOutput] | None = None

    def forget(self) -> None:
        """Start the next forecast anew, whatever was forecast before."""
        self._last = None

    def _to_continue(self, frame: RGBDFrame, prompt: str) -> tuple[MoMapOutput | None, float]:
        """The forecast to go on from, where there is one, and the seconds since its frame."""
        if not (self.config.warm_start and self.pipeline.can_continue and self._last):
            return None, 0.0
        said, output = self._last
        elapsed_s = (frame.stamp_ns - output.frame.stamp_ns) * 1e-9
        same_view = frame.frame_id == output.frame.frame_id and frame.camera == output.frame.camera
        same_question = prompt == said and output.num_hypotheses == self.config.num_hypotheses
        in_time = 0 < elapsed_s < output.step_s * (output.codec.num_steps - 1)
        return (output, elapsed_s) if same_view and same_question and in_time else (None, 0.0)

    def __call__(
        self,
        frame: RGBDFrame,
        instances: InstanceMap,
        prompt: str | None = None,
        hints: Mapping[int, Sequence[int]] | None = None,
    ) -> Forecast:
        """Forecast one frame; equal input, settings and seed give equal forecasts.

        With a deadline the number of steps depends on how long earlier forecasts took; with a warm start the forecast
        depends on the one before.

        Args:
            frame: registered colour and depth.
            instances: instance map of the same size; an empty one gives an empty forecast.
            prompt: what will happen; the configured prompt where None.
            hints: instance id -> direction flags, see `momap_ros.hints` and `MoMapPipeline`.

        Raises:
            FrameError: the frame has no depth.
            ValueError: a hint for an unknown instance.
        """
        import torch

        started = time.perf_counter()
        prompt = self.config.prompt if prompt is None else prompt
        num_steps = self._budget.steps_within(self.config.deadline_s, self.config.num_inference_steps)
        previous, elapsed_s = self._to_continue(frame, prompt)
        output = self.pipeline(
            frame,
            instances,
            prompt,
            hints=hints,
            num_hypotheses=self.config.num_hypotheses,
            num_inference_steps=num_steps,
            generator=torch.Generator().manual_seed(self.config.seed),
            previous=previous,
            elapsed_s=elapsed_s,
        )
        self._last = (prompt, output)
        drawn = time.perf_counter()
        pixels = foreground_pixels(frame, instances, self.config.max_points)
        # The most representative future comes first: it is the one that objects, pictures and messages describe.
        trajectories = output.trajectories(pixels)
        order = representative_order(trajectories)
        output, trajectories = output.reordered(order), trajectories.reordered(order)
        decoded = time.perf_counter()
        objects = estimate_object_motions(
            trajectories,
            self.motion,
            hypothesis=0,
            labels=instances.labels,
            moving_probability=output.instance_moving_probability(),
        )
        objects = [replace(motion, goal_id=output.goals.get(motion.instance_id, 0)) for motion in objects]
        timings = {"network": output.network_s, "model": drawn - started, "decode": decoded - drawn}
        timings["objects"] = time.perf_counter() - decoded
        steps_taken = num_steps - num_steps // 2 if previous is not None else num_steps
        self._budget.record(steps_taken, time.perf_counter() - started)
        return Forecast(
            trajectories,
            objects,
            output,
            timings,
            ignored_words=output.ignored_words,
            dropped_ids=output.grid.dropped_ids,
            applied_hints=output.applied_hints,
            num_inference_steps=steps_taken,
            continued=previous is not None,
            network=str(self.execution),
        )

    def warm_up(self, width: int, height: int) -> float:
        """Run once on a made-up frame of the given size, so that the first real one is not slow; returns seconds.

        Compilation, where it is asked for, happens here.
        """
        camera = PinholeCamera.from_fov(width, height, vertical_fov_rad=1.0)
        rgb = np.full((height, width, 3), 128, np.uint8)
        ids = np.zeros((height, width), np.int32)
        ids[height // 4 : height // 2, width // 4 : width // 2] = 1
        started = time.perf_counter()
        self(RGBDFrame(rgb, np.full((height, width), 0.7, np.float32), camera), InstanceMap(ids))
        self.forget()
        return time.perf_counter() - started
