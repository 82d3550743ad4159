"""Scripted demonstrations of the nine skills, each with its own success check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import HAND, OPEN_M
from momap_ros.simulation.fixtures import HANDLE_GEOM
from momap_ros.simulation.scene import GRASP_WELD, Scene

_TURN_RATE = 2.5  # rad/s of the hand
_ROUND_KINDS = frozenset({"can", "ball", "bottle", "cup"})  # can be grasped from any side
_SETTLE_STEPS = 200


@dataclass(frozen=True)
class Rollout:
    """What happened, one state per simulation step.

    Attributes:
        qpos: (S, nq) joint positions.
        mocap_pos: (S, 3) metres, world.
        mocap_quat: (S, 4) w, x, y, z.
        step_s: simulated seconds between two states.
        success: the skill's own check.
    """

    qpos: Float64
    mocap_pos: Float64
    mocap_quat: Float64
    step_s: float
    success: bool

    @property
    def duration_s(self) -> float:
        """Simulated seconds from the first state to the last."""
        return (len(self.qpos) - 1) * self.step_s


class ScriptedHand:
    """Moves the hand along smooth straight lines and records every state."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        """The arm starts above the table; `rng` draws its start and its speed."""
        self.model = scene.model
        self.data = mujoco.MjData(scene.model)
        self.tip_m = scene.arm.tip_m
        self.speed = float(rng.uniform(0.2, 0.4))
        self.lift_m = float(rng.uniform(0.10, 0.18))
        self._hand = scene.model.body(HAND).id
        self._grasp = scene.model.equality(GRASP_WELD).id
        self._states: list[tuple[Float64, Float64, Float64]] = []
        for joint, angle in (("upper_arm_joint", -0.3), ("forearm_joint", 0.9), ("wrist_joint", 1.0)):
            self.set_joint(joint, angle)
        self.data.mocap_pos[0] = rng.uniform([0.1, -0.15, 0.16], [0.24, 0.15, 0.27])
        self.data.mocap_quat[0] = quaternion_down(rng.uniform(-0.6, 0.6))
        self.data.ctrl[:] = 0.03

    @property
    def mocap_position(self) -> Float64:
        """(3,) where the script holds the hand, metres, world."""
        return np.array(self.data.mocap_pos[0])

    def set_joint(self, name: str, value: float) -> None:
        """Set a joint position before the recording begins."""
        self.data.qpos[self.model.joint(name).qposadr[0]] = value

    def joint(self, name: str) -> float:
        """A joint's position now."""
        return float(self.data.qpos[self.model.joint(name).qposadr[0]])

    def start_recording(self) -> None:
        """Let everything come to rest, then record the first state."""
        mujoco.mj_step(self.model, self.data, _SETTLE_STEPS)
        mujoco.mj_forward(self.model, self.data)
        self._record()

    def rollout(self, *, success: bool) -> Rollout:
        """Everything recorded; a run in which the physics became unstable never succeeds."""
        unstable = self.data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number > 0
        qpos, mocap_pos, mocap_quat = (np.array(part) for part in zip(*self._states, strict=True))
        step_s = float(self.model.opt.timestep)
        return Rollout(qpos, mocap_pos, mocap_quat, step_s, bool(success) and not unstable)

    def wait(self, steps: int) -> None:
        """Advance the physics with the hand held still."""
        for _ in range(steps):
            self._step()

    def move_to(self, point: Float64, quaternion: Float64, speed: float, opening_m: float | None = None) -> None:
        """Bring the grasp centre to `point` (metres, world) at `speed` (m/s), turning the hand on the way."""
        if opening_m is not None:
            self.data.ctrl[:] = opening_m
        start, start_quaternion = self.mocap_position, np.array(self.data.mocap_quat[0])
        stop = point - rotation(quaternion)[:, 0] * self.tip_m
        dot = float(start_quaternion @ quaternion)
        stop_quaternion = quaternion if dot >= 0 else -quaternion
        seconds = max(np.linalg.norm(stop - start) / speed, np.arccos(min(1.0, abs(dot))) * 2 / _TURN_RATE)
        for share in _smooth_shares(max(8, int(seconds / self.model.opt.timestep))):
            blended = start_quaternion + (stop_quaternion - start_quaternion) * share
            self.hold(start + (stop - start) * share, blended / np.linalg.norm(blended))

    def hold(self, position: Float64, quaternion: Float64) -> None:
        """One step with the hand commanded to this pose."""
        self.data.mocap_pos[0] = position
        self.data.mocap_quat[0] = quaternion
        self._step()

    def set_opening(self, opening_m: float, steps: int = 70) -> None:
        """Move the fingers and wait."""
        self.data.ctrl[:] = opening_m
        self.wait(steps)

    def attach(self, body: str) -> None:
        """Weld a body to the hand where it is: a grasp that cannot slip."""
        target = self.model.body(body).id
        hand_from_world = self.data.xmat[self._hand].reshape(3, 3).T
        relative, hand_inverse = np.zeros(4), np.zeros(4)
        mujoco.mju_negQuat(hand_inverse, self.data.xquat[self._hand])
        mujoco.mju_mulQuat(relative, hand_inverse, self.data.xquat[target])
        weld = self.model.eq_data[self._grasp]
        weld[0:3] = 0
        weld[3:6] = hand_from_world @ (self.data.xpos[target] - self.data.xpos[self._hand])
        weld[6:10] = relative
        weld[10] = 1
        self.data.eq_active[self._grasp] = 1

    def release(self) -> None:
        """Undo attach."""
        self.data.eq_active[self._grasp] = 0

    def _step(self) -> None:
        mujoco.mj_step(self.model, self.data)
        self._record()

    def _record(self) -> None:
        data = self.data
        self._states.append((data.qpos.copy(), data.mocap_pos[0].copy(), data.mocap_quat[0].copy()))


def quaternion_down(yaw_rad: float) -> Float64:
    """Hand pointing down, fingers closing along (-sin yaw, cos yaw)."""
    sin, cos = np.sin(yaw_rad), np.cos(yaw_rad)
    return _quaternion(np.stack([[0, 0, -1], [-sin, cos, 0], [cos, sin, 0]], axis=1))


def quaternion_forward(direction_xy: Float64, pitch_rad: float) -> Float64:
    """Hand pointing along a horizontal unit direction and down by `pitch_rad`."""
    x = np.array([*(direction_xy[:2] * np.cos(pitch_rad)), -np.sin(pitch_rad)])
    y = np.array([-direction_xy[1], direction_xy[0], 0.0])
    return _quaternion(np.stack([x, y, np.cross(x, y)], axis=1))


def rotation(quaternion: Float64) -> Float64:
    """(3, 3) of (w, x, y, z)."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def perform(scene: Scene, rng: np.random.Generator) -> Rollout:
    """Play the scene's skill from rest to rest."""
    hand = ScriptedHand(scene, rng)
    if scene.fixture is not None and scene.skill.startswith("close"):
        opened = rng.uniform(0.6, 1) * scene.fixture.limit if scene.fixture.part == "drawer" else rng.uniform(0.8, 1.6)
        hand.set_joint(scene.fixture.joint, opened)
    hand.start_recording()
    return hand.rollout(success=_PERFORMERS[scene.skill](scene, hand, rng))


def _take(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> tuple[Float64, float]:
    """Grasp the acted object and raise it; returns the hand's orientation and the height of the grasp, metres."""
    item = scene.objects[0]
    body = hand.model.body(item.name).id
    place = np.array(hand.data.xpos[body])
    axis = hand.data.xmat[body].reshape(3, 3)[:, 0]
    along = (np.arctan2(axis[1], axis[0]) + np.pi / 2) % np.pi - np.pi / 2  # a gripper is the same after half a turn
    any_side = rng.uniform(-0.7, 0.7)
    quaternion = quaternion_down(any_side if item.kind in _ROUND_KINDS else along)
    grasp_height = max(0.008, item.height_m * 0.55)
    hand.move_to(_above(place, hand.lift_m), quaternion, hand.speed, OPEN_M)
    hand.move_to(_above(place, grasp_height), quaternion, hand.speed * 0.6)
    hand.set_opening(max(0.0, item.half_width_m - 0.010))
    hand.attach(item.name)
    hand.wait(10)
    hand.move_to(_above(place, hand.lift_m + 0.02), quaternion, hand.speed)
    return quaternion, grasp_height


def _lift(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    _take(scene, hand, rng)
    hand.wait(30)
    return bool(hand.data.body(scene.acted).xpos[2] > 0.06)


def _take_and_put(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    quaternion, grasp_height = _take(scene, hand, rng)
    raised = hand.data.body(scene.acted).xpos[2]
    if scene.target is None:
        assert scene.goal_xy is not None  # one of the two is set for every skill that comes here
        goal, release_height = np.array([*scene.goal_xy, 0.0]), grasp_height + 0.002
    else:
        goal = np.array(hand.data.body(scene.target.name).xpos)
        release_height = grasp_height + (scene.target.height_m + 0.003 if scene.skill == "stack" else 0.012)
    goal[:2] += rng.normal(0, 0.004, 2)
    hand.move_to(_above(goal, max(hand.lift_m, release_height + 0.06)), quaternion, hand.speed)
    hand.move_to(_above(goal, release_height), quaternion, hand.speed * 0.6)
    hand.release()
    hand.set_opening(OPEN_M, 50)
    hand.move_to(_above(goal, release_height + hand.lift_m * 0.7), quaternion, hand.speed)
    hand.wait(40)
    error_m = np.linalg.norm((hand.data.body(scene.acted).xpos - goal)[:2])
    return bool(error_m < (0.06 if scene.skill == "put_in" else 0.035) and raised > 0.05)


def _push(scene: Scene, hand: ScriptedHand, _rng: np.random.Generator) -> bool:
    assert scene.push_xy is not None  # set for every push
    item = scene.objects[0]
    start = np.array(hand.data.body(item.name).xpos)
    length = float(np.linalg.norm(scene.push_xy))
    direction = np.array([*(scene.push_xy / length), 0.0])
    behind = start - direction * (max(item.half_width_m, 0.045) + 0.05)
    quaternion = quaternion_down(float(np.arctan2(direction[1], direction[0])))
    height = np.array([0, 0, 0.018])
    hand.move_to(_above(behind, hand.lift_m), quaternion, hand.speed, 0.0)
    hand.move_to(behind + height, quaternion, hand.speed * 0.7)
    hand.move_to(start + direction * (length - item.half_width_m) + height, quaternion, hand.speed * 0.6)
    tip = hand.mocap_position - [0, 0, hand.tip_m]
    hand.move_to(tip - direction * 0.03 + [0, 0, 0.06], quaternion, hand.speed)
    hand.wait(30)
    return bool(np.linalg.norm((hand.data.body(item.name).xpos - start)[:2]) > 0.03)


def _open_or_close(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Grasp the handle and carry the hand rigidly along with the joint."""
    assert scene.fixture is not None  # set for every skill that comes here
    fixture, data = scene.fixture, hand.data
    body, handle = data.body(fixture.part), data.geom(HANDLE_GEOM)
    inwards = -body.xmat.reshape(3, 3)[:, 0]
    quaternion = quaternion_forward(inwards, rng.uniform(0.5, 0.9))
    grip = np.array(handle.xpos)
    hand.move_to(grip - inwards * 0.08 + [0, 0, 0.08], quaternion, hand.speed, OPEN_M)
    hand.move_to(grip - inwards * 0.05 + [0, 0, 0.02], quaternion, hand.speed)
    hand.move_to(grip, quaternion, hand.speed * 0.6)
    hand.set_opening(0.003)
    hand.attach(fixture.part)
    before = hand.joint(fixture.joint)
    is_drawer = fixture.part == "drawer"
    opened = fixture.limit * rng.uniform(0.65, 1) if is_drawer else rng.uniform(0.7, 1.5)
    goal = opened if scene.skill.startswith("open") else 0.0
    _carry_along(scene, hand, goal - before)
    hand.release()
    hand.set_opening(OPEN_M, 50)
    outwards = body.xmat.reshape(3, 3)[:, 0]
    hand.move_to(handle.xpos + outwards * 0.07 + [0, 0, 0.06], np.array(data.mocap_quat[0]), hand.speed)
    hand.wait(30)
    after = hand.joint(fixture.joint)
    # A door that stops short of a random angle is still open; what counts is that it clearly moved the right way.
    tolerance, moved = (0.03, 0.03) if is_drawer else (0.6, 0.35)
    return abs(after - goal) < tolerance and abs(after - before) > moved


def _carry_along(scene: Scene, hand: ScriptedHand, travel: float) -> None:
    """Move the hand as if it were part of the fixture while the joint travels (metres or radians)."""
    assert scene.fixture is not None  # called by _open_or_close only
    data = hand.data
    axis = np.array(data.joint(scene.fixture.joint).xaxis)
    pivot = np.array(data.body(scene.fixture.part).xpos)
    hand_position = np.array(data.body(HAND).xpos)
    hand_rotation = np.array(data.body(HAND).xmat).reshape(3, 3)
    is_drawer = scene.fixture.part == "drawer"
    seconds = abs(travel) / (0.25 if is_drawer else 1.4)
    for share in _smooth_shares(max(20, int(seconds / hand.model.opt.timestep))):
        if is_drawer:
            hand.hold(hand_position + axis * travel * share, np.array(data.mocap_quat[0]))
            continue
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, axis, travel * share)
        turned = rotation(turn)
        hand.hold(pivot + turned @ (hand_position - pivot), _quaternion(turned @ hand_rotation))


def _above(point: Float64, height_m: float) -> Float64:
    return np.asarray(point + np.array([0.0, 0.0, height_m]))


def _smooth_shares(count: int) -> Float64:
    """(count,) shares of the way, ending at 1, at rest at both ends."""
    ramp = np.arange(1, count + 1) / count
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


def _quaternion(matrix: Float64) -> Float64:
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, matrix.reshape(-1))
    return quaternion


_PERFORMERS: dict[str, Callable[[Scene, ScriptedHand, np.random.Generator], bool]] = {
    "lift": _lift,
    "pick_place": _take_and_put,
    "put_in": _take_and_put,
    "stack": _take_and_put,
    "push": _push,
    "open_drawer": _open_or_close,
    "close_drawer": _open_or_close,
    "open_door": _open_or_close,
    "close_door": _open_or_close,
}
