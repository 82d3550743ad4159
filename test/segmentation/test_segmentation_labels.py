from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.geometry import PinholeCamera
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.labels import instances_from_labels

FRAME = RGBDFrame(np.zeros((3, 4, 3), np.uint8), np.ones((3, 4), np.float32), PinholeCamera(4, 3, 4.0, 4.0, 1.5, 1.0))
LABELS = np.array([[0, 1, 1, 0], [0, 7, 7, 0], [0, 0, 120, 120]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type_is_taken(dtype: npt.DTypeLike) -> None:
    instances = instances_from_labels(LABELS.astype(dtype), FRAME)

    np.testing.assert_array_equal(instances.ids, LABELS)
    assert instances.ids.dtype == np.int32
    assert instances.areas_px == {1: 2, 7: 2, 120: 2}


def test_an_image_without_instances_is_legitimate() -> None:
    assert instances_from_labels(np.zeros((3, 4), np.uint8), FRAME).areas_px == {}


def test_the_callers_array_is_not_shared() -> None:
    labels = LABELS.astype(np.int32)
    instances = instances_from_labels(labels, FRAME)
    labels[:] = 5

    np.testing.assert_array_equal(instances.ids, LABELS)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (LABELS.T, "expected 4x3 pixels as the colour image has, got shape (4, 3)"),
        (np.zeros((3, 4, 1), np.uint8), "got shape (3, 4, 1)"),
        (LABELS.astype(np.float32), "expected integers, got float32"),
        (LABELS - 1, "expected values in [0, 2147483647], got [-1, 119]; use 0 for pixels without an instance"),
        (LABELS.astype(np.uint32) + 2**31, "got [2147483648, 2147483768]"),
    ],
)
def test_wrong_labels_are_named(labels: npt.NDArray[Any], text: str) -> None:
    with pytest.raises(SegmentationError, match=re.escape(text)):
        instances_from_labels(labels, FRAME)
