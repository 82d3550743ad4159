"""Executables in processes of their own, joined by real DDS: one process would hide what large messages suffer."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from momap_ros.msg import ObjectMotionArray
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_harness import FRAME_ID, START_NS, ConstantVelocityForecaster, scene, start
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from momap_ros.bag_write import BagWriter
from momap_ros.geometry import PinholeCamera
from momap_ros.images import labels_from_image, stamp_ns_of
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.conversions import forecast_to_numpy, seconds_from_duration
from momap_ros.ros.forecast_node import ForecastNode

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

SCRIPTS = Path(__file__).parents[2] / "scripts"
FRAMES, RATE_HZ = 20, 10.0
END_S = 90.0
IMAGE_TOPICS = ("/color/image_raw", "/depth/image_raw")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the synthetic scene at 640x480: images of 0.9 MB and 0.6 MB."""
    rgb, depth_mm, _ = scene()
    depth_m = np.where(depth_mm > 0, depth_mm * 0.001, np.nan).astype(np.float32)
    camera = PinholeCamera(rgb.shape[1], rgb.shape[0], 300.0, 300.0, 159.5, 119.5)
    path = tmp_path_factory.mktemp("bag") / "scene"
    with BagWriter(path) as writer:
        writer.write_prompt("lift the red block", START_NS)
        for index in range(FRAMES):
            stamp_ns = START_NS + int(index / RATE_HZ * 1e9)
            frame = RGBDFrame(rgb, depth_m, camera, stamp_ns, FRAME_ID).resized(640, 480)
            writer.write_frame(frame, millimetres=True)
    return path


@contextlib.contextmanager
def running(executable: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is interrupted at the end, and must then end in an orderly way."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPTS / executable), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=END_S)
        assert process.returncode == 0, output
        assert "Traceback" not in output
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finished(executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / executable), *arguments], capture_output=True, text=True, timeout=180.0
    )


def bag_stamps() -> list[int]:
    return [START_NS + int(index / RATE_HZ * 1e9) for index in range(FRAMES)]


def test_player_delivers_images_and_clock_of_a_bag(ros: Ros, bag: Path) -> None:
    images, depths = ros.collect(Image, "/color/image_raw"), ros.collect(Image, "/depth/image_raw")
    infos, clocks = ros.collect(CameraInfo, "/color/camera_info"), ros.collect(Clock, "/clock")
    with running("bag_player", str(bag), "--topics", *IMAGE_TOPICS) as player:
        assert ros.spin_until(lambda: player.poll() is not None)
        assert ros.spin_until(lambda: len(images) == len(depths) == FRAMES)
    assert [stamp_ns_of(image) for image in images] == bag_stamps()
    assert [stamp_ns_of(image) for image in depths] == bag_stamps()
    assert not infos
    times_ns = [clock.clock.sec * 10**9 + clock.clock.nanosec for clock in clocks]
    assert times_ns == sorted(times_ns)
    assert times_ns[0] >= START_NS
    assert bag_stamps()[-1] - 200_000_000 < times_ns[-1] < bag_stamps()[-1] + 10**10
    assert sum(START_NS < time_ns <= bag_stamps()[-1] for time_ns in times_ns) > 10


def test_best_effort_receives_whole_images_from_another_process(ros: Ros, bag: Path) -> None:
    received: dict[str, list[Image]] = {topic: [] for topic in IMAGE_TOPICS}
    listener = ros.node("listener")
    profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    for topic, images in received.items():
        listener.create_subscription(Image, topic, images.append, profile)
    with running("bag_player", str(bag), "--topics", *IMAGE_TOPICS) as player:
        assert ros.spin_until(lambda: player.poll() is not None)
    # Without room for them nearly every depth image is lost; on a busy machine a few may be in any case.
    counts = {topic: len(images) for topic, images in received.items()}
    assert all(count >= 0.8 * FRAMES for count in counts.values()), counts


def test_rate_divides_the_time_between_messages(ros: Ros, bag: Path) -> None:
    arrivals: list[float] = []
    ros.node("listener").create_subscription(
        CameraInfo, "/color/camera_info", lambda _: arrivals.append(time.time()), 50
    )
    with running("bag_player", str(bag), "--rate", "0.5", "--topics", "/color/camera_info") as player:
        assert ros.spin_until(lambda: player.poll() is not None)
    assert len(arrivals) == FRAMES
    assert arrivals[-1] - arrivals[0] == pytest.approx((FRAMES - 1) / RATE_HZ / 0.5, abs=0.5)


def test_bag_becomes_label_images_in_another_process(ros: Ros, bag: Path) -> None:
    labels = ros.collect(Image, "/segmentation_node/instances")
    with (
        running("segmentation_node", "--ros-args", "-p", "use_sim_time:=true"),
        running("bag_player", str(bag), "--loop"),
    ):
        assert ros.spin_until(lambda: len(labels) >= FRAMES // 2)
    assert {stamp_ns_of(message) for message in labels} <= set(bag_stamps())
    for message in labels:
        ids = labels_from_image(message)
        assert ids.shape == (480, 640)
        assert np.unique(ids).tolist() == [0, 1, 2]


def test_player_process_feeds_a_node_with_a_prompt(ros: Ros, bag: Path) -> None:
    built: list[ConstantVelocityForecaster] = []

    def build(*settings: object) -> ConstantVelocityForecaster:
        built.append(ConstantVelocityForecaster(*settings))  # type: ignore[arg-type]  # passed on as they come
        return built[-1]

    overrides = [Parameter("use_sim_time", value=True)]
    node = ForecastNode(build, context=ros.context, use_global_arguments=False, parameter_overrides=overrides)
    assert start(ros.add(node))
    objects = ros.collect(ObjectMotionArray, "/forecast_node/object_motions")
    with running("bag_player", str(bag), "--loop"):
        assert ros.spin_until(lambda: len(objects) >= FRAMES // 2)
    assert {stamp_ns_of(message) for message in objects} <= set(bag_stamps())
    assert built[0].prompts[-1] == "lift the red block"
    # Simulated time is the bag's, in ticks of 10 ms; the wall clock is years away from it.
    assert all(abs(seconds_from_duration(message.latency)) < 60.0 for message in objects)


@pytest.mark.slow
def test_a_loop_starts_the_nodes_afresh(ros: Ros, bag: Path) -> None:
    labels = ros.collect(Image, "/segmentation_node/instances")
    with (
        running("segmentation_node"),
        running("bag_player", str(bag), "--loop", "--rate", "4"),
    ):
        assert ros.spin_until(lambda: _passes([stamp_ns_of(message) for message in labels]) >= 3)
    # Ids start anew with every pass.
    assert all(set(np.unique(labels_from_image(message)).tolist()) == {0, 1, 2} for message in labels)


def _passes(stamps: list[int]) -> int:
    return 1 + sum(after < before for before, after in itertools.pairwise(stamps))


@pytest.mark.slow
def test_both_stages_in_one_process_forecast_a_bag(ros: Ros, bag: Path, tiny_checkpoint: Path) -> None:
    trajectories = ros.collect(PointTrajectoriesMsg, "/forecast_node/trajectories")
    objects = ros.collect(ObjectMotionArray, "/forecast_node/object_motions")
    parameters = (f"forecast.checkpoint:={tiny_checkpoint}", "forecast.num_hypotheses:=2", "use_sim_time:=true")
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    with (
        running("momap_nodes", "--ros-args", *arguments),
        running("bag_player", str(bag), "--wait", "180", "--loop", "--rate", "0.5"),
    ):
        assert ros.spin_until(lambda: len(objects) >= 3 and len(trajectories) >= 3, 300.0)
    assert {stamp_ns_of(message) for message in objects} <= set(bag_stamps())
    assert all([motion.id for motion in message.objects] == [1, 2] for message in objects)
    received = forecast_to_numpy(trajectories[-1])
    assert (received.num_hypotheses, received.num_steps) == (1, 50)
    assert 0 < received.num_points <= 1500
    assert np.isfinite(received.positions).all()
    assert np.linalg.norm(received.positions[0, :, -1] - received.positions[0, :, 0], axis=-1).max() > 1e-4


@pytest.mark.slow
def test_missing_checkpoint_ends_the_process_with_words(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    result = finished("forecast_node", "--ros-args", "-p", f"forecast.checkpoint:={missing}")
    assert result.returncode == 1
    assert "configure failed" in result.stderr
    assert str(missing) in result.stderr
    assert "forecast_node: could not start" in result.stderr


def test_a_parameter_out_of_range_ends_the_process_with_words() -> None:
    result = finished("segmentation_node", "--ros-args", "-p", "input.sync_tolerance_s:=3.0")
    assert result.returncode == 1
    assert "parameter refused" in result.stderr
    assert "input.sync_tolerance_s" in result.stderr
    assert "Traceback" not in result.stderr


def test_player_refuses_what_it_cannot_play(bag: Path, tmp_path: Path) -> None:
    result = finished("bag_player", str(tmp_path))
    assert result.returncode == 1
    assert "bag_player: error:" in result.stderr
    result = finished("bag_player", str(bag), "--topics", "/camera/other")
    assert result.returncode == 1
    assert "/camera/other" in result.stderr
    assert "/color/image_raw" in result.stderr
    assert finished("bag_player", str(bag), "--rate", "0").returncode == 2


@pytest.mark.parametrize("executable", ["segmentation_node", "markers_node"])
def test_terminate_ends_nodes_in_an_orderly_way(ros: Ros, executable: str) -> None:
    with running(executable) as process:
        other = ros.node("looker")
        assert ros.spin_until(lambda: executable in other.get_node_names())
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
