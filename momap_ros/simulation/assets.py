"""The fourteen kinds of loose objects, each from a handful of MuJoCo primitives or one lathe-turned mesh."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.textures import PALETTE, Materials

Geom = mujoco.mjtGeom
Profile = Sequence[tuple[float, float]]

# Colours in which a person would expect to meet these; every other kind comes in any colour.
NATURAL_COLORS: dict[str, tuple[str, ...]] = {
    "eggplant": ("purple",),
    "carrot": ("orange",),
    "banana": ("yellow",),
    "pepper": ("red", "green", "yellow"),
    "sponge": ("yellow", "green", "blue"),
    "spoon": ("grey", "black", "blue", "brown"),
}
_CONTACT = {"friction": [1.0, 0.02, 0.001], "condim": 4, "density": 400.0}
_LATHE_SEGMENTS = 24
_COLLISION_ONLY = 3  # geom group that is never rendered


@dataclass(frozen=True)
class ObjectInfo:
    """One object on the table.

    Attributes:
        name: body name in the model.
        kind: one of KINDS.
        color: a key of PALETTE.
        half_width_m: from the centre to where a finger touches.
        height_m: height at which other things rest or a gripper takes hold.
    """

    name: str
    kind: str
    color: str
    half_width_m: float
    height_m: float


@dataclass(frozen=True)
class _Part:
    """What a shape function builds on."""

    spec: mujoco.MjSpec
    body: mujoco.MjsBody
    materials: Materials
    rng: np.random.Generator
    material: str

    def geom(self, shape: mujoco.mjtGeom, **options: object) -> None:
        self.body.add_geom(type=shape, **{"material": self.material, **_CONTACT, **options})

    def lathe(self, profile: Profile) -> None:
        """Add the visible surface of revolution; it neither collides nor weighs anything."""
        vertices, faces = lathe_mesh(profile)
        mesh = self.spec.add_mesh(name=f"{self.body.name}_mesh")
        mesh.uservert = vertices.reshape(-1)
        mesh.userface = faces.reshape(-1)
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        self.body.add_geom(
            type=Geom.mjGEOM_MESH,
            meshname=mesh.name,
            material=self.material,
            contype=0,
            conaffinity=0,
            group=1,
            mass=0.0,
        )

    def hollow_wall(self, radius: float, height: float, thickness: float, taper: float) -> None:
        """Invisible ring of boxes and a floor: a container other objects can fall into."""
        count = 10
        middle = radius * (1 + taper) / 2
        for index in range(count):
            angle = 2 * np.pi * index / count
            self.geom(
                Geom.mjGEOM_BOX,
                size=[thickness, radius * np.pi / count * 1.05, height / 2],
                pos=[middle * np.cos(angle), middle * np.sin(angle), height / 2],
                quat=yaw_quaternion(angle),
                group=_COLLISION_ONLY,
            )
        self.geom(Geom.mjGEOM_CYLINDER, size=[radius * taper, 0.003, 0], pos=[0, 0, 0.003], group=_COLLISION_ONLY)


def yaw_quaternion(yaw_rad: float) -> list[float]:
    """(w, x, y, z) of a turn about the vertical."""
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def lathe_mesh(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Surface of revolution about z.

    Args:
        profile: (radius, height) pairs, metres, starting and ending on the axis.

    Returns:
        (V, 3) float32 vertices and (F, 3) int32 faces, outward normals.
    """
    angles = np.arange(_LATHE_SEGMENTS) / _LATHE_SEGMENTS * 2 * np.pi
    radius, height = np.array(profile, np.float64).T
    vertices = np.stack(
        [
            np.outer(radius, np.cos(angles)),
            np.outer(radius, np.sin(angles)),
            np.repeat(height[:, None], len(angles), 1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    faces = []
    for ring in range(len(profile) - 1):
        for step in range(_LATHE_SEGMENTS):
            following = (step + 1) % _LATHE_SEGMENTS
            a, b = ring * _LATHE_SEGMENTS + step, ring * _LATHE_SEGMENTS + following
            c, d = a + _LATHE_SEGMENTS, b + _LATHE_SEGMENTS
            if radius[ring] > 0:  # on the axis all points of a ring coincide and the triangle has no area
                faces.append((a, b, d))
            if radius[ring + 1] > 0:
                faces.append((a, d, c))
    return vertices.astype(np.float32), np.array(faces, np.int32)


def _block(part: _Part) -> tuple[float, float]:
    half = part.rng.uniform(0.012, 0.022, 3)
    part.geom(Geom.mjGEOM_BOX, size=half, pos=[0, 0, half[2]])
    return half[1], 2 * half[2]


def _can(part: _Part) -> tuple[float, float]:
    radius, half_height = part.rng.uniform(0.015, 0.026), part.rng.uniform(0.02, 0.045)
    part.geom(Geom.mjGEOM_CYLINDER, size=[radius, half_height, 0], pos=[0, 0, half_height])
    return radius, 2 * half_height


def _ball(part: _Part) -> tuple[float, float]:
    radius = part.rng.uniform(0.015, 0.026)
    part.geom(Geom.mjGEOM_SPHERE, size=[radius, 0, 0], pos=[0, 0, radius], condim=6, friction=[1.0, 0.02, 0.01])
    return radius, 2 * radius


def _long_size(part: _Part) -> tuple[float, float]:
    """Half length and radius of an elongated thing."""
    return part.rng.uniform(0.03, 0.06), part.rng.uniform(0.011, 0.018)


def _sponge(part: _Part) -> tuple[float, float]:
    length, radius = _long_size(part)
    part.geom(Geom.mjGEOM_BOX, size=[length * 0.8, radius * 1.4, radius * 0.7], pos=[0, 0, radius * 0.7])
    return radius * 1.4, radius * 1.4


def _eggplant(part: _Part) -> tuple[float, float]:
    length, radius = _long_size(part)
    part.geom(Geom.mjGEOM_ELLIPSOID, size=[length, radius, radius], pos=[0, 0, radius])
    part.geom(
        Geom.mjGEOM_CYLINDER,
        size=[radius * 0.6, radius * 0.35, 0],
        pos=[-length, 0, radius],
        quat=[np.sqrt(0.5), 0, np.sqrt(0.5), 0],
        material=part.materials.plain(PALETTE["green"]),
    )
    return radius, 2 * radius


def _pepper(part: _Part) -> tuple[float, float]:
    length, radius = _long_size(part)
    part.geom(Geom.mjGEOM_ELLIPSOID, size=[length * 0.6, radius * 1.3, radius * 1.1], pos=[0, 0, radius * 1.1])
    part.geom(
        Geom.mjGEOM_CAPSULE,
        fromto=[-length * 0.6, 0, radius, -length * 0.75, 0, radius * 1.3],
        size=[0.003, 0, 0],
        material=part.materials.plain(PALETTE["green"]),
    )
    return radius * 1.3, radius * 2.2


def _carrot(part: _Part) -> tuple[float, float]:
    length, radius = _long_size(part)
    for index, share in enumerate((1.0, 0.8, 0.6)):
        start = -length + index * length * 0.66
        part.geom(
            Geom.mjGEOM_CAPSULE,
            fromto=[start, 0, radius, start + length * 0.66, 0, radius * 0.8],
            size=[radius * share, 0, 0],
        )
    return radius, 2 * radius


def _banana(part: _Part) -> tuple[float, float]:
    length, radius = _long_size(part)
    bend = length * 1.1
    angles = np.linspace(-0.9, 0.9, 5)
    for start, stop in itertools.pairwise(angles):
        ends = [(bend * np.sin(angle), bend * np.cos(angle) - bend * 0.85, radius) for angle in (start, stop)]
        part.geom(Geom.mjGEOM_CAPSULE, fromto=[*ends[0], *ends[1]], size=[radius * 0.85, 0, 0])
    return radius, 2 * radius


def _spoon(part: _Part) -> tuple[float, float]:
    length, _ = _long_size(part)
    part.geom(Geom.mjGEOM_CAPSULE, fromto=[-length, 0, 0.005, length * 0.7, 0, 0.006], size=[0.0045, 0, 0])
    part.geom(Geom.mjGEOM_ELLIPSOID, size=[0.02, 0.014, 0.006], pos=[length * 0.9, 0, 0.007])
    return 0.006, 0.014


def _cup(part: _Part) -> tuple[float, float]:
    radius, height = part.rng.uniform(0.022, 0.03), part.rng.uniform(0.05, 0.075)
    taper = part.rng.uniform(0.75, 1.0)
    foot = radius * taper
    part.lathe([(0, 0), (foot, 0), (radius, height), (radius - 0.003, height), (foot - 0.003, 0.004), (0, 0.004)])
    part.hollow_wall(radius * 0.97, height, 0.0025, taper)
    return radius, height


def _bottle(part: _Part) -> tuple[float, float]:
    radius, height = part.rng.uniform(0.016, 0.024), part.rng.uniform(0.07, 0.11)
    neck = radius * 0.45
    part.lathe([(0, 0), (radius, 0), (radius, height * 0.6), (neck, height * 0.8), (neck, height), (0, height)])
    part.geom(Geom.mjGEOM_CYLINDER, size=[radius, height * 0.3, 0], pos=[0, 0, height * 0.3], group=_COLLISION_ONLY)
    part.geom(Geom.mjGEOM_CYLINDER, size=[neck, height * 0.2, 0], pos=[0, 0, height * 0.8], group=_COLLISION_ONLY)
    return radius, height * 0.6


def _dish(part: _Part, height: float, foot_share: float, belly: float) -> tuple[float, float]:
    """An open dish; `belly` widens the middle of the wall, as a share of the radius."""
    radius = part.rng.uniform(0.05, 0.085)
    foot = radius * foot_share
    middle = (foot + radius) / 2 + radius * belly
    outside = [(0.0, 0.0), (foot, 0.0), (middle, height * 0.45), (radius, height)]
    inside = [(radius - 0.004, height), (middle - 0.004, height * 0.45 + 0.002), (foot - 0.002, 0.004), (0.0, 0.004)]
    part.lathe(outside + inside)
    part.hollow_wall(radius * 0.96, height, 0.003, foot_share)
    return radius, height


def _bowl(part: _Part) -> tuple[float, float]:
    return _dish(part, part.rng.uniform(0.03, 0.05), 0.5, 0.12)


def _plate(part: _Part) -> tuple[float, float]:
    return _dish(part, part.rng.uniform(0.01, 0.016), 0.6, 0.0)


def _pot(part: _Part) -> tuple[float, float]:
    radius, height = _dish(part, part.rng.uniform(0.04, 0.06), 0.97, 0.0)
    part.geom(
        Geom.mjGEOM_CAPSULE,
        fromto=[radius, 0, height * 0.9, radius + 0.09, 0, height],
        size=[0.007, 0, 0],
        material=part.materials.plain(PALETTE["black"]),
    )
    return radius, height


_SHAPES: dict[str, Callable[[_Part], tuple[float, float]]] = {
    "block": _block,
    "can": _can,
    "ball": _ball,
    "eggplant": _eggplant,
    "carrot": _carrot,
    "banana": _banana,
    "pepper": _pepper,
    "sponge": _sponge,
    "spoon": _spoon,
    "cup": _cup,
    "bottle": _bottle,
    "bowl": _bowl,
    "plate": _plate,
    "pot": _pot,
}
KINDS = tuple(_SHAPES)
WIDE_KINDS = frozenset({"bowl", "plate", "pot"})  # need more room than the others
# What skills can do with a kind. graspable: from above, between the fingers; stackable: rests on another, and others on
# it; any_side: looks the same to a gripper from every side; rolling: rolls when it is pushed; container: things stay in
# it; support: things stay on it.
_TRAITS: dict[str, frozenset[str]] = {
    "block": frozenset({"graspable", "stackable"}),
    "can": frozenset({"graspable", "stackable", "any_side", "tall"}),
    "ball": frozenset({"graspable", "any_side", "rolling"}),
    "eggplant": frozenset({"graspable"}),
    "carrot": frozenset({"graspable"}),
    "banana": frozenset({"graspable"}),
    "pepper": frozenset({"graspable"}),
    "sponge": frozenset({"graspable"}),
    "spoon": frozenset({"graspable"}),
    "cup": frozenset({"graspable", "any_side", "tall"}),
    "bottle": frozenset({"any_side", "tall"}),
    "bowl": frozenset({"container"}),
    "plate": frozenset({"support"}),
    "pot": frozenset({"container"}),
}


def has_trait(kind: str, trait: str) -> bool:
    """Whether skills can do this with the kind."""
    return trait in _TRAITS[kind]


def kinds_with(trait: str) -> tuple[str, ...]:
    """The kinds that have a trait, in the order of KINDS."""
    return tuple(kind for kind in KINDS if has_trait(kind, trait))


def add_object(
    spec: mujoco.MjSpec,
    materials: Materials,
    rng: np.random.Generator,
    *,
    kind: str,
    color: str,
    name: str,
    xy: Float64,
    z_m: float = 0.0005,
) -> ObjectInfo:
    """Place a free object at `xy` (metres, world) with a random heading, its lowest point at `z_m`."""
    heading = rng.uniform(-np.pi, np.pi)
    body = spec.worldbody.add_body(name=name, pos=[xy[0], xy[1], z_m], quat=yaw_quaternion(heading))
    body.add_freejoint(name=f"{name}_joint")
    part = _Part(spec, body, materials, rng, materials.plain(PALETTE[color]))
    half_width, height = _SHAPES[kind](part)
    return ObjectInfo(name, kind, color, float(half_width), float(height))
