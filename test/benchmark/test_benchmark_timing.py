from __future__ import annotations

import os
import time

import numpy as np
import pytest

from momap_ros.benchmark.timing import QUICK, Effort, Timing, measure, memory_mib, on_cores, peak_memory_mib


def test_median_and_percentile() -> None:
    timing = Timing(tuple(float(number) for number in range(1, 102)), None)
    assert (timing.median, timing.p95) == (51.0, 96.0)


def test_warm_up_is_not_counted_and_memory_takes_one_more_run() -> None:
    durations_s = [0.2, 0.02, 0.02, 0.0]
    runs: list[int] = []

    def run() -> None:
        time.sleep(durations_s[len(runs)])
        runs.append(1)

    timing = measure(run, QUICK)
    assert len(runs) == QUICK.warm_up + QUICK.min_runs + 1 == 4
    assert all(20.0 <= duration_ms < 190.0 for duration_ms in timing.times_ms)


def test_runs_until_the_budget_is_spent_within_its_bounds() -> None:
    few = measure(lambda: time.sleep(0.02), Effort(warm_up=0, min_runs=3, max_runs=9, budget_s=0.0))
    many = measure(lambda: None, Effort(warm_up=0, min_runs=3, max_runs=9, budget_s=10.0))
    assert (len(few.times_ms), len(many.times_ms)) == (3, 9)


def test_peak_memory_is_what_a_run_needs_beyond_what_was_held() -> None:
    held = np.ones(64 * 2**20, np.uint8)
    needed = peak_memory_mib(lambda: np.ones(96 * 2**20, np.uint8).sum())
    if needed is None:
        pytest.skip("this system does not let a process reset its peak memory")
    assert 94 < needed < 110
    assert memory_mib(os.getpid(), "VmRSS") > held.nbytes / 2**20


def test_a_process_sees_the_cores_it_is_given() -> None:
    before = os.sched_getaffinity(0)
    assert on_cores(1, os.sched_getaffinity, 0) == {min(before)}
    assert os.sched_getaffinity(0) == before
