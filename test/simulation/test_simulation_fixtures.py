from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.geometry import Float64
from momap_ros.simulation.fixture_kinds import FIXTURES
from momap_ros.simulation.hand import ScriptedHand, Simulation
from momap_ros.simulation.scene import NoRoomError, Scene, SceneBuilder, build_scene
from momap_ros.simulation.skills.registry import SKILLS
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.task import Task

WITH_PART = [kind for kind in FIXTURES if kind not in {"shelf", "sink"}]


@cache
def scene_with(kind: str, seed: int = 0, *, start: float = 0.0, falls: bool = False) -> Scene:
    """A scene about nothing, with a fixture whose joint starts at a share of its limit, and no arm."""

    def furnish(builder: SceneBuilder) -> Task:
        builder.add_fixture(kind, start=(start, start), falls=falls)
        return Task("wait")

    rng = np.random.default_rng(seed)
    while True:
        scene = build_scene(SPLITS["train"], furnish, rng, needs_arm=False)
        if scene.arm is None:
            return scene


def corners(scene: Scene, bodies: tuple[str, ...], joint: float) -> Float64:
    """(P, 3) corners of the boxes around the geoms of some bodies of the first fixture, metres, world."""
    model, data, fixture = scene.model, mujoco.MjData(scene.model), scene.fixtures[0]
    if fixture.part:
        data.joint(fixture.joint).qpos[0] = joint
    mujoco.mj_kinematics(model, data)
    found = []
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    for geom in np.flatnonzero(np.isin(model.geom_bodyid, [model.body(name).id for name in bodies])):
        local = model.geom_aabb[geom, :3] + signs * model.geom_aabb[geom, 3:]
        found.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    return np.concatenate(found)


@pytest.mark.parametrize("kind", FIXTURES)
@pytest.mark.parametrize("seed", range(3))
def test_a_fixture_stands_on_the_table_and_keeps_to_its_room(kind: str, seed: int) -> None:
    scene = scene_with(kind, seed)
    fixture = scene.fixtures[0]
    assert (fixture.kind, fixture.body) == (kind, FIXTURES[kind].body)
    lowest = corners(scene, (fixture.body,), 0.0)[:, 2].min()
    assert lowest == pytest.approx(0, abs=0.007)  # a faucet's column is round at its foot
    for joint in (0.0, fixture.limit / 2, fixture.limit):
        points = corners(scene, (fixture.body, *fixture.parts), joint)
        distance = np.linalg.norm(points[:, :2] - fixture.xy, axis=1)
        way = 0.17 if kind in {"drawer", "door"} else 0.0  # the way to the arm, which is kept free too
        assert distance.max() < FIXTURES[kind].radius_m + 0.02 + way
        if fixture.part and kind != "button":  # a button goes into its block
            assert corners(scene, fixture.parts, joint)[:, 2].min() > -1e-6


@pytest.mark.parametrize("kind", FIXTURES)
def test_what_is_seen_is_opaque(kind: str) -> None:
    model = scene_with(kind).model
    rendered = model.geom_group < 3
    materials = model.geom_matid[rendered]
    assert (model.mat_rgba[materials[materials >= 0], 3] == 1).all()
    assert (materials >= 0).all()


@pytest.mark.parametrize("kind", [kind for kind in WITH_PART if kind != "lamp"])
def test_a_joint_ends_where_the_fixture_says(kind: str) -> None:
    scene = scene_with(kind)
    np.testing.assert_allclose(scene.model.joint(scene.fixtures[0].joint).range, [0, scene.fixtures[0].limit])


@pytest.mark.parametrize("kind", [kind for kind in WITH_PART if kind != "lamp"])
@pytest.mark.parametrize("start", [0.0, 0.6])
def test_a_part_stays_where_it_is_left(kind: str, start: float) -> None:
    scene = scene_with(kind, 1, start=start)
    fixture, simulation = scene.fixtures[0], Simulation(scene)
    simulation.settle()
    simulation.start_recording()
    simulation.wait(100)
    sprung = kind == "button" and scene.model.joint(fixture.joint).stiffness[0] > 0
    expected = 0.0 if sprung else start * fixture.limit
    assert simulation.joint(fixture.joint) == pytest.approx(expected, abs=0.03 * fixture.limit)


@pytest.mark.parametrize(("kind", "start"), [("lamp", 0.8), ("lid", 0.6)])
def test_what_falls_is_held_until_the_first_frame_and_begins_at_rest(kind: str, start: float) -> None:
    scene = scene_with(kind, 2, start=start, falls=True)
    fixture, simulation = scene.fixtures[0], Simulation(scene)
    simulation.settle()
    simulation.start_recording()
    assert simulation.joint(fixture.joint) == pytest.approx(fixture.start, abs=0.05)
    assert abs(simulation.data.joint(fixture.joint).qvel[0]) < 1e-2
    simulation.wait(100)
    assert simulation.joint(fixture.joint) < fixture.start - 0.2


@pytest.mark.parametrize("skill", ["close_door", "close_drawer", "close_lid"])
def test_the_arm_comes_to_its_place_without_moving_what_is_open(skill: str) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scene = build_scene(SPLITS["train"], SKILLS[skill].furnish, rng)
        fixture, hand = scene.fixtures[0], ScriptedHand(scene, rng)
        hand.settle()
        assert hand.joint(fixture.joint) == pytest.approx(fixture.start, abs=0.05 * fixture.limit)


def test_two_fixtures_of_one_scene_are_never_of_the_same_body() -> None:
    others = []
    for seed in range(60):
        try:
            scene = build_scene(SPLITS["train"], SKILLS["press_button"].furnish, np.random.default_rng(seed))
        except NoRoomError:
            continue
        bodies = [fixture.body for fixture in scene.fixtures]
        assert len(set(bodies)) == len(bodies)
        others += bodies[1:]
    assert 2 <= len(others) <= 20


@pytest.mark.parametrize(
    ("kind", "start", "possible"),
    [
        ("drawer", 0.0, {"open_drawer"}),
        ("drawer", 0.9, {"close_drawer"}),
        ("door", 0.0, {"open_door"}),
        ("lid", 0.0, {"open_lid"}),
        ("lid", 0.9, {"close_lid"}),
        ("knob", 0.0, {"turn_knob"}),
        ("lever", 0.0, {"flip_lever"}),
        ("lever", 1.0, set()),
        ("button", 0.0, {"press_button"}),
        ("slider", 0.5, {"move_slider"}),
        ("lamp", 0.0, set()),
    ],
)
def test_what_else_could_happen_depends_on_how_the_fixture_is_at_first(
    kind: str, start: float, possible: set[str]
) -> None:
    scene = scene_with(kind, 3, start=start)
    scene = replace(scene, fixtures=scene.fixtures[:1])  # another one may have come by chance
    found = {}
    for name, skill in SKILLS.items():
        task = skill.retarget(scene, np.random.default_rng(0)) if skill.retarget else None
        if task is not None and task.item is None and task.acted:
            found[name] = task
    assert set(found) == possible
    for task in found.values():
        assert task.fixture == scene.fixtures[0]
        assert task.acted == scene.fixtures[0].part
        assert abs(task.amount - scene.fixtures[0].start) > 0.4 * scene.fixtures[0].limit


def test_nobody_keeps_still_what_is_about_to_fall() -> None:
    wait = SKILLS["wait"].retarget
    assert wait is not None
    assert wait(scene_with("lid", 2, start=0.6, falls=True), np.random.default_rng(0)) is None
    assert wait(scene_with("lid"), np.random.default_rng(0)) is not None
