"""Drawers, doors and lids: opened and closed by their handles."""

from __future__ import annotations

from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.operating import operating_skill

_WEIGHT = 0.9  # what people open and close all day


def _opening(kind: str, *templates: str) -> Skill:
    return operating_skill(f"open_{kind}", kind, templates, start=(0.0, 0.0), goal=(0.6, 0.95), weight=_WEIGHT)


def _closing(kind: str, *templates: str) -> Skill:
    return operating_skill(f"close_{kind}", kind, templates, start=(0.5, 0.9), goal=(0.0, 0.0), weight=_WEIGHT)


SKILLS = (
    _opening(
        "drawer",
        "open the drawer",
        "pull the drawer out",
        "pull the drawer open",
        "slide the drawer open",
        "pull out the drawer",
        "open the drawer of the cabinet",
    ),
    _closing(
        "drawer",
        "close the drawer",
        "shut the drawer",
        "push the drawer in",
        "slide the drawer shut",
        "push the drawer closed",
        "close the drawer of the cabinet",
    ),
    _opening(
        "door",
        "open the door",
        "open the cabinet door",
        "pull the door open",
        "swing the door open",
        "open the cabinet",
        "open up the door",
    ),
    _closing(
        "door",
        "close the door",
        "shut the door",
        "close the cabinet door",
        "push the door shut",
        "close the cabinet",
        "shut the cabinet door",
    ),
    _opening(
        "lid",
        "open the lid",
        "open the box",
        "lift the lid of the box",
        "raise the lid",
        "open the lid of the box",
        "flip the lid open",
    ),
    _closing(
        "lid",
        "close the lid",
        "close the box",
        "shut the lid of the box",
        "lower the lid",
        "close the lid of the box",
        "shut the box",
    ),
)
