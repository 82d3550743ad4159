"""A held object that is on a joint is moved along it: ideal joints, moved by the part of a push that they give to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.articulation import JointKind, PointSpread
from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, se3_from_parts, transform_points
from momap_ros.policies.compliance import Compliance, shown_joint
from momap_ros.policies.contacts import Contact, ContactKind
from momap_ros.policies.follower import Plan

CENTRE = np.array([0.4, 0.0, 0.1])
HINGE = np.array([0.4, 0.2, 0.0])  # a vertical axis 20 cm beside the middle
GRASP = se3_from_parts(np.eye(3), np.array([0.4, -0.15, 0.1]))
LOOK_S = 0.02
CONFIG = FollowerConfig()


def plate() -> Float64:
    """A door, from 4 to 36 cm beside its hinge."""
    y, z = np.meshgrid(np.linspace(-0.16, 0.16, 9), np.linspace(-0.05, 0.05, 5))
    return np.asarray(np.stack([np.zeros(y.size), y.ravel(), z.ravel()], axis=1) + CENTRE)


def straight_plan(*end: float, duration_s: float = 1.0) -> Plan:
    times = np.linspace(0, duration_s, 21)
    motion = np.repeat(np.eye(4)[None], 21, axis=0)
    motion[:, :3, 3] = np.linspace(0, 1, 21)[:, None] * np.array(end)
    return Plan(1, Contact(ContactKind.GRASP, GRASP), times, motion @ GRASP, motion, CENTRE, releases=True)


def turned(angle: float) -> Float64:
    motion = se3_from_parts(Rotation.from_rotvec([0, 0, angle]).as_matrix(), np.zeros(3))
    motion[:3, 3] = HINGE - motion[:3, :3] @ HINGE
    return motion


def slid(way_m: float) -> Float64:
    return se3_from_parts(np.eye(3), np.array([way_m, 0.0, 0.0]))


class Door:
    """It follows the gripper, as far as its hinge lets it and from its closed place on."""

    def __init__(self, limits: tuple[float, float]) -> None:
        self.limits = limits

    def moved_by(self, gripper: Float64) -> Float64:
        lever = gripper[:2, 3] - HINGE[:2]
        start = GRASP[:2, 3] - HINGE[:2]
        angle = np.arctan2(start[0] * lever[1] - start[1] * lever[0], start @ lever)
        return turned(float(np.clip(angle, *self.limits)))


class Drawer:
    """It slides along x."""

    def __init__(self, limits: tuple[float, float]) -> None:
        self.limits = limits

    def moved_by(self, gripper: Float64) -> Float64:
        return slid(float(np.clip(gripper[0, 3] - GRASP[0, 3], *self.limits)))


def begun(plan: Plan) -> Compliance:
    return Compliance(plan, plate(), GRASP, taken=np.eye(4), config=CONFIG)


def followed(plan: Plan, thing: Door | Drawer) -> tuple[Float64, Compliance]:
    """The object's last motion, and what was learned."""
    compliance = begun(plan)
    time_s, motion = 0.0, np.eye(4)
    for _ in range(2000):
        time_s += LOOK_S
        motion = thing.moved_by(plan.gripper_at(time_s))
        given = compliance.look(plan, time_s, motion)
        if compliance.ended:
            break
        if given is None and time_s > plan.duration_s:
            given = compliance.at_end(plan)
            if given is None:
                break
        if given is not None:
            plan, time_s = given, 0.0
    return motion, compliance


def rms_m(motion: Float64) -> float:
    return float(np.sqrt(((transform_points(motion, plate()) - plate()) ** 2).sum(axis=1).mean()))


def test_what_comes_along_is_left_to_its_plan() -> None:
    plan = straight_plan(0.2, 0.0, 0.1)
    compliance = begun(plan)
    for time_s in np.arange(LOOK_S, 1.0, LOOK_S):
        assert compliance.look(plan, float(time_s), plan.motion_at(float(time_s) - 0.01)) is None  # 2 mm behind
    assert not compliance.jointed
    assert not compliance.ended


def test_a_door_is_led_about_its_hinge_farther_than_forecast() -> None:
    motion, compliance = followed(straight_plan(0.06, 0.02, 0.0), Door((-0.1, 2.5)))
    assert compliance.joint.kind is JointKind.REVOLUTE
    np.testing.assert_allclose(compliance.joint.axis, [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(compliance.joint.axis_point[:2], HINGE[:2], atol=1e-6)
    assert rms_m(motion) == pytest.approx(2.8 * np.hypot(0.06, 0.02), rel=0.03)


def test_a_drawer_is_led_along_its_rail_farther_than_forecast() -> None:
    motion, compliance = followed(straight_plan(0.06, 0.04, 0.0), Drawer((-0.01, 0.3)))
    assert compliance.joint.kind is JointKind.PRISMATIC
    np.testing.assert_allclose(compliance.joint.axis, [1, 0, 0], atol=1e-9)
    assert motion[0, 3] == pytest.approx(1.35 * np.hypot(0.06, 0.04), rel=0.03)


def test_a_stop_that_comes_too_soon_sends_it_the_other_way() -> None:
    plan = straight_plan(0.06, 0.04, 0.0)
    motion, _ = followed(plan, Drawer((-0.3, 0.03)))  # 0.42 of the way meant
    assert motion[0, 3] == pytest.approx(-1.35 * np.hypot(0.06, 0.04), rel=0.05)
    motion, _ = followed(plan, Drawer((-0.03, 0.03)))
    np.testing.assert_allclose(motion, slid(-0.03), atol=1e-9)  # once


def test_strokes_that_end_where_they_began_are_not_stuck_at_their_end() -> None:
    plan = straight_plan(0.0, 0.0, 0.0)
    strokes = plan.motion_t_from_0.copy()
    strokes[:, 0, 3] = 0.05 * np.sin(np.linspace(0, 4 * np.pi, 21))
    plan = replace(plan, motion_t_from_0=strokes, base_from_gripper=strokes @ GRASP)
    motion, compliance = followed(plan, Drawer((-0.1, 0.1)))
    assert not compliance.jointed
    np.testing.assert_allclose(motion, np.eye(4), atol=1e-6)


def test_what_is_to_turn_has_its_way_measured_in_turns() -> None:
    """A handle beside its axis gets as far as meant by half of the turn that is meant."""
    axis, grasp = np.array([0.4, 0.06, 0.1]), se3_from_parts(np.eye(3), CENTRE)
    handle = (plate() - CENTRE) * 0.25 + CENTRE
    turns = Rotation.from_rotvec(np.linspace(0, np.pi / 2, 21)[:, None] * [0.0, 0.0, 1.0]).as_matrix()
    motion = np.repeat(np.eye(4)[None], 21, axis=0)
    motion[:, :3, :3], motion[:, :3, 3] = turns, CENTRE - turns @ CENTRE
    plan = Plan(
        1, Contact(ContactKind.GRASP, grasp), np.linspace(0, 2, 21), motion @ grasp, motion, CENTRE, releases=True
    )
    compliance = Compliance(plan, handle, grasp, taken=np.eye(4), config=CONFIG)
    given, time_s, farthest = plan, 0.0, [0.0, 0.0]
    for _ in range(2000):
        time_s += LOOK_S
        wanted = Rotation.from_matrix(given.gripper_at(time_s)[:3, :3]).as_rotvec()[2]
        angle = float(np.clip(wanted, -2.0, 0.6))  # 0.38 of the turn meant
        farthest = [min(farthest[0], angle), max(farthest[1], angle)]
        moved = se3_from_parts(Rotation.from_rotvec([0, 0, angle]).as_matrix(), np.zeros(3))
        moved[:3, 3] = axis - moved[:3, :3] @ axis
        newer = compliance.look(given, time_s, moved)
        if newer is None and time_s > given.duration_s:
            newer = compliance.at_end(given)
            if newer is None:
                break
        given, time_s = (given, time_s) if newer is None else (newer, 0.0)
    assert farthest[1] == pytest.approx(0.6)
    assert farthest[0] < -0.9


def test_it_ends_at_a_stop() -> None:
    motion, compliance = followed(straight_plan(0.06, 0.04, 0.0), Drawer((-0.01, 0.05)))
    assert compliance.ended
    np.testing.assert_allclose(motion, slid(0.05), atol=1e-9)


def test_what_is_at_its_stop_already_goes_the_other_way() -> None:
    motion, _ = followed(straight_plan(0.08, 0.0, 0.0), Drawer((-0.3, 0.0)))
    assert motion[0, 3] < -0.05


def test_what_gives_neither_way_is_pushed_to_the_sides() -> None:
    for along in (1.0, -1.0):
        motion, compliance = followed(straight_plan(0.0, 0.08 * along, 0.0), Drawer((-0.3, 0.3)))
        assert compliance.joint.kind is JointKind.PRISMATIC
        assert abs(motion[0, 3]) == pytest.approx(1.35 * 0.08, rel=0.05)


def test_a_plan_that_is_over_before_anything_gave_is_not_the_end() -> None:
    motion, compliance = followed(straight_plan(0.0, 0.012, 0.0, duration_s=0.3), Drawer((-0.3, 0.3)))
    assert compliance.jointed
    assert abs(motion[0, 3]) == pytest.approx(0.04, rel=0.05)  # the least that a drawer is moved


def test_a_knob_shows_its_axis_by_its_turn_though_nothing_of_it_gets_far() -> None:
    """Of a size at which the door's distances would ask for more than a radian before anything showed."""
    knob = (plate() - CENTRE) * 0.1 + HINGE
    grasp = se3_from_parts(np.eye(3), HINGE)
    turns = Rotation.from_rotvec(np.linspace(0, 1.6, 21)[:, None] * [0.3, 0.0, 0.95]).as_matrix()  # askew
    motion = np.repeat(np.eye(4)[None], 21, axis=0)
    motion[:, :3, :3], motion[:, :3, 3] = turns, HINGE - turns @ HINGE
    plan = Plan(
        1, Contact(ContactKind.GRASP, grasp), np.linspace(0, 2, 21), motion @ grasp, motion, HINGE, releases=True
    )
    compliance = Compliance(plan, knob, grasp, taken=np.eye(4), config=CONFIG)
    for time_s in np.arange(LOOK_S, 2.0, LOOK_S):
        angle = Rotation.from_matrix(plan.motion_at(float(time_s))[:3, :3]).as_rotvec()[2]
        if compliance.look(plan, float(time_s), turned(float(angle))) is not None and compliance.jointed:
            break
    np.testing.assert_allclose(compliance.joint.axis, [0, 0, 1], atol=1e-6)
    assert compliance.joint.positions[-1] < 1.2


def test_what_gives_nothing_ends_though_its_plan_is_over_and_it_is_looked_at_again_and_again() -> None:
    plan = straight_plan(0.0, 0.012, 0.0, duration_s=0.3)
    compliance = begun(plan)
    for looks in range(1, 200):
        given = compliance.look(plan, LOOK_S * looks, np.eye(4))
        if given is not None:
            assert LOOK_S * looks < plan.duration_s
    assert compliance.at_end(plan) is not None


def test_what_is_held_fast_is_given_up() -> None:
    motion, compliance = followed(straight_plan(0.08, 0.0, 0.0), Drawer((0.0, 0.0)))
    assert compliance.ended
    assert not compliance.jointed
    np.testing.assert_allclose(motion, np.eye(4))


def test_a_joint_is_the_screw_without_its_slide() -> None:
    shown = shown_joint(turned(-0.3), PointSpread.of(plate()))
    np.testing.assert_allclose(shown.axis, [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(shown.axis_point, [*HINGE[:2], CENTRE[2]], atol=1e-9)
    np.testing.assert_allclose(shown.positions, [0, 0.3], atol=1e-12)
    slides = shown_joint(slid(-0.05), PointSpread.of(plate()))
    assert slides.kind is JointKind.PRISMATIC
    np.testing.assert_allclose(slides.axis, [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(slides.positions, [0, 0.05], atol=1e-12)


def test_a_free_object_that_is_carried_askew_keeps_its_plan() -> None:
    plan = straight_plan(0.1, 0.0, 0.0)
    compliance = begun(plan)
    for time_s in np.arange(LOOK_S, 1.0, LOOK_S):
        turn = Rotation.from_rotvec([0.5 * time_s, 0.5 * time_s**2, 0.2 * np.sqrt(time_s)]).as_matrix()
        motion = plan.motion_at(float(time_s)) @ se3_from_parts(turn, CENTRE - turn @ CENTRE)
        assert compliance.look(plan, float(time_s), motion) is None
    assert not compliance.jointed


def test_the_other_way_is_the_whole_way_back_from_where_it_is_held() -> None:
    plan = straight_plan(0.08, 0.0, 0.0, duration_s=4.0)
    compliance = begun(plan)
    given, time_s = plan, 0.0
    while given.gripper_at(given.duration_s)[0, 3] > GRASP[0, 3]:  # it does not move at all
        time_s += LOOK_S
        newer = compliance.look(given, time_s, np.eye(4))
        given, time_s = (given, time_s) if newer is None else (newer, 0.0)
    np.testing.assert_allclose(given.base_from_gripper[0], GRASP, atol=1e-12)
    np.testing.assert_allclose(given.base_from_gripper[-1], slid(-0.08) @ GRASP, atol=1e-12)
    np.testing.assert_allclose(given.times_s, plan.times_s)
