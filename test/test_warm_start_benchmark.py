"""benchmarks/warm_start.py: its figures against the simulator's own Motion Map, and the whole way with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from momap_ros.data.sample import Role, Sample
from momap_ros.geometry import Float64
from momap_ros.momap import PointTrajectories


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/warm_start.py")


def acted(sample: Sample) -> tuple[int, Float64]:
    """The acted body that moves, and the true (P, T, 3) ways of 40 of its points."""
    (body,) = [b for b in sample.moving_bodies.tolist() if sample.body_roles[b] == Role.ACTED]
    ways = sample.momap().xyz[:, (sample.body_ids == body) & np.isfinite(sample.depth_m)]
    return body, ways[:, :40].transpose(1, 0, 2).astype(np.float64)


def trajectories(ways: Float64, body: int, step_s: float) -> PointTrajectories:
    """(N, P, T, 3) ways as a forecast."""
    count = ways.shape[1]
    pixels = np.zeros((count, 2), np.int32)
    return PointTrajectories(ways.astype(np.float32), np.full(count, body, np.int32), pixels, 128, 128, step_s)


@pytest.fixture(scope="module")
def sample(simulated: list[Sample]) -> Sample:
    """One whose acted object goes far."""
    return next(s for s in simulated if s.skill in {"pick_place", "place_on", "lift", "stack", "put_in", "pour"})


def test_true_ways_go_on_where_a_point_is_in_the_middle_of_the_motion(benchmark: ModuleType, sample: Sample) -> None:
    body, ways = acted(sample)
    assert np.linalg.norm(ways[:, -1] - ways[:, 0], axis=-1).max() > 0.02
    for now in (0, 20, 37):
        later = np.arange(1, 12) * sample.step_s
        found = benchmark.true_ways(sample, ways[:, now], body, now_s=now * sample.step_s, times_s=later)
        np.testing.assert_allclose(found, ways[:, now + 1 : now + 12], atol=1e-5)


def test_what_does_not_move_stays(benchmark: ModuleType, sample: Sample) -> None:
    points = np.array([[0.1, 0.2, 0.7]])
    found = benchmark.true_ways(sample, points, 0, now_s=1.0, times_s=np.array([0.5, 1.0]))
    np.testing.assert_array_equal(found, np.repeat(points[:, None], 2, axis=1))


def test_errors_are_those_of_the_best_and_of_all_futures(benchmark: ModuleType, sample: Sample) -> None:
    body, ways = acted(sample)
    resting = np.repeat(ways[:, :1], ways.shape[1], axis=1)
    row, end = benchmark.compared(trajectories(np.stack([ways, resting]), body, sample.step_s), sample, body, 0.0)
    assert row["best_m"] == pytest.approx(0.0, abs=1e-5)
    assert row["mean_m"] == pytest.approx(row["static_m"] / 2, abs=1e-5)
    np.testing.assert_allclose(end, ways[:, -1].mean(axis=0), atol=1e-5)
    late = sample.duration_s - sample.step_s / 2
    assert benchmark.compared(trajectories(ways[None, :, -1:], body, 1.0), sample, body, late) is None


def test_the_whole_way(
    benchmark: ModuleType, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "RATE_HZ", 0.5)
    monkeypatch.setattr(benchmark, "WIDTH", 128)
    monkeypatch.setattr(benchmark, "HEIGHT", 128)
    file = tmp_path / "warm_start.json"
    benchmark.main(["--checkpoint", str(tiny_checkpoint), "--episodes", "1", "--json", str(file)])
    frames = json.loads(file.read_text())["frames"]
    assert set(frames) == {"first", "later"}
    assert frames["first"]["warm start, 2 steps"]["continued"] == 0
    anew, warm = frames["later"]["anew, 4 steps"], frames["later"]["warm start, 2 steps"]
    assert anew["continued"] == 0
    assert warm["continued"] == warm["forecasts"] == anew["forecasts"] > 0
    # The first frame is forecast anew by both.
    assert frames["first"]["anew, 4 steps"] == frames["first"]["warm start, 2 steps"]
