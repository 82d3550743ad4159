"""Shows forecasts in RViz: point trajectories and object motions in, markers out."""

from __future__ import annotations

import sys
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from visualization_msgs.msg import MarkerArray

from momap_ros.config import MarkersConfig
from momap_ros.images import stamp_ns_of
from momap_ros.msg import ObjectMotionArray, PointTrajectories
from momap_ros.ros.conversions import forecast_to_numpy
from momap_ros.ros.markers import forecast_markers
from momap_ros.ros.pairing import Pair, StampPairer
from momap_ros.ros.parameters import Parameters
from momap_ros.ros.transport import allow_large_messages


class MarkersNode(Node):
    """Draws each forecast once both of its messages are there, while somebody looks."""

    def __init__(self, **node_arguments: Any) -> None:  # noqa: ANN401  (rclpy's own arguments)
        """Subscribe and advertise."""
        super().__init__("markers_node", **node_arguments)
        self._settings = Parameters(self, [MarkersConfig])
        self._pairer = StampPairer[PointTrajectories, ObjectMotionArray](tolerance_ns=0, queue_length=2)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        overridable = QoSOverridingOptions.with_default_policies()
        self._publisher = self.create_publisher(MarkerArray, "~/markers", newest, qos_overriding_options=overridable)
        self.create_subscription(
            PointTrajectories, "trajectories", self._receive_trajectories, newest, qos_overriding_options=overridable
        )
        self.create_subscription(
            ObjectMotionArray, "object_motions", self._receive_objects, newest, qos_overriding_options=overridable
        )

    def _receive_trajectories(self, message: PointTrajectories) -> None:
        self._draw(self._pairer.add_first(stamp_ns_of(message), message))

    def _receive_objects(self, message: ObjectMotionArray) -> None:
        self._draw(self._pairer.add_second(stamp_ns_of(message), message))

    def _draw(self, pair: Pair[PointTrajectories, ObjectMotionArray] | None) -> None:
        if pair is not None and self._publisher.get_subscription_count():
            config = self._settings.read(MarkersConfig)
            self._publisher.publish(forecast_markers(forecast_to_numpy(pair.first), pair.second, config))


def main(args: list[str] | None = None) -> int:
    """Run the node; args as in sys.argv. Returns the exit code."""
    allow_large_messages()
    rclpy.init(args=args)
    try:
        node = MarkersNode()
        while rclpy.ok():
            # A signal that comes just before the wait begins does not wake it: look again every second.
            rclpy.spin_once(node, timeout_sec=1.0)
    except ParameterException as error:
        print(f"parameter refused: {error}", file=sys.stderr)  # noqa: T201  (there is no node to log with)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # rclpy raises its own kind of it where the process was told to end while something was under way.
        if rclpy.ok():
            raise
    finally:
        rclpy.try_shutdown()
    return 0
