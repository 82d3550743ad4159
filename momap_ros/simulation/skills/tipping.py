"""Objects that a push sets going, and that then fall or roll on by themselves."""

from __future__ import annotations

from functools import partial

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import ObjectInfo, has_trait, kinds_with
from momap_ros.simulation.hand import ScriptedHand, Simulation, above, rotation_about
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.grasping import acted_object, choose
from momap_ros.simulation.skills.handling import lying_quaternion
from momap_ros.simulation.skills.pushing import (
    asked_motion,
    centre,
    directed,
    draw_motion,
    facing,
    leave,
    move_level,
    place_xy,
    retarget_motion,
)
from momap_ros.simulation.task import Task

_ROLLING = (*kinds_with("rolling"), *kinds_with("tube"))
FALLEN_COS = 0.5  # of the angle between an object's axis and the vertical
ROLLED_ON_M = 0.025  # after the hand has stopped
_STILL_M_S, _STILL_RAD_S = 0.02, 0.3
_CONTACT_SHARE, _NECKED_SHARE = 0.8, 0.58  # of the height, at which a thing is pushed over; below a bottle's neck
_BEYOND_RAD = 0.2  # that it is pushed beyond its balance
_FINGER_M, _FINGER_HALF_M = 0.012, 0.0085  # from the grasp centre to the end of the fingers, and to their outside
_SHORTEST_S = 0.6  # in which something that starts slowly has got going


def wait_for_rest(simulation: Simulation, body: str, *, longest_s: float = 2.5) -> None:
    """Let time go by until a body has come to rest, but no longer than that."""
    step_s = simulation.model.opt.timestep
    simulation.wait(int(_SHORTEST_S / step_s))
    for _ in range(int((longest_s - _SHORTEST_S) / step_s / 25)):
        simulation.wait(25)
        velocity = np.array(simulation.data.body(body).cvel)
        if np.linalg.norm(velocity[3:]) < _STILL_M_S and np.linalg.norm(velocity[:3]) < _STILL_RAD_S:
            break


def balance_rad(simulation: Simulation, item: ObjectInfo) -> float:
    """The angle by which a standing object leans when its centre of mass is above the edge of its foot."""
    return float(np.arctan2(item.half_width_m, simulation.model.body(item.name).ipos[2]))


def thin_axis(yaw_rad: float, kind: str, rng: np.random.Generator) -> Float64:
    """(2,) unit direction in which a standing object falls most easily: through its wide faces where it has some."""
    angle = yaw_rad + rng.choice([-1, 1]) * np.pi / 2 if kind in {"box", "carton"} else rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _furnish_topple(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("topple", kinds_with("tall")), radius=0.075)
    w, _, _, z = builder.spec.body(item.name).quat
    return Task("topple", item.name, item, motion_xy=thin_axis(2 * np.arctan2(z, w), item.kind, builder.rng))


def _retarget_topple(scene: Scene, rng: np.random.Generator) -> Task | None:
    item = choose(scene.free_objects, "tall", rng)
    if item is None:
        return None
    w, _, _, z = scene.model.body(item.name).quat
    return Task("topple", item.name, item, motion_xy=thin_axis(2 * np.arctan2(z, w), item.kind, rng))


def _topple(scene: Scene, hand: ScriptedHand, _rng: np.random.Generator) -> bool:
    """The hand takes the upper part along on the arc about the foot's far edge, on until the object must fall."""
    item, (direction, _) = acted_object(scene), asked_motion(scene)
    start, half = hand.position(item.name), item.half_width_m
    contact_m = (_NECKED_SHARE if item.grip_half_m < half else _CONTACT_SHARE) * item.height_m
    upright = hand.rotation(item.name)[2, 2]
    balance = balance_rad(hand, item)
    front = above(start - direction * half, contact_m)
    hand.move_to(above(front - direction * 0.05, hand.lift_m * 0.6), facing(direction), hand.speed, 0.0)
    hand.move_to(front - direction * 0.05, facing(direction), hand.speed * 0.7)
    move_level(hand, front - direction * _FINGER_HALF_M, hand.speed * 0.6)
    edge, position, orientation = above(start, 0.0) + direction * half, hand.mocap_position, hand.orientation
    for share in hand.shares(3.0 * contact_m / hand.speed):
        turned = rotation_about(np.cross([0, 0, 1], direction), (balance + _BEYOND_RAD) * share)
        hand.hold(position + turned @ (front - edge) - (front - edge), orientation)
    leave(hand, -direction * 0.03)
    wait_for_rest(hand, item.name)
    return bool(upright > 0.98 and hand.rotation(item.name)[2, 2] < FALLEN_COS and hand.position(item.name)[2] > -0.01)


def _furnish_roll(builder: SceneBuilder) -> Task:
    item = builder.add(builder.choose_acted("roll", _ROLLING), radius=0.07)
    if has_trait(item.kind, "tube"):
        builder.hindered.add(item.name)
    return Task("roll", item.name, item, motion_xy=draw_motion(builder.rng, place_xy(builder, item)))


def lay_across(simulation: Simulation, scene: Scene, motion: Float64, place: Float64) -> None:
    """Lay a tube on its side so that it rolls along a horizontal unit vector, its middle above `place` (3,)."""
    item = acted_object(scene)
    top = np.array([-motion[1], motion[0], 0.0])
    simulation.place(item.name, place - top * item.top_m / 2, lying_quaternion(top[:2]))


def _start_roll(scene: Scene, simulation: Simulation, _rng: np.random.Generator) -> None:
    item = acted_object(scene)
    if has_trait(item.kind, "tube"):
        place = np.array([*scene.start_xy(item), item.half_width_m + 0.0003])
        lay_across(simulation, scene, asked_motion(scene)[0], place)


def _roll(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """A short, quick push; the object rolls on when the hand stops."""
    item, (direction, _) = acted_object(scene), asked_motion(scene)
    tube = has_trait(item.kind, "tube")
    start = hand.position(item.name)
    middle = start + hand.rotation(item.name)[:, 2] * item.top_m / 2 if tube else above(start, item.half_width_m)
    middle[2] = max(item.half_width_m, _FINGER_M + 0.002)
    behind = middle - direction * (item.half_width_m + 0.055)
    quaternion = facing(direction)
    hand.move_to(above(behind, hand.lift_m), quaternion, hand.speed, 0.0)
    hand.move_to(behind, quaternion, hand.speed * 0.7)
    move_level(hand, middle - direction * (item.half_width_m - 0.02), rng.uniform(0.65, 0.85))
    pushed = float(centre(hand, item.name) @ direction)
    leave(hand, -direction * 0.02)
    wait_for_rest(hand, item.name)
    rolled_on = float(centre(hand, item.name) @ direction) - pushed
    return bool(rolled_on > ROLLED_ON_M and hand.position(item.name)[2] > -0.01)


SKILLS = (
    Skill(
        "topple",
        (
            "knock over the {a}",
            "topple the {a}",
            "tip the {a} over",
            "push the {a} over",
            "make the {a} fall over",
            "knock the {a} down",
        ),
        _furnish_topple,
        _topple,
        retarget=_retarget_topple,
        kinds=kinds_with("tall"),
        quasi_static=False,
    ),
    Skill(
        "roll",
        directed("roll", "set rolling", "give a push to"),
        _furnish_roll,
        _roll,
        retarget=partial(retarget_motion, skill="roll", trait="rolling"),
        start=_start_roll,
        kinds=_ROLLING,
        quasi_static=False,
    ),
)
