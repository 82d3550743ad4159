"""Objects that nobody touches: let go in a first frame at rest, they roll down a ramp, tip over or fall off a ledge."""

from __future__ import annotations

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import add_weld
from momap_ros.simulation.assets import ObjectInfo, has_trait, kinds_with
from momap_ros.simulation.fixtures import FixtureInfo
from momap_ros.simulation.hand import Simulation, quaternion_of, rotation, rotation_about
from momap_ros.simulation.parts import yaw_quaternion
from momap_ros.simulation.scene import WORK_AREA_CENTRE, Scene, SceneBuilder
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.grasping import acted_object
from momap_ros.simulation.skills.handling import lying_quaternion
from momap_ros.simulation.skills.pushing import centre
from momap_ros.simulation.skills.tipping import balance_rad, thin_axis, wait_for_rest
from momap_ros.simulation.task import Task

_HOLD = "hold"  # the weld that keeps the object where it is until it is let go
_ROLLING = (*kinds_with("rolling"), *kinds_with("tube"))
_FALLING = tuple(dict.fromkeys((*kinds_with("tall"), *kinds_with("steady"))))
_SUPPORT = "stand"
_RAMP_HALF_M = (0.075, 0.05)  # length and width of a ramp
_MOVED_M, _DROPPED_M, _FALLEN_COS = 0.06, 0.02, 0.6
_ABOVE_TABLE_M = -0.02
_PAUSE_S = (0.2, 0.8)  # before it is let go


def _hold(builder: SceneBuilder, item: ObjectInfo) -> None:
    add_weld(builder.spec, _HOLD, "world", item.name)
    builder.hindered.add(item.name)


def _hold_at(simulation: Simulation, item: ObjectInfo, position: Float64, quaternion: Float64) -> None:
    """Put an object somewhere (metres, world; w, x, y, z), where it stays although nothing supports it.

    Where there is a hand, it starts out of the way.
    """
    simulation.data.mocap_pos[:, 2] += 0.1
    simulation.place(item.name, position, quaternion)
    weld = simulation.model.eq_data[simulation.model.equality(_HOLD).id]
    weld[0:3] = 0
    weld[3:6] = position
    weld[6:10] = quaternion


def _let_go(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> Float64:
    """Returns where the object was; then physics goes on until it lies still."""
    before = centre(simulation, scene.acted)
    simulation.rest(rng.uniform(*_PAUSE_S))
    simulation.data.eq_active[simulation.model.equality(_HOLD).id] = 0
    wait_for_rest(simulation, scene.acted)
    return before


def _stand_place(builder: SceneBuilder) -> tuple[Float64, float]:
    """A free (x, y), and the bearing from there to about the middle of the table: things that roll stay on it."""
    xy = builder.free_place(0.13)
    bearing = np.arctan2(*(WORK_AREA_CENTRE - xy)[::-1])
    return xy, float(bearing + builder.rng.uniform(-0.8, 0.8))


def _add_stand(builder: SceneBuilder, place: tuple[Float64, float], half: Float64, tilt_rad: float) -> FixtureInfo:
    """A box of half sizes (length, width, thickness), fixed at (xy, yaw), whose length goes down by an angle.

    Its upper face ends at the table's surface where it is tilted, and is twice the thickness high where it is not.
    """
    rng, materials = builder.rng, builder.materials
    material = materials.textured() if rng.random() < 0.5 else materials.plain(rng.uniform(0.1, 0.9, 3))
    xy, yaw_rad = place
    body = builder.spec.worldbody.add_body(name=_SUPPORT, pos=[*xy, 0.0], quat=yaw_quaternion(yaw_rad))
    height_m = half[0] * np.sin(tilt_rad) - half[2] * np.cos(tilt_rad) + 0.001 if tilt_rad else half[2]
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=half,
        pos=[0.0, 0.0, height_m],
        quat=[np.cos(tilt_rad / 2), 0.0, np.sin(tilt_rad / 2), 0.0],
        material=material,
    )
    builder.fixtures.append(FixtureInfo("ramp" if tilt_rad else "block", _SUPPORT, xy))
    return builder.fixtures[-1]


def _furnish_roll_down(builder: SceneBuilder) -> Task:
    place, tilt = _stand_place(builder), float(builder.rng.uniform(0.2, 0.3))
    half = np.array([*_RAMP_HALF_M, _RAMP_HALF_M[0] * np.sin(tilt)])  # thick enough to be a wedge, not a board
    ramp = _add_stand(builder, place, half, tilt)
    item = builder.add(builder.choose_acted("roll_down", _ROLLING), xy=place[0])
    _hold(builder, item)
    return Task("roll_down", item.name, item, fixture=ramp, amount=tilt)


def _start_roll_down(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> None:
    """On the upper half of the ramp; tubes lie across it."""
    item, fixture = acted_object(scene), scene.fixture
    assert fixture is not None  # furnished by this module
    model = simulation.model
    board = int(model.body(_SUPPORT).geomadr[0])
    turned = rotation(model.body(_SUPPORT).quat) @ rotation(model.geom_quat[board])
    radius, length = item.half_width_m, _RAMP_HALF_M[0]
    upwards = -rng.uniform(0.45, 0.75) * (length - radius)
    centre = (
        np.array([*fixture.xy, 0.0])
        + model.geom_pos[board]
        + turned @ [upwards, 0.0, model.geom_size[board][2] + 0.0005 + radius]
    )
    if has_trait(item.kind, "tube"):
        axis = turned[:2, 1] / np.linalg.norm(turned[:2, 1])
        _hold_at(simulation, item, centre - np.array([*axis, 0]) * item.top_m / 2, lying_quaternion(axis))
    else:
        _hold_at(simulation, item, centre - [0, 0, radius], np.array([1.0, 0, 0, 0]))


def _roll_down(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> bool:
    before = _let_go(scene, simulation, rng)
    after = centre(simulation, scene.acted)
    return bool(np.linalg.norm((after - before)[:2]) > _MOVED_M and _ABOVE_TABLE_M < after[2] < before[2])


def _furnish_fall(builder: SceneBuilder) -> Task:
    """Leaning too far, or over the edge of a block."""
    rng, kind = builder.rng, builder.choose_acted("fall", _FALLING)
    if has_trait(kind, "tall") and rng.random() < 0.6:
        item, block = builder.add(kind, radius=0.09), None
    else:
        place = _stand_place(builder)
        block = _add_stand(builder, place, rng.uniform([0.04, 0.04, 0.02], [0.055, 0.055, 0.035]), 0.0)
        item = builder.add(kind, xy=place[0])
    _hold(builder, item)
    return Task("fall", item.name, item, fixture=block)


def _start_fall(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> None:
    item, yaw = acted_object(scene), rng.uniform(-np.pi, np.pi)
    heading, half = np.array(yaw_quaternion(yaw)), item.half_width_m
    if scene.fixture is None:
        direction = np.array([*thin_axis(yaw, item.kind, rng), 0.0])
        lean = balance_rad(simulation, item) + rng.uniform(0.05, 0.15)
        axis = np.cross([0, 0, 1], direction)
        turned = rotation_about(axis, lean) @ rotation(heading)
        edge = np.array([*scene.start_xy(item), 0.0]) + direction * half
        _hold_at(simulation, item, edge - rotation_about(axis, lean) @ (direction * half), quaternion_of(turned))
        return
    model = simulation.model
    block = model.geom_size[int(model.body(_SUPPORT).geomadr[0])]
    across = rotation(model.body(_SUPPORT).quat)[:, 0] * rng.choice([-1, 1])
    beyond = block[0] + rng.uniform(0.004, 0.010)
    # A thing that is longer along x than along y hangs over with its y.
    facing = np.arctan2(across[1], across[0]) - np.pi / 2
    position = np.array([*scene.fixture.xy, 2 * block[2] + 0.0005]) + across * beyond
    _hold_at(simulation, item, position, np.array(yaw_quaternion(float(facing))))


def _fall(scene: Scene, simulation: Simulation, rng: np.random.Generator) -> bool:
    before = _let_go(scene, simulation, rng)
    after = centre(simulation, scene.acted)
    lies = simulation.rotation(scene.acted)[2, 2] < _FALLEN_COS
    return bool((before[2] - after[2] > _DROPPED_M or lies) and after[2] > _ABOVE_TABLE_M)


SKILLS = (
    Skill(
        "roll_down",
        (
            "let the {a} roll down",
            "the {a} rolls down the ramp",
            "let go of the {a} on the ramp",
            "watch the {a} roll down the slope",
            "the {a} rolls off the ramp",
            "wait for the {a} to roll down",
        ),
        _furnish_roll_down,
        unfold=_roll_down,
        start=_start_roll_down,
        kinds=_ROLLING,
        weight=0.4,
        quasi_static=False,
    ),
    Skill(
        "fall",
        (
            "let the {a} fall",
            "the {a} falls",
            "the {a} tips over",
            "watch the {a} fall",
            "wait for the {a} to fall",
            "let go of the {a}",
        ),
        _furnish_fall,
        unfold=_fall,
        start=_start_fall,
        kinds=_FALLING,
        weight=0.4,
        quasi_static=False,
    ),
)
