"""Points drawn with a depth buffer."""

from __future__ import annotations

import numpy as np
import pytest

from momap_ros.geometry import PinholeCamera, unproject_depth
from momap_ros.shapes import ShapeError
from momap_ros.splatting import DEPTH_TOLERANCE_M, nearest_weights, splat_points

CAMERA = PinholeCamera(16, 12, 20.0, 20.0, 7.5, 5.5)
BLACK = np.zeros((12, 16, 3), np.uint8)
NOTHING = np.full((12, 16), np.nan, np.float32)


def point_of_pixel(u: float, v: float, depth_m: float) -> list[float]:
    return [(u - 7.5) / 20 * depth_m, (v - 5.5) / 20 * depth_m, depth_m]


def test_every_pixel_of_an_image_lands_on_itself() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    points = unproject_depth(rng.uniform(0.5, 2.0, (12, 16)).astype(np.float32), CAMERA)
    drawn = splat_points(BLACK, NOTHING, points.reshape(-1, 3), rgb.reshape(-1, 3), camera=CAMERA, size_px=1)
    np.testing.assert_array_equal(drawn, rgb)


def test_a_sideways_motion_shifts_the_image_by_the_pixels_it_must() -> None:
    rgb = np.random.default_rng(1).integers(1, 256, (12, 16, 3), dtype=np.uint8)
    points = unproject_depth(np.full((12, 16), 1.0, np.float32), CAMERA) + np.array([3 / 20, -2 / 20, 0], np.float32)
    drawn = splat_points(BLACK, NOTHING, points.reshape(-1, 3), rgb.reshape(-1, 3), camera=CAMERA, size_px=1)
    np.testing.assert_array_equal(drawn[:10, 3:], rgb[2:, :13])
    assert not drawn[10:].any()
    assert not drawn[:, :3].any()


@pytest.mark.parametrize(("size", "rows", "columns"), [(1, [4], [6]), (2, [4, 5], [6, 7]), (3, [3, 4, 5], [5, 6, 7])])
def test_squares_cover_what_they_should(size: int, rows: list[int], columns: list[int]) -> None:
    point = np.array([point_of_pixel(6, 4, 1.0)])
    drawn = splat_points(BLACK, NOTHING, point, np.array([[9, 9, 9]], np.uint8), camera=CAMERA, size_px=size)
    expected = np.zeros((12, 16), bool)
    expected[np.ix_(rows, columns)] = True
    np.testing.assert_array_equal(drawn.any(axis=-1), expected)


@pytest.mark.parametrize("size", [2, 3])
def test_larger_squares_leave_a_surface_sharp(size: int) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    points = unproject_depth(np.full((12, 16), 1.0, np.float32), CAMERA)
    drawn = splat_points(BLACK, NOTHING, points.reshape(-1, 3), rgb.reshape(-1, 3), camera=CAMERA, size_px=size)
    np.testing.assert_array_equal(drawn, rgb)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nearer_points_hide_farther_ones_in_any_order(order: tuple[int, int]) -> None:
    points = np.array([point_of_pixel(6, 4, 1.0), point_of_pixel(7, 4, 0.5)])[list(order)]
    colors = np.array([[1, 1, 1], [2, 2, 2]], np.uint8)[list(order)]
    drawn = splat_points(BLACK, NOTHING, points, colors, camera=CAMERA, size_px=3)
    assert drawn[4, 5, 0] == 1
    assert set(drawn[3:6, 6:9, 0].reshape(-1).tolist()) == {2}


def test_the_background_hides_what_is_behind_it() -> None:
    depth = np.full((12, 16), 1.0, np.float32)
    depth[4, 6] = np.nan
    colors = np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3]], np.uint8)
    points = np.array(
        [
            point_of_pixel(2, 2, 1.0 + 2 * DEPTH_TOLERANCE_M),
            point_of_pixel(10, 8, 1.0 + 0.5 * DEPTH_TOLERANCE_M),
            point_of_pixel(6, 4, 5.0),
        ]
    )
    drawn = splat_points(BLACK, depth, points, colors, camera=CAMERA, size_px=1)
    assert [int(drawn[v, u, 0]) for u, v in ((2, 2), (10, 8), (6, 4))] == [0, 2, 3]


def test_points_that_cannot_be_seen_are_left_out() -> None:
    points = np.array([[np.nan] * 3, [0, 0, -1.0], [0, 0, 0], point_of_pixel(-3, 4, 1.0), point_of_pixel(4, 400, 1.0)])
    drawn = splat_points(BLACK, NOTHING, points, np.full((5, 3), 9, np.uint8), camera=CAMERA)
    assert not drawn.any()
    none = splat_points(BLACK, NOTHING, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), camera=CAMERA)
    assert not none.any()


def test_sizes_are_checked() -> None:
    with pytest.raises(ShapeError, match="background_depth_m"):
        splat_points(BLACK, NOTHING[1:], np.zeros((0, 3)), np.zeros((0, 3), np.uint8), camera=CAMERA)


def test_interpolation_reproduces_references_and_constants() -> None:
    rng = np.random.default_rng(2)
    references = rng.uniform(0, 100, (30, 2))
    values = rng.normal(size=30)
    index, weight = nearest_weights(references, references)
    np.testing.assert_allclose((weight * values[index]).sum(axis=1), values, rtol=1e-6)
    index, weight = nearest_weights(rng.uniform(0, 100, (50, 2)), references)
    np.testing.assert_allclose(weight.sum(axis=1), 1.0)
    assert (weight >= 0).all()
    # Half way between two references both count the same.
    index, weight = nearest_weights(np.array([[5.0, 0.0]]), np.array([[0.0, 0.0], [10.0, 0.0]]))
    np.testing.assert_allclose(weight, 0.5)
    index, weight = nearest_weights(np.array([[5.0, 0.0]]), np.array([[1.0, 1.0]]))
    assert (index.tolist(), weight.tolist()) == ([[0]], [[1.0]])
