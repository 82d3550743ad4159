"""Crops of prepared samples: what stays in view, and that points and motions are those of the whole."""

from pathlib import Path

import numpy as np
import pytest

from momap_ros.conditioning import GRID, RGB_GRID
from momap_ros.data import augment
from momap_ros.data.prepared import CELL_ROLES, PreparedSplit

ALL = range(12)


@pytest.fixture(scope="module")
def whole(prepared_folder: Path) -> PreparedSplit:
    return PreparedSplit.open(prepared_folder / "train").take(np.array(ALL))


@pytest.fixture(scope="module")
def parts(whole: PreparedSplit) -> PreparedSplit:
    return augment.cropped(whole, 1.0, np.random.default_rng(0))


def motion_in_metres(split: PreparedSplit, index: int) -> np.ndarray:
    """(1024, 3 + 3K) point of each cell and its latent in metres."""
    points = split.points_in_camera[index].reshape(-1, 3).astype(np.float64)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    matrices = split.latent_from_point[index][split.mover[index].ravel()] * split.scale_m[index]
    return np.concatenate([points, np.einsum("pcj,pj->pc", matrices, homogeneous)], axis=1)


def test_points_and_motions_are_those_of_the_whole(whole: PreparedSplit, parts: PreparedSplit) -> None:
    for index in ALL:
        of_whole, of_part = (motion_in_metres(split, index) for split in (whole, parts))
        known = {tuple(point): row for row, point in enumerate(of_whole[:, :3]) if not np.isnan(point).any()}
        seen = [row for row in range(GRID**2) if not np.isnan(of_part[row]).any()]
        source = [known[tuple(of_part[row, :3])] for row in seen]  # KeyError: a point that the whole does not have
        np.testing.assert_allclose(of_part[seen], of_whole[source], rtol=1e-5, atol=1e-5)


def test_the_unit_of_length_is_that_of_the_part(whole: PreparedSplit, parts: PreparedSplit) -> None:
    depth = parts.seen_points_in_camera[..., 2].reshape(len(ALL), -1).astype(np.float32)
    np.testing.assert_allclose(parts.scale_m, np.nanmedian(depth, axis=1), rtol=1e-6)
    assert not np.allclose(parts.scale_m, whole.scale_m)


def test_what_is_acted_upon_stays_in_view(whole: PreparedSplit, parts: PreparedSplit) -> None:
    for index in ALL:
        acted = [np.flatnonzero(split.role[index] == CELL_ROLES["acted"]) for split in (whole, parts)]
        assert len(acted[1]) >= len(acted[0])  # a longer lens shows it on more cells


@pytest.mark.parametrize(("side", "shown"), [(GRID, np.arange(GRID)), (GRID / 2, np.repeat(np.arange(8, 24), 2))])
def test_a_square_shows_its_cells(side: float, shown: np.ndarray) -> None:
    first = 0.0 if side == GRID else 8.0
    rows, columns = augment.cells_of((first, first, side), GRID)
    np.testing.assert_array_equal(rows, shown)
    np.testing.assert_array_equal(columns, shown)
    fine_rows, _ = augment.cells_of((first, first, side), RGB_GRID)
    np.testing.assert_array_equal(fine_rows[::2] // 2, rows)  # the picture shows the same part


def test_no_share_no_crop(whole: PreparedSplit) -> None:
    same = augment.cropped(whole, 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(same.rgb, whole.rgb)
    np.testing.assert_array_equal(same.scale_m, whole.scale_m)
