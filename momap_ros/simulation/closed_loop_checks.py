"""Has a skill succeeded, whoever moved the hand? Every skill's own check, read from a recording alone.

A script looks at its object while it moves the hand; here the same conditions, with the same thresholds, are asked of
the recorded states. On the scripts' own recordings both verdicts agree (test/simulation/test_closed_loop_checks.py).

Six skills are asked less than their scripts are, which go to a place that was drawn and that no sentence names:
`pick_place` has to get half as far, within 45 degrees of that way ("put the mug to the left"), `unstack` to leave
what it lay on and rest on the table, `put_on_shelf` and `put_in_sink` to rest anywhere on the shelf or in the sink,
`turn_knob` and `turn_faucet` ("turn the tap") to turn as far as any script does, either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import ObjectInfo
from momap_ros.simulation.hand import Rollout, rotation
from momap_ros.simulation.scene import Scene
from momap_ros.simulation.skills.controls import PRESSED
from momap_ros.simulation.skills.grasping import IN_TARGET_M, LIFTED_M, ON_TARGET_M, acted_object
from momap_ros.simulation.skills.handling import ON_GOAL_M, ON_TABLE_M, OVER_TARGET_M, POURING_RAD
from momap_ros.simulation.skills.operating import LEAST_TRAVEL, fixture_of, reached
from momap_ros.simulation.skills.pushing import MOVED_M, asked_motion
from momap_ros.simulation.skills.registry import SKILLS
from momap_ros.simulation.skills.storing import SUNK_M
from momap_ros.simulation.skills.tipping import FALLEN_COS, ROLLED_ON_M

_STRIDE = 5  # recorded states that are looked at: every 20 ms
_UPRIGHT_COS, _STANDING_COS, _STANDING_M, _ABOVE_TABLE_M = 0.98, 0.97, 0.01, -0.01
_LEAST_WAY, _OFF_RAD, _SHORT, _FAR = 0.02, 0.6, 0.8, 1.2  # metres or radians; shares of the way meant
_TURNED_RAD, _WIPED_M, _ON_TABLE_WIPING_M = 0.8, 0.2, 0.01
_STOPS_SHORT = 0.9  # of the least way of a script, whose hand gives a little
_SAID_RAD = np.pi / 4  # a sentence names one of four directions


@dataclass(frozen=True)
class Recording:
    """Where everything was, state by state; only every few recorded states are kept, and the last.

    Attributes:
        scene: the scene and its task.
        position: (S, B, 3) origin of every body, metres, world.
        rotation: (S, B, 3, 3) orientation of every body, world.
        centre: (S, B, 3) centre of mass of every body, metres, world.
        joint: (S,) the task's joint, metres or radians; empty where it has none.
        last_touch: row of the last state at which the robot touched the acted body; 0 where it never did.
    """

    scene: Scene
    position: Float64
    rotation: Float64
    centre: Float64
    joint: Float64
    last_touch: int

    def acted(self, values: Float64) -> Float64:
        """The rows of the acted body."""
        return np.asarray(values[:, self.scene.model.body(self.scene.acted).id])


def record(scene: Scene, rollout: Rollout) -> Recording:
    """Every body's pose at the recorded states."""
    states = np.unique(np.append(np.arange(0, len(rollout.qpos), _STRIDE), len(rollout.qpos) - 1))
    data, rows = mujoco.MjData(scene.model), []
    for state in states:
        data.qpos[:] = rollout.qpos[state]
        mujoco.mj_kinematics(scene.model, data)
        rows.append((data.xpos.copy(), data.xmat.reshape(-1, 3, 3).copy(), data.xipos.copy()))
    position, rotation, centre = (np.array(part) for part in zip(*rows, strict=True))
    joint = np.zeros(0)
    if scene.fixture is not None and scene.fixture.part:
        joint = rollout.qpos[states, scene.model.joint(scene.fixture.joint).qposadr[0]]
    acted = scene.model.body(scene.acted).id if scene.acted else -1
    touched = max((contact.last for contact in rollout.contacts if contact.body == acted), default=0)
    return Recording(scene, position, rotation, centre, joint, int(np.searchsorted(states, touched)))


def succeeded(scene: Scene, rollout: Rollout) -> bool:
    """Whether the scene's skill was done in a recording that starts at rest.

    Raises:
        ValueError: nobody acts in the skill, so nobody can succeed.
    """
    if scene.skill not in CHECKS:
        raise ValueError(f"skill: expected one of {sorted(CHECKS)}, got {scene.skill!r}, in which nobody acts")
    return bool(CHECKS[scene.skill](record(scene, rollout)))


def compared_end(scene: Scene, rollout: Rollout, demonstration: Rollout) -> tuple[str, str]:
    """How an attempt that went its whole way and failed ended, beside the demonstration; and the figures behind it.

    The joint is compared where the acted body has one, else the way from its centre's first place to its last.

    Args:
        scene: the scene and its task.
        rollout: the attempt.
        demonstration: of the same first state.

    Returns:
        "wrong direction", "too short", "too far", or "ended elsewhere" where it is none of these.
    """
    got, asked = record(scene, rollout), record(scene, demonstration)
    if len(got.joint):
        ways = [part.joint[[0, np.abs(part.joint - part.joint[0]).argmax()]] for part in (got, asked)]
        one, other = (np.array([way[1] - way[0]]) for way in ways)
        unit = "m" if scene.model.joint(fixture_of(scene).joint).type[0] == mujoco.mjtJoint.mjJNT_SLIDE else "rad"
    else:
        one, other = (part.acted(part.centre)[-1] - part.acted(part.centre)[0] for part in (got, asked))
        unit = "m"
    reached, meant = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    details = f"{reached:.3f} {unit} of {meant:.3f} {unit}"
    if meant < _LEAST_WAY:
        return "ended elsewhere", details
    along = float(one @ other) / meant
    if reached > _LEAST_WAY and along < np.cos(_OFF_RAD) * reached:
        return "wrong direction", f"{details}, {np.degrees(np.arccos(np.clip(along / reached, -1, 1))):.0f} degrees off"
    if along < _SHORT * meant:
        return "too short", details
    return ("too far" if along > _FAR * meant else "ended elsewhere"), details


def _lift(recording: Recording) -> bool:
    return bool(recording.acted(recording.position)[-1, 2] > LIFTED_M)


def _carried(recording: Recording, goal_xy: Float64, within_m: float) -> bool:
    """Raised on the way, and at the end within a distance of (2,) metres, world."""
    path = recording.acted(recording.position)
    return bool(np.linalg.norm(path[-1, :2] - goal_xy) < within_m and path[:, 2].max() > LIFTED_M)


def _pick_place(recording: Recording) -> bool:
    path = recording.acted(recording.position)
    way, asked = path[-1, :2] - path[0, :2], _goal_xy(recording.scene) - path[0, :2]
    along = float(way @ asked / np.linalg.norm(asked))
    on_the_way = along > 0.5 * np.linalg.norm(asked) and along > np.cos(_SAID_RAD) * np.linalg.norm(way)
    return bool(on_the_way and path[-1, 2] < ON_TABLE_M and path[:, 2].max() > LIFTED_M)


def _onto(recording: Recording) -> bool:
    _, body = _target(recording.scene)
    within_m = IN_TARGET_M if recording.scene.skill == "put_in" else ON_TARGET_M
    return _carried(recording, recording.position[0, body, :2], within_m)


def _target(scene: Scene) -> tuple[ObjectInfo, int]:
    """What something is put on, taken off or poured into, and its body."""
    assert scene.target is not None  # set wherever these tasks are made
    return scene.target, scene.model.body(scene.target.name).id


def _unstack(recording: Recording) -> bool:
    path = recording.acted(recording.position)
    target, body = _target(recording.scene)
    left = path[-1] - recording.position[-1, body]
    beside = np.linalg.norm(left[:2]) > target.half_width_m
    return bool(beside and path[-1, 2] < ON_TABLE_M and path[:, 2].max() - path[0, 2] > LIFTED_M)


def _store(recording: Recording) -> bool:
    fixture = fixture_of(recording.scene)
    rest = recording.acted(recording.position)[-1]
    on_or_in = fixture.top_m - 0.005 < rest[2] < fixture.top_m + SUNK_M
    return bool(on_or_in and _is_over(recording, recording.scene.model.body(fixture.body).id, rest))


def _is_over(recording: Recording, body: int, place: Float64) -> bool:
    """Whether a (3,) place, world, is over what a body is made of, seen from above."""
    model = recording.scene.model
    geoms = np.flatnonzero((model.geom_bodyid == body) & (model.geom_contype > 0))
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for geom in geoms:
        body_from_geom = rotation(model.geom_quat[geom])
        middle, half = model.geom_aabb[geom].reshape(2, 3)
        middle = model.geom_pos[geom] + body_from_geom @ middle
        reach = np.abs(body_from_geom) @ half
        low, high = np.minimum(low, middle - reach), np.maximum(high, middle + reach)
    local = (place - recording.position[-1, body]) @ recording.rotation[-1, body]
    return bool((local[:2] > low[:2]).all() and (local[:2] < high[:2]).all())


def _goal_xy(scene: Scene) -> Float64:
    assert scene.task.goal_xy is not None  # set wherever these tasks are made
    return scene.task.goal_xy


def _advance(recording: Recording, body: int, first: int = 0) -> float:
    """Metres that a body's centre gets in the direction asked for, from a row to the last one."""
    return float((recording.centre[-1, body] - recording.centre[first, body]) @ asked_motion(recording.scene)[0])


def _on_table(recording: Recording) -> bool:
    """Whether the acted object has not fallen down: what is pushed over the edge has gone the right way too."""
    return bool(recording.acted(recording.position)[-1, 2] > _ABOVE_TABLE_M)


def _pushed(recording: Recording) -> bool:
    return _on_table(recording) and _advance(recording, recording.scene.model.body(recording.scene.acted).id) > MOVED_M


def _slide(recording: Recording) -> bool:
    scene = recording.scene
    least_m = max(MOVED_M, 0.6 * asked_motion(scene)[1])
    return _on_table(recording) and _advance(recording, scene.model.body(scene.acted).id) > least_m


def _sweep(recording: Recording) -> bool:
    scene = recording.scene
    others = [scene.model.body(item.name).id for item in scene.objects if item.name != scene.acted]
    along = max((_advance(recording, body) for body in others), default=0.0)
    acted_m = _advance(recording, scene.model.body(scene.acted).id)
    return _on_table(recording) and acted_m > 0.5 * asked_motion(scene)[1] and along > MOVED_M


def _turn(recording: Recording) -> bool:
    path, turned = recording.acted(recording.position), recording.acted(recording.rotation)
    moved = np.linalg.norm((path[-1] - path[0])[:2])
    within_m = ON_GOAL_M + abs(acted_object(recording.scene).grip_x_m) * 2
    return bool(turned[0, :, 0] @ turned[-1, :, 0] < np.cos(_TURNED_RAD) and moved < within_m)


def _wipe(recording: Recording) -> bool:
    path = recording.acted(recording.position)
    way_m = np.linalg.norm(np.diff(path[:, :2], axis=0), axis=-1).sum()
    return bool(way_m > _WIPED_M and np.abs(path[:, 2]).max() < _ON_TABLE_WIPING_M)


def _upright(recording: Recording) -> bool:
    stands = recording.acted(recording.rotation)[-1, 2, 2] > _STANDING_COS
    return bool(stands and abs(recording.acted(recording.position)[-1, 2]) < _STANDING_M)


def _pour(recording: Recording) -> bool:
    item = acted_object(recording.scene)
    target, body = _target(recording.scene)
    up = recording.acted(recording.rotation)[:, :, 2]
    mouth = recording.acted(recording.position) + up * item.top_m
    off = (mouth - recording.position[:, body])[:, :2]
    over = np.linalg.norm(off, axis=-1) < target.half_width_m + OVER_TARGET_M
    return bool((over & (up[:, 2] < np.cos(POURING_RAD)) & (mouth[:, 2] > target.height_m)).any())


def _topple(recording: Recording) -> bool:
    up = recording.acted(recording.rotation)[:, 2, 2]
    fell = up[0] > _UPRIGHT_COS and up[-1] < FALLEN_COS
    return bool(fell and _on_table(recording))


def _roll(recording: Recording) -> bool:
    rolled_on = _advance(recording, recording.scene.model.body(recording.scene.acted).id, recording.last_touch)
    return bool(rolled_on > ROLLED_ON_M and _on_table(recording))


def _operate(recording: Recording) -> bool:
    joint = recording.joint
    return reached(fixture_of(recording.scene), recording.scene.task.amount, float(joint[0]), float(joint[-1]))


def _turn_either_way(recording: Recording) -> bool:
    joint = recording.joint
    return bool(abs(joint[-1] - joint[0]) > _STOPS_SHORT * LEAST_TRAVEL * fixture_of(recording.scene).limit)


def _press(recording: Recording) -> bool:
    joint = recording.joint
    return bool(joint.max() - joint[0] > PRESSED * (fixture_of(recording.scene).limit - joint[0]))


_BY_NAME: dict[str, Callable[[Recording], bool]] = {
    "lift": _lift,
    "pick_place": _pick_place,
    **dict.fromkeys(("put_in", "place_on", "stack"), _onto),
    "unstack": _unstack,
    **dict.fromkeys(("put_on_shelf", "put_in_sink"), _store),
    **dict.fromkeys(("push", "pull"), _pushed),
    "slide": _slide,
    "sweep": _sweep,
    "turn": _turn,
    "wipe": _wipe,
    "upright": _upright,
    "pour": _pour,
    "topple": _topple,
    "roll": _roll,
    **dict.fromkeys(("turn_knob", "turn_faucet"), _turn_either_way),
    "press_button": _press,
}
NOBODY_ACTS = tuple(name for name, skill in SKILLS.items() if skill.perform is None)
CHECKS = {name: _BY_NAME.get(name, _operate) for name in SKILLS if name not in NOBODY_ACTS}
