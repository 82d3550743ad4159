"""Fixtures that hold things: a box with a lid, a shelf, a sink."""

from __future__ import annotations

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.fixtures import (
    WALL_M,
    FixtureInfo,
    add_bar_handle,
    add_base,
    add_box,
    add_hinge,
    add_knob_handle,
    add_rod,
    inwards,
    random_color,
    random_material,
)
from momap_ros.simulation.textures import Materials


def _tub(body: mujoco.MjsBody, half: Float64, material: str) -> None:
    """Four walls and a floor of half size (depth, width, height), open to the top."""
    depth, width, height = half
    for size, pos in (
        ([WALL_M, width, height], [depth, 0, height]),
        ([WALL_M, width, height], [-depth, 0, height]),
        ([depth + WALL_M, WALL_M, height], [0, width, height]),
        ([depth + WALL_M, WALL_M, height], [0, -width, height]),
        ([depth, width, WALL_M / 2], [0, 0, WALL_M / 2]),
    ):
        add_box(body, size, pos, material)


def add_lidded_box(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A box with a lid, hinged at the far side as seen from local +x, that has a bar or a knob on it or in front."""
    depth, width, height = rng.uniform(0.06, 0.085), rng.uniform(0.07, 0.11), rng.uniform(0.03, 0.05)
    box_material, lid_material = random_material(materials, rng), random_material(materials, rng)
    handle_material = materials.plain(random_color(rng))
    box = add_base(spec, "box", xy, yaw_rad)
    _tub(box, np.array([depth, width, height]), box_material)
    lid = box.add_body(name="lid", pos=[-depth - WALL_M, 0, 2 * height], gravcomp=1)
    limit, thickness = float(rng.uniform(1.4, 1.7)), float(rng.uniform(0.003, 0.006))
    add_hinge(lid, (0, -1, 0), limit)
    reach = depth + WALL_M + 0.003
    add_box(lid, [reach, width + WALL_M + 0.003, thickness], [reach, 0, thickness], lid_material)
    if rng.random() < 0.5:
        grip, stand_off = np.array([2 * reach + 0.028, 0, thickness]), np.array([0.028, 0, 0])
        pitch = rng.uniform(0.35, 0.6)
    else:
        stand_off = np.array([0, 0, 0.03])
        grip, pitch = np.array([2 * reach * rng.uniform(0.75, 0.85), 0, thickness]) + stand_off, rng.uniform(0.5, 0.7)
    if rng.random() < 0.5:
        add_knob_handle(lid, grip, stand_off=stand_off, material=handle_material)
    else:
        add_bar_handle(lid, grip, np.array([0, 0.022, 0]), stand_off=stand_off, material=handle_material)
    return FixtureInfo("lid", "box", xy, "lid", limit, pointing=inwards(float(pitch)))


def add_shelf(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """One or two boards between two sides, open towards local +x; sometimes with a back."""
    depth, width, top = rng.uniform(0.055, 0.075), rng.uniform(0.09, 0.13), rng.uniform(0.045, 0.1)
    side_material, board_material = random_material(materials, rng), random_material(materials, rng)
    shelf = add_base(spec, "shelf", xy, yaw_rad)
    side_top = top + (rng.uniform(0.01, 0.03) if rng.random() < 0.5 else -WALL_M)
    for side in (-1, 1):
        add_box(shelf, [depth, WALL_M, side_top / 2], [0, side * (width + WALL_M), side_top / 2], side_material)
    boards = (top,) if rng.random() < 0.5 else (top, top * rng.uniform(0.25, 0.5))
    for height in boards:
        add_box(shelf, [depth, width + WALL_M / 2, WALL_M / 2], [0, 0, height - WALL_M / 2], board_material)
    if rng.random() < 0.5:
        add_box(shelf, [WALL_M / 2, width, side_top / 2], [-depth + WALL_M / 2, 0, side_top / 2], side_material)
    return FixtureInfo("shelf", "shelf", xy, top_m=float(top))


def add_sink(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A basin with a wide rim, a drain, and a spout at its far side, seen from local +x."""
    depth, width, height = rng.uniform(0.065, 0.085), rng.uniform(0.075, 0.11), rng.uniform(0.02, 0.03)
    steel = rng.random() < 0.5
    basin_material = materials.plain(np.full(3, rng.uniform(0.6, 0.9)) if steel else random_color(rng))
    metal = materials.plain(np.full(3, rng.uniform(0.35, 0.8)))
    sink = add_base(spec, "sink", xy, yaw_rad)
    _tub(sink, np.array([depth, width, height]), basin_material)
    rim = rng.uniform(0.01, 0.02)
    for side in (-1, 1):
        across = side * (width + rim)
        along = side * (depth + rim)
        add_box(sink, [depth + 2 * rim, rim, 0.003], [0, across, 2 * height], basin_material)
        add_box(sink, [rim, width, 0.003], [along, 0, 2 * height], basin_material)
    drain = {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": [0.013, 0.001, 0], "pos": [0, 0, WALL_M]}
    sink.add_geom(**drain, material=metal, contype=0, conaffinity=0)
    spout_top = 2 * height + rng.uniform(0.05, 0.09)
    foot, bend = [-depth - rim, 0, 2 * height], [-depth - rim, 0, spout_top]
    mouth = [-depth + 0.02, 0, spout_top + 0.005]
    for ends in ((foot, bend), (bend, mouth), (mouth, [*mouth[:2], mouth[2] - 0.015])):
        add_rod(sink, ends, 0.007, metal)
    return FixtureInfo("sink", "sink", xy, top_m=WALL_M)
