"""Message types for bags without ROS: the standard ones, and this package's from its .msg files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

# Classes of messages are made at run time from their definitions.
Message: TypeAlias = Any

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
STRING = "std_msgs/msg/String"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
MOTION_HINT = "momap_ros/msg/MotionHint"
MOTION_HINTS = "momap_ros/msg/MotionHints"
POINT_TRAJECTORIES = "momap_ros/msg/PointTrajectories"
ARTICULATION = "momap_ros/msg/Articulation"
OBJECT_HYPOTHESIS = "momap_ros/msg/ObjectHypothesis"
OBJECT_MOTION = "momap_ros/msg/ObjectMotion"
OBJECT_MOTION_ARRAY = "momap_ros/msg/ObjectMotionArray"


class BagError(ValueError):
    """A bag that cannot be read, written or used; the message says why and what to do."""


def definition_folder() -> Path:
    """The folder of this package's .msg files: the repository's `msg/`, or its prefix's `share/momap_ros/msg/`.

    Raises:
        BagError: neither exists.
    """
    module = Path(__file__)
    # An installation of links (colcon --symlink-install) has its share folder beside the link.
    for path in (module, module.resolve()):
        candidates = [path.parents[1] / "msg", *(parent / "share" / "momap_ros" / "msg" for parent in path.parents)]
        for folder in candidates:
            if (folder / "PointTrajectories.msg").is_file():
                return folder
    raise BagError(
        f"message definitions: expected msg/ or share/momap_ros/msg/ above {module.parent}, found none; install again"
    )


@cache
def type_store() -> Typestore:
    """The types that this package reads and writes."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    own = (
        ARTICULATION,
        MOTION_HINT,
        MOTION_HINTS,
        OBJECT_HYPOTHESIS,
        OBJECT_MOTION,
        OBJECT_MOTION_ARRAY,
        POINT_TRAJECTORIES,
    )
    for name in own:
        text = (definition_folder() / f"{name.rpartition('/')[2]}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, name))
    return store


def new_message(type_name: str, **fields: object) -> Message:
    """A message of a type, all its fields given by name."""
    message_class: Message = type_store().types[type_name]
    return message_class(**fields)


def new_header(stamp_ns: int, frame_id: str) -> Message:
    """A std_msgs/Header."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    stamp = new_message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return new_message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def new_duration(seconds: float) -> Message:
    """A builtin_interfaces/Duration, to the nanosecond."""
    sec, nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
    return new_message("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)
