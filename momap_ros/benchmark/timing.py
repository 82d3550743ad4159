"""Durations and peak memory of a function, and processes that see a stated number of cores."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Writing this to /proc/self/clear_refs makes VmHWM, the peak memory, start anew (proc_pid_clear_refs(5)).
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Effort:
    """How often a function is run.

    Attributes:
        warm_up: runs before the first that counts.
        min_runs: counted runs at least, however long they take.
        max_runs: counted runs at most.
        budget_s: between these two, runs are started for so many seconds.
    """

    warm_up: int = 3
    min_runs: int = 20
    max_runs: int = 200
    budget_s: float = 3.0


QUICK = Effort(warm_up=1, min_runs=2, max_runs=2, budget_s=0.0)


@dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
        times_ms: duration of every counted run, milliseconds.
        peak_memory_mib: most memory in use during a run, MiB; None where the system does not tell.
    """

    times_ms: tuple[float, ...]
    peak_memory_mib: float | None

    @property
    def median(self) -> float:
        """Median duration, milliseconds."""
        return float(np.median(self.times_ms))

    @property
    def p95(self) -> float:
        """The duration that 95 % of the runs stay below, milliseconds."""
        return float(np.percentile(self.times_ms, 95))


def measure(run: Callable[[], object], effort: Effort, *, pause_s: float = 0.0) -> Timing:
    """Time a function, and then look at the memory of one more run.

    Args:
        run: the function; what it returns is dropped.
        effort: how often.
        pause_s: rest between two runs, for work that goes on after the call returns.
    """
    for _ in range(effort.warm_up):
        run()
        time.sleep(pause_s)
    times_ms: list[float] = []
    end = time.perf_counter() + effort.budget_s
    while len(times_ms) < effort.min_runs or (len(times_ms) < effort.max_runs and time.perf_counter() < end):
        start = time.perf_counter()
        run()
        times_ms.append(1e3 * (time.perf_counter() - start))
        time.sleep(pause_s)
    return Timing(tuple(times_ms), peak_memory_mib(run))


def peak_memory_mib(run: Callable[[], object]) -> float | None:
    """Most memory in use during one run beyond what the process held before it, MiB, to about 1 MiB.

    The process's resident memory as the kernel counts it: numpy, torch and OpenCV allocate each in their own way.

    Returns:
        None where the kernel does not let a process reset its peak (some containers).
    """
    # Freed memory that the allocator keeps would hide what the run takes.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return None
    before = memory_mib(os.getpid(), "VmRSS")
    run()
    return max(memory_mib(os.getpid(), "VmHWM") - before, 0.0)


def memory_mib(process_id: int, field: str) -> float:
    """A process's memory from its status in /proc, MiB: VmRSS what it holds now, VmHWM the most it ever held."""
    status = Path(f"/proc/{process_id}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def on_cores(
    count: int, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function in a new process that may use the first `count` of the cores this process may use.

    In a new process because libraries make their threads when they are first used, for the cores they see then.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments, **options).result()
    finally:
        os.sched_setaffinity(0, allowed)
