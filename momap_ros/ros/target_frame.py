"""Transforms from TF, for results in a frame other than the camera's."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from momap_ros.geometry import Float64
from momap_ros.ros.conversions import stamp_to_msg, transform_from_msg

# TF often comes just after the image it belongs to.
TIMEOUT_S = 0.1


class TransformError(ValueError):
    """TF does not know a transform at the time of a frame."""


class TargetFrame:
    """The pose of cameras in one TF frame at the times of their images."""

    def __init__(self, node: Node, frame_id: str) -> None:
        """Listen to TF.

        Raises:
            ModuleNotFoundError: tf2_ros is not installed.
        """
        try:
            from tf2_ros import Buffer, TransformListener
        except ImportError as error:
            raise ModuleNotFoundError(
                f"forecast.target_frame is {frame_id!r}, which needs tf2_ros (ros-$ROS_DISTRO-tf2-ros-py), and it is "
                "not installed; leave forecast.target_frame empty to get positions in the camera's optical frame"
            ) from error
        self.frame_id = frame_id
        # With the node, the buffer uses its clock and forgets everything when time goes back.
        self._buffer = Buffer(node=node)
        self._listener = TransformListener(self._buffer, node)

    def target_from(self, source_frame_id: str, stamp_ns: int) -> Float64:
        """(4, 4) target_from_source at the time of the stamp; call it outside the executor's thread, it waits.

        Raises:
            TransformError: no such transform within TIMEOUT_S.
        """
        from tf2_ros import TransformException

        time = Time.from_msg(stamp_to_msg(stamp_ns))
        try:
            transform = self._buffer.lookup_transform(
                self.frame_id, source_frame_id, time, timeout=Duration(seconds=TIMEOUT_S)
            )
        except TransformException as error:
            raise TransformError(
                f"expected a transform from {source_frame_id!r} to {self.frame_id!r} at the image's time, got: "
                f"{error}; check /tf and /tf_static, and use_sim_time with a bag"
            ) from error
        return transform_from_msg(transform)
