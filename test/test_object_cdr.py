from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from transforms3d.euler import euler2mat
from transforms3d.quaternions import mat2quat

from momap_ros.articulation import Articulation, JointKind
from momap_ros.bag_messages import objects_from_message
from momap_ros.bag_types import OBJECT_MOTION_ARRAY, Message, type_store
from momap_ros.geometry import Float64, se3_from_parts, transform_points
from momap_ros.momap import PointTrajectories
from momap_ros.object_cdr import object_motions_from_cdr, objects_cdr, poses_of_tracks
from momap_ros.object_motion import MotionHypothesis, ObjectMotion

STEPS = 5


def turning(angle: float, shift_m: float) -> Float64:
    """(T, 4, 4) a turn about z up to an angle, and a shift along x."""
    share = np.linspace(0.0, 1.0, STEPS)
    rotation = np.stack([euler2mat(0.0, 0.0, angle * at) for at in share])
    return se3_from_parts(rotation, share[:, None] * np.array([shift_m, 0.0, 0.0]))


def motion_of(instance_id: int, label: str, hypotheses: int) -> ObjectMotion:
    """A motion whose numbers all differ, each exact in single precision."""
    rng = np.random.default_rng(instance_id)
    own = turning(0.5 * instance_id, 0.25)
    return ObjectMotion(
        instance_id=instance_id,
        label=label,
        moving_probability=0.875,
        centroid_m=rng.normal(size=3),
        size_m=rng.random(3),
        direction_flags=np.array([1, 0, -1], np.int8),
        direction_flags_1=np.array([0, 0, 1], np.int8),
        direction_flags_4=np.array([-1, 0, 0], np.int8),
        direction_flags_16=np.array([0, 1, 0], np.int8),
        direction=np.array([0.0, 0.6, 0.8]),
        displacement_m=0.375,
        speed_m_s=0.0625,
        motion_t_from_0=own,
        residual_m=np.arange(STEPS) / 64,
        inlier_fraction=0.75,
        rigid=bool(instance_id % 2),
        valid=True,
        hypothesis_weight=0.5,
        hypothesis_spread_m=0.03125,
        end_covariance=rng.normal(size=(6, 6)),
        hypotheses=tuple(
            MotionHypothesis(0.5 / (1 + number), own if not number else turning(-1.0, number), rng.normal(size=(6, 6)))
            for number in range(hypotheses)
        ),
        articulation=Articulation()
        if hypotheses
        else Articulation(JointKind.REVOLUTE, np.eye(3)[2], np.ones(3), np.arange(STEPS) / 8, 0.25),
        goal_id=instance_id + 1,
    )


def frame(frame_id: str = "optical") -> PointTrajectories:
    nothing, no_pixels = np.zeros((1, 0, STEPS, 3), np.float32), np.zeros((0, 2), np.int32)
    ids = np.zeros(0, np.int32)
    return PointTrajectories(nothing, ids, no_pixels, 64, 48, 0.25, None, frame_id, 7_000_000_005)


def read(data: bytes) -> Message:
    """By rosbags, whose layout comes from the message definitions; written again, it has to give the same bytes."""
    message = type_store().deserialize_cdr(data, OBJECT_MOTION_ARRAY)
    assert bytes(type_store().serialize_cdr(message, OBJECT_MOTION_ARRAY)) == data
    return message


@pytest.mark.parametrize("length", range(9))  # every place at which numbers behind a text can begin
def test_every_field_arrives(length: int) -> None:
    motions = [motion_of(1, "x" * length, 3), motion_of(2, "", 0), motion_of(3, "cup", 1)]
    data = objects_cdr(motions, frame("f" * length), model_name="m" * (length // 2), latency_s=-0.25)
    message = read(data)
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (7, 5, "f" * length)
    assert (message.horizon.sec, message.time_step.nanosec, message.model_name) == (1, 250_000_000, "m" * (length // 2))
    assert (message.latency.sec, message.latency.nanosec) == (-1, 750_000_000)
    assert_same_motions(objects_from_message(message), motions)


@pytest.mark.parametrize("length", range(9))
def test_what_was_written_is_read(length: int) -> None:
    motions = [motion_of(1, "x" * length, 3), motion_of(2, "", 0), motion_of(3, "Schüssel", 1)]
    motions[1] = dataclasses.replace(motions[1], end_covariance=np.full((6, 6), np.nan), centroid_m=np.full(3, np.nan))
    data = objects_cdr(motions, frame("f" * length), model_name="m" * (length // 2), latency_s=-0.25)
    for given in (data, memoryview(data)):
        got = object_motions_from_cdr(given)
        assert (got.stamp_ns, got.frame_id, got.model_name) == (7_000_000_005, "f" * length, "m" * (length // 2))
        assert (got.horizon_s, got.step_s, got.latency_s) == pytest.approx((1.0, 0.25, -0.25), abs=1e-12)
        assert_same_motions(got.objects, motions)


def test_what_another_library_wrote_is_read() -> None:
    """Bytes of rosbags, which names every field: none changes its place with another."""
    message = read(objects_cdr([motion_of(1, "a", 2), motion_of(4, "cup", 0)], frame(), model_name="m", latency_s=1.5))
    message.objects[1].poses, message.objects[1].residual = [], np.zeros(0, np.float32)
    message.objects[1].rigid, message.objects[1].valid = True, False
    data = bytes(type_store().serialize_cdr(message, OBJECT_MOTION_ARRAY))
    assert_same_motions(object_motions_from_cdr(data).objects, objects_from_message(message))


def test_nothing_seen_is_read() -> None:
    got = object_motions_from_cdr(objects_cdr([], frame("base"), model_name="small", latency_s=0.5))
    assert (got.objects, got.frame_id, got.model_name, got.latency_s) == ([], "base", "small", 0.5)


def test_cut_off_bytes_are_refused_at_every_length() -> None:
    data = objects_cdr([motion_of(1, "cup", 2), motion_of(2, "", 0)], frame(), model_name="m", latency_s=0.0)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="object motions: expected"):
            object_motions_from_cdr(data[:length])


def test_bytes_that_are_left_over_are_refused() -> None:
    data = objects_cdr([motion_of(1, "cup", 2)], frame(), model_name="m", latency_s=0.0)
    with pytest.raises(ValueError, match=f"expected {len(data)} bytes, got {len(data) + 1}"):
        object_motions_from_cdr(data + b"\x00")


@pytest.mark.parametrize("kind", [0, 2, 3, 6, 7])  # big-endian, parameter lists, the second version of CDR
def test_another_encoding_is_refused(kind: int) -> None:
    data = objects_cdr([], frame(), model_name="m", latency_s=0.0)
    with pytest.raises(ValueError, match=f"little-endian CDR.*got 00 0{kind} 00 00"):
        object_motions_from_cdr(bytes([0, kind]) + data[2:])


def test_a_text_without_its_end_is_refused() -> None:
    data = objects_cdr([], frame("optical"), model_name="m", latency_s=0.0)
    with pytest.raises(ValueError, match="a text that ends with 00"):
        object_motions_from_cdr(data.replace(b"optical\x00", b"opticals"))


def assert_same_motions(received: Sequence[ObjectMotion], motions: Sequence[ObjectMotion]) -> None:
    for got, sent in zip(received, motions, strict=True):
        assert_same(got, sent)
        for other, expected in zip(got.hypotheses, sent.hypotheses, strict=True):
            assert_same(other, expected)
        assert_same(got.articulation, sent.articulation)


def assert_same(got: object, sent: object) -> None:
    for field in dataclasses.fields(sent):  # type: ignore[arg-type]  # all of them are dataclasses
        value = getattr(sent, field.name)
        if field.name in {"hypotheses", "articulation"}:
            continue
        if isinstance(value, str):
            assert getattr(got, field.name) == value
        else:
            np.testing.assert_allclose(getattr(got, field.name), value, rtol=1e-7, atol=1e-12, err_msg=field.name)


def test_the_end_is_where_the_motion_takes_the_centroid() -> None:
    motion = motion_of(1, "", 2)
    (item,) = read(objects_cdr([motion], frame(), model_name="", latency_s=0.0)).objects
    tracks = [motion.motion_t_from_0, *(other.motion_t_from_0 for other in motion.hypotheses)]
    for end, track in zip([item.end, *(other.end for other in item.hypotheses)], tracks, strict=True):
        place = end.pose.position
        np.testing.assert_allclose([place.x, place.y, place.z], transform_points(track[-1], motion.centroid_m))
        turn = end.pose.orientation
        np.testing.assert_allclose([turn.w, turn.x, turn.y, turn.z], mat2quat(track[-1, :3, :3]), atol=1e-12)


def test_no_object_is_a_message_too() -> None:
    message = read(objects_cdr([], frame(), model_name="small", latency_s=0.0))
    assert (message.objects, message.model_name) == ([], "small")


def test_quaternions_of_a_track_do_not_jump() -> None:
    angles = np.linspace(0.0, 6.0, 40)
    motion = se3_from_parts(np.stack([euler2mat(0.0, 0.0, angle) for angle in angles]), np.zeros((40, 3)))
    zero = np.zeros(40)
    expected = np.stack([zero, zero, zero, zero, zero, np.sin(angles / 2), np.cos(angles / 2)], axis=1)
    np.testing.assert_allclose(poses_of_tracks(motion[None]), expected[None], atol=1e-12)
