"""What all importers share: what is asked for, the frames that come out, what was left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from momap_ros.bag_types import BagError
from momap_ros.data.sample import DEPTH_UNIT_M, LACKS, Role, Sample
from momap_ros.geometry import Float32, PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import UInt8
from momap_ros.video import VideoError

# Logitech C920 at 4:3, which most cameras of BRIDGE are (github.com/rail-berkeley/bridge_data_v2, issue 22).
ASSUMED_VERTICAL_FOV_DEG = 43.3
MAX_DEPTH_M = 65535 * DEPTH_UNIT_M  # what 16 bits hold
MAX_INSTANCES = 255  # what 8 bits hold beside the world
_LFS_POINTER = b"version https://git-lfs"
# World z, which is up, against the optical y of a camera that is held level.
_LEVEL_CAMERA_FROM_WORLD = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


class RecordingError(ValueError):
    """A source that no sample can be made of; the message says why and what to do."""


class EpisodeError(ValueError):
    """One episode that cannot be used. The message names no file: episodes are counted by it."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        source: file or folder.
        camera: which of several cameras; the first where empty.
        every: take every n-th frame of an episode; 0 = the first frame alone.
        segment: look for instances on the table where the recording has depth and no labels.
    """

    source: Path
    camera: str = ""
    every: int = 0
    segment: bool = False

    def wants(self, index: int) -> bool:
        """Whether the frame of this number in its episode, counted from 0, is to be taken."""
        return index % self.every == 0 if self.every else index == 0

    def indices(self, length: int) -> range:
        """The frames to take of an episode of this many."""
        return range(0, length, self.every) if self.every else range(min(length, 1))


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a recording; what is None was not measured.

    Attributes:
        episode: name of its episode within the source.
        index: its number in the episode, counted from 0.
        text: the instruction; empty where there is none.
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, metres along optical z, NaN = unknown.
        camera: intrinsics of both images.
        instances: label image of the same size.
        factors: other facts by name.
    """

    episode: str
    index: int
    text: str
    rgb: UInt8
    depth_m: Float32 | None = None
    camera: PinholeCamera | None = None
    instances: InstanceMap | None = None
    factors: dict[str, str] = field(default_factory=dict)


@dataclass
class Log:
    """What happened during an import.

    Attributes:
        files: files that were read.
        skipped: reason -> names of the episodes left out, wholly or from some frame on.
        notes: remark -> how often.
    """

    files: set[Path] = field(default_factory=set)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def episode(self, name: str) -> Iterator[None]:
        """Count an episode that turns out unusable, and go on after it."""
        try:
            yield
        except (EpisodeError, VideoError, BagError) as error:
            self.skip(name, str(error))

    def skip(self, name: str, reason: str) -> None:
        """Count an episode under a reason, once however many of its frames have it."""
        names = self.skipped.setdefault(reason, [])
        if name not in names[-1:]:
            names.append(name)

    def opened(self, path: Path) -> Path:
        """The path of a file that is there in full, noted as read.

        Raises:
            EpisodeError: no file, or the pointer that git leaves where the file itself was not fetched.
        """
        if not path.is_file():
            raise EpisodeError(f"expected the episode's {path.suffix} file, found none; copy the data set again")
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise EpisodeError(
                    f"expected the episode's {path.suffix} file, got a Git LFS pointer; run `git lfs pull` there"
                )
        self.files.add(path)
        return path

    def summary(self) -> str:
        """What was left out, in one line."""
        return "; ".join(f"{len(names)}x {reason}" for reason, names in self.skipped.items()) or "there are no episodes"


class Importer(Protocol):
    """Reads one kind of recording.

    Attributes:
        KIND: its name on the command line.
        LOOKS_LIKE: how to recognise a source, in words.
        SPLIT: the usual name of what comes out.
    """

    KIND: str
    LOOKS_LIKE: str
    SPLIT: str

    def recognises(self, source: Path) -> bool:
        """Whether a source is of this kind, judged by names alone."""

    def frames(self, request: Request, log: Log) -> Iterator[Frame]:
        """Frames in order of episode and number; episodes that cannot be used are counted in `log`.

        Raises:
            RecordingError: the source as a whole cannot be used.
        """


def decode_image(content: bytes) -> UInt8:
    """(H, W, 3) RGB of a JPEG or PNG file's bytes.

    Raises:
        EpisodeError: they are none.
    """
    import cv2

    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if bgr is None:
        raise EpisodeError("expected a JPEG or PNG image, could not decode it; the record is damaged")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def sample_of(frame: Frame, episode: int, *, split: str, source: str, vertical_fov_deg: float) -> Sample:
    """A frame as a sample without motion.

    Gravity is unknown in all recordings: the camera is taken to be held level, and the factor `up` says so.

    Args:
        frame: what was recorded.
        episode: running number of its episode.
        split: name of what comes out.
        source: where the recording comes from.
        vertical_fov_deg: of the pinhole camera that is assumed where the intrinsics are unknown.

    Raises:
        EpisodeError: more instances than a sample holds.
    """
    height, width = frame.rgb.shape[:2]
    given = {"camera": frame.camera, "depth": frame.depth_m, "instances": frame.instances, "motion": None}
    body_ids, names = _bodies(frame)
    depth_m = np.full((height, width), np.nan, np.float32) if frame.depth_m is None else frame.depth_m
    factors = {"episode": frame.episode, "frame": str(frame.index), "up": "assumed: level camera", **frame.factors}
    camera = frame.camera
    if camera is None:
        camera = PinholeCamera.from_fov(width, height, vertical_fov_rad=math.radians(vertical_fov_deg))
        factors["camera"] = f"assumed: vertical field of view {vertical_fov_deg:g} deg"
    return Sample(
        key=f"{split}_{episode:07d}_{frame.index:05d}",
        split=split,
        skill="",
        kind="",
        text=frame.text,
        rgb=frame.rgb,
        depth_m=np.where(depth_m <= MAX_DEPTH_M, depth_m, np.float32(np.nan)),
        body_ids=body_ids,
        camera=camera,
        camera_from_world=_LEVEL_CAMERA_FROM_WORLD,
        body_names=names,
        body_roles=(Role.WORLD, *(Role.OBJECT for _ in names[1:])),
        moving_bodies=np.zeros(0, np.uint8),
        motion_t_from_0=np.zeros((1, 0, 3, 4), np.float32),
        duration_s=0.0,
        factors=factors,
        source=source,
        lacks=tuple(name for name in LACKS if given[name] is None),
    )


def _bodies(frame: Frame) -> tuple[UInt8, tuple[str, ...]]:
    """Body ids 1, 2, ... of the instances in rising order, and names, the world's first."""
    if frame.instances is None:
        return np.zeros(frame.rgb.shape[:2], np.uint8), ("world",)
    found = sorted(frame.instances.areas_px)
    if len(found) > MAX_INSTANCES:
        raise EpisodeError(f"expected at most {MAX_INSTANCES} instances in an image, got {len(found)}")
    labels = frame.instances.labels
    ids = np.searchsorted([0, *found], frame.instances.ids).astype(np.uint8)
    return ids, ("world", *(labels.get(instance, f"instance {instance}") for instance in found))
