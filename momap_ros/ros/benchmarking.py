"""How long messages and whole frames take through real DDS, between two processes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image

from momap_ros.bag_messages import camera_info_message, color_message, depth_message
from momap_ros.bag_types import CAMERA_INFO, IMAGE, type_store
from momap_ros.benchmark.scene import Scene
from momap_ros.benchmark.stages import DefaultForecast
from momap_ros.benchmark.timing import Effort, Timing, measure, memory_mib
from momap_ros.config import ForecastConfig
from momap_ros.msg import ObjectMotionArray, PointTrajectories
from momap_ros.object_cdr import object_motions_from_cdr, objects_cdr
from momap_ros.ros.conversions import forecast_from_numpy
from momap_ros.ros.transport import allow_large_messages

NAMESPACE = "/momap_benchmark"
NODE = "forecast_node"
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# Forecasts are published a few times a second, never back to back.
PUBLISH_PAUSE_S = 0.02
DISCOVERY_TIMEOUT_S = 30.0
LOADING_TIMEOUT_S = 180.0
FRAME_TIMEOUT_S = 60.0
REPORT_TIMEOUT_S = 10.0
# The whole path is measured so many times longer than a stage, because the node reports only once a second.
LONGER = 3
# While the node settles on the QoS of its inputs, a frame may get lost.
FIRST_FRAME_TIMEOUT_S = 10.0
FIRST_FRAME_ATTEMPTS = 5
RUN_NODE = "import sys; from momap_ros.ros.forecast_node import main; sys.exit(main(sys.argv))"


def message_stages(forecast: DefaultForecast, effort: Effort) -> dict[str, Timing]:
    """Filling the two messages of a forecast, publishing them to another process that listens, and reading one."""
    _isolate()
    _, received = _messages(forecast)
    reading = {
        "receive": measure(lambda: object_motions_from_cdr(received), effort),
        "receive_message": measure(lambda: deserialize_message(received, ObjectMotionArray), effort),
    }
    listener = multiprocessing.get_context("spawn").Process(target=_listen, daemon=True)
    listener.start()
    try:
        with _running_node("publisher") as node:
            trajectories = node.create_publisher(PointTrajectories, "trajectories", NEWEST)
            objects = node.create_publisher(ObjectMotionArray, "object_motions", NEWEST)
            _wait_for_subscribers((trajectories, objects), DISCOVERY_TIMEOUT_S)

            def publish() -> None:
                for publisher, message in zip((trajectories, objects), _messages(forecast), strict=True):
                    publisher.publish(message)

            return reading | {
                "message_fill": measure(lambda: _messages(forecast), effort),
                "message": measure(publish, effort, pause_s=PUBLISH_PAUSE_S),
            }
    finally:
        listener.terminate()
        listener.join()


def end_to_end(scene: Scene, config: ForecastConfig, effort: Effort) -> tuple[Timing, float]:
    """From the call that publishes a frame's colour image to the numbers of its object motions.

    The forecast node runs in a process of its own, as `ros2 run momap_ros forecast_node` starts it, and segments the
    frames itself.

    Returns:
        Durations and the most memory that the node's process ever held; and the median of the milliseconds that the
        network took of these frames, as the node reported them on /diagnostics.
    """
    effort = dataclasses.replace(effort, budget_s=LONGER * effort.budget_s)
    _isolate()
    with tempfile.TemporaryFile() as log, _running_node("camera") as node:
        camera = _Camera(node, scene)
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_NODE, "--ros-args", *_node_arguments(config, scene.prompt)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for_subscribers(camera.publishers.values(), LOADING_TIMEOUT_S, process)
            if not any(camera.forecast_arrives(FIRST_FRAME_TIMEOUT_S) for _ in range(FIRST_FRAME_ATTEMPTS)):
                raise RuntimeError("the forecast node receives frames but publishes nothing")
            camera.network_ms.clear()
            timing = measure(camera.wait_for_forecast, effort)
            camera.wait_for_report()
            memory = memory_mib(process.pid, "VmHWM")
            return Timing(timing.times_ms, memory), float(np.median(camera.network_ms))
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}; the node said:\n{log.read().decode(errors='replace')[-4000:]}") from error
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


class _Camera:
    """Publishes the scene again and again, each time under a new stamp, and waits for the forecast of that stamp.

    Attributes:
        publishers: topic -> its publisher.
        network_ms: what the node reported that the network took of its newest frame, milliseconds, once a second.
    """

    def __init__(self, node: Node, scene: Scene) -> None:
        self._scene = scene
        self._answered_ns = 0
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self.publishers: Mapping[str, Publisher] = {
            topic: node.create_publisher(kind, topic, NEWEST)
            for topic, kind in (
                ("color/camera_info", CameraInfo),
                ("color/image_raw", Image),
                ("depth/image_raw", Image),
            )
        }
        self.network_ms: list[float] = []
        node.create_subscription(ObjectMotionArray, f"{NODE}/object_motions", self._receive, NEWEST, raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._receive_report, 10)
        # A policy would take the trajectories too: they have to come through.
        node.create_subscription(PointTrajectories, f"{NODE}/trajectories", lambda _: None, NEWEST)

    def wait_for_forecast(self) -> None:
        if not self.forecast_arrives(FRAME_TIMEOUT_S):
            raise RuntimeError(f"expected the forecast of a frame within {FRAME_TIMEOUT_S:.0f} s, got none")

    def forecast_arrives(self, timeout_s: float) -> bool:
        stamp_ns = time.time_ns()
        for topic, data in self._serialized(stamp_ns):
            self.publishers[topic].publish(data)
        deadline = time.monotonic() + timeout_s
        while self._answered_ns != stamp_ns and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.1)
        return self._answered_ns == stamp_ns

    def wait_for_report(self) -> None:
        """One more report of the node, which is on the last frame."""
        known = len(self.network_ms)
        deadline = time.monotonic() + REPORT_TIMEOUT_S
        while len(self.network_ms) == known:
            if time.monotonic() > deadline:
                raise RuntimeError(f"expected the network's time on /diagnostics within {REPORT_TIMEOUT_S:.0f} s")
            self._executor.spin_once(timeout_sec=0.1)

    def _serialized(self, stamp_ns: int) -> Iterator[tuple[str, bytes]]:
        frame, store = self._scene.frame, type_store()
        depth = depth_message(frame.depth_m, stamp_ns, frame.frame_id, millimetres=True)
        messages = {
            "color/camera_info": (camera_info_message(frame.camera, stamp_ns, frame.frame_id), CAMERA_INFO),
            "color/image_raw": (color_message(frame.rgb, stamp_ns, frame.frame_id), IMAGE),
            "depth/image_raw": (depth, IMAGE),
        }
        for topic, (message, kind) in messages.items():
            yield topic, bytes(store.serialize_cdr(message, kind))

    def _receive(self, data: bytes) -> None:
        self._answered_ns = object_motions_from_cdr(data).stamp_ns

    def _receive_report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{NAMESPACE}/{NODE}":
                self.network_ms += [float(pair.value) for pair in status.values if pair.key == "network [ms]"]


def _messages(forecast: DefaultForecast) -> tuple[PointTrajectories, bytes]:
    """What the forecast node publishes of it."""
    objects = objects_cdr(forecast.objects, forecast.trajectories, model_name="benchmark", latency_s=0.0)
    return forecast_from_numpy(forecast.trajectories), objects


def _listen() -> None:
    """Receive forecasts until the process is ended."""
    with _running_node("listener") as node:
        node.create_subscription(PointTrajectories, "trajectories", lambda _: None, NEWEST)
        node.create_subscription(ObjectMotionArray, "object_motions", lambda _: None, NEWEST)
        with suppress(ExternalShutdownException):
            rclpy.spin(node)


def _isolate() -> None:
    """Keep this process and those it starts on this machine, away from the topics of a robot."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # Domains above 101 may collide with the ephemeral ports of Linux.
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
    allow_large_messages()


@contextmanager
def _running_node(name: str) -> Iterator[Node]:
    rclpy.init(args=[])
    try:
        yield Node(name, namespace=NAMESPACE)
    finally:
        rclpy.try_shutdown()


def _node_arguments(config: ForecastConfig, prompt: str) -> list[str]:
    settings = {
        "forecast.checkpoint": str(Path(config.checkpoint).resolve())
        if "/" in config.checkpoint
        else config.checkpoint,
        "forecast.device": config.device,
        "forecast.num_threads": config.num_threads,
        "forecast.num_hypotheses": config.num_hypotheses,
        "forecast.num_inference_steps": config.num_inference_steps,
        "forecast.prompt": prompt,
    }
    # JSON is YAML, which is what ROS reads: a sentence stays a sentence.
    parameters = [part for name, value in settings.items() for part in ("-p", f"{name}:={json.dumps(value)}")]
    return ["-r", f"__ns:={NAMESPACE}", "-r", f"__node:={NODE}", *parameters]


def _wait_for_subscribers(
    publishers: Iterable[Publisher], timeout_s: float, process: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = list(publishers)
    while waiting := [publisher for publisher in waiting if not publisher.get_subscription_count()]:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the forecast node ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            topics = ", ".join(publisher.topic_name for publisher in waiting)
            raise RuntimeError(f"expected subscribers to {topics} within {timeout_s:.0f} s, got none")
        time.sleep(0.05)
