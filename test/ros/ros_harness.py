"""What the node tests share: a context, a synthetic camera, and a forecaster whose answers are known."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import Forecast, foreground_pixels
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import estimate_object_motions
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.conversions import header_to_msg
from momap_ros.ros.managed_node import ManagedNode
from momap_ros.ros.transport import allow_large_messages

WIDTH, HEIGHT, FOCAL_PX = 320, 240, 300.0
FRAME_ID = "camera_color_optical_frame"
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
NUM_STEPS, STEP_S = 8, 0.25
VELOCITY_M_S = np.array([0.12, 0.0, -0.04], np.float32)
# Generous, because other work may leave this machine little time.
WAIT_S = 90.0

AnyNode = TypeVar("AnyNode", bound=Node)


class Ros:
    """One context with one executor; nodes are added and taken down together."""

    def __init__(self) -> None:
        self.context = Context()
        # A domain of its own: nodes of the tests before take a while to leave the graph, and have the same names.
        domain_id = 1 + int(os.environ["ROS_DOMAIN_ID"]) % 101
        os.environ["ROS_DOMAIN_ID"] = str(domain_id)  # for the executables that a test starts
        allow_large_messages()
        rclpy.init(context=self.context, args=["test"], domain_id=domain_id)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Node] = []

    def add(self, node: AnyNode) -> AnyNode:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def node(self, name: str) -> Node:
        return self.add(Node(name, context=self.context, use_global_arguments=False))

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Spin until the condition holds; False where it does not within the time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def spin_for(self, duration_s: float) -> None:
        self.spin_until(lambda: False, duration_s)

    def collect(self, message_type: type[Any], topic: str) -> list[Any]:
        """A list that grows with every message on a topic."""
        received: list[Any] = []
        node = self.node(f"collector_{len(self.nodes)}")
        node.create_subscription(
            message_type, topic, received.append, QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        )
        return received

    def close(self) -> None:
        for node in self.nodes:
            if hasattr(node, "finish"):
                node.finish()
            else:
                node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)


def start(node: ManagedNode) -> bool:
    """Configure and activate, as an executable does."""
    return node.start_configured() and node.start_active()


class Camera:
    """Publishes one scene again and again: a table seen from above, two boxes on it."""

    def __init__(
        self,
        ros: Ros,
        *,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        depth_delay_ns: int = 0,
    ) -> None:
        self.ros = ros
        self.node = ros.node("camera")
        self.depth_delay_ns = depth_delay_ns
        profile = QoSProfile(depth=5, reliability=reliability)
        self.color = self.node.create_publisher(Image, "color/image_raw", profile)
        self.depth = self.node.create_publisher(Image, "depth/image_raw", profile)
        self.info = self.node.create_publisher(CameraInfo, "color/camera_info", profile)
        self.instances = self.node.create_publisher(Image, "instances", profile)

    def wait_for_subscriber(self) -> None:
        """Until every input is connected with the reliability offered here: the node may subscribe a second time."""
        assert self.ros.spin_until(self._is_connected)

    def _is_connected(self) -> bool:
        counts = []
        for publisher in (self.color, self.depth, self.info, self.instances):
            seen = self.node.get_subscriptions_info_by_topic(publisher.topic_name)
            offered = publisher.qos_profile.reliability
            if any(info.qos_profile.reliability != offered for info in seen):
                return False
            if publisher.get_subscription_count() != len(seen):
                return False
            counts.append(len(seen))
        return all(counts[:3])

    def publish(self, index: int) -> int:
        """Publish the frame with a number; returns its stamp."""
        stamp_ns = START_NS + index * PERIOD_NS
        self.info.publish(info_message(stamp_ns))
        self.color.publish(color_message(stamp_ns))
        self.depth.publish(depth_message(stamp_ns + self.depth_delay_ns))
        return stamp_ns


def scene() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Colour, depth in millimetres and instance ids of the camera's scene."""
    rgb = np.full((HEIGHT, WIDTH, 3), (180, 170, 150), np.uint8)
    depth_mm = np.full((HEIGHT, WIDTH), 800, np.uint16)
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    for instance_id, (top, left, height_mm, color) in enumerate(
        ((60, 70, 60, (200, 30, 30)), (120, 190, 90, (30, 60, 200))), start=1
    ):
        box = np.s_[top : top + 60, left : left + 60]
        rgb[box], depth_mm[box], ids[box] = color, 800 - height_mm, instance_id
    depth_mm[:4, :4] = 0
    return rgb, depth_mm, ids


def color_message(stamp_ns: int) -> Image:
    rgb, _, _ = scene()
    message = Image(header=header_to_msg(stamp_ns, FRAME_ID), height=HEIGHT, width=WIDTH, encoding="rgb8")
    message.step = 3 * WIDTH
    message.data.frombytes(rgb.tobytes())
    return message


def depth_message(stamp_ns: int) -> Image:
    _, depth_mm, _ = scene()
    message = Image(header=header_to_msg(stamp_ns, FRAME_ID), height=HEIGHT, width=WIDTH, encoding="16UC1")
    message.step = 2 * WIDTH
    message.data.frombytes(depth_mm.tobytes())
    return message


def info_message(stamp_ns: int) -> CameraInfo:
    message = CameraInfo(header=header_to_msg(stamp_ns, FRAME_ID), height=HEIGHT, width=WIDTH)
    message.distortion_model = "plumb_bob"
    message.k = [FOCAL_PX, 0.0, (WIDTH - 1) / 2, 0.0, FOCAL_PX, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0]
    return message


class ConstantVelocityForecaster:
    """Every point of an instance moves with the same velocity; two hypotheses, the second twice as fast."""

    def __init__(self, forecast: ForecastConfig, motion: ObjectMotionConfig) -> None:
        self.config, self.motion, self.execution = forecast, motion, "float32"
        self.prompts: list[str] = []
        self.hints: list[dict[int, tuple[int, ...]]] = []
        self.frames: list[RGBDFrame] = []
        self.before_answer: Callable[[], None] = lambda: None

    def __call__(
        self,
        frame: RGBDFrame,
        instances: InstanceMap,
        prompt: str | None = None,
        hints: Mapping[int, Sequence[int]] | None = None,
    ) -> Forecast:
        self.frames.append(frame)
        self.prompts.append(self.config.prompt if prompt is None else prompt)
        applied = {instance_id: tuple(flags) for instance_id, flags in (hints or {}).items()}
        self.hints.append(applied)
        self.before_answer()
        pixels = foreground_pixels(frame, instances, self.config.max_points)
        points = frame.points_in_camera[pixels[:, 1], pixels[:, 0]]
        times_s = np.arange(NUM_STEPS, dtype=np.float32) * STEP_S
        path = times_s[:, None] * VELOCITY_M_S
        positions = points[None, :, None] + np.array([1.0, 2.0], np.float32)[:, None, None, None] * path
        trajectories = PointTrajectories(
            positions.astype(np.float32),
            instances.ids[pixels[:, 1], pixels[:, 0]],
            pixels,
            frame.camera.width,
            frame.camera.height,
            STEP_S,
            None,
            frame.frame_id,
            frame.stamp_ns,
        )
        objects = estimate_object_motions(trajectories, self.motion, hypothesis=0, labels=instances.labels)
        unknown = tuple(word for word in self.prompts[-1].split() if word == "flibber")
        # Only the dense output needs the model's own drawing.
        timings_s = {"network": 0.25, "model": 0.5, "decode": 0.125}
        return Forecast(trajectories, objects, cast("Any", None), timings_s, unknown, (), applied)

    def warm_up(self, width: int, height: int) -> float:
        del width, height
        return 0.0
