"""BRIDGE as videos: one file per episode, the task in the file's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from momap_ros.data.importing.common import Frame, Log, RecordingError, Request
from momap_ros.video import VIDEO_SUFFIXES, VideoReader

# The scenes of BridgeData V1: folder names of the data set's paths, scene/task.
_SCENE = (
    r"(?:toykitchen|toysink)\d+(?:_room8052|_bww)?|realkitchen\d+_(?:counter|dishwasher)|laundry_machine|tool_chest|"
    r"tabletop_(?:dark_wood|light_wood|white)"
)
_NAME = re.compile(rf"bridge_data_v\d+_[a-z]+_(?P<scene>{_SCENE})_(?P<task>.+)")


class EpisodeVideos:
    """A folder of videos, or one."""

    KIND = "bridge-mp4"
    LOOKS_LIKE = f"a folder of videos ({' '.join(VIDEO_SUFFIXES)}), or one of them"
    SPLIT = "bridge"

    def recognises(self, source: Path) -> bool:
        """Whether there are videos."""
        return bool(_videos(source))

    def frames(self, request: Request, log: Log) -> Iterator[Frame]:
        """Frames of every video; the text is empty where the name is not one of BRIDGE's.

        Raises:
            RecordingError: no videos.
        """
        paths = _videos(request.source)
        if not paths:
            raise RecordingError(f"{request.source}: expected {self.LOOKS_LIKE}, got neither")
        for path in paths:
            scene, text = scene_and_task(path.stem)
            with log.episode(path.name), VideoReader(log.opened(path)) as video:
                for index, rgb in enumerate(video):
                    if request.wants(index):
                        factors = {"scene": scene} if scene else {}
                        yield Frame(path.name, index, text, rgb, factors=factors)
                    if not request.every:
                        break


def scene_and_task(name: str) -> tuple[str, str]:
    """Scene and task in words, of the name of a BRIDGE episode; both empty for other names."""
    found = _NAME.fullmatch(name)
    return (found["scene"], found["task"].replace("_", " ")) if found else ("", "")


def _videos(source: Path) -> list[Path]:
    files = [source] if source.is_file() else sorted(source.iterdir()) if source.is_dir() else []
    return [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
