"""A cabinet with a drawer, and a cabinet with a door."""

from __future__ import annotations

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.fixtures import (
    ALONG,
    WALL_M,
    FixtureInfo,
    add_bar_handle,
    add_base,
    add_box,
    add_hinge,
    add_knob_handle,
    add_slide,
    inwards,
    random_color,
    random_material,
)
from momap_ros.simulation.textures import Materials


def _cabinet(spec: mujoco.MjSpec, xy: Float64, yaw_rad: float, *, half: Float64, material: str) -> mujoco.MjsBody:
    """A box of half size (depth, width, height) open towards +x; its origin is in the middle of the floor."""
    depth, width, height = half
    body = add_base(spec, "cabinet", xy, yaw_rad)
    for size, pos in (
        ([depth, WALL_M, height], [0, width, height]),
        ([depth, WALL_M, height], [0, -width, height]),
        ([depth, width, WALL_M], [0, 0, 2 * height]),
        ([depth, width, WALL_M], [0, 0, WALL_M]),
        ([WALL_M, width, height], [-depth, 0, height]),
    ):
        add_box(body, size, pos, material)
    return body


def add_drawer(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A cabinet with one drawer that slides along its local +x; sometimes a taller cabinet, bar handle or knob."""
    width, depth, height = rng.uniform(0.08, 0.13), rng.uniform(0.08, 0.12), rng.uniform(0.04, 0.06)
    body_material = random_material(materials, rng)
    front_material, handle_material = materials.plain(random_color(rng)), materials.plain(random_color(rng))
    cabinet = _cabinet(spec, xy, yaw_rad, half=np.array([depth, width, height]), material=body_material)
    if rng.random() < 0.5:
        top = height * 0.8
        add_box(cabinet, [depth, width + WALL_M, top], [0, 0, 2 * height + WALL_M + top], body_material)
    limit = float(depth * 1.4)
    drawer = cabinet.add_body(name="drawer", gravcomp=1)
    add_slide(drawer, ALONG, limit)
    for size, pos in (
        ([depth - 0.01, width - 0.012, 0.004], [0, 0, 2 * WALL_M + 0.006]),
        ([WALL_M, width - 0.008, height - 0.01], [depth + WALL_M, 0, height]),
        ([depth - 0.012, 0.003, height * 0.6], [0, width - 0.014, height * 0.75]),
        ([depth - 0.012, 0.003, height * 0.6], [0, -width + 0.014, height * 0.75]),
        ([0.003, width - 0.014, height * 0.6], [-depth + 0.02, 0, height * 0.75]),
    ):
        add_box(drawer, size, pos, front_material)
    grip, stand_off = np.array([depth + 0.035, 0, height]), np.array([0.035, 0, 0])
    if rng.random() < 0.5:
        add_bar_handle(drawer, grip, np.array([0, 0.022, 0]), stand_off=stand_off, material=handle_material)
    else:
        add_knob_handle(drawer, grip, stand_off=stand_off, material=handle_material)
    return FixtureInfo("drawer", "cabinet", xy, "drawer", limit, inwards(rng.uniform(0.5, 0.9)))


def add_door(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A cabinet with a door, hinged left or right, that opens outwards."""
    width, depth, height = rng.uniform(0.07, 0.1), rng.uniform(0.06, 0.09), rng.uniform(0.07, 0.11)
    body_material = random_material(materials, rng)
    door_material, handle_material = materials.plain(random_color(rng)), materials.plain(random_color(rng))
    side, limit = float(rng.choice([-1, 1])), 1.9
    cabinet = _cabinet(spec, xy, yaw_rad, half=np.array([depth, width, height]), material=body_material)
    door = cabinet.add_body(name="door", pos=[depth + WALL_M, side * width, 0], gravcomp=1)
    add_hinge(door, (0, 0, side), limit, damping=0.08)
    thickness = WALL_M * 0.7
    add_box(door, [thickness, width - 0.002, height - 0.004], [thickness, -side * width, height], door_material)
    grip = np.array([0.035, -side * (2 * width - 0.025), height])
    half_bar, stand_off = np.array([0, 0, 0.022]), np.array([0.03, 0, 0])
    add_bar_handle(door, grip, half_bar, stand_off=stand_off, material=handle_material)
    return FixtureInfo("door", "cabinet", xy, "door", limit, inwards(rng.uniform(0.5, 0.9)))
