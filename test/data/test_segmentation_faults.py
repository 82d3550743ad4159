"""Drawn segmentation faults, measured by the benchmark that measured the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from momap_ros.data.sample import Role, Sample, write_shard
from momap_ros.data.segmentation_faults import (
    RoleRates,
    SegmentationRates,
    faulty_instances,
    neighbours,
    outside_px,
)
from momap_ros.geometry import PinholeCamera

NO_FAULTS = SegmentationRates(
    objects=RoleRates(),
    robot=RoleRates(),
    fixtures=RoleRates(),
    nothing=0,
    invented=0,
    smallest_px=0,
    shift_px=0,
    shift_spread_px=0,
    roughness_px=0,
)
ROBOT, FIXTURE, DRAWER, FIRST, SECOND = 1, 4, 5, 6, 7


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/segmentation_faults.py")


@pytest.fixture(scope="module")
def sample() -> Sample:
    """A robot of three links, a cabinet with a drawer, and two objects that touch; nothing else touches."""
    ids = np.zeros((192, 256), np.uint8)
    ids[10:40, 10:30], ids[40:70, 10:30], ids[70:100, 10:30] = 1, 2, 3
    ids[20:60, 120:200], ids[60:80, 120:200] = FIXTURE, DRAWER
    ids[120:160, 80:120], ids[120:160, 120:160] = FIRST, SECOND
    names = ("world", "base", "arm", "hand", "cabinet", "drawer", "red block", "blue can", "mocap")
    roles = [Role.WORLD, *[Role.ROBOT] * 3, Role.FIXTURE, Role.OBJECT, Role.ACTED, Role.OBJECT, Role.HIDDEN]
    return Sample(
        key="val_0000000_0",
        split="val",
        skill="push",
        kind="block",
        text="push the block",
        rgb=np.zeros((192, 256, 3), np.uint8),
        depth_m=np.ones((192, 256), np.float32),
        body_ids=ids,
        camera=PinholeCamera(256, 192, 250.0, 250.0, 127.5, 95.5),
        camera_from_world=np.eye(4),
        body_names=names,
        body_roles=tuple(roles),
        moving_bodies=np.array([FIRST], np.uint8),
        motion_t_from_0=np.tile(np.eye(3, 4, dtype=np.float32), (5, 1, 1, 1)),
        duration_s=2.0,
    )


def test_without_faults_the_instances_are_the_true_ones(sample: Sample) -> None:
    drawn, true = faulty_instances(sample, np.random.default_rng(0), NO_FAULTS), sample.instance_map(merge_robot=True)
    np.testing.assert_array_equal(drawn.ids, true.ids)
    assert drawn.labels == {1: "robot", 4: "cabinet", 5: "drawer", 6: "red block", 7: "blue can"}


def test_equal_seeds_give_equal_bytes(sample: Sample) -> None:
    first, again, other = (faulty_instances(sample, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.ids.tobytes() == again.ids.tobytes() != other.ids.tobytes()
    assert first.labels == again.labels


def test_drawn_faults_are_as_frequent_as_asked_for(sample: Sample, benchmark: ModuleType) -> None:
    """The benchmark that measures the segmenter must find in drawn maps the rates they were drawn with."""
    rates = replace(
        NO_FAULTS,
        objects=RoleRates(miss=0.1, split=0.15, merge=0.2),
        robot=RoleRates(miss=0.2, split=0.3),
        fixtures=RoleRates(miss=0.05, split=0.1, merge=0.4),
        nothing=0.1,
        invented=0.5,
        invented_px=900,
        smallest_px=100,
    )
    tally, rng = benchmark.Tally(), np.random.default_rng(0)
    for _ in range(120):
        tally.add(faulty_instances(sample, rng, rates).ids, sample)
    found = tally.summary()
    assert found["images"] == 120
    assert found["nothing"] == pytest.approx(0.1, abs=0.045)
    assert found["robot_missed"] == pytest.approx(0.2, abs=0.06)
    assert found["robot_split"] == pytest.approx(0.3, abs=0.07)
    assert found["objects_missed"] == pytest.approx(0.1, abs=0.04)
    # A merged pair that is then lost is no longer merged; one that is cut may be, where the cut leaves most of both.
    assert 0.2 * 0.75 - 0.06 < found["objects_merged"] < 0.2 * 0.9 + 0.06
    assert 0.4 * 0.85 - 0.08 < found["fixtures_merged"] < 0.4 * 0.95 + 0.08
    assert found["robot_merged_of"] == 0
    assert found["invented"] == pytest.approx(0.5, abs=0.11)
    assert found["invented_px"] == pytest.approx(900, rel=0.25)


def test_boundaries_move_as_far_as_asked_for(sample: Sample, benchmark: ModuleType) -> None:
    """4 pixels of an image 640 wide are 1.6 here, so 2 after rounding to whole ones, or 5 of an image 640 wide."""
    for shift_px, expected_px in ((4.0, 5.0), (-4.0, -5.0), (0.0, 0.0)):
        drawn = faulty_instances(sample, np.random.default_rng(0), replace(NO_FAULTS, shift_px=shift_px))
        true = sample.body_ids == FIRST
        offsets = benchmark.boundary_offsets_px(true, drawn.ids == FIRST)  # one side in four borders on a neighbour
        assert np.median(offsets) == pytest.approx(expected_px, abs=0.6)
    rough = faulty_instances(sample, np.random.default_rng(0), replace(NO_FAULTS, roughness_px=5.0))
    changed = rough.ids != sample.instance_map(merge_robot=True).ids
    assert 0.005 < changed.mean() < 0.1
    near = np.min([np.abs(outside_px(sample.body_ids == body)) for body in range(1, 8)], axis=0)
    assert near[changed].max() < 12 * 256 / 640
    assert not (rough.ids[sample.body_ids == SECOND] == FIRST).any()  # grows over the background alone


def test_robots_split_between_links(sample: Sample) -> None:
    rates = replace(NO_FAULTS, robot=RoleRates(split=1))
    for seed in range(5):
        ids = faulty_instances(sample, np.random.default_rng(seed), rates).ids
        parts = [set(np.unique(ids[sample.body_ids == link])) for link in (1, 2, 3)]
        assert all(len(part) == 1 for part in parts)
        assert len(set.union(*parts)) == 2


def test_merges_join_neighbours_under_the_id_of_the_larger(sample: Sample) -> None:
    rates = replace(NO_FAULTS, fixtures=RoleRates(merge=1))
    drawn = faulty_instances(sample, np.random.default_rng(0), rates)
    assert (drawn.ids[20:80, 120:200] == FIXTURE).all()
    assert DRAWER not in drawn.labels
    assert {ROBOT, FIRST, SECOND} < set(drawn.labels)


def test_small_instances_are_never_found(sample: Sample) -> None:
    area_px = 40 * 40 * (640 / 256) ** 2
    kept, lost = (
        faulty_instances(sample, np.random.default_rng(0), replace(NO_FAULTS, smallest_px=limit)).areas_px
        for limit in (area_px - 10, area_px + 10)
    )
    assert FIRST in kept
    assert FIRST not in lost
    assert FIXTURE in lost


def test_neighbours_are_near_along_rows_or_columns() -> None:
    ids = np.zeros((10, 10), np.int32)
    ids[2, 2], ids[2, 4], ids[7, 4] = 5, 3, 9
    assert neighbours(ids, 2) == [(3, 5)]
    assert neighbours(ids, 5) == [(3, 9)]
    assert neighbours(np.zeros((4, 4), np.int32), 1) == []


def test_the_distance_from_a_boundary_is_that_of_pixel_centres() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[:, 10:] = True
    np.testing.assert_allclose(outside_px(mask)[10], np.arange(20) * -1.0 + 9.5, atol=1e-3)


def test_the_benchmark_runs_and_writes_its_figures(sample: Sample, tmp_path: Path, repository: Path) -> None:
    write_shard(tmp_path / "val-0000000-0000001.tar", [sample])
    out = tmp_path / "figures.json"
    command = [sys.executable, str(repository / "benchmarks" / "segmentation_faults.py"), "--data", str(tmp_path)]
    done = subprocess.run(
        [*command, "--of-generator", "--sensors", "zed_2", "--json", str(out)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(repository)},
    )
    assert "| robot_split |" in done.stdout
    assert out.is_file()


def test_the_defaults_are_the_measured_figures(repository: Path) -> None:
    path = repository / "benchmarks" / "results" / "data" / "segmentation_faults.json"
    measured = json.loads(path.read_text(encoding="utf-8"))["sensors"]["all"]
    rates = SegmentationRates()
    for role in ("objects", "robot", "fixtures"):
        drawn = getattr(rates, role)
        assert drawn.miss == pytest.approx(measured[f"{role}_missed"], abs=0.006)
        assert drawn.split == pytest.approx(measured[f"{role}_split"], abs=0.006)
        pairs = measured[f"{role}_merged_of"]
        assert drawn.merge == pytest.approx((measured[f"{role}_merged"] * pairs + 1) / (pairs + 2), abs=0.002)
    for name in ("nothing", "invented", "shift_px", "shift_spread_px", "roughness_px"):
        assert getattr(rates, name) == pytest.approx(measured[name], abs=0.03)
    assert rates.invented_px == pytest.approx(measured["invented_px"], abs=1)
