#!/usr/bin/env python3
"""Follows forecasts: targets for a gripper, from the topics of the forecast node.

Let the forecast node give positions in the arm's base frame (z up, the table at z = 0), then start this:

    ros2 run momap_ros forecast_node --ros-args -p forecast.target_frame:=base_link
    python examples/follow_forecast.py --ros-args -r trajectories:=/forecast_node/trajectories \
        -r object_motions:=/forecast_node/object_motions

Publishes in the forecast's frame: ~/gripper_way, the way from the contact on, with every plan (without poses after a
stop); ~/gripper_target, where the gripper should be now, 20 times a second; ~/state, in words. Gripper frame: origin
at the grasp centre, x along the fingers, y along the closing direction.

An arm's controller brings the gripper to the first pose, closes it, and follows the targets. After a stop the node
does nothing until it is started again: somebody should look.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseArray, PoseStamped
from momap_ros.msg import ObjectMotionArray
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from momap_ros.config import FollowerConfig
from momap_ros.images import stamp_ns_of
from momap_ros.momap import PointTrajectories
from momap_ros.object_cdr import ObjectMotions, object_motions_from_cdr
from momap_ros.policies.contacts import Surroundings
from momap_ros.policies.replanning import Follower
from momap_ros.ros.conversions import forecast_to_numpy, header_to_msg, poses_from_numpy
from momap_ros.ros.pairing import Pair, StampPairer
from momap_ros.ros.parameters import Parameters
from momap_ros.ros.transport import allow_large_messages

RATE_HZ = 20.0


def surroundings_of(trajectories: PointTrajectories, instance_id: int) -> Surroundings:
    """Points of one object and of all others as they are seen, in the forecast's frame."""
    seen = trajectories.positions[0, :, 0].astype(np.float64)
    known, own = np.isfinite(seen).all(axis=1), trajectories.object_ids == instance_id
    others = known & ~own
    # With their ids: what an object is to be put on is one of them.
    return Surroundings(seen[known & own], seen[others], other_ids=trajectories.object_ids[others])


class FollowForecast(Node):
    """Plans with the first forecast of something that moves, compares and plans anew with those that follow."""

    def __init__(self, **node_arguments: Any) -> None:  # noqa: ANN401  (rclpy's own arguments)
        """Subscribe and advertise."""
        super().__init__("follow_forecast", **node_arguments)
        self._follower = Follower(Parameters(self, [FollowerConfig]).read(FollowerConfig))
        self._pairer = StampPairer[PointTrajectoriesMsg, ObjectMotions](tolerance_ns=0, queue_length=2)
        self._frame_id = ""
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        lasting = QoSProfile(
            depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        self._way = self.create_publisher(PoseArray, "~/gripper_way", lasting)
        self._target = self.create_publisher(PoseStamped, "~/gripper_target", newest)
        self._state = self.create_publisher(String, "~/state", lasting)
        self.create_subscription(PointTrajectoriesMsg, "trajectories", self._receive_trajectories, newest)
        self.create_subscription(ObjectMotionArray, "object_motions", self._receive_objects, newest, raw=True)
        self.create_timer(1.0 / RATE_HZ, self._publish_target)
        self._say("waiting for something that moves")

    def _receive_trajectories(self, message: PointTrajectoriesMsg) -> None:
        self._follow(self._pairer.add_first(stamp_ns_of(message), message))

    def _receive_objects(self, data: bytes) -> None:
        motions = object_motions_from_cdr(data)
        self._follow(self._pairer.add_second(motions.stamp_ns, motions))

    def _follow(self, pair: Pair[PointTrajectoriesMsg, ObjectMotions] | None) -> None:
        if pair is None or self._follower.stopped:
            return
        trajectories, motions = forecast_to_numpy(pair.first), pair.second
        before, self._frame_id = self._follower.plan, motions.frame_id
        plan = self._follower.update(
            motions.stamp_ns * 1e-9,
            motions.objects,
            motions.step_s,
            surroundings=lambda instance_id: surroundings_of(trajectories, instance_id),
            base_from_camera=np.eye(4),
        )
        if plan is None and before is None:
            return
        if plan is None:
            self._say(self._follower.stopped)
        elif before is None:
            self._say(f"following object {plan.instance_id}: {plan.contact.kind.value}")
        if plan is not before:
            poses = [] if plan is None else poses_from_numpy(plan.base_from_gripper)
            self._way.publish(PoseArray(header=header_to_msg(motions.stamp_ns, motions.frame_id), poses=poses))

    def _publish_target(self) -> None:
        now = self.get_clock().now()
        target = self._follower.target(now.nanoseconds * 1e-9)
        if target is not None:
            message = PoseStamped(pose=poses_from_numpy(target[None])[0])
            message.header.stamp, message.header.frame_id = now.to_msg(), self._frame_id
            self._target.publish(message)

    def _say(self, text: str) -> None:
        self.get_logger().info(text)
        self._state.publish(String(data=text))


def main(args: list[str] | None = None) -> int:
    """Run the node; args as in sys.argv. Returns the exit code."""
    allow_large_messages()
    rclpy.init(args=args)
    try:
        node = FollowForecast()
        while rclpy.ok():
            # A signal that comes just before the wait begins does not wake it: look again every second.
            rclpy.spin_once(node, timeout_sec=1.0)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
