"""The demo over DDS: a player, two nodes and a recorder in processes of their own."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS")

from momap_ros.bag import BagReader
from momap_ros.bag_forecasts import read_forecasts
from momap_ros.bag_write import BagWriter
from momap_ros.cli import main
from momap_ros.geometry import PinholeCamera
from momap_ros.rgbd import RGBDFrame

pytestmark = [pytest.mark.ros, pytest.mark.slow]

START_NS = 1_700_000_000_000_000_000
FRAMES = 8
CAMERA = PinholeCamera(160, 120, 150.0, 150.0, 79.5, 59.5)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a table with a box, and a sentence before it."""
    path = tmp_path_factory.mktemp("demo") / "bag"
    depth_m = np.full((120, 160), 1.0, np.float32)
    depth_m[45:75, 50:80] = 0.92
    rgb = np.full((120, 160, 3), 100, np.uint8)
    rgb[45:75, 50:80] = (200, 60, 40)
    with BagWriter(path) as writer:
        writer.write_prompt("lift the red block", START_NS - 500_000_000)
        for index in range(FRAMES):
            stamp_ns = START_NS + index * 250_000_000
            writer.write_frame(RGBDFrame(rgb, depth_m, CAMERA, stamp_ns, "optical"), millimetres=True)
    return path


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Every process that a test starts must end with it."""
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_the_nodes_forecasts_are_recorded_and_shown(
    bag: Path, tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "2", "--device", "cpu", "--rate", "1.0"]
    assert main(["demo", "--bag", str(bag), "--out", str(tmp_path), *options]) == 0
    text = capfd.readouterr().out
    assert 'first of the forecasts, "lift the red block"' in text
    assert "forecasts over DDS" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "forecast.gif",
        "forecast_bag",
        "log",
        "objects.csv",
        "overlay.png",
        "trajectories.png",
    ]
    with BagReader(tmp_path / "forecast_bag") as recorded:
        counts = {topic.name: topic.count for topic in recorded.topics}
    assert counts["/color/image_raw"] == counts["/depth/image_raw"] == FRAMES
    assert counts["/prompt"] == 1
    assert counts["/forecast_node/trajectories"] == counts["/forecast_node/object_motions"]
    stored = list(read_forecasts(tmp_path / "forecast_bag"))
    assert stored
    assert all(item.source is not None for item in stored)
    stamps = {START_NS + index * 250_000_000 for index in range(FRAMES)}
    assert {item.trajectories.stamp_ns for item in stored} <= stamps
    # Nobody may miss the beginning: the player waits for both nodes and the recorder.
    assert stored[0].trajectories.stamp_ns == START_NS
    assert stored[0].objects
    with (tmp_path / "objects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(len(item.objects) for item in stored)


def test_a_node_that_cannot_start_ends_the_demo_with_its_reason(
    bag: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["demo", "--bag", str(bag), "--out", str(tmp_path), "--checkpoint", str(tmp_path / "nothing")]
    assert main(command) == 1
    error = capfd.readouterr().err
    assert "momap: error: demo: a process ended with exit code 1" in error
    assert "or an existing folder, got neither" in error
    assert "Traceback" not in error
