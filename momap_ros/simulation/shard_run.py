"""Shards made in any order by many workers, and published in theirs."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

from momap_ros.simulation.shard_folder import ShardFolder, write_unfinished
from momap_ros.simulation.shards import ShardProgress, ShardTask
from momap_ros.simulation.workers import MAX_DEATHS, TaskFailedError, WorkerDeath, WorkerPool

_HOPELESS_EPISODES = 2000  # without a single success


class GenerationError(RuntimeError):
    """The shards cannot be made."""


class ProgressBar:
    """The bar on standard error: how far, how long still, and how well."""

    def __init__(self, total: int, unit: str, description: str) -> None:
        """Count `unit`s, "episode" or "rollout", up to `total`."""
        self._target = total
        self._bar = tqdm(total=total, unit=unit, desc=description, dynamic_ncols=True)
        self._attribute = "tried" if unit == "episode" else "rollouts"
        self._found = 0
        self._shards: dict[ShardTask, ShardProgress] = {}
        self._start = time.perf_counter()

    def found(self, task: ShardTask, report: dict[str, Any]) -> None:
        """A shard was there already."""
        self._found += task.num_episodes if self._attribute == "tried" else report["rollouts"]
        self._bar.initial = self._found
        self._show()

    def update(self, task: ShardTask, progress: ShardProgress) -> None:
        """A worker did one more episode of a shard, or begins it again."""
        self._shards[task] = progress
        self._show()

    def _total(self, attribute: str) -> int:
        return sum(getattr(progress, attribute) for progress in self._shards.values())

    @property
    def success(self) -> float:
        """Share of this run's episodes that were stored; 1 before the first."""
        return self._total("rollouts") / self._total("tried") if self._total("tried") else 1.0

    def _show(self) -> None:
        seconds = time.perf_counter() - self._start
        self._bar.n = self._found + self._total(self._attribute)
        if self._attribute == "rollouts":  # shards are made whole, so there will be some more than asked for
            begun = self._found + sum(task.num_episodes for task in self._shards) * self.success
            self._bar.total = max(self._target, self._bar.n, math.ceil(begun))
        if self._shards:
            self._bar.set_postfix_str(
                f"{self._total('tried') / seconds:.1f} episodes/s, {self._total('samples') / seconds:.1f} samples/s, "
                f"{self.success:.0%} succeed",
                refresh=False,
            )
        self._bar.update(0)  # draws if the last time was long ago

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.refresh()
        self._bar.close()


@dataclass
class _Run:
    """Hands out shards in order and publishes them in order, until there are enough."""

    folder: ShardFolder
    tasks: Iterator[ShardTask]
    count: int | None
    progress: ProgressBar
    rollouts: int = 0
    _waiting: deque[ShardTask] = field(default_factory=deque)  # given out or made, but not published
    _reports: dict[ShardTask, dict[str, Any]] = field(default_factory=dict)
    _tried: int = 0

    @property
    def is_enough(self) -> bool:
        """Whether the published shards hold what is wanted."""
        return self.count is not None and self.rollouts >= self.count

    def next_task(self) -> ShardTask | None:
        """The next shard that has to be made; None where those being made should do, or there are no more."""
        while not self._should_do():
            task = next(self.tasks, None)
            if task is None:
                return None
            self._waiting.append(task)
            report = self.folder.find(task)
            if report is None:
                return task
            self.progress.found(task, report)
            self._reports[task] = report
            self._publish()
        return None

    def _should_do(self) -> bool:
        if self.count is None:
            return False
        expected = float(self.rollouts)
        for task in self._waiting:
            report = self._reports.get(task)
            expected += report["rollouts"] if report else task.num_episodes * self.progress.success
        return expected >= self.count

    def finish(self, task: ShardTask, report: dict[str, Any]) -> None:
        """A worker made a shard."""
        self.folder.keep(task, report)
        self._reports[task] = report
        self._publish()

    def _publish(self) -> None:
        while self._waiting and self._waiting[0] in self._reports and not self.is_enough:
            task = self._waiting.popleft()
            self.folder.publish(task)
            self.rollouts += self._reports.pop(task)["rollouts"]
            self._tried += task.num_episodes
        if self.rollouts == 0 and self._tried >= _HOPELESS_EPISODES:
            raise GenerationError(f"expected some episodes to succeed, got none of {self._tried}")

    def bury(self, death: WorkerDeath[ShardTask]) -> None:
        """Name a worker that died."""
        described = _described(death)
        self.folder.note_death(described)
        where = "while it waited"
        if death.task is not None:
            self.progress.update(death.task, ShardProgress(death.task.first))
            where = f"in {described['shard']} at {described['at']}; the shard is made again by a new worker"
        note(f"worker {death.worker} (pid {death.pid}) died ({death.cause}) {where}")


def _described(death: WorkerDeath[ShardTask]) -> dict[str, Any]:
    at = "its start" if death.progress is None else f"episode {death.progress.episode}"
    shard = death.task.name if death.task else None
    return {"worker": death.worker, "pid": death.pid, "cause": death.cause, "shard": shard, "at": at}


def note(text: str) -> None:
    """One line on standard error, above the bar."""
    tqdm.write(f"momap simulate: {text}", file=sys.stderr)


def make_shards(
    folder: ShardFolder, tasks: Iterator[ShardTask], num_workers: int, *, bar: ProgressBar, count: int | None = None
) -> None:
    """Make and publish the shards that are not there yet.

    Args:
        folder: where they lie, locked.
        tasks: every shard in order; endless where `count` decides.
        num_workers: processes.
        bar: shows how far it is; closed in the end.
        count: the first tasks that have as many rollouts are published and no other; None: all of them are.

    Raises:
        GenerationError: an episode ends every worker that tries it, or no episode succeeds.
    """
    run = _Run(folder, tasks, count, bar)
    function = partial(write_unfinished, folder.path)
    try:
        with WorkerPool(function, num_workers, on_progress=bar.update, on_death=run.bury) as pool:
            for task, report in pool.run(run.next_task):
                run.finish(task, report)
                if run.is_enough:
                    break
    except TaskFailedError as error:
        raise GenerationError(_how_to_reproduce(error.death)) from None
    finally:
        bar.close()


def _how_to_reproduce(death: WorkerDeath[ShardTask]) -> str:
    task = death.task
    assert task is not None
    episode = task.first if death.progress is None else death.progress.episode
    return (
        f"{task.name}: {MAX_DEATHS} workers died, the last one ({death.cause}) at episode {episode}. Whole shards are "
        f"kept. To look at it alone: momap simulate --split {task.split} --first-episode {episode} --episodes 1 "
        f"--workers 1 --views {task.num_views} --size {task.width}x{task.height} --steps {task.num_steps} "
        "--out reproduced"
    )
