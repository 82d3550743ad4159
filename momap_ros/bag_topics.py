"""Finds the topics of an RGB-D camera among a bag's topics, by type, content and name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from momap_ros.bag_types import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, STRING, BagError

_DEPTH_CONTENT = ("16UC1", "mono16", "32FC1")
_NOT_COLOR = ("depth", "infra", "/ir/", "disparity", "confidence", "instance", "label", "mask", "segment")
_NOT_DEPTH = ("infra", "/ir/", "disparity", "confidence", "instance", "label", "mask", "segment")
_REGISTERED = ("aligned", "registered", "depth_to_rgb", "depth_to_color")


@dataclass(frozen=True)
class Topic:
    """One topic of a bag.

    Attributes:
        name: as recorded.
        type_name: as recorded, for instance sensor_msgs/msg/Image.
        count: number of messages.
        content: encoding of the first raw image, format of the first compressed one; empty for other types.
    """

    name: str
    type_name: str
    count: int
    content: str = ""

    @property
    def parts(self) -> list[str]:
        """Name split at slashes, without the transport's suffix."""
        parts = self.name.strip("/").split("/")
        return parts[:-1] if parts[-1] in ("compressed", "compressedDepth") else parts


@dataclass(frozen=True)
class TopicChoice:
    """Topics the user asks for by name; empty = find it.

    Attributes:
        color: colour image topic.
        depth: depth image topic, registered to colour.
        camera_info: CameraInfo topic of the colour image.
        instances: label image topic.
        prompt: std_msgs/String topic.
    """

    color: str = ""
    depth: str = ""
    camera_info: str = ""
    instances: str = ""
    prompt: str = ""


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one RGB-D camera, and what goes with them.

    Attributes:
        color: colour images.
        depth: depth images, registered to colour.
        camera_info: intrinsics of the colour images.
        instances: label images, where the bag has them.
        prompt: sentences, where the bag has them.
    """

    color: Topic
    depth: Topic
    camera_info: Topic
    instances: Topic | None
    prompt: Topic | None

    @property
    def rectified(self) -> bool:
        """Whether the colour images were undistorted, by the naming convention of image_proc."""
        return "rect" in self.color.parts[-1]


def choose_topics(topics: Sequence[Topic], wanted: TopicChoice) -> CameraTopics:
    """The camera to use; where a bag has several, the best named one with depth, then the first by name.

    Raises:
        BagError: colour, depth or camera_info is missing, or a wanted topic is; the message lists what the bag has.
    """
    color = find_color(topics, wanted.color)
    depth = find_depth(topics, color, wanted.depth)
    camera_info = find_camera_info(topics, color, wanted.camera_info)
    return CameraTopics(
        color, depth, camera_info, find_instances(topics, wanted.instances), _find_prompt(topics, wanted.prompt)
    )


def find_color(topics: Sequence[Topic], wanted: str) -> Topic:
    """The colour image topic.

    Raises:
        BagError: there is none.
    """
    if wanted:
        return _wanted(topics, wanted, (IMAGE, COMPRESSED_IMAGE))
    depths = [topic for topic in topics if _is_depth(topic)]
    candidates = [topic for topic in _images(topics) if not _has_depth_content(topic) and not _named(topic, _NOT_COLOR)]
    if not candidates:
        raise BagError(
            f"no colour topic: expected a sensor_msgs Image or CompressedImage of colour, got {describe(topics)}; "
            "record the camera's colour topic, or name it with --color-topic"
        )

    def score(topic: Topic) -> tuple[int, int, int, int]:
        neighbours = max((_shared_parts(topic, depth) for depth in depths), default=0)
        well_named = int(_named(topic, ("color", "rgb")))
        return neighbours, well_named, int("left" in topic.name), int(topic.type_name == IMAGE)

    return max(sorted(candidates, key=lambda topic: topic.name, reverse=True), key=score)


def find_depth(topics: Sequence[Topic], color: Topic, wanted: str) -> Topic:
    """The depth topic that goes with a colour topic.

    Raises:
        BagError: there is none.
    """
    if wanted:
        return _wanted(topics, wanted, (IMAGE, COMPRESSED_IMAGE))
    candidates = [topic for topic in topics if _is_depth(topic)]
    if not candidates:
        raise BagError(
            f"no depth: the bag has colour images ({color.name}) but no depth images, and motion in metres needs "
            "depth; record the camera's depth registered to colour (RealSense: align_depth.enable:=true and "
            "aligned_depth_to_color/image_raw), or estimate metric depth for the colour images with a monocular "
            "estimator, save it as 16-bit PNG in millimetres and make a bag with `momap bag from-images`; the bag has "
            f"{describe(topics)}"
        )

    def score(topic: Topic) -> tuple[int, int, int]:
        registered = int(_named(topic, _REGISTERED))
        return _shared_parts(topic, color), registered, int(topic.type_name == IMAGE)

    return max(sorted(candidates, key=lambda topic: topic.name, reverse=True), key=score)


def find_camera_info(topics: Sequence[Topic], color: Topic, wanted: str) -> Topic:
    """The CameraInfo topic beside a colour topic, or the one nearest to it by name.

    Raises:
        BagError: there is none.
    """
    if wanted:
        return _wanted(topics, wanted, (CAMERA_INFO,))
    candidates = [topic for topic in topics if topic.type_name == CAMERA_INFO and topic.count]
    if not candidates:
        raise BagError(
            f"no camera_info: expected a sensor_msgs/msg/CameraInfo for {color.name}, got {describe(topics)}; record "
            "the topic camera_info beside the colour image, or give intrinsics to `momap bag from-images`"
        )

    def score(topic: Topic) -> tuple[int, int]:
        return _shared_parts(topic, color), int(not _named(topic, ("depth", "infra", "/ir/")))

    return max(sorted(candidates, key=lambda topic: topic.name, reverse=True), key=score)


def find_instances(topics: Sequence[Topic], wanted: str) -> Topic | None:
    """The label image topic, if any."""
    if wanted:
        return _wanted(topics, wanted, (IMAGE,))
    candidates = (topic for topic in _images(topics) if topic.parts[-1] in ("instances", "labels"))
    return min(candidates, key=lambda topic: topic.name, default=None)


def describe(topics: Iterable[Topic]) -> str:
    """All topics in one line: name, type, number of messages."""
    listed = [f"{topic.name} ({topic.type_name}, {topic.count} messages)" for topic in topics]
    return "the topics " + ", ".join(listed) if listed else "no topics at all"


def _find_prompt(topics: Sequence[Topic], wanted: str) -> Topic | None:
    if wanted:
        return _wanted(topics, wanted, (STRING,))
    candidates = (t for t in topics if t.type_name == STRING and t.count and t.parts[-1] == "prompt")
    return min(candidates, key=lambda topic: topic.name, default=None)


def _wanted(topics: Sequence[Topic], name: str, types: tuple[str, ...]) -> Topic:
    for topic in topics:
        if topic.name == name and topic.type_name in types and topic.count:
            return topic
    raise BagError(f"{name}: expected a topic of {' or '.join(types)} with messages, got {describe(topics)}")


def _images(topics: Iterable[Topic]) -> list[Topic]:
    return [topic for topic in topics if topic.type_name in (IMAGE, COMPRESSED_IMAGE) and topic.count]


def _has_depth_content(topic: Topic) -> bool:
    return topic.content.startswith(_DEPTH_CONTENT) or "compressedDepth" in topic.content


def _is_depth(topic: Topic) -> bool:
    return topic in _images([topic]) and _has_depth_content(topic) and not _named(topic, _NOT_DEPTH)


def _named(topic: Topic, words: tuple[str, ...]) -> bool:
    return any(word in f"{topic.name}/" for word in words)


def _shared_parts(first: Topic, second: Topic) -> int:
    """Number of leading name parts that two topics have in common."""
    same = [a == b for a, b in zip(first.parts[:-1], second.parts[:-1], strict=False)]
    return same.index(False) if False in same else len(same)
