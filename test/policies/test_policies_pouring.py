"""A vessel that stays beside its goal in the air is poured into it; what is put down, or is no vessel, is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.geometry import Float64, transform_points
from momap_ros.policies.contacts import Surroundings
from momap_ros.policies.pouring import poured

BOWL, RIM_M, RIM_RADIUS_M = np.array([0.35, 0.15]), 0.04, 0.06
START = np.array([0.35, -0.15])
STEPS = 31


def vessel(height_m: float = 0.1) -> Float64:
    """A square column of 4 cm."""
    across, up = np.linspace(-0.02, 0.02, 5), np.linspace(0.0, height_m, 11)
    return np.stack(np.meshgrid(START[0] + across, START[1] + across, up, indexing="ij"), axis=-1).reshape(-1, 3)


def seen(points: Float64) -> Surroundings:
    """A bowl beside it: a ground 8 mm high, and a rim."""
    x, y = np.meshgrid(np.linspace(-RIM_RADIUS_M, RIM_RADIUS_M, 25), np.linspace(-RIM_RADIUS_M, RIM_RADIUS_M, 25))
    radius = np.hypot(x, y)
    inside = radius <= RIM_RADIUS_M
    height = np.where(radius > RIM_RADIUS_M - 0.01, RIM_M, 0.008)
    bowl = np.stack([BOWL[0] + x, BOWL[1] + y, height], axis=-1)[inside]
    return Surroundings(points, bowl, other_ids=np.full(len(bowl), 7, np.int32))


def carried(short_m: float, above_rim_m: float) -> Float64:
    """Raised by 10 cm on the way, to so far short of the bowl's middle and above its rim."""
    share = np.linspace(0, 1, STEPS)
    motion = np.repeat(np.eye(4)[None], STEPS, axis=0)
    motion[:, 1, 3] = share * (BOWL[1] - START[1] - short_m)
    motion[:, 2, 3] = np.maximum(0.1 * np.sin(np.pi * share), share * (RIM_M + above_rim_m))
    return motion


@pytest.mark.parametrize(("short_m", "above_rim_m"), [(0.06, 0.02), (0.0, 0.03), (0.04, -0.005)])
def test_the_mouth_is_brought_over_the_dish_and_tilted_and_the_vessel_set_up_again(
    short_m: float, above_rim_m: float
) -> None:
    points = vessel()
    way = poured(carried(short_m, above_rim_m), seen(points), 7)
    assert way is not None
    np.testing.assert_allclose(way[0], np.eye(4), atol=1e-9)
    tilt = np.arccos(np.clip(way[:, 2, 2], -1, 1))
    most = int(tilt.argmax())
    assert tilt[most] == pytest.approx(1.75)
    mouth = transform_points(way[most], np.array([*START, 0.1]))
    np.testing.assert_allclose(mouth[:2], BOWL, atol=0.004)
    lowest_m = transform_points(way[most], points)[:, 2].min()
    assert mouth[2] > RIM_M
    assert lowest_m > RIM_M  # no side of it dips into the dish
    axis = Rotation.from_matrix(way[most, :3, :3]).as_rotvec() / 1.75
    outwards = np.array([*BOWL, 0.0]) / np.linalg.norm(BOWL)
    assert abs(axis @ outwards) == pytest.approx(1.0, abs=1e-6)  # to the side: the wrist rolls
    np.testing.assert_allclose(way[-1, :3, :3], np.eye(3), atol=1e-9)
    over = np.linalg.norm(transform_points(way, np.array([*START, 0.05]))[:, :2] - BOWL, axis=1) < RIM_RADIUS_M
    for motion in way[over & (tilt < 0.01)]:
        assert transform_points(motion, points)[:, 2].min() > RIM_M


def test_what_is_put_down_is_not_poured() -> None:
    assert poured(carried(0.0, -0.03), seen(vessel()), 7) is None  # on the ground of the bowl
    assert poured(carried(0.06, -0.04), seen(vessel()), 7) is None  # on the table, beside it
    assert poured(carried(-0.05, 0.03), seen(vessel()), 7) is None  # beyond it
    low = carried(0.06, 0.0)
    low[:-1, 2, 3] += 0.1  # lowered at the end, from so high that its end is low
    assert poured(low, seen(vessel()), 7) is None


def test_what_is_no_vessel_or_goes_nowhere_is_not_poured() -> None:
    track = carried(0.06, 0.02)
    assert poured(track, seen(vessel(0.03)), 7) is None  # a flat thing
    assert poured(track, seen(vessel()), 0) is None
    assert poured(track, seen(vessel()), 8) is None  # nothing of that number is seen
    assert poured(track[:3], seen(vessel()), 7) is None  # two steps
