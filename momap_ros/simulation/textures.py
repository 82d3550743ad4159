"""Colours, procedural textures and the materials made of them."""

from __future__ import annotations

import mujoco
import numpy as np

from momap_ros.geometry import Float64

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.8, 0.12, 0.1),
    "green": (0.15, 0.6, 0.2),
    "blue": (0.12, 0.25, 0.75),
    "yellow": (0.9, 0.75, 0.1),
    "orange": (0.9, 0.45, 0.1),
    "purple": (0.45, 0.15, 0.55),
    "white": (0.9, 0.9, 0.88),
    "black": (0.08, 0.08, 0.08),
    "pink": (0.9, 0.5, 0.6),
    "brown": (0.4, 0.25, 0.12),
    "grey": (0.5, 0.5, 0.5),
    "teal": (0.1, 0.55, 0.55),
}
TEXTURE_PIXELS = 128
_PATTERNS = ("wood", "speckle", "check", "stripe", "flat")
HELD_OUT_PATTERNS = ("marble", "rings")  # of the split that shows scenes never seen in training


def value_noise(rng: np.random.Generator, pixels: int, octaves: int = 4) -> Float64:
    """(pixels, pixels) smooth noise in about [0, 1]: bilinear lattices, each twice as fine and half as strong."""
    ramp = np.linspace(0, 1, pixels)
    total = np.zeros((pixels, pixels))
    for octave in range(octaves):
        cells = 2 ** (octave + 2)
        lattice = rng.random((cells + 1, cells + 1))
        position = ramp * cells * 0.999
        index = position.astype(int)
        fraction = position - index
        rows = lattice[index] * (1 - fraction)[:, None] + lattice[index + 1] * fraction[:, None]
        total += (rows[:, index] * (1 - fraction) + rows[:, index + 1] * fraction) / 2**octave
    return total / 2


def procedural_texture(rng: np.random.Generator, pixels: int = TEXTURE_PIXELS, *, held_out: bool = False) -> np.ndarray:
    """(pixels, pixels, 3) uint8 picture of a random surface.

    Args:
        rng: source of every choice.
        pixels: of a side.
        held_out: marble or rings, which training never shows; else wood, speckle, checks, stripes or almost flat.
    """
    pattern = rng.choice(HELD_OUT_PATTERNS if held_out else _PATTERNS)
    first, second = rng.uniform(0.1, 0.95, 3), rng.uniform(0.1, 0.95, 3)
    if rng.random() < 0.6:  # most tables and floors are of wood or stone tones with little contrast
        first = np.clip(np.array([0.6, 0.42, 0.25]) * rng.uniform(0.5, 1.5) + rng.normal(0, 0.05, 3), 0, 1)
        second = np.clip(first * rng.uniform(0.6, 1.25), 0, 1)
    x = np.broadcast_to(np.linspace(0, 1, pixels), (pixels, pixels))
    y = x.T
    if pattern == "wood":
        rings = x * rng.uniform(4, 14) + value_noise(rng, pixels) * rng.uniform(1, 4)
        weight = 0.5 + 0.5 * np.sin(rings * 2 * np.pi)
    elif pattern == "marble":
        weight = np.abs(np.sin((x + y + value_noise(rng, pixels) * 3) * 5))
    elif pattern == "rings":
        weight = 0.5 + 0.5 * np.sin(np.hypot(x - rng.random(), y - rng.random()) * rng.uniform(20, 60))
    elif pattern == "speckle":
        weight = (rng.random((pixels, pixels)) > 0.85).astype(float)
    elif pattern == "check":
        tiles = rng.integers(3, 12)
        weight = (((x * tiles).astype(int) + (y * tiles).astype(int)) % 2).astype(float)
    elif pattern == "stripe":
        weight = ((x * rng.integers(4, 16)).astype(int) % 2).astype(float)
    else:
        weight = value_noise(rng, pixels) * 0.2
    image = first * (1 - weight[..., None]) + second * weight[..., None]
    grain = rng.normal(0, 0.015, (pixels, pixels, 1))
    return np.asarray(np.clip(image + grain, 0, 1) * 255, np.uint8)


class Materials:
    """Makes uniquely named materials in one scene; each call draws a new look."""

    def __init__(self, spec: mujoco.MjSpec, rng: np.random.Generator, *, held_out: bool = False) -> None:
        """Materials are added to `spec`; every look comes from `rng`; `held_out` as in procedural_texture."""
        self.held_out = held_out
        self._spec = spec
        self._rng = rng
        self._count = 0

    def textured(self) -> str:
        """Name of a new material with a procedural texture."""
        rng, name = self._rng, self._next_name()
        image = procedural_texture(rng, held_out=self.held_out)
        texture = self._spec.add_texture(
            name=f"{name}_texture",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=image.shape[1],
            height=image.shape[0],
            nchannel=3,
        )
        texture.data = image.tobytes()
        repeat, specular, shininess = rng.uniform(1, 4), rng.uniform(0, 0.4), rng.uniform(0, 0.6)
        material = self._spec.add_material(
            name=name, texrepeat=[repeat, repeat], texuniform=True, specular=specular, shininess=shininess
        )
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
        material.textures = textures
        return name

    def plain(self, rgb: tuple[float, float, float] | Float64) -> str:
        """Name of a new material of about this colour."""
        rng, name = self._rng, self._next_name()
        shade = np.clip(np.array(rgb) * rng.uniform(0.8, 1.15) + rng.normal(0, 0.02, 3), 0, 1)
        specular, shininess = rng.uniform(0, 0.6), rng.uniform(0, 0.8)
        self._spec.add_material(name=name, rgba=[*shade, 1.0], specular=specular, shininess=shininess)
        return name

    def _next_name(self) -> str:
        self._count += 1
        return f"material_{self._count}"
