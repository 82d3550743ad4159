from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.simulation.assets import KINDS, NATURAL_COLORS, add_object
from momap_ros.simulation.parts import lathe_mesh
from momap_ros.simulation.textures import PALETTE, Materials, procedural_texture


def test_a_lathe_mesh_is_closed_and_faces_outwards() -> None:
    radius, height = 0.03, 0.05
    vertices, faces = lathe_mesh([(0, 0), (radius, 0), (radius, height), (0, height)])
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    volume = np.sum(a * np.cross(b, c)) / 6  # divergence theorem: exact for a closed surface
    sides = 24
    assert volume == pytest.approx(0.5 * sides * radius**2 * np.sin(2 * np.pi / sides) * height, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_comes_to_rest_on_the_table_within_its_stated_size(kind: str) -> None:
    spec, rng = mujoco.MjSpec(), np.random.default_rng(1)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1])
    item = add_object(spec, Materials(spec, rng), rng, kind=kind, color="red", name="thing", xy=np.array([0.1, -0.2]))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 500)
    np.testing.assert_allclose(data.body("thing").xpos[:2], [0.1, -0.2], atol=0.02)
    assert abs(data.body("thing").xpos[2]) < 0.006
    assert 0.004 < item.half_width_m < 0.1
    assert 0.008 < item.height_m < 0.12


def test_natural_colours_are_in_the_palette() -> None:
    assert set(NATURAL_COLORS) <= set(KINDS)
    assert {color for colors in NATURAL_COLORS.values() for color in colors} <= set(PALETTE)


def test_textures_are_pictures_that_repeat_with_their_seed() -> None:
    images = [procedural_texture(np.random.default_rng(seed)) for seed in range(20)]
    assert all(image.shape == (128, 128, 3) and image.dtype == np.uint8 for image in images)
    np.testing.assert_array_equal(images[7], procedural_texture(np.random.default_rng(7)))
    assert len({image.tobytes() for image in images}) == 20
