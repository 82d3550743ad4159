"""Parts of fixtures that move by their own weight: a lamp that swings, a lid that falls shut."""

from __future__ import annotations

import numpy as np

from momap_ros.simulation.hand import Simulation
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.operating import fixture_of, reached
from momap_ros.simulation.task import Task

_SWING_S = (1.5, 4.0)
_FALL_S = 4.0  # longest that a lid takes
_LID_DAMPING = (0.02, 0.15)  # N m s / rad: from one that slams to one with a damper


def _furnish_swing(builder: SceneBuilder) -> Task:
    fixture = builder.add_fixture("lamp", start=(0.5, 1.0), falls=True)
    return Task("swing", fixture.part, fixture=fixture)


def _swing(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> bool:
    """Let it swing; it must have passed through to the other side."""
    fixture = fixture_of(scene)
    positions = []
    for _ in range(int(rng.uniform(*_SWING_S) / 0.04)):
        simulation.wait(10)
        positions.append(simulation.joint(fixture.joint))
    return min(positions) < -0.3 * fixture.start


def _furnish_fall(builder: SceneBuilder) -> Task:
    fixture = builder.add_fixture("lid", start=(0.45, 0.8), falls=True)
    builder.spec.joint(fixture.joint).damping = [builder.rng.uniform(*_LID_DAMPING), 0, 0]
    return Task("fall_shut", fixture.part, fixture=fixture)


def _fall(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> bool:
    """Let it fall, and look on for a moment."""
    fixture = fixture_of(scene)
    before = simulation.joint(fixture.joint)
    for _ in range(int(_FALL_S / 0.04)):
        simulation.wait(10)
        if simulation.joint(fixture.joint) < 0.01:
            break
    simulation.wait(50)
    simulation.rest(rng.uniform(0.8, 2.0))
    return reached(fixture, 0.0, before, simulation.joint(fixture.joint))


SKILLS = (
    Skill(
        "swing",
        (
            "let the lamp swing",
            "let go of the lamp",
            "let the lamp swing to and fro",
            "watch the lamp swing",
            "release the lamp",
            "let the hanging lamp swing freely",
        ),
        _furnish_swing,
        unfold=_swing,
        weight=0.5,
        quasi_static=False,
    ),
    Skill(
        "fall_shut",
        (
            "let the lid fall",
            "let the lid fall shut",
            "let go of the lid",
            "let the box fall shut",
            "drop the lid of the box",
            "release the lid",
        ),
        _furnish_fall,
        unfold=_fall,
        weight=0.5,
        quasi_static=False,
    ),
)
