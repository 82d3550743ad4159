"""Objects moved without taking hold of them."""

from __future__ import annotations

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import kinds_with
from momap_ros.simulation.hand import ScriptedHand, above, quaternion_down
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.grasping import choose
from momap_ros.simulation.task import Task

_PUSHABLE = (*kinds_with("graspable"), "pot")
_PUSH_M = (0.06, 0.14)
_PUSHED_M = 0.03
_STAND_OFF_M = 0.05


def _draw_motion(rng: np.random.Generator) -> Float64:
    angle = rng.uniform(-np.pi, np.pi)
    return np.asarray(rng.uniform(*_PUSH_M) * np.array([np.cos(angle), np.sin(angle)]))


def _furnish_push(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("push", _PUSHABLE))
    return Task("push", item.name, item, motion_xy=_draw_motion(builder.rng))


def _retarget_push(scene: Scene, rng: np.random.Generator) -> Task | None:
    item = choose(scene.objects, "graspable", rng)
    return Task("push", item.name, item, motion_xy=_draw_motion(rng)) if item else None


def _push(scene: Scene, hand: ScriptedHand, _rng: np.random.Generator) -> bool:
    item, motion_xy = scene.acted_object, scene.task.motion_xy
    assert item is not None  # set wherever this module makes the task
    assert motion_xy is not None
    start, length = hand.position(item.name), float(np.linalg.norm(motion_xy))
    direction = np.array([*(motion_xy / length), 0.0])
    behind = start - direction * (max(item.half_width_m, 0.045) + _STAND_OFF_M)
    quaternion = quaternion_down(float(np.arctan2(direction[1], direction[0])))
    height = np.array([0, 0, 0.018])
    hand.move_to(above(behind, hand.lift_m), quaternion, hand.speed, 0.0)
    hand.move_to(behind + height, quaternion, hand.speed * 0.7)
    hand.move_to(start + direction * (length - item.half_width_m) + height, quaternion, hand.speed * 0.6)
    tip = hand.mocap_position - [0, 0, hand.tip_m]
    hand.move_to(tip - direction * 0.03 + [0, 0, 0.06], quaternion, hand.speed)
    hand.wait(30)
    return bool(np.linalg.norm((hand.position(item.name) - start)[:2]) > _PUSHED_M)


_PUSH_SIDE = (
    "push the {a} to the {d}",
    "push the {a} {d}",
    "slide the {a} to the {d}",
    "nudge the {a} to the {d}",
    "shove the {a} {d}",
    "push the {a} over to the {d}",
)
_PUSH = {
    "left": _PUSH_SIDE,
    "right": _PUSH_SIDE,
    "away": (
        "push the {a} away",
        "slide the {a} away",
        "push the {a} farther back",
        "nudge the {a} away from the {viewer}",
        "push the {a} to the back",
        "shove the {a} away",
    ),
    "closer": (
        "push the {a} closer",
        "slide the {a} closer",
        "push the {a} towards the {viewer}",
        "nudge the {a} closer",
        "push the {a} to the front",
        "shove the {a} closer",
    ),
}

SKILLS = (Skill("push", _PUSH, _furnish_push, _push, retarget=_retarget_push, kinds=_PUSHABLE, weight=1.5),)
