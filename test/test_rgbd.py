from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from momap_ros.geometry import PinholeCamera, project
from momap_ros.rgbd import FrameError, RGBDFrame, resize_nearest
from momap_ros.shapes import ShapeError

CAMERA = PinholeCamera(8, 6, 10.0, 11.0, 3.5, 2.5)
DEPTH_M = np.linspace(0.5, 2.0, 48, dtype=np.float32).reshape(6, 8)
DEPTH_M[2, 3] = np.nan
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
FRAME = RGBDFrame(RGB, DEPTH_M, CAMERA, 123, "camera")


def test_valid_and_points_follow_the_depth() -> None:
    np.testing.assert_array_equal(FRAME.valid, np.isfinite(DEPTH_M))
    np.testing.assert_array_equal(np.isnan(FRAME.points_in_camera).all(axis=-1), ~FRAME.valid)
    np.testing.assert_array_equal(FRAME.points_in_camera[..., 2], DEPTH_M)
    # x = (u - cx) z / fx, y = (v - cy) z / fy
    point = FRAME.points_in_camera[4, 7]
    np.testing.assert_allclose(point, [3.5 / 10 * DEPTH_M[4, 7], 1.5 / 11 * DEPTH_M[4, 7], DEPTH_M[4, 7]], rtol=1e-6)


def test_points_of_chosen_pixels_are_those_of_the_map() -> None:
    u, v = np.array([7, 3, 0, 3], np.int32), np.array([4, 2, 5, 2], np.int32)

    np.testing.assert_array_equal(FRAME.points_at(u, v), FRAME.points_in_camera[v, u])
    assert np.isnan(FRAME.points_at(u, v)[1]).all()


def test_a_frame_without_any_reading_is_legitimate() -> None:
    assert not replace(FRAME, depth_m=np.full((6, 8), np.nan, np.float32)).valid.any()


@pytest.mark.parametrize(("width", "height"), [(4, 3), (16, 12), (5, 5), (640, 480)])
def test_resizing_keeps_every_point_on_its_ray_within_half_a_pixel(width: int, height: int) -> None:
    resized = FRAME.resized(width, height)

    assert resized.rgb.shape == (height, width, 3)
    assert resized.rgb.dtype == np.uint8
    assert (resized.stamp_ns, resized.frame_id) == (123, "camera")
    assert set(np.unique(resized.depth_m[resized.valid])) <= set(np.unique(DEPTH_M[FRAME.valid])), (
        "depth is not blended"
    )
    rows, columns = np.nonzero(resized.valid)
    seen_at = project(resized.points_in_camera[rows, columns], CAMERA)
    source = np.rint(np.stack([(columns + 0.5) * 8 / width - 0.5, (rows + 0.5) * 6 / height - 0.5], axis=-1) + 1e-6)
    assert np.abs(seen_at - source).max() <= 0.5 + 1e-4


def test_resizing_to_the_same_size_changes_nothing() -> None:
    same = FRAME.resized(8, 6)

    np.testing.assert_array_equal(same.rgb, RGB)
    np.testing.assert_array_equal(same.depth_m, DEPTH_M)
    assert same.camera == CAMERA


def test_colour_shrinks_by_the_mean() -> None:
    halved = FRAME.resized(4, 3).rgb.astype(float)

    means = RGB.astype(float).reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - means).max() <= 0.5 + 1e-9


def test_nearest_pixels_of_a_known_image() -> None:
    image = np.array([[1, 2, 3, 4]], np.int16)

    np.testing.assert_array_equal(resize_nearest(image, 2, 1), [[2, 4]])
    np.testing.assert_array_equal(resize_nearest(image, 8, 2), [[1, 1, 2, 2, 3, 3, 4, 4]] * 2)
    assert resize_nearest(np.zeros((6, 8, 3), np.uint8), 5, 4).shape == (4, 5, 3)
    assert resize_nearest(image, 2, 1).dtype == np.int16


@pytest.mark.parametrize(("wrong", "shown"), [(0.0, "0.0"), (-1.0, "-1.0"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_depth_that_means_nothing_is_named(wrong: float, shown: str) -> None:
    depth_m = DEPTH_M.copy()
    depth_m[0, 0] = wrong

    with pytest.raises(
        FrameError, match=rf"depth_m: expected positive finite metres or NaN, got values in \[.*{shown}"
    ):
        replace(FRAME, depth_m=depth_m)


def test_wrong_types_are_named() -> None:
    with pytest.raises(FrameError, match="expected rgb uint8 and depth_m float32, got uint8 and float64"):
        replace(FRAME, depth_m=DEPTH_M.astype(np.float64))
    with pytest.raises(FrameError, match="got float32 and float32"):
        replace(FRAME, rgb=RGB.astype(np.float32))


def test_images_of_another_size_than_the_camera_are_named() -> None:
    with pytest.raises(ShapeError, match=r"rgb: expected \(H, W, 3\), got \(5, 8, 3\); axis H must be 6"):
        replace(FRAME, rgb=RGB[1:])
    with pytest.raises(ShapeError, match=r"depth_m: expected \(H, W\), got \(6, 7\); axis W must be 8"):
        replace(FRAME, depth_m=DEPTH_M[:, 1:])
    with pytest.raises(ShapeError, match="axis 3 must be 3"):
        replace(FRAME, rgb=np.zeros((6, 8, 4), np.uint8))
