"""What is held and does not come along is on a joint: it is moved the way that it gives, as far as was forecast.

What gives nothing along the forecast is tried the other way, then to the sides.

A forecast tells about how far and roughly which way; a door itself tells exactly which way, to the hand that pulls it
(Jain and Kemp, Pulling Open Doors and Drawers, doi:10.1109/ROBOT.2010.5509445). Frames as in `follower.py`: base, z up;
metres, seconds, radians.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from momap_ros.articulation import Articulation, JointKind, PointSpread, joint_motions
from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, FloatArray, invert_se3, transform_points
from momap_ros.policies.follower import Plan, paced

# RMS distances over the object's points; of a knob, whose points turn and get nowhere, they count for more.
_USUAL_M = 0.035  # RMS distance of an object's points from their middle, if it is not small
_GIVES_M, _GIVES_SHARE = 0.006, 0.25  # so far off its plan, and by this share of the way, something holds it
_OFF_LOOKS = 10  # in a row: a jolt passes
_PROBED_RAD, _PROBED_M, _PROBE_M_S, _PROBE_STEPS = 0.8, 0.03, 0.05, 10  # tried so far, and so fast
_GIVEN_M = 0.003  # what is stuck goes on along a way of at least this length that it has given
_NEWER_M = 0.0035  # least way that shows a joint, and that shows it anew
_SAME_JOINT_M = 0.0005  # from what a joint allows
_BARRED_SHARE = 0.4  # what gets this share of its way comes along, if askew: a free object, or a joint that will show
_STOPPED_M = 0.01  # so far behind on its joint, it is at its stop
_PUSHED_M, _STUCK_M, _STUCK_LOOKS = 0.018, 0.002, 10  # so far ahead of it, and so little way in so many looks: stuck
_BARELY = 0.6  # share of the way meant: what is stuck so early goes the other way
_TURNS_RAD = 1.0  # what is to turn so far has a way that is measured in turns, whatever axis it proves to have
_LEAST_TURN_RAD = 0.015  # a smaller turn is none
_MOST_TURN_RAD, _TURN_STEPS, _WAYPOINTS = 2.6, 200, 40
_SPEED_SHARE = 0.6  # of the gripper's limit
# How much farther than forecast a joint goes: of noisy futures the mean is short, the more so where they do not turn.
# Chosen on the train split, where both also let a drawer or a door run against its stop (docs/closed_loop.md).
_LONGER = {JointKind.PRISMATIC: 1.35, JointKind.REVOLUTE: 2.8}
_LEAST_WAY = {JointKind.PRISMATIC: 0.04, JointKind.REVOLUTE: 0.6}  # metres or radians: nobody moves a door by less


class Compliance:
    """One object that is held; asked again and again while it is moved.

    Attributes:
        joint: what it is on, its last position where the object was when it showed that; UNKNOWN while it comes along.
        ended: it gives no more, or has come as far as was meant.
    """

    def __init__(
        self,
        plan: Plan,
        points: FloatArray,
        base_from_gripper: FloatArray,
        *,
        taken: FloatArray,
        config: FollowerConfig,
    ) -> None:
        """Begin when the fingers have closed.

        Args:
            plan: what is followed at first.
            points: (P, 3) of the object as it was forecast, metres.
            base_from_gripper: (4, 4) where it is held.
            taken: (4, 4) its motion since then, caused by the closing fingers.
            config: limits of the gripper.
        """
        self.joint, self.ended = Articulation(), False
        self._taken, self._held = np.asarray(taken, np.float64), np.asarray(base_from_gripper, np.float64)
        self._config, self._spread = config, PointSpread.of(transform_points(self._taken, np.asarray(points)))
        self._size = float(np.clip(np.sqrt(np.trace(self._spread.covariance)) / _USUAL_M, 0.2, 1.0))
        self._first, self._meant_m = plan, self._way_m(plan.motion_t_from_0)
        self._seen: deque[Float64] = deque(maxlen=_STUCK_LOOKS + 1)
        self._turned_back, self._reversed = False, False  # the forecast's way, and a joint's
        self._tried_given, self._off_looks = False, 0
        self._probes: list[Float64] | None = None
        self._shown: Articulation | None = None
        self._shown_m = 0.0
        self._farthest, self._farthest_m = np.eye(4), 0.0

    @property
    def jointed(self) -> bool:
        """Whether it has shown a joint."""
        return self.joint.kind is not JointKind.UNKNOWN

    def look(self, plan: Plan, time_s: float, motion: FloatArray) -> Plan | None:
        """Compare the object with its plan, and turn to the joint's way where it is off.

        Args:
            plan: what is followed.
            time_s: since it began.
            motion: (4, 4) of the object since the forecast.

        Returns:
            What is followed from now on, its time beginning now; None where the plan is kept.
        """
        moved = np.asarray(motion, np.float64) @ invert_se3(self._taken)
        expected = plan.motion_at(time_s) @ invert_se3(self._taken)
        self._seen.append(moved)
        off_m, way_m = float(self._distance_m(moved, expected)), self._way_m(moved)
        if way_m > self._farthest_m:
            self._farthest, self._farthest_m = moved, way_m
        expected_m = self._way_m(expected)
        if off_m < (_GIVES_M if self.jointed else max(_GIVES_M, _GIVES_SHARE * expected_m)):
            self._off_looks = self._off_looks if self._is_held else 0
            return None
        self._off_looks += 1
        if not self._is_held:
            return None
        if self.jointed:
            return self._checked(plan, moved, way_m, off_m)
        barred = way_m < _BARRED_SHARE * expected_m
        if barred and off_m > _PUSHED_M and self._is_stuck():
            return self._stuck(plan, moved)
        if way_m > self._shown_m + _NEWER_M:
            shown, before = shown_joint(moved, self._spread), self._shown
            self._shown, self._shown_m = shown, way_m
            if before is not None and self._is_on(before, moved):
                self.joint = shown
                return self._along(plan, 1.0)
        over = time_s >= plan.duration_s  # nothing of it is left to be turned: `at_end` says what comes next
        return self._yielding(plan, time_s, moved) if barred and self._probes is None and not over else None

    def at_end(self, plan: Plan) -> Plan | None:
        """What is followed once the plan is over; None where the object has come along, or nothing else is left."""
        if self.ended or self.jointed or not self._seen:
            return None
        if self._probes is not None:
            return self._stuck(plan, np.eye(4))
        end_m = self._way_m(self._first.motion_t_from_0[-1] @ invert_se3(self._taken))  # of strokes, none
        return self._stuck(plan, self._seen[-1]) if self._falls_short(self._seen[-1], end_m) else None

    def _checked(self, plan: Plan, moved: Float64, way_m: float, off_m: float) -> Plan | None:
        """What lags behind on its joint is at a stop; what has left it is on another one."""
        if way_m < _NEWER_M or self._is_on(self.joint, moved):
            return self._stuck(plan, moved) if off_m > _STOPPED_M else None
        if way_m < self._shown_m + _NEWER_M:
            return self._stuck(plan, moved) if off_m > _PUSHED_M and self._is_stuck() else None
        self.joint, self._shown_m = shown_joint(moved, self._spread), way_m
        return self._along(plan, 1.0)

    @property
    def _is_held(self) -> bool:
        return self._off_looks >= _OFF_LOOKS

    def _is_on(self, joint: Articulation, moved: Float64) -> bool:
        """Whether a motion is one that a joint shown earlier allows."""
        shown = shown_joint(moved, self._spread)
        position = shown.positions[-1:] * float(shown.axis @ joint.axis)
        allowed = joint_motions(replace(joint, positions=position))[0]
        return shown.kind is joint.kind and float(self._distance_m(moved, allowed)) < _SAME_JOINT_M

    def _distance_m(self, motion: Float64, other: Float64) -> Float64:
        """RMS distance between two motions of the object, as if it were no smaller than usual."""
        return self._spread.distance_m(motion, other) / self._size

    def _way_m(self, motion: Float64) -> float:
        return float(self._distance_m(motion, np.eye(4)).max())

    def _is_stuck(self) -> bool:
        if len(self._seen) <= _STUCK_LOOKS:
            return False
        return float(self._distance_m(self._seen[-1], self._seen[0])) < _STUCK_M

    def _falls_short(self, moved: Float64, meant_m: float) -> bool:
        """Whether a (4, 4) motion has made little of the turn that is meant, or else of a way of so many metres."""
        turn = _angle(self._first.motion_t_from_0[-1] @ invert_se3(self._taken))
        if turn > _TURNS_RAD:
            return _angle(moved) < _BARELY * turn
        return self._way_m(moved) < _BARELY * meant_m

    def _stuck(self, plan: Plan, moved: Float64) -> Plan | None:
        """Along what it has given at all; the other way, once, where it has hardly moved; else the end."""
        self._off_looks = 0
        self._seen.clear()
        if not self.jointed and self._farthest_m > _GIVEN_M and not self._tried_given:
            self._tried_given = True
            self.joint = shown_joint(self._farthest, self._spread)
            self._shown_m = self._farthest_m
            return self._along(plan, 1.0)
        if self._reversed or not self._falls_short(moved, self._meant_m):
            self.ended = True
            return None
        if self._turned_back and not self.jointed:
            return self._probing(plan)
        self._turned_back, self._shown, self._shown_m = True, None, self._way_m(moved)
        if self.jointed:
            self._reversed = True
            return self._along(plan, -1.0)
        back = invert_se3(self._first.motion_t_from_0)
        return replace(self._first, base_from_gripper=back @ self._held, motion_t_from_0=back @ self._taken)

    def _probing(self, plan: Plan) -> Plan | None:
        """What gives neither along the forecast nor against it is turned a little, and pushed to the sides."""
        if self._probes is None:
            self._probes = _probes(self._spread.centroid, self._first.motion_t_from_0[-1])
        if not self._probes:
            self.ended = True
            return None
        self._shown, self._shown_m, self._farthest_m, self._tried_given = None, 0.0, 0.0, False
        return self._led(plan, self._probes.pop(0), _PROBE_M_S, self._config.max_turn_rad_s / 2)

    def _yielding(self, plan: Plan, time_s: float, moved: Float64) -> Plan:
        """The rest of the plan, turned as the object is: a stiff wrist would keep a hinge from turning."""
        later = plan.times_s > time_s
        ways = np.append(plan.gripper_at(time_s)[None], plan.base_from_gripper[later], axis=0)
        ways[:, :3, :3] = moved[:3, :3] @ self._held[:3, :3]
        track = ways @ invert_se3(self._held) @ self._taken
        times = np.append(0.0, plan.times_s[later] - time_s)
        return replace(plan, times_s=times, base_from_gripper=ways, motion_t_from_0=track)

    def _along(self, plan: Plan, sign: float) -> Plan:
        """From the joint's last position to as far as is meant."""
        now, meant_m = float(self.joint.positions[-1]), self._meant_m * _LONGER[self.joint.kind]
        goal = meant_m * self._size
        if self.joint.kind is JointKind.REVOLUTE:
            turns = np.linspace(0.0, _MOST_TURN_RAD, _TURN_STEPS)
            reached_m = self._distance_m(joint_motions(replace(self.joint, positions=turns)), np.eye(4))
            goal = float(turns[min(int(np.searchsorted(reached_m, meant_m)), _TURN_STEPS - 1)])
        goal = max(goal, _LEAST_WAY[self.joint.kind])
        self.ended = sign > 0 and now >= goal
        track = joint_motions(replace(self.joint, positions=np.linspace(now, sign * goal, _WAYPOINTS)))
        return self._led(plan, track, _SPEED_SHARE * self._config.max_speed_m_s, self._config.max_turn_rad_s)

    def _led(self, plan: Plan, track: Float64, speed_m_s: float, turn_rad_s: float) -> Plan:
        """Along (W, 4, 4) motions of the object from where it was taken, no faster than that."""
        ways = track @ self._held
        times = paced(ways, 1e-4, max_speed_m_s=speed_m_s, max_turn_rad_s=turn_rad_s)
        return replace(plan, times_s=times, base_from_gripper=ways, motion_t_from_0=track @ self._taken)


def _angle(motion: Float64) -> float:
    """Radians that a (4, 4) motion turns."""
    return float(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1.0, 1.0)))


def _probes(centre: Float64, end: Float64) -> list[Float64]:
    """(P,) ways (W, 4, 4) that try what may give: turns about the vertical, and pushes across a (4, 4) motion."""
    up = np.array([0.0, 0.0, 1.0])
    way = transform_points(end, centre) - centre
    across = np.cross(up, way) if np.linalg.norm(way[:2]) > 1e-6 else np.array([1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    angles = np.linspace(0.0, _PROBED_RAD, _PROBE_STEPS)
    turns = [joint_motions(Articulation(JointKind.REVOLUTE, sign * up, centre, angles)) for sign in (1.0, -1.0)]
    steps = np.linspace(0.0, _PROBED_M, _PROBE_STEPS)
    pushes = [joint_motions(Articulation(JointKind.PRISMATIC, axis, centre, steps)) for axis in (across, -across, up)]
    return turns + pushes


def shown_joint(motion: FloatArray, points: PointSpread) -> Articulation:
    """The joint that one rigid motion shows: the axis that it turns about, or the line that its points go along.

    Args:
        motion: (4, 4), not the identity; what it moves along its axis while it turns is left out.
        points: of the object before it.

    Returns:
        Revolute or prismatic, with the positions 0 and that after the motion, which is positive.
    """
    from scipy.spatial.transform import Rotation

    motion = np.asarray(motion, np.float64)
    shift = transform_points(motion, points.centroid) - points.centroid
    turn = np.asarray(Rotation.from_matrix(motion[:3, :3]).as_rotvec(), np.float64)
    angle = float(np.linalg.norm(turn))
    if angle < _LEAST_TURN_RAD:
        length = float(np.linalg.norm(shift))
        return Articulation(JointKind.PRISMATIC, shift / length, points.centroid, np.array([0.0, length]), 0.0)
    axis = turn / angle
    across = shift - (shift @ axis) * axis
    # The centroid goes along a chord: the axis is over its middle.
    place = points.centroid + across / 2 + np.cross(axis, across) / (2 * np.tan(angle / 2))
    return Articulation(JointKind.REVOLUTE, axis, place, np.array([0.0, angle]), 0.0)
