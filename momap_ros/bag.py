"""Reads rosbag2 recordings without ROS: RGB-D frames in stamp order, every message left out counted by its reason."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from momap_ros.bag_pairing import pair_by_stamp
from momap_ros.bag_topics import CameraTopics, Topic, TopicChoice, choose_topics
from momap_ros.bag_types import COMPRESSED_IMAGE, IMAGE, BagError, Message, type_store
from momap_ros.config import InputConfig
from momap_ros.images import (
    CameraInfoMessage,
    ConversionError,
    distortion_note,
    frame_from_messages,
    labels_from_image,
    stamp_ns_of,
)
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import FrameError, RGBDFrame

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader


@dataclass(frozen=True, eq=False)
class BagFrame:
    """One frame of a bag.

    Attributes:
        index: position among the bag's RGB-D pairs, usable or not.
        frame: colour, depth and camera.
        instances: label image of the same stamp, where the bag has one.
        prompt: the latest sentence before the colour image was logged, else the bag's first, else empty.
    """

    index: int
    frame: RGBDFrame
    instances: InstanceMap | None
    prompt: str


class BagReader:
    """A rosbag2 folder, or a bare .mcap or .db3 file; used as a context manager.

    Example:
        with BagReader(Path("bag")) as bag:
            for item in bag.frames():
                print(item.frame.stamp_ns, item.prompt)
            print(bag.skipped)

    Attributes:
        path: the recording.
        topics: all its topics.
        skipped: reason -> number of messages that no frame was made of, filled while `frames` runs.
        notes: things the user should know, in sentences, filled while `frames` runs.
    """

    def __init__(self, path: Path) -> None:
        """Remember where the recording is; opening it is the with statement's part."""
        self.path = path
        self.topics: list[Topic] = []
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        self._reader: Reader | None = None

    def __enter__(self) -> BagReader:
        """Open the recording and list its topics.

        Raises:
            BagError: not a bag, a ROS 1 bag, or a damaged one.
        """
        from rosbags.rosbag2 import Reader

        _refuse_what_is_no_bag(self.path)
        with _damage_as_bag_error(self.path):
            self._reader = Reader(self.path)
            self._reader.open()
        self.topics = [
            Topic(connection.topic, connection.msgtype, connection.msgcount, self._content(connection))
            for connection in sorted(self.reader.connections, key=lambda connection: connection.topic)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the recording."""
        self.close()

    def close(self) -> None:
        """Close the recording; nothing happens where it is not open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def reader(self) -> Reader:
        """The rosbags reader underneath."""
        if self._reader is None:
            raise BagError(f"{self.path}: expected an open bag; use it in a with statement")
        return self._reader

    def raw_messages(self, *topics: str) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, log time in nanoseconds, serialised message) in log order.

        Raises:
            BagError: the recording is damaged from here on.
        """
        connections = [connection for connection in self.reader.connections if connection.topic in topics]
        if not connections:
            return
        with _damage_as_bag_error(self.path):
            yield from self.reader.messages(connections)

    def decode(self, connection: Connection, data: bytes) -> Message:
        """The message object of serialised data.

        Raises:
            BagError: an unknown type, another definition of a known one, or damaged data.
        """
        name = connection.msgtype
        if name not in type_store().types:
            raise BagError(f"{connection.topic}: expected a standard or momap_ros message type, got {name}")
        if connection.digest.startswith("RIHS01") and connection.digest != type_store().hash_rihs01(name):
            raise BagError(
                f"{connection.topic}: expected the definition of {name} known here, got another one in the bag; it was "
                "recorded with another version of the package: use that version"
            )
        with _damage_as_bag_error(self.path):
            return type_store().deserialize_cdr(data, name)

    def messages(self, topic: str) -> Iterator[tuple[int, Message]]:
        """(log time in nanoseconds, message object) of one topic, in log order."""
        for connection, log_ns, data in self.raw_messages(topic):
            yield log_ns, self.decode(connection, data)

    def frames(
        self,
        wanted: TopicChoice | None = None,
        *,
        tolerance_s: float = InputConfig.sync_tolerance_s,
        selected: Callable[[int], bool] = lambda _index: True,
    ) -> Iterator[BagFrame]:
        """RGB-D frames in stamp order; only selected ones are decoded.

        Colour and depth images of nearest stamps within the tolerance are one frame. What has no partner or cannot be
        used is counted in `skipped` under its reason.

        Args:
            wanted: topics given by name.
            tolerance_s: largest stamp difference of a pair, seconds.
            selected: says of a pair's index whether to use it.

        Raises:
            BagError: topics are missing, the recording is damaged, or no selected frame could be used.
        """
        topics = choose_topics(self.topics, wanted or TopicChoice())
        info = self._first(topics.camera_info.name)
        if not topics.rectified and (note := distortion_note(info)):
            self.notes.append(note)
        prompts = [] if topics.prompt is None else [(log, m.data) for log, m in self.messages(topics.prompt.name)]
        usable = 0
        pairs = pair_by_stamp(self._stamped(topics, info), round(tolerance_s * 1e9), self._skip)
        with _LabelSource(self.path, topics.instances) as labels:
            for index, (color, depth) in enumerate(pairs):
                if not selected(index):
                    continue
                try:
                    frame = frame_from_messages(color.message, depth, color.info, rectified=topics.rectified)
                    instances = labels.at(frame)
                except (ConversionError, FrameError) as error:
                    self._skip(str(error))
                    continue
                usable += 1
                earlier = [text for log_ns, text in prompts if log_ns <= color.log_ns] or [t for _, t in prompts[:1]]
                yield BagFrame(index, frame, instances, earlier[-1] if earlier else "")
        if not usable:
            raise BagError(f"{self.path}: expected at least one usable frame, got none; {self._skipped_in_words()}")

    def _stamped(
        self, topics: CameraTopics, info: CameraInfoMessage
    ) -> Iterator[tuple[int, _Color | None, Message | None]]:
        """(stamp, colour, None) or (stamp, None, depth) in log order; camera_info stays valid until the next."""
        names = (topics.color.name, topics.depth.name, topics.camera_info.name)
        for connection, log_ns, data in self.raw_messages(*names):
            message = self.decode(connection, data)
            stamp_ns = stamp_ns_of(message)
            if connection.topic == topics.camera_info.name:
                info = message
            elif connection.topic == topics.color.name:
                yield stamp_ns, _Color(message, info, log_ns), None
            else:
                yield stamp_ns, None, message

    def _content(self, connection: Connection) -> str:
        if connection.msgtype not in (IMAGE, COMPRESSED_IMAGE) or not connection.msgcount:
            return ""
        message = self._first(connection.topic)
        return str(message.encoding if connection.msgtype == IMAGE else message.format)

    def _first(self, topic: str) -> Message:
        for _, message in self.messages(topic):
            return message
        raise BagError(f"{self.path}: expected messages of {topic}, got none although it is listed; the bag is damaged")

    def _skip(self, reason: str) -> None:
        self.skipped[reason] += 1

    def _skipped_in_words(self) -> str:
        return "; ".join(f"{count}x {reason}" for reason, count in self.skipped.most_common()) or "nothing was selected"


@dataclass(frozen=True, eq=False)
class _Color:
    """A colour message with the camera_info and the log time it came with."""

    message: Message
    info: CameraInfoMessage
    log_ns: int


class _LabelSource:
    """Label images by stamp; like the frames they are read once, in order, through a reader of their own."""

    def __init__(self, path: Path, topic: Topic | None) -> None:
        self._topic = topic
        self._bag = BagReader(path)
        self._messages: Iterator[tuple[int, Message]] = iter(())
        self._next: Message | None = None

    def __enter__(self) -> _LabelSource:
        if self._topic is not None:
            self._messages = self._bag.__enter__().messages(self._topic.name)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bag.close()

    def at(self, frame: RGBDFrame) -> InstanceMap | None:
        """The label image of exactly this stamp, or None."""
        while self._next is None or stamp_ns_of(self._next) < frame.stamp_ns:
            _, self._next = next(self._messages, (0, None))
            if self._next is None:
                return None
        if stamp_ns_of(self._next) != frame.stamp_ns:
            return None
        ids = labels_from_image(self._next)
        if ids.shape != frame.depth_m.shape:
            raise FrameError(
                f"instances: expected the colour image's size {frame.camera.width}x{frame.camera.height}, got "
                f"{ids.shape[1]}x{ids.shape[0]}; segment the same images"
            )
        return InstanceMap(ids)


def _refuse_what_is_no_bag(path: Path) -> None:
    if not path.exists():
        raise BagError(f"{path}: expected a rosbag2 folder or a .mcap or .db3 file, got nothing of this name")
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(16)
        if start.startswith(b"#ROSBAG V"):
            raise BagError(
                f"{path}: expected a ROS 2 bag, got a ROS 1 bag; convert it with "
                f"`rosbags-convert --src {path.name} --dst {path.stem}`"
            )
        if path.suffix not in (".mcap", ".db3"):
            raise BagError(f"{path}: expected a rosbag2 folder or a .mcap or .db3 file, got a file {path.suffix!r}")
        return
    if not (path / "metadata.yaml").is_file():
        storage = sorted(file.name for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
        advice = (
            f"the recorder did not finish: rebuild it with `ros2 bag reindex {path}`, or use {path / storage[0]} itself"
            if storage
            else "it is not a bag; make one of images with `momap bag from-images`"
        )
        raise BagError(f"{path}: expected metadata.yaml in the folder, got none; {advice}")


@cache
def _damage_errors() -> tuple[type[Exception], ...]:
    """What the storage readers raise on bytes that are not there or not right."""
    import apsw
    from rosbags.rosbag2 import ReaderError
    from rosbags.serde import SerdeError

    return (
        ReaderError,
        SerdeError,
        apsw.Error,
        struct.error,
        AssertionError,
        EOFError,
        LookupError,
        OSError,
        TypeError,
    )


@contextmanager
def _damage_as_bag_error(path: Path) -> Iterator[None]:
    try:
        yield
    except _damage_errors() as error:
        reason = str(error) or type(error).__name__
        raise BagError(
            f"{path}: expected a complete recording, could not read it ({reason}); it is truncated or damaged: copy it "
            "again, or recover it with `mcap recover` (mcap) or `ros2 bag reindex` (sqlite3)"
        ) from error
