from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.simulation.workers import MAX_DEATHS, TaskFailedError, WorkerDeath, WorkerPool, describe_exit


def square(task: int, report: Callable[[Any], None]) -> int:
    report("begun")
    return task * task


def fragile(task: tuple[str, str], report: Callable[[Any], None]) -> str:
    """The first worker that gets the task "once" dies half-way, in the given way; a file remembers it."""
    how, marker = task
    report("half-way")
    if not Path(marker).exists():
        Path(marker).touch()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "exit":
            os._exit(7)
        raise ArithmeticError("no such thing")
    return how


def poison(task: int, report: Callable[[Any], None]) -> int:
    report(task + 100)
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def environment(task: str, report: Callable[[Any], None]) -> str | None:
    del report
    return os.environ.get(task)


def sleep_for_ever(task: str, report: Callable[[Any], None]) -> None:
    Path(task).write_text(str(os.getpid()), encoding="ascii")
    report("asleep")
    time.sleep(600)


def run(
    function: Callable[..., Any], tasks: Iterable[Any], num_workers: int
) -> tuple[dict[Any, Any], list[WorkerDeath[Any]], list[Any]]:
    deaths: list[WorkerDeath[Any]] = []
    reports: list[Any] = []
    remaining = iter(tasks)
    with WorkerPool[Any, Any](
        function, num_workers, on_progress=lambda task, said: reports.append((task, said)), on_death=deaths.append
    ) as pool:
        results = list(pool.run(lambda: next(remaining, None)))
    assert len(dict(results)) == len(results)  # nothing is done twice
    return dict(results), deaths, reports


def test_every_task_is_done_once() -> None:
    results, deaths, reports = run(square, range(1, 20), 2)
    assert results == {number: number**2 for number in range(1, 20)}
    assert deaths == []
    assert sorted(reports) == [(number, "begun") for number in range(1, 20)]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("kill", "signal 9 (SIGKILL); short of memory?"),
        ("segfault", "signal 11 (SIGSEGV)"),
        ("exit", "exit code 7"),
        ("raise", "ArithmeticError: no such thing"),
    ],
)
def test_a_dead_worker_is_named_and_its_task_done_again(how: str, cause: str, tmp_path: Path) -> None:
    task = (how, str(tmp_path / how))
    results, deaths, _ = run(fragile, [task], 1)
    assert results == {task: how}
    [death] = deaths
    assert (death.worker, death.cause, death.task, death.progress) == (0, cause, task, "half-way")
    assert death.pid != os.getpid()


def test_a_task_that_ends_every_worker_stops_the_run() -> None:
    deaths: list[WorkerDeath[int]] = []
    tasks = iter(range(1, 20))
    with (
        WorkerPool[int, int](poison, 1, on_progress=lambda *_: None, on_death=deaths.append) as pool,
        pytest.raises(TaskFailedError, match=r"^2: ended 3 workers, the last by signal 9") as raised,
    ):
        list(pool.run(lambda: next(tasks, None)))
    assert [death.task for death in deaths] == [2] * MAX_DEATHS
    assert raised.value.death.progress == 102
    assert multiprocessing.active_children() == []


def test_an_idle_worker_that_dies_is_replaced() -> None:
    deaths: list[WorkerDeath[int]] = []
    tasks = iter([2, 3, None, 4])  # None: one worker has nothing to do for the moment
    with WorkerPool[int, int](square, 1, on_progress=lambda *_: None, on_death=deaths.append) as pool:
        assert list(pool.run(lambda: next(tasks))) == [(2, 4), (3, 9)]
        [child] = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert next(pool.run(lambda: next(tasks))) == (4, 16)
    assert [death.pid for death in deaths] == [child.pid]


def test_a_worker_computes_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    results, _, _ = run(environment, ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], 1)
    assert results == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys; from momap_ros.simulation.workers import WorkerPool; import test_simulation_workers as t\n"
        "pool = WorkerPool(t.sleep_for_ever, 1, on_progress=print, on_death=print)\n"
        f"list(pool.run(lambda: {str(tmp_path / 'pid')!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        worker = int((tmp_path / "pid").read_text())
        parent.kill()
        parent.wait()
        wait_for(lambda: not is_running(worker))
    finally:
        parent.kill()
    assert not is_running(worker)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """A process that has ended but that nobody has waited for yet does not run."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        WorkerPool[int, int](square, 0, on_progress=print, on_death=print)


def test_exit_codes_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-6) == "signal 6 (SIGABRT)"
