"""Says what is in a bag, and whether a forecast can be made of it: each requirement with a verdict and a way out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momap_ros.bag import BagReader
from momap_ros.bag_topics import (
    CameraTopics,
    Topic,
    TopicChoice,
    find_camera_info,
    find_color,
    find_depth,
    find_instances,
)
from momap_ros.bag_types import BagError, Message
from momap_ros.config import InputConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.images import (
    ConversionError,
    camera_from_info,
    check_registered,
    depth_m_from_image,
    distortion_note,
    rgb_from_image,
    stamp_ns_of,
)
from momap_ros.rgbd import FrameError

OK, WARNING, FAILURE = "ok", "warning", "failure"

# Frames that are decoded to judge depth; spread over the recording.
_SAMPLED_FRAMES = 8
_MISSING_DEPTH_WARNING = 0.4
_PAIRED_WARNING = 0.9
# Table-top scenes; medians outside mean wrong units rather than a strange room.
_PLAUSIBLE_DEPTH_M = (0.05, 30.0)
_PLAUSIBLE_FOCAL_PER_WIDTH = (0.3, 4.0)


@dataclass(frozen=True)
class Finding:
    """One requirement of a bag.

    Attributes:
        requirement: what is asked, in a few words.
        verdict: OK, WARNING (works, but read this) or FAILURE (no forecast possible).
        detail: what was found.
        advice: what to do; empty where all is well.
    """

    requirement: str
    verdict: str
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class BagSummary:
    """What `momap bag info` prints.

    Attributes:
        topics: all topics with their types and counts.
        duration_s: time between the first and the last message.
        start_ns: log time of the first message, nanoseconds.
        size_bytes: of all files.
        storage: mcap or sqlite3.
    """

    topics: tuple[Topic, ...]
    duration_s: float
    start_ns: int
    size_bytes: int
    storage: str

    def rate_hz(self, topic: Topic) -> float:
        """Mean rate over the whole recording; 0 for a single message."""
        return (topic.count - 1) / self.duration_s if self.duration_s > 0 and topic.count > 1 else 0.0


@dataclass(frozen=True, eq=False)
class _Scan:
    """All stamps of an image topic, and some of its messages spread over the recording."""

    topic: Topic
    stamps_ns: npt.NDArray[np.int64]
    messages: list[Message]


def summarise(path: Path) -> BagSummary:
    """Topics, duration and size of a bag.

    Raises:
        BagError: it cannot be opened.
    """
    with BagReader(path) as bag:
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        suffixes = {file.suffix for file in files}
        return BagSummary(
            tuple(bag.topics),
            max(bag.reader.duration - 1, 0) * 1e-9 if bag.reader.message_count else 0.0,
            bag.reader.start_time,
            sum(file.stat().st_size for file in files),
            "mcap" if ".mcap" in suffixes else "sqlite3",
        )


def check_bag(
    path: Path, wanted: TopicChoice | None = None, *, tolerance_s: float = InputConfig.sync_tolerance_s
) -> list[Finding]:
    """Everything a forecast needs of a bag, in the order in which it is needed; stops where the rest makes no sense.

    Args:
        path: the bag.
        wanted: topics given by name.
        tolerance_s: largest stamp difference of a colour and a depth image, seconds.
    """
    findings: list[Finding] = []
    try:
        with BagReader(path) as bag:
            findings.append(Finding("recording opens", OK, f"{bag.reader.message_count} messages"))
            topics = _find_topics(bag.topics, wanted or TopicChoice(), findings)
            if topics is not None:
                color, depth = _scan(bag, topics.color), _scan(bag, topics.depth)
                findings += _check_stamps(color, depth, tolerance_s)
                info = _first(bag, topics.camera_info)
                try:
                    camera = camera_from_info(info, rectified=topics.rectified)
                except ConversionError as error:
                    findings.append(Finding("intrinsics", FAILURE, *_split_advice(str(error))))
                else:
                    findings += _check_camera(camera, "" if topics.rectified else distortion_note(info))
                    findings += _check_images(color, depth, camera)
    except BagError as error:
        findings.append(Finding("recording is complete", FAILURE, *_split_advice(str(error))))
    return findings


def _split_advice(text: str) -> tuple[str, str]:
    detail, _, advice = text.partition("; ")
    return detail, advice


def _find_topics(topics: list[Topic], wanted: TopicChoice, findings: list[Finding]) -> CameraTopics | None:
    """The camera's topics, or None; every one that is missing gets its own finding."""
    try:
        color = find_color(topics, wanted.color)
    except BagError as error:
        findings.append(Finding("colour topic", FAILURE, *_split_advice(str(error))))
        return None
    findings.append(Finding("colour topic", OK, _described(color)))
    found: dict[str, Topic] = {}
    searches: dict[str, Callable[[], Topic]] = {
        "depth topic": lambda: find_depth(topics, color, wanted.depth),
        "camera_info topic": lambda: find_camera_info(topics, color, wanted.camera_info),
    }
    for requirement, search in searches.items():
        try:
            topic = search()
        except BagError as error:  # noqa: PERF203  (two turns; the second must run when the first fails)
            findings.append(Finding(requirement, FAILURE, *_split_advice(str(error))))
        else:
            found[requirement] = topic
            findings.append(Finding(requirement, OK, _described(topic)))
    if len(found) < len(searches):
        return None
    instances = find_instances(topics, wanted.instances)
    return CameraTopics(color, found["depth topic"], found["camera_info topic"], instances, None)


def _described(topic: Topic) -> str:
    content = f", {topic.content}" if topic.content else ""
    return f"{topic.name} ({topic.count} messages{content})"


def _check_camera(camera: PinholeCamera, note: str) -> Iterator[Finding]:
    numbers = (f"{name} {getattr(camera, name):.1f}" for name in ("fx", "fy", "cx", "cy"))
    detail = f"{camera.width}x{camera.height}, {', '.join(numbers)}"
    strange = _strange_intrinsics(camera)
    advice = f"{strange}; check the calibration: a wrong focal length scales every sideways motion" if strange else ""
    yield Finding("intrinsics", WARNING if strange else OK, detail, advice)
    if note:
        yield Finding("undistorted images", WARNING, *_split_advice(note))


def _strange_intrinsics(camera: PinholeCamera) -> str:
    low, high = _PLAUSIBLE_FOCAL_PER_WIDTH
    if not low <= camera.fx / camera.width <= high:
        return f"fx is {camera.fx / camera.width:.2f} image widths, usual is {low} to {high}"
    if not 0.8 <= camera.fx / camera.fy <= 1.25:
        return f"fx / fy is {camera.fx / camera.fy:.2f}, usual is about 1"
    off_x, off_y = abs(camera.cx / camera.width - 0.5), abs(camera.cy / camera.height - 0.5)
    if max(off_x, off_y) > 0.25:
        return "the principal point is far from the image centre"
    return ""


def _check_stamps(color: _Scan, depth: _Scan, tolerance_s: float) -> Iterator[Finding]:
    color_ns, depth_ns = color.stamps_ns, depth.stamps_ns
    for topic, stamps in ((color.topic, color_ns), (depth.topic, depth_ns)):
        if not stamps.all():
            yield Finding(
                "stamps",
                FAILURE,
                f"{np.count_nonzero(stamps == 0)} of {len(stamps)} messages of {topic.name} have stamp 0",
                "let the driver fill header.stamp; a forecast is valid for one moment",
            )
            return
        backwards = int(np.count_nonzero(np.diff(stamps) <= 0))
        if backwards:
            yield Finding(
                "stamps",
                WARNING,
                f"{backwards} messages of {topic.name} are not later than the one before",
                "these are skipped; was a recording played twice into this bag?",
            )
    offsets_s = _nearest_offsets_s(color_ns, depth_ns)
    paired = float(np.mean(np.abs(offsets_s) <= tolerance_s))
    detail = (
        f"{paired:.0%} of {len(color_ns)} colour images have depth within {tolerance_s * 1e3:.0f} ms; offset median "
        f"{np.median(offsets_s) * 1e3:+.1f} ms, largest {np.abs(offsets_s).max() * 1e3:.1f} ms"
    )
    advice = (
        "synchronise the streams (RealSense: enable_sync:=true), record with a larger queue, or allow more with "
        "--sync-tolerance-s"
    )
    verdict = FAILURE if paired == 0 else WARNING if paired < _PAIRED_WARNING else OK
    yield Finding("colour and depth at the same time", verdict, detail, "" if verdict == OK else advice)


def _check_images(color: _Scan, depth: _Scan, camera: PinholeCamera) -> Iterator[Finding]:
    """Registration and depth values, on frames spread over the recording."""
    try:
        sizes = {rgb_from_image(message).shape[1::-1] for message in color.messages}
        depth_images = [depth_m_from_image(message) for message in depth.messages]
    except ConversionError as error:
        yield Finding("images decode", FAILURE, *_split_advice(str(error)))
        return
    depth_sizes = {image.shape[::-1] for image in depth_images}
    listed = [", ".join("{}x{}".format(*size) for size in sorted(group)) for group in (sizes, depth_sizes)]
    yield Finding("images decode", OK, f"colour {listed[0]}, depth {listed[1]}")
    frame_ids = {str(message.header.frame_id) for message in color.messages}
    depth_frame_ids = {str(message.header.frame_id) for message in depth.messages}
    try:
        for case in itertools.product(sizes, depth_sizes, [camera], frame_ids, depth_frame_ids):
            check_registered(*case)
    except FrameError as error:
        yield Finding("depth registered to colour", FAILURE, *_split_advice(str(error)))
    else:
        yield Finding("depth registered to colour", OK, f"same size, same frame {min(frame_ids)!r}")
    measured = np.concatenate([image[~np.isnan(image)] for image in depth_images])
    yield _judge_depth(measured, 1.0 - measured.size / sum(image.size for image in depth_images))


def _judge_depth(measured: npt.NDArray[np.float32], missing: float) -> Finding:
    requirement = "depth readings"
    if not measured.size:
        return Finding(requirement, FAILURE, "not one pixel has depth", "check the sensor's range, exposure and cover")
    low, middle, high = np.percentile(measured, (5, 50, 95))
    detail = f"{missing:.0%} missing; 5 / 50 / 95 % of the readings below {low:.2f} / {middle:.2f} / {high:.2f} m"
    if not _PLAUSIBLE_DEPTH_M[0] <= middle <= _PLAUSIBLE_DEPTH_M[1]:
        advice = "the unit seems wrong: 16UC1 is millimetres and 32FC1 is metres (REP 118); fix the publisher"
        return Finding(requirement, FAILURE, detail, advice)
    if missing > _MISSING_DEPTH_WARNING:
        advice = "points without depth get no forecast; move the camera, or use the driver's hole-filling filter"
        return Finding(requirement, WARNING, detail, advice)
    return Finding(requirement, OK, detail)


def _first(bag: BagReader, topic: Topic) -> Message:
    for _, message in bag.messages(topic.name):
        return message
    raise BagError(f"{topic.name}: expected messages, got none although it is listed; the bag is damaged")


def _scan(bag: BagReader, topic: Topic) -> _Scan:
    wanted = set(np.linspace(0, topic.count - 1, min(_SAMPLED_FRAMES, topic.count)).round().astype(int).tolist())
    stamps, messages = [], []
    for index, (_, message) in enumerate(bag.messages(topic.name)):
        stamps.append(stamp_ns_of(message))
        if index in wanted:
            messages.append(message)
    return _Scan(topic, np.array(stamps, np.int64), messages)


def _nearest_offsets_s(color_ns: npt.NDArray[np.int64], depth_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(C,) depth stamp minus colour stamp, seconds, for the depth image nearest to each colour image."""
    ordered = np.sort(depth_ns)
    after = (
        np.clip(np.searchsorted(ordered, color_ns), 1, len(ordered) - 1)
        if len(ordered) > 1
        else np.zeros_like(color_ns)
    )
    before = np.maximum(after - 1, 0)
    later_is_nearer = np.abs(ordered[after] - color_ns) < np.abs(ordered[before] - color_ns)
    nearest = np.where(later_is_nearer, ordered[after], ordered[before])
    return np.asarray((nearest - color_ns) * 1e-9, np.float64)
