"""RGB-D bags: camera and depth are measured, instances are the bag's own or looked for on the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from momap_ros.bag import BagFrame, BagReader
from momap_ros.config import SegmentationConfig
from momap_ros.data.importing.common import MAX_DEPTH_M, Frame, Log, RecordingError, Request
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError


class Bags:
    """One bag, or a folder of bags."""

    KIND = "bag"
    LOOKS_LIKE = "a rosbag2 folder, a bare .mcap or .db3 file, or a folder of such bags"
    SPLIT = "bag"

    def recognises(self, source: Path) -> bool:
        """Whether there are bags."""
        return bool(_bags(source))

    def frames(self, request: Request, log: Log) -> Iterator[Frame]:
        """Frames of every bag; without `every` the first that can be used.

        Raises:
            RecordingError: no bags.
        """
        paths = _bags(request.source)
        if not paths:
            raise RecordingError(f"{request.source}: expected {self.LOOKS_LIKE}, got neither")
        segment = _segmenter() if request.segment else None
        for path in paths:
            with log.episode(path.name), BagReader(path) as bag:
                log.files.update([path] if path.is_file() else (file for file in path.iterdir() if file.is_file()))
                selected = request.wants if request.every else lambda _index: True
                with closing(bag.frames(selected=selected)) as items:  # type: ignore[type-var]  # a generator
                    for item in items:
                        yield _frame(path.name, item, segment, log)
                        if not request.every:
                            break
                log.notes.update(bag.notes)
                log.notes.update({f"frames left out: {reason}": count for reason, count in bag.skipped.items()})


def _frame(name: str, item: BagFrame, segment: Callable[[RGBDFrame], InstanceMap] | None, log: Log) -> Frame:
    instances, factors = item.instances, {"stamp_ns": str(item.frame.stamp_ns)}
    if instances is not None:
        factors["instances"] = "the bag's"
    elif segment is not None:
        try:
            instances = segment(item.frame)
            factors["instances"] = "tabletop segmenter"
        except SegmentationError as error:
            log.notes[f"no instances: {error}"] += 1
    if (item.frame.depth_m > MAX_DEPTH_M).any():
        log.notes[f"depth beyond {MAX_DEPTH_M:.2f} m left out: samples hold no more"] += 1
    return Frame(
        name,
        item.index,
        item.prompt,
        item.frame.rgb,
        item.frame.depth_m,
        item.frame.camera,
        instances,
        factors,
    )


def _segmenter() -> Callable[[RGBDFrame], InstanceMap]:
    from momap_ros.segmentation.tabletop import TabletopSegmenter

    return TabletopSegmenter(SegmentationConfig())


def _bags(source: Path) -> list[Path]:
    if _is_bag(source):
        return [source]
    return sorted(path for path in source.iterdir() if _is_bag(path)) if source.is_dir() else []


def _is_bag(path: Path) -> bool:
    """Bags of ROS 1 count: the reader says what to do with them."""
    return (path / "metadata.yaml").is_file() or (path.is_file() and path.suffix in (".mcap", ".db3", ".bag"))
