"""A forecast drives a gripper: which object, where to touch it, where the gripper goes, and when to stop.

Pure computation, the same in a node, in the simulator and in your own code. Frames are those of `contacts.py`: `base`
at the foot of the arm with z up, `gripper` at the grasp centre; metres, seconds, radians.

The gripper is thought of as part of the object: where the forecast takes the object, it takes the gripper (rigid
attachment, as in General Flow, arXiv:2401.11439, and AVDC, arXiv:2310.08576).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, FloatArray, invert_se3, se3_from_parts, transform_points
from momap_ros.policies.contacts import Contact, ContactKind, Surroundings, choose_contact, farthest_m
from momap_ros.policies.in_place import in_place
from momap_ros.policies.pouring import poured
from momap_ros.policies.supports import onto_support
from momap_ros.shapes import check_shapes

Moving = TypeVar("Moving", bound="MovingObject")
_ONSET_M = 0.003  # a motion has begun, or has ended, when points are this far from where they rest
_SUPPORT_M, _FOOTPRINT_M = 0.03, 0.02
_SAME_HEIGHT_M = 0.02
_LEFT_OF_SPEED, _RUN_UP_M, _PUSH_WAYPOINTS = 5 / 7, 0.05, 21
_PRESSED_THROUGH_M = 0.012
_CORRIDOR_M, _OVER_M = 0.08, 0.025  # what stands this near to the way is passed this far above


class NotFollowedError(ValueError):
    """A forecast that is not followed.

    Attributes:
        reason: one of "nothing moves", "hypotheses too spread", "no contact found".
    """

    def __init__(self, reason: str, details: str) -> None:
        """Say why, and with which figures."""
        super().__init__(f"{reason}: {details}")
        self.reason = reason


class MovingObject(Protocol):
    """What a follower must know about an object: a `momap_ros.object_motion.ObjectMotion`, or a message read back.

    Attributes are those of ObjectMotion, in the camera's optical frame (or any other, see `make_plan`).
    """

    @property
    def instance_id(self) -> int:
        """Positive, stable while the object is tracked."""

    @property
    def valid(self) -> bool:
        """A motion could be fitted."""

    @property
    def moving_probability(self) -> float:
        """In [0, 1]."""

    @property
    def centroid_m(self) -> Float64:
        """(3,) at step 0."""

    @property
    def size_m(self) -> Float64:
        """(3,) extent along the frame's axes at step 0."""

    @property
    def motion_t_from_0(self) -> Float64:
        """(T, 4, 4) rigid motion from step 0 to each step."""

    @property
    def hypothesis_spread_m(self) -> float:
        """RMS distance of the centroid's end in all hypotheses from its end in this one."""

    @property
    def goal_id(self) -> int:
        """Instance that it is expected to go to; 0 = none."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What the gripper does once it is in place.

    Attributes:
        instance_id: the object that is followed.
        contact: where it is touched, and how.
        times_s: (W,) from the beginning of the way; rising, the first is 0.
        base_from_gripper: (W, 4, 4) the gripper's way, metres; it begins at the contact, or behind it for a push.
        motion_t_from_0: (W, 4, 4) where the object should be at these times, base frame.
        centre: (3,) middle of the object's points at the beginning, base frame, metres.
        releases: the object ends on something, so that the gripper lets go.
    """

    instance_id: int
    contact: Contact
    times_s: Float64
    base_from_gripper: Float64
    motion_t_from_0: Float64
    centre: Float64
    releases: bool

    @property
    def duration_s(self) -> float:
        """Seconds from the beginning of the way to its end."""
        return float(self.times_s[-1])

    def gripper_at(self, time_s: float) -> Float64:
        """(4, 4) base_from_gripper at a time, between two waypoints on the straight line and the shortest turn."""
        return interpolated(self.times_s, self.base_from_gripper, time_s)

    def motion_at(self, time_s: float) -> Float64:
        """(4, 4) motion of the object from the beginning to a time, base frame."""
        return interpolated(self.times_s, self.motion_t_from_0, time_s)

    def disagreement_m(self, time_s: float, observed_motion: FloatArray) -> float:
        """Metres from where the object's middle should be at a time to where it is.

        Args:
            time_s: since the beginning of the way.
            observed_motion: (4, 4) motion of the object since the forecast, as a tracker sees it, base frame.
        """
        expected, seen = (
            transform_points(motion, self.centre) for motion in (self.motion_at(time_s), np.asarray(observed_motion))
        )
        return float(np.linalg.norm(expected - seen))

    def corrected(self, observed_motion: FloatArray, base_from_gripper: FloatArray) -> Plan:
        """The same way of the object, from where it was when the fingers had closed.

        Closing fingers push an object a little. With the motion D that the contact itself has caused, and the gripper
        at G, the object reaches M(t) where the gripper is at M(t) D^-1 G.

        Args:
            observed_motion: (4, 4) motion of the object since the forecast, base frame.
            base_from_gripper: (4, 4) where the gripper holds it.
        """
        held = invert_se3(np.asarray(observed_motion)) @ np.asarray(base_from_gripper)
        return replace(self, base_from_gripper=self.motion_t_from_0 @ held)


def choose_object(
    motions: Sequence[Moving],
    config: FollowerConfig,
    *,
    instance_id: int | None = None,
    leave_out: Collection[int] = (),
) -> Moving:
    """The object that a hand would move: the one most probable to move, among equals the one that gets farthest.

    Args:
        motions: of one forecast.
        config: bounds.
        instance_id: this object, whatever the others do.
        leave_out: instances that are the robot itself.

    Raises:
        NotFollowedError: nothing moves, or the hypotheses of what moves are too spread.
    """
    known = [motion for motion in motions if motion.valid and motion.instance_id not in leave_out]
    if instance_id is not None:
        known = [motion for motion in known if motion.instance_id == instance_id]
    moving = [motion for motion in known if motion.moving_probability >= config.min_probability and _moves(motion)]
    if not moving:
        best = max((motion.moving_probability for motion in known), default=0.0)
        raise NotFollowedError("nothing moves", f"{len(known)} objects, the largest moving probability is {best:.2f}")
    chosen = max(moving, key=lambda motion: (round(motion.moving_probability, 2), _farthest_ofbox_corners(motion)))
    if chosen.hypothesis_spread_m > config.max_spread_m:
        raise NotFollowedError(
            "hypotheses too spread",
            f"object {chosen.instance_id}: {chosen.hypothesis_spread_m:.3f} m of at most {config.max_spread_m} m",
        )
    return chosen


def make_plan(
    motion: MovingObject,
    step_s: float,
    seen: Surroundings,
    config: FollowerConfig,
    *,
    base_from_camera: FloatArray,
    base_from_gripper_now: FloatArray | None = None,
    tried: Sequence[FloatArray] = (),
) -> Plan:
    """Contact and way of the gripper for one object.

    Args:
        motion: the object, in the camera's optical frame.
        step_s: seconds between two steps of its motion.
        seen: its points and those around it, base frame.
        config: limits and measures of the gripper.
        base_from_camera: (4, 4).
        base_from_gripper_now: (4, 4) where the gripper is; of the two ways to hold something, half a turn apart, the
            one nearer to it is taken.
        tried: (4, 4) base_from_gripper of grasps in which the fingers closed on nothing.

    Raises:
        NotFollowedError: the object does not move as seen from here, or there is no place to touch it.
    """
    check_shapes(base_from_camera=(base_from_camera, "4 4"))
    base_from_camera = np.asarray(base_from_camera, np.float64)
    track = base_from_camera @ motion.motion_t_from_0 @ invert_se3(base_from_camera)
    if len(seen.points):
        track = in_place(track, seen)  # what a hand moves, and gets nowhere, is moved all the same
    if not len(seen.points) or farthest_m(seen.points, track).max() < config.min_displacement_m:
        raise NotFollowedError("nothing moves", f"object {motion.instance_id}, {len(seen.points)} points")
    # What is forecast without doubt ends where it is forecast to end, beside a bowl too.
    reach_m = min(config.support_reach_m, motion.hypothesis_spread_m)
    pouring = poured(track, seen, motion.goal_id) if reach_m else None
    track = onto_support(track, seen, reach_m, motion.goal_id) if pouring is None else pouring
    contact = choose_contact(seen, track, step_s, config, tried=tried)
    if contact is None:
        raise NotFollowedError(
            "no contact found", f"object {motion.instance_id}, {len(seen.points)} points, opening {config.opening_m} m"
        )
    first, last = moving_steps(seen.points, track)
    track, releases = track[first : last + 1], _ends_on_something(seen, track[last])
    centre = (seen.points.min(axis=0) + seen.points.max(axis=0)) / 2
    if contact.kind is ContactKind.PUSH:
        times, ways, track = _push(contact, track, step_s, centre=centre, config=config)
        return Plan(motion.instance_id, contact, times, ways, track, centre, releases)
    if base_from_gripper_now is not None and contact.kind is ContactKind.GRASP:
        contact = replace(contact, base_from_gripper=_nearer_way(contact, track, np.asarray(base_from_gripper_now)))
    ways = carried(contact, track)
    times = paced(ways, step_s, max_speed_m_s=config.max_speed_m_s, max_turn_rad_s=config.max_turn_rad_s)
    return Plan(motion.instance_id, contact, times, ways, track, centre, releases)


def approach(plan: Plan, seen: Surroundings, base_from_gripper_now: FloatArray, config: FollowerConfig) -> Float64:
    """(A, 4, 4) poses on the way to the plan's first one, which is the last: up, over everything there, straight on.

    Args:
        plan: what is approached.
        seen: what stands on the way, base frame.
        base_from_gripper_now: (4, 4) where the gripper is.
        config: how far before its end the gripper has its orientation and comes straight on.
    """
    touch, now = plan.base_from_gripper[0], np.asarray(base_from_gripper_now, np.float64)
    before = touch.copy()
    before[:3, 3] -= config.approach_m * touch[:3, 0]
    scene = np.append(seen.points, seen.others, axis=0)
    one, other = now[:2, 3], before[:2, 3]
    share = np.clip((scene[:, :2] - one) @ (other - one) / max(float((other - one) @ (other - one)), 1e-9), 0.0, 1.0)
    on_the_way = np.linalg.norm(scene[:, :2] - one - share[:, None] * (other - one), axis=1) < _CORRIDOR_M
    highest = float(scene[on_the_way, 2].max()) if on_the_way.any() else seen.table_m
    height = max(before[2, 3], highest + config.fingertip_m + _OVER_M)
    up, over = now.copy(), before.copy()
    up[2, 3], over[2, 3] = max(now[2, 3], height), height
    return np.stack([up, over, before, touch])


def carried(contact: Contact, motion_t_from_0: FloatArray) -> Float64:
    """(T, 4, 4) base_from_gripper of a gripper that goes where the object goes.

    What is held is carried rigidly. Fingers that press keep their orientation and go with the point that they touch, at
    the lowest point of the way a little further: what is pressed is pressed until it gives no more.

    Args:
        contact: pose at the first step.
        motion_t_from_0: (T, 4, 4) motion of the object, base frame.
    """
    motion = np.asarray(motion_t_from_0, np.float64)
    if contact.kind is not ContactKind.PRESS:
        return np.asarray(motion @ contact.base_from_gripper)
    ways = np.repeat(contact.base_from_gripper[None], len(motion), axis=0)
    ways[:, :3, 3] = transform_points(motion, contact.base_from_gripper[:3, 3])
    ways[int(ways[:, 2, 3].argmin()), 2, 3] -= _PRESSED_THROUGH_M
    return ways


def _push(
    contact: Contact, track: Float64, step_s: float, *, centre: Float64, config: FollowerConfig
) -> tuple[Float64, Float64, Float64]:
    """(W,) times, (W, 4, 4) poses of the gripper and (W, 4, 4) motions of an object that is set rolling in passing.

    A push can only make faster, so it ends where the forecast is fastest; the object then goes on by itself. A push
    makes it slide: once a ball rolls, 5/7 of that speed is left.
    """
    path = transform_points(track, centre)[:, :2]
    fastest = int(np.linalg.norm(np.diff(path, axis=0), axis=1).argmax()) + 1
    speed_m_s = float(np.linalg.norm(path[fastest] - path[fastest - 1])) / step_s / _LEFT_OF_SPEED
    speed_m_s = min(max(speed_m_s, config.max_speed_m_s), config.max_push_speed_m_s)
    way = path[-1] - path[0]
    direction = np.array([*way, 0.0]) / max(float(np.linalg.norm(way)), 1e-9)
    ramp = np.linspace(0.0, 1.0, _PUSH_WAYPOINTS)
    # At rest at both ends and fastest in the middle, shortly before the fingers meet the object: it must get away.
    along = _RUN_UP_M * (1.5 * ramp * ramp * (3 - 2 * ramp) - 1)
    ways = np.repeat(contact.base_from_gripper[None], _PUSH_WAYPOINTS, axis=0)
    ways[:, :3, 3] += along[:, None] * direction
    times = ramp * 1.5 * 1.5 * _RUN_UP_M / speed_m_s
    motion = np.where((along < 0)[:, None, None], track[0], track[fastest])
    return times, ways, motion


def paced(poses: FloatArray, step_s: float, *, max_speed_m_s: float, max_turn_rad_s: float) -> Float64:
    """(W,) times of (W, 4, 4) poses: as forecast, or as much later as the limits ask for."""
    check_shapes(poses=(poses, "W 4 4"))
    way_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    relative = np.swapaxes(poses[:-1, :3, :3], 1, 2) @ poses[1:, :3, :3]
    turn_rad = np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1.0, 1.0))
    needed = np.maximum(way_m / max_speed_m_s, turn_rad / max_turn_rad_s)
    return np.concatenate([[0.0], np.cumsum(np.maximum(needed, step_s))])


def moving_steps(points: FloatArray, motion_t_from_0: FloatArray) -> tuple[int, int]:
    """The last step before (P, 3) points begin to move under (T, 4, 4) motions, and the first at which they rest."""
    motion = np.asarray(motion_t_from_0, np.float64)
    # The eight corners of the box around the points move at least as far as any point.
    box = box_corners(np.stack([np.min(points, axis=0), np.max(points, axis=0)]))
    places = np.einsum("tij,pj->tpi", motion[:, :3, :3], box) + motion[:, None, :3, 3]
    begun = np.linalg.norm(places - places[0], axis=2).max(axis=1) > _ONSET_M
    ended = np.linalg.norm(places - places[-1], axis=2).max(axis=1) > _ONSET_M
    first = int(begun.argmax()) - 1 if begun.any() else 0
    last = int(np.flatnonzero(ended)[-1]) + 1 if ended.any() else len(motion) - 1
    return first, max(last, first + 1)


def interpolated(times_s: Float64, poses: Float64, time_s: float) -> Float64:
    """(4, 4) pose at a time; the first or last of (W, 4, 4) beyond their (W,) times."""
    from scipy.spatial.transform import Rotation

    if time_s <= times_s[0] or time_s >= times_s[-1]:
        return np.array(poses[0] if time_s <= times_s[0] else poses[-1])
    after = int(np.searchsorted(times_s, time_s, side="right"))
    one, other = poses[after - 1], poses[after]
    share = float((time_s - times_s[after - 1]) / (times_s[after] - times_s[after - 1]))
    turn = Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).as_rotvec()
    rotation = one[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
    return se3_from_parts(rotation, one[:3, 3] + share * (other[:3, 3] - one[:3, 3]))


def _moves(motion: MovingObject) -> bool:
    return bool(np.abs(motion.motion_t_from_0 - np.eye(4)).max() > 1e-6)


def _farthest_ofbox_corners(motion: MovingObject) -> float:
    """How far any corner of the object's box gets, metres."""
    half = np.maximum(np.nan_to_num(motion.size_m), 1e-3) / 2
    corners = box_corners(np.nan_to_num(motion.centroid_m) + np.stack([-half, half]))
    return float(farthest_m(corners, motion.motion_t_from_0).max())


def box_corners(extremes: Float64) -> Float64:
    """(8, 3) corners of the box between (2, 3) extremes, any frame."""
    return np.stack(np.meshgrid(*extremes.T, indexing="ij"), axis=-1).reshape(-1, 3)


def _nearer_way(contact: Contact, track: Float64, now: Float64) -> Float64:
    """(4, 4) a gripper is the same after half a turn: the way that turns the wrist least, half-way along the track."""
    turned = contact.base_from_gripper.copy()
    turned[:3, 1:3] *= -1
    middle = track[len(track) // 2, :3, :3]
    ways = (contact.base_from_gripper, turned)
    agreement = [float(np.trace(now[:3, :3].T @ middle @ way[:3, :3])) for way in ways]
    return np.array(ways[int(np.argmax(agreement))])


def _ends_on_something(seen: Surroundings, end: Float64) -> bool:
    """Whether the object's lowest points end as high as they began, or just above something that is seen."""
    places = transform_points(end, seen.points)
    before, after = (float(np.quantile(points[:, 2], 0.02)) for points in (seen.points, places))
    if abs(after - before) < _SAME_HEIGHT_M:
        return True
    below = seen.others[np.linalg.norm(seen.others[:, :2] - places[:, :2].mean(axis=0), axis=1) < _FOOTPRINT_M]
    support = float(below[:, 2].max()) if len(below) else seen.table_m
    return after - max(support, seen.table_m) < _SUPPORT_M
