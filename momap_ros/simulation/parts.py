"""What the shapes of objects are made of: MuJoCo primitives, lathe-turned meshes, and rings of invisible walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from momap_ros.simulation.textures import PALETTE, Materials

Geom = mujoco.mjtGeom
Profile = Sequence[tuple[float, float]]
Point = tuple[float, float, float]

_LYING = [np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0]  # turns a cylinder's axis from z to x
# Two geoms touch where the contype of one meets the conaffinity of the other. Loose things meet everything; the walls
# of a container meet loose things and fingers, but not the table, on which the container's floor stands anyway.
LOOSE = {"contype": 0b011, "conaffinity": 0b001}
_WALL = {"contype": 0b100, "conaffinity": 0b110}
_NOTHING = {"contype": 0, "conaffinity": 0}
_CONTACT = {"friction": [1.0, 0.02, 0.001], "condim": 4, "density": 400.0}
_STILL = {"friction": [1.0, 0.02, 0.003], "condim": 6}  # hardly rolls
_ROLLING = {"friction": [1.0, 0.02, 0.0012], "condim": 6}
_LATHE_SEGMENTS = 24
_WALL_BOXES = 8
COLLISION_GROUP = 3  # geom group that is never rendered


class Size(NamedTuple):
    """What skills know of a shape; None where the usual holds.

    Attributes:
        half_width_m: from the centre to where a finger touches, at the height of a push.
        height_m: height at which other things rest on it.
        top_m: height of its highest point; height_m where None.
        grip: (x, z) where a gripper takes hold, metres, body frame; on the axis at 0.55 of the height where None.
        grip_half_m: from there to where a finger touches; half_width_m where None.
    """

    half_width_m: float
    height_m: float
    top_m: float | None = None
    grip: tuple[float, float] | None = None
    grip_half_m: float | None = None


@dataclass(frozen=True)
class Part:
    """A body in the making.

    Attributes:
        spec: the MuJoCo specification.
        body: to which geoms are added; its origin is on the table, its x along the object.
        materials: looks.
        rng: source of every choice.
        material: of the object's own colour.
    """

    spec: mujoco.MjSpec
    body: mujoco.MjsBody
    materials: Materials
    rng: np.random.Generator
    material: str

    def plain(self, color: str) -> str:
        """A new material of about a colour of PALETTE."""
        return self.materials.plain(PALETTE[color])

    def box(self, half: Sequence[float] | np.ndarray, center: Point, **options: object) -> None:
        """A box of half sizes, turned by `quat` where given."""
        self._geom(Geom.mjGEOM_BOX, size=half, pos=center, **options)

    def ellipsoid(self, half: Sequence[float], center: Point, **options: object) -> None:
        """An ellipsoid of half axes."""
        self._geom(Geom.mjGEOM_ELLIPSOID, **{**_STILL, "size": half, "pos": center, **options})

    def sphere(self, radius: float, center: Point, **options: object) -> None:
        """A ball that rolls on for a while."""
        self._geom(Geom.mjGEOM_SPHERE, size=[radius, 0, 0], pos=center, **{**_ROLLING, **options})

    def rod(self, start: Point, stop: Point, radius: float, **options: object) -> None:
        """A capsule from one point to another."""
        self._geom(Geom.mjGEOM_CAPSULE, fromto=[*start, *stop], size=[radius, 0, 0], **options)

    def disc(self, radius: float, bottom: float, top: float, **options: object) -> None:
        """An upright cylinder about z between two heights; it rolls when it lies on its side."""
        half = (top - bottom) / 2
        self._geom(
            Geom.mjGEOM_CYLINDER, **{**_ROLLING, "size": [radius, half, 0], "pos": [0, 0, bottom + half], **options}
        )

    def bar(self, radius: float, half_length: float, center: Point, **options: object) -> None:
        """A cylinder along x, which does not roll away."""
        size = [radius, half_length, 0]
        self._geom(Geom.mjGEOM_CYLINDER, **{**_STILL, "size": size, "pos": center, "quat": _LYING, **options})

    def lathe(self, profile: Profile) -> None:
        """The visible surface of revolution; it neither collides nor weighs anything."""
        self.surface(*lathe_mesh(profile))

    def surface(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        """A visible mesh of (V, 3) vertices in metres and (F, 3) faces; it neither collides nor weighs anything."""
        mesh = self.spec.add_mesh(name=f"{self.body.name}_mesh")
        mesh.uservert = vertices.reshape(-1)
        mesh.userface = faces.reshape(-1)
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        self._geom(Geom.mjGEOM_MESH, meshname=mesh.name, **LOOKS_ONLY)

    def hollow_wall(self, radius: float, height: float, thickness: float, taper: float) -> None:
        """Invisible ring of boxes and a floor: a container other objects can fall into."""
        middle = radius * (1 + taper) / 2
        for index in range(_WALL_BOXES):
            angle = 2 * np.pi * index / _WALL_BOXES
            self.box(
                [thickness, radius * np.pi / _WALL_BOXES * 1.05, height / 2],
                (middle * np.cos(angle), middle * np.sin(angle), height / 2),
                quat=yaw_quaternion(angle),
                **{**COLLISION_ONLY, **_WALL},
            )
        self.disc(radius * taper, 0.0, 0.006, condim=4, **COLLISION_ONLY)

    def _geom(self, shape: mujoco.mjtGeom, **options: object) -> None:
        self.body.add_geom(type=shape, **{"material": self.material, **LOOSE, **_CONTACT, **options})


LOOKS_ONLY: dict[str, object] = {**_NOTHING, "group": 1, "mass": 0.0}  # options of a geom that nothing touches
COLLISION_ONLY: dict[str, object] = {"group": COLLISION_GROUP}  # options of a geom that nobody sees


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
