"""One shard: a fixed range of episodes that becomes one tar file, the same bytes wherever and whenever it is made."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import mujoco
import numpy as np

from momap_ros.benchmark.machine import describe_commit
from momap_ros.data.sample import Sample, write_shard
from momap_ros.simulation.episodes import Episode, simulate_episode, simulate_futures
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.views import render_futures, render_samples

EPISODES_PER_SHARD = 100
SHAPE = ("num_views", "width", "height", "num_steps", "visibility")


@dataclass(frozen=True)
class ShardTask:
    """What one shard holds; two equal tasks give two equal files.

    Attributes:
        split: one of SPLITS.
        first: number of the first episode.
        stop: number after the last.
        num_views: cameras per episode.
        width: pixels.
        height: pixels.
        num_steps: of the motion.
        visibility: whether the samples say which points are seen at every step.
    """

    split: str
    first: int
    stop: int
    num_views: int
    width: int
    height: int
    num_steps: int
    visibility: bool = False

    @property
    def name(self) -> str:
        """Of its files, without the suffix; sorts by episode within a split."""
        return f"{self.split}-{self.first:07d}-{self.stop:07d}"

    @property
    def num_episodes(self) -> int:
        """Episodes that are tried."""
        return self.stop - self.first

    @property
    def shape(self) -> dict[str, int]:
        """What all shards of a split in one folder have in common."""
        return {name: getattr(self, name) for name in SHAPE}


@dataclass(frozen=True)
class ShardProgress:
    """How far a shard is.

    Attributes:
        episode: number of the episode that comes next.
        tried: episodes done.
        rollouts: of them stored.
        samples: stored.
    """

    episode: int
    tried: int = 0
    rollouts: int = 0
    samples: int = 0


def make_shard(task: ShardTask, path: Path, report_progress: Callable[[ShardProgress], None]) -> dict[str, Any]:
    """Write one shard.

    Args:
        task: what to write.
        path: the tar.
        report_progress: called before every episode and after the last.

    Returns:
        The shard's report, as JSON. `skills` counts per skill: tried = succeeded + failed; succeeded = rollouts
        (stored) + no_view (no camera saw enough of it). `no_scene`: episodes whose objects did not fit on the table.
    """
    skills: dict[str, Counter[str]] = {}
    progress = ShardProgress(task.first)
    no_scene = 0
    start_wall, start_cpu = time.perf_counter(), time.process_time()

    def samples() -> Iterator[Sample]:
        nonlocal progress, no_scene
        for index in range(task.first, task.stop):
            report_progress(progress)
            played = demonstrations(task.split, index)
            views = render(played, task)
            seen = Counter(sample.skill for sample in views)
            no_scene += not played
            for episode in played:
                outcome = "no_view" if episode.rollout.success and not views else "rollouts"
                outcomes = ["succeeded", outcome] if episode.rollout.success else ["failed"]
                skills.setdefault(episode.scene.skill, Counter()).update(["tried", *outcomes])
            for skill, count in seen.items():
                skills[skill]["samples"] += count
            yield from views
            progress = ShardProgress(
                index + 1, progress.tried + 1, progress.rollouts + bool(views), progress.samples + len(views)
            )
        report_progress(progress)

    write_shard(path, samples())
    return {
        "task": asdict(task),
        "samples": progress.samples,
        "rollouts": progress.rollouts,
        "no_scene": no_scene,
        "skills": {skill: dict(sorted(counts.items())) for skill, counts in sorted(skills.items())},
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "wall_s": round(time.perf_counter() - start_wall, 2),
        "cpu_s": round(time.process_time() - start_cpu, 2),
        "worker": {"pid": os.getpid(), "memory_mib": memory_mib()},
        "made_with": describe_makers() | {"renderer": _renderer() if progress.samples else None},
    }


def demonstrations(split: str, index: int) -> list[Episode]:
    """What is played under this number: one demonstration, or all that start from one first frame.

    Of several futures only those that succeed are there. Empty where the scene does not fit on the table.
    """
    if SPLITS[split].num_futures > 1:
        return simulate_futures(split, index)
    episode = simulate_episode(split, index)
    return [] if episode is None else [episode]


def render(played: list[Episode], task: ShardTask) -> list[Sample]:
    """The samples of what succeeded."""
    played = [episode for episode in played if episode.rollout.success]
    size = (task.width, task.height)
    if SPLITS[task.split].num_futures > 1:
        return render_futures(played, task.num_views, *size, num_steps=task.num_steps)
    return [
        sample
        for episode in played
        for sample in render_samples(
            episode, task.num_views, *size, num_steps=task.num_steps, with_visibility=task.visibility
        )
    ]


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def memory_mib() -> float:
    """Resident memory of this process now, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


@cache
def describe_makers() -> dict[str, str | None]:
    """Everything that the bytes of a shard may depend on, beside its task and the renderer."""
    return {
        "package": package_version(),
        "commit": describe_commit(),
        "mujoco": mujoco.__version__,
        "numpy": np.__version__,
        "simd": _simd(),
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gl": os.environ.get("MUJOCO_GL"),
    }


def _simd() -> str:
    """The widest vector instructions that NumPy computes with here, for instance "X86_V3", which has AVX2.

    Shards made with AVX-512 and with AVX2 differ, whatever else is the same.
    """
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    return str([*extensions["baseline"], *extensions.get("found", [])][-1])


@cache
def _renderer() -> str:
    """OpenGL's name of what drew the images of this process, for instance "llvmpipe (LLVM 15.0.6, 256 bits)"."""
    gl: Any = import_module("OpenGL.GL")  # has no types
    return str(gl.glGetString(gl.GL_RENDERER).decode())


def package_version() -> str:
    """Version of the installed package, or "source" when it runs from a checkout."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("momap_ros")
    except PackageNotFoundError:
        return "source"
