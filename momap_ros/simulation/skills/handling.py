"""Objects taken and turned, set up, tilted, rubbed over the table, or taken off one another."""

from __future__ import annotations

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import BASE_XY, OPEN_M
from momap_ros.simulation.assets import ObjectInfo, has_trait, kinds_with
from momap_ros.simulation.hand import (
    ScriptedHand,
    Simulation,
    above,
    quaternion_down,
    quaternion_forward,
    quaternion_of,
    rotation,
    rotation_about,
)
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.grasping import acted_object, choose, grasp, put_down, take
from momap_ros.simulation.task import Task

_TURNABLE = tuple(kind for kind in kinds_with("graspable") if not has_trait(kind, "any_side") and kind != "pan")
_BASES = tuple(dict.fromkeys((*kinds_with("support"), *kinds_with("stackable"))))
LIFTED_M, ON_GOAL_M, ON_TABLE_M = 0.05, 0.035, 0.02
POURING_RAD = np.radians(50)
_TILT_RATE = 1.5  # rad/s of what is poured or turned
OVER_TARGET_M = 0.03  # beyond the rim that a mouth may be and still pour into a dish


def lying_quaternion(towards_xy: Float64) -> Float64:
    """(4,) orientation of an object that lies on its side, its top towards a horizontal unit direction; w, x, y, z."""
    top, up = np.array([*towards_xy, 0.0]), np.array([0.0, 0.0, 1.0])
    return quaternion_of(np.stack([up, np.cross(top, up), top], axis=1))


def side_grip_m(item: ObjectInfo) -> float:
    """How high a hand takes hold of a standing object from the side."""
    return max(0.45 * item.top_m, 0.032)


def _furnish_alone(builder: SceneBuilder, skill: str, kinds: tuple[str, ...]) -> Task:
    item = builder.add(builder.choose_acted(skill, kinds))
    return Task(skill, item.name, item)


def _retarget_alone(scene: Scene, rng: np.random.Generator, skill: str, kinds: tuple[str, ...]) -> Task | None:
    fitting = [item for item in scene.free_objects if item.kind in kinds]
    item = fitting[rng.integers(len(fitting))] if fitting else None
    return Task(skill, item.name, item) if item else None


def _furnish_unstack(builder: SceneBuilder) -> Task:
    kind = builder.choose_acted("unstack", kinds_with("steady"))
    below = builder.add(builder.choose_other(_BASES))
    item = builder.add_on(kind, below)
    return Task("unstack", item.name, item, target=below, goal_xy=builder.free_place(0.05))


def _retarget_unstack(scene: Scene, rng: np.random.Generator) -> Task | None:
    """Something that lies on something else."""
    pairs = [
        (item, below)
        for below in scene.objects
        for item in scene.free_objects
        if below.name in scene.hindered and below.kind in _BASES and has_trait(item.kind, "steady")
        if np.linalg.norm(scene.start_xy(item) - scene.start_xy(below)) < 1e-6
    ]
    goal_xy = scene.free_xy(rng, 0.05)
    if not pairs or goal_xy is None:
        return None
    item, below = pairs[rng.integers(len(pairs))]
    return Task("unstack", item.name, item, target=below, goal_xy=goal_xy)


def _unstack(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    assert scene.task.goal_xy is not None  # set wherever this module makes the task
    item, goal = acted_object(scene), np.array([*scene.task.goal_xy, 0.002])
    before = hand.position(item.name)
    grip = take(hand, item, rng)
    raised = hand.position(item.name)[2] - before[2]
    put_down(hand, goal, grip)
    error = hand.position(item.name) - goal
    return bool(np.linalg.norm(error[:2]) < ON_GOAL_M and error[2] < ON_TABLE_M and raised > LIFTED_M)


def _furnish_turn(builder: SceneBuilder) -> Task:
    return _furnish_alone(builder, "turn", _TURNABLE)


def _retarget_turn(scene: Scene, rng: np.random.Generator) -> Task | None:
    return _retarget_alone(scene, rng, "turn", _TURNABLE)


def _turn(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """About the vertical through the grasp, back towards the middle of the wrist's range."""
    item = acted_object(scene)
    before, grip = hand.rotation(item.name), grasp(hand, item, rng)
    start = hand.position(item.name) + grip.offset
    across = rotation(grip.quaternion)[:, 1]
    angle = rng.uniform(1.0, 2.0) * (-1 if np.arctan2(-across[0], across[1]) > 0 else 1)
    hand.move_to(above(start, 0.002), grip.quaternion, 0.1)
    turn_hand(hand, np.array([0.0, 0.0, 1.0]), angle)
    hand.open()
    hand.move_to(above(start, hand.lift_m * 0.7), hand.orientation, hand.speed)
    hand.wait(30)
    turned = before[:, 0] @ hand.rotation(item.name)[:, 0]
    moved = np.linalg.norm((hand.position(item.name) + grip.offset - start)[:2])
    return bool(turned < np.cos(0.8) and moved < ON_GOAL_M + abs(item.grip_x_m) * 2)


def turn_hand(hand: ScriptedHand, axis: Float64, angle_rad: float) -> None:
    """Turn the hand where it is, about a unit axis through its origin."""
    position, orientation = hand.mocap_position, rotation(hand.orientation)
    for share in hand.shares(abs(angle_rad) / _TILT_RATE):
        hand.hold(position, quaternion_of(rotation_about(axis, angle_rad * share) @ orientation))


def _furnish_wipe(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("wipe", kinds_with("wipes")), radius=0.085)
    return Task("wipe", item.name, item)


def _retarget_wipe(scene: Scene, rng: np.random.Generator) -> Task | None:
    return _retarget_alone(scene, rng, "wipe", kinds_with("wipes"))


def _wipe(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """To and fro, while it moves on a little to one side."""
    item = acted_object(scene)
    grasp(hand, item, rng)
    start, held = hand.mocap_position, hand.orientation
    angle, strokes = rng.uniform(-np.pi, np.pi), int(rng.integers(2, 4))
    along = np.array([np.cos(angle), np.sin(angle), 0.0]) * rng.uniform(0.035, 0.06)
    aside = np.array([-np.sin(angle), np.cos(angle), 0.0]) * rng.uniform(-0.05, 0.05)
    places = []
    for share in hand.shares(strokes * 5 * np.linalg.norm(along) / hand.speed):
        hand.hold(start + along * np.sin(2 * np.pi * strokes * share) + aside * share, held)
        places.append(hand.position(item.name))
    hand.open()
    hand.move_to(start - [0, 0, hand.tip_m] + [0, 0, hand.lift_m], held, hand.speed)
    way = np.linalg.norm(np.diff(places, axis=0)[:, :2], axis=-1).sum()
    return bool(way > 0.2 and np.abs(np.array(places)[:, 2]).max() < 0.01)


def _furnish_upright(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("upright", kinds_with("lies")), radius=0.075)
    builder.hindered.add(item.name)
    return Task("upright", item.name, item)


def _start_upright(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> None:
    """The object lies on its side, its top away from the arm."""
    item, place = acted_object(scene), scene.start_xy(acted_object(scene))
    bearing = np.arctan2(*(place - BASE_XY)[::-1]) + rng.uniform(-0.7, 0.7)
    top = np.array([np.cos(bearing), np.sin(bearing)])
    middle = np.array([*(place - top * item.top_m / 2), item.half_width_m + 0.0005])
    simulation.place(item.name, middle, lying_quaternion(top))


def _upright(scene: Scene, hand: ScriptedHand, _rng: np.random.Generator) -> bool:
    """Take it across, raise it, tip the hand forwards until it stands, and set it down."""
    item = acted_object(scene)
    top, grip_m = hand.rotation(item.name)[:, 2], side_grip_m(item)
    held = hand.position(item.name) + top * grip_m
    quaternion = quaternion_down(float(np.arctan2(top[1], top[0])))
    hand.move_to(above(held, hand.lift_m), quaternion, hand.speed, OPEN_M)
    hand.move_to(held, quaternion, hand.speed * 0.6)
    hand.set_opening(max(0.0, item.half_width_m - 0.010))
    hand.attach(item.name)
    hand.wait(10)
    hand.move_to(above(held, hand.lift_m), quaternion, hand.speed)
    forward = quaternion_forward(top, 0.0)
    hand.move_to(above(held, hand.lift_m), forward, hand.speed)
    standing = held * [1, 1, 0] + [0, 0, grip_m + 0.001]
    hand.move_to(standing, forward, hand.speed * 0.5)
    hand.open()
    hand.move_to(standing - top * (0.05 + item.half_width_m), forward, hand.speed * 0.7)
    hand.wait(40)
    return bool(hand.rotation(item.name)[2, 2] > 0.97 and abs(hand.position(item.name)[2]) < 0.01)


def _furnish_pour(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("pour", kinds_with("pours")))
    below = builder.add(builder.choose_other(kinds_with("container")))
    return Task("pour", item.name, item, target=below)


def _retarget_pour(scene: Scene, rng: np.random.Generator) -> Task | None:
    item = choose(scene.free_objects, "pours", rng)
    below = choose(scene.objects, "container", rng)
    return Task("pour", item.name, item, target=below) if item and below else None


def _take_from_side(hand: ScriptedHand, item: ObjectInfo, rng: np.random.Generator) -> Float64:
    """Take hold of a standing object and raise it; returns where it was held, metres."""
    held = above(hand.position(item.name), side_grip_m(item))
    bearing = np.arctan2(*(held[:2] - BASE_XY)[::-1]) + rng.uniform(-0.3, 0.3)
    quaternion = quaternion_forward(np.array([np.cos(bearing), np.sin(bearing)]), rng.uniform(0.2, 0.4))
    before = held - rotation(quaternion)[:, 0] * (0.05 + item.half_width_m)
    hand.move_to(above(before, 0.04), quaternion, hand.speed, OPEN_M)
    hand.move_to(before, quaternion, hand.speed)
    hand.move_to(held, quaternion, hand.speed * 0.6)
    hand.set_opening(max(0.0, item.half_width_m - 0.010))
    hand.attach(item.name)
    hand.wait(10)
    hand.move_to(above(held, hand.lift_m), quaternion, hand.speed)
    return held


def _pour(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Beside the dish, roll the hand until the mouth is over it; then hold it so, or turn it back."""
    item, target = acted_object(scene), scene.target
    assert target is not None  # set wherever this module makes the task
    held, dish = _take_from_side(hand, item, rng), hand.position(target.name)
    outwards = (dish[:2] - BASE_XY) / np.linalg.norm(dish[:2] - BASE_XY)
    left = np.array([-outwards[1], outwards[0], 0.0])
    side = 1.0 if (held - dish) @ left > 0 else -1.0
    tilt = np.radians(rng.uniform(75, 115))
    reach = (item.top_m - side_grip_m(item)) * np.sin(tilt) + 0.01
    height = target.height_m + item.half_width_m + 0.03 + max(0.0, -np.cos(tilt)) * item.top_m * 0.6
    beside = dish + left * side * reach + [0, 0, height]
    quaternion = quaternion_forward(outwards, rng.uniform(0.2, 0.4))
    hand.move_to(above(beside, 0.03), quaternion, hand.speed)
    hand.move_to(beside, quaternion, hand.speed * 0.6)
    turn_hand(hand, rotation(quaternion)[:, 0], side * tilt)
    hand.wait(40)
    up = hand.rotation(item.name)[:, 2]
    mouth = hand.position(item.name) + up * item.top_m
    if rng.random() < 0.6:
        turn_hand(hand, rotation(quaternion)[:, 0], -side * tilt)
    over = np.linalg.norm((mouth - hand.position(target.name))[:2]) < target.half_width_m + OVER_TARGET_M
    return bool(up[2] < np.cos(POURING_RAD) and over and mouth[2] > target.height_m)


SKILLS = (
    Skill(
        "unstack",
        (
            "take the {a} off the {b}",
            "remove the {a} from the {b}",
            "unstack the {a} from the {b}",
            "lift the {a} off the {b}",
            "put the {a} on the table beside the {b}",
            "take the {a} from the {b} and put it on the table",
            "clear the {a} off the {b}",
        ),
        _furnish_unstack,
        _unstack,
        retarget=_retarget_unstack,
        kinds=kinds_with("steady"),
    ),
    Skill(
        "turn",
        (
            "turn the {a}",
            "rotate the {a}",
            "turn the {a} around",
            "rotate the {a} in place",
            "spin the {a} on the spot",
            "twist the {a} on the table",
        ),
        _furnish_turn,
        _turn,
        retarget=_retarget_turn,
        kinds=_TURNABLE,
    ),
    Skill(
        "wipe",
        (
            "wipe the table with the {a}",
            "clean the table with the {a}",
            "scrub the table with the {a}",
            "rub the {a} over the table",
            "scrub to and fro with the {a}",
            "take the {a} and wipe the table",
        ),
        _furnish_wipe,
        _wipe,
        retarget=_retarget_wipe,
        kinds=kinds_with("wipes"),
    ),
    Skill(
        "upright",
        (
            "set the {a} upright",
            "stand the {a} up",
            "put the {a} upright",
            "pick up the {a} and stand it up",
            "turn the {a} upright",
            "set up the {a} that has fallen over",
        ),
        _furnish_upright,
        _upright,
        start=_start_upright,
        kinds=kinds_with("lies"),
    ),
    Skill(
        "pour",
        (
            "pour from the {a} into the {b}",
            "tilt the {a} over the {b}",
            "empty the {a} into the {b}",
            "pour what is in the {a} into the {b}",
            "pick up the {a} and pour it into the {b}",
            "tip the {a} over the {b}",
        ),
        _furnish_pour,
        _pour,
        retarget=_retarget_pour,
        kinds=kinds_with("pours"),
    ),
)
