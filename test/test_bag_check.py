"""The verdicts of `momap bag check`: each requirement broken alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.bag_check import FAILURE, OK, WARNING, Finding, check_bag, summarise
from momap_ros.bag_import import CameraFile, find_images, import_images
from momap_ros.bag_messages import camera_info_message, color_message, depth_message
from momap_ros.bag_topics import TopicChoice
from momap_ros.bag_types import CAMERA_INFO, IMAGE, BagError, Message
from momap_ros.bag_write import CAMERA_INFO_TOPIC, COLOR_TOPIC, DEPTH_TOPIC, BagWriter
from momap_ros.geometry import PinholeCamera

CAMERA = PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5)
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
DATA = Path(__file__).parents[2] / "shared" / "data"


def write_bag(
    path: Path,
    *,
    count: int = 10,
    camera: PinholeCamera | None = CAMERA,
    depth_m: npt.NDArray[np.float32] | None = None,
    has_depth: bool = True,
    depth_frame: str = "optical",
    depth_offset_ns: int = 0,
    stamp_ns: Callable[[int], int] = lambda index: START_NS + index * PERIOD_NS,
    edit_info: Callable[[Message], None] = lambda _info: None,
) -> Path:
    depth = np.full((24, 32), 0.8, np.float32) if depth_m is None else depth_m
    with BagWriter(path) as bag:
        for index in range(count):
            stamp, log_ns = stamp_ns(index), START_NS + index * PERIOD_NS
            if camera is not None:
                info = camera_info_message(camera, stamp, "optical")
                edit_info(info)
                bag.write(CAMERA_INFO_TOPIC, CAMERA_INFO, info, log_ns)
            bag.write(COLOR_TOPIC, IMAGE, color_message(np.zeros((24, 32, 3), np.uint8), stamp, "optical"), log_ns)
            if has_depth:
                message = depth_message(depth, stamp + depth_offset_ns, depth_frame, millimetres=False)
                bag.write(DEPTH_TOPIC, IMAGE, message, log_ns)
    return path


def verdicts(findings: list[Finding], verdict: str) -> dict[str, Finding]:
    return {finding.requirement: finding for finding in findings if finding.verdict == verdict}


def test_a_good_bag_meets_every_requirement(tmp_path: Path) -> None:
    findings = check_bag(write_bag(tmp_path / "bag"))
    assert {finding.verdict for finding in findings} == {OK}
    assert [finding.requirement for finding in findings] == [
        "recording opens",
        "colour topic",
        "depth topic",
        "camera_info topic",
        "colour and depth at the same time",
        "intrinsics",
        "images decode",
        "depth registered to colour",
        "depth readings",
    ]
    assert all(not finding.advice for finding in findings)


HALF_EMPTY = np.full((24, 32), 0.8, np.float32)
HALF_EMPTY[:12] = np.nan


@pytest.mark.parametrize(
    ("changes", "requirement", "verdict", "detail", "advice"),
    [
        ({"has_depth": False}, "depth topic", FAILURE, "no depth: the bag has colour images", "monocular estimator"),
        ({"camera": None}, "camera_info topic", FAILURE, "no camera_info", "record the topic camera_info"),
        (
            {"edit_info": lambda info: info.k.fill(0)},
            "intrinsics",
            FAILURE,
            "expected positive focal lengths in K",
            "calibrate the camera",
        ),
        (
            {"camera": PinholeCamera(32, 24, 300.0, 300.0, 15.5, 11.5)},
            "intrinsics",
            WARNING,
            "fx 300.0",
            "fx is 9.38 image widths",
        ),
        (
            {"camera": PinholeCamera(32, 24, 30.0, 60.0, 15.5, 11.5)},
            "intrinsics",
            WARNING,
            "fy 60.0",
            "fx / fy is 0.50",
        ),
        ({"camera": PinholeCamera(32, 24, 30.0, 30.0, 0.0, 0.0)}, "intrinsics", WARNING, "cx 0.0", "principal point"),
        (
            {"edit_info": lambda info: setattr(info, "d", np.array([-0.3, 0.1, 0, 0, 0]))},
            "undistorted images",
            WARNING,
            "states lens distortion",
            "rectified",
        ),
        (
            {"camera": PinholeCamera(64, 24, 30.0, 30.0, 31.5, 11.5)},
            "depth registered to colour",
            FAILURE,
            "expected the image's size 32x24",
            "use the camera_info",
        ),
        (
            {"depth_m": np.ones((20, 30), np.float32)},
            "depth registered to colour",
            FAILURE,
            "size 32x24, got 30x20",
            "align_depth.enable:=true",
        ),
        (
            {"depth_frame": "depth_optical"},
            "depth registered to colour",
            FAILURE,
            "frame 'optical', got 'depth_optical'",
            "align_depth.enable:=true",
        ),
        (
            {"depth_m": np.full((24, 32), np.nan, np.float32)},
            "depth readings",
            FAILURE,
            "not one pixel",
            "check the sensor",
        ),
        ({"depth_m": HALF_EMPTY}, "depth readings", WARNING, "50% missing", "hole-filling"),
        ({"depth_m": np.full((24, 32), 800.0, np.float32)}, "depth readings", FAILURE, "800.00 m", "unit seems wrong"),
        (
            {"depth_offset_ns": 33_000_000},
            "colour and depth at the same time",
            FAILURE,
            "0% of 10 colour images have depth within 20 ms; offset median +33.0 ms, largest 33.0 ms",
            "enable_sync:=true",
        ),
        ({"stamp_ns": lambda _index: 0}, "stamps", FAILURE, "10 of 10 messages of /color/image_raw", "header.stamp"),
        (
            {"stamp_ns": lambda index: START_NS + (index % 5) * PERIOD_NS},
            "stamps",
            WARNING,
            "1 messages of",
            "played twice",
        ),
    ],
)
def test_each_broken_requirement_is_named(  # noqa: PLR0917  (one column of the table each)
    tmp_path: Path, changes: dict[str, object], requirement: str, verdict: str, detail: str, advice: str
) -> None:
    findings = check_bag(write_bag(tmp_path / "bag", **changes))  # type: ignore[arg-type]  # the table's columns
    found = verdicts(findings, verdict)
    assert requirement in found
    assert detail in found[requirement].detail
    assert advice in found[requirement].advice
    other = verdicts(findings, FAILURE if verdict == WARNING else WARNING)
    assert not other, "only what was broken is reported"


def test_some_missing_depth_images_are_a_warning_with_statistics(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with BagWriter(path) as bag:
        for index in range(10):
            stamp = START_NS + index * PERIOD_NS
            bag.write(CAMERA_INFO_TOPIC, CAMERA_INFO, camera_info_message(CAMERA, stamp, "a"), stamp)
            bag.write(COLOR_TOPIC, IMAGE, color_message(np.zeros((24, 32, 3), np.uint8), stamp, "a"), stamp)
            if index % 2:
                depth = depth_message(np.ones((24, 32), np.float32), stamp - 4_000_000, "a", millimetres=True)
                bag.write(DEPTH_TOPIC, IMAGE, depth, stamp)
    found = verdicts(check_bag(path), WARNING)["colour and depth at the same time"]
    # Even frames are 96 ms from the depth after them and 104 ms from the one before.
    assert found.detail.startswith("50% of 10 colour images")
    assert "largest 96.0 ms" in found.detail


def test_damaged_bags_are_a_finding_and_not_an_exception(tmp_path: Path) -> None:
    (finding,) = check_bag(tmp_path / "absent")
    assert (finding.requirement, finding.verdict) == ("recording is complete", FAILURE)
    assert "got nothing of this name" in finding.detail


def test_named_topics_are_checked(tmp_path: Path) -> None:
    findings = check_bag(write_bag(tmp_path / "bag"), TopicChoice(depth="/other"))
    assert "/other: expected a topic" in verdicts(findings, FAILURE)["depth topic"].detail


def test_summary_counts_rates_and_bytes(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", count=11)
    summary = summarise(path)
    assert summary.duration_s == pytest.approx(1.0)
    assert {topic.name: topic.count for topic in summary.topics} == {
        CAMERA_INFO_TOPIC: 11,
        COLOR_TOPIC: 11,
        DEPTH_TOPIC: 11,
    }
    assert [summary.rate_hz(topic) for topic in summary.topics] == pytest.approx([10.0] * 3)
    assert summary.size_bytes == sum(file.stat().st_size for file in path.iterdir())
    assert (summary.storage, summary.start_ns) == ("mcap", START_NS)
    with pytest.raises(BagError, match="got nothing of this name"):
        summarise(tmp_path / "absent")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_a_real_bridge_episode_lacks_depth_and_says_what_to_do(tmp_path: Path) -> None:
    video = sorted((DATA / "bridge_episodes").glob("*.mp4"))[0]
    result = import_images(find_images(video), CameraFile(), tmp_path / "bag")
    assert not result.has_depth
    found = verdicts(check_bag(tmp_path / "bag"), FAILURE)
    assert found["depth topic"].detail.startswith("no depth: the bag has colour images (/color/image_raw)")
    for advice in ("record the camera's depth registered to colour", "estimate metric depth", "momap bag from-images"):
        assert advice in found["depth topic"].advice
