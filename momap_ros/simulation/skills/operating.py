"""What all skills that move a part of a fixture share: where it goes, how a hand takes it there, what is success."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import HAND, OPEN_M
from momap_ros.simulation.fixtures import FixtureInfo
from momap_ros.simulation.hand import ScriptedHand, quaternion_of, rotation, rotation_about
from momap_ros.simulation.scene import NoRoomError, Scene, SceneBuilder
from momap_ros.simulation.skill import Skill, Templates
from momap_ros.simulation.task import Task

Range = tuple[float, float]
# Shares of the joint's limit. A part that stops a little short has still moved; it must clearly move, the right way.
_TOLERANCE, _MOVED, LEAST_TRAVEL = 0.2, 0.2, 0.4
_DRAWS = 40
_SLIDE_SPEED, _TURN_SPEED = 0.25, 1.4  # m/s, rad/s
_APPROACH_M = 0.09
_WEIGHT = 0.5  # every fixture has several skills of its own


def operating_skill(
    name: str,
    kind: str,
    templates: Templates,
    *,
    start: Range,
    goal: Range,
    weight: float = _WEIGHT,
    perform: Callable[[Scene, ScriptedHand, np.random.Generator], bool] | None = None,
) -> Skill:
    """A skill that moves the part of one kind of fixture.

    Args:
        name: of the skill.
        kind: of the fixture, one of FIXTURES.
        templates: sentences.
        start: range of the joint's position in the first frame, as a share of its limit.
        goal: range of its position at the end.
        weight: how often it is drawn, beside the others.
        perform: moves the hand; takes the part by its handle and carries it along where None.
    """
    return Skill(
        name,
        templates,
        partial(_furnish, skill=name, kind=kind, start=start, goal=goal),
        perform or _take_along,
        retarget=partial(_retarget, skill=name, kind=kind, goal=goal),
        weight=weight,
    )


def fixture_of(scene: Scene) -> FixtureInfo:
    """The fixture that the task is about; every task of these skills has one."""
    assert scene.fixture is not None
    return scene.fixture


def _furnish(builder: SceneBuilder, *, skill: str, kind: str, start: Range, goal: Range) -> Task:
    fixture = builder.add_fixture(kind, start=start)
    task = _task(fixture, builder.rng, skill=skill, goal=goal)
    if task is None:
        raise NoRoomError(f"{skill}: expected a {kind} with way to go, got one at {fixture.start} of {fixture.limit}")
    return task


def _retarget(scene: Scene, rng: np.random.Generator, *, skill: str, kind: str, goal: Range) -> Task | None:
    for fixture in scene.fixtures:
        if fixture.kind == kind and not fixture.latch:
            return _task(fixture, rng, skill=skill, goal=goal)
    return None


def _task(fixture: FixtureInfo, rng: np.random.Generator, *, skill: str, goal: Range) -> Task | None:
    """Bring the fixture's joint to a random place; None where all that were drawn are too near to where it is."""
    amounts = fixture.limit * rng.uniform(*goal, _DRAWS)
    far = amounts[np.abs(amounts - fixture.start) > LEAST_TRAVEL * fixture.limit]
    return Task(skill, fixture.part, fixture=fixture, amount=float(far[0])) if len(far) else None


def _take_along(scene: Scene, hand: ScriptedHand, _rng: np.random.Generator) -> bool:
    """Take the handle and carry the hand rigidly along with the joint."""
    fixture, goal = fixture_of(scene), scene.task.amount
    _approach(hand, fixture, goal)
    before = hand.joint(fixture.joint)
    quaternion = _grip(hand, fixture, goal - before)
    hand.move_to(np.array(hand.data.geom(fixture.handle).xpos), quaternion, hand.speed * 0.6)
    hand.set_opening(0.003)
    hand.attach(fixture.part)
    carry_along(hand, fixture.joint, goal - before)
    hand.open()
    back = -rotation(hand.orientation)[:, 0]
    hand.move_to(hand.mocap_position - back * hand.tip_m + back * 0.07, hand.orientation, hand.speed)
    hand.wait(30)
    return reached(fixture, goal, before, hand.joint(fixture.joint))


def _approach(hand: ScriptedHand, fixture: FixtureInfo, goal: float) -> None:
    """Bring the open hand before the handle; over the part, where it stands up so high that the hand might push it."""
    quaternion = _grip(hand, fixture, goal - hand.joint(fixture.joint))
    before_handle = hand.data.geom(fixture.handle).xpos - rotation(quaternion)[:, 0] * _APPROACH_M
    height_m = _top_m(hand, fixture) + 0.02
    tip = hand.mocap_position + rotation(hand.orientation)[:, 0] * hand.tip_m
    if height_m > tip[2]:
        hand.move_to(np.array([*tip[:2], height_m]), hand.orientation, hand.speed)
    if height_m > before_handle[2] + 0.05:
        hand.move_to(np.array([*before_handle[:2], height_m]), quaternion, hand.speed, OPEN_M)
    hand.move_to(before_handle, quaternion, hand.speed, OPEN_M)


def _top_m(hand: ScriptedHand, fixture: FixtureInfo) -> float:
    """Height of the highest point of the fixture's part, metres."""
    model, data = hand.model, hand.data
    geoms = model.geom_bodyid == model.body(fixture.part).id
    upright = data.geom_xmat[geoms].reshape(-1, 3, 3)[:, 2]  # what a geom's own axes add to the height
    centre, half = np.split(model.geom_aabb[geoms], 2, axis=1)
    tops = data.geom_xpos[geoms, 2] + (upright * centre).sum(1) + (np.abs(upright) * half).sum(1)
    return float(tops.max())


def reached(fixture: FixtureInfo, goal: float, before: float, after: float) -> bool:
    """Whether a joint ended near its goal, and clearly moved."""
    return abs(after - goal) < _TOLERANCE * fixture.limit and abs(after - before) > _MOVED * fixture.limit


def _grip(hand: ScriptedHand, fixture: FixtureInfo, travel: float) -> Float64:
    """How the hand takes hold: of the two ways, half a turn apart, the one that turns the wrist least on the whole."""
    pointing, closing = np.array(fixture.pointing), np.array(fixture.closing)
    part, axis = hand.rotation(fixture.part), np.array(hand.data.joint(fixture.joint).xaxis)
    half_way = np.eye(3) if _slides(hand, fixture.joint) else rotation_about(axis, travel / 2)
    ways = []
    for side in (1, -1):
        way = part @ np.stack([pointing, side * closing, np.cross(pointing, side * closing)], axis=1)
        ways.append((float(np.trace(rotation(hand.orientation).T @ half_way @ way)), way))
    return quaternion_of(max(ways, key=lambda pair: pair[0])[1])


def _slides(hand: ScriptedHand, joint: str) -> bool:
    return bool(hand.model.joint(joint).type[0] == mujoco.mjtJoint.mjJNT_SLIDE)


def carry_along(hand: ScriptedHand, joint: str, travel: float) -> None:
    """Move the hand as if it were fixed to a part while the part's joint travels.

    Args:
        hand: holds the part.
        joint: the part's joint, a slide or a hinge.
        travel: metres or radians.
    """
    data, axis = hand.data, np.array(hand.data.joint(joint).xaxis)
    pivot = np.array(data.joint(joint).xanchor)
    position, orientation = hand.position(HAND), hand.rotation(HAND)
    slides = _slides(hand, joint)
    for share in hand.shares(max(abs(travel) / (_SLIDE_SPEED if slides else _TURN_SPEED), 0.1)):
        if slides:
            hand.hold(position + axis * travel * share, hand.orientation)
        else:
            turned = rotation_about(axis, travel * share)
            hand.hold(pivot + turned @ (position - pivot), quaternion_of(turned @ orientation))
