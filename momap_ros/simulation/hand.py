"""Plays a scene and records it: physics alone, or with a hand that follows a script."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import HAND, OPEN_M, ROBOT_BODIES, START_OPENING_M
from momap_ros.simulation.scene import GRASP_WELD, Scene

_TURN_RATE = 2.5  # rad/s of the hand
_REACH_STEPS, _SETTLE_STEPS = 100, 150
_CONTACT_STRIDE = 10  # contacts are looked at every so many steps
_CONTACT_GAP = 6  # looks without contact that do not yet end one: fingers chatter
_START_TRIES, _CLEARANCE_M = 20, 0.15  # between the grasp centre and every handle at the beginning
# MuJoCo puts everything back to the model's first state after any of these.
_UNSTABLE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
PAUSE_SHARE = 0.12  # of the moves begin with a rest, as people who steer an arm do


@dataclass(frozen=True)
class Contact:
    """The robot touches a body from one state to another."""

    body: int
    first: int
    last: int


@dataclass(frozen=True)
class Rollout:
    """What happened, one state per simulation step.

    Attributes:
        qpos: (S, nq) joint positions.
        mocap_pos: (S, M, 3) metres, world; M = 0 in scenes without an arm.
        mocap_quat: (S, M, 4) w, x, y, z.
        step_s: seconds between two states.
        success: the skill's own check.
        contacts: when the robot touches what.
    """

    qpos: Float64
    mocap_pos: Float64
    mocap_quat: Float64
    step_s: float
    success: bool
    contacts: tuple[Contact, ...] = ()

    @property
    def duration_s(self) -> float:
        """Seconds from the first state to the last."""
        return (len(self.qpos) - 1) * self.step_s

    def from_state(self, first: int) -> Rollout:
        """The rest of it, as seen by a camera that is switched on at a state."""
        contacts = tuple(
            replace(contact, first=max(contact.first - first, 0), last=contact.last - first)
            for contact in self.contacts
            if contact.last >= first
        )
        parts = (self.qpos[first:], self.mocap_pos[first:], self.mocap_quat[first:])
        return Rollout(*parts, step_s=self.step_s, success=self.success, contacts=contacts)


class Simulation:
    """The physics of a scene, every state recorded."""

    def __init__(self, scene: Scene) -> None:
        """Nothing moves yet."""
        self.model = scene.model
        self.data = mujoco.MjData(scene.model)
        self._states: list[tuple[Float64, Float64, Float64]] = []
        robot = {scene.model.body(name).id for name in ROBOT_BODIES if _has_body(scene.model, name)}
        self._is_robot = np.isin(np.arange(scene.model.nbody), list(robot))
        self._touched: dict[int, list[int]] = {}
        self._latches = [scene.model.equality(fixture.latch).id for fixture in scene.fixtures if fixture.latch]
        for fixture in scene.fixtures:
            if fixture.part:
                self.set_joint(fixture.joint, fixture.start)

    def joint(self, name: str) -> float:
        """A joint's position now, metres or radians."""
        return float(self.data.qpos[self.model.joint(name).qposadr[0]])

    def set_joint(self, name: str, value: float) -> None:
        """Set a joint position before the recording begins."""
        self.data.qpos[self.model.joint(name).qposadr[0]] = value

    def place(self, body: str, position: Float64, quaternion: Float64 | None = None) -> None:
        """Put a free body somewhere (metres, world; w, x, y, z) before the recording begins."""
        start = self.model.jnt_qposadr[self.model.body(body).jntadr[0]]
        self.data.qpos[start : start + 3] = position
        if quaternion is not None:
            self.data.qpos[start + 3 : start + 7] = quaternion

    def position(self, body: str) -> Float64:
        """(3,) origin of a body now, metres, world."""
        return np.array(self.data.body(body).xpos)

    def rotation(self, body: str) -> Float64:
        """(3, 3) orientation of a body now, world."""
        return np.array(self.data.body(body).xmat).reshape(3, 3)

    def settle(self, steps: int = _SETTLE_STEPS) -> None:
        """Let everything come to rest before the recording begins."""
        mujoco.mj_step(self.model, self.data, steps)
        mujoco.mj_forward(self.model, self.data)

    def start_recording(self) -> None:
        """Record the first state; what was held until then may fall from now on."""
        self.data.eq_active[self._latches] = 0
        self._states.clear()
        self._touched.clear()
        self._record()

    def wait(self, steps: int) -> None:
        """Advance the physics with the hand held still."""
        for _ in range(steps):
            self.step()

    def rest(self, seconds: float) -> None:
        """Time goes by and nothing moves; only where nothing would: the state is repeated, not simulated."""
        self._states += [self._states[-1]] * int(seconds / self.model.opt.timestep)

    def step(self) -> None:
        """Advance the physics by one step."""
        mujoco.mj_step(self.model, self.data)
        self._record()
        if len(self._states) % _CONTACT_STRIDE == 0:
            self._look_at_contacts()

    def rollout(self, *, success: bool) -> Rollout:
        """Everything recorded; a run in which the physics became unstable never succeeds."""
        unstable = any(self.data.warning[kind].number > 0 for kind in _UNSTABLE)
        qpos, mocap_pos, mocap_quat = (np.array(part) for part in zip(*self._states, strict=True))
        return Rollout(
            qpos,
            mocap_pos,
            mocap_quat,
            step_s=float(self.model.opt.timestep),
            success=bool(success) and not unstable,
            contacts=self._contacts(),
        )

    def _record(self) -> None:
        data = self.data
        self._states.append((data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()))

    def _look_at_contacts(self) -> None:
        if not self.data.ncon:
            return
        bodies = self.model.geom_bodyid[self.data.contact.geom]  # (C, 2)
        touching = self._is_robot[bodies]
        one = touching[:, 0] != touching[:, 1]
        for body in np.unique(np.where(touching[one, 0], bodies[one, 1], bodies[one, 0])):
            if body:  # the world is always there
                self._touched.setdefault(int(body), []).append(len(self._states) - 1)

    def _contacts(self) -> tuple[Contact, ...]:
        contacts = []
        for body, states in sorted(self._touched.items()):
            breaks = np.flatnonzero(np.diff(states) > _CONTACT_GAP * _CONTACT_STRIDE) + 1
            contacts += [Contact(body, int(run[0]), int(run[-1])) for run in np.split(np.array(states), breaks)]
        return tuple(contacts)


class ScriptedHand(Simulation):
    """Moves the hand along smooth lines; the arm follows.

    Attributes:
        tip_m: from the hand's origin to the grasp centre, along the hand's x.
        speed: of the hand in free motion, m/s.
        lift_m: how high things are carried.
    """

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        """The arm starts above the table; `rng` draws where."""
        super().__init__(scene)
        if scene.arm is None:
            raise ValueError(f"skill {scene.skill}: expected a scene with an arm, got one without")
        self.tip_m = scene.arm.tip_m
        self._hand = scene.model.body(HAND).id
        self._grasp = scene.model.equality(GRASP_WELD).id
        for joint, angle in scene.arm.home.items():
            self.set_joint(joint, angle)
        self.data.mocap_pos[0] = self._draw_start(scene, rng)
        self.data.mocap_quat[0] = quaternion_down(rng.uniform(-0.6, 0.6))
        self.data.ctrl[:] = START_OPENING_M
        self.draw_habits(rng)

    def settle(self, steps: int = _SETTLE_STEPS) -> None:
        """Bring the hand to where it starts, through everything and before anything weighs; then as without a hand."""
        flags = self.model.opt.disableflags
        self.model.opt.disableflags = flags | mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_GRAVITY
        mujoco.mj_step(self.model, self.data, _REACH_STEPS)
        self.model.opt.disableflags = flags
        super().settle(steps)

    def _draw_start(self, scene: Scene, rng: np.random.Generator) -> Float64:
        """(3,) a place above the table, metres, world; away from every handle, if it finds one."""
        handles = []
        for share in (0.0, 0.5, 1.0):  # on their way to where they fall, too
            for fixture in scene.fixtures:
                if fixture.part:
                    self.set_joint(fixture.joint, share * fixture.start)
            mujoco.mj_kinematics(self.model, self.data)
            handles += [np.array(self.data.geom(fixture.handle).xpos) for fixture in scene.fixtures if fixture.part]
        starts = rng.uniform([0.08, -0.17, 0.14], [0.28, 0.17, 0.29], (_START_TRIES, 3))
        tips = starts - [0, 0, self.tip_m]
        free = [all(np.linalg.norm(tip - handle) > _CLEARANCE_M for handle in handles) for tip in tips]
        return np.asarray(starts[int(np.argmax(free))])

    def draw_habits(self, rng: np.random.Generator) -> None:
        """Decide how fast, how high and how straight the hand moves, and by which source it does from now on."""
        self.speed = float(rng.uniform(0.2, 0.4))
        self.lift_m = float(rng.uniform(0.10, 0.18))
        self._ease = _EASINGS[rng.integers(len(_EASINGS))]
        self._wobble = float(rng.uniform(0.0, 0.06))
        self._rng = rng

    @property
    def mocap_position(self) -> Float64:
        """(3,) where the script holds the hand, metres, world."""
        return np.array(self.data.mocap_pos[0])

    @property
    def orientation(self) -> Float64:
        """(4,) how the script holds the hand, w, x, y, z."""
        return np.array(self.data.mocap_quat[0])

    def move_to(self, point: Float64, quaternion: Float64, speed: float, opening_m: float | None = None) -> None:
        """Bring the grasp centre to `point` (metres, world) at `speed` (m/s), turning the hand on the way."""
        if opening_m is not None:
            self.data.ctrl[:] = opening_m
        if self._rng.random() < PAUSE_SHARE:
            self.rest(self._rng.uniform(0.1, 0.6))
        start, start_quaternion = self.mocap_position, self.orientation
        stop = point - rotation(quaternion)[:, 0] * self.tip_m
        dot = float(start_quaternion @ quaternion)
        stop_quaternion = quaternion if dot >= 0 else -quaternion
        length = float(np.linalg.norm(stop - start))
        seconds = max(length / speed, np.arccos(min(1.0, abs(dot))) * 2 / _TURN_RATE)
        # People do not move in straight lines; where the hand must be exact, at both ends, the detour is nothing.
        detour = self._rng.normal(0, 1, 3) * self._wobble * length
        detour[2] = abs(detour[2])
        for share in self.shares(seconds):
            blended = start_quaternion + (stop_quaternion - start_quaternion) * share
            aside = detour * (4 * share * (1 - share)) ** 2
            self.hold(start + (stop - start) * share + aside, blended / np.linalg.norm(blended))

    def shares(self, seconds: float) -> Float64:
        """Shares of the way at every step of a motion that takes so long, ending at 1, at rest at both ends."""
        return smooth_shares(max(8, int(seconds / self.model.opt.timestep)), self._ease)

    def hold(self, position: Float64, quaternion: Float64) -> None:
        """One step with the hand commanded to this pose."""
        self.data.mocap_pos[0] = position
        self.data.mocap_quat[0] = quaternion
        self.step()

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
        self.model.eq_obj2id[self._grasp] = target
        weld = self.model.eq_data[self._grasp]
        weld[0:3] = 0
        weld[3:6] = hand_from_world @ (self.data.xpos[target] - self.data.xpos[self._hand])
        weld[6:10] = relative
        weld[10] = 1
        self.data.eq_active[self._grasp] = 1

    def release(self) -> None:
        """Undo attach."""
        self.data.eq_active[self._grasp] = 0

    def open(self, steps: int = 50) -> None:
        """Let go of what is held, and open the fingers."""
        self.release()
        self.set_opening(OPEN_M, steps)


def quaternion_down(yaw_rad: float) -> Float64:
    """Hand pointing down, fingers closing along (-sin yaw, cos yaw)."""
    sin, cos = np.sin(yaw_rad), np.cos(yaw_rad)
    return quaternion_of(np.stack([[0, 0, -1], [-sin, cos, 0], [cos, sin, 0]], axis=1))


def quaternion_forward(direction_xy: Float64, pitch_rad: float) -> Float64:
    """Hand pointing along a horizontal unit direction and down by `pitch_rad`."""
    x = np.array([*(direction_xy[:2] * np.cos(pitch_rad)), -np.sin(pitch_rad)])
    y = np.array([-direction_xy[1], direction_xy[0], 0.0])
    return quaternion_of(np.stack([x, y, np.cross(x, y)], axis=1))


def rotation(quaternion: Float64) -> Float64:
    """(3, 3) of (w, x, y, z)."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def quaternion_of(matrix: Float64) -> Float64:
    """(w, x, y, z) of (3, 3)."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).reshape(-1))
    return quaternion


def rotation_about(axis: Float64, angle_rad: float) -> Float64:
    """(3, 3) turn about a unit axis."""
    quaternion = np.zeros(4)
    mujoco.mju_axisAngle2Quat(quaternion, axis, angle_rad)
    return rotation(quaternion)


def above(point: Float64, height_m: float) -> Float64:
    """The point so much higher."""
    return np.asarray(point + np.array([0.0, 0.0, height_m]))


def smooth_shares(count: int, ease: str = "smooth") -> Float64:
    """(count,) shares of the way, ending at 1, at rest at both ends.

    Args:
        count: number of steps.
        ease: "smooth" cubic, "jerk" of least jerk (Flash and Hogan 1985, doi:10.1523/JNEUROSCI.05-07-01688.1985),
            "early" and "late" with the highest speed before or after the middle.
    """
    ramp = np.arange(1, count + 1) / count
    if ease == "early":
        ramp = ramp**0.75
    elif ease == "late":
        ramp = ramp**1.3
    elif ease == "jerk":
        return np.asarray(ramp**3 * (10 - 15 * ramp + 6 * ramp**2))
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


_EASINGS = ("smooth", "jerk", "early", "late")


def _has_body(model: mujoco.MjModel, name: str) -> bool:
    return bool(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0)
