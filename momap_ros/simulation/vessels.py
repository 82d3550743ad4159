"""Shapes of what holds something: dishes, cups, bottles, cartons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from momap_ros.simulation.parts import COLLISION_ONLY, LOOKS_ONLY, Part, Size


def _can(part: Part) -> Size:
    radius = part.rng.uniform(0.016, 0.025)
    height = radius * part.rng.uniform(2.6, 3.8)
    part.disc(radius, 0.0, height)
    part.disc(radius * 0.85, height, height + 0.0015, material=part.plain("grey"), **LOOKS_ONLY)
    return Size(radius, height)


def _open_vessel(part: Part, radius: float, height: float, foot: float) -> Size:
    """Nothing is ever put in it, so it is one solid cylinder to the physics."""
    part.lathe([(0, 0), (foot, 0), (radius, height), (radius - 0.003, height), (foot - 0.003, 0.004), (0, 0.004)])
    part.disc(radius, 0.0, height, **COLLISION_ONLY)
    return Size(radius, height)


def _cup(part: Part) -> Size:
    radius = part.rng.uniform(0.024, 0.03)
    return _open_vessel(part, radius, part.rng.uniform(0.05, 0.075), radius * part.rng.uniform(0.75, 0.95))


def _glass(part: Part) -> Size:
    radius = part.rng.uniform(0.022, 0.027)
    return _open_vessel(part, radius, part.rng.uniform(0.075, 0.095), radius * part.rng.uniform(0.7, 0.85))


def _mug(part: Part) -> Size:
    radius, height = part.rng.uniform(0.025, 0.031), part.rng.uniform(0.055, 0.075)
    reach, low, high = radius + 0.018, height * 0.25, height * 0.8
    for start, stop in (
        ((radius - 0.002, 0.0, high), (reach, 0.0, high)),
        ((reach, 0.0, high), (reach, 0.0, low)),
        ((reach, 0.0, low), (radius - 0.002, 0.0, low)),
    ):
        part.rod(start, stop, 0.0045, **LOOKS_ONLY)
    return _open_vessel(part, radius, height, radius)


def _bottle(part: Part) -> Size:
    radius, height = part.rng.uniform(0.016, 0.024), part.rng.uniform(0.085, 0.115)
    neck = radius * 0.45
    part.lathe([(0, 0), (radius, 0), (radius, height * 0.6), (neck, height * 0.8), (neck, height), (0, height)])
    part.disc(neck * 1.15, height * 0.93, height * 1.01, material=part.plain("white"), **LOOKS_ONLY)
    part.disc(radius, 0.0, height * 0.65, **COLLISION_ONLY)
    part.disc(neck, height * 0.65, height, condim=4, **COLLISION_ONLY)
    return Size(radius, height, grip=(0.0, height * 0.85), grip_half_m=neck)


def _jar(part: Part) -> Size:
    radius, height = part.rng.uniform(0.022, 0.03), part.rng.uniform(0.055, 0.08)
    lid = height * 0.78
    part.lathe([(0, 0), (radius, 0), (radius, lid * 0.9), (radius * 0.8, lid), (0, lid)])
    part.disc(radius * 0.86, lid, height, material=part.plain("grey"), **LOOKS_ONLY)
    part.disc(radius, 0.0, height, **COLLISION_ONLY)
    return Size(radius, height)


def _kettle(part: Part) -> Size:
    """A pot with a spout, a lid with a knob, and a bow handle, by which it is taken."""
    radius, height = part.rng.uniform(0.034, 0.042), part.rng.uniform(0.05, 0.062)
    part.lathe([(0, 0), (radius, 0), (radius, height * 0.6), (radius * 0.5, height), (0, height)])
    part.disc(radius, 0.0, height * 0.8, **COLLISION_ONLY)
    part.rod((radius * 0.8, 0.0, height * 0.4), (radius * 1.5, 0.0, height * 0.9), 0.006, **LOOKS_ONLY)
    dark, bow = part.plain("black"), height + 0.034
    part.sphere(0.006, (0.0, 0.0, height + 0.003), material=dark, **LOOKS_ONLY)
    for start, stop in (
        ((-radius * 0.7, 0.0, height * 0.8), (-radius * 0.6, 0.0, bow)),
        ((-radius * 0.6, 0.0, bow), (radius * 0.6, 0.0, bow)),
        ((radius * 0.6, 0.0, bow), (radius * 0.7, 0.0, height * 0.8)),
    ):
        part.rod(start, stop, 0.005, material=dark, **LOOKS_ONLY)
    return Size(radius, height, bow + 0.005, (0.0, bow), 0.005)


def _carton(part: Part) -> Size:
    """A milk carton: a box under a gable roof."""
    half, height = part.rng.uniform(0.019, 0.025), part.rng.uniform(0.06, 0.08)
    part.box([half, half, height / 2], (0.0, 0.0, height / 2))
    roof, slope = half * 0.55, np.arctan2(half * 1.1, half)
    for side in (-1, 1):
        part.box(
            [half, np.hypot(half, half * 1.1) / 2, 0.0015],
            (0.0, side * half / 2, height + roof),
            quat=[np.cos(slope / 2), -side * np.sin(slope / 2), 0, 0],
            **LOOKS_ONLY,
        )
    top = height + half * 1.1 + 0.01
    part.box([half, 0.0015, 0.008], (0.0, 0.0, top - 0.008), **LOOKS_ONLY)
    part.disc(0.006, 0.0, 0.004, pos=[0.0, half * 0.55, height + roof], material=part.plain("white"), **LOOKS_ONLY)
    return Size(half, height, top)


def dish(part: Part, height: float, foot_share: float, belly: float) -> tuple[float, float]:
    """An open dish; `belly` widens the middle of the wall, as a share of the radius. Returns radius and height."""
    radius = part.rng.uniform(0.05, 0.085)
    foot = radius * foot_share
    middle = (foot + radius) / 2 + radius * belly
    outside = [(0.0, 0.0), (foot, 0.0), (middle, height * 0.45), (radius, height)]
    inside = [(radius - 0.004, height), (middle - 0.004, height * 0.45 + 0.002), (foot - 0.002, 0.004), (0.0, 0.004)]
    part.lathe(outside + inside)
    part.hollow_wall(radius * 0.96, height, 0.003, foot_share)
    return radius, height


def _bowl(part: Part) -> Size:
    return Size(*dish(part, part.rng.uniform(0.03, 0.05), 0.5, 0.12))


def _plate(part: Part) -> Size:
    return Size(*dish(part, part.rng.uniform(0.01, 0.016), 0.6, 0.0))


def _pot(part: Part) -> Size:
    radius, height = dish(part, part.rng.uniform(0.04, 0.06), 0.97, 0.0)
    part.rod((radius, 0.0, height * 0.9), (radius + 0.09, 0.0, height), 0.007, material=part.plain("black"))
    return Size(radius, height)


def _pan(part: Part) -> Size:
    """A low pot, taken by its handle."""
    radius, height = dish(part, part.rng.uniform(0.018, 0.026), 0.85, 0.0)
    dark = part.plain("black")
    part.rod((radius, 0.0, height * 0.9), (radius + 0.075, 0.0, height + 0.008), 0.006, material=dark)
    return Size(radius, height, height + 0.014, (radius + 0.04, height + 0.004), 0.006)


def _tray(part: Part) -> Size:
    length, width, rim = part.rng.uniform(0.075, 0.095), part.rng.uniform(0.05, 0.065), part.rng.uniform(0.012, 0.018)
    part.box([length, width, 0.003], (0.0, 0.0, 0.003))
    for side in (-1.0, 1.0):
        part.box([length, 0.003, rim / 2], (0.0, side * width, rim / 2))
        part.box([0.003, width, rim / 2], (side * length, 0.0, rim / 2))
    return Size(width, rim)


SHAPES: Mapping[str, Callable[[Part], Size]] = MappingProxyType(
    {
        "can": _can,
        "cup": _cup,
        "glass": _glass,
        "mug": _mug,
        "bottle": _bottle,
        "jar": _jar,
        "kettle": _kettle,
        "carton": _carton,
        "bowl": _bowl,
        "plate": _plate,
        "pot": _pot,
        "pan": _pan,
        "tray": _tray,
    }
)
