"""A folder of shards that never shows anything but whole ones, in order, whoever is killed when.

A worker writes into the hidden folder `.unfinished`. Once its shard is whole, the report is written beside it there,
and when all shards before it are in place, both move up. What a killed run leaves in `.unfinished` is kept where it is
whole and removed where it is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import mujoco

from momap_ros.files import atomic_path
from momap_ros.simulation.manifest import write_manifest
from momap_ros.simulation.shards import ShardProgress, ShardTask, make_shard

_UNFINISHED, _DEATHS, _LOCK, _WORKERS_LOCK = ".unfinished", ".dead_workers.jsonl", ".lock", ".workers.lock"
_REPORT_NAME = re.compile(r"\w+-\d{7}-\d{7}\.json")
_PARTIAL_NAME = re.compile(r"\.(manifest|\w+-\d{7}-\d{7})\.[0-9a-f]{8}\.partial\.(json|tar)")
_ORPHANS_END_WITHIN_S = 30.0


class FolderInUseError(OSError):
    """Another run writes into the folder."""


class ShardFolder:
    """The folder that a run fills; use it inside `with folder.locked()`."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        """Nothing is made or touched yet; `note` tells the user what was found damaged."""
        self.path, self._note = path, note
        self._unfinished = path / _UNFINISHED

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, wait until the workers of a killed run are gone, and remove what they left half-done.

        Raises:
            FolderInUseError: another run is here.
        """
        self._unfinished.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("a+", encoding="ascii") as lock:
            if not _locked(lock.fileno(), fcntl.LOCK_EX):
                lock.seek(0)
                raise FolderInUseError(
                    f"{self.path}: expected no other run, but process {lock.read()} writes into it; "
                    "wait for it, end it, or choose another --out folder"
                )
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._wait_for_orphans()
            self._remove_partials()
            try:
                yield
            finally:
                self._remove_partials()

    def keep(self, task: ShardTask, report: dict[str, Any]) -> None:
        """Note that a shard is whole; from now on a killed run does not lose it."""
        with atomic_path(self._unfinished / f"{task.name}.json") as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def note_death(self, described: dict[str, Any]) -> None:
        """Remember a worker that died, even if this run is killed before it writes the manifest."""
        with (self.path / _DEATHS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(described) + "\n")

    def deaths(self) -> list[dict[str, Any]]:
        """All workers that ever died over this folder."""
        path = self.path / _DEATHS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def publish(self, task: ShardTask) -> None:
        """Move a whole shard to its place; the report follows the tar, so a shard that has one is whole."""
        for suffix in (".tar", ".json"):
            path = self._unfinished / f"{task.name}{suffix}"
            if path.exists():
                path.replace(self.path / path.name)

    def finish(self, manifest: dict[str, Any], splits: Iterable[str]) -> None:
        """Write the manifest; remove shards of these splits that were made ahead and are not needed after all."""
        write_manifest(self.path / "manifest.json", manifest)
        for split in splits:
            for path in self._unfinished.glob(f"{split}-*"):
                path.unlink()
        with suppress(OSError):  # not empty: an interrupted run of another split goes on later
            self._unfinished.rmdir()

    def find(self, task: ShardTask) -> dict[str, Any] | None:
        """The report of a shard that is there, published or not; None where it has to be made."""
        for folder in (self.path, self._unfinished):
            report_path = folder / f"{task.name}.json"
            if report_path.exists():
                report: dict[str, Any] = json.loads(report_path.read_text(encoding="utf-8"))
                tars = [path / f"{task.name}.tar" for path in (folder, self.path)]
                alike = ShardTask(**report["task"]) == task and report["made_with"]["mujoco"] == mujoco.__version__
                # A power cut may lose the end of a file whose name is already there.
                if alike and any(path.exists() and path.stat().st_size == report["bytes"] for path in tars):
                    return report
                self._note(f"{report_path}: made again; expected its tar with {report['bytes']} bytes beside it")
                report_path.unlink()
        return None

    def reports(self) -> list[dict[str, Any]]:
        """The reports of all published shards, by split and episode.

        Raises:
            ValueError: a report was written by a version of this package that made other shards.
        """
        found = []
        for path in sorted(self.path.glob("*.json")):
            if _REPORT_NAME.fullmatch(path.name):
                found.append(json.loads(path.read_text(encoding="utf-8")))
                if "sha256" not in found[-1]:
                    raise ValueError(
                        f"{path}: expected a report with a sha256, got one of an older version of this package; "
                        "choose another --out folder"
                    )
        return found

    def refuse_conflicts(self, wanted: Iterator[ShardTask]) -> None:
        """Two samples of one episode, of two shapes or of two simulators must never lie in one folder.

        Args:
            wanted: the shards of one split that will be added, in order; may be endless.

        Raises:
            ValueError: they would.
        """
        first = next(wanted)
        reports = [report for report in self.reports() if report["task"]["split"] == first.split]
        last_stop = max((report["task"]["stop"] for report in reports), default=0)
        tasks = [first, *takewhile(lambda task: task.first < last_stop, wanted)]
        for report in reports:
            stored, made_with = ShardTask(**report["task"]), report["made_with"]["mujoco"]
            ours = {"mujoco": mujoco.__version__} | first.shape
            for name, value in ({"mujoco": made_with} | stored.shape).items():
                if value != ours[name]:
                    raise ValueError(
                        f"{self.path / stored.name}: expected {name} {ours[name]}, got {value}; "
                        "choose another --out folder"
                    )
            for task in tasks:
                if task.first < stored.stop and stored.first < task.stop and task != stored:
                    raise ValueError(
                        f"{self.path / stored.name}: expected a shard of the episodes {task.first}..{task.stop - 1} or "
                        f"none of them, got {stored.first}..{stored.stop - 1}; start after them (--first-episode) "
                        "or choose another --out folder"
                    )

    def _wait_for_orphans(self) -> None:
        """Workers end with their run, but a moment later; each holds a shared lock while it writes."""
        deadline = time.monotonic() + _ORPHANS_END_WITHIN_S
        with (self.path / _WORKERS_LOCK).open("a", encoding="ascii") as lock:
            while not _locked(lock.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise FolderInUseError(
                        f"{self.path}: expected the workers of a killed run to end within "
                        f"{_ORPHANS_END_WITHIN_S:.0f} s, but one still writes; end it and start again"
                    )
                time.sleep(0.05)

    def _remove_partials(self) -> None:
        """Only files that this class makes are touched."""
        for path in self._unfinished.glob("*"):
            is_whole_tar = path.suffix == ".tar" and path.with_suffix(".json").exists()
            if not is_whole_tar and not _REPORT_NAME.fullmatch(path.name):
                path.unlink()
        for path in self.path.glob(".*"):
            if _PARTIAL_NAME.fullmatch(path.name):
                path.unlink()


def write_unfinished(folder: Path, task: ShardTask, report_progress: Callable[[ShardProgress], None]) -> dict[str, Any]:
    """What a worker does: a shard in the hidden part of `folder`; returns its report."""
    with (folder / _WORKERS_LOCK).open("a", encoding="ascii") as lock:
        if not _locked(lock.fileno(), fcntl.LOCK_SH):
            raise FolderInUseError(f"{folder}: a new run has begun, and this worker belongs to an old one")
        return make_shard(task, folder / _UNFINISHED / f"{task.name}.tar", report_progress)


def _locked(file: int, kind: int) -> bool:
    """Take a lock that ends with the process, if it is free."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
