"""RGB-D images and a sentence in, the future of every point and every object out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from momap_ros.config import (
    ForecastConfig,
    ForecastNodeConfig,
    HintsConfig,
    ObjectMotionConfig,
    PlannerConfig,
    SegmentationConfig,
    VlmConfig,
)
from momap_ros.forecaster import Forecast, Forecaster
from momap_ros.geometry import Float64
from momap_ros.images import labels_from_image
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories as CoreTrajectories
from momap_ros.msg import ObjectMotionArray, PointTrajectories
from momap_ros.object_cdr import objects_cdr
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.camera_inputs import CameraMessages
from momap_ros.ros.conversions import cloud_to_msg, forecast_from_numpy
from momap_ros.ros.diagnostics import release_gpu_memory
from momap_ros.ros.frame_node import WARM_UP_SIZE, FrameNode
from momap_ros.ros.managed_node import run_nodes
from momap_ros.ros.motion_hints import HintRequests, MotionHintInputs
from momap_ros.ros.planner_messages import first_hypotheses, planner_outputs, publish_for_planners
from momap_ros.ros.scoring import Seen, StreamScorer
from momap_ros.ros.segmenting import StableSegmenter
from momap_ros.ros.target_frame import TargetFrame
from momap_ros.segmentation.labels import instances_from_labels
from momap_ros.selection import in_frame, mean_velocity_m_s, objects_in_frame, published_trajectories


class AnyForecaster(Protocol):
    """What the node needs of momap_ros.forecaster.Forecaster."""

    config: ForecastConfig
    motion: ObjectMotionConfig

    @property
    def execution(self) -> object:
        """How the network runs; its text is for people."""
        ...

    def __call__(
        self,
        frame: RGBDFrame,
        instances: InstanceMap,
        prompt: str | None = None,
        hints: Mapping[int, Sequence[int]] | None = None,
    ) -> Forecast:
        """Forecast one frame."""
        ...

    def warm_up(self, width: int, height: int) -> float:
        """Run once, so that the first frame is not slow; returns seconds."""
        ...


class ForecastNode(FrameNode):
    """Publishes ~/trajectories, ~/object_motions, ~/applied_hints and, where somebody listens, what planners take."""

    def __init__(
        self,
        build_forecaster: Callable[[ForecastConfig, ObjectMotionConfig], AnyForecaster] = Forecaster,
        **node_arguments: Any,  # noqa: ANN401  (rclpy's own arguments)
    ) -> None:
        """Declare parameters.

        Args:
            build_forecaster: loads the model; called when the node is configured.
            **node_arguments: passed to rclpy's node.
        """
        groups = [
            ForecastNodeConfig,
            ForecastConfig,
            ObjectMotionConfig,
            PlannerConfig,
            SegmentationConfig,
            HintsConfig,
            VlmConfig,
        ]
        super().__init__("forecast_node", groups, **node_arguments)
        self._build_forecaster = build_forecaster
        self._forecaster: AnyForecaster | None = None
        self._segmenter: StableSegmenter | None = None
        self._target: TargetFrame | None = None
        self._prompt_subscription: Subscription | None = None
        self._hints: MotionHintInputs | None = None
        self._requests: HintRequests | None = None
        self._outputs: dict[str, LifecyclePublisher] = {}
        self._scoring: StreamScorer | None = None
        self._ignored_words_of: str | None = None

    @property
    def wants_instances(self) -> bool:
        """Whether label images come from a topic."""
        return self.parameters.read(ForecastNodeConfig).instances_source == "topic"

    def configure(self) -> None:
        """Load the model, run it once, and advertise."""
        config = self.parameters.read(ForecastConfig)
        if config.target_frame and self._target is None:
            self._target = TargetFrame(self, config.target_frame)
        if not self.wants_instances:
            self._segmenter = self.load_segmenter()
        try:
            with self.statistics.stage("load model"):
                self._forecaster = self._build_forecaster(config, self.parameters.read(ObjectMotionConfig))
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}; this node runs on {sys.executable}: install the model's requirements there, "
                "pip install 'momap_ros[model]'"
            ) from error
        warm_up_s = self._forecaster.warm_up(*WARM_UP_SIZE)
        load_s = self.statistics.stage_s("load model")
        self.get_logger().info(
            f"checkpoint {config.checkpoint}: loaded in {load_s:.1f} s, first run {warm_up_s:.1f} s, "
            f"network in {self._forecaster.execution}"
        )
        self._outputs = {
            "trajectories": self.create_output(PointTrajectories, "~/trajectories"),
            "objects": self.create_output(ObjectMotionArray, "~/object_motions"),
            "cloud": self.create_output(PointCloud2, "~/cloud"),
            **planner_outputs(self.create_output),
        }
        self._hints = MotionHintInputs(self)
        self._requests = HintRequests(self, self._hints.board)

    def activate(self) -> None:
        """Take frames, prompts and hints."""
        settings = self.parameters.read(ForecastNodeConfig)
        if settings.self_scoring:
            self._scoring = StreamScorer(
                period_s=settings.scoring_period_s,
                window_s=settings.scoring_window_s,
                moving_threshold_m=self.parameters.read(ObjectMotionConfig).moving_threshold_m,
            )
        super().activate()
        if self._hints is not None:
            self._hints.open()
        self._prompt_subscription = self.create_subscription(String, "prompt", self._receive_prompt, 1)

    def deactivate(self) -> None:
        """Take nothing any more."""
        if self._prompt_subscription is not None:
            self.destroy_subscription(self._prompt_subscription)
            self._prompt_subscription = None
        self._stop_hints()
        super().deactivate()
        if self._scoring is not None:
            self._scoring.stop()
            self._scoring = None

    def cleanup(self) -> None:
        """Free the model."""
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = {}
        if self._hints is not None:
            self._hints.destroy()
        self._hints = self._requests = None
        self._segmenter = None
        self._forecaster = None
        release_gpu_memory()

    def forget(self) -> None:
        """Ids start anew with the next frame, so hints for the old ones hold no longer."""
        if self._hints is not None:
            self._hints.board.clear()
        if self._requests is not None:
            self._requests.stop()
        if self._segmenter is not None:
            self._segmenter.reset()
        if self._scoring is not None:
            self._scoring.reset()

    def more_statuses(self) -> list[DiagnosticStatus]:
        """How good the forecasts were, where that is asked for."""
        scoring = self._scoring
        return [] if scoring is None else [scoring.status(f"{self.get_fully_qualified_name()}: self-scoring")]

    def process(self, messages: CameraMessages) -> None:
        """Forecast one frame and publish it, empty results too."""
        if self._forecaster is None or self._hints is None or self._requests is None:
            return
        config = self.parameters.read(ForecastConfig)
        self._forecaster.config = config
        self._forecaster.motion = self.parameters.read(ObjectMotionConfig)
        frame = self.decode(messages)
        with self.statistics.stage("instances"):
            instances = self._instances(frame, messages)
        self._requests.consider(frame, instances, config.prompt)
        hints = self._hints.for_frame(frame.stamp_ns, instances.areas_px)
        with self.statistics.stage("forecast"):
            forecast = self._forecaster(frame, instances, hints=hints)
        self.statistics.set_stages(forecast.timings_s)
        steps = f"{forecast.num_inference_steps} of {config.num_inference_steps}"
        self.statistics.set_note("denoising steps", steps + (", continued" if forecast.continued else ""))
        self.statistics.set_note("network", forecast.network)
        self._name_ignored_words(config.prompt, forecast)
        with self.statistics.stage("publish"):
            target_from_camera = self._publish(forecast, config)
            self._hints.echo(hints, forecast.applied_hints, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id)
        if self._scoring is not None:
            self._scoring.offer(Seen(forecast.trajectories, frame, instances, target_from_camera))

    def _instances(self, frame: RGBDFrame, messages: CameraMessages) -> InstanceMap:
        if messages.instances is not None:
            return instances_from_labels(labels_from_image(messages.instances), frame)
        if self._segmenter is None:
            raise RuntimeError("expected a segmenter or label images, got neither")
        return self._segmenter(frame, self.parameters.read(SegmentationConfig))

    def _publish(self, forecast: Forecast, config: ForecastConfig) -> Float64 | None:
        """Publish; returns the camera's pose (4, 4) in the target frame, where there is one."""
        target_from_camera = None
        trajectories, objects = published_trajectories(forecast, config), forecast.objects
        planner = self.parameters.read(PlannerConfig)

        def swept() -> CoreTrajectories:  # asked for only where somebody listens
            followed = first_hypotheses(forecast.trajectories, planner.swept_hypotheses)
            if self._target is None or target_from_camera is None:
                return followed
            return in_frame(followed, target_from_camera, self._target.frame_id)

        if self._target is not None:
            target_from_camera = self._target.target_from(trajectories.frame_id, trajectories.stamp_ns)
            objects = objects_in_frame(
                forecast, target_from_camera, self._target.frame_id, self.parameters.read(ObjectMotionConfig)
            )
            trajectories = in_frame(trajectories, target_from_camera, self._target.frame_id)
        self._outputs["trajectories"].publish(forecast_from_numpy(trajectories))
        latency_s = (self.get_clock().now().nanoseconds - trajectories.stamp_ns) * 1e-9
        self._outputs["objects"].publish(
            objects_cdr(objects, trajectories, model_name=config.checkpoint, latency_s=latency_s)
        )
        if self._outputs["cloud"].get_subscription_count():
            self._outputs["cloud"].publish(cloud_to_msg(trajectories, mean_velocity_m_s(trajectories)))
        publish_for_planners(self._outputs, objects, trajectories, planner, swept=swept)
        return target_from_camera

    def _stop_hints(self) -> None:
        if self._hints is not None:
            self._hints.close()
        if self._requests is not None:
            self._requests.stop()

    def _receive_prompt(self, message: String) -> None:
        """A sentence; it becomes the parameter, so that there is one place to look."""
        if message.data == self.parameters.read(ForecastConfig).prompt:
            return
        self.set_parameters([Parameter("forecast.prompt", value=message.data)])
        self.get_logger().info(f"prompt: {message.data!r}")

    def _name_ignored_words(self, prompt: str, forecast: Forecast) -> None:
        """Say once per prompt which of its words the model does not know."""
        if forecast.ignored_words and prompt != self._ignored_words_of:
            self._ignored_words_of = prompt
            words = ", ".join(forecast.ignored_words)
            self.get_logger().warning(
                f"prompt {prompt!r}: the model does not know {words}; `momap info` lists its words"
            )


def main(args: list[str] | None = None) -> int:
    """Run the node; args as in sys.argv. Returns the exit code."""
    return run_nodes(lambda: [ForecastNode()], args)
