"""Shapes of fruit, vegetables and other things to eat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from momap_ros.simulation.parts import COLLISION_ONLY, LOOKS_ONLY, Part, Size


def long_size(part: Part) -> tuple[float, float]:
    """Half length and radius of an elongated thing, metres."""
    return part.rng.uniform(0.03, 0.06), part.rng.uniform(0.011, 0.018)


def _eggplant(part: Part) -> Size:
    length, radius = long_size(part)
    part.ellipsoid([length, radius, radius], (0.0, 0.0, radius))
    part.bar(radius * 0.6, radius * 0.35, (-length, 0.0, radius), material=part.plain("green"), **LOOKS_ONLY)
    return Size(radius, 2 * radius)


def _pepper(part: Part) -> Size:
    length, radius = long_size(part)
    part.ellipsoid([length * 0.6, radius * 1.3, radius * 1.1], (0.0, 0.0, radius * 1.1))
    stem = part.plain("green")
    part.rod((-length * 0.6, 0.0, radius), (-length * 0.75, 0.0, radius * 1.3), 0.003, material=stem, **LOOKS_ONLY)
    return Size(radius * 1.3, radius * 2.2)


def _carrot(part: Part) -> Size:
    length, radius = long_size(part)
    for index, share in enumerate((1.0, 0.8, 0.6)):
        start = -length + index * length * 0.66
        part.rod((start, 0.0, radius), (start + length * 0.66, 0.0, radius * 0.8), radius * share)
    leaves = part.plain("green")
    for side in (-0.3, 0.3):
        tip = (-length - 0.028, side * 0.03, radius + 0.004)
        part.rod((-length - radius * 0.7, 0.0, radius), tip, 0.003, material=leaves, **LOOKS_ONLY)
    return Size(radius, 2 * radius)


def _banana(part: Part) -> Size:
    length, radius = long_size(part)
    bend = length * 1.1
    angles = np.linspace(-0.9, 0.9, 5)
    for start, stop in itertools.pairwise(angles):
        ends = [(bend * np.sin(angle), bend * np.cos(angle) - bend, radius) for angle in (start, stop)]
        part.rod(ends[0], ends[1], radius * 0.85)
    return Size(radius * 0.85, 2 * radius)


def _round_fruit(part: Part, radius: float) -> Size:
    part.sphere(radius, (0.0, 0.0, radius))
    return Size(radius, 2 * radius)


def _apple(part: Part) -> Size:
    radius = part.rng.uniform(0.022, 0.03)
    stem = part.plain("brown")
    part.rod((0.0, 0.0, 1.95 * radius), (0.003, 0.0, 2.25 * radius), 0.0018, material=stem, **LOOKS_ONLY)
    return _round_fruit(part, radius)


def _orange(part: Part) -> Size:
    return _round_fruit(part, part.rng.uniform(0.024, 0.031))


def _lemon(part: Part) -> Size:
    length, radius = part.rng.uniform(0.022, 0.027), part.rng.uniform(0.016, 0.02)
    part.ellipsoid([length, radius, radius], (0.0, 0.0, radius))
    for side in (-1, 1):
        part.ellipsoid([0.006, 0.005, 0.005], (side * length, 0.0, radius), **LOOKS_ONLY)
    return Size(radius, 2 * radius)


def _tomato(part: Part) -> Size:
    radius = part.rng.uniform(0.019, 0.026)
    height = radius * 0.8
    part.ellipsoid([radius, radius, height], (0.0, 0.0, height))
    leaves = part.plain("green")
    for angle in np.arange(4) * np.pi / 2:
        tip = (0.6 * radius * np.cos(angle), 0.6 * radius * np.sin(angle), 1.83 * height)
        part.rod((0.0, 0.0, 2.02 * height), tip, 0.002, material=leaves, **LOOKS_ONLY)
    return Size(radius, 2 * height)


def _potato(part: Part) -> Size:
    length, radius = part.rng.uniform(0.026, 0.036), part.rng.uniform(0.018, 0.024)
    height = radius * 0.85
    part.ellipsoid([length, radius, height], (0.0, 0.0, height))
    part.ellipsoid([length * 0.7, radius * 0.85, height * 0.9], (length * 0.3, radius * 0.2, height), **LOOKS_ONLY)
    return Size(radius, 2 * height)


def _corn(part: Part) -> Size:
    """A cob half in its husk."""
    length, radius = part.rng.uniform(0.045, 0.06), part.rng.uniform(0.012, 0.015)
    part.rod((-length + radius, 0.0, radius), (length - radius, 0.0, radius), radius)
    husk = part.plain("green")
    part.ellipsoid([length * 0.5, radius * 1.15, radius * 1.1], (-length * 0.6, 0.0, radius * 1.1), material=husk)
    return Size(radius * 1.1, 2 * radius)


def _bread(part: Part) -> Size:
    """A loaf: a low box under a round top."""
    length, width = part.rng.uniform(0.042, 0.055), part.rng.uniform(0.022, 0.028)
    height = width * 0.9
    part.box([length, width, height / 2], (0.0, 0.0, height / 2))
    part.ellipsoid([length * 1.04, width * 1.1, width * 0.7], (0.0, 0.0, height), **LOOKS_ONLY)
    return Size(width, height + width * 0.7)


def _cheese(part: Part) -> Size:
    """A wedge; to the physics, a wide and a narrow box."""
    length, height = part.rng.uniform(0.034, 0.042), part.rng.uniform(0.024, 0.032)
    back, width = length * 0.8, 0.024
    outline = [(-length, 0.0), (back, -width), (back, width)]
    corners = np.array([(*xy, z) for z in (0.0, height) for xy in outline])
    faces = [(0, 2, 1), (3, 4, 5), (0, 1, 4), (0, 4, 3), (1, 2, 5), (1, 5, 4), (2, 0, 3), (2, 3, 5)]
    part.surface(corners, np.array(faces))
    part.box([length * 0.3, 0.018, height / 2], (back - length * 0.3, 0.0, height / 2), **COLLISION_ONLY)
    part.box([length * 0.4, 0.008, height / 2], (back - length, 0.0, height / 2), **COLLISION_ONLY)
    return Size(0.018, height, grip=(back - length * 0.3, height * 0.55))


SHAPES: Mapping[str, Callable[[Part], Size]] = MappingProxyType(
    {
        "eggplant": _eggplant,
        "carrot": _carrot,
        "banana": _banana,
        "pepper": _pepper,
        "apple": _apple,
        "orange": _orange,
        "lemon": _lemon,
        "tomato": _tomato,
        "potato": _potato,
        "corn": _corn,
        "bread": _bread,
        "cheese": _cheese,
    }
)
