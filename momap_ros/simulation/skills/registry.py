"""Every skill by name, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills import (
    cabinets,
    controls,
    falling,
    grasping,
    handling,
    pushing,
    stillness,
    storing,
    swinging,
    tipping,
)
from momap_ros.simulation.splits import Split

_MODULES = (grasping, pushing, handling, tipping, storing, cabinets, controls, falling, swinging, stillness)
SKILLS: Mapping[str, Skill] = MappingProxyType({skill.name: skill for module in _MODULES for skill in module.SKILLS})
STATIC_SHARE = 0.10  # of the episodes of every split that has such episodes


def draw_skill(split: Split, rng: np.random.Generator) -> Skill:
    """A skill that occurs in the split, by its weight."""
    skills = [skill for skill in SKILLS.values() if _occurs(skill, split)]
    weights = np.array([skill.weight for skill in skills])
    still = np.array([skill.name == "wait" for skill in skills])
    if still.any():
        weights[still] = weights[~still].sum() * STATIC_SHARE / (1 - STATIC_SHARE)
    return skills[int(rng.choice(len(skills), p=weights / weights.sum()))]


def _occurs(skill: Skill, split: Split) -> bool:
    if not split.allows_skill(skill.name):
        return False
    if skill.kinds:
        return bool(split.acted_kinds(skill.name, skill.kinds))
    return split.factor != "objects"
