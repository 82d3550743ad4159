from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.simulation.checks import RayCheck, cast_rays
from momap_ros.simulation.views import NUM_STEPS

if TYPE_CHECKING:
    from conftest import Viewed

CHECKED_STEPS = (0, 12, 25, 37, 49)


def check(
    item: Viewed, step: int, *, state_step: int | None = None, offset_m: float = 0.0, count: int = 250
) -> RayCheck:
    """Rays through moving and resting points of the first view at `step`, in the scene of `state_step`."""
    sample, episode = item.samples[0], item.episode
    rng = np.random.default_rng(step)
    moving = np.flatnonzero(np.isin(sample.body_ids, sample.moving_bodies))
    chosen = rng.choice(moving, min(count, len(moving)), replace=False)
    if offset_m == 0.0 and state_step is None:
        chosen = np.append(chosen, rng.choice(sample.body_ids.size, count, replace=False))
    points = sample.momap().xyz[step].reshape(-1, 3)[chosen] - np.array([0, 0, offset_m])
    data = mujoco.MjData(episode.scene.model)
    episode.restore(data, episode.state_indices(NUM_STEPS)[step if state_step is None else state_step])
    return cast_rays(episode.scene.model, data, points, sample.camera_from_world)


def moving(viewed: list[Viewed]) -> list[Viewed]:
    """Where nothing moves, a lag changes nothing."""
    return [item for item in viewed if len(item.samples[0].moving_bodies)]


def test_no_point_of_a_true_momap_floats_before_the_scene(viewed: list[Viewed]) -> None:
    checks = [check(item, step) for item in viewed for step in CHECKED_STEPS]
    # A ray through the very edge of a body may slip past it by a rounding: about three points in a hundred thousand.
    assert np.mean([result.violation_share for result in checks]) < 1e-4
    errors = np.concatenate([result.visible_error_m for result in checks])
    assert np.median(errors) < 1e-5
    assert len(errors) > 0.7 * sum(
        len(result.gap_m) for result in checks
    )  # most points are visible, the test has teeth


def test_everything_is_visible_at_the_first_step(viewed: list[Viewed]) -> None:
    assert np.mean([check(item, 0).occluded_share for item in viewed]) < 0.005  # pixels on an edge


def test_a_shift_of_five_millimetres_is_caught(viewed: list[Viewed]) -> None:
    shares = [check(item, 49, offset_m=0.005).violation_share for item in moving(viewed)]
    assert np.mean(shares) > 0.4


def test_a_lag_of_two_steps_is_caught(viewed: list[Viewed]) -> None:
    shares = [check(item, 25, state_step=27).violation_share for item in moving(viewed)]
    assert np.mean(shares) > 0.1
