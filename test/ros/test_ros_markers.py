from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from momap_ros.msg import ObjectMotionArray
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.serialization import deserialize_message, serialize_message
from visualization_msgs.msg import Marker, MarkerArray

from momap_ros.config import MarkersConfig, ObjectMotionConfig
from momap_ros.momap import PointTrajectories
from momap_ros.object_cdr import objects_cdr
from momap_ros.object_motion import estimate_object_motions
from momap_ros.ros.conversions import forecast_from_numpy
from momap_ros.ros.markers import forecast_markers, object_text
from momap_ros.ros.markers_node import MarkersNode

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

STEPS = 25
SHIFT_M = np.array([0.3, 0.0, 0.12])


def forecast(points: int = 50) -> tuple[PointTrajectories, ObjectMotionArray]:
    """Object 1 moves by SHIFT_M, object 2 rests."""
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.uniform(-0.05, 0.05, (points, 3)), rng.uniform(0.2, 0.3, (points, 3))])
    start[:, 2] += 0.8
    share = np.linspace(0.0, 1.0, STEPS)[:, None]
    path = np.concatenate([np.tile(share * SHIFT_M, (points, 1, 1)), np.zeros((points, STEPS, 3))])
    trajectories = PointTrajectories(
        (start[:, None] + path)[None].astype(np.float32),
        np.repeat(np.array([1, 2], np.int32), points),
        np.zeros((2 * points, 2), np.int32),
        640,
        480,
        0.1,
        None,
        "optical",
        123,
    )
    motions = estimate_object_motions(trajectories, ObjectMotionConfig(), labels={1: "cup"})
    serialized = objects_cdr(motions, trajectories, model_name="small", latency_s=0.0)
    message: ObjectMotionArray = deserialize_message(serialized, ObjectMotionArray)
    return trajectories, message


def of_namespace(markers: MarkerArray, namespace: str) -> list[Marker]:
    return [marker for marker in markers.markers if marker.ns == namespace]


def test_everything_older_is_deleted_first() -> None:
    markers = forecast_markers(*forecast(), MarkersConfig()).markers
    assert [marker.action for marker in markers] == [Marker.DELETEALL] + [Marker.ADD] * (len(markers) - 1)
    assert {marker.header.frame_id for marker in markers} == {"optical"}
    assert {marker.header.stamp.nanosec for marker in markers} == {123}
    serialize_message(MarkerArray(markers=markers))


def test_lines_join_the_steps_of_moving_points_only() -> None:
    trajectories, motions = forecast()
    (lines,) = of_namespace(forecast_markers(trajectories, motions, MarkersConfig()), "trajectories")
    ends = np.array([[p.x, p.y, p.z] for p in lines.points]).reshape(50, 12, 2, 3)
    np.testing.assert_allclose(ends[:, 0, 0], trajectories.positions[0, :50, 0], atol=1e-6)
    np.testing.assert_allclose(ends[:, -1, 1], trajectories.positions[0, :50, -1], atol=1e-6)
    np.testing.assert_array_equal(ends[:, 1:, 0], ends[:, :-1, 1])
    assert len(lines.colors) == len(lines.points)
    assert lines.colors[0].a < lines.colors[23].a == 1.0
    assert lines.scale.x == MarkersConfig().line_width_m


def test_number_of_tracks_and_steps_is_bounded() -> None:
    config = MarkersConfig(max_tracks=10, max_steps=3)
    (lines,) = of_namespace(forecast_markers(*forecast(), config), "trajectories")
    assert len(lines.points) == 10 * 3 * 2


def test_unknown_positions_are_not_drawn() -> None:
    trajectories, motions = forecast()
    trajectories.positions[0, :49, 7] = np.nan
    (lines,) = of_namespace(forecast_markers(trajectories, motions, MarkersConfig()), "trajectories")
    assert len(lines.points) == 12 * 2


def test_an_empty_forecast_only_deletes() -> None:
    trajectories, motions = forecast(points=0)
    markers = forecast_markers(trajectories, motions, MarkersConfig()).markers
    assert [marker.action for marker in markers] == [Marker.DELETEALL]


def test_arrows_show_where_moving_objects_go() -> None:
    trajectories, motions = forecast()
    markers = forecast_markers(trajectories, motions, MarkersConfig())
    (arrow,) = of_namespace(markers, "objects")
    assert (arrow.type, arrow.id) == (Marker.ARROW, 1)
    start, end = (np.array([p.x, p.y, p.z]) for p in arrow.points)
    np.testing.assert_allclose(start, trajectories.positions[0, :50, 0].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(end - start, SHIFT_M, atol=1e-4)
    texts = of_namespace(markers, "texts")
    assert [text.id for text in texts] == [1, 2]
    assert texts[0].text == "cup 32 cm, moves 100%"
    assert texts[1].text == object_text(motions.objects[1]) == "#2 0 cm, moves 0%"
    assert texts[0].color != texts[1].color


def test_node_draws_a_forecast_once_both_messages_are_there(ros: Ros) -> None:
    ros.add(MarkersNode(context=ros.context, use_global_arguments=False))
    received = ros.collect(MarkerArray, "/markers_node/markers")
    node = ros.node("forecast")
    trajectories = node.create_publisher(PointTrajectoriesMsg, "trajectories", 1)
    motions = node.create_publisher(ObjectMotionArray, "object_motions", 1)
    assert ros.spin_until(lambda: trajectories.get_subscription_count() * motions.get_subscription_count() > 0)
    ros.spin_for(0.3)
    points, objects = forecast()
    trajectories.publish(forecast_from_numpy(points))
    ros.spin_for(0.2)
    assert not received
    motions.publish(objects)
    assert ros.spin_until(lambda: len(received) == 1)
    assert len(received[0].markers) == 1 + 1 + 1 + 2
