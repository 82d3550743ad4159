"""What planners subscribe to, over real DDS, from a forecast whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from geometry_msgs.msg import PoseArray
from nav_msgs.msg import Path
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from ros_harness import (
    FRAME_ID,
    NUM_STEPS,
    STEP_S,
    VELOCITY_M_S,
    Camera,
    ConstantVelocityForecaster,
    start,
)
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2
from trajectory_msgs.msg import MultiDOFJointTrajectory

from momap_ros.config import ObjectMotionConfig, PlannerConfig
from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.images import stamp_ns_of
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import estimate_object_motions
from momap_ros.ros.conversions import header_to_msg, seconds_from_duration
from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.planner_messages import (
    followed_poses,
    multi_dof_to_msg,
    path_to_msg,
    pose_array_to_msg,
    swept_volume_to_msg,
)

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

TOPICS = {
    "path": Path,
    "poses": PoseArray,
    "multi_dof_trajectory": MultiDOFJointTrajectory,
    "swept_volume": PointCloud2,
}
STAMP_NS = 1_700_000_000_987_654_321


class Listener:
    """A forecast node, and everything it publishes for planners."""

    def __init__(self, ros: Ros, **parameters: Any) -> None:  # noqa: ANN401
        overrides = [Parameter(f"planner.{name}", value=value) for name, value in parameters.items()]
        self.node = ros.add(
            ForecastNode(
                ConstantVelocityForecaster,
                context=ros.context,
                use_global_arguments=False,
                parameter_overrides=overrides,
            )
        )
        self.received = {name: ros.collect(kind, f"/forecast_node/{name}") for name, kind in TOPICS.items()}
        assert start(self.node)

    def complete(self) -> bool:
        return all(self.received.values())


def xyz_of(cloud: PointCloud2) -> Float64:
    assert [(field.name, field.offset, field.datatype) for field in cloud.fields] == [
        ("x", 0, 7),
        ("y", 4, 7),
        ("z", 8, 7),
    ]
    assert (cloud.height, cloud.point_step, cloud.row_step) == (1, 12, 12 * cloud.width)
    return np.frombuffer(cloud.data, np.float32).reshape(-1, 3).astype(np.float64)


def position(pose: Any) -> list[float]:  # noqa: ANN401
    return [pose.position.x, pose.position.y, pose.position.z]


def test_a_forecast_arrives_on_every_planner_topic(ros: Ros) -> None:
    listener, camera = Listener(ros), Camera(ros)
    camera.wait_for_subscriber()
    assert ros.spin_until(
        lambda: all(p.get_subscription_count() for n, p in listener.node._outputs.items() if n[0] == "~")
    )
    stamp_ns = camera.publish(0)
    assert ros.spin_until(listener.complete)
    path, poses, trajectory, cloud = (listener.received[name][0] for name in TOPICS)
    for message in (path, poses, trajectory, cloud):
        assert (stamp_ns_of(message), message.header.frame_id) == (stamp_ns, FRAME_ID)
    shift = np.arange(NUM_STEPS)[:, None] * STEP_S * VELOCITY_M_S
    # Poses of one of the two boxes: from its centre on, without a turn, each at its time.
    centre = np.array(position(path.poses[0].pose))
    np.testing.assert_allclose([position(stamped.pose) for stamped in path.poses], centre + shift, atol=1e-4)
    assert [stamp_ns_of(stamped) for stamped in path.poses] == [
        stamp_ns + round(k * STEP_S * 1e9) for k in range(NUM_STEPS)
    ]
    assert {stamped.header.frame_id for stamped in path.poses} == {FRAME_ID}
    assert [stamped.pose for stamped in path.poses] == list(poses.poses)
    # Both boxes as joints.
    assert sorted(trajectory.joint_names) == ["object_1", "object_2"]
    assert [seconds_from_duration(p.time_from_start) for p in trajectory.points] == pytest.approx(
        np.arange(NUM_STEPS) * STEP_S
    )
    for point, moved in zip(trajectory.points, shift, strict=True):
        for joint, transform in enumerate(point.transforms):
            first = trajectory.points[0].transforms[joint].translation
            reached = transform.translation
            np.testing.assert_allclose(
                [reached.x - first.x, reached.y - first.y, reached.z - first.z], moved, atol=1e-4
            )
            assert transform.rotation.w == pytest.approx(1.0, abs=1e-6)
        for twist in point.velocities:
            np.testing.assert_allclose([twist.linear.x, twist.linear.y, twist.linear.z], VELOCITY_M_S, atol=1e-3)
            np.testing.assert_allclose([twist.angular.x, twist.angular.y, twist.angular.z], 0.0, atol=1e-3)
    # The boxes' front faces are 71 and 74 cm away, 14 cm wide and move 21 cm to the right and 7 cm nearer.
    voxels = xyz_of(cloud)
    assert len(np.unique(np.floor(voxels / 0.01), axis=0)) == len(voxels)
    assert voxels[:, 2].max() == pytest.approx(0.74, abs=0.011)
    assert voxels[:, 2].min() == pytest.approx(0.71 - 0.07, abs=0.011)
    assert len(voxels) * 12 < 500_000  # small enough for best effort


def test_horizon_object_and_probability_are_parameters(ros: Ros) -> None:
    listener, camera = Listener(ros, horizon_s=0.5, object_id=2), Camera(ros)
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(listener.complete)
    assert [len(listener.received["path"][0].poses), len(listener.received["multi_dof_trajectory"][0].points)] == [3, 3]
    before = np.array(position(listener.received["path"][0].poses[0].pose))
    listener.node.set_parameters(
        [Parameter("planner.min_moving_probability", value=1.0), Parameter("planner.object_id", value=1)]
    )
    for messages in listener.received.values():
        messages.clear()
    camera.publish(1)
    assert ros.spin_until(listener.complete)
    after = np.array(position(listener.received["path"][0].poses[0].pose))
    assert np.linalg.norm(after - before) > 0.1
    refused = listener.node.set_parameters([Parameter("planner.voxel_m", value=0.0)])
    assert not refused[0].successful


class HandEye:
    """Knows one transform, as tf2 does where it is installed: the wheels of ROS do not have it."""

    frame_id = "base_link"

    def __init__(self) -> None:
        self.base_from_camera = se3_from_parts(np.diag([1.0, -1.0, -1.0]), np.array([0.4, 0.0, 1.0]))
        self.asked: list[tuple[str, int]] = []

    def target_from(self, source_frame_id: str, stamp_ns: int) -> Float64:
        self.asked.append((source_frame_id, stamp_ns))
        return self.base_from_camera


def test_planner_messages_are_in_the_target_frame(ros: Ros) -> None:
    listener, camera, hand_eye = Listener(ros), Camera(ros), HandEye()
    listener.node._target = hand_eye  # type: ignore[assignment]  # it has all that the node asks of a TargetFrame
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    assert ros.spin_until(listener.complete)
    assert hand_eye.asked == [(FRAME_ID, stamp_ns)]
    path, poses, trajectory, cloud = (listener.received[name][0] for name in TOPICS)
    assert {m.header.frame_id for m in (path, poses, trajectory, cloud, *path.poses)} == {"base_link"}
    shift = np.arange(NUM_STEPS)[:, None] * STEP_S * VELOCITY_M_S * [1, -1, -1]
    path_m = np.array([position(stamped.pose) for stamped in path.poses])
    np.testing.assert_allclose(path_m - path_m[0], shift, atol=1e-4)
    assert path_m[0, 2] == pytest.approx(1.0 - 0.71, abs=0.04)
    twist = trajectory.points[0].velocities[0].linear
    np.testing.assert_allclose([twist.x, twist.y, twist.z], VELOCITY_M_S * [1, -1, -1], atol=1e-3)
    heights = xyz_of(cloud)[:, 2]
    assert heights.min() == pytest.approx(1.0 - 0.74, abs=0.011)
    assert heights.max() == pytest.approx(1.0 - 0.71 + 0.07, abs=0.011)


def turning_box() -> PointTrajectories:
    """Object 3 turns by 5 rad about its centre's vertical and rises; object 8 rests. 21 steps of 0.1 s."""
    generator = np.random.default_rng(0)
    box = generator.uniform(-0.05, 0.05, (60, 3))
    share = np.linspace(0.0, 1.0, 21)
    rotations = Rotation.from_rotvec(share[:, None] * [0.0, 0.0, 5.0]).as_matrix()
    centre = np.array([0.1, 0.0, 0.7]) + share[:, None] * [0.0, 0.0, 0.2]
    moved = np.einsum("tij,pj->pti", rotations, box - box.mean(axis=0)) + centre
    still = np.repeat(generator.uniform(-0.05, 0.05, (40, 1, 3)) + np.array([-0.3, 0.0, 0.7]), 21, axis=1)
    ids = np.repeat(np.array([3, 8], np.int32), [60, 40])
    positions = np.concatenate([moved, still])[None].astype(np.float32)
    return PointTrajectories(positions, ids, np.zeros((100, 2), np.int32), 64, 48, 0.1, None, "optical", STAMP_NS)


def test_poses_and_velocities_of_a_turning_object() -> None:
    trajectories = turning_box()
    objects = estimate_object_motions(trajectories, ObjectMotionConfig())

    poses = followed_poses(objects, PlannerConfig(), 21)
    path = path_to_msg(poses, STAMP_NS, "optical", step_s=0.1)
    trajectory = multi_dof_to_msg(objects[:1], header_to_msg(STAMP_NS, "optical"), step_s=0.1, num_steps=21)

    share = np.linspace(0.0, 1.0, 21)
    np.testing.assert_allclose([p.pose.position.z for p in path.poses], 0.7 + 0.2 * share, atol=1e-5)
    np.testing.assert_allclose([p.pose.orientation.w for p in path.poses], np.cos(2.5 * share), atol=1e-5)
    np.testing.assert_allclose([p.pose.orientation.z for p in path.poses], np.sin(2.5 * share), atol=1e-5)
    assert trajectory.joint_names == ["object_3"]
    for point in trajectory.points:
        linear, angular = point.velocities[0].linear, point.velocities[0].angular
        # 5 rad and 20 cm in 2 s.
        np.testing.assert_allclose([linear.x, linear.y, linear.z], [0.0, 0.0, 0.1], atol=1e-4)
        np.testing.assert_allclose([angular.x, angular.y, angular.z], [0.0, 0.0, 2.5], atol=1e-3)
    assert stamp_ns_of(path.poses[20]) - STAMP_NS == 2_000_000_000
    assert deserialize_message(serialize_message(trajectory), MultiDOFJointTrajectory) == trajectory


def test_nothing_that_moves_gives_empty_messages() -> None:
    trajectories = turning_box()
    objects = estimate_object_motions(trajectories, ObjectMotionConfig(), moving_probability={3: 0.1, 8: 0.0})
    header = header_to_msg(STAMP_NS, "optical")

    poses = followed_poses(objects, PlannerConfig(), 21)
    messages = (
        path_to_msg(poses, STAMP_NS, "optical", step_s=0.1),
        pose_array_to_msg(poses, header),
        multi_dof_to_msg([], header, step_s=0.1, num_steps=21),
        swept_volume_to_msg(objects, trajectories, PlannerConfig()),
    )

    assert all(stamp_ns_of(message) == STAMP_NS for message in messages)
    path, array, trajectory, cloud = messages
    assert (len(path.poses), len(array.poses), len(trajectory.points), cloud.width) == (0, 0, 0, 0)
    named = swept_volume_to_msg(objects, trajectories, PlannerConfig(object_id=8))
    assert named.width > 0
    assert xyz_of(named)[:, 0].max() < -0.2
