"""A cabinet with a drawer, and a cabinet with a door."""

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
HANDLE_GEOM = "handle"


@dataclass(frozen=True)
class FixtureInfo:
    """Something fixed to the table, and the part of it that moves.

    Attributes:
        kind: "drawer", "door", ...
        body: body name of the part that never moves.
        part: body name of the moving part; "" where there is none.
        joint: its joint.
        limit: how far the joint goes, metres or radians.
        xy: (2,) where it stands, metres, world.
        handle: geom name of what a hand takes hold of.
    """

    kind: str
    body: str
    part: str
    joint: str
    limit: float
    xy: Float64
    handle: str = HANDLE_GEOM

    @property
    def parts(self) -> tuple[str, ...]:
        """Body names of the moving parts."""
        return (self.part,) if self.part else ()


def _cabinet(spec: mujoco.MjSpec, xy: Float64, yaw_rad: float, *, half: Float64, material: str) -> mujoco.MjsBody:
    """A box of half size (depth, width, height) open towards +x; its origin is in the middle of the floor."""
    depth, width, height = half
    body = spec.worldbody.add_body(name="cabinet", pos=[xy[0], xy[1], 0.0], quat=yaw_quaternion(yaw_rad))
    for size, pos in (
        ([depth, WALL_M, height], [0, width, height]),
        ([depth, WALL_M, height], [0, -width, height]),
        ([depth, width, WALL_M], [0, 0, 2 * height]),
        ([depth, width, WALL_M], [0, 0, WALL_M]),
        ([WALL_M, width, height], [-depth, 0, height]),
    ):
        _box(body, size, pos, material)
    return body


def _box(body: mujoco.MjsBody, size: Sequence[float], pos: Sequence[float], material: str) -> None:
    body.add_geom(type=Geom.mjGEOM_BOX, size=size, pos=pos, material=material, friction=[0.4, 0.01, 0.001])


def _random_color(rng: np.random.Generator) -> Float64:
    return rng.uniform(0.1, 0.9, 3)


def add_drawer(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A cabinet with one drawer that slides along its local +x; sometimes a taller cabinet, bar handle or knob."""
    width, depth, height = rng.uniform(0.08, 0.13), rng.uniform(0.08, 0.12), rng.uniform(0.04, 0.06)
    body_material = materials.plain(_random_color(rng)) if rng.random() < 0.5 else materials.textured()
    front_material, handle_material = materials.plain(_random_color(rng)), materials.plain(_random_color(rng))
    cabinet = _cabinet(spec, xy, yaw_rad, half=np.array([depth, width, height]), material=body_material)
    if rng.random() < 0.5:
        top = height * 0.8
        _box(cabinet, [depth, width + WALL_M, top], [0, 0, 2 * height + WALL_M + top], body_material)
    limit = depth * 1.4
    drawer = cabinet.add_body(name="drawer", gravcomp=1)
    drawer.add_joint(
        name="drawer_joint",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[1, 0, 0],
        range=[0, limit],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=[4.0, 0, 0],
        frictionloss=0.5,
    )
    for size, pos in (
        ([depth - 0.01, width - 0.012, 0.004], [0, 0, 2 * WALL_M + 0.006]),
        ([WALL_M, width - 0.008, height - 0.01], [depth + WALL_M, 0, height]),
        ([depth - 0.012, 0.003, height * 0.6], [0, width - 0.014, height * 0.75]),
        ([depth - 0.012, 0.003, height * 0.6], [0, -width + 0.014, height * 0.75]),
        ([0.003, width - 0.014, height * 0.6], [-depth + 0.02, 0, height * 0.75]),
    ):
        _box(drawer, size, pos, front_material)
    if rng.random() < 0.5:
        grip = np.array([depth + 0.035, 0, height])
        _bar_handle(drawer, grip, np.array([0, 0.022, 0]), stand_off_m=0.035, material=handle_material)
    else:
        knob = [depth + 0.03, 0, height]
        drawer.add_geom(
            name=HANDLE_GEOM, type=Geom.mjGEOM_SPHERE, size=[0.011, 0, 0], pos=knob, material=handle_material
        )
        drawer.add_geom(
            type=Geom.mjGEOM_CYLINDER, fromto=[depth, 0, height, *knob], size=[0.005, 0, 0], material=handle_material
        )
    return FixtureInfo("drawer", "cabinet", "drawer", "drawer_joint", float(limit), xy)


def add_door(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A cabinet with a door, hinged left or right, that opens outwards."""
    width, depth, height = rng.uniform(0.07, 0.1), rng.uniform(0.06, 0.09), rng.uniform(0.07, 0.11)
    body_material = materials.textured()
    door_material, handle_material = materials.plain(_random_color(rng)), materials.plain(_random_color(rng))
    side = float(rng.choice([-1, 1]))
    cabinet = _cabinet(spec, xy, yaw_rad, half=np.array([depth, width, height]), material=body_material)
    limit = 1.9
    door = cabinet.add_body(name="door", pos=[depth + WALL_M, side * width, 0], gravcomp=1)
    door.add_joint(
        name="door_joint",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, side],
        range=[0, limit],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=[0.08, 0, 0],
        frictionloss=0.02,
        armature=0.002,
    )
    thickness = WALL_M * 0.7
    _box(door, [thickness, width - 0.002, height - 0.004], [thickness, -side * width, height], door_material)
    grip = np.array([0.035, -side * (2 * width - 0.025), height])
    _bar_handle(door, grip, np.array([0, 0, 0.022]), stand_off_m=0.03, material=handle_material)
    return FixtureInfo("door", "cabinet", "door", "door_joint", limit, xy)


def _bar_handle(body: mujoco.MjsBody, centre: Float64, half_bar: Float64, *, stand_off_m: float, material: str) -> None:
    """A bar along `half_bar` on two posts that reach back by `stand_off_m` along x."""
    body.add_geom(
        name=HANDLE_GEOM,
        type=Geom.mjGEOM_CAPSULE,
        fromto=[*(centre - half_bar), *(centre + half_bar)],
        size=[0.005, 0, 0],
        material=material,
    )
    for end in (centre - half_bar, centre + half_bar):
        root = end - [stand_off_m, 0, 0]
        body.add_geom(type=Geom.mjGEOM_CAPSULE, fromto=[*root, *end], size=[0.004, 0, 0], material=material)
