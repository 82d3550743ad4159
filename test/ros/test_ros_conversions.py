from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from geometry_msgs.msg import TransformStamped
from momap_ros.msg import Articulation, MotionHint, MotionHints, ObjectHypothesis, ObjectMotionArray
from momap_ros.msg import ObjectMotion as ObjectMotionMsg
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2
from transforms3d.euler import euler2mat
from transforms3d.quaternions import mat2quat

from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import se3_from_parts, transform_points
from momap_ros.hints import HintError
from momap_ros.images import labels_from_image
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_cdr import object_motions_from_cdr, objects_cdr
from momap_ros.object_motion import estimate_object_motions
from momap_ros.ros.conversions import (
    cloud_to_msg,
    duration_to_msg,
    forecast_from_numpy,
    forecast_to_numpy,
    header_to_msg,
    hints_from_msg,
    hints_to_msg,
    labels_to_msg,
    poses_from_numpy,
    poses_to_numpy,
    seconds_from_duration,
    stamp_to_msg,
    transform_from_msg,
)

pytestmark = pytest.mark.ros


def trajectories(*, confidence: bool = True, points: int = 7) -> PointTrajectories:
    rng = np.random.default_rng(3)
    positions = rng.normal(size=(2, points, 5, 3)).astype(np.float32)
    if points:
        positions[0, 1, 3] = np.nan
    return PointTrajectories(
        positions,
        rng.integers(0, 9, points).astype(np.int32),
        rng.integers(0, 65536, (points, 2)).astype(np.int32),
        640,
        480,
        0.125,
        rng.random((2, points)).astype(np.float32) if confidence else None,
        "camera_color_optical_frame",
        1_739_654_368_123_456_789,
    )


@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("points", [7, 0])
def test_forecast_survives_the_wire_bit_for_bit(*, confidence: bool, points: int) -> None:
    sent = trajectories(confidence=confidence, points=points)
    wire = serialize_message(forecast_from_numpy(sent))
    received = forecast_to_numpy(deserialize_message(wire, PointTrajectoriesMsg))
    for field in dataclasses.fields(PointTrajectories):
        expected, got = getattr(sent, field.name), getattr(received, field.name)
        if isinstance(expected, np.ndarray) and not (points == 0 and field.name == "confidence"):
            assert got.dtype == expected.dtype, field.name
            np.testing.assert_array_equal(got, expected, err_msg=field.name)
        elif not isinstance(expected, np.ndarray):
            assert got == expected, field.name


def test_reading_a_forecast_copies_no_positions() -> None:
    message = forecast_from_numpy(trajectories())
    received = forecast_to_numpy(message)
    message.positions[0] = 42.0
    assert received.positions[0, 0, 0, 0] == 42.0


def test_positions_are_in_documented_c_order() -> None:
    sent = trajectories()
    message = forecast_from_numpy(sent)
    hypothesis, point, step, axis = 1, 4, 2, 1
    index = ((hypothesis * 7 + point) * 5 + step) * 3 + axis
    assert message.positions[index] == sent.positions[hypothesis, point, step, axis]
    assert list(message.pixels[2 * point : 2 * point + 2]) == sent.pixels[point].tolist()
    assert (message.num_hypotheses, message.num_points, message.num_steps) == (2, 7, 5)


def test_non_contiguous_positions_arrive_in_order() -> None:
    sent = trajectories()
    mirrored = dataclasses.replace(sent, positions=sent.positions[:, :, ::-1])
    received = forecast_to_numpy(forecast_from_numpy(mirrored))
    np.testing.assert_array_equal(received.positions, sent.positions[:, :, ::-1])


def test_a_damaged_forecast_is_refused_by_name() -> None:
    message = forecast_from_numpy(trajectories())
    message.positions.pop()
    with pytest.raises(ValueError, match=r"positions: expected \(2, 7, 5, 3\) = 210 values, got 209"):
        forecast_to_numpy(message)


def test_pixels_beyond_the_field_are_refused() -> None:
    sent = trajectories()
    sent.pixels[0, 0] = 65536
    with pytest.raises(OverflowError, match="got 65536"):
        forecast_from_numpy(sent)


@pytest.mark.parametrize("seconds", [0.0, 0.125, 2.999999999, -0.25, -3.0])
def test_durations_round_trip(seconds: float) -> None:
    duration = duration_to_msg(seconds)
    assert 0 <= duration.nanosec < 1_000_000_000
    assert seconds_from_duration(duration) == pytest.approx(seconds, abs=1e-9)


def test_stamp_splits_exactly() -> None:
    stamp = stamp_to_msg(1_739_654_368_999_999_999)
    assert (stamp.sec, stamp.nanosec) == (1_739_654_368, 999_999_999)


def moving_box(steps: int = 21) -> tuple[PointTrajectories, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Object 4 turns about z by up to 90 degrees and shifts; object 9 stands still. Also the true (T, 4, 4)."""
    rng = np.random.default_rng(0)
    box = rng.uniform(-0.05, 0.05, (60, 3)) + np.array([0.1, 0.05, 0.7])
    still = rng.uniform(-0.05, 0.05, (40, 3)) + np.array([-0.2, 0.0, 0.8])
    share = np.linspace(0.0, 1.0, steps)
    rotation = np.stack([euler2mat(0.0, 0.0, angle) for angle in share * np.pi / 2])
    motion = se3_from_parts(rotation, share[:, None] * np.array([0.3, -0.1, 0.05]))
    moved = np.stack([transform_points(pose, box) for pose in motion], axis=1)
    positions = np.concatenate([moved, np.repeat(still[:, None], steps, axis=1)])[None].astype(np.float32)
    ids = np.repeat(np.array([4, 9], np.int32), [60, 40])
    pixels = np.zeros((100, 2), np.int32)
    return PointTrajectories(positions, ids, pixels, 640, 480, 0.1, None, "optical", 5), motion


def objects_message() -> tuple[ObjectMotionArray, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    forecast, motion = moving_box()
    objects = estimate_object_motions(forecast, ObjectMotionConfig(), labels={4: "box"})
    serialized = objects_cdr(objects, forecast, model_name="small", latency_s=1.5)
    return deserialize_message(serialized, ObjectMotionArray), motion


def test_object_motions_arrive_with_their_true_poses() -> None:
    message, motion = objects_message()
    assert [obj.id for obj in message.objects] == [4, 9]
    assert [obj.label for obj in message.objects] == ["box", ""]
    assert seconds_from_duration(message.horizon) == pytest.approx(2.0)
    assert seconds_from_duration(message.time_step) == pytest.approx(0.1)
    assert seconds_from_duration(message.latency) == pytest.approx(1.5)
    assert (message.header.frame_id, message.header.stamp.nanosec, message.model_name) == ("optical", 5, "small")
    np.testing.assert_allclose(poses_to_numpy(message.objects[0]), motion, atol=1e-5)
    np.testing.assert_array_equal(poses_to_numpy(message.objects[1]), np.tile(np.eye(4), (21, 1, 1)))


def test_pose_quaternions_are_in_ros_order() -> None:
    message, motion = objects_message()
    w, x, y, z = mat2quat(motion[-1, :3, :3])
    got = message.objects[0].poses[-1].orientation
    np.testing.assert_allclose([got.x, got.y, got.z, got.w], np.sign(w) * np.array([x, y, z, w]), atol=1e-6)


def test_quaternions_do_not_jump_past_half_a_turn() -> None:
    angles = np.linspace(0.0, 6.0, 40)
    motion = se3_from_parts(np.stack([euler2mat(0.0, 0.0, angle) for angle in angles]), np.zeros((40, 3)))

    got = [[p.orientation.x, p.orientation.y, p.orientation.z, p.orientation.w] for p in poses_from_numpy(motion)]

    zero = np.zeros(40)
    np.testing.assert_allclose(got, np.stack([zero, zero, np.sin(angles / 2), np.cos(angles / 2)], axis=1), atol=1e-12)


def test_joint_end_and_hypotheses_arrive() -> None:
    forecast, motion = moving_box()
    ends = np.array([[0.0, 0.0, 0.0], [0.02, 0.0, 0.0], [0.5, 0.0, 0.0]])
    path = np.linspace(0.0, 1.0, 21)[:, None] * ends[:, None]
    futures = forecast.positions + (path[:, None] * (forecast.object_ids == 4)[:, None, None]).astype(np.float32)
    objects = estimate_object_motions(dataclasses.replace(forecast, positions=futures), ObjectMotionConfig())
    serialized = objects_cdr(objects, forecast, model_name="small", latency_s=0.0)
    box, still = deserialize_message(serialized, ObjectMotionArray).objects

    # The second of the three ends is nearest to all; the first two are within 2 cm of each other.
    expected = motion.copy()
    expected[:, :3, 3] += path[1]
    np.testing.assert_allclose(poses_to_numpy(box), expected, atol=1e-5)
    assert [item.weight for item in box.hypotheses] == pytest.approx([2 / 3, 1 / 3])
    far = motion.copy()
    far[:, :3, 3] += path[2]
    np.testing.assert_allclose(poses_to_numpy(box.hypotheses[1]), far, atol=1e-5)
    centre = transform_points(expected[-1], np.array([box.centroid.x, box.centroid.y, box.centroid.z]))
    end = box.end.pose
    np.testing.assert_allclose([end.position.x, end.position.y, end.position.z], centre, atol=1e-5)
    np.testing.assert_allclose(
        [end.orientation.w, end.orientation.x, end.orientation.y, end.orientation.z],
        mat2quat(motion[-1, :3, :3]),
        atol=1e-5,
    )
    # Ends 2 cm and 48 cm along x from the reported one, over three minus one.
    expected_covariance = np.zeros(36)
    expected_covariance[0] = (0.02**2 + 0.48**2) / 2
    np.testing.assert_allclose(box.end.covariance, expected_covariance, atol=1e-5)
    # A quarter turn about an axis at an angle to its shift is no hinge.
    assert box.articulation.kind == Articulation.FREE
    assert still.articulation.kind == Articulation.UNKNOWN
    assert [item.weight for item in still.hypotheses] == pytest.approx([1.0])
    np.testing.assert_array_equal(still.end.covariance, np.zeros(36))


def test_direction_flags_follow_the_motion() -> None:
    message, motion = objects_message()
    box, still = message.objects
    centre = np.array([box.centroid.x, box.centroid.y, box.centroid.z])
    shift = transform_points(motion, centre) - centre
    for flags, step in ((box.direction_flags, 20), (box.direction_flags_1, 1), (box.direction_flags_4, 4)):
        expected = np.where(np.abs(shift[step]) >= ObjectMotionConfig().moving_threshold_m, np.sign(shift[step]), 0)
        assert list(flags) == expected.astype(int).tolist()
    assert list(still.direction_flags) == [0, 0, 0]
    assert (still.direction.x, still.direction.y, still.direction.z) == (0.0, 0.0, 0.0)
    assert box.moving_probability == 1.0
    assert still.moving_probability == 0.0


def test_labels_round_trip_and_keep_the_header() -> None:
    ids = np.array([[0, 1, 2], [65535, 256, 7]], np.int32)
    message = labels_to_msg(InstanceMap(ids), header_to_msg(7, "optical"))
    assert (message.encoding, message.step, message.header.frame_id) == ("16UC1", 6, "optical")
    np.testing.assert_array_equal(labels_from_image(message), ids)


def test_a_label_too_large_for_the_image_is_refused() -> None:
    with pytest.raises(OverflowError, match="got 65536"):
        labels_to_msg(InstanceMap(np.array([[65536]], np.int32)), header_to_msg(0, ""))


def test_cloud_holds_points_velocities_and_ids() -> None:
    forecast = trajectories()
    velocity = np.arange(21, dtype=np.float32).reshape(7, 3)
    velocity[2] = np.nan
    wire = serialize_message(cloud_to_msg(forecast, velocity))
    cloud = deserialize_message(wire, PointCloud2)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (7, 1, 28, 196)
    assert not cloud.is_dense
    for field, expected in zip(
        cloud.fields,
        [*forecast.positions[0, :, 0].T, *velocity.T, forecast.object_ids.astype(np.uint32)],
        strict=True,
    ):
        column = np.frombuffer(cloud.data, np.uint8).reshape(7, 28)[:, field.offset : field.offset + 4]
        values = np.ascontiguousarray(column).view(expected.dtype)[:, 0]
        np.testing.assert_array_equal(values, expected, err_msg=field.name)
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "vx", "vy", "vz", "object_id"]


def test_transform_is_target_from_source() -> None:
    transform = TransformStamped()
    rotation = euler2mat(0.3, -0.2, 1.1)
    w, x, y, z = mat2quat(rotation)
    q = transform.transform.rotation
    q.x, q.y, q.z, q.w = float(x), float(y), float(z), float(w)
    transform.transform.translation.x = 2.0
    expected = np.eye(4)
    expected[:3, :3], expected[0, 3] = rotation, 2.0
    np.testing.assert_allclose(transform_from_msg(transform), expected, atol=1e-12)


def test_hints_survive_the_wire() -> None:
    hints = {3: (1, 0, -1), 4_294_967_295: (-1, 1, 0)}
    message = hints_to_msg(hints, header_to_msg(1_700_000_000_000_000_001, "optical"))
    back = deserialize_message(serialize_message(message), MotionHints)
    assert (back.header.frame_id, back.header.stamp.nanosec) == ("optical", 1)
    assert hints_from_msg(back) == hints
    assert hints_from_msg(MotionHints()) == {}


def test_impossible_hints_in_a_message_are_refused() -> None:
    for items, text in (
        ([MotionHint(id=0)], "a whole number from 1 on, got 0"),
        ([MotionHint(id=3, flags=np.array([0, 0, 2], np.int8))], "instance 3, axis z: expected closer, stay or away"),
        ([MotionHint(id=3), MotionHint(id=3)], "expected every instance once, got instance 3 again"),
    ):
        with pytest.raises(HintError, match=text):
            hints_from_msg(MotionHints(hints=items))


@pytest.mark.parametrize("label", ["", "a", "cup", "Tasse", "red cup"])
def test_object_motions_are_read_from_the_bytes_of_a_message(label: str) -> None:
    """rclpy's own bytes of messages that were filled field by field."""
    angles = np.linspace(0.0, 1.0, 4)
    motion = se3_from_parts(np.stack([euler2mat(0.0, a, 0.0) for a in angles]), np.outer(angles, [0.1, 0.2, 0.3]))
    poses = poses_from_numpy(motion)
    bare = ObjectMotionMsg(id=7, valid=False)  # no poses, no hypotheses, no joint
    full = ObjectMotionMsg(id=8, label=label, moving_probability=0.5, poses=poses, rigid=True, valid=True, goal_id=3)
    full.residual, full.direction_flags_4 = [0.25, 0.5, 0.75, 1.0], np.array([1, 0, -1], np.int8)
    full.centroid.y, full.size.z, full.direction.x, full.speed = 1.5, 2.5, 1.0, 0.125
    full.end.covariance = np.arange(36.0)
    full.hypotheses = [ObjectHypothesis(weight=0.75, poses=poses[::-1]), ObjectHypothesis(weight=0.25, poses=poses[:1])]
    full.hypotheses[1].end.covariance = np.full(36, np.nan)
    full.articulation = Articulation(kind=Articulation.REVOLUTE, residual=0.5, positions=[0.0, 0.5, 1.0, 1.5])
    full.articulation.axis.z, full.articulation.axis_point.x = 1.0, 3.5
    message = ObjectMotionArray(header=header_to_msg(5, "base"), model_name=label, objects=[full, bare, full])
    message.horizon, message.time_step, message.latency = map(duration_to_msg, (1.5, 0.5, -0.25))

    got = object_motions_from_cdr(serialize_message(message))

    assert (got.stamp_ns, got.frame_id, got.model_name) == (5, "base", label)
    assert (got.horizon_s, got.step_s, got.latency_s) == pytest.approx((1.5, 0.5, -0.25))
    assert [item.instance_id for item in got.objects] == [8, 7, 8]
    assert got.objects[1].motion_t_from_0.shape == (0, 4, 4)
    assert not got.objects[1].hypotheses
    for item in (got.objects[0], got.objects[2]):
        assert (item.label, item.moving_probability, item.speed_m_s) == (label, 0.5, 0.125)
        assert item.goal_id == 3
        assert (item.rigid, item.valid, item.direction_flags_4.tolist()) == (True, True, [1, 0, -1])
        np.testing.assert_allclose(item.motion_t_from_0, motion, atol=1e-12)
        np.testing.assert_array_equal(item.residual_m, [0.25, 0.5, 0.75, 1.0])
        np.testing.assert_array_equal([item.centroid_m[1], item.size_m[2], item.direction[0]], [1.5, 2.5, 1.0])
        np.testing.assert_array_equal(item.end_covariance, np.arange(36.0).reshape(6, 6))
        first, second = item.hypotheses
        assert (first.weight, second.weight) == (0.75, 0.25)
        np.testing.assert_allclose(first.motion_t_from_0, motion[::-1], atol=1e-12)
        np.testing.assert_allclose(second.motion_t_from_0, motion[:1], atol=1e-12)
        assert np.isnan(second.end_covariance).all()
        joint = item.articulation
        assert (joint.kind, joint.residual_m, joint.positions.tolist()) == (3, 0.5, [0.0, 0.5, 1.0, 1.5])
        np.testing.assert_array_equal([joint.axis[2], joint.axis_point[0]], [1.0, 3.5])
