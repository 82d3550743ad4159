"""Segmentation and forecast as two nodes of one process, in one executor."""

from __future__ import annotations

from rclpy.parameter import Parameter

from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.managed_node import ManagedNode, run_nodes
from momap_ros.ros.segmentation_node import SegmentationNode


def build_nodes() -> list[ManagedNode]:
    """The two nodes, connected: the forecast takes the label images of the segmentation."""
    return [
        SegmentationNode(),
        ForecastNode(
            cli_args=["--ros-args", "-r", "instances:=segmentation_node/instances"],
            parameter_overrides=[Parameter("instances_source", value="topic")],
        ),
    ]


def main(args: list[str] | None = None) -> int:
    """Run both nodes; args as in sys.argv. Returns the exit code."""
    return run_nodes(build_nodes, args)
