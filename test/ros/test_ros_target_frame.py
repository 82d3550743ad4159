from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from geometry_msgs.msg import TransformStamped
from momap_ros.msg import ObjectMotionArray
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.duration import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from ros_harness import FRAME_ID, START_NS, VELOCITY_M_S, Camera, ConstantVelocityForecaster, start

from momap_ros.ros.conversions import forecast_to_numpy, header_to_msg
from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.target_frame import TargetFrame, TransformError

if TYPE_CHECKING:
    from rclpy.node import Node
    from ros_harness import Ros

pytestmark = pytest.mark.ros

HAS_TF = importlib.util.find_spec("tf2_ros") is not None


def node_for_base_link(ros: Ros) -> ForecastNode:
    overrides = [Parameter("forecast.target_frame", value="base_link")]
    return ros.add(
        ForecastNode(
            ConstantVelocityForecaster,
            context=ros.context,
            use_global_arguments=False,
            parameter_overrides=overrides,
        )
    )


@pytest.mark.skipif(HAS_TF, reason="tf2_ros is installed")
def test_a_target_frame_without_tf_fails_with_words(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    assert node_for_base_link(ros).trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "forecast.target_frame is 'base_link', which needs tf2_ros" in capfd.readouterr().err


class StandInException(Exception):  # noqa: N818  (tf2 calls its own so)
    """What tf2_ros calls TransformException."""


class StandInBuffer:
    """tf2_ros.Buffer as far as this package asks it, by the signatures of Jazzy; it knows one static transform."""

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        assert cache_time is None
        assert node is not None  # else its clock is not the node's, and it never forgets
        self.asked: list[tuple[str, str, int, int]] = []

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time, timeout: Duration) -> TransformStamped:
        self.asked.append((target_frame, source_frame, time.nanoseconds, timeout.nanoseconds))
        if source_frame != FRAME_ID:
            raise StandInException(f'"{source_frame}" passed to lookupTransform argument source_frame does not exist.')
        found = TransformStamped(header=header_to_msg(time.nanoseconds, target_frame), child_frame_id=source_frame)
        found.transform.translation.z = 1.0
        found.transform.rotation.x, found.transform.rotation.w = 1.0, 0.0
        return found


@pytest.mark.skipif(HAS_TF, reason="tf2_ros is installed")
def test_tf_is_asked_at_the_images_time(ros: Ros, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tf2 is not to be had, what is asked of it: the installed one is tested below."""
    listened: list[tuple[StandInBuffer, Node]] = []
    stand_in = SimpleNamespace(
        Buffer=StandInBuffer,
        TransformListener=lambda buffer, node: listened.append((buffer, node)),
        TransformException=StandInException,
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in)
    node = ros.node("asks_tf")
    target = TargetFrame(node, "base_link")
    ((buffer, listener),) = listened
    assert listener is node
    pose = target.target_from(FRAME_ID, START_NS)
    assert buffer.asked == [("base_link", FRAME_ID, START_NS, 100_000_000)]
    np.testing.assert_allclose(pose, [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1], [0, 0, 0, 1]], atol=1e-12)
    with pytest.raises(
        TransformError, match=r"from 'nowhere' to 'base_link' at the image's time, got: .nowhere. passed"
    ):
        target.target_from("nowhere", START_NS)


@pytest.mark.skipif(not HAS_TF, reason="tf2_ros is part of a ROS installation only")
def test_results_are_in_the_target_frame_once_tf_knows_it(ros: Ros) -> None:
    from tf2_ros import StaticTransformBroadcaster

    node = node_for_base_link(ros)
    assert start(node)
    trajectories = ros.collect(PointTrajectoriesMsg, "/forecast_node/trajectories")
    objects = ros.collect(ObjectMotionArray, "/forecast_node/object_motions")
    camera = Camera(ros)
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(lambda: node.statistics.skipped().get("frames with TransformError") == 1)
    # The camera looks straight down: its x is base_link's x, its z base_link's -z.
    transform = TransformStamped(header=header_to_msg(START_NS, "base_link"), child_frame_id=FRAME_ID)
    transform.transform.translation.z = 1.0
    transform.transform.rotation.x, transform.transform.rotation.w = 1.0, 0.0
    StaticTransformBroadcaster(camera.node).sendTransform(transform)
    ros.spin_for(1.0)
    camera.publish(1)
    assert ros.spin_until(lambda: bool(trajectories) and bool(objects))
    received = forecast_to_numpy(trajectories[0])
    assert received.frame_id == objects[0].header.frame_id == "base_link"
    moved = received.positions[0, :, -1] - received.positions[0, :, 0]
    horizon_s = received.step_s * (received.num_steps - 1)
    np.testing.assert_allclose(moved / horizon_s, np.tile(VELOCITY_M_S * [1, -1, -1], (len(moved), 1)), atol=1e-5)
    assert sorted(round(motion.centroid.z, 2) for motion in objects[0].objects) == [0.26, 0.29]
