"""Contact sheets and videos of stored samples: what is drawn is where mathematics says."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.commands import data_show
from momap_ros.data.pictures import (
    ROLE_COLORS,
    Tile,
    contact_sheet,
    depth_colors,
    depth_sheet,
    depth_tile,
    motion_sheet,
    motion_tile,
    moves,
    sample_frames,
)
from momap_ros.data.sample import Role, Sample, SampleError, write_shard
from momap_ros.drawing import INK, time_colors
from momap_ros.geometry import PinholeCamera

Picture = npt.NDArray[np.uint8]


def sliding(key: str = "train_0000000_0", *, steps: int = 5) -> Sample:
    """A grey wall 1 m away, 80 x 60 pixels; the red square of pixels 10..19 by 20..29 slides 40 pixels to the right."""
    rgb, ids = np.full((60, 80, 3), 100, np.uint8), np.zeros((60, 80), np.uint8)
    rgb[20:30, 10:20], ids[20:30, 10:20] = (200, 30, 30), 1
    motion = np.tile(np.eye(3, 4, dtype=np.float32), (steps, 1, 1, 1))
    motion[:, 0, 0, 3] = np.linspace(0, 0.5, steps)
    return Sample(
        key=key,
        split="train",
        skill="slide",
        kind="square",
        text="slide the square to the right",
        rgb=rgb,
        depth_m=np.ones((60, 80), np.float32),
        body_ids=ids,
        camera=PinholeCamera(80, 60, 80.0, 80.0, 39.5, 29.5),
        camera_from_world=np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
        body_names=("world", "red square"),
        body_roles=(Role.WORLD, Role.ACTED),
        moving_bodies=np.array([1], np.uint8),
        motion_t_from_0=motion,
        duration_s=2.0,
    )


def still() -> Sample:
    """Nothing acts, nothing moves."""
    none = np.zeros((5, 0, 3, 4), np.float32)
    return replace(
        sliding("train_0000001_0"),
        body_roles=(Role.WORLD, Role.OBJECT),
        kind="",
        moving_bodies=np.zeros(0, np.uint8),
        motion_t_from_0=none,
    )


def recording() -> Sample:
    return replace(
        still(),
        key="train_0000002_0",
        skill="",
        text="",
        depth_m=np.full((60, 80), np.nan, np.float32),
        body_ids=np.zeros((60, 80), np.uint8),
        motion_t_from_0=np.zeros((1, 0, 3, 4), np.float32),
        source="lerobot",
        lacks=("camera", "depth", "instances", "motion"),
    )


def close_to(picture: Picture, color: object, tolerance: int = 12) -> npt.NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - np.array(color)) <= tolerance).all(axis=-1))


def test_a_path_is_drawn_where_projection_says() -> None:
    picture = motion_tile(sliding(), width=160).picture
    assert picture.shape == (240, 320, 3)  # four pixels for each of the image
    # The square's rows are 20 to 29; its paths end 40 pixels right of where they start, with arrow heads.
    end = close_to(picture, time_colors(4)[-1])
    rows, columns = np.nonzero(end)
    assert rows.min() >= 4 * 20 - 6  # half an arrow head
    assert rows.max() <= 4 * 30 + 6
    assert columns.min() >= 4 * (10 + 28)  # the last of four pieces of 10 pixels
    assert 4 * 55 <= columns.max() <= 4 * 62
    start_columns = np.nonzero(close_to(picture, time_colors(4)[0]))[1]
    assert start_columns.max() <= 4 * 31  # the first piece
    # Between two paths the wall is as it was.
    assert (picture[:70] == 100).all()
    assert (picture[130:] == 100).all()


def test_the_acted_object_is_outlined_in_its_colour() -> None:
    rows, columns = np.nonzero(close_to(motion_tile(sliding(), width=160).picture, ROLE_COLORS[Role.ACTED]))
    assert abs(rows.min() - 4 * 20) <= 4
    assert abs(rows.max() - 4 * 30) <= 4
    assert abs(columns.min() - 4 * 10) <= 4
    assert columns.max() <= 4 * 20 + 4


def test_facts_tell_how_far_and_where_to() -> None:
    assert motion_tile(sliding(), width=100).facts == "2.0 s: square 50 cm, right"
    assert motion_tile(still(), width=100).facts == "2.0 s: nothing moves"
    unseen = replace(sliding(), body_ids=np.zeros((60, 80), np.uint8))
    assert motion_tile(unseen, width=100).facts == "2.0 s: the acted object is not seen"
    falling = replace(sliding(), body_roles=(Role.WORLD, Role.OBJECT))
    assert motion_tile(falling, width=100).facts == "2.0 s: nothing is acted on"


def test_a_recording_is_its_plain_image_and_says_what_it_lacks() -> None:
    tile = motion_tile(recording(), width=160)
    enlarged = cv2.resize(recording().rgb, (320, 240), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(tile.picture, enlarged)
    assert tile.facts == "lerobot: no camera, depth, instances, motion"
    assert tile.words == "no sentence"
    assert not moves(recording())
    with pytest.raises(SampleError, match="got one of lerobot that lacks camera, depth, instances, motion"):
        sample_frames(recording())


def test_depth_colours_mean_equal_ratios() -> None:
    colors = depth_colors(np.array([0.5, 1.0, 2.0, 9.0, np.nan]), (0.5, 2.0))
    middle = depth_colors(np.array([0.0, 5.0, 10.0]) + 1, (1.0, 36.0))[1]  # the root of 1 * 36 is 6
    np.testing.assert_array_equal(colors[1], middle)
    np.testing.assert_array_equal(colors[2], colors[3])
    assert colors[0].sum() > colors[1].sum() > colors[2].sum()
    assert len({tuple(color) for color in colors}) == 4


def test_depth_tiles_show_depth_above_instances() -> None:
    tile = depth_tile(sliding(), width=160, depth_range_m=(0.5, 2.0))
    assert tile.picture.shape == (480, 320, 3)
    np.testing.assert_array_equal(tile.picture[10, 10], depth_colors(np.array([1.0]), (0.5, 2.0))[0])
    assert tile.words == "1 red square"
    assert tile.facts == "1.00 to 1.00 m"
    assert depth_tile(recording(), width=160, depth_range_m=(0.5, 2.0)).words == "no instances"


def test_a_sheet_has_its_tiles_in_rows_and_captions_inside() -> None:
    long = "word " * 80
    tiles = [Tile(np.full((60, 80, 3), 40 * index + 60, np.uint8), long, long, long) for index in range(5)]
    sheet = contact_sheet(tiles, title="five", legend=[], columns=3, width=240)
    assert sheet.shape[1] == 3 * 250 + 10
    rows, lefts = set(), set()
    for index in range(5):
        filled = (sheet == 40 * index + 60).all(axis=-1)
        block = np.argwhere(
            filled & np.roll(filled, 1, axis=1) & np.roll(filled, 1, axis=0) & np.roll(filled, 9, axis=0)
        )
        rows.add(int(block[:, 0].max()))
        lefts.add(int(block[:, 1].min()))
        # The caption stays between its picture and the next row, and within its tile.
        below = sheet[block[:, 0].max() + 1 :][:60]
        left = 10 + index % 3 * 250
        ink = (below != INK).any(axis=(0, 2))
        assert ink[left : left + 240].any()
        assert not ink[left - 8 : left].any()
        assert not ink[left + 238 : left + 248].any()
    assert (len(rows), len(lefts)) == (2, 3)


def test_short_sheets_and_mixed_sizes_fit() -> None:
    wide = replace(
        recording(),
        rgb=np.full((40, 160, 3), 100, np.uint8),
        depth_m=np.full((40, 160), np.nan, np.float32),
        body_ids=np.zeros((40, 160), np.uint8),
        camera=PinholeCamera(160, 40, 80.0, 80.0, 79.5, 19.5),
    )
    for sheet in (motion_sheet, depth_sheet):
        assert sheet([sliding()], title="a" * 90, columns=6, width=120).shape[1] == 140
        assert sheet([sliding(), wide, still()], title="t", columns=2, width=120).shape[1] == 270


def test_a_video_carries_the_pixels_exactly() -> None:
    pictures = list(sample_frames(sliding()))
    assert len(pictures) == 5
    first, last = (picture[4::8, 4::8] for picture in (pictures[0], pictures[-1]))  # 640 wide: eight pixels for one
    ghost, carried = last[20:30, 10:20], last[20:30, 50:60]
    assert np.median(np.abs(first[20:30, 10:20].astype(int) - (200, 30, 30))) <= 2
    assert np.median(np.abs(carried.reshape(-1, 3).astype(int) - (200, 30, 30)), axis=0).max() <= 2
    assert np.median(np.abs(ghost.reshape(-1, 3) - np.array([84.0, 12.6, 12.6])), axis=0).max() <= 2
    assert moves(sliding())
    assert not moves(still())
    assert len(list(sample_frames(still()))) == 5


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    data_show.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["show", *options])
    return int(arguments.run(arguments))


def test_the_command_writes_sheets_and_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [sliding(steps=3), still(), recording()]
    write_shard(tmp_path / "train-0.tar", samples)
    out = tmp_path / "out"
    options = ("--out", str(out), "--tile", "120", "--columns", "2")
    assert run(str(tmp_path), *options, "--video", "2") == 0
    assert {path.name for path in out.iterdir()} == {"samples.png", "instances.png", "train_0000000_0.gif"}
    assert "1 videos instead of 2" in capsys.readouterr().err
    written = cv2.imread(str(out / "samples.png"))
    assert written is not None
    in_order = [samples[2], samples[0], samples[1]]  # by skill, then key
    expected = motion_sheet(in_order, title=f"{tmp_path.name}, train", columns=2, width=120)
    np.testing.assert_array_equal(written[..., ::-1], expected)
    size = (out / "samples.png").stat().st_size
    assert run(str(tmp_path), *options, "--small", "--video", "1", "--mp4") == 0
    video = cv2.VideoCapture(str(out / "train_0000000_0.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (640, 480)
    assert (out / "samples.png").stat().st_size < size


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", [sliding()])
    with pytest.raises(ValueError, match=r"expected samples of skill 'fly', found \['slide'\]"):
        run(str(tmp_path), "--out", str(tmp_path), "--skill", "fly")
    with pytest.raises(ValueError, match="--tile: expected a number from 100 on, got 10"):
        run(str(tmp_path), "--out", str(tmp_path), "--tile", "10")


def test_samples_are_drawn_from_all_shards_and_by_the_seed(tmp_path: Path) -> None:
    for shard in range(4):
        keys = [f"train_{shard}{index:02d}_0" for index in range(10)]
        write_shard(tmp_path / f"train-{shard}.tar", [replace(still(), key=key) for key in keys])
    draws = [
        [s.key for s in data_show.drawn_samples(tmp_path, "train", count=12, skill="", rng=np.random.default_rng(seed))]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 12
    assert {key[6] for key in draws[0]} == set("0123")
