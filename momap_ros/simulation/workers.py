"""Worker processes that may die: each death is named, the worker is replaced, and its task is done again.

`concurrent.futures` gives up as a whole when one process dies. Here every worker has a pipe of its own, so a death is
the end of that pipe, and all that the worker said before is still in it. Workers end with the process that started
them, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from momap_ros.processes import end_with_parent

MAX_DEATHS = 3  # of workers over one task; the next one would most likely die too
_EXIT_SECONDS = 10.0
_SPAWN = multiprocessing.get_context("spawn")  # OpenGL and forked processes do not go together
# One core per worker. It also keeps sums of floats in one order, whatever the number of cores.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}

_PROGRESS, _RESULT, _ERROR = "progress", "result", "error"

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkerDeath(Generic[Task]):
    """A worker that ended before its task did.

    Attributes:
        worker: its number, from 0.
        pid: its process id.
        cause: the exception, the signal, or the exit code.
        task: what it worked on; None where it was waiting for a task.
        progress: the last thing it reported about the task; None before the first report.
    """

    worker: int
    pid: int
    cause: str
    task: Task | None
    progress: Any


class TaskFailedError(RuntimeError):
    """A task that ended MAX_DEATHS workers; `death` is the last one."""

    def __init__(self, death: WorkerDeath[Any]) -> None:
        """Say which task."""
        super().__init__(f"{death.task}: ended {MAX_DEATHS} workers, the last by {death.cause}")
        self.death = death


@dataclass(eq=False)
class _Worker(Generic[Task]):
    number: int
    process: SpawnProcess
    connection: Connection
    task: Task | None = None
    progress: Any = None
    error: str | None = None

    def give(self, task: Task) -> None:
        self.task, self.progress = task, None
        with suppress(OSError):  # it died while it was idle: the end of its pipe is read next, the task done again
            self.connection.send(task)

    def death(self) -> WorkerDeath[Task]:
        """Who died of what, once its pipe has ended."""
        self.process.join(_EXIT_SECONDS)
        self.kill()
        return WorkerDeath(
            self.number,
            self.process.pid or 0,
            self.error or describe_exit(self.process.exitcode or 0),
            self.task,
            self.progress,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class WorkerPool(Generic[Task, Result]):
    """Calls a function for many tasks in several processes.

    Args:
        function: runs in the workers, so it must be importable. Its second argument sends a report of progress. An
            exception ends the worker.
        num_workers: processes.
        on_progress: called with a task and what the function reported about it.
        on_death: called for every worker that dies. Its task is given to another one.
    """

    def __init__(
        self,
        function: Callable[[Task, Callable[[Any], None]], Result],
        num_workers: int,
        *,
        on_progress: Callable[[Task, Any], None],
        on_death: Callable[[WorkerDeath[Task]], None],
    ) -> None:
        """No process is started before there is a task for it."""
        if num_workers < 1:
            raise ValueError(f"workers: expected at least 1, got {num_workers}")
        self._function, self._numbers = function, range(num_workers)
        self._on_progress, self._on_death = on_progress, on_death
        self._workers: dict[int, _Worker[Task]] = {}
        self._again: deque[Task] = deque()
        self._deaths: Counter[Task] = Counter()

    def __enter__(self) -> WorkerPool[Task, Result]:
        """Leaving ends all workers at once."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill: an unfinished task leaves nothing that another worker would miss."""
        for worker in self._workers.values():
            worker.kill()

    def run(self, next_task: Callable[[], Task | None]) -> Iterator[tuple[Task, Result]]:
        """Yield task and result, in the order in which they finish.

        Args:
            next_task: called whenever a worker is free; a hashable task, or None where there is none at the moment.
                The iterator ends when it says None and no worker is busy.

        Raises:
            TaskFailedError: MAX_DEATHS workers died of the same task.
        """
        while True:
            self._give_tasks(next_task)
            if all(worker.task is None for worker in self._workers.values()):
                return
            ready = wait([worker.connection for worker in self._workers.values()])
            for worker in [worker for worker in self._workers.values() if worker.connection in ready]:
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                    continue
                task = worker.task
                assert task is not None, "an idle worker says nothing"
                if kind == _RESULT:
                    worker.task = None
                    yield task, content
                elif kind == _PROGRESS:
                    worker.progress = content
                    self._on_progress(task, content)
                else:
                    worker.error = content

    def _give_tasks(self, next_task: Callable[[], Task | None]) -> None:
        for number in self._numbers:
            if number in self._workers and self._workers[number].task is not None:
                continue
            task = self._again.popleft() if self._again else next_task()
            if task is None:
                return
            if number not in self._workers:
                self._workers[number] = _start(number, self._function)
            self._workers[number].give(task)

    def _bury(self, worker: _Worker[Task]) -> None:
        del self._workers[worker.number]
        death = worker.death()
        self._on_death(death)
        if death.task is not None:
            self._again.append(death.task)
            self._deaths[death.task] += 1
            if self._deaths[death.task] == MAX_DEATHS:
                raise TaskFailedError(death)


def _start(number: int, function: Callable[..., Any]) -> _Worker[Any]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_work, args=(theirs, function), daemon=True)
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()  # else our end would never see that the worker is gone
    return _Worker(number, process, ours)


def _work(connection: Connection, function: Callable[[Any, Callable[[Any], None]], Any]) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; our parent decides
    end_with_parent()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            result = function(task, lambda progress: connection.send((_PROGRESS, progress)))
        except Exception as error:
            connection.send((_ERROR, f"{type(error).__name__}: {error}"))
            raise
        connection.send((_RESULT, result))


def describe_exit(code: int) -> str:
    """An exit code in words; negative: the signal."""
    if code >= 0:
        return f"exit code {code}"
    text = f"signal {-code} ({signal.Signals(-code).name})"
    return f"{text}; short of memory?" if -code == signal.SIGKILL else text
