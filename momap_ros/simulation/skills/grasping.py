"""Objects taken between the fingers, from above: lifted, carried, put somewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import OPEN_M
from momap_ros.simulation.assets import ObjectInfo, has_trait, kinds_with
from momap_ros.simulation.hand import ScriptedHand, above, quaternion_down
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.task import Task

LIFTED_M = 0.05
ON_TARGET_M, IN_TARGET_M = 0.035, 0.06  # largest distance from the goal that is a success


@dataclass(frozen=True)
class Grip:
    """How an object is held.

    Attributes:
        quaternion: (4,) the hand's orientation, w, x, y, z.
        offset: (3,) from the object's origin to the grasp centre, metres, world axes.
    """

    quaternion: Float64
    offset: Float64


def choose(items: Iterable[ObjectInfo], trait: str, rng: np.random.Generator) -> ObjectInfo | None:
    """One of the objects whose kind has a trait; None where there is none."""
    fitting = [item for item in items if has_trait(item.kind, trait)]
    return fitting[rng.integers(len(fitting))] if fitting else None


def acted_object(scene: Scene) -> ObjectInfo:
    """The acted object of a skill that always has one."""
    assert scene.acted_object is not None
    return scene.acted_object


def grasp(hand: ScriptedHand, item: ObjectInfo, rng: np.random.Generator) -> Grip:
    """Take hold of an object from above."""
    place, axis = hand.position(item.name), hand.rotation(item.name)[:, 0]
    along = (np.arctan2(axis[1], axis[0]) + np.pi / 2) % np.pi - np.pi / 2  # a gripper is the same after half a turn
    quaternion = quaternion_down(rng.uniform(-0.7, 0.7) if has_trait(item.kind, "any_side") else along)
    grip = Grip(quaternion, axis * item.grip_x_m + [0, 0, item.grip_z_m])
    hand.move_to(above(place + grip.offset, hand.lift_m), quaternion, hand.speed, OPEN_M)
    hand.move_to(place + grip.offset, quaternion, hand.speed * 0.6)
    hand.set_opening(max(0.0, item.grip_half_m - 0.010))
    hand.attach(item.name)
    hand.wait(10)
    return grip


def take(hand: ScriptedHand, item: ObjectInfo, rng: np.random.Generator) -> Grip:
    """Grasp an object and raise it."""
    place = hand.position(item.name)
    grip = grasp(hand, item, rng)
    hand.move_to(above(place + grip.offset, hand.lift_m), grip.quaternion, hand.speed)
    return grip


def put_down(hand: ScriptedHand, goal: Float64, grip: Grip) -> None:
    """Carry what is held above a goal of its origin, lower it, let go, and leave upwards."""
    release = goal + grip.offset
    hand.move_to(above(release, max(hand.lift_m - goal[2], 0.06)), grip.quaternion, hand.speed)
    hand.move_to(release, grip.quaternion, hand.speed * 0.6)
    hand.open()
    hand.move_to(above(release, hand.lift_m * 0.7), grip.quaternion, hand.speed)
    hand.wait(40)


def _furnish_lift(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("lift", kinds_with("graspable")))
    return Task("lift", item.name, item)


def _retarget_lift(scene: Scene, rng: np.random.Generator) -> Task | None:
    item = choose(scene.free_objects, "graspable", rng)
    return Task("lift", item.name, item) if item else None


def _lift(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    take(hand, acted_object(scene), rng)
    hand.wait(30)
    return bool(hand.position(scene.acted)[2] > LIFTED_M)


def _furnish_pick_place(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("pick_place", kinds_with("graspable")))
    return Task("pick_place", item.name, item, goal_xy=builder.free_place(0.04))


def _retarget_pick_place(scene: Scene, rng: np.random.Generator) -> Task | None:
    item = choose(scene.free_objects, "graspable", rng)
    goal_xy = scene.free_xy(rng, 0.05)
    return Task("pick_place", item.name, item, goal_xy=goal_xy) if item and goal_xy is not None else None


def _pick_place(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    assert scene.task.goal_xy is not None  # set wherever this module makes the task
    item, goal = acted_object(scene), np.array([*scene.task.goal_xy, 0.0])
    grip = take(hand, item, rng)
    raised = hand.position(item.name)[2]
    put_down(hand, goal + np.array([*rng.normal(0, 0.004, 2), 0.002]), grip)
    return bool(np.linalg.norm((hand.position(item.name) - goal)[:2]) < ON_TARGET_M and raised > LIFTED_M)


def _furnish_onto(builder: SceneBuilder, *, skill: str, acted: str, target: str) -> Task:
    item = builder.add(builder.choose_acted(skill, kinds_with(acted)))
    below = builder.add(builder.choose_other(kinds_with(target)))
    return Task(skill, item.name, item, target=below)


def _retarget_onto(scene: Scene, rng: np.random.Generator, *, skill: str, acted: str, target: str) -> Task | None:
    item = choose(scene.free_objects, acted, rng)
    below = choose((other for other in scene.free_objects if other is not item), target, rng)
    return Task(skill, item.name, item, target=below) if item and below else None


def _put_onto(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Put in a container, on a support, or on another object."""
    item, target = acted_object(scene), scene.target
    assert target is not None  # set wherever this module makes the task
    grip = take(hand, item, rng)
    raised = hand.position(item.name)[2]
    goal = hand.position(target.name)
    clearance_m = target.height_m + 0.003 if has_trait(target.kind, "stackable") else 0.012
    put_down(hand, goal + np.array([*rng.normal(0, 0.004, 2), clearance_m]), grip)
    error_m = np.linalg.norm((hand.position(item.name) - goal)[:2])
    return bool(error_m < (IN_TARGET_M if scene.skill == "put_in" else ON_TARGET_M) and raised > LIFTED_M)


def _onto_skill(name: str, acted: str, target: str, templates: tuple[str, ...]) -> Skill:
    return Skill(
        name,
        templates,
        partial(_furnish_onto, skill=name, acted=acted, target=target),
        _put_onto,
        retarget=partial(_retarget_onto, skill=name, acted=acted, target=target),
        kinds=kinds_with(acted),
    )


_MOVE_SIDE = (
    "move the {a} to the {d}",
    "put the {a} to the {d}",
    "place the {a} on the {d}",
    "pick up the {a} and put it to the {d}",
    "carry the {a} to the {d}",
    "take the {a} and move it {d}",
)
_MOVE = {
    "left": _MOVE_SIDE,
    "right": _MOVE_SIDE,
    "away": (
        "move the {a} away",
        "move the {a} to the back",
        "put the {a} farther away",
        "pick up the {a} and put it farther back",
        "carry the {a} away from the {viewer}",
        "take the {a} farther away",
    ),
    "closer": (
        "move the {a} closer",
        "move the {a} to the front",
        "bring the {a} closer",
        "pick up the {a} and put it nearer",
        "carry the {a} towards the {viewer}",
        "bring the {a} nearer to the {viewer}",
    ),
}

SKILLS = (
    Skill(
        "lift",
        (
            "lift the {a}",
            "pick up the {a}",
            "lift up the {a}",
            "raise the {a}",
            "grab the {a}",
            "pick the {a} up",
        ),
        _furnish_lift,
        _lift,
        retarget=_retarget_lift,
        kinds=kinds_with("graspable"),
    ),
    Skill(
        "pick_place",
        _MOVE,
        _furnish_pick_place,
        _pick_place,
        retarget=_retarget_pick_place,
        kinds=kinds_with("graspable"),
        weight=1.5,
    ),
    _onto_skill(
        "put_in",
        "compact",
        "container",
        (
            "put the {a} in the {b}",
            "place the {a} in the {b}",
            "drop the {a} into the {b}",
            "put the {a} into the {b}",
            "take the {a} and put it in the {b}",
            "pick up the {a} and place it in the {b}",
        ),
    ),
    _onto_skill(
        "place_on",
        "compact",
        "support",
        (
            "put the {a} on the {b}",
            "place the {a} onto the {b}",
            "set the {a} on the {b}",
            "put the {a} onto the {b}",
            "take the {a} and put it on the {b}",
            "pick up the {a} and place it on the {b}",
        ),
    ),
    _onto_skill(
        "stack",
        "stackable",
        "stackable",
        (
            "stack the {a} on the {b}",
            "put the {a} on top of the {b}",
            "place the {a} on the {b}",
            "stack the {a} on top of the {b}",
            "set the {a} on top of the {b}",
            "take the {a} and stack it on the {b}",
        ),
    ),
)
