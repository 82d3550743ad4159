"""What a skill has to offer: sentences, what it needs in a scene, how it is played, and when it has succeeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from momap_ros.simulation.hand import ScriptedHand, Simulation
from momap_ros.simulation.scene import Scene, SceneBuilder
from momap_ros.simulation.task import Task

Templates = tuple[str, ...] | Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Skill:
    """Something a robot, or gravity, does with a thing.

    Attributes:
        name: lower case with underscores.
        templates: sentences; {a} the acted object, {b} the target, {d} a direction, {viewer} camera or robot. At least
            six; where the direction decides the wording, at least six per direction (keys left, right, away, closer).
        furnish: adds what the skill needs to the scene, and says what is to happen. Raises NoRoomError where the
            table is too full.
        perform: moves the hand; returns whether the skill's own check holds. None where nobody acts.
        unfold: where nobody acts: lets gravity do what it does; returns whether the skill's own check holds. There may
            be no arm.
        retarget: chooses what else could happen in a scene made for another task; None where nothing suits. Skills
            that need a fixture of their own have none.
        start: puts joints in place before the first frame (an open drawer, an object on its side).
        kinds: of objects that it can act on; empty where it acts on a part of a fixture, or on nothing.
        weight: how often it is drawn, beside the others.
        quasi_static: nothing flies, rolls or falls on its own, so the same motion may be slower.
    """

    name: str
    templates: Templates
    furnish: Callable[[SceneBuilder], Task]
    perform: Callable[[Scene, ScriptedHand, np.random.Generator], bool] | None = None
    unfold: Callable[[Scene, Simulation, np.random.Generator], bool] | None = None
    retarget: Callable[[Scene, np.random.Generator], Task | None] | None = None
    start: Callable[[Scene, Simulation, np.random.Generator], None] | None = None
    kinds: tuple[str, ...] = ()
    weight: float = 1.0
    quasi_static: bool = True
