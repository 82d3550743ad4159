"""Shapes of tools, cutlery, toys and other things about the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from momap_ros.simulation.parts import COLLISION_ONLY, LOOKS_ONLY, Part, Size


def _block(part: Part) -> Size:
    half = part.rng.uniform(0.012, 0.022, 3)
    part.box(half, (0.0, 0.0, half[2]))
    return Size(half[1], 2 * half[2])


def _ball(part: Part) -> Size:
    radius = part.rng.uniform(0.015, 0.026)
    part.sphere(radius, (0.0, 0.0, radius))
    return Size(radius, 2 * radius)


def _sponge(part: Part) -> Size:
    length, width = part.rng.uniform(0.03, 0.045), part.rng.uniform(0.018, 0.025)
    height = width * 0.5
    part.box([length, width, height], (0.0, 0.0, height))
    scourer = [length * 1.001, width * 1.001, height * 0.2]
    part.box(scourer, (0.0, 0.0, height * 1.82), material=part.plain("green"), **LOOKS_ONLY)
    return Size(width, 2 * height)


def _soap(part: Part) -> Size:
    length, width, height = part.rng.uniform(0.026, 0.034), part.rng.uniform(0.016, 0.021), 0.011
    part.box([length, width, height], (0.0, 0.0, height), **COLLISION_ONLY)
    flat = width - height
    part.box([length - height, flat, height], (0.0, 0.0, height), **LOOKS_ONLY)
    for side in (-flat, flat):
        part.rod((height - length, side, height), (length - height, side, height), height, **LOOKS_ONLY)
    for end in (height - length, length - height):
        part.rod((end, -flat, height), (end, flat, height), height, **LOOKS_ONLY)
    return Size(width, 2 * height)


def _spoon(part: Part) -> Size:
    length = part.rng.uniform(0.04, 0.06)
    part.rod((-length, 0.0, 0.005), (length * 0.7, 0.0, 0.006), 0.0045)
    part.ellipsoid([0.02, 0.014, 0.006], (length * 0.9, 0.0, 0.007))
    return Size(0.006, 0.014)


def _fork(part: Part) -> Size:
    length, tip = part.rng.uniform(0.045, 0.06), 0.003
    part.rod((-length, 0.0, 0.005), (length * 0.6, 0.0, 0.005), 0.0045)
    part.box([0.007, 0.011, tip], (length * 0.6 + 0.007, 0.0, tip))
    for side in (-0.0088, -0.003, 0.003, 0.0088):
        part.box([0.014, 0.0016, tip], (length * 0.6 + 0.027, side, tip), **LOOKS_ONLY)
    return Size(0.006, 0.012)


def _knife(part: Part) -> Size:
    """A table knife that lies flat."""
    length = part.rng.uniform(0.05, 0.065)
    part.rod((-length, 0.0, 0.006), (-length * 0.1, 0.0, 0.006), 0.006, material=part.plain("black"))
    part.box([length * 0.5, 0.008, 0.0015], (length * 0.4, 0.0, 0.006))
    part.ellipsoid([length * 0.25, 0.008, 0.0015], (length * 0.9, 0.0, 0.006), **LOOKS_ONLY)
    return Size(0.008, 0.012, grip=(-length * 0.35, 0.007), grip_half_m=0.006)


def _spatula(part: Part) -> Size:
    length = part.rng.uniform(0.055, 0.07)
    part.rod((-length, 0.0, 0.006), (length * 0.35, 0.0, 0.005), 0.0055, material=part.plain("black"))
    part.box([0.026, 0.02, 0.002], (length * 0.35 + 0.026, 0.0, 0.003))
    return Size(0.006, 0.012)


def _marker(part: Part) -> Size:
    """Its cap has the colour, its barrel is pale."""
    length, radius = part.rng.uniform(0.042, 0.055), part.rng.uniform(0.0065, 0.008)
    barrel = part.plain("white" if part.rng.random() < 0.7 else "black")
    part.bar(radius, 0.55 * length, (-0.45 * length, 0.0, radius), material=barrel)
    part.bar(radius * 1.1, 0.5 * length, (0.5 * length, 0.0, radius))
    return Size(radius * 1.1, 2 * radius)


def _screwdriver(part: Part) -> Size:
    length, radius = part.rng.uniform(0.05, 0.065), part.rng.uniform(0.009, 0.012)
    part.rod((-length, 0.0, radius), (-length * 0.25, 0.0, radius), radius)
    part.rod((-length * 0.2, 0.0, radius), (length, 0.0, 0.004), 0.003, material=part.plain("grey"))
    return Size(radius, 2 * radius, grip=(-length * 0.6, radius), grip_half_m=radius)


def _hammer(part: Part) -> Size:
    length, head = part.rng.uniform(0.055, 0.07), part.rng.uniform(0.009, 0.011)
    part.rod((-length, 0.0, 0.006), (length * 0.8, 0.0, head), 0.0065)
    part.box([head, 0.026, head], (length * 0.8, 0.0, head), material=part.plain("grey"))
    return Size(0.0075, 2 * head, grip=(-length * 0.1, 0.009), grip_half_m=0.0065)


def _brush(part: Part) -> Size:
    """A hand brush: bristles below a back, with a handle."""
    length, height = part.rng.uniform(0.03, 0.04), part.rng.uniform(0.022, 0.028)
    part.box([length, 0.014, height * 0.3], (0.0, 0.0, height * 0.3), material=part.plain("black"))
    part.box([length * 1.05, 0.016, height * 0.18], (0.0, 0.0, height * 0.78))
    part.rod((-length, 0.0, height * 0.8), (-length - 0.045, 0.0, height), 0.006, **LOOKS_ONLY)
    return Size(0.016, height)


def _book(part: Part) -> Size:
    """Between two covers, pages that stand back on three sides."""
    length, width, half = part.rng.uniform(0.05, 0.065), part.rng.uniform(0.028, 0.033), part.rng.uniform(0.007, 0.012)
    part.box([length, width, half], (0.0, 0.0, half), **COLLISION_ONLY)
    for height in (0.0015, 2 * half - 0.0015):
        part.box([length, width, 0.0015], (0.0, 0.0, height), **LOOKS_ONLY)
    part.box([length, 0.0015, half], (0.0, -width + 0.0015, half), **LOOKS_ONLY)
    pages = part.plain("white")
    part.box([length - 0.003, width - 0.002, half - 0.002], (0.0, -0.001, half), material=pages, **LOOKS_ONLY)
    return Size(width, 2 * half)


def _box(part: Part) -> Size:
    """A cereal box that stands, with a label on its two large faces."""
    length, width = part.rng.uniform(0.03, 0.04), part.rng.uniform(0.013, 0.02)
    height = part.rng.uniform(0.08, 0.105)
    part.box([length, width, height / 2], (0.0, 0.0, height / 2))
    label, middle = part.plain("white"), height * part.rng.uniform(0.35, 0.65)
    part.box([length * 0.7, width * 1.01, height * 0.2], (0.0, 0.0, middle), material=label, **LOOKS_ONLY)
    return Size(width, height)


def _toy_car(part: Part) -> Size:
    length, width, wheel = part.rng.uniform(0.032, 0.042), part.rng.uniform(0.016, 0.02), 0.008
    part.box([length, width, 0.008], (0.0, 0.0, 0.014))
    part.box([length * 0.55, width * 0.9, 0.007], (-length * 0.1, 0.0, 0.029))
    dark, sideways = part.plain("black"), [np.sqrt(0.5), np.sqrt(0.5), 0, 0]
    for x in (-0.6, 0.6):
        for y in (-1, 1):
            hub = (x * length, y * width, wheel)
            part.bar(wheel, 0.003, hub, quat=sideways, material=dark, **LOOKS_ONLY)
        part.box([0.004, width, 0.007], (x * length, 0.0, 0.007), **COLLISION_ONLY)
    return Size(width + 0.003, 0.036)


SHAPES: Mapping[str, Callable[[Part], Size]] = MappingProxyType(
    {
        "block": _block,
        "ball": _ball,
        "sponge": _sponge,
        "soap": _soap,
        "spoon": _spoon,
        "fork": _fork,
        "knife": _knife,
        "spatula": _spatula,
        "marker": _marker,
        "screwdriver": _screwdriver,
        "hammer": _hammer,
        "brush": _brush,
        "book": _book,
        "box": _box,
        "toy car": _toy_car,
    }
)
