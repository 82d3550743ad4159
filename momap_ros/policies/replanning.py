"""One object followed over many forecasts: planned, compared with what is seen next, planned again, or stopped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, FloatArray, invert_se3, transform_points
from momap_ros.policies.contacts import ContactKind, Surroundings
from momap_ros.policies.follower import (
    MovingObject,
    NotFollowedError,
    Plan,
    box_corners,
    carried,
    choose_object,
    make_plan,
    moving_steps,
    paced,
)

_COMPARED_PLACES = 40  # along either of two ways


class Follower:
    """Follows one object. Knows nothing of ROS; times are seconds of any one clock.

    Attributes:
        plan: what is followed now; None before the first plan, and after a stop.
        stopped: why it stopped; "" while it has not. A stopped follower stays so until `reset`.
    """

    def __init__(self, config: FollowerConfig) -> None:
        """Nothing is followed yet."""
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget the plan and the stop."""
        self.plan: Plan | None = None
        self.stopped = ""
        self._began_s = 0.0
        self._centroid = np.zeros(3)

    def update(
        self,
        time_s: float,
        motions: Sequence[MovingObject],
        step_s: float,
        *,
        surroundings: Callable[[int], Surroundings],
        base_from_camera: FloatArray,
        leave_out: Collection[int] = (),
    ) -> Plan | None:
        """Take a forecast in.

        The first one is planned from the contact on. Of a later one, what it sees of the followed object is compared
        with where the plan has it by now; then its motion is followed from where the gripper is, if its way stays near
        to the rest of the plan (`replan_within_m`): forecasts from the middle of a motion are poor. If it does not, or
        the object is not seen, because the gripper hides it, the plan is kept.

        Args:
            time_s: when the forecast's image was taken.
            motions: its objects, camera frame; their ids are stable.
            step_s: seconds between two of its steps.
            surroundings: instance id -> points of the object and around it, base frame; asked for a first plan.
            base_from_camera: (4, 4) at the image's time.
            leave_out: instances that are the robot itself.

        Returns:
            The plan that holds now; None after a stop, and while nothing is to be followed.
        """
        if self.stopped:
            return None
        try:
            if self.plan is None:
                chosen = choose_object(motions, self.config, leave_out=leave_out)
                seen = surroundings(chosen.instance_id)
                plan = make_plan(chosen, step_s, seen, self.config, base_from_camera=base_from_camera)
                self.begin(time_s, plan, transform_points(np.asarray(base_from_camera), chosen.centroid_m))
            else:
                self._go_on(time_s, self.plan, motions, step_s, base_from_camera=np.asarray(base_from_camera))
        except NotFollowedError as error:
            if self.plan is not None:
                self._stop(str(error))
        return self.plan

    def begin(self, time_s: float, plan: Plan, centroid: FloatArray) -> None:
        """Follow a plan from now on, as one that was made elsewhere.

        Args:
            time_s: when its way begins.
            plan: what is followed.
            centroid: (3,) of the object in the forecast that the plan was made of, base frame, metres.
        """
        self.plan, self._began_s, self._centroid = plan, time_s, np.asarray(centroid, np.float64)

    def target(self, time_s: float) -> Float64 | None:
        """(4, 4) base_from_gripper at a time; None where nothing is followed."""
        return None if self.plan is None else self.plan.gripper_at(time_s - self._began_s)

    def _go_on(
        self, time_s: float, plan: Plan, motions: Sequence[MovingObject], step_s: float, *, base_from_camera: Float64
    ) -> None:
        seen = [motion for motion in motions if motion.instance_id == plan.instance_id and motion.valid]
        if not seen:
            return
        passed_s = time_s - self._began_s
        centroid = transform_points(base_from_camera, seen[0].centroid_m)
        apart_m = float(np.linalg.norm(transform_points(plan.motion_at(passed_s), self._centroid) - centroid))
        if apart_m > self.config.disagreement_m:
            self._stop(f"stopped on disagreement: {apart_m:.3f} m of at most {self.config.disagreement_m} m")
            return
        if seen[0].hypothesis_spread_m > self.config.max_spread_m:
            self._stop(f"hypotheses too spread: {seen[0].hypothesis_spread_m:.3f} m")
            return
        held = plan.contact.kind in (ContactKind.GRASP, ContactKind.DRAG)
        if passed_s >= self.config.replan_s and held:
            newer = continued(plan, seen[0], step_s, passed_s, base_from_camera, self.config)
            if self._agrees(newer, plan, passed_s, seen[0]):
                self.begin(time_s, newer, centroid)

    def _agrees(self, newer: Plan, plan: Plan, passed_s: float, motion: MovingObject) -> bool:
        """Whether a newer plan may replace the rest of the one before; one in which the object rests may not."""
        if not self.config.replan_within_m:
            return True
        if motion.moving_probability < self.config.min_probability:
            return False
        half = np.maximum(np.nan_to_num(motion.size_m), 1e-3) / 2
        corners = box_corners(newer.centre + np.stack([-half, half]))
        return ways_apart_m(_rest(plan, passed_s), _rest(newer, 0.0), corners) <= self.config.replan_within_m

    def _stop(self, reason: str) -> None:
        self.plan, self.stopped = None, reason


def continued(  # noqa: PLR0917
    plan: Plan,
    motion: MovingObject,
    step_s: float,
    passed_s: float,
    base_from_camera: FloatArray,
    config: FollowerConfig,
) -> Plan:
    """The plan of a newer forecast of an object that is already held: rigidly from where the gripper is.

    Args:
        plan: the one before.
        motion: the newer forecast of the same object, camera frame.
        step_s: seconds between two of its steps.
        passed_s: seconds of the plan before that have passed.
        base_from_camera: (4, 4).
        config: limits of the gripper.
    """
    base_from_camera = np.asarray(base_from_camera, np.float64)
    track = base_from_camera @ motion.motion_t_from_0 @ invert_se3(base_from_camera)
    centre = transform_points(plan.motion_at(passed_s), plan.centre)
    half = np.maximum(np.nan_to_num(motion.size_m), 1e-3) / 2
    first, last = moving_steps(centre + np.stack([-half, half]), track)
    track = track[first : last + 1]
    contact = replace(plan.contact, base_from_gripper=plan.gripper_at(passed_s))
    ways = carried(contact, track)
    times = paced(ways, step_s, max_speed_m_s=config.max_speed_m_s, max_turn_rad_s=config.max_turn_rad_s)
    return replace(plan, contact=contact, times_s=times, base_from_gripper=ways, motion_t_from_0=track, centre=centre)


def ways_apart_m(one: FloatArray, other: FloatArray, points: FloatArray) -> float:
    """How far two ways are from each other, whatever their pace: the Hausdorff distance of the poses they lead through.

    Args:
        one: (T, 4, 4) motions from a common beginning.
        other: (U, 4, 4), same frame.
        points: (P, 3) of what moves, at that beginning; two poses are as far apart as the point that differs most.
    """
    places = [
        transform_points(np.asarray(way, np.float64)[:, None], np.asarray(points, np.float64)) for way in (one, other)
    ]
    apart_m = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1).max(axis=-1)  # (T, U)
    return float(max(apart_m.min(axis=0).max(), apart_m.min(axis=1).max()))


def _rest(plan: Plan, passed_s: float) -> Float64:
    """(_COMPARED_PLACES, 4, 4) motion of the object from a time of a plan to its end, base frame."""
    times_s = np.linspace(passed_s, max(plan.duration_s, passed_s), _COMPARED_PLACES)
    return np.stack([plan.motion_at(time_s) for time_s in times_s]) @ invert_se3(plan.motion_at(passed_s))
