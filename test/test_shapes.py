from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from momap_ros.shapes import ShapeError, check_shapes


def test_letters_are_bound_across_arrays() -> None:
    lengths = check_shapes(image=(np.zeros((4, 6, 3)), "H W 3"), mask=(np.zeros((4, 6)), "H W"), t=(np.zeros(5), "T"))

    assert lengths == {"H": 4, "W": 6, "T": 5}


def test_known_lengths_are_held_to_and_returned_unchanged() -> None:
    known = {"H": 4}

    assert check_shapes(known, mask=(np.zeros((4, 6)), "H W")) == {"H": 4, "W": 6}
    assert known == {"H": 4}


@pytest.mark.parametrize("shape", [(3,), (2, 3), (5, 1, 2, 3)])
def test_dots_allow_any_leading_axes(shape: tuple[int, ...]) -> None:
    assert check_shapes(points=(np.zeros(shape), "... 3")) == {}


def test_torch_tensors_are_arrays_too() -> None:
    assert check_shapes(x=(torch.zeros(2, 7), "B C")) == {"B": 2, "C": 7}


def test_scalars_have_no_axes() -> None:
    assert check_shapes(x=(np.zeros(()), "")) == {}


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"depth_m": (np.zeros((4, 3)), "3 3")}, "depth_m: expected (3, 3), got (4, 3); axis 3 must be 3"),
        (
            {"a": (np.zeros((4, 6)), "H W"), "b": (np.zeros((4, 5)), "H W")},
            "b: expected (H, W), got (4, 5); axis W must be 6",
        ),
        ({"a": (np.zeros((4, 6)), "N N")}, "a: expected (N, N), got (4, 6); axis N must be 4"),
        ({"a": (np.zeros(4), "H W")}, "a: expected (H, W), got (4,); the number of axes differs"),
        ({"a": (np.zeros((1, 4, 6)), "H W")}, "a: expected (H, W), got (1, 4, 6); the number of axes differs"),
        ({"a": (np.zeros(4), "... 4 4")}, "a: expected (..., 4, 4), got (4,); the number of axes differs"),
        ({"a": (np.zeros((2, 4, 5)), "... 4 4")}, "a: expected (..., 4, 4), got (2, 4, 5); axis 4 must be 4"),
    ],
)
def test_errors_say_expected_got_and_which_axis(arrays: dict[str, tuple[np.ndarray, str]], text: str) -> None:
    with pytest.raises(ShapeError, match=f"^{re.escape(text)}$"):
        check_shapes(**arrays)


def test_contradiction_of_a_known_length() -> None:
    with pytest.raises(ShapeError, match="axis H must be 480"):
        check_shapes({"H": 480}, depth_m=(np.zeros((240, 320)), "H W"))


def test_shape_errors_are_value_errors() -> None:
    assert issubclass(ShapeError, ValueError)
