from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.instances import InstanceMap, count_ids, renumbered
from momap_ros.shapes import ShapeError

IDS = np.array([[0, 0, 9, 9], [0, 2, 9, 9], [2, 2, 0, 0]], np.int32)


def test_areas_come_in_rising_order_without_the_background() -> None:
    areas_px = InstanceMap(IDS).areas_px

    assert areas_px == {2: 3, 9: 4}
    assert list(areas_px) == [2, 9]
    assert all(type(key) is int and type(area) is int for key, area in areas_px.items())


def test_an_empty_map_is_legitimate() -> None:
    assert InstanceMap(np.zeros((3, 4), np.int32)).areas_px == {}


def test_doubling_repeats_every_pixel_and_halving_undoes_it() -> None:
    instances = InstanceMap(IDS, {2: "cup"})

    doubled = instances.resized(8, 6)

    np.testing.assert_array_equal(doubled.ids, IDS.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(doubled.resized(4, 3).ids, IDS)
    assert doubled.ids.dtype == np.int32
    assert doubled.labels == {2: "cup"}


@pytest.mark.parametrize(("width", "height"), [(3, 2), (7, 5), (640, 480)])
def test_resizing_invents_no_ids(width: int, height: int) -> None:
    resized = InstanceMap(IDS).resized(width, height)

    assert resized.ids.shape == (height, width)
    assert set(np.unique(resized.ids)) <= {0, 2, 9}


def test_colours_depend_on_seed_and_id_alone() -> None:
    image = InstanceMap(IDS).color_image(seed=3)

    assert image.shape == (3, 4, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[IDS == 0], 0)
    assert len(np.unique(image[IDS == 9], axis=0)) == 1
    alone = InstanceMap(np.where(IDS == 9, 9, 0).astype(np.int32)).color_image(seed=3)
    np.testing.assert_array_equal(alone[IDS == 9], image[IDS == 9])
    assert (InstanceMap(IDS).color_image(seed=4)[IDS == 9] != image[IDS == 9]).any()


def test_colours_of_many_instances_are_distinct_and_visible() -> None:
    image = InstanceMap(np.arange(200, dtype=np.int32)[None]).color_image()

    assert len(np.unique(image[0], axis=0)) == 200
    assert image[0, 1:].min() >= 40


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (IDS.astype(np.int64), "ids: expected int32 values >= 0, got int64"),
        (IDS.astype(np.uint8), "got uint8"),
        (IDS - 1, "got int32 with minimum -1"),
    ],
)
def test_wrong_ids_are_named(ids: npt.NDArray[np.int32], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        InstanceMap(ids)


def test_ids_are_an_image() -> None:
    with pytest.raises(ShapeError, match=r"ids: expected \(H, W\), got \(3, 4, 1\)"):
        InstanceMap(IDS[..., None])


@pytest.mark.parametrize("largest", [9, 70_000, 2_000_000_000])
def test_ids_are_counted_and_renumbered_whatever_their_size(largest: int) -> None:
    ids = np.array([[0, 4, 4], [largest, 0, 4]], np.int32)
    values, counts = count_ids(ids)
    assert (values.tolist(), counts.tolist()) == ([0, 4, largest], [2, 3, 1])
    assert InstanceMap(ids).areas_px == {4: 3, largest: 1}
    changed = renumbered(ids, values.astype(np.int32), np.array([0, 7, 1], np.int32))
    assert changed.tolist() == [[0, 7, 7], [1, 0, 7]]
    assert changed.dtype == np.int32
