from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.data.sample import Role
from momap_ros.simulation.checks import RayCheck, framing_leak, nearest_to_centre, ray_check, seen_objects

if TYPE_CHECKING:
    from conftest import Viewed

    from momap_ros.data.sample import Sample

CHECKED_STEPS = (0, 12, 25, 37, 49)


def checked(
    viewed: list[Viewed], steps: tuple[int, ...], *, towards_camera_m: float = 0.0, lag_steps: int = 0
) -> list[RayCheck]:
    """Rays through points of the first view of every episode; of moving bodies only, where an error is to be found."""
    rng, wrong = np.random.default_rng(0), bool(towards_camera_m or lag_steps)
    return [
        ray_check(
            item.episode,
            item.samples[0],
            steps,
            num_points=250,
            rng=rng,
            moving_only=wrong,
            towards_camera_m=towards_camera_m,
            lag_steps=lag_steps,
        )
        for item in viewed
        if not wrong or len(item.samples[0].moving_bodies)
    ]


def test_no_point_of_a_true_momap_floats_before_the_scene(viewed: list[Viewed]) -> None:
    checks = checked(viewed, CHECKED_STEPS)
    # A ray through the very edge of a body may slip past it by a rounding: about three points in a hundred thousand.
    assert np.mean([result.violation_share for result in checks]) < 1e-4
    errors = np.concatenate([result.visible_error_m for result in checks])
    assert np.median(errors) < 1e-5
    # Most points are visible: the test has teeth.
    assert len(errors) > 0.7 * sum(len(result.gap_m) for result in checks)


def test_everything_is_visible_at_the_first_step(viewed: list[Viewed]) -> None:
    assert np.mean([result.occluded_share for result in checked(viewed, (0,))]) < 0.005  # pixels on an edge


def test_a_shift_of_five_millimetres_is_caught(viewed: list[Viewed]) -> None:
    shares = [result.violation_share for result in checked(viewed, (49,), towards_camera_m=0.005)]
    assert np.mean(shares) > 0.4


def test_a_lag_of_two_steps_is_caught(viewed: list[Viewed]) -> None:
    shares = [result.violation_share for result in checked(viewed, (25,), lag_steps=2)]
    assert np.mean(shares) > 0.1


def test_other_steps_than_the_whole_motion_are_checked_in_their_own_scenes(viewed: list[Viewed]) -> None:
    from momap_ros.simulation.views import render_samples

    episode = next(item.episode for item in viewed if len(item.samples[0].moving_bodies))
    sample = render_samples(episode, 1, 128, num_steps=20, step_s=episode.rollout.duration_s / 15)[0]
    result = ray_check(episode, sample, (0, 7, 19), num_points=500, rng=np.random.default_rng(0))
    assert result.violations == 0
    assert len(result.visible_error_m) > 0.6 * 1500


@pytest.fixture
def arranged(viewed: list[Viewed]) -> Callable[..., Sample]:
    """A sample in which objects are squares of 10 pixels centred at given (row, column)."""
    base = viewed[0].samples[0]

    def arrange(**centres: tuple[int, int]) -> Sample:
        roles = (Role.WORLD, *(Role.ACTED if name == "acted" else Role.OBJECT for name in centres), Role.ROBOT)
        ids = np.zeros((128, 128), np.uint8)
        ids[60:68, 60:68] = len(roles) - 1  # the robot is in the very middle, and does not count
        for body, (row, column) in enumerate(centres.values(), start=1):
            ids[row - 5 : row + 5, column - 5 : column + 5] = body
        names = tuple(str(index) for index in range(len(roles)))
        return replace(base, body_ids=ids, body_roles=roles, body_names=names, contacts=())

    return arrange


def test_the_object_nearest_to_the_centre_is_found(arranged: Callable[..., Sample]) -> None:
    sample = arranged(a=(20, 20), b=(80, 64), acted=(100, 64))
    assert seen_objects(sample) == [1, 2, 3]
    assert nearest_to_centre(sample) == 2
    assert nearest_to_centre(arranged()) == -1


def test_a_framing_that_tells_is_caught_and_one_that_does_not_is_not(arranged: Callable[..., Sample]) -> None:
    central = arranged(a=(20, 20), b=(20, 64), acted=(80, 64))
    peripheral = arranged(a=(80, 64), b=(20, 64), acted=(20, 20))
    telling, fair = framing_leak([central] * 30), framing_leak([central] * 10 + [peripheral] * 20)
    assert (telling.hits, telling.count) == (30, 30)
    assert telling.expected == pytest.approx(10)
    assert telling.excess == pytest.approx(2 / 3)
    assert telling.standard_error == pytest.approx(np.sqrt(2 / 9 / 30))
    assert fair.excess == pytest.approx(0)
    assert framing_leak([arranged(a=(20, 20), acted=(80, 64))]).count == 0  # two objects are too few
    assert framing_leak([arranged(a=(20, 20), b=(20, 64), c=(80, 64))]).count == 0  # nothing is acted on


def test_the_framing_does_not_tell_which_object_will_move(
    viewed: list[Viewed], record_property: Callable[[str, object], None]
) -> None:
    about_objects = [sample for item in viewed if item.episode.scene.fixture is None for sample in item.samples]
    leak = framing_leak(about_objects)
    record_property("nearest to the centre is acted", f"{leak.excess:+.3f} above chance, {leak.count} views")
    assert leak.count >= 30
    # So few views have a standard error of 6 points; benchmarks measure with more of them.
    assert leak.excess < 0.05 + 1.5 * leak.standard_error
