"""The example that follows forecasts, as a process of its own, fed over real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from geometry_msgs.msg import PoseArray, PoseStamped
from momap_ros.msg import ObjectMotionArray
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from momap_ros.config import ObjectMotionConfig
from momap_ros.momap import PointTrajectories
from momap_ros.object_cdr import objects_cdr
from momap_ros.object_motion import estimate_object_motions
from momap_ros.ros.conversions import forecast_from_numpy

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

EXAMPLE = Path(__file__).parents[2] / "examples" / "follow_forecast.py"
FRAME_ID, STEPS, STEP_S = "base_link", 11, 0.4
SPEED_M_S = 0.02  # upwards


@pytest.fixture
def example(ros: Ros) -> Iterator[subprocess.Popen[str]]:
    del ros  # sets the domain that the process is to use
    process = subprocess.Popen(
        [
            sys.executable,
            str(EXAMPLE),
            "--ros-args",
            "-p",
            "follower.replan_s:=0.0",
            "-p",
            "follower.replan_within_m:=0.0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def forecast(stamp_ns: int, raised_m: float) -> tuple[PointTrajectoriesMsg, ObjectMotionArray]:
    """A small block at rest beside one that rises, as seen when it has risen so far; base frame."""
    axis = np.linspace(-0.015, 0.015, 8)
    block = np.stack(np.meshgrid(axis, axis, [0.0, 0.03], indexing="ij"), axis=-1).reshape(-1, 3)
    points = np.concatenate([block + np.array(place) for place in ((0.3, 0.0, raised_m), (0.3, 0.2, 0.0))])
    ids = np.repeat(np.array([1, 2], np.int32), len(block))
    positions = np.repeat(points[None, :, None], STEPS, axis=2)
    positions[0, ids == 1, :, 2] += SPEED_M_S * STEP_S * np.arange(STEPS)
    pixels = np.zeros((len(points), 2), np.int32)
    trajectories = PointTrajectories(
        positions.astype(np.float32), ids, pixels, 640, 480, STEP_S, None, FRAME_ID, stamp_ns
    )
    motions = estimate_object_motions(trajectories, ObjectMotionConfig(), hypothesis=0)
    serialized = objects_cdr(motions, trajectories, model_name="test", latency_s=0.0)
    return forecast_from_numpy(trajectories), deserialize_message(serialized, ObjectMotionArray)


def _keep_text(states: list[str], message: Any) -> None:  # noqa: ANN401  (typed by rclpy's own stand-in)
    states.append(message.data)


def assert_silent(ros: Ros, received: list[PoseStamped]) -> None:
    ros.spin_for(0.3)
    count = len(received)
    ros.spin_for(0.5)
    assert len(received) == count


def test_gripper_targets_follow_a_forecast_until_it_disagrees(ros: Ros, example: subprocess.Popen[str]) -> None:
    lasting = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    states: list[str] = []
    ways: list[PoseArray] = []
    node = ros.node("arm")
    node.create_subscription(String, "/follow_forecast/state", partial(_keep_text, states), lasting)
    node.create_subscription(PoseArray, "/follow_forecast/gripper_way", ways.append, lasting)
    targets = ros.collect(PoseStamped, "/follow_forecast/gripper_target")
    points = node.create_publisher(PointTrajectoriesMsg, "/trajectories", 5)
    objects = node.create_publisher(ObjectMotionArray, "/object_motions", 5)
    assert ros.spin_until(lambda: points.get_subscription_count() == 1 and objects.get_subscription_count() == 1)
    assert ros.spin_until(lambda: states == ["waiting for something that moves"])

    def publish(stamp_ns: int, raised_m: float) -> None:
        trajectories, motions = forecast(stamp_ns, raised_m)
        points.publish(trajectories)
        objects.publish(motions)

    forecast(0, 0.0)  # what is imported on the way takes its time
    began_ns = time.time_ns()
    publish(began_ns, 0.0)
    assert ros.spin_until(lambda: bool(ways) and len(targets) >= 3)
    assert states[-1] == "following object 1: grasp"
    assert ways[0].header.frame_id == targets[0].header.frame_id == FRAME_ID
    way = np.array([[pose.position.x, pose.position.y, pose.position.z] for pose in ways[0].poses])
    np.testing.assert_allclose(way[:, :2], np.broadcast_to(way[0, :2], way[:, :2].shape), atol=1e-5)
    assert np.linalg.norm(way[0, :2] - [0.3, 0.0]) < 0.01
    # The block rises by 2 cm/s, and the gripper with it; points of an image need not be there to the millimetre.
    assert way[-1, 2] - way[0, 2] == pytest.approx(SPEED_M_S * STEP_S * (STEPS - 1), abs=0.002)
    stamps = np.array([message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in targets])
    heights = np.array([message.pose.position.z for message in targets])
    expected = way[0, 2] + np.clip(SPEED_M_S * (stamps - began_ns * 1e-9), 0.0, way[-1, 2] - way[0, 2])
    np.testing.assert_allclose(heights, expected, atol=1e-3)

    # Seen where it should be, it is planned anew; seen elsewhere, the way ends.
    now_ns = time.time_ns()
    publish(now_ns, SPEED_M_S * min((now_ns - began_ns) * 1e-9, STEP_S * (STEPS - 1)))
    assert ros.spin_until(lambda: len(ways) == 2)
    assert len(ways[1].poses) > 1
    publish(time.time_ns(), 0.3)
    assert ros.spin_until(lambda: len(ways) == 3)
    assert not ways[2].poses
    assert states[-1].startswith("stopped on disagreement")
    assert_silent(ros, targets)
    assert example.poll() is None
