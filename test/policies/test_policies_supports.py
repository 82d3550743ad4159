"""Ends beside a bowl are moved into it; everything else is left as forecast."""

from __future__ import annotations

import numpy as np
import pytest

from momap_ros.geometry import Float64, transform_points
from momap_ros.policies.contacts import Surroundings
from momap_ros.policies.supports import onto_support, supports_of

REACH_M = 0.08
BOWL = np.array([0.3, 0.2])
STEPS = 21


def cube(centre: tuple[float, float, float], half_m: float = 0.02) -> Float64:
    grid = np.stack(np.meshgrid(*[np.linspace(-half_m, half_m, 6)] * 3, indexing="ij"), axis=-1)
    return np.asarray(grid.reshape(-1, 3) + centre)


def bowl() -> Float64:
    """A ground 8 mm high, and a rim of radius 6 cm that is 4 cm high."""
    x, y = np.meshgrid(np.linspace(-0.06, 0.06, 25), np.linspace(-0.06, 0.06, 25))
    radius = np.hypot(x, y)
    height = np.where(radius > 0.05, 0.04, 0.008)
    inside = radius <= 0.06
    return np.stack([BOWL[0] + x[inside], BOWL[1] + y[inside], height[inside]], axis=1)


def seen(start: tuple[float, float, float] = (0.3, -0.1, 0.02)) -> Surroundings:
    table = np.stack([*np.meshgrid(np.linspace(0, 0.6, 30), np.linspace(-0.3, 0.4, 30)), np.zeros((30, 30))], axis=-1)
    others = np.concatenate([table.reshape(-1, 3), bowl()])
    ids = np.repeat(np.array([0, 5], np.int32), [900, len(others) - 900])
    return Surroundings(cube(start), others, other_ids=ids)


def carried_to(end_xy: tuple[float, float], start: tuple[float, float, float] = (0.3, -0.1, 0.02)) -> Float64:
    """Over an arc 10 cm high to a place at the height of the start."""
    share = np.linspace(0, 1, STEPS)
    motion = np.repeat(np.eye(4)[None], STEPS, axis=0)
    motion[:, :2, 3] = share[:, None] * (np.array(end_xy) - start[:2])
    motion[:, 2, 3] = 0.1 * np.sin(np.pi * share)
    return motion


def test_an_end_beside_a_bowl_is_put_into_it_over_its_rim() -> None:
    track = carried_to((0.36, 0.12))  # 10 cm from the bowl's middle
    way = onto_support(track, seen(), REACH_M)
    places = transform_points(way, np.array([0.3, -0.1, 0.02]))
    np.testing.assert_allclose(places[-1, :2], BOWL, atol=0.006)
    assert places[-1, 2] - 0.02 == pytest.approx(0.008 + 0.004, abs=0.003)  # its lower side just over the ground
    over = np.linalg.norm(places[:-1, :2] - BOWL, axis=1) < 0.08
    assert (places[:-1, 2][over] - 0.02 > 0.04).all()
    np.testing.assert_array_equal(way[0], np.eye(4))


@pytest.mark.parametrize("end", [(0.3, 0.19), (0.3, 0.02)])
def test_an_end_in_the_middle_or_far_away_is_left(end: tuple[float, float]) -> None:
    track = carried_to(end)
    np.testing.assert_array_equal(onto_support(track, seen(), REACH_M), track)


def test_a_goal_is_gone_to_from_anywhere_and_another_support_is_not() -> None:
    track = carried_to((0.3, 0.02))
    places = transform_points(onto_support(track, seen(), REACH_M, goal_id=5), np.array([0.3, -0.1, 0.02]))
    np.testing.assert_allclose(places[-1, :2], BOWL, atol=0.006)
    np.testing.assert_array_equal(onto_support(track, seen(), REACH_M, goal_id=4), track)
    np.testing.assert_array_equal(onto_support(track, seen(), 0.0, goal_id=5), track)


def test_what_goes_to_a_goal_is_carried_as_it_stands() -> None:
    track = carried_to((0.36, 0.12))
    turned = np.linspace(0, np.radians(45), STEPS)
    track[:, 1:3, 1:3] = [[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in turned]
    np.testing.assert_array_equal(onto_support(track, seen(), REACH_M), track)
    way = onto_support(track, seen(), REACH_M, goal_id=5)
    np.testing.assert_array_equal(way[:, :3, :3], np.repeat(np.eye(3)[None], STEPS + 1, axis=0))


def test_what_is_pushed_or_poured_is_left() -> None:
    pushed = carried_to((0.36, 0.12))
    pushed[:, 2, 3] = 0
    poured = carried_to((0.36, 0.12))
    poured[-1, :3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    for track in (pushed, poured):
        np.testing.assert_array_equal(onto_support(track, seen(), REACH_M), track)


def test_nothing_is_put_back_to_where_it_stands() -> None:
    start = (0.3, 0.2, 0.06)
    assert supports_of(seen(start), np.array(start[:2])) == []
    track = carried_to((0.38, 0.28), start)
    np.testing.assert_array_equal(onto_support(track, seen(start), REACH_M), track)


def test_without_instances_and_without_reach_nothing_changes() -> None:
    around, track = seen(), carried_to((0.36, 0.12))
    unknown = Surroundings(around.points, around.others)
    np.testing.assert_array_equal(onto_support(track, unknown, REACH_M), track)
    np.testing.assert_array_equal(onto_support(track, around, 0.0), track)
