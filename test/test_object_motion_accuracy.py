"""benchmarks/object_motion_accuracy.py: its figures against numbers computed by hand, and what is committed of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.articulation import PointSpread, fit_articulation
from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.momap import PointTrajectories

POINTS = np.array([0.0, 0.1, 0.8]) + np.random.default_rng(0).uniform(-0.05, 0.05, (200, 3))


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/object_motion_accuracy.py")


def hinge(end_rad: float, axis: Float64, point: Float64) -> Float64:
    rotations = Rotation.from_rotvec(np.linspace(0.0, end_rad, 11)[:, None] * axis).as_matrix()
    return se3_from_parts(rotations, point - rotations @ point)


def test_errors_of_a_shifted_and_turned_end(benchmark: ModuleType) -> None:
    body, truth = PointSpread.of(POINTS), np.tile(np.eye(4), (11, 1, 1))
    shifted, turned = truth.copy(), hinge(0.3, np.array([0.0, 0.0, 1.0]), body.centroid)
    shifted[1:, 0, 3] = 0.02

    case = benchmark.Case(1, "cup", "none", body, truth)

    assert benchmark.error_of(shifted, case) == pytest.approx({"points_mm": 20.0, "end_mm": 20.0, "end_deg": 0.0})
    errors = benchmark.error_of(turned, case)
    assert errors["end_mm"] == pytest.approx(0.0, abs=1e-9)
    assert errors["end_deg"] == pytest.approx(np.degrees(0.3))


def test_axes_are_compared_with_the_truth(benchmark: ModuleType) -> None:
    body, axis, point = PointSpread.of(POINTS), np.array([0.0, 0.6, 0.8]), np.array([0.1, 0.1, 0.7])
    case = benchmark.Case(1, "door", "revolute", body, hinge(-1.2, axis, point))
    tilted = Rotation.from_rotvec([0.05, 0.0, 0.0]).apply(axis)
    shift = np.array([0.03, 0.0, 0.0])  # across the axis

    found = fit_articulation(
        hinge(1.2, tilted, point + shift), body, min_travel_m=0.01, tolerance_m=0.002, tolerance_share=0.05
    )
    errors = benchmark.axis_errors(found, case)

    assert errors["axis_deg"] == pytest.approx(np.degrees(0.05), abs=1e-6)
    # Apart by 3 cm at one place; at the centroid's height by the tilt times a lever of 13 cm more or less.
    assert errors["axis_mm"] == pytest.approx(30.0, abs=0.05 * 130)


def test_spoilt_points_are_left_behind_on_one_side(benchmark: ModuleType) -> None:
    path = POINTS[:, None] + np.linspace(0.0, 0.2, 11)[:, None] * np.array([0.0, 1.0, 0.0])
    ids, pixels = np.ones(200, np.int32), np.zeros((200, 2), np.int32)
    exact = PointTrajectories(path[None].astype(np.float32), ids, pixels, 64, 48, 0.1)

    spoilt = benchmark.spoilt(exact, np.random.default_rng(0)).positions[0]

    travelled = np.linalg.norm(spoilt[:, -1] - spoilt[:, 0], axis=1)
    assert (travelled < 0.1).sum() == 200 * benchmark.OUTLIER_SHARE
    np.testing.assert_array_equal(spoilt[:, 0], exact.positions[0, :, 0])
    moving = travelled > 0.1
    noise = spoilt[moving, 1:] - exact.positions[0, moving, 1:]
    # 3600 numbers: the estimate of a standard deviation is good to 1.2 %.
    assert noise.std() == pytest.approx(benchmark.NOISE_M, rel=0.06)


def test_what_is_committed_is_one_report(benchmark: ModuleType, repository: Path) -> None:
    folder = repository / "benchmarks/results/object_motion"
    report = json.loads((folder / "object_motion.json").read_text(encoding="utf-8"))

    assert benchmark.markdown(report) == (folder / "object_motion.md").read_text(encoding="utf-8")
    assert report["format"] == "momap-object-motion/1"
    assert report["commit"]
    assert not report["commit"].endswith("-dirty")
    for source, table in report["joints"].items():
        assert sum(sum(told.values()) for told in table.values()) == report["objects"], source
