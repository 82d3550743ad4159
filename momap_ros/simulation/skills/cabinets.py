"""Drawers and doors: opened and closed by their handles."""

from __future__ import annotations

from functools import partial

import mujoco
import numpy as np

from momap_ros.simulation.arm import HAND, OPEN_M
from momap_ros.simulation.fixtures import add_door, add_drawer
from momap_ros.simulation.hand import ScriptedHand, Simulation, quaternion_forward, quaternion_of, rotation_about
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.task import Task

_DRAWER_SPEED, _DOOR_SPEED = 0.25, 1.4  # m/s, rad/s
# A door that stops short of a random angle is still open; what counts is that it clearly moved the right way.
_DRAWER_TOLERANCE, _DRAWER_MOVED = 0.03, 0.03
_DOOR_TOLERANCE, _DOOR_MOVED = 0.6, 0.35


def _furnish(builder: SceneBuilder, *, skill: str) -> Task:
    fixture = builder.add_fixture(add_drawer if skill.endswith("drawer") else add_door)
    is_drawer, rng = fixture.kind == "drawer", builder.rng
    opened = fixture.limit * rng.uniform(0.65, 1) if is_drawer else rng.uniform(0.7, 1.5)
    return Task(skill, fixture.part, fixture=fixture, amount=opened if skill.startswith("open") else 0.0)


def _start(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> None:
    """What is to be closed is open before."""
    fixture = scene.fixture
    assert fixture is not None  # furnished by this module
    opened = rng.uniform(0.6, 1) * fixture.limit if fixture.kind == "drawer" else rng.uniform(0.8, 1.6)
    simulation.set_joint(fixture.joint, opened)


def _perform(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Grasp the handle and carry the hand rigidly along with the joint."""
    fixture = scene.fixture
    assert fixture is not None  # furnished by this module
    is_drawer, goal = fixture.kind == "drawer", scene.task.amount
    inwards = -hand.rotation(fixture.part)[:, 0]
    quaternion = quaternion_forward(inwards, rng.uniform(0.5, 0.9))
    grip = np.array(hand.data.geom(fixture.handle).xpos)
    hand.move_to(grip - inwards * 0.08 + [0, 0, 0.08], quaternion, hand.speed, OPEN_M)
    hand.move_to(grip - inwards * 0.05 + [0, 0, 0.02], quaternion, hand.speed)
    hand.move_to(grip, quaternion, hand.speed * 0.6)
    hand.set_opening(0.003)
    hand.attach(fixture.part)
    before = hand.joint(fixture.joint)
    carry_along(hand, fixture.joint, goal - before, speed=_DRAWER_SPEED if is_drawer else _DOOR_SPEED)
    hand.open()
    outwards = hand.rotation(fixture.part)[:, 0]
    hand.move_to(hand.data.geom(fixture.handle).xpos + outwards * 0.07 + [0, 0, 0.06], hand.orientation, hand.speed)
    hand.wait(30)
    after = hand.joint(fixture.joint)
    tolerance, moved = (_DRAWER_TOLERANCE, _DRAWER_MOVED) if is_drawer else (_DOOR_TOLERANCE, _DOOR_MOVED)
    return abs(after - goal) < tolerance and abs(after - before) > moved


def carry_along(hand: ScriptedHand, joint: str, travel: float, *, speed: float) -> None:
    """Move the hand as if it were fixed to a part while the part's joint travels.

    Args:
        hand: holds the part.
        joint: the part's joint, a slide or a hinge.
        travel: metres or radians.
        speed: metres or radians per second.
    """
    data, axis = hand.data, np.array(hand.data.joint(joint).xaxis)
    pivot = np.array(data.joint(joint).xanchor)
    position, orientation = hand.position(HAND), hand.rotation(HAND)
    is_slide = hand.model.joint(joint).type[0] == mujoco.mjtJoint.mjJNT_SLIDE
    for share in hand.shares(max(abs(travel) / speed, 0.1)):
        if is_slide:
            hand.hold(position + axis * travel * share, hand.orientation)
        else:
            turned = rotation_about(axis, travel * share)
            hand.hold(pivot + turned @ (position - pivot), quaternion_of(turned @ orientation))


def _skill(name: str, templates: tuple[str, ...]) -> Skill:
    start = _start if name.startswith("close") else None
    return Skill(name, templates, partial(_furnish, skill=name), _perform, start=start)


SKILLS = (
    _skill(
        "open_drawer",
        (
            "open the drawer",
            "pull the drawer out",
            "pull the drawer open",
            "slide the drawer open",
            "pull out the drawer",
            "open the drawer of the cabinet",
        ),
    ),
    _skill(
        "close_drawer",
        (
            "close the drawer",
            "shut the drawer",
            "push the drawer in",
            "slide the drawer shut",
            "push the drawer closed",
            "close the drawer of the cabinet",
        ),
    ),
    _skill(
        "open_door",
        (
            "open the door",
            "open the cabinet door",
            "pull the door open",
            "swing the door open",
            "open the cabinet",
            "open up the door",
        ),
    ),
    _skill(
        "close_door",
        (
            "close the door",
            "shut the door",
            "close the cabinet door",
            "push the door shut",
            "close the cabinet",
            "shut the cabinet door",
        ),
    ),
)
