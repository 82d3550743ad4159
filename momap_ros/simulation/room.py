"""What surrounds the objects: physics settings, lights, a table, a floor and four walls."""

from __future__ import annotations

import mujoco
import numpy as np

from momap_ros.simulation.parts import COLLISION_GROUP
from momap_ros.simulation.textures import Materials

Geom = mujoco.mjtGeom
CAMERA = "camera"
TABLE_CENTRE_X = 0.25
_TABLE_SHAPES = ("box", "round", "tray", "slab")
_WALL = {"contype": 0, "conaffinity": 0}


def empty_spec() -> mujoco.MjSpec:
    """A specification with the physics every scene uses, and a camera that renderers move."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = 0.004
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.map.znear = 0.02
    spec.visual.map.zfar = 20
    spec.stat.extent = 1.0
    spec.stat.center = [0, 0, 0]
    spec.worldbody.add_camera(name=CAMERA, pos=[0, 0, 1])
    return spec


def add_room(spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator) -> dict[str, str]:
    """Lights, table, floor and walls: every ray ends on a surface. Returns what was drawn, by name."""
    _add_lights(spec, rng)
    table = str(rng.choice(_TABLE_SHAPES))
    _add_table(spec, materials, rng, table)
    world = spec.worldbody
    world.add_geom(type=Geom.mjGEOM_BOX, size=[4, 4, 0.02], pos=[0, 0, -0.8], material=materials.textured())
    wall, accent = materials.textured(), materials.textured()
    distance = rng.uniform(0.9, 2.2, 4)
    for index in range(4):
        angle = index * np.pi / 2
        world.add_geom(
            type=Geom.mjGEOM_BOX,
            size=[0.03, 4, 2.5],
            pos=[TABLE_CENTRE_X + distance[index] * np.cos(angle), distance[index] * np.sin(angle), 1],
            quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
            material=accent if index == 0 else wall,
            **_WALL,
        )
    if rng.random() < 0.4:
        _add_furniture(spec, materials, rng, distance)
    return {"table": table, "textures": "held out" if materials.held_out else "common"}


def _add_lights(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    headlight = spec.visual.headlight
    headlight.ambient = [rng.uniform(0.22, 0.42)] * 3
    headlight.diffuse = [rng.uniform(0.08, 0.35)] * 3
    headlight.specular = [0.1] * 3
    for index in range(rng.integers(1, 4)):
        position = rng.uniform([-1.5, -1.5, 1.2], [1.5, 1.5, 2.4])
        direction = np.array([0, 0, 0.1]) - position
        directional = rng.random() < 0.6
        color = np.clip(rng.uniform(0.25, 0.65) * rng.uniform(0.85, 1.1, 3), 0, 1)
        spec.worldbody.add_light(
            pos=position,
            dir=direction / np.linalg.norm(direction),
            diffuse=color,
            castshadow=index == 0,
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL if directional else mujoco.mjtLightType.mjLIGHT_SPOT,
            cutoff=70,
        )


def _add_table(spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, shape: str) -> None:
    """A table top whose surface is z = 0: rectangular, round, a tray with a low rim, or one slab to the floor."""
    world, material = spec.worldbody, materials.textured()
    half = np.array([rng.uniform(0.47, 0.70), rng.uniform(0.42, 0.60), 0.03])
    centre = np.array([TABLE_CENTRE_X, 0.0, -0.03])
    if shape == "round":
        radius = rng.uniform(0.55, 0.70)
        world.add_geom(type=Geom.mjGEOM_CYLINDER, size=[radius, 0.03, 0], pos=centre, material=material, **_WALL)
        # Cylinders that lie on a large cylinder sink into it by millimetres, and are thrown off in the end.
        half[:2] = 0.8 * radius
        world.add_geom(type=Geom.mjGEOM_BOX, size=half, pos=centre, group=COLLISION_GROUP)
        return
    if shape == "slab":
        half[2], centre[2] = 0.39, -0.39
    world.add_geom(type=Geom.mjGEOM_BOX, size=half, pos=centre, material=material)
    if shape == "tray":
        rim, height = materials.textured(), rng.uniform(0.006, 0.015)
        for axis, side in ((0, -1), (0, 1), (1, -1), (1, 1)):
            size, pos = np.array([half[0], half[1], height]), np.array([TABLE_CENTRE_X, 0.0, height])
            size[axis] = 0.012
            pos[axis] += side * half[axis]
            world.add_geom(type=Geom.mjGEOM_BOX, size=size, pos=pos, material=rim)


def _add_furniture(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, wall_distance: np.ndarray
) -> None:
    """Boxes along a wall, out of reach: boards, cupboards, window sills."""
    side = float(rng.choice([-1, 1]))
    depth = wall_distance[1 if side > 0 else 3]
    for _ in range(rng.integers(1, 4)):
        size = rng.uniform([0.08, 0.04, 0.05], [0.4, 0.12, 0.4])
        position = [rng.uniform(-0.6, 1.2), side * (depth - 0.03 - size[1]), rng.uniform(-0.6, 0.8)]
        spec.worldbody.add_geom(type=Geom.mjGEOM_BOX, size=size, pos=position, material=materials.textured(), **_WALL)
