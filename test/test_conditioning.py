from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch

from momap_ros.conditioning import (
    CONDITION_CHANNELS,
    GRID,
    HASH_BUCKETS,
    HINT_CHANNELS,
    MAX_INSTANCES,
    MAX_POINT_SCALES,
    MAX_WORDS,
    RGB_GRID,
    TOKEN_FEATURES,
    Conditioning,
    Vocabulary,
    assemble,
    choose_cell_pixels,
    hint_arrays,
    scene_grid,
    scene_scale,
    slot_colors,
)
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import FrameError, RGBDFrame
from momap_ros.shapes import ShapeError

Bool = npt.NDArray[np.bool_]


def all_usable(size: int) -> Bool:
    return np.ones((size, size), np.bool_)


def random_blobs(size: int, seed: int) -> npt.NDArray[np.int32]:
    """Overlapping rectangles of many sizes on a background."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((size, size), np.int32)
    for label in range(1, 30):
        height, width = (rng.random(2) ** 2 * size / 3).astype(int) + 1
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        ids[top : top + height, left : left + width] = label
    return ids


# --- the pixel of a cell


@pytest.mark.parametrize("size", [32, 64, 96, 128, 256])
def test_every_cell_gets_a_pixel_of_its_own(size: int) -> None:
    rows, columns = choose_cell_pixels(random_blobs(size, 1), all_usable(size))
    cell = size // GRID
    np.testing.assert_array_equal(rows // cell, np.arange(GRID)[:, None].repeat(GRID, axis=1))
    np.testing.assert_array_equal(columns // cell, np.arange(GRID)[None].repeat(GRID, axis=0))


def test_the_chosen_label_is_the_smallest_object_with_a_share_of_the_cell() -> None:
    ids = random_blobs(128, 2)
    rows, columns = choose_cell_pixels(ids, all_usable(128))
    areas = np.bincount(ids.ravel())
    for row in range(GRID):
        for column in range(GRID):
            cell = ids[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            labels, counts = np.unique(cell, return_counts=True)
            candidates = labels[counts >= 3]  # 3 of 16 pixels
            expected = candidates[areas[candidates].argmin()]
            assert ids[rows[row, column], columns[row, column]] == expected


def test_a_small_object_wins_its_cells_from_a_large_one() -> None:
    ids = np.full((256, 256), 7, np.int32)
    ids[80:84, 100:104] = 3  # 16 pixels, a quarter of the one cell (10, 12) that they touch
    rows, columns = choose_cell_pixels(ids, all_usable(256))
    chosen = ids[rows, columns]
    assert chosen[10, 12] == 3
    assert (chosen == 3).sum() == 1


def test_a_sliver_below_the_share_does_not_win() -> None:
    ids = np.full((256, 256), 7, np.int32)
    ids[80:83, 100:103] = 3  # 9 of 64 pixels; 12 are needed
    rows, columns = choose_cell_pixels(ids, all_usable(256))
    assert (ids[rows, columns] == 7).all()


def test_where_no_label_has_the_share_the_most_frequent_one_is_taken() -> None:
    ids = np.tile(np.arange(64, dtype=np.int32).reshape(8, 8), (GRID, GRID))  # 64 labels in every cell
    ids[8:10, 8:13] = 1_000_000  # 10 pixels of cell (1, 1), 12 are needed
    rows, columns = choose_cell_pixels(ids, all_usable(256))
    assert ids[rows[1, 1], columns[1, 1]] == 1_000_000


def test_the_pixel_with_depth_nearest_the_centre_is_taken() -> None:
    usable = all_usable(160)  # cells of 5x5 pixels
    ids = np.zeros((160, 160), np.int32)
    rows, columns = choose_cell_pixels(ids, usable)
    np.testing.assert_array_equal(rows[0], np.full(GRID, 2))
    np.testing.assert_array_equal(columns[0], 5 * np.arange(GRID) + 2)
    usable[:5, :5] = False
    usable[4, 0] = True
    rows, columns = choose_cell_pixels(ids, usable)
    assert (rows[0, 0], columns[0, 0]) == (4, 0)


def test_the_label_counts_more_than_depth() -> None:
    ids = np.zeros((64, 64), np.int32)
    ids[0, 0] = 5
    usable = all_usable(64)
    usable[0, 0] = False
    rows, columns = choose_cell_pixels(ids, usable)  # 5 owns a quarter of cell (0, 0) and has no depth there
    assert (rows[0, 0], columns[0, 0]) == (0, 0)


def test_a_side_that_is_no_multiple_of_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        choose_cell_pixels(np.zeros((100, 100), np.int32), all_usable(100))


# --- the scene as the model sees it


def made_scene(width: int, height: int) -> tuple[RGBDFrame, InstanceMap]:
    """A tilted plane and two boxes, given by functions of the relative image position; equal in any resolution."""
    camera = PinholeCamera(640, 480, 600.0, 600.0, 319.5, 239.5).resized(width, height)
    x, y = (np.arange(width) + 0.5) / width, ((np.arange(height) + 0.5) / height)[:, None]
    ids = np.zeros((height, width), np.int32)
    ids[(abs(x - 0.25) < 0.125) & (abs(y - 0.5) < 0.25)] = 4
    ids[(abs(x - 0.75) < 0.125) & (abs(y - 0.5) < 0.125)] = 9
    depth = (0.6 + 0.3 * (1 - y) + 0 * x).astype(np.float32)
    depth[ids == 4] = 0.5
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[ids == 4], rgb[ids == 9] = (200, 10, 60), (0, 100, 250)
    return RGBDFrame(rgb, depth, camera), InstanceMap(ids)


def test_a_stretched_image_gives_the_same_cells_as_a_square_one() -> None:
    square, stretched = (scene_grid(*made_scene(*size)) for size in ((256, 256), (640, 480)))
    np.testing.assert_array_equal(square.slots, stretched.slots)
    assert square.slot_ids == stretched.slot_ids == (4, 9)
    assert stretched.scale_m == pytest.approx(square.scale_m, rel=0.01)
    # The pixels of both lie within one pixel of the square image of each other.
    np.testing.assert_allclose(square.points_in_camera, stretched.points_in_camera, atol=0.006)
    inside = (stretched.slots == 1)[1:-1, 1:-1]
    colors = stretched.rgb.reshape(GRID, 2, GRID, 2, 3)[1:-1, :, 1:-1].transpose(0, 2, 1, 3, 4)
    assert abs(colors[inside].astype(int) - [200, 10, 60]).max(axis=(1, 2, 3)).min() <= 1


def test_slots_number_the_instances_in_order_of_id() -> None:
    frame, instances = made_scene(256, 256)
    grid = scene_grid(frame, instances)
    assert set(np.unique(grid.slots)) == {0, 1, 2}
    assert grid.slots[16, 8] == 1
    assert grid.slots[16, 24] == 2
    assert grid.dropped_ids == ()
    np.testing.assert_allclose(grid.points_in_camera[16, 8, 2], 0.5)
    assert grid.scale_m == pytest.approx(float(np.median(grid.points_in_camera[..., 2])))


def test_instances_beyond_the_slots_or_without_a_cell_are_reported() -> None:
    ids = np.zeros((256, 256), np.int32)
    for number in range(24):
        top, left = 40 * (number // 6), 40 * (number % 6)
        ids[top : top + 12 + number, left : left + 16] = 100 + number  # growing areas
    ids[250, 250] = 77  # a single pixel
    grid = scene_grid(
        RGBDFrame(
            np.zeros((256, 256, 3), np.uint8),
            np.ones((256, 256), np.float32),
            PinholeCamera(256, 256, 300.0, 300.0, 127.5, 127.5),
        ),
        InstanceMap(ids),
    )
    assert grid.slot_ids == tuple(range(105, 124))  # the 19 largest
    assert grid.dropped_ids == (77, 100, 101, 102, 103, 104)
    assert grid.slots.max() == MAX_INSTANCES - 1
    assert grid.slots[0, 0] == 0  # 100 was dropped: the model sees its cells as background


def test_cells_without_depth_are_unknown_and_leave_the_scale_alone() -> None:
    frame, instances = made_scene(256, 256)
    depth = np.ones((256, 256), np.float32)
    depth[:, :100] = np.nan
    grid = scene_grid(RGBDFrame(frame.rgb, depth, frame.camera), instances)
    assert np.isnan(grid.points_in_camera[:, :12]).all()
    assert not np.isnan(grid.points_in_camera[:, 13:]).any()
    assert grid.scale_m == 1.0


def test_a_frame_without_depth_is_refused() -> None:
    with pytest.raises(FrameError, match="none in the whole image"):
        scene_scale(np.full((GRID, GRID, 3), np.nan, np.float32))


def test_an_instance_map_of_another_size_is_refused() -> None:
    frame, _ = made_scene(256, 256)
    with pytest.raises(ShapeError, match="ids"):
        scene_grid(frame, InstanceMap(np.zeros((128, 256), np.int32)))


# --- words


def test_words_are_numbered_and_punctuation_separates_them() -> None:
    vocabulary = Vocabulary(["block", "lift", "the"])
    numbers, ignored = vocabulary.encode("Lift the BLOCK, the-block!")
    first = 1 + HASH_BUCKETS
    np.testing.assert_array_equal(numbers[:6], [first + 1, first + 2, first, first + 2, first, 0])
    assert ignored == []
    assert len(vocabulary) == first + 3
    assert numbers.max() < len(vocabulary)


def test_unknown_and_cut_off_words_are_reported() -> None:
    numbers, ignored = Vocabulary(["go"]).encode("go zyx " + "go " * MAX_WORDS + "west")
    assert ignored == ["go", "go", "west", "zyx"]
    assert (numbers > 0).all()
    assert 1 <= numbers[1] <= HASH_BUCKETS


def test_an_empty_prompt_is_all_padding() -> None:
    numbers, ignored = Vocabulary(["go"]).encode(" 12 ... ")
    assert not numbers.any()
    assert ignored == []


def test_unknown_words_hash_alike_in_every_process() -> None:
    program = (
        "from momap_ros.conditioning import Vocabulary; print(*Vocabulary([]).encode('naranja pomme apfel')[0][:3])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    here = Vocabulary([]).encode("naranja pomme apfel")[0][:3]
    assert printed == {" ".join(map(str, here)) + "\n"}


# --- hints


def test_hints_reach_the_slot_of_their_instance() -> None:
    flags, given = hint_arrays({9: (1, 0, -1)}, (4, 9))
    np.testing.assert_array_equal(np.flatnonzero(given), [2])
    np.testing.assert_array_equal(flags[2], [1, 0, -1])
    assert not np.delete(flags, 2, axis=0).any()


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({5: (0, 0, 1)}, r"among \[4, 9\], got 5"),
        ({4: (0, 2, 1)}, "three flags"),
        ({4: (0, 1)}, "three flags"),
    ],
)
def test_impossible_hints_are_refused(hints: dict[int, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hint_arrays(hints, (4, 9))


def test_an_instance_keeps_its_colour_whatever_its_slot() -> None:
    first, second = slot_colors((4, 9), seed=3), slot_colors((2, 4, 9), seed=3)
    np.testing.assert_array_equal(first[1:3], second[2:4])
    assert not first[0].any()
    assert not first[3:].any()
    assert (first[1:3] != slot_colors((4, 9), seed=4)[1:3]).all()
    assert abs(second).max() <= 1


# --- the tensors


def assembled(seed: int = 0) -> tuple[Conditioning, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand((2, GRID, GRID, 3), generator=generator) + torch.tensor([-0.5, -0.5, 0.3])
    points[:, 5, 6] = torch.nan
    points[0, 7, 8] = torch.tensor([-100.0, 0.0, 0.8])
    inputs = {
        "rgb": torch.rand((2, RGB_GRID, RGB_GRID, 3), generator=generator) * 2 - 1,
        "points_in_camera": points,
        "scale_m": torch.tensor([0.8, 1.6]),
        "slots": torch.randint(0, 4, (2, GRID, GRID), generator=generator),
        "colors": torch.rand((2, MAX_INSTANCES, 3), generator=generator) * 2 - 1,
        "hint_flags": torch.zeros((2, MAX_INSTANCES, 3), dtype=torch.int8),
        "hint_given": torch.zeros((2, MAX_INSTANCES), dtype=torch.bool),
        "words": torch.zeros((2, MAX_WORDS), dtype=torch.int64),
    }
    inputs["hint_flags"][1, 2] = torch.tensor([-1, 0, 1])
    inputs["hint_given"][1, 2] = True
    return assemble(**inputs), inputs


def test_colour_fills_the_first_twelve_channels() -> None:
    conditioning, inputs = assembled()
    assert conditioning.maps.shape == (2, CONDITION_CHANNELS, GRID, GRID)
    for channel in range(3):
        for down in range(2):
            for right in range(2):
                np.testing.assert_array_equal(
                    conditioning.maps[:, 4 * channel + 2 * down + right],
                    inputs["rgb"][:, down::2, right::2, channel],
                )


def test_instance_colours_follow() -> None:
    conditioning, inputs = assembled()
    for scene in range(2):
        expected = inputs["colors"][scene][inputs["slots"][scene]]
        np.testing.assert_array_equal(conditioning.maps[scene, 12:15].permute(1, 2, 0), expected)


def test_points_are_in_scene_scales_about_the_scale_on_the_optical_axis() -> None:
    conditioning, inputs = assembled()
    normalised = conditioning.maps[:, 15:18].permute(0, 2, 3, 1)
    for scene, scale in enumerate((0.8, 1.6)):
        known = ~torch.isnan(inputs["points_in_camera"][scene, ..., 2])
        known[7, 8] = False
        expected = inputs["points_in_camera"][scene][known] / scale - torch.tensor([0.0, 0.0, 1.0])
        np.testing.assert_allclose(normalised[scene][known], expected, atol=1e-6)
    assert normalised[0, 7, 8, 0] == -MAX_POINT_SCALES  # 125 scales to the left
    assert not normalised[:, 5, 6].any()


def test_validity_says_which_cells_have_depth() -> None:
    conditioning, _ = assembled()
    valid = conditioning.maps[:, 18]
    assert not valid[:, 5, 6].any()
    assert valid.sum() == 2 * (GRID * GRID - 1)


def test_hints_mark_the_cells_of_their_instance_only() -> None:
    conditioning, inputs = assembled()
    hints = conditioning.maps[:, 19:]
    assert hints.shape[1] == HINT_CHANNELS
    assert not hints[0].any()
    inside = inputs["slots"][1] == 2
    assert not hints[1][:, ~inside].any()
    # One-hot (-, 0, +) for x, y and z, and "given".
    expected = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0, 1, 1.0])
    assert (hints[1][:, inside] == expected[:, None]).all()


def test_tokens_hold_the_moments_of_an_instance() -> None:
    conditioning, inputs = assembled()
    assert conditioning.tokens.shape == (2, MAX_INSTANCES, TOKEN_FEATURES)
    np.testing.assert_array_equal(conditioning.token_valid, [[slot < 4 for slot in range(MAX_INSTANCES)]] * 2)
    scene, slot = 1, 2
    inside = inputs["slots"][scene] == slot
    token = conditioning.tokens[scene, slot]
    cell_rgb = inputs["rgb"][scene].reshape(GRID, 2, GRID, 2, 3).mean(dim=(1, 3))[inside]
    np.testing.assert_allclose(token[:3], cell_rgb.mean(dim=0), atol=1e-5)
    np.testing.assert_allclose(token[3:6], cell_rgb.std(dim=0, correction=0), atol=1e-4)
    points = conditioning.maps[scene, 15:18].permute(1, 2, 0)[inside & (conditioning.maps[scene, 18] > 0)]
    np.testing.assert_allclose(token[6:9], points.mean(dim=0), atol=1e-5)
    np.testing.assert_allclose(token[9:12], points.std(dim=0, correction=0), atol=1e-4)
    np.testing.assert_array_equal(token[12:22], [1, 0, 0, 0, 1, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(token[22:25], inputs["colors"][scene, slot])
    area, with_depth = int(inside.sum()), int((inside & (conditioning.maps[scene, 18] > 0)).sum())
    np.testing.assert_allclose(token[25:], [np.log(area + 1) / 3 - 1, with_depth / area], rtol=1e-5)


def test_a_hint_that_is_not_given_leaves_no_trace() -> None:
    _, inputs = assembled()
    given = assemble(**inputs)
    inputs["hint_flags"][0, 1] = torch.tensor([1, 1, 1])
    again = assemble(**inputs)
    assert torch.equal(given.maps, again.maps)
    assert torch.equal(given.tokens, again.tokens)


def test_arrays_of_another_size_are_refused() -> None:
    _, inputs = assembled()
    inputs["slots"] = inputs["slots"][:, :16]
    with pytest.raises(ShapeError, match="slots"):
        assemble(**inputs)
