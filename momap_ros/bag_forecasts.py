"""Reads forecasts back from a bag, with the images they start from where the bag has these too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from momap_ros.bag import BagFrame, BagReader
from momap_ros.bag_messages import objects_from_message, trajectories_from_message
from momap_ros.bag_topics import describe
from momap_ros.bag_types import OBJECT_MOTION_ARRAY, POINT_TRAJECTORIES, BagError, Message
from momap_ros.images import stamp_ns_of
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion


@dataclass(frozen=True, eq=False)
class StoredForecast:
    """One forecast of a bag.

    Attributes:
        trajectories: the published futures.
        objects: the objects' motions.
        model_name: what made the forecast.
        latency_s: seconds from the image's stamp to publication.
        source: the frame of the same stamp with its instances and prompt, or None where the bag has no images.
    """

    trajectories: PointTrajectories
    objects: list[ObjectMotion]
    model_name: str
    latency_s: float
    source: BagFrame | None


def read_forecasts(path: Path) -> Iterator[StoredForecast]:
    """Forecasts in the order in which they were logged.

    Raises:
        BagError: not a bag, or one without forecasts.
    """
    with BagReader(path) as bag:
        names = {
            type_name: next((topic.name for topic in bag.topics if topic.type_name == type_name and topic.count), "")
            for type_name in (POINT_TRAJECTORIES, OBJECT_MOTION_ARRAY)
        }
        if not all(names.values()):
            wanted = " and ".join(names)
            raise BagError(
                f"{path}: expected forecasts, topics of {wanted}, got {describe(bag.topics)}; make forecasts of this "
                "bag with `momap forecast`"
            )
        objects = {stamp_ns_of(message): message for _, message in bag.messages(names[OBJECT_MOTION_ARRAY])}
        with BagReader(path) as second:
            sources = _Sources(second)
            for _, message in bag.messages(names[POINT_TRAJECTORIES]):
                stamp_ns = stamp_ns_of(message)
                if stamp_ns in objects:
                    yield _stored(message, objects[stamp_ns], sources.at(stamp_ns))


def _stored(trajectories: Message, objects: Message, source: BagFrame | None) -> StoredForecast:
    latency_s = objects.latency.sec + objects.latency.nanosec * 1e-9
    return StoredForecast(
        trajectories_from_message(trajectories),
        objects_from_message(objects),
        str(objects.model_name),
        latency_s,
        source,
    )


class _Sources:
    """Frames by stamp, read once, in order."""

    def __init__(self, bag: BagReader) -> None:
        self._frames = bag.frames()
        self._next: BagFrame | None = None

    def at(self, stamp_ns: int) -> BagFrame | None:
        """The frame of exactly this stamp; None where the bag has none, or no images at all."""
        # A bag of forecasts alone is complete without images: what they lack is no error here.
        with suppress(BagError, StopIteration):
            while self._next is None or self._next.frame.stamp_ns < stamp_ns:
                self._next = next(self._frames)
        found = self._next is not None and self._next.frame.stamp_ns == stamp_ns
        return self._next if found else None
