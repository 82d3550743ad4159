"""Whole images for the full model: values, axes, holes and hints."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from momap_ros.conditioning import MAX_INSTANCES
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.model.dense_scene import (
    DenseScene,
    check_image_size,
    condition_images,
    dense_scene,
    hint_maps,
    hint_maps_of,
    in_scales,
    momap_image,
    nearest_known,
    scene_colors,
)
from momap_ros.momap import MoMap
from momap_ros.rgbd import FrameError, RGBDFrame

CAMERA = PinholeCamera(64, 64, 60.0, 60.0, 31.5, 31.5)


def scene_with_box(holes: float = 0.0) -> tuple[RGBDFrame, InstanceMap]:
    """A wall two metres away, a box at one metre with the id 7."""
    depth_m, ids = np.full((64, 64), 2.0, np.float32), np.zeros((64, 64), np.int32)
    depth_m[16:40, 8:32], ids[16:40, 8:32] = 1.0, 7
    rng = np.random.default_rng(0)
    depth_m[rng.random(depth_m.shape) < holes] = np.nan
    rgb = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return RGBDFrame(rgb, depth_m, CAMERA), InstanceMap(ids)


@pytest.fixture
def scene() -> DenseScene:
    return dense_scene(*scene_with_box(), 64)


def test_holes_take_the_nearest_pixel() -> None:
    valid = np.random.default_rng(1).random((20, 30)) > 0.7
    rows, columns = nearest_known(valid)
    assert valid[rows, columns].all()
    pixels = np.argwhere(np.ones_like(valid))
    expected, _ = cKDTree(np.argwhere(valid)).query(pixels)
    found = np.hypot(rows.ravel() - pixels[:, 0], columns.ravel() - pixels[:, 1])
    np.testing.assert_allclose(found, expected)
    own = np.argwhere(valid)
    np.testing.assert_array_equal(np.stack([rows[valid], columns[valid]], axis=1), own)


def test_condition_images_are_colour_instances_and_points(scene: DenseScene) -> None:
    frame, instances = scene_with_box()
    colors = scene_colors(scene, 3)
    images = condition_images(scene, colors)
    assert images.shape == (3, 3, 64, 64)
    np.testing.assert_allclose((images[0].transpose(1, 2, 0) + 1) * 127.5, frame.rgb, atol=1e-3)
    box = instances.ids == 7
    np.testing.assert_allclose(images[1][:, box], np.broadcast_to(colors[1][:, None], (3, box.sum())))
    assert not images[1][:, ~box].any()
    # The median depth is the unit: the wall. Pixel (u, v) at depth z is ((u - cx) / fx, (v - cy) / fy, 1) z.
    assert scene.grid.scale_m == 2.0
    v, u = 20, 10
    expected = np.array([(u - 31.5) / 60 * 1.0, (v - 31.5) / 60 * 1.0, 1.0]) / 2.0 - [0, 0, 1]
    np.testing.assert_allclose(images[2][:, v, u], expected, atol=1e-6)
    np.testing.assert_allclose(images[2][2][~box], 0, atol=1e-6)


def test_points_are_cut_off_at_the_limit() -> None:
    points = np.array([[9.0, -9.0, 12.0], [0.5, 0.25, 2.0]], np.float32)
    np.testing.assert_allclose(in_scales(points, 2.0, 1.5), [[1.5, -1.5, 1.5], [0.25, 0.125, 0.0]])


def test_holes_of_the_depth_leave_none_in_the_images() -> None:
    frame, instances = scene_with_box(holes=0.4)
    images = condition_images(dense_scene(frame, instances, 64), np.zeros((MAX_INSTANCES, 3), np.float32))
    assert np.isfinite(images).all()
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (160, 120)])
def test_frames_of_any_size_become_squares(size: tuple[int, int]) -> None:
    frame, instances = scene_with_box()
    stretched = dense_scene(frame.resized(*size), instances.resized(*size), 128)
    assert stretched.rgb.shape == stretched.points_in_camera.shape == (128, 128, 3)
    assert stretched.grid.slots.shape == stretched.cell_rows.shape == (32, 32)
    rows, columns = stretched.cell_rows, stretched.cell_columns
    np.testing.assert_array_equal(stretched.grid.slots, stretched.slots[rows, columns])
    np.testing.assert_array_equal(stretched.grid.points_in_camera, stretched.points_in_camera[rows, columns])
    assert ((rows // 4 == np.arange(32)[:, None]) & (columns // 4 == np.arange(32)[None])).all()


def test_hints_lie_on_the_latents_of_their_instance(scene: DenseScene) -> None:
    maps = hint_maps_of(scene, {7: (1, 0, -1)})
    assert maps.shape == (10, 8, 8)
    box = np.zeros((8, 8), np.bool_)
    box[2:5, 1:4] = True  # pixels 16 to 39, 8 to 31
    # Three flags per axis, for -, 0 and +; the last channel says that there is a hint.
    expected = np.array([0, 0, 1, 0, 1, 0, 1, 0, 0, 1], np.float32)
    np.testing.assert_array_equal(maps[:, box], np.broadcast_to(expected[:, None], (10, 9)))
    assert not maps[:, ~box].any()
    assert not hint_maps_of(scene, {}).any()
    with pytest.raises(ValueError, match="got 8"):
        hint_maps_of(scene, {8: (1, 0, 0)})


def test_a_slot_without_a_hint_has_no_flags() -> None:
    slots = np.ones((64, 64), np.int32)
    flags, given = np.ones((MAX_INSTANCES, 3), np.int8), np.zeros(MAX_INSTANCES, np.bool_)
    assert not hint_maps(slots, flags, given).any()


def test_a_momap_becomes_an_image_of_steps_and_axes() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0.5, 1.5, (5, 64, 64, 3)).astype(np.float32)
    valid = np.ones((64, 64), np.bool_)
    valid[10, 20] = False
    xyz[:, 10, 20] = np.nan
    image = momap_image(MoMap(xyz, valid, 0.1), 2.0)
    assert image.shape == (15, 64, 64)
    step, axis, v, u = 3, 2, 40, 50
    assert image[3 * step + axis, v, u] == pytest.approx(float(xyz[step, v, u, axis]) / 2 - 1, abs=1e-6)
    assert image[3 * step + 0, v, u] == pytest.approx(float(xyz[step, v, u, 0]) / 2, abs=1e-6)
    neighbours = [image[:, 10 + dv, 20 + du] for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    assert any(np.array_equal(image[:, 10, 20], neighbour) for neighbour in neighbours)


@pytest.mark.parametrize("size", [0, 32, 100])
def test_sizes_that_the_networks_cannot_halve_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"expected a multiple of 64 pixels, got {size}"):
        check_image_size(size)


def test_a_frame_without_depth_is_refused() -> None:
    frame, instances = scene_with_box(holes=2.0)
    with pytest.raises(FrameError, match="none in the whole image"):
        dense_scene(frame, instances, 64)
