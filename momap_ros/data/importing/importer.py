"""Recordings to shards: finds the kind of a source, writes all its samples and a manifest, whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from momap_ros.data.importing.bags import Bags
from momap_ros.data.importing.bridge_rlds import BridgeRlds
from momap_ros.data.importing.common import (
    ASSUMED_VERTICAL_FOV_DEG,
    EpisodeError,
    Importer,
    Log,
    RecordingError,
    Request,
    sample_of,
)
from momap_ros.data.importing.episodes_mp4 import EpisodeVideos
from momap_ros.data.importing.lerobot import LeRobot
from momap_ros.data.sample import Sample, write_shard
from momap_ros.files import atomic_path

# The first that recognises a source reads it: LeRobot data sets and bags may hold videos too.
IMPORTERS: dict[str, Importer] = {
    importer.KIND: importer for importer in (LeRobot(), BridgeRlds(), Bags(), EpisodeVideos())
}
EPISODES_PER_SHARD = 250
# Not a hyphen: shards are found by SPLIT-*.tar, and bridge-*.tar would find those of bridge-mp4.
_SPLIT = re.compile(r"[A-Za-z0-9_]+")


def find_importer(source: Path) -> Importer:
    """The importer of a source, judged by the names of its files.

    Raises:
        RecordingError: none; the message says what was found and which kinds there are.
    """
    for importer in IMPORTERS.values():
        if importer.recognises(source):
            return importer
    kinds = "; ".join(f"{importer.KIND}: {importer.LOOKS_LIKE}" for importer in IMPORTERS.values())
    raise RecordingError(
        f"{source}: expected recordings of a known kind, got {_described(source)}; known are {kinds}; "
        "images become a bag with `momap bag from-images`"
    )


def import_recordings(
    request: Request,
    importer: Importer,
    out: Path,
    *,
    split: str = "",
    licence: str = "",
    vertical_fov_deg: float = ASSUMED_VERTICAL_FOV_DEG,
    max_episodes: int | None = None,
    on_episode: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Write the samples of a source as shards SPLIT-FIRST-STOP.tar of a new folder, with a manifest.json.

    Episodes are numbered as they are read; those that could not be read have no number. Equal sources and arguments
    give equal bytes.

    Args:
        request: what to take of which source.
        importer: how to read it.
        out: the folder; it must not exist, or be empty.
        split: name of the samples' split; the importer's usual one where empty.
        licence: of the recordings, for the manifest.
        vertical_fov_deg: of the pinhole camera that is assumed where the intrinsics are unknown.
        max_episodes: stop after so many.
        on_episode: called with the first sample of an episode.

    Returns:
        The manifest.

    Raises:
        RecordingError: the source cannot be used, or not one of its episodes; or wrong arguments.
    """
    split = split or importer.SPLIT
    _check(out, split, vertical_fov_deg)
    log, counts = Log(), Counter[str]()
    lacks, numbers = Counter[str](), set[int]()

    def samples() -> Iterator[tuple[int, Sample]]:
        source = f"{importer.KIND}: {request.source.resolve().name}"
        for number, frame in _numbered(importer.frames(request, log), max_episodes):
            try:
                sample = sample_of(frame, number, split=split, source=source, vertical_fov_deg=vertical_fov_deg)
            except EpisodeError as error:
                log.skip(frame.episode, str(error))
                continue
            if number not in numbers:
                numbers.add(number)
                on_episode()
            counts.update(samples=1, samples_without_text=int(not frame.text))
            lacks.update(sample.lacks)
            yield number, sample

    with atomic_path(out) as partial:
        shards = _write_shards(partial, split, samples())
        if not shards:
            raise RecordingError(f"{request.source}: expected episodes to import, got none: {log.summary()}")
        manifest = {
            "kind": importer.KIND,
            "split": split,
            "package": _package_version(),
            "licence": licence or "not stated",
            "camera": request.camera or "the first",
            "every": request.every or "the first frame alone",
            "assumed_vertical_fov_deg": vertical_fov_deg if lacks["camera"] else None,
            "episodes": len(numbers),
            **counts,
            "lacks": dict(sorted(lacks.items())),
            "skipped": {reason: {"count": len(names), "episodes": names} for reason, names in log.skipped.items()},
            "notes": dict(log.notes),
            "shards": shards,
            "files": _checksums(request.source, log.files),
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _check(out: Path, split: str, vertical_fov_deg: float) -> None:
    if not _SPLIT.fullmatch(split):
        raise RecordingError(f"name: expected letters, digits and underscores, got {split!r}")
    if not 1 <= vertical_fov_deg < 180:
        raise RecordingError(f"vertical field of view: expected degrees from 1 to below 180, got {vertical_fov_deg:g}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecordingError(f"{out}: expected a new folder, it exists already; choose another --out or remove it")


def _numbered(frames: Iterator[Any], max_episodes: int | None) -> Iterator[tuple[int, Any]]:
    """(running number of the episode, frame) of the first so many episodes."""
    groups = itertools.groupby(frames, key=lambda frame: frame.episode)
    for number, (_, group) in enumerate(itertools.islice(groups, max_episodes)):
        for frame in group:
            yield number, frame


def _write_shards(folder: Path, split: str, samples: Iterator[tuple[int, Sample]]) -> dict[str, int]:
    """Name -> number of samples of every shard; a shard's name is known when its last episode is."""
    folder.mkdir()
    shards = {}
    for shard, group in itertools.groupby(samples, key=lambda item: item[0] // EPISODES_PER_SHARD):
        numbers: set[int] = set()
        count = write_shard(folder / "unnamed.tar", _noting(group, numbers))
        name = f"{split}-{shard * EPISODES_PER_SHARD:07d}-{max(numbers) + 1:07d}.tar"
        (folder / "unnamed.tar").rename(folder / name)
        shards[name] = count
    return shards


def _noting(numbered: Iterator[tuple[int, Sample]], numbers: set[int]) -> Iterator[Sample]:
    for number, sample in numbered:
        numbers.add(number)
        yield sample


def _checksums(source: Path, files: set[Path]) -> dict[str, str]:
    """Path relative to the source's folder -> SHA-256."""
    base = source if source.is_dir() else source.parent
    checksums = {}
    for path in sorted(files):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        checksums[path.relative_to(base).as_posix()] = digest.hexdigest()
    return checksums


def _described(source: Path) -> str:
    """What is there instead, in a few words."""
    if not source.exists():
        return "nothing of this name"
    if source.is_file():
        return f"a file {source.suffix or 'without suffix'}"
    kinds = Counter(path.suffix or "without suffix" for path in source.iterdir() if path.is_file())
    folders = sorted(path.name for path in source.iterdir() if path.is_dir())
    files = [f"{count} files {suffix}" for suffix, count in kinds.most_common(4)]
    return ", ".join([*files, *(f"a folder {name}" for name in folders[:4])]) or "an empty folder"


def _package_version() -> str:
    try:
        return version("momap_ros")
    except PackageNotFoundError:
        return "source"
