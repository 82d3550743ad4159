"""Core types to messages and back. Consumers of a forecast need `forecast_to_numpy` alone.

Long arrays are filled with `array.array.frombytes` and read with `numpy.frombuffer`: assigning numpy arrays or lists to
message fields is 50 to 400 times slower.
"""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, TransformStamped
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from momap_ros.geometry import (
    Float32,
    Float64,
    rotations_from_quaternions,
    se3_from_parts,
    wxyz_from_xyzw,
)
from momap_ros.hints import Hints, checked_hints
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.msg import MotionHint, MotionHints, ObjectHypothesis
from momap_ros.msg import ObjectMotion as ObjectMotionMsg
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from momap_ros.object_cdr import poses_of_tracks

# Message fields are array.array from rclpy, numpy arrays from a bag reader.
Buffer: TypeAlias = "array.array[Any] | npt.NDArray[Any]"
Scalar = TypeVar("Scalar", bound=np.generic)

MAX_LABEL = 65535

_CLOUD_DTYPE = np.dtype([(name, "<f4") for name in ("x", "y", "z", "vx", "vy", "vz")] + [("object_id", "<u4")])


def stamp_to_msg(stamp_ns: int) -> Time:
    """Nanoseconds to builtin_interfaces/Time."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def duration_to_msg(duration_s: float) -> Duration:
    """Seconds to builtin_interfaces/Duration, rounded to nanoseconds; negative durations are legitimate."""
    seconds, nanoseconds = divmod(round(duration_s * 1e9), 1_000_000_000)
    return Duration(sec=seconds, nanosec=nanoseconds)


def seconds_from_duration(duration: Duration) -> float:
    """builtin_interfaces/Duration to seconds."""
    return float(duration.sec) + float(duration.nanosec) * 1e-9


def header_to_msg(stamp_ns: int, frame_id: str) -> Header:
    """A header from a stamp in nanoseconds and a TF frame."""
    return Header(stamp=stamp_to_msg(stamp_ns), frame_id=frame_id)


def forecast_from_numpy(trajectories: PointTrajectories) -> PointTrajectoriesMsg:
    """Point trajectories as a message; stamp and frame are the trajectories' own.

    Raises:
        OverflowError: a pixel coordinate beyond 65535.
    """
    if trajectories.num_points and trajectories.pixels.max() > np.iinfo(np.uint16).max:
        raise OverflowError(f"pixels: expected coordinates up to 65535, got {trajectories.pixels.max()}")
    message = PointTrajectoriesMsg(
        header=header_to_msg(trajectories.stamp_ns, trajectories.frame_id),
        time_step=duration_to_msg(trajectories.step_s),
        num_hypotheses=trajectories.num_hypotheses,
        num_points=trajectories.num_points,
        num_steps=trajectories.num_steps,
        image_width=trajectories.image_width,
        image_height=trajectories.image_height,
    )
    _fill(message.positions, trajectories.positions.astype(np.float32, copy=False))
    if trajectories.confidence is not None:
        _fill(message.confidence, trajectories.confidence.astype(np.float32, copy=False))
    _fill(message.object_ids, trajectories.object_ids.astype(np.uint32))
    _fill(message.pixels, trajectories.pixels.astype(np.uint16))
    return message


def forecast_to_numpy(message: PointTrajectoriesMsg) -> PointTrajectories:
    """A forecast message as numpy arrays; positions, confidence and ids share the message's memory.

    Example:
        trajectories = forecast_to_numpy(message)
        trajectories.positions[0, :, -1]  # (P, 3) metres: where each point ends in the most representative future
        trajectories.positions[0, trajectories.object_ids == 3]  # (points, T, 3) the trajectories of object 3

    Args:
        message: momap_ros/PointTrajectories, from rclpy or from a bag reader.

    Returns:
        The same content with its shapes: positions (N, P, T, 3) float32 metres, NaN = unknown.

    Raises:
        ValueError: the arrays contradict the stated counts.
    """
    counts = (message.num_hypotheses, message.num_points, message.num_steps)
    hypotheses, points, steps = counts
    has_confidence = len(message.confidence) > 0
    return PointTrajectories(
        positions=_shaped(message.positions, np.float32, (hypotheses, points, steps, 3), "positions"),
        object_ids=_shaped(message.object_ids, np.int32, (points,), "object_ids"),
        pixels=_shaped(message.pixels, np.uint16, (points, 2), "pixels").astype(np.int32),
        image_width=message.image_width,
        image_height=message.image_height,
        step_s=seconds_from_duration(message.time_step),
        confidence=_shaped(message.confidence, np.float32, (hypotheses, points), "confidence")
        if has_confidence
        else None,
        frame_id=message.header.frame_id,
        stamp_ns=message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec,
    )


def hints_to_msg(hints: Mapping[int, Sequence[int]], header: Header) -> MotionHints:
    """Direction hints as a message; the header is that of the image whose ids are meant."""
    items = [MotionHint(id=instance_id, flags=np.asarray(flags, np.int8)) for instance_id, flags in hints.items()]
    return MotionHints(header=header, hints=items)


def hints_from_msg(message: MotionHints) -> Hints:
    """The hints of a message.

    Raises:
        HintError: an impossible id or flag, or an instance that occurs twice.
    """
    return checked_hints((item.id, [int(flag) for flag in item.flags]) for item in message.hints)


def poses_from_numpy(motion_t_from_0: Float64) -> list[Pose]:
    """(T, 4, 4) rigid motions as geometry_msgs/Pose messages, metres, neighbours' quaternions without jumps of sign."""
    return [_pose(*pose) for pose in poses_of_tracks(motion_t_from_0[None])[0].tolist()]


def _pose(x: float, y: float, z: float, qx: float, qy: float, qz: float, qw: float) -> Pose:  # noqa: PLR0917
    # Filled in place: keyword arguments would build every nested message twice.
    pose = Pose()
    position, orientation = pose.position, pose.orientation
    position.x, position.y, position.z = x, y, z
    orientation.x, orientation.y, orientation.z, orientation.w = qx, qy, qz, qw
    return pose


def poses_to_numpy(message: ObjectMotionMsg | ObjectHypothesis) -> Float64:
    """(T, 4, 4) rigid motion of an object from step 0 to each step, metres, in the array's header frame."""
    positions = np.array([[p.position.x, p.position.y, p.position.z] for p in message.poses]).reshape(-1, 3)
    xyzw = np.array([[p.orientation.x, p.orientation.y, p.orientation.z, p.orientation.w] for p in message.poses])
    return se3_from_parts(rotations_from_quaternions(wxyz_from_xyzw(xyzw.reshape(-1, 4))), positions)


def labels_to_msg(instances: InstanceMap, header: Header) -> Image:
    """An instance map as a label image: 16UC1, 0 = no instance, the header is the colour image's.

    Raises:
        OverflowError: an id beyond 65535.
    """
    height, width = instances.ids.shape
    if instances.ids.size and instances.ids.max() > MAX_LABEL:
        raise OverflowError(
            f"instances: expected ids up to {MAX_LABEL}, got {instances.ids.max()}; restart the tracker"
        )
    message = Image(header=header, height=height, width=width, encoding="16UC1", is_bigendian=0, step=2 * width)
    _fill(message.data, instances.ids.astype("<u2").view(np.uint8))
    return message


def cloud_to_msg(trajectories: PointTrajectories, mean_velocity_m_s: Float32) -> PointCloud2:
    """The observed points with their forecast mean velocity, as a cloud for standard consumers.

    Args:
        trajectories: step 0 gives the points; stamp and frame of the cloud are theirs.
        mean_velocity_m_s: (P, 3) metres per second over the horizon.

    Returns:
        Fields x y z vx vy vz (float32) and object_id (uint32), one row; not dense, because velocities may be NaN.
    """
    points = np.empty(trajectories.num_points, _CLOUD_DTYPE)
    for axis, name in enumerate("xyz"):
        points[name] = trajectories.positions[0, :, 0, axis]
        points[f"v{name}"] = mean_velocity_m_s[:, axis]
    points["object_id"] = trajectories.object_ids
    return structured_cloud(header_to_msg(trajectories.stamp_ns, trajectories.frame_id), points)


def structured_cloud(header: Header, points: npt.NDArray[np.void]) -> PointCloud2:
    """A cloud of one row: (P,) records whose float32 and uint32 fields are those of the message."""
    fields = [
        PointField(
            name=name, offset=offset, datatype=PointField.UINT32 if dtype.kind == "u" else PointField.FLOAT32, count=1
        )
        for name, (dtype, offset) in ((name, field[:2]) for name, field in (points.dtype.fields or {}).items())
    ]
    try:
        from sensor_msgs_py.point_cloud2 import create_cloud
    except ImportError:  # not among the Python wheels of ROS; the message is the same either way
        return _cloud(header, fields, points)
    cloud: PointCloud2 = create_cloud(header, fields, points)
    return cloud


def transform_from_msg(transform: TransformStamped) -> Float64:
    """(4, 4) target_from_source of a TF transform, where the header's frame is the target and the child the source."""
    t, q = transform.transform.translation, transform.transform.rotation
    rotation = rotations_from_quaternions(wxyz_from_xyzw(np.array([q.x, q.y, q.z, q.w])))
    return se3_from_parts(rotation, np.array([t.x, t.y, t.z]))


def _cloud(header: Header, fields: list[PointField], points: npt.NDArray[np.void]) -> PointCloud2:
    """What sensor_msgs_py's create_cloud makes of a one-dimensional structured array."""
    message = PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * len(points),
        is_dense=False,
    )
    _fill(message.data, points)
    return message


def _fill(field: array.array[Any], values: npt.NDArray[Any]) -> None:
    """Append an array to an empty message field of the same item type, in C order."""
    field.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _shaped(field: Buffer, dtype: type[Scalar], shape: tuple[int, ...], name: str) -> npt.NDArray[Scalar]:
    """A message field as an array of a known shape, without a copy."""
    # frombuffer refuses an empty buffer.
    values = np.frombuffer(field, dtype) if len(field) else np.zeros(0, dtype)
    if values.size != np.prod(shape):
        raise ValueError(
            f"{name}: expected {shape} = {int(np.prod(shape))} values, got {values.size}; the message is damaged"
        )
    return values.reshape(shape)
