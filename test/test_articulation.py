"""Joints from tracks whose joints are known; rotations are scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.articulation import Articulation, JointKind, PointSpread, fit_articulation, joint_motions
from momap_ros.geometry import Float64, invert_se3, se3_from_parts

STEPS = 50
DOOR = np.array([0.1, 0.2, 0.8]) + np.random.default_rng(0).uniform(-1, 1, (400, 3)) * [0.08, 0.004, 0.1]
BODY = PointSpread.of(DOOR)
AXIS = np.array([0.1, 0.05, 1.0]) / np.linalg.norm([0.1, 0.05, 1.0])
HINGE_POINT = np.array([0.18, 0.2, 0.75])


def fitted(motion: Float64, points: PointSpread = BODY, *, share: float = 0.05) -> Articulation:
    return fit_articulation(motion, points, min_travel_m=0.01, tolerance_m=0.002, tolerance_share=share)


def hinge(angles: Float64, point: Float64 = HINGE_POINT, axis: Float64 = AXIS) -> Float64:
    rotations = Rotation.from_rotvec(angles[:, None] * axis).as_matrix()
    return se3_from_parts(rotations, point - rotations @ point)


def slide(lengths: Float64, axis: Float64 = AXIS) -> Float64:
    return se3_from_parts(np.tile(np.eye(3), (len(lengths), 1, 1)), lengths[:, None] * axis)


def shaken(motion: Float64, angle_rad: float, shift_m: float, seed: int = 0) -> Float64:
    """The same track with noise on every pose but the first, about the object's centre."""
    generator = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(generator.normal(0, angle_rad, (len(motion), 3))).as_matrix()
    centres = motion[:, :3, :3] @ BODY.centroid + motion[:, :3, 3] + generator.normal(0, shift_m, (len(motion), 3))
    rotations = turns @ motion[:, :3, :3]
    noisy = se3_from_parts(rotations, centres - rotations @ BODY.centroid)
    noisy[0] = np.eye(4)
    return noisy


def distance_to_axis(joint: Articulation) -> float:
    return float(np.linalg.norm(np.cross(joint.axis_point - HINGE_POINT, AXIS)))


@pytest.mark.parametrize("end_rad", [0.3, -1.5, 3.0, 6.0])
def test_a_hinge_is_recovered_exactly(end_rad: float) -> None:
    angles = np.linspace(0.0, end_rad, STEPS)

    joint = fitted(hinge(angles))

    assert joint.kind is JointKind.REVOLUTE
    # A turn by -a about an axis is one by a about the opposite axis: the reported one is always positive.
    np.testing.assert_allclose(joint.axis, np.sign(end_rad) * AXIS, atol=1e-9)
    np.testing.assert_allclose(joint.positions, np.abs(angles), atol=1e-9)
    assert joint.range == pytest.approx((0.0, abs(end_rad)), abs=1e-9)
    assert distance_to_axis(joint) < 1e-9
    assert joint.residual_m < 1e-9
    # Of all points of the axis it is the one nearest to the centroid.
    assert abs((joint.axis_point - BODY.centroid) @ joint.axis) < 1e-9


def test_a_hinge_may_turn_back_and_beyond() -> None:
    angles = np.concatenate([np.linspace(0.0, -0.4, 15), np.linspace(-0.4, 1.2, 35)])

    joint = fitted(hinge(angles))

    np.testing.assert_allclose(joint.positions, angles, atol=1e-9)
    assert joint.range == pytest.approx((-0.4, 1.2), abs=1e-9)


def test_a_knob_turns_about_its_own_middle() -> None:
    joint = fitted(hinge(np.linspace(0.0, 2.0, STEPS), point=BODY.centroid))

    assert joint.kind is JointKind.REVOLUTE
    np.testing.assert_allclose(joint.axis_point, BODY.centroid, atol=1e-9)


@pytest.mark.parametrize("end_m", [0.02, -0.15])
def test_a_slide_is_recovered_exactly(end_m: float) -> None:
    lengths = np.linspace(0.0, end_m, STEPS)

    joint = fitted(slide(lengths))

    assert joint.kind is JointKind.PRISMATIC
    np.testing.assert_allclose(joint.axis, np.sign(end_m) * AXIS, atol=1e-9)
    np.testing.assert_allclose(joint.positions, np.abs(lengths), atol=1e-9)
    np.testing.assert_array_equal(joint.axis_point, BODY.centroid)
    assert joint.residual_m < 1e-9


def test_noise_moves_the_axis_as_far_as_it_must() -> None:
    angle_rad, shift_m = 0.01, 0.001
    joint = fitted(shaken(hinge(np.linspace(0.0, 1.5, STEPS)), angle_rad, shift_m))

    assert joint.kind is JointKind.REVOLUTE
    # The direction averages the turns of about 50 steps, weighted by their angles (RMS of half-angle sines 0.4):
    # 0.005 / (0.4 sqrt(50)) = 1.8 mrad an axis; five times that is a real fault.
    assert np.arccos(min(joint.axis @ AXIS, 1.0)) < 5 * np.sqrt(2) * 0.0018
    # The place averages centres: 1 mm / (0.9 sqrt(50)) = 0.16 mm, and the lever arm times the direction's error.
    assert distance_to_axis(joint) < 5 * 0.00016 + 0.1 * 5 * 0.0018
    # What is left is the noise itself: shift on three axes, and turns by their lever (RMS distance of the points).
    lever_m = np.sqrt(np.trace(BODY.covariance))
    expected = np.sqrt(3 * shift_m**2 + 2 * angle_rad**2 * lever_m**2)
    assert joint.residual_m == pytest.approx(expected, rel=0.15)


def test_noise_does_not_make_a_hinge_of_a_slide() -> None:
    for seed in range(10):
        joint = fitted(shaken(slide(np.linspace(0.0, 0.15, STEPS)), 0.01, 0.001, seed))
        assert joint.kind is JointKind.PRISMATIC
        # The end points alone give 1 mm of 150 mm; the fit over all steps is better.
        assert np.arccos(min(joint.axis @ AXIS, 1.0)) < 0.01


def test_a_free_motion_has_no_joint() -> None:
    share = np.linspace(0.0, 1.0, STEPS)[:, None]
    rotations = Rotation.from_rotvec(share * [0.3, 0.8, 0.1]).as_matrix()
    carry = np.concatenate([share * 0.1, np.sin(np.pi * share) * 0.08, share * 0.0], axis=1)
    motion = se3_from_parts(rotations, BODY.centroid + carry - rotations @ BODY.centroid)

    joint = fitted(motion)

    assert joint.kind is JointKind.FREE
    assert joint.residual_m > 0.005
    assert np.isnan(joint.axis).all()
    assert joint.range == (0.0, 0.0)


def test_a_screw_is_neither_hinge_nor_slide() -> None:
    angles = np.linspace(0.0, 2.0, STEPS)
    motion = hinge(angles)
    motion[:, :3, 3] += angles[:, None] * 0.03 * AXIS

    assert fitted(motion).kind is JointKind.FREE


def test_small_motions_are_unknown() -> None:
    for motion in (slide(np.linspace(0.0, 0.009, STEPS)), hinge(np.linspace(0.0, 0.05, STEPS)), slide(np.zeros(STEPS))):
        joint = fitted(motion)
        assert joint.kind is JointKind.UNKNOWN
        assert np.isnan(joint.residual_m)
        assert len(joint.positions) == 0


def test_two_steps_tell_nothing() -> None:
    assert fitted(slide(np.array([0.0, 0.2]))).kind is JointKind.UNKNOWN


def test_a_short_arc_counts_as_what_it_cannot_be_told_from() -> None:
    """Of a hinge 2 m away 5 cm of the arc differ from a line by (5 cm)^2 / (8 x 2 m) = 0.16 mm."""
    far = hinge(np.linspace(0.0, 0.025, STEPS), point=BODY.centroid + np.array([2.0, 0.0, 0.0]))

    joint = fitted(far)

    assert joint.kind is JointKind.PRISMATIC
    assert joint.positions[-1] == pytest.approx(0.05, rel=0.01)


def test_joints_do_not_depend_on_the_frame() -> None:
    base_from_camera = se3_from_parts(Rotation.from_rotvec([0.3, 1.0, -0.4]).as_matrix(), np.array([0.4, -0.3, 0.2]))
    motion = shaken(hinge(np.linspace(0.0, 1.0, STEPS)), 0.005, 0.001)
    in_base = base_from_camera @ motion @ invert_se3(base_from_camera)
    rotation = base_from_camera[:3, :3]
    moved = PointSpread(rotation @ BODY.centroid + base_from_camera[:3, 3], rotation @ BODY.covariance @ rotation.T)

    here, there = fitted(motion), fitted(in_base, moved)

    np.testing.assert_allclose(there.axis, rotation @ here.axis, atol=1e-9)
    np.testing.assert_allclose(there.axis_point, rotation @ here.axis_point + base_from_camera[:3, 3], atol=1e-9)
    np.testing.assert_allclose(there.positions, here.positions, atol=1e-9)


def test_joint_motions_are_the_tracks_they_came_from() -> None:
    for motion in (hinge(np.linspace(0.0, 1.0, STEPS)), slide(np.linspace(0.0, 0.1, STEPS))):
        np.testing.assert_allclose(joint_motions(fitted(motion)), motion, atol=1e-9)
    with pytest.raises(ValueError, match="expected PRISMATIC or REVOLUTE, got UNKNOWN"):
        joint_motions(Articulation())


def test_distance_between_motions_is_that_of_the_points() -> None:
    first, second = hinge(np.array([0.0, 0.7])), slide(np.array([0.0, 0.1]))
    apart = (DOOR @ first[1, :3, :3].T + first[1, :3, 3]) - (DOOR @ second[1, :3, :3].T + second[1, :3, 3])

    assert BODY.distance_m(first, second)[1] == pytest.approx(np.sqrt(np.mean(np.sum(apart**2, axis=1))), rel=1e-12)
