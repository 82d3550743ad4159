from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.simulation.arm import HELD_OUT_STYLES, OPEN_M, ROBOT_BODIES, STYLES, add_arm
from momap_ros.simulation.assets import KINDS, NATURAL_COLORS, ObjectInfo, add_object, kinds_with
from momap_ros.simulation.parts import lathe_mesh
from momap_ros.simulation.room import add_room, empty_spec
from momap_ros.simulation.skills.handling import lying_quaternion
from momap_ros.simulation.textures import PALETTE, Materials, procedural_texture


def test_a_lathe_mesh_is_closed_and_faces_outwards() -> None:
    radius, height = 0.03, 0.05
    vertices, faces = lathe_mesh([(0, 0), (radius, 0), (radius, height), (0, height)])
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    volume = np.sum(a * np.cross(b, c)) / 6  # divergence theorem: exact for a closed surface
    sides = 24
    assert volume == pytest.approx(0.5 * sides * radius**2 * np.sin(2 * np.pi / sides) * height, rel=1e-5)


def compiled(kind: str, seed: int = 1, *, room: bool = False) -> tuple[mujoco.MjModel, mujoco.MjData, ObjectInfo]:
    """One object at (0.1, -0.2) on a plane, or on a table."""
    spec, rng = empty_spec(), np.random.default_rng(seed)
    materials, place = Materials(spec, rng), np.array([0.1, -0.2])
    if room:
        add_room(spec, materials, rng)
    else:
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1])
    item = add_object(spec, materials, rng, kind=kind, color="red", name="thing", xy=place)
    model = spec.compile()
    return model, mujoco.MjData(model), item


def test_there_are_enough_kinds_of_every_sort() -> None:
    assert len(KINDS) >= 28
    for trait in ("container", "support", "stackable", "rolling", "tube", "tall", "lies", "pours", "wipes", "flat"):
        assert len(kinds_with(trait)) >= 3, trait


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_comes_to_rest_on_the_table_within_its_stated_size(kind: str) -> None:
    model, data, item = compiled(kind)
    mujoco.mj_step(model, data, 500)
    np.testing.assert_allclose(data.body("thing").xpos[:2], [0.1, -0.2], atol=0.02)
    assert abs(data.body("thing").xpos[2]) < 0.006
    assert np.abs(data.qvel[:3]).max() < 0.005
    assert 0.004 < item.half_width_m < 0.1
    assert 0.008 < item.height_m <= item.top_m < 0.12


@pytest.mark.parametrize("kind", kinds_with("graspable"))
def test_a_gripper_takes_what_is_graspable(kind: str) -> None:
    for seed in range(5):
        model, data, item = compiled(kind, seed)
        mujoco.mj_forward(model, data)
        assert item.grip_half_m < OPEN_M
        turned = data.body("thing").xmat.reshape(3, 3)
        grip = data.body("thing").xpos + turned @ [item.grip_x_m, 0, item.grip_z_m]
        beside = grip + turned[:, 1] * 0.06
        distance = mujoco.mj_ray(model, data, beside, -turned[:, 1], None, 1, -1, np.zeros(1, np.int32), None)
        assert abs(0.06 - distance - item.grip_half_m) < 0.006, "a finger meets it where it is said to be"


@pytest.mark.parametrize("kind", kinds_with("lies"))
def test_what_lies_on_its_side_is_as_high_as_said_on_every_table(kind: str) -> None:
    for seed in range(8):  # every shape of table
        model, data, item = compiled(kind, seed, room=True)
        data.qpos[2] = item.half_width_m + 0.0005
        data.qpos[3:7] = lying_quaternion(np.array([1.0, 0.0]))
        mujoco.mj_step(model, data, 400)
        assert data.body("thing").xpos[2] == pytest.approx(item.half_width_m, abs=0.002)


def test_every_style_of_arm_has_a_hand_that_closes() -> None:
    seen = set()
    for seed in range(40):
        held_out = seed == 0
        spec, rng = empty_spec(), np.random.default_rng(seed)
        arm = add_arm(spec, Materials(spec, rng), rng, held_out=held_out)
        if arm.style in seen:
            continue
        seen.add(arm.style)
        model = spec.compile()
        data = mujoco.MjData(model)
        names = {model.body(body).name for body in range(model.nbody)}
        assert set(ROBOT_BODIES[-3:]) <= names
        assert (set(ROBOT_BODIES) <= names) == bool(arm.home)
        data.mocap_pos[0], data.mocap_quat[0] = [0.2, 0.0, 0.25], [np.sqrt(0.5), 0, np.sqrt(0.5), 0]
        for joint, angle in arm.home.items():
            data.joint(joint).qpos[0] = angle
        data.ctrl[:] = OPEN_M
        mujoco.mj_step(model, data, 300)
        wide = np.linalg.norm(data.body("left_finger").xpos - data.body("right_finger").xpos)
        data.ctrl[:] = 0
        mujoco.mj_step(model, data, 200)
        narrow = np.linalg.norm(data.body("left_finger").xpos - data.body("right_finger").xpos)
        assert wide - narrow > 0.06
        np.testing.assert_allclose(data.body("hand").xpos, [0.2, 0.0, 0.25], atol=0.01)
    assert seen == {*HELD_OUT_STYLES, *STYLES}


def test_natural_colours_are_in_the_palette() -> None:
    assert set(NATURAL_COLORS) <= set(KINDS)
    assert {color for colors in NATURAL_COLORS.values() for color in colors} <= set(PALETTE)


def test_textures_are_pictures_that_repeat_with_their_seed() -> None:
    images = [procedural_texture(np.random.default_rng(seed)) for seed in range(20)]
    assert all(image.shape == (128, 128, 3) and image.dtype == np.uint8 for image in images)
    np.testing.assert_array_equal(images[7], procedural_texture(np.random.default_rng(7)))
    assert len({image.tobytes() for image in images}) == 20
