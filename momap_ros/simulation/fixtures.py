"""What every fixture is made of: boxes, handles, a hinge or a slide, and what a hand must know about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import yaw_quaternion
from momap_ros.simulation.textures import Materials

Geom = mujoco.mjtGeom
WALL_M = 0.006
Vector = tuple[float, float, float]
Position = Sequence[float] | Float64
DOWN: Vector = (0.0, 0.0, -1.0)
ALONG: Vector = (1.0, 0.0, 0.0)
ACROSS: Vector = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class FixtureInfo:
    """Something fixed to the table, and the part of it that moves.

    Attributes:
        kind: "drawer", "shelf", ...
        body: body name of what never moves.
        xy: (2,) where it stands, metres, world.
        part: body name of the moving part; "" where there is none.
        limit: how far its joint goes from 0, metres or radians.
        pointing: where fingers that hold the part point, unit vector in its frame.
        closing: direction in which they close, unit vector in its frame.
        start: position of the joint in the first frame.
        latch: name of the equality that holds the joint until then; "" where there is none.
        top_m: height at which things rest in it or on it.
    """

    kind: str
    body: str
    xy: Float64
    part: str = ""
    limit: float = 0.0
    pointing: Vector = DOWN
    closing: Vector = ACROSS
    start: float = 0.0
    latch: str = ""
    top_m: float = 0.0

    @property
    def parts(self) -> tuple[str, ...]:
        """Body names of the moving parts."""
        return (self.part,) if self.part else ()

    @property
    def joint(self) -> str:
        """Name of the part's joint."""
        return joint_name(self.part)

    @property
    def handle(self) -> str:
        """Name of the geom that a hand takes hold of."""
        return handle_name(self.part)


def joint_name(part: str) -> str:
    """The joint of a part."""
    return f"{part}_joint"


def handle_name(part: str) -> str:
    """The geom of a part that a hand takes hold of."""
    return f"{part}_handle"


def add_base(spec: mujoco.MjSpec, name: str, xy: Float64, yaw_rad: float) -> mujoco.MjsBody:
    """A body that stands on the table at `xy` (metres, world) and never moves."""
    return spec.worldbody.add_body(name=name, pos=[xy[0], xy[1], 0.0], quat=yaw_quaternion(yaw_rad))


def add_hinge(part: mujoco.MjsBody, axis: Vector, limit: float, *, damping: float = 0.05) -> None:
    """Let a part turn about an axis through its origin, from 0 to `limit` radians; it stays where it is left."""
    part.add_joint(
        name=joint_name(part.name),
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=axis,
        range=[0, limit],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=[damping, 0, 0],
        frictionloss=0.02,
        armature=0.002,
    )


def add_slide(part: mujoco.MjsBody, axis: Vector, limit: float) -> mujoco.MjsJoint:
    """Let a part slide along an axis, from 0 to `limit` metres; it stays where it is left."""
    return part.add_joint(
        name=joint_name(part.name),
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=axis,
        range=[0, limit],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=[4.0, 0, 0],
        frictionloss=0.5,
    )


def add_latch(spec: mujoco.MjSpec, fixture: FixtureInfo) -> None:
    """An equality that holds the fixture's joint at its start."""
    latch = spec.add_equality(name=fixture.latch, type=mujoco.mjtEq.mjEQ_JOINT, name1=fixture.joint)
    data = np.zeros(len(latch.data))
    data[0] = fixture.start
    latch.data = data


def add_box(body: mujoco.MjsBody, size: Position, pos: Position, material: str) -> mujoco.MjsGeom:
    """A box of half sizes `size`, smooth enough that things slide off it."""
    return body.add_geom(type=Geom.mjGEOM_BOX, size=size, pos=pos, material=material, friction=[0.4, 0.01, 0.001])


def add_rod(body: mujoco.MjsBody, ends: tuple[Position, Position], radius: float, material: str) -> mujoco.MjsGeom:
    """A capsule between two points."""
    return body.add_geom(type=Geom.mjGEOM_CAPSULE, fromto=[*ends[0], *ends[1]], size=[radius, 0, 0], material=material)


def add_bar_handle(
    part: mujoco.MjsBody, centre: Float64, half_bar: Float64, *, stand_off: Float64, material: str
) -> None:
    """A bar from `centre - half_bar` to `centre + half_bar` on two posts that stand on the part, `stand_off` away."""
    add_rod(part, (centre - half_bar, centre + half_bar), 0.005, material).name = handle_name(part.name)
    for end in (centre - half_bar, centre + half_bar):
        add_rod(part, (end - stand_off, end), 0.004, material)


def add_knob_handle(part: mujoco.MjsBody, centre: Float64, *, stand_off: Float64, material: str) -> None:
    """A ball at `centre` on a stem that stands on the part, `stand_off` away."""
    part.add_geom(
        name=handle_name(part.name), type=Geom.mjGEOM_SPHERE, size=[0.011, 0, 0], pos=centre, material=material
    )
    add_rod(part, (centre - stand_off, centre), 0.005, material)


def inwards(pitch_rad: float) -> Vector:
    """Away from whoever stands at local +x, and down by `pitch_rad`: how fingers point at a handle at the front."""
    return (-float(np.cos(pitch_rad)), 0.0, -float(np.sin(pitch_rad)))


def random_color(rng: np.random.Generator) -> Float64:
    """(3,) any colour that is neither black nor white."""
    return rng.uniform(0.1, 0.9, 3)


def random_material(materials: Materials, rng: np.random.Generator) -> str:
    """Painted, or of wood or stone."""
    return materials.plain(random_color(rng)) if rng.random() < 0.5 else materials.textured()
