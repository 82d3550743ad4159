"""Figures of stored samples: values from mathematics on samples made by hand."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from momap_ros.commands import data_stats
from momap_ros.data.sample import Role, Sample, write_shard
from momap_ros.data.statistics import DEPTH_EDGES_M, Statistics, azimuth_deg, body_motions, markdown, words_of
from momap_ros.geometry import Float64, PinholeCamera

UP = np.array([0.0, -1.0, 0.0])


def wall(**changes: Any) -> Sample:  # noqa: ANN401  (fields of Sample)
    """A wall 2 m away, 20 x 10 pixels, up is -y; body 1 (robot) covers 2 columns, body 2 (acted) 4, body 3 (object) 1.

    The robot moves 0.3 m down, the acted body 0.1 m right and 0.2 m away and back to half of it; body 3 stays.
    """
    ids = np.zeros((10, 20), np.uint8)
    ids[:, :2], ids[:, 4:8], ids[:, 10:11] = 1, 2, 3
    motion = np.tile(np.eye(3, 4, dtype=np.float32), (3, 3, 1, 1))
    motion[1:, 0, 1, 3] = 0.3
    motion[1, 1, :, 3] = (0.1, 0.0, 0.2)
    motion[2, 1, :, 3] = (0.05, 0.0, 0.1)
    sample = Sample(
        key="train_0000000_0",
        split="train",
        skill="push",
        kind="block",
        text="push the red block to the right",
        rgb=np.full((10, 20, 3), 90, np.uint8),
        depth_m=np.full((10, 20), 2.0, np.float32),
        body_ids=ids,
        camera=PinholeCamera(20, 10, 20.0, 20.0, 9.5, 4.5),
        camera_from_world=np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
        body_names=("world", "arm", "red block", "cup"),
        body_roles=(Role.WORLD, Role.ROBOT, Role.ACTED, Role.OBJECT),
        moving_bodies=np.array([1, 2, 3], np.uint8),
        motion_t_from_0=motion,
        duration_s=4.0,
    )
    return replace(sample, **changes)


def recording() -> Sample:
    return wall(
        key="train_0000001_0",
        skill="",
        kind="",
        text="",
        depth_m=np.full((10, 20), np.nan, np.float32),
        body_ids=np.zeros((10, 20), np.uint8),
        body_names=("world",),
        body_roles=(Role.WORLD,),
        moving_bodies=np.zeros(0, np.uint8),
        motion_t_from_0=np.zeros((1, 0, 3, 4), np.float32),
        source="bridge_rlds",
        lacks=("camera", "depth", "instances", "motion"),
    )


def counted(*samples: Sample, moving_threshold_m: float = 0.02) -> Statistics:
    statistics = Statistics(moving_threshold_m=moving_threshold_m)
    for sample in samples:
        statistics.add(sample)
    return statistics


def only(statistics: Statistics, name: str) -> float:
    (value,) = statistics.values(name)
    return float(value)


def test_shares_are_parts_of_all_pixels() -> None:
    statistics = counted(wall())
    assert only(statistics, "moving_share") == pytest.approx(6 / 20)
    assert only(statistics, "robot_moving_share") == pytest.approx(2 / 20)
    assert only(statistics, "object_moving_share") == pytest.approx(4 / 20)
    assert only(statistics, "acted_share") == pytest.approx(4 / 20)
    assert only(statistics, "num_instances") == 3
    assert statistics.summary()["robot_share_of_moving_pixels"] == pytest.approx(1 / 3)


def test_the_acted_object_is_measured_at_its_farthest_and_its_direction_at_the_end() -> None:
    statistics = counted(wall())
    assert only(statistics, "acted_motion_m") == pytest.approx(np.hypot(0.1, 0.2), rel=1e-6)
    assert statistics.counts["directions"] == {"right": 1, "away": 1}
    assert list(statistics.azimuths_deg) == pytest.approx([np.degrees(np.arctan2(0.1, 0.05))], abs=1e-4)


def test_a_small_motion_is_none() -> None:
    statistics = counted(wall(), moving_threshold_m=0.25)
    assert only(statistics, "moving_share") == pytest.approx(2 / 20)  # the robot's 0.3 m
    assert statistics.counts["directions"] == {"stays": 1}
    assert not statistics.azimuths_deg


def test_pixels_near_the_axis_of_a_rotation_do_not_move() -> None:
    # A quarter turn about the viewing axis: at 2 m a pixel is 0.1 m, a point at radius r moves by r * sqrt(2).
    turn = np.tile(np.eye(3, 4, dtype=np.float32), (2, 1, 1, 1))
    turn[1, 0, :2, :2] = [[0, -1], [1, 0]]
    ids = np.zeros((10, 20), np.uint8)
    ids[:, 5:15] = 2
    sample = wall(body_ids=ids, moving_bodies=np.array([2], np.uint8), motion_t_from_0=turn)
    v, u = np.mgrid[:10, 5:15]
    radius_m = np.hypot(u - 9.5, v - 4.5) * 0.1
    statistics = counted(sample, moving_threshold_m=0.52)
    assert only(statistics, "moving_share") == pytest.approx((radius_m * np.sqrt(2) > 0.52).sum() / 200)
    assert only(statistics, "acted_motion_m") == pytest.approx(0, abs=1e-6)


def test_sampled_pixels_agree_with_the_dense_momap(simulated: list[Sample]) -> None:
    errors = [
        sum(motion.moving_px for motion in body_motions(sample, moving_threshold_m=0.02)) / sample.body_ids.size
        - sample.momap().moving_mask(0.02).mean()
        for sample in simulated
    ]
    assert np.abs(errors).max() < 0.01
    assert abs(np.mean(errors)) < 0.002


@pytest.mark.parametrize(
    ("displacement_m", "up", "expected"),
    [
        ((1, 0, 0), UP, 0),
        ((0, 0, 1), UP, 90),
        ((-1, 0, 0), UP, 180),
        ((0, 0, -1), UP, -90),
        ((1, 5, 1), UP, 45),
        ((0, -1, 0), np.array([0.0, 0.0, -1.0]), 90),  # looking straight down: away is towards the image's top
        ((0, -3, 0), UP, np.nan),
    ],
)
def test_azimuths(displacement_m: tuple[float, float, float], up: Float64, expected: float) -> None:
    assert azimuth_deg(np.array(displacement_m, float), up) == pytest.approx(expected, nan_ok=True)


def test_depth_is_counted_per_pixel() -> None:
    depth_m = np.full((10, 20), 2.02, np.float32)
    depth_m[0], depth_m[1] = np.nan, 0.51
    statistics = counted(wall(depth_m=depth_m))
    (near, far) = np.flatnonzero(statistics.depth_px)
    assert (DEPTH_EDGES_M[near], DEPTH_EDGES_M[far]) == pytest.approx((0.5, 2.0))
    assert (statistics.depth_px[near], statistics.depth_px[far]) == (20, 160)
    assert only(statistics, "depth_m") == pytest.approx(2.02)
    assert only(statistics, "moving_share") == pytest.approx(6 * 9 / 200)  # where depth is missing nothing is known


def test_words_and_sentences() -> None:
    assert words_of("Put the T-shaped block on Anna's plate, slowly!") == [
        "put", "the", "t-shaped", "block", "on", "anna's", "plate", "slowly",
    ]  # fmt: skip
    other = wall(text="push it", paraphrases=("shove it", "push the red block to the right"))
    summary = counted(wall(), wall(), other).summary()
    assert summary["distinct_sentences"] == 2
    assert summary["distinct_sentences_with_paraphrases"] == 3
    assert summary["top_words"]["the"] == 4
    assert summary["top_words"]["push"] == 3


def test_recordings_count_only_where_they_have_what_a_figure_needs() -> None:
    summary = counted(wall(), recording()).summary()
    assert summary["samples"] == 2
    assert summary["figures"]["moving_share"]["samples"] == 1
    assert summary["figures"]["duration_s"]["samples"] == 2
    assert summary["lacks"] == {"camera": 1, "depth": 1, "instances": 1, "motion": 1}
    assert summary["sources"] == {"simulation": 1, "bridge_rlds": 1}
    assert summary["per_skill"]["none"]["moving_share"] is None
    assert "Lacking: camera in 1" in markdown(summary, title="both")


def test_scenes_without_acted_object_robot_or_motion() -> None:
    still = wall(
        body_roles=(Role.WORLD, Role.OBJECT, Role.OBJECT, Role.FIXTURE),
        moving_bodies=np.zeros(0, np.uint8),
        motion_t_from_0=np.zeros((7, 0, 3, 4), np.float32),
        kind="",
    )
    summary = counted(still).summary()
    assert summary["figures"]["moving_share"]["mean"] == 0
    assert summary["figures"]["num_instances"]["mean"] == 3
    assert "acted_share" not in summary["figures"]
    assert summary["robot_share_of_moving_pixels"] is None
    assert "| left " in markdown(summary, title="still")


def test_markdown_gives_readers_units() -> None:
    text = markdown(counted(wall()).summary(), title="one wall")
    assert text.startswith("# one wall\n\n1 samples; 1 distinct sentences")
    (row,) = [line for line in text.splitlines() if line.startswith("| farthest the acted object gets [cm]")]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["22.4", "22.4", "22.4", "22.4", "1"]


def run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    data_stats.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["stats", *options])
    return int(arguments.run(arguments))


def test_the_command_prints_and_writes_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(tmp_path / "train-0000000-0000001.tar", [wall(), recording()])
    write_shard(tmp_path / "train-0000001-0000002.tar", [wall(key="train_0000001_1", text="go")])
    out = tmp_path / "out"
    assert run(str(tmp_path), "--out", str(out)) == 0
    summary = json.loads((out / "stats.json").read_text())
    assert (summary["samples"], summary["split"], summary["distinct_sentences"]) == (3, "train", 2)
    assert (out / "stats.md").read_text() in capsys.readouterr().out
    picture = cv2.imread(str(out / "stats.png"))
    assert picture is not None
    assert picture.shape == (1300, 1200, 3)
    assert run(str(tmp_path), "--out", str(out), "--limit", "1", "--moving-threshold-m", "0.25") == 0
    summary = json.loads((out / "stats.json").read_text())
    assert (summary["samples"], summary["figures"]["moving_share"]["mean"]) == (1, pytest.approx(0.1))


def test_the_command_plots_what_lacks_everything(tmp_path: Path) -> None:
    write_shard(tmp_path / "val-0.tar", [recording()])
    assert run(str(tmp_path), "--split", "val", "--out", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"val-0.tar", "stats.json", "stats.md", "stats.png"}


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected shards named train-\*\.tar"):
        run(str(tmp_path), "--out", str(tmp_path))
    with pytest.raises(ValueError, match="--limit: expected a number of samples from 1 on, got 0"):
        run(str(tmp_path), "--out", str(tmp_path), "--limit", "0")


def test_the_number_of_samples_is_estimated_from_the_first_shard(tmp_path: Path) -> None:
    paths = [tmp_path / "train-0.tar", tmp_path / "train-1.tar"]
    for path in paths:
        write_shard(path, [wall(key=f"train_{index}_0") for index in range(3)])
    assert data_stats.estimated_count(paths) == 6
