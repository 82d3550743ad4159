"""Objects put on a shelf, and into a sink."""

from __future__ import annotations

from functools import partial

import numpy as np

from momap_ros.simulation.assets import kinds_with
from momap_ros.simulation.hand import ScriptedHand
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.grasping import choose, put_down, take
from momap_ros.simulation.skills.operating import fixture_of
from momap_ros.simulation.task import Task

_BESIDE_M = 0.03  # how far from the middle things are put
_WITHIN_M = 0.05  # of where it was put, an object still rests where it should
SUNK_M = 0.03  # how much lower an object may come to rest than upright on what carries it


def _furnish(builder: SceneBuilder, *, skill: str, kind: str) -> Task:
    fixture = builder.add_fixture(kind)
    item = builder.add(builder.choose_acted(skill, kinds_with("graspable")))
    goal_xy = fixture.xy + builder.rng.uniform(-_BESIDE_M, _BESIDE_M, 2)
    return Task(skill, item.name, item, fixture=fixture, goal_xy=goal_xy)


def _retarget(scene: Scene, rng: np.random.Generator, *, skill: str, kind: str) -> Task | None:
    item = choose(scene.free_objects, "graspable", rng)
    for fixture in scene.fixtures:
        if item and fixture.kind == kind:
            goal_xy = fixture.xy + rng.uniform(-_BESIDE_M, _BESIDE_M, 2)
            return Task(skill, item.name, item, fixture=fixture, goal_xy=goal_xy)
    return None


def _put(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Take the object over the fixture and put it down in it or on it."""
    item, goal_xy, top_m = scene.acted_object, scene.task.goal_xy, fixture_of(scene).top_m
    assert item is not None  # set wherever this module makes the task
    assert goal_xy is not None
    grip = take(hand, item, rng)
    goal = np.array([*goal_xy, top_m + 0.006])
    over_it = hand.position(item.name) + grip.offset
    over_it[2] = max(over_it[2], goal[2] + grip.offset[2] + 0.08)
    hand.move_to(over_it, grip.quaternion, hand.speed)
    put_down(hand, goal, grip)
    rest = hand.position(item.name)
    on_or_in = top_m - 0.005 < rest[2] < top_m + SUNK_M
    return bool(np.linalg.norm(rest[:2] - goal_xy) < _WITHIN_M and on_or_in)


def _skill(name: str, kind: str, *templates: str) -> Skill:
    return Skill(
        name,
        templates,
        partial(_furnish, skill=name, kind=kind),
        _put,
        retarget=partial(_retarget, skill=name, kind=kind),
        kinds=kinds_with("graspable"),
    )


SKILLS = (
    _skill(
        "put_on_shelf",
        "shelf",
        "put the {a} on the shelf",
        "place the {a} on the shelf",
        "set the {a} on top of the shelf",
        "put the {a} up on the shelf",
        "take the {a} and put it on the shelf",
        "pick up the {a} and place it on the shelf",
    ),
    _skill(
        "put_in_sink",
        "sink",
        "put the {a} in the sink",
        "place the {a} in the sink",
        "drop the {a} into the sink",
        "put the {a} into the sink",
        "take the {a} and put it in the sink",
        "pick up the {a} and place it in the sink",
    ),
)
