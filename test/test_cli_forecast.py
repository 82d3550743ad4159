"""`momap forecast` and `momap view` on a small recording, with a tiny model."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from momap_ros.bag import BagReader
from momap_ros.bag_forecasts import read_forecasts
from momap_ros.bag_types import BagError
from momap_ros.bag_write import BagWriter
from momap_ros.cli import main
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.momap import MoMap
from momap_ros.rgbd import RGBDFrame

START_NS = 1_700_000_000_000_000_000
CAMERA = PinholeCamera(160, 120, 150.0, 150.0, 79.5, 59.5)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of a table with a box, label images (5 = box) but for the last, a sentence."""
    path = tmp_path_factory.mktemp("forecast") / "bag"
    depth_m = np.full((120, 160), 1.0, np.float32)
    depth_m[45:75, 50:80] = 0.92
    rgb = np.full((120, 160, 3), 100, np.uint8)
    rgb[45:75, 50:80] = (200, 60, 40)
    ids = np.zeros((120, 160), np.int32)
    ids[45:75, 50:80] = 5
    with BagWriter(path) as writer:
        writer.write_prompt("lift the red zebra", START_NS - 1)
        for index in range(3):
            frame = RGBDFrame(rgb, depth_m, CAMERA, START_NS + index * 100_000_000, "optical")
            writer.write_frame(frame, millimetres=True)
            if index < 2:
                writer.write_instances(InstanceMap(ids), frame.stamp_ns, frame.frame_id)
    return path


@pytest.fixture(scope="module")
def results(bag: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a forecast of the two frames that have label images."""
    out = tmp_path_factory.mktemp("results") / "out"
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "2", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--instances", "bag", "--save-momap", "--pictures", "all", "--max-points", "60"]
    assert main(["forecast", str(bag), "--out", str(out), *options]) == 0
    return out


def test_everything_that_is_promised_is_there(results: Path) -> None:
    assert sorted(path.name for path in results.iterdir()) == [
        "forecast.gif",
        "forecast_bag",
        "momap_0000.npz",
        "momap_0001.npz",
        "objects.csv",
        "overlay_0000.png",
        "overlay_0001.png",
        "trajectories_0000.png",
        "trajectories_0001.png",
    ]
    with (results / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stamp_ns"], row["id"]) for row in rows] == [(str(START_NS), "5"), (str(START_NS + 100_000_000), "5")]
    assert {row["prompt"] for row in rows} == {"lift the red zebra"}
    for name in ("overlay_0000.png", "trajectories_0001.png"):
        picture = cv2.imread(str(results / name))
        assert picture is not None
        assert picture.shape == (720, 960, 3)
    with Image.open(results / "forecast.gif") as animation:
        assert getattr(animation, "n_frames", 1) > 10


def test_the_bag_holds_forecasts_with_the_images_they_start_from(results: Path) -> None:
    stored = list(read_forecasts(results / "forecast_bag"))
    assert [item.trajectories.stamp_ns for item in stored] == [START_NS, START_NS + 100_000_000]
    for item in stored:
        assert (item.trajectories.num_hypotheses, item.trajectories.num_steps) == (1, 50)
        assert set(item.trajectories.object_ids.tolist()) == {5}
        assert [motion.instance_id for motion in item.objects] == [5]
        assert item.source is not None
        assert item.source.prompt == "lift the red zebra"
        points = item.source.frame.points_in_camera[item.trajectories.pixels[:, 1], item.trajectories.pixels[:, 0]]
        np.testing.assert_allclose(item.trajectories.positions[0, :, 0], points, atol=1e-5)
        assert item.source.instances is not None
        assert item.source.instances.areas_px == {5: 900}


def test_the_dense_map_agrees_with_the_published_points(results: Path) -> None:
    momap = MoMap.load(results / "momap_0000.npz")
    assert momap.xyz.shape == (50, 256, 256, 3)
    stored = next(read_forecasts(results / "forecast_bag"))
    # The same point of the box, by its direction in the first image.
    pixel, track = stored.trajectories.pixels[0], stored.trajectories.positions[0, 0]
    u, v = (pixel + 0.5) * [256 / 160, 256 / 120] - 0.5
    dense = momap.xyz[:, round(v), round(u)]
    moved, expected = dense - dense[0], track - track[0]
    assert np.linalg.norm(expected[-1]) > 0.01
    assert np.linalg.norm(moved[-1] - expected[-1]) < 0.2 * np.linalg.norm(expected[-1])


def test_frames_without_labels_and_unknown_words_are_named(
    bag: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "1", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--instances", "bag", "--pictures", "none", "--no-inputs", "--frames", "1,2"]
    assert main(["forecast", str(bag), "--out", str(tmp_path), *options]) == 0
    captured = capsys.readouterr()
    assert "momap: warning: the model does not know: zebra" in captured.err
    assert "momap: warning: skipped 1x frame without a label image of its stamp" in captured.err
    assert "frame 1, 1700000000.100 s" in captured.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forecast_bag", "objects.csv"]
    (stored,) = read_forecasts(tmp_path / "forecast_bag")
    assert stored.source is None
    assert main(["forecast", str(bag), "--out", str(tmp_path / "none"), *options[:-1], "2"]) == 1
    assert "expected a frame to forecast, got none; 1x frame without a label image" in capsys.readouterr().err
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").iterdir())


def test_instances_found_here_and_hints_change_the_forecast(
    bag: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "1", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--pictures", "none", "--frames", "0", "--prompt", "lift the red block"]
    ends = []
    for name, more in (("plain", []), ("hinted", ["--hint", "1=right,up"]), ("again", [])):
        assert main(["forecast", str(bag), "--out", str(tmp_path / name), *options, *more]) == 0
        (stored,) = read_forecasts(tmp_path / name / "forecast_bag")
        ends.append(stored.trajectories.positions[0, :, -1])
    assert "does not know" not in capsys.readouterr().err
    np.testing.assert_array_equal(ends[0], ends[2])
    assert np.abs(ends[0] - ends[1]).max() > 1e-4
    assert main(["forecast", str(bag), "--out", str(tmp_path / "bad"), *options, "--hint", "77=up"]) == 1
    assert "77" in capsys.readouterr().err


def test_hints_come_as_json_or_as_a_file_and_are_echoed(
    bag: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "1", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--pictures", "none", "--frames", "0"]
    text = '{"hints": [{"id": 1, "x": "right", "y": "up", "z": "stay"}]}'
    file = tmp_path / "hints.json"
    file.write_text(text)
    ends = []
    for name, more in (
        ("json", ["--hints", text]),
        ("file", ["--hints", str(file)]),
        ("words", ["--hint", "1=right,up"]),
        ("plain", []),
    ):
        assert main(["forecast", str(bag), "--out", str(tmp_path / name), *options, *more]) == 0
        (stored,) = read_forecasts(tmp_path / name / "forecast_bag")
        ends.append(stored.trajectories.positions[0, :, -1])
        assert ("hints: 1: right, up" in capsys.readouterr().out) == (name != "plain")
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])
    assert np.abs(ends[0] - ends[3]).max() > 1e-4
    assert main(["forecast", str(bag), "--out", str(tmp_path / "x"), *options, "--hints", text, "--hint", "1=up"]) == 1
    assert "expected every instance once, got instance 1 again" in capsys.readouterr().err


def test_hints_for_what_leaves_the_view_are_warned_of(
    bag: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BagReader(bag) as reader:
        first, second, _ = reader.frames()
    assert first.instances is not None
    with BagWriter(tmp_path / "bag") as writer:
        for item, instance_id in ((first, 8), (second, 5)):
            writer.write_frame(item.frame, millimetres=True)
            renamed = np.where(first.instances.ids > 0, instance_id, 0).astype(np.int32)
            writer.write_instances(InstanceMap(renamed), item.frame.stamp_ns, item.frame.frame_id)
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "1", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--pictures", "none", "--instances", "bag", "--hint", "8=up"]
    assert main(["forecast", str(tmp_path / "bag"), "--out", str(tmp_path / "out"), *options]) == 0
    printed = capsys.readouterr()
    assert "frame 0, hints: 8: up" in printed.out
    assert "frame 1, hints: none" in printed.out
    assert "frame 1: not in view, or too small for the model, so their hints were not used: 8" in printed.err


def test_view_saves_what_it_would_show(
    results: Path, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, source in enumerate((results, results / "momap_0000.npz")):
        path = tmp_path / f"{index}.gif"
        assert main(["view", str(source), "--save", str(path)]) == 0
        with Image.open(path) as animation:
            assert animation.width == 720
    assert main(["view", str(results), "--index", "9", "--save", str(tmp_path / "x.gif")]) == 1
    assert "expected a forecast number 9, got fewer" in capsys.readouterr().err
    with pytest.raises(BagError, match="expected forecasts, topics of momap_ros/msg/PointTrajectories"):
        list(read_forecasts(bag))


def test_a_missing_checkpoint_is_named(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", str(bag), "--out", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "nothing")]) == 1
    assert "or an existing folder, got neither" in capsys.readouterr().err


def test_the_recorded_inputs_make_the_bag_readable_as_any_other(results: Path) -> None:
    with BagReader(results / "forecast_bag") as bag:
        assert [item.index for item in bag.frames()] == [0, 1]


def test_the_demo_without_ros_runs_the_same_stages_and_says_so(
    bag: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    *,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "1", "--device", "cpu"]
    assert main(["demo", "--bag", str(bag), "--out", str(tmp_path), *options]) == 0
    captured = capsys.readouterr()
    assert "momap: warning: the nodes need ROS, and rclpy cannot be found: run `make setup`" in captured.err
    assert "1 forecasts" in captured.out
    assert {"forecast_bag", "objects.csv", "overlay.png", "trajectories.png"} <= {p.name for p in tmp_path.iterdir()}


def test_a_full_size_checkpoint_forecasts_too(bag: Path, tiny_full_checkpoint: Path, tmp_path: Path) -> None:
    options = ["--checkpoint", str(tiny_full_checkpoint), "--num-hypotheses", "2", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--instances", "bag", "--save-momap", "--pictures", "none", "--frames", "0"]
    assert main(["forecast", str(bag), "--out", str(tmp_path), *options]) == 0
    assert MoMap.load(tmp_path / "momap_0000.npz").xyz.shape == (50, 256, 256, 3)
    (stored,) = read_forecasts(tmp_path / "forecast_bag")
    assert stored.trajectories.num_steps == 50
    assert [motion.instance_id for motion in stored.objects] == [5]
