"""The follower's mathematics on motions whose answers are known, and the contacts it chooses on simple shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64
from momap_ros.policies.contacts import Contact, ContactKind, Surroundings, choose_contact, pointing_down
from momap_ros.policies.follower import (
    NotFollowedError,
    approach,
    carried,
    choose_object,
    interpolated,
    make_plan,
    moving_steps,
    paced,
)
from momap_ros.policies.replanning import Follower, ways_apart_m

CONFIG = FollowerConfig()
STEPS = 21


@dataclass(frozen=True, eq=False)
class Moving:
    motion_t_from_0: Float64
    instance_id: int = 1
    valid: bool = True
    moving_probability: float = 0.9
    centroid_m: Float64 = field(default_factory=lambda: np.array([0.3, 0.0, 0.02]))
    size_m: Float64 = field(default_factory=lambda: np.full(3, 0.04))
    hypothesis_spread_m: float = 0.01
    goal_id: int = 0


def pose(rotation_vector: tuple[float, float, float], translation: tuple[float, float, float]) -> Float64:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_rotvec(rotation_vector).as_matrix(), translation
    return result


def track(rotation_vector: tuple[float, float, float], translation: tuple[float, float, float]) -> Float64:
    """From the identity to the end; rotation and translation grow in equal steps."""
    return np.stack(
        [
            pose(tuple(share * np.array(rotation_vector)), tuple(share * np.array(translation)))
            for share in np.linspace(0, 1, STEPS)
        ]
    )


def box(centre: tuple[float, float, float], size: tuple[float, float, float]) -> Float64:
    """Points on a box's surface, 4 mm apart at most."""
    axes = [np.linspace(-0.5, 0.5, int(np.ceil(length / 0.004)) + 1) for length in size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.array(grid[(np.abs(grid) == 0.5).any(axis=1)] * size + centre)


def test_a_grasp_is_carried_rigidly() -> None:
    contact = Contact(ContactKind.GRASP, pose((0.3, -0.2, 0.5), (0.3, 0.1, 0.05)))
    motion = track((0.0, 0.4, 0.8), (0.1, -0.05, 0.2))
    ways = carried(contact, motion)
    # The pose of the gripper in the object's frame never changes.
    object_from_gripper = np.linalg.inv(motion) @ ways
    np.testing.assert_allclose(object_from_gripper, np.broadcast_to(object_from_gripper[0], ways.shape), atol=1e-12)
    np.testing.assert_allclose(ways[0], contact.base_from_gripper, atol=1e-12)


def test_what_presses_keeps_its_orientation_and_its_point() -> None:
    contact = Contact(ContactKind.PRESS, pose((0.0, 1.0, 0.0), (0.3, 0.1, 0.05)))
    motion = track((0.0, 0.0, 0.1), (0.0, 0.0, -0.02))
    ways = carried(contact, motion)
    np.testing.assert_array_equal(ways[:, :3, :3], np.repeat(contact.base_from_gripper[None, :3, :3], STEPS, axis=0))
    places = motion @ [0.3, 0.1, 0.05, 1.0]
    np.testing.assert_allclose(ways[:-1, :3, 3], places[:-1, :3], atol=1e-12)
    # Where it is lowest, 12 mm further: until it gives no more.
    np.testing.assert_allclose(ways[-1, :3, 3], places[-1, :3] - [0, 0, 0.012], atol=1e-12)


def test_pace_is_the_forecasts_where_that_is_slow_and_the_limits_where_not() -> None:
    ways = np.stack([pose((0, 0, 0), (0.0, 0, 0)), pose((0, 0, 0), (0.01, 0, 0)), pose((0, 0, 0.6), (0.01, 0, 0))])
    times = paced(ways, 0.1, max_speed_m_s=0.2, max_turn_rad_s=1.5)
    np.testing.assert_allclose(times, [0.0, 0.1, 0.5])  # 1 cm at 0.2 m/s takes 0.05 s; 0.6 rad at 1.5 rad/s 0.4 s
    times = paced(ways, 0.1, max_speed_m_s=0.05, max_turn_rad_s=10.0)
    np.testing.assert_allclose(times, [0.0, 0.2, 0.3])


def test_rest_before_and_after_a_motion_is_left_out() -> None:
    motion = np.repeat(np.eye(4)[None], 10, axis=0)
    motion[:, 0, 3] = [0, 0, 0, 0.001, 0.02, 0.04, 0.06, 0.06, 0.06, 0.06]
    assert moving_steps(box((0.3, 0, 0.02), (0.04, 0.04, 0.04)), motion) == (3, 6)


def test_interpolation_is_straight_and_the_shortest_turn() -> None:
    poses = np.stack([pose((0, 0, 0.2), (0, 0, 0)), pose((0, 0, 1.0), (0.2, 0, 0.4))])
    times = np.array([1.0, 3.0])
    np.testing.assert_allclose(interpolated(times, poses, 1.5), pose((0, 0, 0.4), (0.05, 0, 0.1)), atol=1e-12)
    np.testing.assert_array_equal(interpolated(times, poses, 0.0), poses[0])
    np.testing.assert_array_equal(interpolated(times, poses, 9.0), poses[1])


def test_the_most_probable_object_is_chosen_and_the_robot_is_not() -> None:
    short, long = track((0, 0, 0), (0.05, 0, 0)), track((0, 0, 0), (0.2, 0, 0))
    robot, first, second = Moving(long, 1, moving_probability=1.0), Moving(short, 2), Moving(long, 3)
    still = Moving(np.repeat(np.eye(4)[None], STEPS, axis=0), 4, moving_probability=1.0)
    assert choose_object([robot, first, still], CONFIG, leave_out={1}).instance_id == 2
    assert choose_object([first, second], CONFIG).instance_id == 3  # equally probable: what gets farther
    assert choose_object([first, second], CONFIG, instance_id=2).instance_id == 2
    with pytest.raises(NotFollowedError, match="nothing moves") as caught:
        choose_object([robot, still], CONFIG, leave_out={1})
    assert caught.value.reason == "nothing moves"
    with pytest.raises(NotFollowedError, match=r"0\.300 m of at most 0\.25 m"):
        choose_object([Moving(long, hypothesis_spread_m=0.3)], CONFIG)


def test_a_plan_does_not_depend_on_the_camera() -> None:
    motion_in_base = track((0, 0, 0.5), (0.05, 0.05, 0.1))
    base_from_camera = pose((2.0, 0.3, -0.4), (0.6, 0.1, 0.5))
    in_camera = np.linalg.inv(base_from_camera) @ motion_in_base @ base_from_camera
    seen = Surroundings(box((0.3, 0.0, 0.02), (0.04, 0.04, 0.04)), np.zeros((0, 3)))
    one = make_plan(Moving(motion_in_base), 0.2, seen, CONFIG, base_from_camera=np.eye(4))
    other = make_plan(Moving(in_camera), 0.2, seen, CONFIG, base_from_camera=base_from_camera)
    np.testing.assert_allclose(one.base_from_gripper, other.base_from_gripper, atol=1e-9)
    assert one.contact.kind is ContactKind.GRASP
    assert not one.releases  # it ends in the air
    np.testing.assert_allclose(one.motion_at(one.duration_s), motion_in_base[-1], atol=1e-9)


def test_what_the_closing_fingers_did_is_corrected() -> None:
    seen = Surroundings(box((0.3, 0.0, 0.02), (0.04, 0.04, 0.04)), np.zeros((0, 3)))
    plan = make_plan(Moving(track((0, 0, 0), (0, 0.1, 0.1))), 0.2, seen, CONFIG, base_from_camera=np.eye(4))
    nudge = pose((0, 0, 0.1), (0.004, -0.002, 0.0))
    held = plan.contact.base_from_gripper
    corrected = plan.corrected(nudge, held)
    object_from_gripper = np.linalg.inv(nudge) @ held
    # With that grasp, the object ends where the forecast has it.
    np.testing.assert_allclose(
        corrected.base_from_gripper[-1] @ np.linalg.inv(object_from_gripper), plan.motion_t_from_0[-1], atol=1e-12
    )
    assert plan.disagreement_m(0.0, pose((0, 0, 0), (0.03, 0.04, 0))) == pytest.approx(0.05)


def test_the_approach_passes_over_what_stands_in_the_way() -> None:
    wall = box((0.3, 0.15, 0.1), (0.1, 0.02, 0.2))
    seen = Surroundings(box((0.3, 0.0, 0.02), (0.04, 0.04, 0.04)), wall)
    plan = make_plan(Moving(track((0, 0, 0), (0, 0, 0.1))), 0.2, seen, CONFIG, base_from_camera=np.eye(4))
    now = np.eye(4)
    now[:3, :3], now[:3, 3] = pointing_down(0.0), [0.3, 0.3, 0.1]
    way = approach(plan, seen, now, CONFIG)
    np.testing.assert_array_equal(way[-1], plan.base_from_gripper[0])
    assert way[:2, 2, 3].min() > 0.2 + CONFIG.fingertip_m
    straight = way[-1, :3, 3] - way[-2, :3, 3]
    np.testing.assert_allclose(straight, CONFIG.approach_m * way[-1, :3, 0], atol=1e-12)


def fingers_touch_nothing(contact: Contact, points: Float64) -> bool:
    homogeneous = np.append(points, np.ones((len(points), 1)), axis=1)
    x, y, z = (np.linalg.inv(contact.base_from_gripper) @ homogeneous.T)[:3]
    inside = (np.abs(y) > CONFIG.opening_m) & (np.abs(y) < CONFIG.opening_m + CONFIG.finger_thickness_m)
    inside &= (np.abs(z) < CONFIG.finger_width_m / 2) & (x < CONFIG.fingertip_m) & (x > -CONFIG.finger_length_m)
    return not inside.any()


def test_a_long_box_is_held_across_and_beside_its_neighbour() -> None:
    bar, neighbour = box((0.3, 0.0, 0.02), (0.14, 0.03, 0.04)), box((0.33, 0.055, 0.02), (0.03, 0.03, 0.04))
    lift = track((0, 0, 0), (0, 0, 0.1))
    contact = choose_contact(Surroundings(bar, neighbour), lift, 0.2, CONFIG)
    assert contact is not None
    assert contact.kind is ContactKind.GRASP
    assert abs(contact.base_from_gripper[1, 1]) > 0.8  # closes along the short side, give or take 30 degrees
    assert fingers_touch_nothing(contact, np.append(bar, neighbour, axis=0))
    assert abs(contact.base_from_gripper[1, 3]) < 0.01
    assert contact.base_from_gripper[2, 3] - CONFIG.fingertip_m > 0.0  # above the table


def test_where_the_fingers_closed_on_nothing_they_are_not_closed_again() -> None:
    seen, lift = (
        Surroundings(box((0.3, 0.0, 0.02), (0.14, 0.03, 0.04)), np.zeros((0, 3))),
        track((0, 0, 0), (0, 0, 0.1)),
    )
    tried: list[Float64] = []
    for _ in range(3):
        contact = choose_contact(seen, lift, 0.2, CONFIG, tried=tried)
        assert contact is not None
        pose = contact.base_from_gripper
        for other in tried:
            assert np.linalg.norm(pose[:3, 3] - other[:3, 3]) > 0.014 or pose[:3, 0] @ other[:3, 0] < 0.91
        tried.append(pose)


def test_contacts_suit_the_motion() -> None:
    nothing = np.zeros((0, 3))
    button = box((0.3, 0.0, 0.03), (0.05, 0.05, 0.02))
    press = choose_contact(Surroundings(button, nothing), track((0, 0, 0), (0, 0, -0.015)), 0.2, CONFIG)
    assert press is not None
    assert press.kind is ContactKind.PRESS
    np.testing.assert_allclose(press.base_from_gripper[:3, 3], [0.3, 0.0, 0.04 + CONFIG.fingertip_m], atol=1e-3)
    far = choose_contact(Surroundings(button, nothing), track((0, 0, 0), (0, 0, -0.04)), 0.2, CONFIG)
    assert far is not None
    assert far.kind is ContactKind.GRASP  # a lid goes down farther than a button
    plate = box((0.3, 0.0, 0.005), (0.24, 0.24, 0.01))
    plate = plate[np.linalg.norm(plate[:, :2] - [0.3, 0.0], axis=1) < 0.12]
    drag = choose_contact(Surroundings(plate, nothing), track((0, 0, 0), (0.1, 0, 0)), 0.2, CONFIG)
    assert drag is not None
    assert drag.kind is ContactKind.DRAG
    assert choose_contact(Surroundings(plate, nothing), track((0, 0, 0), (0.1, 0, 0.1)), 0.2, CONFIG) is None


@pytest.mark.parametrize(("spread_m", "end_x"), [(0.0, 0.38), (0.1, 0.5), (0.2, 0.5)])
def test_an_end_is_moved_onto_a_support_no_farther_than_its_hypotheses_are_spread(
    spread_m: float, end_x: float
) -> None:
    plate = box((0.5, 0.0, 0.005), (0.1, 0.1, 0.01))  # its rim is 7 cm beside the forecast's end
    seen = Surroundings(box((0.2, 0.0, 0.02), (0.04, 0.04, 0.04)), plate, other_ids=np.full(len(plate), 5, np.int32))
    motion = track((0, 0, 0), (0.18, 0, 0))
    motion[:, 2, 3] = 0.1 * np.sin(np.linspace(0, np.pi, STEPS))
    plan = make_plan(Moving(motion, hypothesis_spread_m=spread_m), 0.2, seen, CONFIG, base_from_camera=np.eye(4))
    assert plan.centre[0] + plan.motion_t_from_0[-1, 0, 3] == pytest.approx(end_x, abs=2e-3)


def test_a_rolling_ball_is_pushed_from_behind() -> None:
    angles = np.random.default_rng(0).normal(size=(400, 3))
    radius = 0.03
    ball = radius * angles / np.linalg.norm(angles, axis=1)[:, None] + [0.3, 0.0, radius]
    rolled = 0.2
    about_centre = track((0.0, rolled / radius, 0.0), (0, 0, 0))
    to, back = np.eye(4), np.eye(4)
    to[:3, 3], back[:3, 3] = [0.3, 0, radius], [-0.3, 0, -radius]
    motion = to @ about_centre @ back
    motion[:, 0, 3] += np.linspace(0, rolled, STEPS)
    plan = make_plan(Moving(motion), 0.02, Surroundings(ball, np.zeros((0, 3))), CONFIG, base_from_camera=np.eye(4))
    assert plan.contact.kind is ContactKind.PUSH
    np.testing.assert_allclose(
        plan.contact.base_from_gripper[:3, 3], [0.3 - radius - CONFIG.finger_thickness_m, 0, radius], atol=3e-3
    )
    along = plan.base_from_gripper[:, 0, 3]
    assert (np.diff(along) > 0).all()
    # A ball that is to roll at 0.5 m/s is pushed at 7/5 of that.
    fastest = (np.diff(along) / np.diff(plan.times_s)).max()
    assert fastest == pytest.approx(0.7, rel=0.03)


def test_a_door_is_held_where_it_moves() -> None:
    door = box((0.3, 0.0, 0.08), (0.012, 0.16, 0.16))
    hinge = np.array([0.3, -0.08, 0.0])
    turn = track((0, 0, 1.0), (0, 0, 0))
    turn[:, :3, 3] = hinge - turn[:, :3, :3] @ hinge
    contact = choose_contact(Surroundings(door, np.zeros((0, 3))), turn, 0.2, CONFIG)
    assert contact is not None
    assert contact.base_from_gripper[1, 3] > 0.04


def not_asked(_instance_id: int) -> Surroundings:
    raise AssertionError("points are asked for once")


def follower_of(motion: Float64, config: FollowerConfig = CONFIG) -> Follower:
    follower = Follower(config)
    seen = Surroundings(box((0.3, 0.0, 0.02), (0.04, 0.04, 0.04)), np.zeros((0, 3)))
    plan = follower.update(10.0, [Moving(motion)], 0.2, surroundings=lambda _: seen, base_from_camera=np.eye(4))
    assert plan is not None
    return follower


def test_a_follower_plans_again_from_where_it_is() -> None:
    motion = track((0, 0, 0), (0, 0.2, 0))
    follower = follower_of(motion, replace(CONFIG, replan_within_m=0.0))
    before = follower.target(11.0)
    assert before is not None
    # 1 s of 4 s at 0.05 m/s: the object is seen 5 cm farther, and now it is to rise.
    seen = Moving(track((0, 0, 0), (0, 0, 0.1)), centroid_m=np.array([0.3, 0.05, 0.02]))
    plan = follower.update(11.0, [seen], 0.2, surroundings=not_asked, base_from_camera=np.eye(4))
    assert plan is not None
    after, end = follower.target(11.0), follower.target(20.0)
    assert after is not None
    assert end is not None
    np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_allclose(end[:3, 3] - before[:3, 3], [0, 0, 0.1], atol=1e-9)


@pytest.mark.parametrize(
    ("centroid", "spread", "reason"),
    [((0.3, 0.15, 0.02), 0.0, "stopped on disagreement: 0.100 m"), ((0.3, 0.05, 0.02), 0.3, "hypotheses too spread")],
)
def test_a_follower_stops_and_stays_stopped(centroid: tuple[float, float, float], spread: float, reason: str) -> None:
    follower = follower_of(track((0, 0, 0), (0, 0.2, 0)))
    seen = Moving(track((0, 0, 0), (0, 0.2, 0)), centroid_m=np.array(centroid), hypothesis_spread_m=spread)
    for time_s in (11.0, 11.5):
        assert follower.update(time_s, [seen], 0.2, surroundings=not_asked, base_from_camera=np.eye(4)) is None
        assert follower.stopped.startswith(reason)
        assert follower.target(time_s) is None


def test_a_hidden_object_is_followed_as_planned() -> None:
    follower = follower_of(track((0, 0, 0), (0, 0.2, 0)))
    before = follower.plan
    assert follower.update(11.0, [], 0.2, surroundings=not_asked, base_from_camera=np.eye(4)) is before


@pytest.mark.parametrize(
    ("rest", "probability", "end_y"),
    [
        ((0, 0.15, 0), 0.9, 0.15),  # the rest of the plan
        ((0, 0.19, 0), 0.9, 0.19),  # 4 cm farther
        ((0, 0.21, 0), 0.9, 0.15),  # 6 cm farther
        ((0, 0, 0.1), 0.9, 0.15),  # elsewhere
        ((0, 0.15, 0), 0.3, 0.15),  # it probably rests
    ],
)
def test_a_newer_way_is_followed_where_it_is_near_to_the_plan_and_else_the_plan_is_kept(
    rest: tuple[float, float, float], probability: float, end_y: float
) -> None:
    follower = follower_of(track((0, 0, 0), (0, 0.2, 0)))  # 4 s
    start = follower.target(11.0)
    assert start is not None
    seen = Moving(track((0, 0, 0), rest), centroid_m=np.array([0.3, 0.05, 0.02]), moving_probability=probability)
    follower.update(11.0, [seen], 0.2, surroundings=not_asked, base_from_camera=np.eye(4))
    end = follower.target(30.0)
    assert end is not None
    np.testing.assert_allclose(end[:3, 3] - start[:3, 3], [0, end_y, 0], atol=1e-9)


def test_ways_are_as_far_from_each_other_as_their_farthest_places() -> None:
    there, points = track((0, 0, 0), (0.2, 0, 0)), np.zeros((1, 3))
    assert ways_apart_m(there, there[::5], points) == pytest.approx(0.02)  # same ends; 1 cm apart, 5 cm apart
    assert ways_apart_m(there, there[:1], points) == pytest.approx(0.2)
    # A way there and back ends where it begins, and is not the same as rest.
    assert ways_apart_m(np.append(there, there[::-1], axis=0), there[:1], points) == pytest.approx(0.2)
    # A turn by a quarter takes a point 10 cm beside the axis sqrt(2) * 10 cm away.
    turn = track((0, 0, np.pi / 2), (0, 0, 0))
    assert ways_apart_m(turn, turn[:1], np.array([[0.1, 0, 0], [0, 0, 0.3]])) == pytest.approx(0.1 * np.sqrt(2))
