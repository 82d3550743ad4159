"""A forecast drives the simulated hand through one episode: seen by one camera, acted on, judged by the skill's check.

Nothing of the script is known here: which object, where to take it and where to go come from the image's points and
the forecast alone. The object's pose while it moves, which the follower compares with the forecast, is the simulator's,
as a tracker's would be.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, invert_se3, se3_from_parts, transform_points
from momap_ros.object_motion import ObjectMotion
from momap_ros.policies.compliance import Compliance
from momap_ros.policies.contacts import ContactKind, Surroundings
from momap_ros.policies.follower import NotFollowedError, Plan, approach, choose_object, make_plan
from momap_ros.simulation.arm import BASE_XY, OPEN_M, ROBOT_BODIES
from momap_ros.simulation.closed_loop_checks import compared_end, succeeded
from momap_ros.simulation.closed_loop_replanning import Replanner, Replanning, Replans
from momap_ros.simulation.closed_loop_view import FirstView
from momap_ros.simulation.episodes import Episode, start_episode
from momap_ros.simulation.hand import Rollout, ScriptedHand, quaternion_of, rotation
from momap_ros.simulation.skills.tipping import wait_for_rest

BASE_FROM_WORLD = se3_from_parts(np.eye(3), np.array([-BASE_XY[0], -BASE_XY[1], 0.0]))
# Why an episode failed; the first that applies.
FAILURES = (
    "nothing moves",
    "hypotheses too spread",
    "no contact found",
    "wrong object",
    "no grasp",
    "stopped on disagreement",
    "unstable physics",
    "lost object",
    "collision",
    "wrong direction",
    "too short",
    "too far",
    "ended elsewhere",
)
_TOUCH_M = 0.006  # from a finger to what it touches
_LOOK_S = 0.1  # between two comparisons with the forecast
_YIELD_S = 0.02  # and between two that ask whether it comes along
_FREE_SPEED_M_S, _TOUCH_SPEED_M_S, _TURN_RAD_S = 0.35, 0.18, 2.5
_FALLEN_M, _COLLIDED_M = -0.02, 0.03
_SETTLE_S = 0.3  # what is held lags behind; where it is at the end shows after this
_LONGEST_S = 120.0  # what is not done by then never will be
_GRASPS = 3  # where the fingers close on nothing, at other places
# A joint's stop is harder than the hold on what is on it: a hand feels that it can go no farther.
_STOP_SOLREF, _STOP_SOLIMP = (0.008, 1.0), (0.99, 0.9995, 0.0001)
_CLOSE_STEPS, _HOLD_STEPS, _AWAY_M = 100, 30, 0.07


@dataclass(frozen=True, eq=False)
class Attempt:
    """What came of one forecast.

    Attributes:
        success: the skill's own check.
        failure: one of FAILURES; "" after a success.
        details: figures behind it, in words.
        contact: how the object was touched; "" where it never was.
        plan_s: seconds that the gripper's way was to take.
        rollout: every simulated state.
        replans: what became of the forecasts made on the way.
    """

    success: bool
    failure: str
    details: str
    contact: str
    plan_s: float
    rollout: Rollout
    replans: Replans


def attempt(
    episode: Episode,
    view: FirstView,
    motions: list[ObjectMotion],
    step_s: float,
    *,
    config: FollowerConfig,
    replanning: Replanning | None = None,
) -> Attempt:
    """Follow a forecast from the episode's first state.

    Args:
        episode: from rest.
        view: what the camera sees of it.
        motions: the forecast, camera frame; ids are those of `view.instances`.
        step_s: seconds between two of its steps.
        config: limits and measures of the gripper.
        replanning: how to look and forecast again while the gripper holds the object; once and for all where None.
    """
    hand = start_episode(episode)
    assert isinstance(hand, ScriptedHand)  # somebody acts in the skill
    run = _Run(episode, hand, config, replanning)
    try:
        chosen = choose_object(motions, config, leave_out=view.robot_ids)
        plan, failure, details = run.take_and_follow(chosen, step_s, view)
    except NotFollowedError as error:
        hand.wait(_HOLD_STEPS)
        return run.result(error.reason, str(error), None)
    body = view.body_of(chosen.instance_id)
    if body != episode.scene.model.body(episode.scene.acted).id:
        name = episode.scene.model.body(body).name
        failure, details = "wrong object", f"followed {name} instead of {episode.scene.acted}"
    return run.result(failure, details, plan)


class _Run:
    """One hand in one episode."""

    def __init__(
        self, episode: Episode, hand: ScriptedHand, config: FollowerConfig, replanning: Replanning | None
    ) -> None:
        self.episode, self.hand, self.config = episode, hand, config
        self.replanning, self.replans = replanning, Replans()
        self._points = np.zeros((0, 3))  # of what is followed, base frame, at the beginning
        model = hand.model
        for fixture in (fixture for fixture in episode.scene.fixtures if fixture.part):
            joint = model.joint(fixture.joint).id
            model.jnt_solref[joint], model.jnt_solimp[joint, :3] = _STOP_SOLREF, _STOP_SOLIMP
        self.starts = hand.data.xpos.copy()
        self._fingers = [_finger_geom(model, name) for name in ("left_finger", "right_finger")]
        self._touchable = {
            body: [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == body and model.geom_contype[geom]]
            for body in range(1, model.nbody)
            if model.body(body).name not in ROBOT_BODIES
        }

    @property
    def gripper(self) -> Float64:
        """(4, 4) base_from_gripper as commanded."""
        turned = rotation(self.hand.orientation)
        pose = se3_from_parts(turned, self.hand.mocap_position + turned[:, 0] * self.hand.tip_m)
        return BASE_FROM_WORLD @ pose

    def hold(self, base_from_gripper: Float64) -> None:
        """One step with the gripper commanded to a pose."""
        pose = invert_se3(BASE_FROM_WORLD) @ base_from_gripper
        self.hand.hold(pose[:3, 3] - pose[:3, 0] * self.hand.tip_m, quaternion_of(pose[:3, :3]))

    def glide(self, base_from_gripper: Float64, speed_m_s: float) -> None:
        """Straight to a pose, at rest at both ends."""
        start, turn = self.gripper, _turn_between(self.gripper, base_from_gripper)
        way = base_from_gripper[:3, 3] - start[:3, 3]
        angle = float(np.linalg.norm(turn))
        if np.linalg.norm(way) < 1e-6 and angle < 1e-6:
            return
        for share in self.hand.shares(max(float(np.linalg.norm(way)) / speed_m_s, angle / _TURN_RAD_S)):
            self.hold(se3_from_parts(start[:3, :3] @ _rotation_of(share * turn), start[:3, 3] + share * way))

    def take_and_follow(self, chosen: ObjectMotion, step_s: float, view: FirstView) -> tuple[Plan, str, str]:
        """The plan that was followed, and the failure that was met; fingers that close on nothing try elsewhere.

        Raises:
            NotFollowedError: there is no plan.
        """
        seen, tried = view.surroundings(chosen.instance_id, BASE_FROM_WORLD), list[Float64]()
        followed: tuple[Plan, str, str] | None = None
        while followed is None or (followed[1] == "no grasp" and len(tried) < _GRASPS):
            try:
                plan = make_plan(
                    chosen,
                    step_s,
                    seen,
                    self.config,
                    base_from_camera=BASE_FROM_WORLD @ view.world_from_camera,
                    base_from_gripper_now=self.gripper,
                    tried=tried,
                )
            except NotFollowedError:
                if followed is None:
                    raise
                break  # there is no other place to take hold of it
            followed = (plan, *self.follow(plan, seen, view, chosen.centroid_m))
            tried.append(plan.contact.base_from_gripper)
        return followed

    def follow(self, plan: Plan, seen: Surroundings, view: FirstView, centroid_in_camera: Float64) -> tuple[str, str]:
        """Approach, take, follow, let go; returns the failure that was met on the way, and its figures."""
        kind, hand, body = plan.contact.kind, self.hand, view.body_of(plan.instance_id)
        self._points, world_from_body = seen.points, self._pose(body)
        hand.data.ctrl[:] = OPEN_M if kind is ContactKind.GRASP else 0.0
        poses = approach(plan, seen, self.gripper, self.config)
        for pose in poses[:-1]:
            self.glide(pose, _FREE_SPEED_M_S)
        self.glide(poses[-1], _TOUCH_SPEED_M_S)
        if kind in (ContactKind.GRASP, ContactKind.DRAG):
            held = self._take(kind)
            if held is None:
                return self._leave(plan, "no grasp", "nothing between the fingers")
            if held != body:
                return self._leave(plan, "wrong object", f"took {hand.model.body(held).name}")
            plan = plan.corrected(self._motion(body, world_from_body), self.gripper)
        replanner = None
        if self.replanning is not None and kind in (ContactKind.GRASP, ContactKind.DRAG):
            base_from_camera = BASE_FROM_WORLD @ view.world_from_camera
            replanner = Replanner(
                self.replanning,
                plan,
                body,
                config=self.config,
                centroid_in_camera=centroid_in_camera,
                base_from_camera=base_from_camera,
            )
        failure, details = self._follow_way(plan, body, world_from_body, replanner)
        if not failure and kind is not ContactKind.PUSH:
            self.hand.wait(_HOLD_STEPS)
        if replanner is not None:
            self.replans = replanner.replans
        return self._leave(plan, failure, details)

    def _follow_way(
        self, plan: Plan, body: int, world_from_body: Float64, replanner: Replanner | None
    ) -> tuple[str, str]:
        step_s = self.hand.model.opt.timestep
        look, yield_every = (max(1, round(every_s / step_s)) for every_s in (_LOOK_S, _YIELD_S))
        attached = plan.contact.kind in (ContactKind.GRASP, ContactKind.DRAG)
        first_pose = world_from_body
        # Where the gripper holds the object, at rest: on the way both lag behind what is commanded.
        taken = self._motion(body, first_pose)
        held = invert_se3(taken) @ self.gripper
        compliance = Compliance(plan, self._points, self.gripper, taken=taken, config=self.config)
        step = passed = 0  # since the plan began, and since the first one did
        while not compliance.ended and passed * step_s < _LONGEST_S:
            if step * step_s >= plan.duration_s + attached * _SETTLE_S:
                other = compliance.at_end(plan)
                if other is None:
                    break
                plan, step = other, 0
            step, passed = step + 1, passed + 1
            self.hold(plan.gripper_at(step * step_s))
            if attached and passed % yield_every == 0:
                given = compliance.look(plan, step * step_s, self._motion(body, world_from_body))
                if given is not None:
                    plan, step = given, 0
            compared = attached and step % look == 0
            apart_m = plan.disagreement_m(step * step_s, self._motion(body, world_from_body)) if compared else 0.0
            if apart_m > self.config.disagreement_m:
                return "stopped on disagreement", f"{apart_m:.3f} m after {passed * step_s:.1f} s"
            # A joint that has shown itself tells more than another forecast.
            if replanner is None or compliance.jointed or passed % max(1, round(replanner.every_s / step_s)):
                continue
            moved = self._motion(body, first_pose)
            newer = replanner.look(self.hand.data, passed * step_s, moved)
            if replanner.stopped:
                return _stop_of(replanner, passed * step_s)
            if newer is not None:
                plan, step, world_from_body = newer.corrected(np.eye(4), moved @ held), 0, self._pose(body)
                points = transform_points(moved, self._points)
                compliance = Compliance(plan, points, moved @ held, taken=np.eye(4), config=self.config)
        return "", ""

    def _take(self, kind: ContactKind) -> int | None:
        """Close, and weld what both fingers touch (what any touches, where they only press) to the hand."""
        if kind is ContactKind.GRASP:
            self.hand.set_opening(0.0, _CLOSE_STEPS)
        distances = {body: self._finger_distances(geoms) for body, geoms in self._touchable.items()}
        by_both = {body: (max if kind is ContactKind.GRASP else min)(pair) for body, pair in distances.items()}
        nearest = min(by_both, key=lambda body: by_both[body])
        if by_both[nearest] > _TOUCH_M:
            return None
        self.hand.data.ctrl[:] = [self.hand.joint(f"{name}_finger_joint") for name in ("left", "right")]
        self.hand.attach(self.hand.model.body(nearest).name)
        self.hand.wait(10)
        return nearest

    def _finger_distances(self, geoms: list[int]) -> list[float]:
        model, data, far = self.hand.model, self.hand.data, 0.02
        return [
            min((mujoco.mj_geomDistance(model, data, finger, geom, far, None) for geom in geoms), default=far)
            for finger in self._fingers
        ]

    def _leave(self, plan: Plan, failure: str, details: str) -> tuple[str, str]:
        """Let go where the object rests on something, and wait until all is still."""
        kind = plan.contact.kind
        holds = kind is ContactKind.GRASP and not plan.releases and failure != "no grasp"
        if holds or failure not in ("", "no grasp", "wrong object"):
            self.hand.wait(_HOLD_STEPS)
            return failure, details
        if kind is ContactKind.GRASP:
            self.hand.open()
        self.hand.release()
        away = self.gripper
        away[:3, 3] += [0.0, 0.0, _AWAY_M] if kind is ContactKind.PUSH else -_AWAY_M * away[:3, 0]
        self.glide(away, _FREE_SPEED_M_S)
        wait_for_rest(self.hand, self.episode.scene.acted)
        return failure, details

    def result(self, failure: str, details: str, plan: Plan | None) -> Attempt:
        """The verdict, and the class of a failure that nobody met on the way."""
        scene, model = self.episode.scene, self.hand.model
        rollout = self.hand.rollout(success=True)
        stable = rollout.success
        success = stable and succeeded(scene, rollout)
        if not success and not stable:
            failure, details = "unstable physics", "MuJoCo warns of a bad position, velocity or acceleration"
        elif not success and not failure:
            acted = model.body(scene.acted).id
            moved = {
                item.name: float(np.linalg.norm(self.hand.position(item.name) - self.starts[model.body(item.name).id]))
                for item in scene.objects
                if item.name != scene.acted
            }
            farthest = max(moved, key=lambda name: moved[name], default="")
            if self.hand.data.xpos[acted, 2] < _FALLEN_M:
                failure, details = "lost object", "it fell from the table"
            elif farthest and moved[farthest] > _COLLIDED_M:
                failure, details = "collision", f"{farthest} was moved by {moved[farthest]:.3f} m"
            else:
                failure, details = compared_end(scene, rollout, self.episode.rollout)
        contact = plan.contact.kind.value if plan else ""
        return Attempt(
            success,
            "" if success else failure,
            "" if success else details,
            contact,
            plan.duration_s if plan else 0.0,
            rollout,
            self.replans,
        )

    def _pose(self, body: int) -> Float64:
        return se3_from_parts(self.hand.data.xmat[body].reshape(3, 3), self.hand.data.xpos[body])

    def _motion(self, body: int, world_from_body: Float64) -> Float64:
        """(4, 4) motion of a body since the beginning, base frame."""
        moved = self._pose(body) @ invert_se3(world_from_body)
        return BASE_FROM_WORLD @ moved @ invert_se3(BASE_FROM_WORLD)


def _stop_of(replanner: Replanner, time_s: float) -> tuple[str, str]:
    """Class of failure and figures of a replanner that has stopped."""
    failure, _, details = replanner.stopped.partition(": ")
    return failure, f"{details} after {time_s:.1f} s"


def _finger_geom(model: mujoco.MjModel, name: str) -> int:
    """The geom of a finger that touches things; others are for the eye."""
    geoms = np.flatnonzero((model.geom_bodyid == model.body(name).id) & (model.geom_contype != 0))
    return int(geoms[0])


def _turn_between(one: Float64, other: Float64) -> Float64:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).as_rotvec(), np.float64)


def _rotation_of(vector: Float64) -> Float64:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(vector).as_matrix(), np.float64)
