"""Writes rosbag2 folders, mcap or sqlite3, without ROS: whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from momap_ros.bag_messages import (
    camera_info_message,
    color_message,
    depth_message,
    instances_message,
    string_message,
    trajectories_message,
    transform_message,
)
from momap_ros.bag_types import (
    CAMERA_INFO,
    IMAGE,
    OBJECT_MOTION_ARRAY,
    POINT_TRAJECTORIES,
    STRING,
    TRANSFORMS,
    BagError,
    Message,
    type_store,
)
from momap_ros.files import atomic_path
from momap_ros.geometry import Float64
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_cdr import objects_cdr
from momap_ros.object_motion import ObjectMotion
from momap_ros.rgbd import RGBDFrame, UInt8

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.rosbag2 import Writer

# Names that the nodes listen to and publish on when they run unremapped in the root namespace.
COLOR_TOPIC = "/color/image_raw"
DEPTH_TOPIC = "/depth/image_raw"
CAMERA_INFO_TOPIC = "/color/camera_info"
INSTANCES_TOPIC = "/instances"
PROMPT_TOPIC = "/prompt"
TF_TOPIC = "/tf"
TRAJECTORIES_TOPIC = "/forecast_node/trajectories"
OBJECT_MOTIONS_TOPIC = "/forecast_node/object_motions"

STORAGES = ("mcap", "sqlite3")
_QUEUE_DEPTH = 10


class BagWriter:
    """A rosbag2 folder in the making, used as a context manager.

    The folder appears under its name when the block ends without an exception; otherwise nothing is left behind.

    Example:
        with BagWriter(Path("bag")) as bag:
            bag.write_frame(frame)
    """

    def __init__(self, path: Path, *, storage: str = "mcap", compress: bool = False, overwrite: bool = False) -> None:
        """Check that the bag can be written.

        Args:
            path: folder to make; its parents are made as well.
            storage: mcap, or sqlite3 (the default of ROS 2 Humble).
            compress: compress chunks with zstd; mcap only.
            overwrite: replace a bag that is already there.

        Raises:
            BagError: the path exists and may not be replaced, or the storage is unknown.
        """
        if storage not in STORAGES or (compress and storage != "mcap"):
            raise BagError(f"storage: expected one of {STORAGES} (compressed: mcap only), got {storage!r}")
        is_bag = (path / "metadata.yaml").is_file()
        if path.exists() and not (overwrite and is_bag):
            advice = "allow overwriting it" if is_bag else "it is not a bag and is left alone"
            raise BagError(f"{path} exists already ({advice}); choose another name")
        self.path = path
        self._storage, self._compress = storage, compress
        self._stack = ExitStack()
        self._writer: Writer | None = None
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        """Open the bag under a temporary name."""
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        with ExitStack() as stack:
            partial = stack.enter_context(atomic_path(self.path))
            # The storage file is named after the folder it is made in, so that folder must have the final name.
            writer = Writer(partial / self.path.name, version=9, storage_plugin=StoragePlugin[self._storage.upper()])
            if self._compress:
                writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            stack.callback(_lift_content, partial / self.path.name, partial)
            self._writer = stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bag and give it its name, or remove it after an exception."""
        self._stack.__exit__(kind, error, trace)

    def write(self, topic: str, type_name: str, message: Message, stamp_ns: int) -> None:
        """Write a message made by `bag_types.new_message`, logged at a time in nanoseconds."""
        self.write_serialized(topic, type_name, type_store().serialize_cdr(message, type_name), stamp_ns)

    def write_serialized(self, topic: str, type_name: str, data: bytes | memoryview, stamp_ns: int) -> None:
        """Write a message that is serialised already (CDR), logged at a time in nanoseconds.

        Raises:
            BagError: outside the with block, or a type that is neither standard nor this package's.
        """
        if self._writer is None:
            raise BagError("bag: expected to be inside a with block, got a closed bag; write before it ends")
        if type_name not in type_store().types:
            raise BagError(
                f"{topic}: expected a standard or momap_ros message type, got {type_name}; leave the topic out"
            )
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, typestore=type_store(), offered_qos_profiles=[_reliable_qos()]
            )
        self._writer.write(self._connections[topic], stamp_ns, data)

    def write_color(self, rgb: UInt8, stamp_ns: int, frame_id: str) -> None:
        """Write a colour image alone, as cameras without depth do."""
        self.write(COLOR_TOPIC, IMAGE, color_message(rgb, stamp_ns, frame_id), stamp_ns)

    def write_frame(self, frame: RGBDFrame, *, millimetres: bool = False) -> None:
        """Write colour, depth and camera of one frame; depth as 32FC1, or as 16UC1 rounded to millimetres."""
        stamp_ns, frame_id = frame.stamp_ns, frame.frame_id
        self.write(CAMERA_INFO_TOPIC, CAMERA_INFO, camera_info_message(frame.camera, stamp_ns, frame_id), stamp_ns)
        self.write_color(frame.rgb, stamp_ns, frame_id)
        depth = depth_message(frame.depth_m, stamp_ns, frame_id, millimetres=millimetres)
        self.write(DEPTH_TOPIC, IMAGE, depth, stamp_ns)

    def write_instances(self, instances: InstanceMap, stamp_ns: int, frame_id: str) -> None:
        """Write the label image that belongs to the colour image of this stamp."""
        self.write(INSTANCES_TOPIC, IMAGE, instances_message(instances, stamp_ns, frame_id), stamp_ns)

    def write_prompt(self, text: str, stamp_ns: int) -> None:
        """Write the sentence that is valid from this time on."""
        self.write(PROMPT_TOPIC, STRING, string_message(text), stamp_ns)

    def write_transform(self, parent_from_child: Float64, stamp_ns: int, *, parent: str, child: str) -> None:
        """Write the pose (4, 4), metres, of frame `child` in frame `parent` at this time."""
        message = transform_message(parent_from_child, stamp_ns, parent=parent, child=child)
        self.write(TF_TOPIC, TRANSFORMS, message, stamp_ns)

    def write_forecast(
        self, trajectories: PointTrajectories, objects: Sequence[ObjectMotion], *, model_name: str, latency_s: float
    ) -> None:
        """Write one forecast as the forecast node would publish it, logged at its stamp."""
        stamp_ns = trajectories.stamp_ns
        self.write(TRAJECTORIES_TOPIC, POINT_TRAJECTORIES, trajectories_message(trajectories), stamp_ns)
        data = objects_cdr(objects, trajectories, model_name=model_name, latency_s=latency_s)
        self.write_serialized(OBJECT_MOTIONS_TOPIC, OBJECT_MOTION_ARRAY, data, stamp_ns)


def _lift_content(folder: Path, parent: Path) -> None:
    for file in folder.iterdir():
        file.replace(parent / file.name)
    folder.rmdir()


def _reliable_qos() -> Qos:
    """What a player should offer: reliable, so that large images arrive through default DDS settings."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        _QUEUE_DEPTH,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        avoid_ros_namespace_conventions=False,
    )
