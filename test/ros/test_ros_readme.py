"""What README.md says of topics, types, QoS and parameters is what the nodes do; its examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from momap_ros.msg import ObjectMotionArray, PointTrajectories
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from ros_harness import NUM_STEPS, STEP_S, VELOCITY_M_S, Camera, ConstantVelocityForecaster, Ros, start

from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.markers_node import MarkersNode
from momap_ros.ros.segmentation_node import SegmentationNode

pytestmark = pytest.mark.ros

ROW = re.compile(r"^\| `([~/\w]+)` \| `(\w+/msg/\w+)` \| (.+?) \| (.+?) \|", flags=re.MULTILINE)
# Of every node, made by rclpy.
OF_ROS = ("/parameter_events", "/rosout", "/clock")
PARAMETERS_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides")


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ros() -> Iterator[Ros]:
    ros = Ros()
    yield ros
    ros.close()


@pytest.fixture(scope="module")
def nodes(ros: Ros) -> dict[str, Node]:
    """All nodes, working; the forecast takes label images from the topic."""
    nodes = [
        ros.add(SegmentationNode(context=ros.context)),
        ros.add(
            ForecastNode(
                ConstantVelocityForecaster,
                context=ros.context,
                parameter_overrides=[Parameter("instances_source", value="topic")],
            )
        ),
        ros.add(MarkersNode(context=ros.context)),
    ]
    for node in nodes:
        if isinstance(node, (SegmentationNode, ForecastNode)):
            assert start(node)
    return {node.get_name(): node for node in nodes}


def listed(page: str, heading: str) -> dict[tuple[str, str, str], str]:
    """(node, topic, type) -> QoS of one of the README's tables."""
    table = page.split(f"### {heading}\n")[1].split("\n### ")[0]
    return {
        (node, topic, kind): qos
        for topic, kind, node_cell, qos in ROW.findall(table)
        for node in re.findall(r"`(\w+_node)`", node_cell)
    }


def actual(node: Node, topics: list[tuple[str, list[str]]]) -> set[tuple[str, str, str]]:
    """(node, topic as the README writes it, type)."""
    name = node.get_name()
    return {
        (name, topic.replace(f"/{name}/", "~/") if f"/{name}/" in topic else topic, kind)
        for topic, kinds in topics
        for kind in kinds
        if topic not in OF_ROS and not topic.endswith("transition_event")
    }


def relative(rows: set[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """The same with input names as they are written in the code: relative ones begin without a slash."""
    return {(node, topic.lstrip("/"), kind) for node, topic, kind in rows}


def test_subscriptions(page: str, nodes: dict[str, Node]) -> None:
    found = {
        row
        for node in nodes.values()
        for row in actual(node, node.get_subscriber_names_and_types_by_node(node.get_name(), node.get_namespace()))
    }
    assert relative(found) == set(listed(page, "Subscriptions"))


def test_publications(page: str, nodes: dict[str, Node]) -> None:
    found = {
        row
        for node in nodes.values()
        for row in actual(node, node.get_publisher_names_and_types_by_node(node.get_name(), node.get_namespace()))
    }
    assert found == set(listed(page, "Publications"))


def test_publishers_are_as_reliable_as_stated(page: str, nodes: dict[str, Node]) -> None:
    for (name, topic, _), qos in listed(page, "Publications").items():
        full = topic.replace("~/", f"/{name}/")
        offered = [info for info in nodes[name].get_publishers_info_by_topic(full) if info.node_name == name]
        assert [info.qos_profile.reliability for info in offered] == [ReliabilityPolicy.RELIABLE], topic
        assert qos.startswith("reliable")


def test_every_parameter_is_listed(page: str, nodes: dict[str, Node]) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `[^`]*` \| .+ \| (?:start|any time) \|", page, flags=re.MULTILINE)
    declared = {
        name
        for node in nodes.values()
        for name in node.get_parameters_by_prefix("")
        if not name.startswith(PARAMETERS_OF_ROS)
    }
    assert declared == set(rows)


@pytest.fixture(scope="module")
def messages(ros: Ros) -> dict[str, Any]:
    """One forecast of a synthetic camera, as it arrives."""
    inputs = ("color/image_raw", "depth/image_raw", "color/camera_info")
    remappings = [part for name in inputs for part in ("-r", f"{name}:=/{name}")]
    forecast_node = ForecastNode(
        ConstantVelocityForecaster, context=ros.context, cli_args=["--ros-args", "-r", "__ns:=/example", *remappings]
    )
    ros.add(forecast_node)
    trajectories = ros.collect(PointTrajectories, "/example/forecast_node/trajectories")
    objects = ros.collect(ObjectMotionArray, "/example/forecast_node/object_motions")
    assert start(forecast_node)
    camera = Camera(ros)
    camera.wait_for_subscriber()
    camera.publish(1)
    assert ros.spin_until(lambda: bool(trajectories and objects))
    return {"trajectories": trajectories[0], "objects": objects[0]}


def names_after(page: str, line: str, **names: object) -> dict[str, Any]:
    """Run the README's Python block that has a line, and return all its names."""
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if line in block]
    exec(block, names)
    return names


def test_the_trajectory_example(page: str, messages: dict[str, Any]) -> None:
    found = names_after(page, "forecast_to_numpy(message)", message=messages["trajectories"])
    assert found["times_s"][-1] == pytest.approx((NUM_STEPS - 1) * STEP_S)
    assert found["moves"].all()
    assert sorted(found["waypoints"]) == [1, 2]
    travelled = np.array([path[-1] - path[0] for path in found["waypoints"].values()])
    np.testing.assert_allclose(travelled, np.tile(VELOCITY_M_S * (NUM_STEPS - 1) * STEP_S, (2, 1)), atol=1e-4)
    assert found["counts"].sum() == found["forecast"].num_points


def test_the_object_example(page: str, messages: dict[str, Any]) -> None:
    camera_from_gripper = np.eye(4)
    camera_from_gripper[:3, 3] = 0.1, 0.2, 0.5
    found = names_after(
        page, "poses_to_numpy(message", message=messages["objects"], camera_from_gripper=camera_from_gripper
    )
    path = found["gripper_path"]
    assert path.shape == (NUM_STEPS, 4, 4)
    expected = camera_from_gripper[:3, 3] + np.arange(NUM_STEPS)[:, None] * STEP_S * VELOCITY_M_S
    np.testing.assert_allclose(path[:, :3, 3], expected, atol=1e-4)
