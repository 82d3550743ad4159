"""What an episode is about."""

from __future__ import annotations

from dataclasses import dataclass

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import ObjectInfo
from momap_ros.simulation.fixtures import FixtureInfo


@dataclass(frozen=True)
class Task:
    """What is to happen in a scene.

    Attributes:
        skill: name of the skill.
        acted: body name of what the sentence asks to move; "" where nothing is to move.
        item: the acted object; None where it is a part of a fixture, or nothing.
        target: the object the acted one goes to or comes from.
        goal_xy: (2,) where the acted object goes, metres, world.
        motion_xy: (2,) motion asked of the acted object, metres, world.
        fixture: the fixture whose part is acted on, or that the acted object goes to.
        amount: how far a part goes, in the skill's own unit.
    """

    skill: str
    acted: str = ""
    item: ObjectInfo | None = None
    target: ObjectInfo | None = None
    goal_xy: Float64 | None = None
    motion_xy: Float64 | None = None
    fixture: FixtureInfo | None = None
    amount: float = 0.0

    @property
    def about(self) -> tuple[str, ...]:
        """Skill, and body names of what is acted on, of the target and of the fixture: what a sentence can name."""
        target, fixture = self.target, self.fixture
        return self.skill, self.acted, target.name if target else "", fixture.body if fixture else ""
