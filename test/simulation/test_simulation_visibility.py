from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.data.sample import Sample, read_shard, write_shard
from momap_ros.geometry import Float64, invert_se3, project, transform_points
from momap_ros.simulation.camera_paths import CARRIED, camera_path
from momap_ros.simulation.cameras import View
from momap_ros.simulation.checks import RAY_TOLERANCE_M, cast_rays
from momap_ros.simulation.stage import Stage, open_stage
from momap_ros.simulation.views import render_samples, with_visible

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Viewed

STEPS = (0, 3, 6, 9)
NUM_STEPS = 10


@pytest.fixture(scope="module")
def stages(viewed: list[Viewed]) -> Iterator[list[tuple[Stage, Sample]]]:
    found = []
    for item in [item for item in viewed if len(item.samples[0].moving_bodies)][:6]:
        sample = render_samples(item.episode, 1, 128, num_steps=NUM_STEPS)[0]
        found.append((open_stage(item.episode, 128, 128, num_steps=NUM_STEPS), sample))
    yield found
    for stage, _ in found:
        stage.renderer.close()


def agreement(stage: Stage, sample: Sample, poses: list[Float64]) -> tuple[float, float, float]:
    """Shares of points on moving bodies that rays find as told, seen although told hidden, and the opposite."""
    assert sample.visible is not None
    moving = np.flatnonzero(np.isin(sample.body_ids, sample.moving_bodies))
    xyz, rng, told, true = sample.momap().xyz, np.random.default_rng(0), [], []
    for step in STEPS:
        chosen = rng.choice(moving, 200)
        camera_from_world = invert_se3(poses[step])
        points = transform_points(camera_from_world @ poses[0], xyz[step].reshape(-1, 3)[chosen].astype(np.float64))
        stage.episode.restore(stage.data, stage.states[step])
        gap = cast_rays(stage.episode.scene.model, stage.data, points, camera_from_world).gap_m
        uv = project(points, sample.camera)
        inside = ((uv >= -0.5) & (uv < sample.camera.width - 0.5)).all(axis=1)
        true.append(inside & (gap > -RAY_TOLERANCE_M))
        told.append(sample.visible[step].reshape(-1)[chosen])
    stage.episode.restore(stage.data, 0)
    seen, expected = np.array(told), np.array(true)
    return float((seen == expected).mean()), float((~seen & expected).mean()), float((seen & ~expected).mean())


def test_rays_find_what_is_told_to_be_seen(stages: list[tuple[Stage, Sample]]) -> None:
    results = []
    for stage, sample in stages:
        view = View(sample.camera, invert_se3(sample.camera_from_world))
        results.append(agreement(stage, with_visible(stage, sample, view), [view.world_from_camera] * NUM_STEPS))
    agreed, missed, invented = np.mean(results, axis=0)
    assert agreed > 0.975  # 98.3 % over 25 episodes; the rest lie within half a pixel of an outline
    assert abs(missed - invented) < 0.02


def test_rays_from_a_moving_camera_find_what_it_is_told_to_see(stages: list[tuple[Stage, Sample]]) -> None:
    results = []
    for stage, sample in stages:
        start = View(sample.camera, invert_se3(sample.camera_from_world))
        times_s = np.arange(NUM_STEPS, dtype=np.float64)
        poses = list(camera_path(start.world_from_camera, CARRIED, times_s, np.random.default_rng(2)))
        seen = with_visible(stage, sample, *(replace(start, world_from_camera=pose) for pose in poses))
        results.append(agreement(stage, seen, poses))
        fixed = with_visible(stage, sample, start)
        assert seen.visible is not None
        assert fixed.visible is not None
        np.testing.assert_array_equal(seen.visible[0], fixed.visible[0])
        assert (seen.visible[-1] != fixed.visible[-1]).mean() > 0.01
    assert np.mean(results, axis=0)[0] > 0.95  # the camera sees new sides, with more outlines


def test_everything_is_seen_at_first_and_something_is_hidden_later(stages: list[tuple[Stage, Sample]]) -> None:
    hidden = []
    for stage, sample in stages:
        view = View(sample.camera, invert_se3(sample.camera_from_world))
        visible = with_visible(stage, sample, view).visible
        assert visible is not None
        assert visible.shape == (NUM_STEPS, 128, 128)
        assert visible[0].all()
        hidden.append(1 - visible[1:].mean())
    assert 0.005 < np.mean(hidden) < 0.4


def test_visibility_survives_its_shard(viewed: list[Viewed], tmp_path: Path) -> None:
    sample = render_samples(viewed[1].episode, 1, 64, num_steps=5, with_visibility=True)[0]
    write_shard(tmp_path / "one.tar", [sample])
    stored = next(iter(read_shard(tmp_path / "one.tar"))).visible
    assert stored is not None
    assert sample.visible is not None
    np.testing.assert_array_equal(stored, sample.visible)
