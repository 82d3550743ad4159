"""Fixtures that a hand sets: a knob, a faucet, a lever, a button, a slider. And a lamp that swings."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import yaw_quaternion
from momap_ros.simulation.fixtures import (
    ACROSS,
    ALONG,
    FixtureInfo,
    Vector,
    add_base,
    add_box,
    add_hinge,
    add_rod,
    add_slide,
    handle_name,
    joint_name,
    random_color,
    random_material,
)
from momap_ros.simulation.textures import Materials

Geom = mujoco.mjtGeom
_UP: Vector = (0.0, 0.0, 1.0)
_PAINTED: dict[str, Any] = {"contype": 0, "conaffinity": 0, "mass": 0.0}  # decoration that touches nothing


def _pitch_quaternion(pitch_rad: float) -> list[float]:
    """(w, x, y, z) of a turn about y: z leans towards x."""
    return [float(np.cos(pitch_rad / 2)), 0.0, float(np.sin(pitch_rad / 2)), 0.0]


def add_knob(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A panel that lies flat or leans back, with a knob that turns about its normal, and marks around it."""
    slope = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.2, 0.8))
    length, width = rng.uniform(0.045, 0.065), rng.uniform(0.055, 0.1)
    panel_material, dial_material = random_material(materials, rng), materials.plain(random_color(rng))
    bar_material, mark_material = materials.plain(random_color(rng)), materials.plain(random_color(rng))
    middle = length * np.sin(slope) + rng.uniform(0.012, 0.04)
    panel = add_base(spec, "panel", xy, yaw_rad)
    plate = panel.add_frame(pos=[0, 0, middle], quat=_pitch_quaternion(slope))
    for geom in (add_box(panel, [length, width, 0.005], [0, 0, -0.005], panel_material),):
        geom.set_frame(plate)
    foot = length * np.cos(slope) * 0.7
    foot_top = (middle - 0.008 - foot * np.tan(slope)) / 2
    add_box(panel, [foot, width * 0.9, foot_top], [0, 0, foot_top], panel_material)
    radius, height, limit = rng.uniform(0.024, 0.034), rng.uniform(0.006, 0.012), float(rng.uniform(1.4, 2.2))
    for angle in np.linspace(0, limit, 4):
        mark = {"size": [0.005, 0.0015, 0.001], "quat": yaw_quaternion(angle)}
        position = [(radius + 0.008) * np.cos(angle), (radius + 0.008) * np.sin(angle), 0.0]
        panel.add_geom(type=Geom.mjGEOM_BOX, **mark, pos=position, material=mark_material, **_PAINTED).set_frame(plate)
    knob = panel.add_body(name="knob", pos=[0, 0, middle], quat=_pitch_quaternion(slope), gravcomp=1)
    add_hinge(knob, _UP, limit)
    dial = {"type": Geom.mjGEOM_CYLINDER, "size": [radius, height, 0], "pos": [0, 0, height]}
    knob.add_geom(**dial, material=dial_material)
    grip = 0.011
    bar = add_box(knob, [radius * 0.95, 0.006, grip], [0, 0, 2 * height + grip], bar_material)
    bar.name = handle_name("knob")
    tip = {"size": [0.004, 0.0065, grip + 0.0005], "pos": [radius * 0.95, 0, 2 * height + grip]}
    knob.add_geom(type=Geom.mjGEOM_BOX, **tip, material=mark_material, **_PAINTED)
    return FixtureInfo("knob", "panel", xy, "knob", limit)


def add_faucet(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A tap: column, spout towards local +x, and a handle on top that turns about the vertical."""
    height, reach, radius = rng.uniform(0.07, 0.12), rng.uniform(0.06, 0.1), rng.uniform(0.010, 0.016)
    shiny = rng.random() < 0.6
    metal = materials.plain(np.full(3, rng.uniform(0.4, 0.85)) if shiny else random_color(rng))
    handle_material = metal if rng.random() < 0.3 else materials.plain(random_color(rng))
    faucet = add_base(spec, "faucet", xy, yaw_rad)
    foot = {"type": Geom.mjGEOM_CYLINDER, "size": [radius * 2, 0.006, 0], "pos": [0, 0, 0.006]}
    faucet.add_geom(**foot, material=metal)
    add_rod(faucet, ([0, 0, 0.01], [0, 0, height]), radius, metal)
    bend = [reach, 0, height * rng.uniform(0.7, 0.95)]
    add_rod(faucet, ([0, 0, height * 0.65], bend), radius * 0.7, metal)
    add_rod(faucet, (bend, [reach, 0, bend[2] - 0.03]), radius * 0.7, metal)
    limit, length = float(rng.uniform(1.2, 1.8)), rng.uniform(0.06, 0.085)
    handle = faucet.add_body(
        name="faucet_handle", pos=[0, 0, height + radius], quat=yaw_quaternion(rng.uniform(-np.pi, np.pi)), gravcomp=1
    )
    add_hinge(handle, _UP, limit)
    hub = {"type": Geom.mjGEOM_CYLINDER, "size": [radius * 1.3, 0.010, 0], "pos": [0, 0, 0.010]}
    handle.add_geom(**hub, material=handle_material)
    add_rod(handle, ([0, 0, 0.014], [length * 0.6, 0, 0.022]), 0.006, handle_material)
    grip = add_rod(handle, ([length * 0.6, 0, 0.022], [length, 0, 0.026]), 0.008, handle_material)
    grip.name = handle_name(handle.name)
    return FixtureInfo("faucet", "faucet", xy, handle.name, limit)


def add_lever(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A stick with a ball on a block; it flips over from one side to the other, along local x."""
    length, lean = rng.uniform(0.07, 0.11), float(rng.uniform(0.45, 0.7))
    base_material, stick_material = random_material(materials, rng), materials.plain(random_color(rng))
    ball_material = materials.plain(random_color(rng))
    half = rng.uniform([0.035, 0.028, 0.014], [0.055, 0.05, 0.024])
    base = add_base(spec, "lever_base", xy, yaw_rad)
    add_box(base, half, [0, 0, half[2]], base_material)
    for side in (-1, 1):
        add_box(base, [half[0] * 0.7, 0.004, 0.006], [0, side * 0.013, 2 * half[2] + 0.006], stick_material)
    lever = base.add_body(name="lever", pos=[0, 0, 2 * half[2]], quat=_pitch_quaternion(-lean), gravcomp=1)
    add_hinge(lever, ACROSS, 2 * lean)
    add_rod(lever, ([0, 0, 0.0], [0, 0, length]), 0.006, stick_material)
    ball = {"type": Geom.mjGEOM_SPHERE, "size": [rng.uniform(0.012, 0.018), 0, 0], "pos": [0, 0, length]}
    lever.add_geom(name=handle_name("lever"), **ball, material=ball_material)
    return FixtureInfo("lever", "lever_base", xy, "lever", 2 * lean)


def add_button(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A push button on a block; it springs back, or stays down."""
    radius, limit = rng.uniform(0.024, 0.034), float(rng.uniform(0.015, 0.022))
    half = rng.uniform([0.04, 0.04, limit + 0.002], [0.06, 0.07, limit + 0.015])  # the button must fit in
    base = add_base(spec, "button_base", xy, yaw_rad)
    add_box(base, half, [0, 0, half[2]], random_material(materials, rng))
    collar_material, cap_material = materials.plain(random_color(rng)), materials.plain(random_color(rng))
    collar = {"type": Geom.mjGEOM_CYLINDER, "size": [radius + 0.006, 0.003, 0], "pos": [0, 0, 2 * half[2] + 0.003]}
    base.add_geom(**collar, material=collar_material)
    button = base.add_body(name="button", pos=[0, 0, 2 * half[2] + 0.004], gravcomp=1)
    joint = add_slide(button, (0, 0, -1), limit)
    if rng.random() < 0.5:
        joint.stiffness, joint.damping, joint.springref = [60.0, 0, 0], [2.0, 0, 0], -0.01
    if rng.random() < 0.5:
        shape, size = Geom.mjGEOM_CYLINDER, [radius, limit + 0.002, 0]  # half of it is inside the block
    else:
        shape, size = Geom.mjGEOM_ELLIPSOID, [radius, radius, limit + 0.002]
    button.add_geom(name=handle_name("button"), type=shape, size=size, material=cap_material)
    top_m = float(2 * half[2] + 0.004 + limit + 0.002)
    return FixtureInfo("button", "button_base", xy, "button", limit, top_m=top_m)


def add_slider(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A block with a grip that slides along a rail with two end stops, along local x."""
    half_length = rng.uniform(0.09, 0.13)
    limit = float(2 * (half_length - 0.035))
    rail_material, block_material = random_material(materials, rng), materials.plain(random_color(rng))
    rail = add_base(spec, "rail", xy, yaw_rad)
    thickness = rng.uniform(0.005, 0.012)
    add_box(rail, [half_length, rng.uniform(0.02, 0.035), thickness], [0, 0, thickness], rail_material)
    end_material = materials.plain(random_color(rng))
    for side in (-1, 1):
        add_box(rail, [0.008, 0.02, 0.008], [side * (half_length - 0.008), 0, 2 * thickness + 0.008], end_material)
    slider = rail.add_body(name="slider", pos=[-limit / 2, 0, 2 * thickness], gravcomp=1)
    add_slide(slider, ALONG, limit)
    add_box(slider, [0.018, rng.uniform(0.018, 0.026), 0.010], [0, 0, 0.012], block_material)
    grip_material, closing = materials.plain(random_color(rng)), ALONG if rng.random() < 0.5 else ACROSS
    if rng.random() < 0.5:
        size = [0.007, 0.016, 0.014] if closing == ALONG else [0.016, 0.007, 0.014]
        add_box(slider, size, [0, 0, 0.034], grip_material).name = handle_name("slider")
    else:
        add_rod(slider, ([0, 0, 0.02], [0, 0, 0.042]), 0.009, grip_material).name = handle_name("slider")
    return FixtureInfo("slider", "rail", xy, "slider", limit, closing=closing)


def add_lamp(
    spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, xy: Float64, yaw_rad: float
) -> FixtureInfo:
    """A stand with an arm from which a lamp hangs on a rod; it swings about local x, to both sides."""
    length, reach = rng.uniform(0.08, 0.14), rng.uniform(0.06, 0.11)
    height = length + rng.uniform(0.15, 0.2)  # nothing on the table is in its way
    stand_material, shade_material = materials.plain(random_color(rng)), materials.plain(random_color(rng))
    stand = add_base(spec, "lamp_stand", xy, yaw_rad)
    foot = {"type": Geom.mjGEOM_CYLINDER, "size": [rng.uniform(0.04, 0.06), 0.006, 0], "pos": [0, 0, 0.006]}
    stand.add_geom(**foot, material=stand_material)
    add_rod(stand, ([0, 0, 0.01], [0, 0, height]), 0.007, stand_material)
    add_rod(stand, ([0, 0, height], [reach, 0, height]), 0.006, stand_material)
    lamp = stand.add_body(name="lamp", pos=[reach, 0, height - 0.004])
    swing = {"type": mujoco.mjtJoint.mjJNT_HINGE, "axis": ALONG, "damping": [rng.uniform(1e-4, 4e-4), 0, 0]}
    lamp.add_joint(name=joint_name("lamp"), **swing)
    add_rod(lamp, ([0, 0, 0], [0, 0, -length]), 0.004, stand_material)
    width = rng.uniform(0.02, 0.032)
    shape = [Geom.mjGEOM_SPHERE, Geom.mjGEOM_CYLINDER, Geom.mjGEOM_ELLIPSOID][rng.integers(3)]
    size = [width, width * 0.8, width * 0.6]
    bulb = {"type": Geom.mjGEOM_SPHERE, "size": [0.012, 0, 0], "pos": [0, 0, -length - width * 0.8]}
    lamp.add_geom(**bulb, material=materials.plain((0.95, 0.9, 0.6)), mass=0.001)
    lamp.add_geom(name=handle_name("lamp"), type=shape, size=size, pos=[0, 0, -length], material=shade_material)
    return FixtureInfo("lamp", "lamp_stand", xy, "lamp", float(rng.uniform(0.6, 1.2)))
