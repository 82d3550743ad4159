from __future__ import annotations

import numpy as np
import pytest
from tabletop_scenes import Box, Scene, Surroundings, build_scene

from momap_ros.geometry import Float32
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.table import Table, find_table


def table_of(scene: Scene, depth_m: Float32 | None = None, seed: int = 0) -> Table:
    depth_m = scene.frame.depth_m if depth_m is None else depth_m
    return find_table(depth_m, scene.frame.camera, tolerance_m=0.008, seed=seed)


@pytest.mark.parametrize("pitch_rad", [0.5, 0.8, 1.2, np.pi / 2])
def test_plane_is_recovered_exactly(pitch_rad: float) -> None:
    scene = build_scene((Box((0.0, 0.0, 0.0), (0.1, 0.1, 0.1)),), Surroundings(pitch_rad=pitch_rad))

    table = table_of(scene)

    # The world's up in camera coordinates is (0, -cos(pitch), -sin(pitch)).
    np.testing.assert_allclose(table.normal, [0.0, -np.cos(pitch_rad), -np.sin(pitch_rad)], atol=5e-4)
    # The lowest pixels of the box lie within the tolerance and pull a little.
    assert table.offset_m == pytest.approx(0.9 * np.sin(pitch_rad), abs=2e-4)
    np.testing.assert_allclose(table.height_m[scene.ids == 0], 0.0, atol=5e-4)
    assert np.nanmax(table.height_m) == pytest.approx(0.1, abs=5e-4)


def test_noise_is_measured() -> None:
    noise_m = 0.002
    scene = build_scene((), Surroundings(noise_m=noise_m))

    # Noise is along the optical axis; across the table it shrinks by the cosine of the angle between them.
    assert table_of(scene).noise_m == pytest.approx(noise_m * np.sin(0.8), rel=0.15)


def test_a_bent_depth_image_gives_a_flat_table() -> None:
    scene = build_scene((), Surroundings())
    u = np.linspace(-1.0, 1.0, 320)
    bend_m = (0.006 * u**2).astype(np.float32)

    height_m = table_of(scene, scene.frame.depth_m + bend_m).height_m

    # 6 mm are bent in, quadratic along the ray; across the table that is nearly so.
    assert np.abs(height_m).max() < 0.0015


@pytest.mark.parametrize("noise_m", [0.0, 0.0005])
def test_something_flat_and_large_does_not_lift_the_table(noise_m: float) -> None:
    plate = Box((0.05, 0.05, 0.0), (0.5, 0.45, 0.007))
    scene = build_scene((plate,), Surroundings(noise_m=noise_m))

    table = table_of(scene)

    assert (scene.ids == 1).mean() > 0.2
    np.testing.assert_allclose(np.median(table.height_m[scene.ids == 0]), 0.0, atol=2e-4)
    np.testing.assert_allclose(np.median(table.height_m[scene.ids == 1]), 0.007, atol=4e-4)
    assert table.noise_m < noise_m + 2e-4


def test_over_the_table_ends_where_the_table_ends() -> None:
    post_on_it, post_beside_it = Box((0.1, 0.0, 0.0), (0.05, 0.05, 0.1)), Box((0.4, 0.0, -0.7), (0.05, 0.05, 0.75))
    scene = build_scene((post_on_it, post_beside_it), Surroundings(table_x=(-0.3, 0.3), table_y=(-0.3, 0.3)))

    table = table_of(scene)

    raised = table.height_m > 0.01
    assert table.over[raised & (scene.ids == 1)].mean() > 0.99
    assert table.over[raised & (scene.ids == 2)].mean() < 0.01


def test_the_table_goes_on_where_the_image_ends() -> None:
    scene = build_scene((Box((0.0, -0.33, 0.0), (0.1, 0.1, 0.1)),), Surroundings())

    table = table_of(scene)

    assert (scene.ids == 1)[-1].any(), "the box must be cut by the lower border of the image"
    raised = table.height_m > 0.01
    assert table.over[raised & (scene.ids == 1)].all()


def test_table_wins_over_a_larger_floor() -> None:
    around = Surroundings(table_x=(-0.3, 0.3), table_y=(-0.25, 0.25), floor_z=-0.4)
    scene = build_scene((), around)

    table = table_of(scene)

    assert (np.abs(table.height_m) < 0.005).mean() < 0.4, "the floor must fill more of the image than the table"
    assert table.offset_m == pytest.approx(scene.offset_m, abs=1e-4)


def test_table_wins_over_a_wall() -> None:
    scene = build_scene((), Surroundings(table_y=(-1.0, 0.1), wall_y=0.1, pitch_rad=0.5))

    table = table_of(scene)

    assert table.normal[1] < 0
    assert table.offset_m == pytest.approx(scene.offset_m, abs=2e-3)


@pytest.mark.parametrize("pitch_rad", [0.06, 0.12, 0.18])
def test_table_wins_over_a_wall_seen_from_the_side(pitch_rad: float) -> None:
    scene = build_scene((), Surroundings(table_y=(-2.0, -0.5), wall_y=-0.5, pitch_rad=pitch_rad))

    table = table_of(scene)

    assert (np.abs(table.height_m) < 0.005).mean() < 0.45, "the wall must fill more of the image than the table"
    np.testing.assert_allclose(table.normal, scene.normal, atol=2e-2)
    assert table.offset_m == pytest.approx(scene.offset_m, abs=5e-3)


@pytest.mark.parametrize("pitch_rad", [1.1, np.pi / 2])
def test_table_wins_over_the_top_of_a_box_that_fills_the_image(pitch_rad: float) -> None:
    scene = build_scene((Box((0.0, 0.0, 0.0), (0.7, 0.56, 0.12)),), Surroundings(pitch_rad=pitch_rad))

    table = table_of(scene)

    top = np.abs(table.height_m - 0.12) < 0.002
    assert top.mean() > (scene.ids == 0).mean(), "the top must fill more of the image than the table"
    np.testing.assert_allclose(table.height_m[scene.ids == 0], 0.0, atol=2e-3)


def test_table_wins_over_the_bottom_of_a_sink() -> None:
    height_m, far = 0.1, 2.0
    sides = [Box((sign * (0.26 + far / 2), 0.0, 0.0), (far, 2 * far, height_m)) for sign in (-1, 1)]
    ends = [Box((0.0, sign * (0.26 + far / 2), 0.0), (0.52, far, height_m)) for sign in (-1, 1)]
    scene = build_scene((*sides, *ends), Surroundings(pitch_rad=1.4))

    table = table_of(scene)

    bottom, top = np.abs(table.height_m + height_m) < 0.002, np.abs(table.height_m) < 0.002
    assert bottom.mean() > 0.24
    assert top.mean() > 0.4


def test_a_ramp_seen_from_above_is_not_the_table() -> None:
    around = Surroundings(pitch_rad=np.pi / 2)
    scene = build_scene((), around)
    across = scene.frame.points_in_camera[..., :2]
    on_ramp = (np.abs(across[..., 0]) < 0.15) & (across[..., 1] > -0.1) & (across[..., 1] < 0.1)
    # It rises towards the upper border of the image at 55 degrees: there its normal is the most level one.
    depth_m = scene.frame.depth_m - np.where(on_ramp, 1.4 * (0.1 - across[..., 1]), 0.0).astype(np.float32)

    np.testing.assert_allclose(table_of(scene, depth_m).normal, scene.normal, atol=1e-2)


def test_same_seed_same_table() -> None:
    scene = build_scene((), Surroundings(noise_m=0.002))

    first, second, other = table_of(scene), table_of(scene), table_of(scene, seed=1)

    np.testing.assert_array_equal(first.height_m, second.height_m)
    np.testing.assert_array_equal(first.over, second.over)
    np.testing.assert_allclose(other.normal, first.normal, atol=5e-3)


def test_no_depth_is_named() -> None:
    scene = build_scene((), Surroundings())

    with pytest.raises(SegmentationError, match=r"no table: .*got no depth at all; check the depth topic"):
        table_of(scene, np.full_like(scene.frame.depth_m, np.nan))


def test_little_depth_is_named() -> None:
    scene = build_scene((), Surroundings())
    depth_m = np.full_like(scene.frame.depth_m, np.nan)
    depth_m[:3] = 1.0

    with pytest.raises(SegmentationError, match=r"got depth in 1\.2% of the pixels"):
        table_of(scene, depth_m)


def test_no_plane_is_named() -> None:
    scene = build_scene((), Surroundings())
    depth_m = np.random.default_rng(0).uniform(0.3, 3.0, scene.frame.depth_m.shape).astype(np.float32)

    with pytest.raises(
        SegmentationError, match=r"no table: the best plane that faces the camera holds \d% of the central"
    ):
        table_of(scene, depth_m)
