"""LeRobot data sets v2.0, v2.1 and v3.0: tables in Parquet, images in videos or in the tables.

Layouts: github.com/huggingface/lerobot at 7427f31, docs/source/lerobot-dataset-v3.mdx and
src/lerobot/scripts/convert_dataset_v21_to_v30.py. A file holds one episode in v2 and many in v3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from momap_ros.data.importing.common import EpisodeError, Frame, Log, RecordingError, Request, decode_image
from momap_ros.data.importing.parquet import ParquetError, TableReader, read_rows
from momap_ros.video import VideoReader

if TYPE_CHECKING:
    from momap_ros.rgbd import UInt8

VERSIONS = ("v2.0", "v2.1", "v3.0")
_RATE_TOLERANCE = 0.01  # of the stated frame rate
_INDICES = ("episode_index", "frame_index", "task_index")


@dataclass(frozen=True)
class DataSet:
    """What meta/ says.

    Attributes:
        root: the folder.
        version: one of VERSIONS.
        rate_hz: frames per second.
        camera: key of the chosen camera.
        in_video: its images are in videos, else in the tables.
        data_path: template of the tables' paths.
        video_path: template of the videos' paths.
        chunk_size: episodes per chunk folder in v2.
        tasks: task index -> sentence.
    """

    root: Path
    version: str
    rate_hz: float
    camera: str
    in_video: bool
    data_path: str
    video_path: str
    chunk_size: int
    tasks: Mapping[int, str]


class LeRobot:
    """A data set's folder."""

    KIND = "lerobot"
    LOOKS_LIKE = "the folder of a LeRobot data set (v2.0, v2.1 or v3.0), with meta/info.json"
    SPLIT = "lerobot"

    def recognises(self, source: Path) -> bool:
        """Whether there is a meta/info.json."""
        return (source / "meta" / "info.json").is_file()

    def frames(self, request: Request, log: Log) -> Iterator[Frame]:
        """Frames of every episode.

        Raises:
            RecordingError: another version, or a damaged description.
        """
        data = read_meta(request, log)
        with _OpenFiles(log) as files:
            for episode in _episodes(data, log):
                name = f"episode {episode['episode_index']}"
                with log.episode(name):
                    yield from _frames(name, data, episode, request, files)


def read_meta(request: Request, log: Log) -> DataSet:
    """Read meta/ and choose the camera.

    Raises:
        RecordingError: another version, a damaged description, or no such camera.
    """
    root = request.source
    path = root / "meta" / "info.json"
    try:
        info: dict[str, Any] = json.loads(log.opened(path).read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version not in VERSIONS:
            raise RecordingError(
                f"{path}: expected codebase_version {', '.join(VERSIONS)}, got {version}; convert the data set with "
                "LeRobot's own scripts"
            )
        camera, in_video = _camera(path, info["features"], request.camera, log)
        return DataSet(
            root,
            version,
            float(info["fps"]),
            camera,
            in_video,
            str(info["data_path"]),
            str(info.get("video_path") or ""),
            int(info.get("chunks_size", 1000)),
            _tasks(root, version, log),
        )
    except EpisodeError as error:
        raise RecordingError(f"{root / 'meta'}: {error}") from error
    except ParquetError as error:
        raise RecordingError(str(error)) from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordingError(
            f"{path}: expected a LeRobot description, could not read it ({type(error).__name__}: {error}); copy the "
            "data set again"
        ) from error


def _camera(path: Path, features: Mapping[str, Any], wanted: str, log: Log) -> tuple[str, bool]:
    """Key of the wanted camera, or of the first colour camera, and whether its images are in videos."""
    cameras = {}
    for key, feature in features.items():
        if feature["dtype"] not in ("video", "image"):
            continue
        details = {**(feature.get("info") or {}), **(feature.get("video_info") or {})}
        if details.get("is_depth_map") or details.get("video.is_depth_map"):
            log.notes[f"{key}: depth maps are not imported: their intrinsics are unknown"] += 1
        else:
            cameras[key] = feature["dtype"] == "video"
    chosen = [key for key in cameras if not wanted or key == wanted or key.endswith(f".{wanted}")]
    if not chosen or (wanted and len(chosen) > 1):
        raise RecordingError(
            f"{path}: expected one colour camera {wanted!r}, got {sorted(cameras) or 'none at all'}; choose with "
            "--camera"
        )
    return chosen[0], cameras[chosen[0]]


def _tasks(root: Path, version: str, log: Log) -> dict[int, str]:
    """Task index -> sentence. In v3 the sentence is the index column of a pandas table, whatever its name."""
    if version == "v3.0":
        rows = read_rows(log.opened(root / "meta" / "tasks.parquet"))
        return {
            int(row["task_index"]): next((text for text in row.values() if isinstance(text, str)), "") for row in rows
        }
    return {int(row["task_index"]): str(row["task"]) for row in _lines(log.opened(root / "meta" / "tasks.jsonl"))}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _episodes(data: DataSet, log: Log) -> Iterator[dict[str, Any]]:
    """Rows about the episodes, in order; those of v3 say where the episode lies."""
    meta = data.root / "meta"
    try:
        if data.version != "v3.0":
            yield from sorted(_lines(log.opened(meta / "episodes.jsonl")), key=lambda row: int(row["episode_index"]))
            return
        paths = sorted((meta / "episodes").glob("*/*.parquet"))
        if not paths:
            raise EpisodeError(
                "expected episodes/chunk-000/file-000.parquet and so on, got none; copy the data set again"
            )
        for path in paths:
            yield from read_rows(log.opened(path), leave_out="stats/")
    except (EpisodeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise RecordingError(f"{meta}: expected a list of episodes, could not read it: {error}") from error
    except ParquetError as error:
        raise RecordingError(str(error)) from error


class _OpenFiles:
    """The table and the video in use: neighbouring episodes of v3 share both."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._table: TableReader | None = None
        self._video: VideoReader | None = None

    def __enter__(self) -> _OpenFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._video is not None:
            self._video.__exit__(None, None, None)

    def table(self, path: Path) -> TableReader:
        """The reader of a table."""
        if self._table is None or self._table.path != path:
            self._table = TableReader(self._log.opened(path), _INDICES)
        return self._table

    def video(self, path: Path) -> VideoReader:
        """The reader of a video."""
        if self._video is None or self._video.path != path:
            self.__exit__()
            self._video = None
            self._video = VideoReader(self._log.opened(path))
        return self._video


def _frames(  # noqa: PLR0917  (one episode and where it comes from)
    name: str, data: DataSet, episode: Mapping[str, Any], request: Request, files: _OpenFiles
) -> Iterator[Frame]:
    try:
        table = files.table(_path(data, data.data_path, episode, "data"))
        rows = np.flatnonzero(table.columns["episode_index"] == int(episode["episode_index"]))
        if not len(rows):
            raise EpisodeError("expected rows in the data file, got none of this episode; copy the data set again")
        for row in rows:
            index = int(table.columns["frame_index"][row])
            if request.wants(index):
                rgb = _video_image(data, episode, index, files) if data.in_video else _image(data, table, int(row))
                text = _text(data, episode, int(table.columns["task_index"][row]))
                yield Frame(name, index, text, rgb, factors={"view": data.camera})
    except ParquetError as error:
        raise EpisodeError(
            "expected a Parquet file of this layout, could not read it; copy the data set again"
        ) from error
    except (KeyError, TypeError, IndexError) as error:
        raise EpisodeError(f"expected a description of the episode, {type(error).__name__}: {error}") from error


def _path(data: DataSet, template: str, episode: Mapping[str, Any], what: str) -> Path:
    """The path that a template of info.json gives.

    Raises:
        EpisodeError: it leads out of the data set.
    """
    index = int(episode["episode_index"])
    values: dict[str, Any] = {"video_key": data.camera, "episode_index": index}
    values |= {"episode_chunk": index // data.chunk_size}
    if data.version == "v3.0":
        values |= {name: int(episode[f"{what}/{name}"]) for name in ("chunk_index", "file_index")}
    path = data.root / template.format(**values)
    if not path.resolve().is_relative_to(data.root.resolve()):
        raise EpisodeError("expected paths inside the data set, got one that leads out of it; correct meta/info.json")
    return path


def _video_image(data: DataSet, episode: Mapping[str, Any], index: int, files: _OpenFiles) -> UInt8:
    what = f"videos/{data.camera}"
    video = files.video(_path(data, data.video_path, episode, what))
    if abs(video.rate_hz - data.rate_hz) > _RATE_TOLERANCE * data.rate_hz:
        raise EpisodeError(f"expected a video of {data.rate_hz:g} frames/s as info.json says, got {video.rate_hz:g}")
    start_s = float(episode[f"{what}/from_timestamp"]) if data.version == "v3.0" else 0.0
    return video.frame(round(start_s * data.rate_hz) + index)


def _image(data: DataSet, table: TableReader, row: int) -> UInt8:
    content = table.cell(data.camera, row)["bytes"]
    if not content:
        raise EpisodeError("expected images in the data file, got paths to files of their own; embed them with LeRobot")
    return decode_image(content)


def _text(data: DataSet, episode: Mapping[str, Any], task_index: int) -> str:
    tasks = episode.get("tasks") or []
    return data.tasks.get(task_index, str(tasks[0]) if len(tasks) == 1 else "")
