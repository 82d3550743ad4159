from __future__ import annotations

import numpy as np
import pytest
from tabletop_scenes import Bowl, Box, build_scene

from momap_ros.geometry import Float32, PinholeCamera
from momap_ros.instances import Int32
from momap_ros.segmentation.patches import (
    Bool,
    borders,
    concave_cuts,
    connected_cores,
    depth_jumps,
    fill_holes,
    grow,
    hollowness_m,
    join_patches,
    parted_cores,
)

CAMERA = PinholeCamera.from_fov(320, 240, vertical_fov_rad=0.8)


def plane_depth(normal: tuple[float, float, float]) -> Float32:
    """(240, 320) depth of the plane normal . point = -1."""
    return np.asarray(-1.0 / (CAMERA.rays @ np.array(normal)), np.float32)


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.0, -0.8, -0.6), (0.9, -0.3, -0.8)])
def test_planes_are_not_cut_however_slanted(normal: tuple[float, float, float]) -> None:
    assert not concave_cuts(plane_depth(normal), CAMERA.fx, 0.05).any()


def two_planes(slope: float) -> tuple[Float32, Float32]:
    """Depth of two planes that meet in the middle column: the nearer of both (a valley), the farther (a ridge)."""
    left, right = plane_depth((slope, 0.0, -1.0)), plane_depth((-slope, 0.0, -1.0))
    return np.minimum(left, right), np.maximum(left, right)


def test_two_planes_are_cut_where_they_meet_in_a_concave_edge_only() -> None:
    valley, ridge = two_planes(1.0)

    assert not concave_cuts(ridge, CAMERA.fx, 0.25).any()
    cuts = concave_cuts(valley, CAMERA.fx, 0.25)
    assert cuts[20:-20, 158:162].all()
    assert not cuts[:, :152].any()
    assert not cuts[:, 168:].any()


def test_steeper_limit_cuts_fewer_edges() -> None:
    valley, _ = two_planes(0.4)

    assert concave_cuts(valley, CAMERA.fx, 0.2).any()
    assert not concave_cuts(valley, CAMERA.fx, 0.5).any()


def test_what_is_hidden_is_cut_along_what_hides_it() -> None:
    depth_m = np.full((240, 320), 1.0, np.float32)
    depth_m[100:140, 140:180] = 0.8

    cuts = concave_cuts(depth_m, CAMERA.fx, 0.25)

    assert cuts[99, 145:175].all()
    # The corners are blurred with what they hide.
    assert not cuts[101:139, 141:179].any()
    assert not cuts[:90].any()


def test_unknown_depth_is_not_cut() -> None:
    depth_m = plane_depth((0.0, -0.8, -0.6))
    depth_m[100:110, 100:200] = np.nan

    assert not concave_cuts(depth_m, CAMERA.fx, 0.25).any()


def test_depth_jumps_mark_the_second_pixel() -> None:
    depth_m = np.array([[1.0, 1.0, 1.02], [1.0, 1.0, 1.02], [1.05, 1.0, np.nan]], np.float32)

    expected = np.array([[False, False, True], [False, False, True], [True, True, False]])
    np.testing.assert_array_equal(depth_jumps(depth_m, 0.015), expected)
    assert not depth_jumps(depth_m, 0.06).any()


def test_cores_are_numbered_and_specks_dropped() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2:10, 2:10] = True
    mask[20:30, 20:30] = True
    mask[0, 30:35] = True

    labels = connected_cores(mask)

    assert labels.max() == 2
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], [64, 100])
    assert labels.dtype == np.int32


def two_squares(cut_rows: list[int], *, neck: slice = slice(None)) -> tuple[Bool, Bool, Int32]:
    """A mask of two squares of 60 pixels beside each other, a cut between them, and a label for each half.

    Args:
        cut_rows: of the 60, that are cut in the middle column.
        neck: of the 60, that join the squares at all, over 4 columns.
    """
    mask, cuts = np.zeros((2, 240, 320), bool)
    mask[90:150, 100:220] = True
    mask[90:150, 158:162] = False
    mask[90:150, 158:162][neck] = True
    cuts[90:150, 160][cut_rows] = True
    return mask, cuts, np.where(mask, 1 + (np.arange(320) >= 160), 0)


@pytest.mark.parametrize("gap_px", [0, 4, 12])
def test_pieces_are_parted_where_a_cut_has_a_gap(gap_px: int) -> None:
    mask, cuts, halves = two_squares([row for row in range(60) if abs(row - 29.5) > gap_px / 2])

    cores = parted_cores(mask, cuts, np.ones(mask.shape, np.float32), 0.012)

    assert cores.max() == 2
    assert not (cores[cuts] > 0).any()
    # Within the gap the border may lie anywhere.
    surely = mask & ~cuts & ((np.arange(320) < 150) | (np.arange(320) > 170))
    assert len(np.unique(np.stack([cores[surely], halves[surely]]), axis=1)[0]) == 2


@pytest.mark.parametrize("cut_px", [0, 20, 40])
def test_pieces_with_a_cut_along_part_of_their_border_are_one(cut_px: int) -> None:
    mask, cuts, _ = two_squares(list(range(cut_px)))

    cores = parted_cores(mask, cuts, np.ones(mask.shape, np.float32), 0.012)

    assert cores.max() == 1
    np.testing.assert_array_equal(cores > 0, mask & ~cuts)


def test_a_narrow_place_without_a_cut_parts_nothing() -> None:
    mask, cuts, _ = two_squares([], neck=slice(28, 32))
    cuts[100:104, 105:115] = True  # somewhere else

    cores = parted_cores(mask, cuts, np.ones(mask.shape, np.float32), 0.012)

    assert cores.max() == 1


def test_growing_stops_at_depth_jumps_until_nothing_else_is_left() -> None:
    labels = np.zeros((1, 9), np.int32)
    labels[0, 0], labels[0, 8] = 1, 2
    depth_m = np.array([[1.0] * 6 + [2.0] * 3], np.float32)

    grown = grow(labels, np.ones((1, 9), bool), depth_m, jump_m=0.1, rounds=20)

    np.testing.assert_array_equal(grown, [[1, 1, 1, 1, 1, 1, 2, 2, 2]])


def test_growing_crosses_a_jump_where_no_label_is_behind_it() -> None:
    labels = np.array([[1, 0, 0, 0]], np.int32)
    depth_m = np.array([[1.0, 1.0, 2.0, 2.0]], np.float32)

    np.testing.assert_array_equal(grow(labels, np.ones((1, 4), bool), depth_m, jump_m=0.1, rounds=9), [[1, 1, 1, 1]])
    np.testing.assert_array_equal(grow(labels, np.ones((1, 4), bool), depth_m, jump_m=0.1, rounds=1), [[1, 1, 1, 0]])
    np.testing.assert_array_equal(grow(labels, np.ones((1, 4), bool), depth_m, jump_m=0.1, rounds=0), labels)


def test_growing_keeps_to_the_mask() -> None:
    labels = np.array([[1, 0, 0, 0]], np.int32)
    mask = np.array([[True, True, False, True]])

    np.testing.assert_array_equal(grow(labels, mask, np.ones((1, 4), np.float32), jump_m=0.1, rounds=9), [[1, 1, 0, 0]])


def test_borders_of_a_known_image() -> None:
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]], np.int32)
    depth_m = np.where(labels == 2, 1.5, 1.0).astype(np.float32)

    touching = borders(labels, depth_m)

    # Patch 1 has two pixel pairs with patch 2 and two with the background.
    np.testing.assert_allclose(touching.share[1], [0.5, 0.0, 0.5])
    np.testing.assert_allclose(touching.step_m[1], [0.0, 0.0, 0.5])
    np.testing.assert_allclose(touching.step_m[2], [-0.5, -0.5, 0.0])


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.5, -0.6, -0.6)])
def test_planes_are_neither_hollow_nor_convex(normal: tuple[float, float, float]) -> None:
    rows, columns = (axis.ravel().astype(np.int32) for axis in np.mgrid[80:160, 100:200])

    assert hollowness_m(rows, columns, plane_depth(normal)[rows, columns]) == pytest.approx(0.0, abs=1e-6)


def test_hollow_of_a_spherical_cap() -> None:
    """A cap deviates by h (1 - s) from its rim plane, s uniform over its area: halves differ by h / 2."""
    radius_px, sag_m = 40, 0.02
    v, u = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    square = (u**2 + v**2) / radius_px**2
    inside = square <= 1
    rows, columns = (axis[inside].astype(np.int32) for axis in (v, u))
    inverse = 1.0 / (10.0 + sag_m * (1.0 - square[inside]))

    hollow = hollowness_m(rows, columns, (1.0 / inverse).astype(np.float32))

    assert hollow == pytest.approx(sag_m / 2, rel=0.02)
    convex = (10.0 - sag_m * (1.0 - square[inside])).astype(np.float32)
    assert hollowness_m(rows, columns, convex) == pytest.approx(-sag_m / 2, rel=0.02)


def test_inside_of_a_bowl_joins_its_front_wall() -> None:
    scene = build_scene((Bowl((0.0, 0.0), 0.08),))
    depth_m = scene.frame.depth_m
    bowl = scene.ids == 1
    cores = connected_cores(bowl & ~concave_cuts(depth_m, scene.frame.camera.fx, 0.25) & ~depth_jumps(depth_m, 0.012))
    labels = grow(cores, bowl, depth_m, jump_m=0.012, rounds=8)
    height_m = np.where(bowl, np.float32(0.08), np.float32(0.0))

    joined = join_patches(labels, cores, depth_m, height_m, min_px=80)

    assert labels.max() == 2, "inside and front wall are two patches"
    assert len(np.unique(joined[joined > 0])) == 1
    assert (joined[bowl] > 0).mean() > 0.98


def test_one_box_behind_another_stays_two_patches() -> None:
    boxes = (Box((0.0, 0.1, 0.0), (0.15, 0.05, 0.1)), Box((0.0, -0.05, 0.0), (0.1, 0.05, 0.1)))
    scene = build_scene(boxes)

    joined = join_patches(scene.ids, scene.ids, scene.frame.depth_m, np.where(scene.ids, 0.1, 0.0), min_px=80)

    np.testing.assert_array_equal(joined, scene.ids)


def test_fragments_join_their_only_neighbour() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[5:35, 5:35] = 1
    labels[15:20, 35:40] = 2
    depth_m = np.ones(labels.shape, np.float32)
    flat = np.zeros(labels.shape, np.float32)

    small = join_patches(labels, labels, depth_m, flat, min_px=20)
    assert np.unique(small).tolist() == [0, 1, 2], "a quarter of its outline is not enough"

    labels[14:21, 35:37] = 1
    labels[20, 35:40] = 1
    joined = join_patches(labels, labels, depth_m, flat, min_px=20)
    assert np.unique(joined).tolist() == [0, 1]


def test_specks_are_dropped_when_nothing_joins_them() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[5:35, 5:35] = 1
    labels[15:20, 50:55] = 2

    joined = join_patches(labels, labels, np.ones((40, 60), np.float32), np.zeros((40, 60), np.float32), min_px=30)

    assert np.unique(joined).tolist() == [0, 1]


def test_small_holes_inside_one_label_are_filled() -> None:
    labels = np.zeros((30, 60), np.int32)
    labels[2:28, 2:28] = 1
    labels[2:28, 30:56] = 2
    labels[5:8, 5:8] = 0  # a hole of nine pixels
    labels[12:22, 12:22] = 0  # too large
    labels[5:8, 27:31] = 0  # open: between two labels

    filled = fill_holes(labels, 20)

    assert (filled[5:8, 5:8] == 1).all()
    assert (filled[12:22, 12:22] == 0).all()
    assert (filled[5:8, 28:30] == 0).all()
    assert (labels[5:8, 5:8] == 0).all(), "the input stays as it was"
