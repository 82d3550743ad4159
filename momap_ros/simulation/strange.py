"""Things that nobody has a name for: random shapes with made-up names, of which no two are alike.

Children take a word that they have never heard for the thing that they have no name for (mutual exclusivity,
doi:10.1016/0010-0285(88)90017-5). A model that knows every shape it is shown by name has no reason to learn that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from momap_ros.simulation.parts import COLLISION_ONLY, LOOKS_ONLY, Part, Size
from momap_ros.simulation.textures import PALETTE
from momap_ros.simulation.vessels import dish

_FIRST, _VOWELS, _LAST = "bdfgklmnprstvz", "aeiou", "bgvxz"  # no word of any sentence is spelt so; a test looks


def made_up_name(rng: np.random.Generator) -> str:
    """A word of five letters, such as "tovag"."""
    return "".join(str(rng.choice(list(letters))) for letters in (_FIRST, _VOWELS, _FIRST, _VOWELS, _LAST))


def _accent(part: Part) -> str:
    return part.plain(str(part.rng.choice(list(PALETTE))))


def _turned(part: Part) -> Size:
    """Waists and bellies on a lathe, closed at the top, where it may have a knob."""
    radius, height = part.rng.uniform(0.02, 0.029), part.rng.uniform(0.04, 0.09)
    rings = int(part.rng.integers(3, 6))
    shares = part.rng.uniform(0.4, 1.0, rings)
    shares[0], shares[part.rng.integers(1, rings)] = part.rng.uniform(0.75, 1.0), 1.0
    heights = np.linspace(0, height, rings)
    part.lathe([(0, 0), *zip(radius * shares, heights, strict=True), (0, height)])
    part.disc(radius, 0.0, height, **COLLISION_ONLY)
    if part.rng.random() < 0.5:
        knob = part.rng.uniform(0.005, 0.009)
        part.sphere(knob, (0.0, 0.0, height + 0.5 * knob), material=_accent(part), **LOOKS_ONLY)
    return Size(radius, height)


def _bead(part: Part, x: float, half_length: float, radius: float) -> None:
    shape = part.rng.integers(3)
    if shape == 0:
        part.ellipsoid([half_length * 1.15, radius, radius], (x, 0.0, radius))
    elif shape == 1:
        part.box([half_length, radius, radius], (x, 0.0, radius))
    else:
        part.bar(radius, half_length, (x, 0.0, radius))


def _beads(part: Part) -> Size:
    """Three to five beads in a row; it is held by one in the middle."""
    count = int(part.rng.integers(3, 6))
    radii, halves = part.rng.uniform(0.008, 0.017, count), part.rng.uniform(0.007, 0.016, count)
    middle = count // 2
    places = np.cumsum(2 * halves) - halves
    places -= places[middle]
    other = replace(part, material=_accent(part))
    for index in range(count):
        own = index == middle or part.rng.random() < 0.7
        _bead(part if own else other, places[index], halves[index], radii[index])
    radius = float(radii[middle])
    return Size(radius, 2 * radius, 2 * float(radii.max()), (0.0, radius))


def _bent(part: Part) -> Size:
    """A rod with one or both ends bent aside: hooks, staples, the letters L, S, U and Z."""
    half, radius = part.rng.uniform(0.02, 0.035), part.rng.uniform(0.008, 0.012)
    part.rod((-half, 0.0, radius), (half, 0.0, radius), radius)
    for side in (-1, 1)[: 1 if part.rng.random() < 0.3 else 2]:
        length, angle = part.rng.uniform(0.02, 0.038), part.rng.choice([-1, 1]) * part.rng.uniform(0.8, 2.3)
        tip = (side * (half + length * np.cos(angle)), length * np.sin(angle), radius)
        part.rod((side * half, 0.0, radius), tip, radius * part.rng.uniform(0.75, 1.0))
    return Size(radius, 2 * radius)


def _tool(part: Part) -> Size:
    """A handle, and at its end two prongs, a cross bar or a wheel."""
    half, radius = part.rng.uniform(0.03, 0.045), part.rng.uniform(0.007, 0.011)
    _bead(part, 0.0, half, radius)
    accent = _accent(part)
    head = part.rng.integers(3)
    if head == 0:
        length, angle = part.rng.uniform(0.02, 0.035), part.rng.uniform(0.3, 0.8)
        for side in (-angle, angle):
            tip = (half + length * np.cos(side), length * np.sin(side), radius)
            part.rod((half, 0.0, radius), tip, 0.005, material=accent)
    elif head == 1:
        across = part.rng.uniform(0.018, 0.03)
        part.rod((half, -across, radius), (half, across, radius), radius * 0.8, material=accent)
        for side in (-across, across):
            part.sphere(radius * 1.1, (half, side, radius * 1.1), material=accent, **LOOKS_ONLY)
    else:
        wheel = part.rng.uniform(0.013, 0.022)
        part.disc(wheel, 0.0, 2 * radius, pos=[half + wheel * 0.8, 0.0, radius], material=accent)
    return Size(radius, 2 * radius, 2.2 * radius, (-half * 0.3, radius))


def _lump(part: Part) -> Size:
    """Something roundish or square with three to six knobs."""
    length, radius = part.rng.uniform(0.016, 0.026), part.rng.uniform(0.015, 0.021)
    if part.rng.random() < 0.5:
        part.ellipsoid([length, radius, radius], (0.0, 0.0, radius))
    else:
        part.box([length * 0.8, radius, radius], (0.0, 0.0, radius))
        length *= 0.8
    knob, accent = part.rng.uniform(0.005, 0.009), _accent(part)
    for angle in part.rng.uniform(0, 2 * np.pi) + np.arange(count := int(part.rng.integers(3, 7))) * 2 * np.pi / count:
        place = (length * np.cos(angle), radius * np.sin(angle), radius * part.rng.uniform(0.7, 1.5))
        part.sphere(knob, place, material=accent, **LOOKS_ONLY)
    return Size(radius, 2 * radius)


def _slab(part: Part) -> Size:
    """A low box with ridges across, or studs."""
    length, width, half = part.rng.uniform(0.028, 0.048), part.rng.uniform(0.015, 0.025), part.rng.uniform(0.007, 0.012)
    part.box([length, width, half], (0.0, 0.0, half))
    accent, ridged = _accent(part), part.rng.random() < 0.5
    for x in np.linspace(-0.75, 0.75, int(part.rng.integers(2, 5))) * length:
        if ridged:
            part.box([0.004, width * 0.95, 0.002], (x, 0.0, 2 * half), material=accent, **LOOKS_ONLY)
        else:
            for side in (-0.5, 0.5):
                part.ellipsoid([0.005, 0.005, 0.003], (x, side * width, 2 * half), material=accent, **LOOKS_ONLY)
    return Size(width, 2 * half)


def _tower(part: Part) -> Size:
    """Two or three storeys, round or square, each as wide as it likes but none wider than the lowest."""
    half, bottom = part.rng.uniform(0.016, 0.024), 0.0
    accent = _accent(part)
    for storey in range(int(part.rng.integers(2, 4))):
        width = half * (1.0 if storey == 0 else part.rng.uniform(0.5, 0.95))
        height = part.rng.uniform(0.012, 0.028)
        material = part.material if storey == 0 or part.rng.random() < 0.6 else accent
        if part.rng.random() < 0.5:
            part.box([width, width, height / 2], (0.0, 0.0, bottom + height / 2), material=material)
        else:
            part.disc(width, bottom, bottom + height, condim=4, material=material)
        bottom += height
    return Size(half, bottom, grip=(0.0, 0.008))


def _eared_dish(part: Part) -> Size:
    """A dish with three or four ears on its rim."""
    radius, height = dish(part, part.rng.uniform(0.02, 0.05), part.rng.uniform(0.5, 0.95), part.rng.uniform(-0.1, 0.15))
    accent, count = _accent(part), int(part.rng.integers(3, 5))
    for angle in part.rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count:
        place = (radius * np.cos(angle), radius * np.sin(angle), height)
        part.sphere(part.rng.uniform(0.008, 0.013), place, material=accent, **LOOKS_ONLY)
    return Size(radius, height)


SHAPES: Mapping[str, Callable[[Part], Size]] = MappingProxyType(
    {
        "strange turned thing": _turned,
        "strange beads": _beads,
        "strange bent thing": _bent,
        "strange tool": _tool,
        "strange lump": _lump,
        "strange slab": _slab,
        "strange tower": _tower,
        "strange dish": _eared_dish,
    }
)
