"""Core types to the messages of a bag and back, without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.articulation import Articulation, JointKind
from momap_ros.bag_types import (
    CAMERA_INFO,
    IMAGE,
    POINT_TRAJECTORIES,
    STRING,
    TRANSFORMS,
    Message,
    new_duration,
    new_header,
    new_message,
)
from momap_ros.geometry import (
    Float32,
    Float64,
    PinholeCamera,
    quaternions_from_rotations,
    rotations_from_quaternions,
    se3_from_parts,
    wxyz_from_xyzw,
    xyzw_from_wxyz,
)
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import MotionHypothesis, ObjectMotion
from momap_ros.rgbd import UInt8
from momap_ros.shapes import check_shapes

_FLAGS = ("direction_flags", "direction_flags_1", "direction_flags_4", "direction_flags_16")


def color_message(rgb: UInt8, stamp_ns: int, frame_id: str) -> Message:
    """A colour image as rgb8."""
    check_shapes(rgb=(rgb, "H W 3"))
    return _image_message(rgb, "rgb8", stamp_ns, frame_id)


def depth_message(depth_m: Float32, stamp_ns: int, frame_id: str, *, millimetres: bool) -> Message:
    """A depth image as 16UC1, rounded to millimetres with 0 = no reading, or exactly as 32FC1.

    Raises:
        ValueError: a depth that 16 bits of millimetres cannot hold.
    """
    check_shapes(depth_m=(depth_m, "H W"))
    if not millimetres:
        return _image_message(depth_m.astype("<f4"), "32FC1", stamp_ns, frame_id)
    rounded = np.round(np.nan_to_num(depth_m, nan=0.0) * 1000.0)
    if rounded.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"depth: expected at most 65.535 m in a 16UC1 image, got {rounded.max() / 1000} m; use 32FC1")
    return _image_message(rounded.astype("<u2"), "16UC1", stamp_ns, frame_id)


def instances_message(instances: InstanceMap, stamp_ns: int, frame_id: str) -> Message:
    """An instance map as a 16UC1 label image, 0 = no instance.

    Raises:
        ValueError: an id beyond 65535.
    """
    if instances.ids.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"instances: expected ids up to 65535, got {instances.ids.max()}; number the instances anew")
    return _image_message(instances.ids.astype("<u2"), "16UC1", stamp_ns, frame_id)


def camera_info_message(camera: PinholeCamera, stamp_ns: int, frame_id: str) -> Message:
    """The CameraInfo of an undistorted pinhole camera; K and P agree."""
    k = camera.matrix
    return new_message(
        CAMERA_INFO,
        header=new_header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([k, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=new_message(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def string_message(text: str) -> Message:
    """A std_msgs/String."""
    return new_message(STRING, data=text)


def transform_message(parent_from_child: Float64, stamp_ns: int, *, parent: str, child: str) -> Message:
    """A tf2_msgs/TFMessage with one (4, 4) transform, metres: the pose of frame `child` in frame `parent`."""
    check_shapes(parent_from_child=(parent_from_child, "4 4"))
    transform = new_message(
        "geometry_msgs/msg/Transform",
        translation=_xyz_message("Vector3", parent_from_child[:3, 3]),
        rotation=_quaternion_message(xyzw_from_wxyz(quaternions_from_rotations(parent_from_child[:3, :3]))),
    )
    stamped = new_message(
        "geometry_msgs/msg/TransformStamped",
        header=new_header(stamp_ns, parent),
        child_frame_id=child,
        transform=transform,
    )
    return new_message(TRANSFORMS, transforms=[stamped])


def trajectories_message(trajectories: PointTrajectories) -> Message:
    """Point trajectories as momap_ros/PointTrajectories."""
    confidence = np.zeros(0, np.float32) if trajectories.confidence is None else trajectories.confidence
    return new_message(
        POINT_TRAJECTORIES,
        header=new_header(trajectories.stamp_ns, trajectories.frame_id),
        time_step=new_duration(trajectories.step_s),
        num_hypotheses=trajectories.num_hypotheses,
        num_points=trajectories.num_points,
        num_steps=trajectories.num_steps,
        positions=trajectories.positions.astype(np.float32).reshape(-1),
        confidence=confidence.astype(np.float32).reshape(-1),
        object_ids=trajectories.object_ids.astype(np.uint32),
        pixels=trajectories.pixels.astype(np.uint16).reshape(-1),
        image_width=trajectories.image_width,
        image_height=trajectories.image_height,
    )


def trajectories_from_message(message: Message) -> PointTrajectories:
    """The core type of a momap_ros/PointTrajectories message."""
    hypotheses, points, steps = message.num_hypotheses, message.num_points, message.num_steps
    confidence = np.asarray(message.confidence, np.float32)
    return PointTrajectories(
        positions=np.asarray(message.positions, np.float32).reshape(hypotheses, points, steps, 3),
        object_ids=np.asarray(message.object_ids).astype(np.int32),
        pixels=np.asarray(message.pixels).astype(np.int32).reshape(points, 2),
        image_width=int(message.image_width),
        image_height=int(message.image_height),
        step_s=_seconds(message.time_step),
        confidence=confidence.reshape(hypotheses, points) if confidence.size else None,
        frame_id=str(message.header.frame_id),
        stamp_ns=_nanoseconds(message.header.stamp),
    )


def objects_from_message(message: Message) -> list[ObjectMotion]:
    """The core types of a momap_ros/ObjectMotionArray message."""
    return [_object_from_message(item) for item in message.objects]


def _image_message(pixels: npt.NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Message:
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    return new_message(
        IMAGE,
        header=new_header(stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.shape[1],
        data=data.reshape(-1),
    )


def _quaternion_message(xyzw: Float64) -> Message:
    return new_message("geometry_msgs/msg/Quaternion", x=xyzw[0], y=xyzw[1], z=xyzw[2], w=xyzw[3])


def _object_from_message(item: Message) -> ObjectMotion:
    return ObjectMotion(
        instance_id=int(item.id),
        label=str(item.label),
        moving_probability=float(item.moving_probability),
        centroid_m=_xyz(item.centroid),
        size_m=_xyz(item.size),
        direction=_xyz(item.direction),
        displacement_m=float(item.displacement),
        speed_m_s=float(item.speed),
        motion_t_from_0=_motion(item.poses),
        residual_m=np.asarray(item.residual, np.float64),
        inlier_fraction=float(item.inlier_fraction),
        rigid=bool(item.rigid),
        valid=bool(item.valid),
        hypothesis_weight=float(item.hypothesis_weight),
        hypothesis_spread_m=float(item.hypothesis_spread),
        end_covariance=_covariance(item.end),
        hypotheses=tuple(
            MotionHypothesis(float(other.weight), _motion(other.poses), _covariance(other.end))
            for other in item.hypotheses
        ),
        articulation=Articulation(
            JointKind(int(item.articulation.kind)),
            _xyz(item.articulation.axis),
            _xyz(item.articulation.axis_point),
            np.asarray(item.articulation.positions, np.float64),
            float(item.articulation.residual),
        ),
        goal_id=int(item.goal_id),
        **{name: np.asarray(getattr(item, name), np.int8) for name in _FLAGS},
    )


def _motion(poses: Sequence[Message]) -> Float64:
    positions = np.array([_xyz(pose.position) for pose in poses]).reshape(-1, 3)
    xyzw = np.array([[*_xyz(pose.orientation), pose.orientation.w] for pose in poses]).reshape(-1, 4)
    return se3_from_parts(rotations_from_quaternions(wxyz_from_xyzw(xyzw)), positions)


def _covariance(pose: Message) -> Float64:
    return np.asarray(pose.covariance, np.float64).reshape(6, 6)


def _xyz_message(name: str, xyz: Float64) -> Message:
    return new_message(f"geometry_msgs/msg/{name}", x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def _xyz(message: Message) -> Float64:
    return np.array([message.x, message.y, message.z], np.float64)


def _seconds(duration: Message) -> float:
    return _nanoseconds(duration) * 1e-9


def _nanoseconds(time: Message) -> int:
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)
