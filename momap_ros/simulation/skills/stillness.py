"""Scenes in which nobody does anything and nothing moves."""

from __future__ import annotations

import numpy as np

from momap_ros.simulation.assets import KINDS
from momap_ros.simulation.hand import Simulation
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.task import Task

_STILL_M_S = 0.01


def _furnish(builder: SceneBuilder) -> Task:
    builder.add(builder.choose_other(KINDS))
    return Task("wait")


def _retarget(_scene: Scene, _rng: np.random.Generator) -> Task | None:
    return Task("wait")


def _unfold(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> bool:
    simulation.rest(rng.uniform(1.0, 4.0))
    speeds = [np.linalg.norm(simulation.data.body(item.name).cvel[3:]) for item in scene.objects]
    return bool(max(speeds, default=0.0) < _STILL_M_S)


SKILLS = (
    Skill(
        "wait",
        (
            "wait",
            "do nothing",
            "keep still",
            "hold still",
            "leave everything as it is",
            "do not touch anything",
            "stay where you are",
        ),
        _furnish,
        unfold=_unfold,
        retarget=_retarget,
    ),
)
