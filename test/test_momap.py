from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from momap_ros.geometry import Float32
from momap_ros.momap import MoMap, PointTrajectories, direction_flags
from momap_ros.shapes import ShapeError

STEPS, HEIGHT, WIDTH = 5, 4, 6


@pytest.fixture
def momap() -> MoMap:
    """Pixel (1, 2) moves 10 cm to the right; pixel (3, 0) goes 6 cm up and comes back; pixel (0, 0) is unknown."""
    xyz = np.repeat(np.random.default_rng(0).uniform(0.5, 1.0, (1, HEIGHT, WIDTH, 3)), STEPS, axis=0).astype(np.float32)
    xyz[:, 1, 2, 0] += np.linspace(0.0, 0.1, STEPS, dtype=np.float32)
    xyz[:, 3, 0, 1] -= np.array([0.0, 0.03, 0.06, 0.03, 0.0], np.float32)
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[0, 0] = False
    xyz[:, 0, 0] = np.nan
    return MoMap(xyz, valid, 0.2, "camera", 1_700_000_000_123_456_789)


def test_displacement_starts_at_zero(momap: MoMap) -> None:
    np.testing.assert_array_equal(momap.displacement_m[0][momap.valid], 0.0)
    np.testing.assert_allclose(momap.displacement_m[-1, 1, 2], [0.1, 0.0, 0.0], atol=1e-6)
    assert np.isnan(momap.displacement_m[:, 0, 0]).all()


@pytest.mark.parametrize(("threshold_m", "moving"), [(0.05, [(1, 2), (3, 0)]), (0.08, [(1, 2)]), (0.2, [])])
def test_moving_is_what_was_ever_far_from_its_start(
    momap: MoMap, threshold_m: float, moving: list[tuple[int, int]]
) -> None:
    assert [tuple(pixel) for pixel in np.argwhere(momap.moving_mask(threshold_m)).tolist()] == moving


def test_saving_and_loading_give_the_same_back(momap: MoMap, tmp_path: Path) -> None:
    momap.save(tmp_path / "deep" / "scene.npz")

    loaded = MoMap.load(tmp_path / "deep" / "scene.npz")

    np.testing.assert_array_equal(loaded.xyz, momap.xyz)
    np.testing.assert_array_equal(loaded.valid, momap.valid)
    assert loaded.xyz.dtype == momap.xyz.dtype
    assert (loaded.step_s, loaded.frame_id, loaded.stamp_ns) == (0.2, "camera", 1_700_000_000_123_456_789)


def test_names_with_dots_keep_them(momap: MoMap, tmp_path: Path) -> None:
    momap.save(tmp_path / "run.1")
    momap.save(tmp_path / "run.2")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.1.npz", "run.2.npz"]


def test_damaged_files_are_named_whatever_is_wrong_with_them(momap: MoMap, tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    momap.save(path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for trial in range(120):
        damaged = bytearray(whole[: generator.integers(len(whole))] if trial % 2 else whole)
        for position in generator.integers(0, max(len(damaged), 1), 5 if trial % 2 == 0 else 0):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            MoMap.load(path)
        except ValueError:  # anything else fails the test
            refused += 1
    assert refused > 60


def test_files_of_other_kinds_are_named(momap: MoMap, tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", momap.xyz)
    np.savez(tmp_path / "other.npz", xyz=momap.xyz)
    np.savez(tmp_path / "part.npz", format=np.array("momap/1"), xyz=momap.xyz)
    np.savez(tmp_path / "future.npz", format=np.array("momap/9"))

    for name, text in {
        "missing.npz": "could not read it",
        "array.npy": r"expected a MoMap file \(\.npz, momap/1\), could not read it",
        "other.npz": "expected format 'momap/1', got None",
        "future.npz": "expected format 'momap/1', got momap/9",
        "part.npz": r"got one without \['frame_id', 'stamp_ns', 'step_s', 'valid'\]",
    }.items():
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name)) + ".*" + text):
            MoMap.load(tmp_path / name)


def test_pickled_content_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", format=np.array("momap/1"), xyz=np.array([{"a": 1}], dtype=object))

    with pytest.raises(ValueError, match="could not read it: Object arrays cannot be loaded"):
        MoMap.load(tmp_path / "evil.npz")


def test_wrong_momaps_are_named(momap: MoMap) -> None:
    with pytest.raises(ShapeError, match=r"valid: expected \(H, W\), got \(4, 5\); axis W must be 6"):
        replace(momap, valid=momap.valid[:, 1:])
    with pytest.raises(ValueError, match="expected xyz float32 and valid bool, got float64 and bool"):
        replace(momap, xyz=momap.xyz.astype(np.float64))
    for step_s in (0.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=f"step_s: expected positive seconds, got {step_s}"):
            replace(momap, step_s=step_s)


def trajectories(positions: Float32) -> PointTrajectories:
    points = positions.shape[1]
    return PointTrajectories(positions, np.zeros(points, np.int32), np.zeros((points, 2), np.int32), WIDTH, HEIGHT, 0.2)


def test_counts_of_trajectories() -> None:
    result = trajectories(np.zeros((3, 7, STEPS, 3), np.float32))

    assert (result.num_hypotheses, result.num_points, result.num_steps) == (3, 7, STEPS)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_trajectories_of_a_momap_follow_its_pixels(momap: MoMap, stride: int) -> None:
    ids = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)

    sparse = PointTrajectories.from_momap(momap, ids, stride=stride)

    grid = momap.valid[::stride, ::stride]
    assert sparse.positions.shape == (1, grid.sum(), STEPS, 3)
    for index, (u, v) in enumerate(sparse.pixels):
        assert momap.valid[v, u]
        assert (u % stride, v % stride) == (0, 0)
        np.testing.assert_array_equal(sparse.positions[0, index], momap.xyz[:, v, u])
        assert sparse.object_ids[index] == ids[v, u]
    assert (sparse.image_width, sparse.image_height) == (WIDTH, HEIGHT)
    assert (sparse.step_s, sparse.frame_id, sparse.stamp_ns) == (momap.step_s, momap.frame_id, momap.stamp_ns)
    assert sparse.positions.flags.c_contiguous


def test_wrong_trajectories_are_named(momap: MoMap) -> None:
    good = trajectories(np.zeros((2, 7, STEPS, 3), np.float32))
    with pytest.raises(ShapeError, match=r"object_ids: expected \(P\), got \(6,\); axis P must be 7"):
        replace(good, object_ids=np.zeros(6, np.int32))
    with pytest.raises(ShapeError, match=r"confidence: expected \(N, P\), got \(1, 7\); axis N must be 2"):
        replace(good, confidence=np.zeros((1, 7), np.float32))
    with pytest.raises(ShapeError, match="axis 2 must be 2"):
        replace(good, pixels=np.zeros((7, 3), np.int32))
    with pytest.raises(ValueError, match="step_s"):
        replace(good, step_s=0.0)
    with pytest.raises(ShapeError, match="axis W must be 6"):
        PointTrajectories.from_momap(momap, np.zeros((HEIGHT, WIDTH + 1), np.int32), stride=1)


def test_flags_of_known_displacements() -> None:
    displacement_m = np.array([[0.03, -0.05, 0.01], [-0.02, 0.0, np.nan], [0.0199, 1.0, -0.02]])

    flags = direction_flags(displacement_m, 0.02)

    np.testing.assert_array_equal(flags, [[1, -1, 0], [-1, 0, 0], [0, 1, -1]])
    assert flags.dtype == np.int8


def test_flags_turn_with_the_displacement_and_ignore_its_length() -> None:
    displacement_m = np.random.default_rng(0).normal(size=(4, 5, 3))

    flags = direction_flags(displacement_m, 0.1)

    np.testing.assert_array_equal(direction_flags(-displacement_m, 0.1), -flags)
    np.testing.assert_array_equal(direction_flags(10 * displacement_m, 1.0), flags)
    assert flags.shape == (4, 5, 3)
