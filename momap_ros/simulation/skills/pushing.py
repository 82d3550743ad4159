"""Objects moved over the table by the outside of the fingers: pushed, pulled, slid, swept."""

from __future__ import annotations

from functools import partial

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import BASE_XY
from momap_ros.simulation.assets import ObjectInfo, kinds_with
from momap_ros.simulation.hand import ScriptedHand, Simulation, above, quaternion_down, quaternion_forward, rotation
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.grasping import acted_object, choose, grasp
from momap_ros.simulation.task import Task

_PUSHABLE = (*kinds_with("graspable"), "pot")
_WAY_M = (0.06, 0.14)
_ANY_BEARING, _PULL_BEARING = (-np.pi, np.pi), (-0.7, 0.7)  # from the world's x, radians
MOVED_M = 0.03
_STAND_OFF_M = 0.05
_HAND_REACH_M = (0.13, 0.53)  # from the arm's base, of the hand itself
_FINGER_M = 0.012  # from the grasp centre to the end of the fingers
_DRAGGED_SHARE = 0.4  # of what is pulled is held, where it can be
_LOW_M = 0.045  # a hand that leans over it touches nothing above this


def place_xy(builder: SceneBuilder, item: ObjectInfo) -> Float64:
    """(2,) where an object was put, metres, world."""
    return np.array(builder.spec.body(item.name).pos[:2])


def draw_motion(
    rng: np.random.Generator,
    start_xy: Float64,
    *,
    way_m: tuple[float, float] = _WAY_M,
    bearing: tuple[float, float] = _ANY_BEARING,
) -> Float64:
    """(2,) motion, metres, of a length and a direction in which a hand that starts behind the object reaches its end.

    Args:
        rng: source of the choice.
        start_xy: (2,) where the object is, metres, world.
        way_m: shortest and longest.
        bearing: smallest and largest angle from the direction towards the arm's base, radians.
    """
    home = np.arctan2(*(BASE_XY - start_xy)[::-1])
    motion = np.zeros(2)
    for _ in range(30):
        angle = home + rng.uniform(*bearing)
        direction = np.array([np.cos(angle), np.sin(angle)])
        motion = rng.uniform(*way_m) * direction
        ends = np.array([start_xy - 0.11 * direction, start_xy + motion])
        reach = np.linalg.norm(ends - BASE_XY, axis=-1)
        if (reach > _HAND_REACH_M[0]).all() and (reach < _HAND_REACH_M[1]).all():
            break
    return motion


def asked_motion(scene: Scene) -> tuple[Float64, float]:
    """(3,) horizontal unit direction of the motion asked for, and its length in metres."""
    motion_xy = scene.task.motion_xy
    assert motion_xy is not None  # set wherever this is called
    length = float(np.linalg.norm(motion_xy))
    return np.array([*(motion_xy / length), 0.0]), length


def directed(*verbs: str) -> dict[str, tuple[str, ...]]:
    """Sentences with each verb, per direction."""

    def phrases(*ways: str) -> tuple[str, ...]:
        return tuple(f"{verb} the {{a}} {way}" for verb in verbs for way in ways)

    side = phrases("to the {d}", "{d}", "over to the {d}")
    return {
        "left": side,
        "right": side,
        "away": phrases("away", "farther back", "away from the {viewer}"),
        "closer": phrases("closer", "to the front", "towards the {viewer}"),
    }


def centre(simulation: Simulation, body: str) -> Float64:
    """(3,) centre of mass of a body, metres, world; where something rolls, its origin goes round."""
    return np.array(simulation.data.body(body).xipos)


def advance(scene: Scene, hand: ScriptedHand, start: Float64) -> float:
    """How far the acted object's centre has got from `start` in the direction asked for, metres."""
    return float((centre(hand, scene.acted) - start) @ asked_motion(scene)[0])


def move_level(hand: ScriptedHand, point: Float64, speed: float) -> None:
    """Bring the grasp centre to `point` (metres, world) at `speed` (m/s) on a straight line, the hand not turning."""
    start = hand.mocap_position
    way = point - rotation(hand.orientation)[:, 0] * hand.tip_m - start
    for share in hand.shares(float(np.linalg.norm(way)) / speed):
        hand.hold(start + way * share, hand.orientation)


def leave(hand: ScriptedHand, aside: Float64) -> None:
    """Move the hand aside and up, and wait a little."""
    tip = hand.mocap_position + hand.rotation("hand")[:, 0] * hand.tip_m
    hand.move_to(above(tip + aside, 0.06), hand.orientation, hand.speed)
    hand.wait(30)


def facing(direction: Float64) -> Float64:
    """(4,) of a hand that points down and pushes with a flat side of its fingers; w, x, y, z.

    Fingers side by side would be wedged apart by something round, and grip it.
    """
    yaw = np.arctan2(direction[1], direction[0])
    return quaternion_down(float((yaw + np.pi) % np.pi - np.pi / 2))  # a gripper is the same after half a turn


def _push_height(item: ObjectInfo) -> float:
    return 0.018 if item.top_m > 0.02 else _FINGER_M + 0.001


def _stroke(hand: ScriptedHand, item: ObjectInfo, way: tuple[Float64, float], quaternion: Float64) -> None:
    """Come down behind an object, move it by (direction, length), and leave backwards."""
    direction, length = way
    start = hand.position(item.name) * [1, 1, 0] + [0, 0, _push_height(item)]
    behind = start - direction * (max(item.half_width_m, 0.045) + _STAND_OFF_M)
    hand.move_to(above(behind, hand.lift_m), quaternion, hand.speed, 0.0)
    hand.move_to(behind, quaternion, hand.speed * 0.7)
    move_level(hand, start + direction * (length - item.half_width_m), hand.speed * 0.6)
    leave(hand, -direction * 0.03)


def retarget_motion(
    scene: Scene, rng: np.random.Generator, *, skill: str, trait: str, bearing: tuple[float, float] = _ANY_BEARING
) -> Task | None:
    """Another motion over the table, of any object whose kind has a trait; None where there is none."""
    item = choose(scene.free_objects, trait, rng)
    if item is None:
        return None
    return Task(skill, item.name, item, motion_xy=draw_motion(rng, scene.start_xy(item), bearing=bearing))


def _furnish_push(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("push", _PUSHABLE))
    return Task("push", item.name, item, motion_xy=draw_motion(builder.rng, place_xy(builder, item)))


def _push(scene: Scene, hand: ScriptedHand, _rng: np.random.Generator) -> bool:
    item, way = acted_object(scene), asked_motion(scene)
    start = centre(hand, item.name)
    _stroke(hand, item, way, facing(way[0]))
    return advance(scene, hand, start) > MOVED_M


def _furnish_pull(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("pull", kinds_with("graspable")))
    motion = draw_motion(builder.rng, place_xy(builder, item), bearing=_PULL_BEARING)
    return Task("pull", item.name, item, motion_xy=motion)


def _pull(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Towards the arm, with the fingers behind the object, or holding it."""
    item, (direction, length) = acted_object(scene), asked_motion(scene)
    start, place = centre(hand, item.name), hand.position(item.name)
    if item.top_m > _LOW_M or item.kind == "pan" or rng.random() < _DRAGGED_SHARE:
        grip = grasp(hand, item, rng)
        hand.move_to(place + grip.offset + direction * length + [0, 0, 0.001], grip.quaternion, hand.speed * 0.5)
        hand.open()
        leave(hand, np.zeros(3))
    else:
        _stroke(hand, item, (direction, length), quaternion_forward(-direction, rng.uniform(1.05, 1.25)))
    return advance(scene, hand, start) > MOVED_M


def _furnish_slide(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("slide", kinds_with("flat")))
    return Task("slide", item.name, item, motion_xy=draw_motion(builder.rng, place_xy(builder, item)))


def _slide(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Fingertips press on the object and take it along."""
    item, (direction, length) = acted_object(scene), asked_motion(scene)
    start, quaternion = centre(hand, item.name), quaternion_down(rng.uniform(-0.7, 0.7))
    top = above(hand.position(item.name), item.height_m + _FINGER_M)
    hand.move_to(above(top, hand.lift_m * 0.6), quaternion, hand.speed, 0.0)
    hand.move_to(top, quaternion, hand.speed * 0.6)
    hand.attach(item.name)
    move_level(hand, top + direction * length, hand.speed * 0.5)
    hand.release()
    leave(hand, np.zeros(3))
    return advance(scene, hand, start) > max(MOVED_M, 0.6 * length)


def _furnish_sweep(builder: SceneBuilder) -> Task:
    """Small things close together."""
    small, rng = kinds_with("small"), builder.rng
    item = builder.add(builder.choose_acted("sweep", small), radius=0.085)
    place = place_xy(builder, item)
    outwards = (place - BASE_XY) / np.linalg.norm(place - BASE_XY)
    direction = rng.choice([-1, 1]) * np.array([-outwards[1], outwards[0]])
    side = rng.choice([-1, 1])
    for ahead in (0.055, 0.105)[: rng.integers(1, 3)]:
        aside = side * rng.uniform(0.016, 0.024)
        builder.add(builder.choose_other(small), xy=place + ahead * direction + aside * outwards)
        side = -side
    return Task("sweep", item.name, item, motion_xy=rng.uniform(0.10, 0.16) * direction)


def _sweep(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """The side of the hand, held low and flat, takes along what lies before it."""
    item, (direction, length) = acted_object(scene), asked_motion(scene)
    before = {other.name: centre(hand, other.name) for other in scene.objects}
    start = before[item.name]
    outwards = np.array([*(start[:2] - BASE_XY), 0.0])
    outwards /= np.linalg.norm(outwards)
    quaternion = quaternion_forward(outwards, rng.uniform(0.1, 0.18))
    tip = start * [1, 1, 0] + outwards * 0.05 + [0, 0, 0.014]
    hand.move_to(above(tip - direction * 0.07, hand.lift_m), quaternion, hand.speed, 0.0)
    hand.move_to(tip - direction * 0.07, quaternion, hand.speed * 0.7)
    move_level(hand, tip + direction * length, hand.speed * 0.6)
    leave(hand, -direction * 0.03)
    moved = [float((centre(hand, name) - place) @ direction) for name, place in before.items() if name != item.name]
    return advance(scene, hand, start) > 0.5 * length and max(moved) > MOVED_M


SKILLS = (
    Skill(
        "push",
        directed("push", "nudge", "shove"),
        _furnish_push,
        _push,
        retarget=partial(retarget_motion, skill="push", trait="graspable"),
        kinds=_PUSHABLE,
        weight=1.5,
    ),
    Skill(
        "pull",
        directed("pull", "drag", "draw"),
        _furnish_pull,
        _pull,
        retarget=partial(retarget_motion, skill="pull", trait="graspable", bearing=_PULL_BEARING),
        kinds=kinds_with("graspable"),
    ),
    Skill(
        "slide",
        directed("slide", "press down on and slide", "shift"),
        _furnish_slide,
        _slide,
        retarget=partial(retarget_motion, skill="slide", trait="flat"),
        kinds=kinds_with("flat"),
    ),
    Skill(
        "sweep",
        directed("sweep", "brush", "wipe"),
        _furnish_sweep,
        _sweep,
        kinds=kinds_with("small"),
    ),
)
