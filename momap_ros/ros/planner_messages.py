"""Forecasts as the messages that planners and controllers already take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray, PoseStamped, Transform, Twist
from nav_msgs.msg import Path
from rclpy.lifecycle.publisher import LifecyclePublisher
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from momap_ros.config import PlannerConfig
from momap_ros.geometry import Float32, Float64
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion
from momap_ros.planning import followed_object, moving_objects, steps_within, swept_volume, twists
from momap_ros.ros.conversions import duration_to_msg, header_to_msg, poses_from_numpy, structured_cloud

PLANNER_TOPICS: dict[str, type[Any]] = {
    "~/path": Path,
    "~/poses": PoseArray,
    "~/multi_dof_trajectory": MultiDOFJointTrajectory,
    "~/swept_volume": PointCloud2,
}


def planner_outputs(create_output: Callable[[type[Any], str], LifecyclePublisher]) -> dict[str, LifecyclePublisher]:
    """A publisher for every planner topic, by its name."""
    return {topic: create_output(kind, topic) for topic, kind in PLANNER_TOPICS.items()}


def publish_for_planners(
    outputs: Mapping[str, LifecyclePublisher],
    objects: Sequence[ObjectMotion],
    trajectories: PointTrajectories,
    config: PlannerConfig,
    *,
    swept: Callable[[], PointTrajectories],
) -> None:
    """Publish what somebody listens to; nothing is made of a topic without subscribers. Empty results too.

    Args:
        outputs: of `planner_outputs`; other names are left alone.
        objects: of one frame.
        trajectories: of the same image in the same TF frame.
        config: which objects, how far and how fine.
        swept: gives the followed points in the same TF frame, in the futures whose volume is swept.
    """
    stamp_ns, frame_id, step_s = trajectories.stamp_ns, trajectories.frame_id, trajectories.step_s
    steps = steps_within(trajectories.num_steps, step_s, config.horizon_s)
    make: dict[str, Callable[[], Any]] = {
        "~/path": lambda: path_to_msg(followed_poses(objects, config, steps), stamp_ns, frame_id, step_s=step_s),
        "~/poses": lambda: pose_array_to_msg(followed_poses(objects, config, steps), header_to_msg(stamp_ns, frame_id)),
        "~/multi_dof_trajectory": lambda: multi_dof_to_msg(
            moving_objects(objects, config), header_to_msg(stamp_ns, frame_id), step_s=step_s, num_steps=steps
        ),
        "~/swept_volume": lambda: swept_volume_to_msg(objects, swept(), config),
    }
    for topic, made in make.items():
        if topic in outputs and outputs[topic].get_subscription_count():
            outputs[topic].publish(made())


def followed_poses(objects: Sequence[ObjectMotion], config: PlannerConfig, num_steps: int) -> Float64:
    """(T, 4, 4) poses of the followed object, see `momap_ros.planning.followed_object`; (0, 4, 4) without one."""
    motion = followed_object(objects, config)
    return np.zeros((0, 4, 4)) if motion is None else motion.frame_from_object[:num_steps]


def path_to_msg(frame_from_object: Float64, stamp_ns: int, frame_id: str, *, step_s: float) -> Path:
    """A track of (T, 4, 4) poses, metres, as a path; every pose carries the time at which it will be reached."""
    path = Path(header=header_to_msg(stamp_ns, frame_id))
    path.poses = [
        PoseStamped(header=header_to_msg(stamp_ns + round(step * step_s * 1e9), frame_id), pose=pose)
        for step, pose in enumerate(_poses(frame_from_object))
    ]
    return path


def pose_array_to_msg(frame_from_object: Float64, header: Header) -> PoseArray:
    """A track of (T, 4, 4) poses, metres, as an array in order of the steps."""
    return PoseArray(header=header, poses=_poses(frame_from_object))


def multi_dof_to_msg(
    motions: Sequence[ObjectMotion], header: Header, *, step_s: float, num_steps: int
) -> MultiDOFJointTrajectory:
    """Tracks of several objects: one "joint" per object, named by `joint_name`.

    Transforms are the objects' poses in the header's frame; velocities are those of the pose's origin, along the
    header frame's axes. Accelerations are left empty.

    Args:
        motions: in the header's frame.
        header: stamp of the colour image.
        step_s: seconds between two steps.
        num_steps: of each track that are sent.
    """
    poses = [_poses(motion.frame_from_object[:num_steps]) for motion in motions]
    velocities = [twists(motion.frame_from_object, step_s)[:num_steps].tolist() for motion in motions]
    message = MultiDOFJointTrajectory(header=header, joint_names=[joint_name(m.instance_id) for m in motions])
    for step in range(num_steps if motions else 0):
        message.points.append(
            MultiDOFJointTrajectoryPoint(
                transforms=[_transform(track[step]) for track in poses],
                velocities=[_twist(track[step]) for track in velocities],
                time_from_start=duration_to_msg(step * step_s),
            )
        )
    return message


def joint_name(instance_id: int) -> str:
    """The name of an object among the joints of a trajectory: object_3."""
    return f"object_{instance_id}"


def swept_volume_to_msg(
    objects: Sequence[ObjectMotion], trajectories: PointTrajectories, config: PlannerConfig
) -> PointCloud2:
    """The space that moving objects, or the one that `config.object_id` names, will pass through: x y z, float32."""
    moving = moving_objects(objects, config)
    if config.object_id:
        followed = followed_object(objects, config)
        moving = [] if followed is None else [followed]
    steps = steps_within(trajectories.num_steps, trajectories.step_s, config.horizon_s)
    points = swept_volume(
        trajectories,
        {motion.instance_id for motion in moving},
        voxel_m=config.voxel_m,
        num_steps=steps,
    )
    return structured_cloud(header_to_msg(trajectories.stamp_ns, trajectories.frame_id), _structured(points))


def first_hypotheses(trajectories: PointTrajectories, count: int) -> PointTrajectories:
    """The first futures alone, at most so many."""
    return trajectories.reordered(np.arange(min(count, trajectories.num_hypotheses)))


def _structured(points: Float32) -> np.ndarray[tuple[int, ...], np.dtype[np.void]]:
    """(V, 3) positions as records of x, y and z."""
    return np.ascontiguousarray(points, "<f4").view([(name, "<f4") for name in "xyz"])[:, 0]


def _poses(frame_from_object: Float64) -> list[Any]:
    return poses_from_numpy(frame_from_object) if len(frame_from_object) else []


def _transform(pose: Any) -> Transform:  # noqa: ANN401  (generated classes are untyped)
    transform = Transform(rotation=pose.orientation)
    translation = transform.translation
    translation.x, translation.y, translation.z = pose.position.x, pose.position.y, pose.position.z
    return transform


def _twist(values: Sequence[float]) -> Twist:
    twist = Twist()
    twist.linear.x, twist.linear.y, twist.linear.z, twist.angular.x, twist.angular.y, twist.angular.z = values
    return twist
