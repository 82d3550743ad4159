"""What gets nowhere is turned where it is, or stood up; strokes stay on the table; all else is left as forecast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.geometry import Float64, transform_points
from momap_ros.policies.contacts import Surroundings
from momap_ros.policies.in_place import in_place, path_lengths_m, to_and_fro

CENTRE = np.array([0.3, -0.1, 0.02])
STEPS = 50


def standing(lowest_m: float = 0.0) -> Surroundings:
    """A cube of 4 cm."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.02, 0.02, 4)] * 3, indexing="ij"), axis=-1)
    return Surroundings(grid.reshape(-1, 3) + CENTRE + [0, 0, lowest_m], np.zeros((0, 3)))


def moved(path: Float64) -> Float64:
    motion = np.repeat(np.eye(4)[None], len(path), axis=0)
    motion[:, :3, 3] = path
    return motion


def straight(*end: float) -> Float64:
    return moved(np.linspace(0, 1, STEPS)[:, None] * np.array(end))


def strokes(raised_m: float = 0.02) -> Float64:
    share = np.linspace(0, 1, STEPS)
    return np.stack([0.05 * np.sin(6 * np.pi * share), 0 * share, raised_m * share], axis=1)


def test_what_gets_nowhere_is_turned_by_a_quarter_about_its_middle() -> None:
    way = in_place(straight(0.02, 0.0, 0.005), standing())
    places = transform_points(way, CENTRE)
    np.testing.assert_allclose(places, np.broadcast_to(CENTRE, places.shape), atol=1e-12)
    np.testing.assert_allclose(way[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(Rotation.from_matrix(way[-1, :3, :3]).as_rotvec(), [0, 0, np.pi / 2], atol=1e-12)


@pytest.mark.parametrize(("angle", "expected"), [(0.7, np.pi / 2), (-0.7, -np.pi / 2), (0.05, np.pi / 2)])
def test_what_is_forecast_to_turn_a_little_is_turned_that_way(angle: float, expected: float) -> None:
    motion = moved(np.zeros((STEPS, 3)))
    motion[:, :3, :3] = Rotation.from_rotvec(np.linspace(0, angle, STEPS)[:, None] * [0.2, 0, 0.98]).as_matrix()
    motion[:, :3, 3] = CENTRE - motion[:, :3, :3] @ CENTRE
    way = in_place(motion, standing())
    np.testing.assert_allclose(Rotation.from_matrix(way[-1, :3, :3]).as_rotvec(), [0, 0, expected], atol=1e-12)


def test_strokes_stay_at_their_height_and_are_not_turned() -> None:
    motion = moved(strokes())
    motion[:, :3, :3] = Rotation.from_rotvec(np.linspace(0, 0.2, STEPS)[:, None] * [1, 0, 0]).as_matrix()
    motion[:, :3, 3] += CENTRE - motion[:, :3, :3] @ CENTRE
    way = in_place(motion, standing())
    np.testing.assert_allclose(way, moved(strokes(raised_m=0.0)), atol=1e-12)


@pytest.mark.parametrize("panel", ["seen", "hidden"])
def test_a_knob_is_turned_about_the_normal_of_what_it_is_on(panel: str) -> None:
    knob = standing(lowest_m=0.06)
    lean = Rotation.from_rotvec([0, 0.6, 0]).as_matrix()
    plate = np.stack(np.meshgrid(np.linspace(-0.06, 0.06, 9), np.linspace(-0.04, 0.04, 9), [-0.03]), axis=-1)
    around = plate.reshape(-1, 3) @ lean.T + CENTRE + [0, 0, 0.06] if panel == "seen" else np.zeros((0, 3))
    way = in_place(straight(0.004, 0.0, 0.004), Surroundings(knob.points, around))
    expected = lean @ [0, 0, 1] if panel == "seen" else np.array([0, 0, 1])
    np.testing.assert_allclose(Rotation.from_matrix(way[-1, :3, :3]).as_rotvec(), np.pi / 2 * expected, atol=1e-9)


def lying_bottle() -> Surroundings:
    """The upper side of a bottle along y, 16 cm long and 6 cm thick, its neck at the far end; on the table."""
    y, turn = np.meshgrid(np.linspace(-0.08, 0.08, 33), np.linspace(0, np.pi, 13))
    radius = np.where(y > 0.03, 0.012, 0.03)
    points = np.stack([radius * np.cos(turn), y, 0.03 + radius * np.sin(turn)], axis=-1).reshape(-1, 3)
    return Surroundings(points + np.array([0.4, 0.1, 0.0]), np.zeros((0, 3)))


def lifted_and_back(*end: float) -> Float64:
    share = np.linspace(0, 1, STEPS)[:, None]
    return moved(share * np.array(end) + 0.1 * np.sin(np.pi * share) * np.array([0, 0, 1]))


def test_what_lies_and_is_put_back_where_it_lay_is_stood_up_on_its_thicker_end() -> None:
    seen = lying_bottle()
    way = in_place(lifted_and_back(0.01, 0.02, 0.0), seen)
    np.testing.assert_allclose(way[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(way[-1, :3, :3] @ [0, 1, 0], [0, 0, 1], atol=1e-9)  # the neck is up
    ended = transform_points(way[-1], seen.points)
    assert ended[:, 2].min() == pytest.approx(0.002, abs=1e-6)  # just above the table
    middle = [(places.min(axis=0) + places.max(axis=0))[:2] / 2 for places in (seen.points, ended)]
    np.testing.assert_allclose(middle[1] - middle[0], [0.01, 0.02], atol=0.02)


def test_what_lies_and_is_carried_away_or_kept_in_the_air_is_not_stood_up() -> None:
    for track in (lifted_and_back(0.2, 0.0, 0.0), straight(0.0, 0.0, 0.1)):
        way = in_place(track, lying_bottle())
        if track[-1, 0, 3]:
            assert way is track
        else:
            np.testing.assert_allclose(way[:, :3, :3], np.broadcast_to(np.eye(3), (STEPS, 3, 3)), atol=1e-12)


def test_what_goes_somewhere_or_turns_or_is_pressed_is_left() -> None:
    turned = moved(np.zeros((STEPS, 3)))
    turned[:, :3, :3] = Rotation.from_rotvec(np.linspace(0, 1.3, STEPS)[:, None] * [0, 0, 1]).as_matrix()
    for track, seen in (
        (straight(0.04, 0.0, 0.0), standing()),
        (turned, standing()),
        (straight(0.002, 0.0, -0.02), standing(lowest_m=0.03)),
        (moved(strokes(raised_m=0.1)), standing()),
    ):
        assert in_place(track, seen) is track


def test_to_and_fro_is_a_path_three_times_as_long_as_its_way() -> None:
    # There and back n times: a path of 2 n ways.
    for times, expected in ((1, False), (2, True)):
        corners = np.array([0.0, 0.05] * times + [0.0])[None, :, None] * [1, 0, 0]
        assert to_and_fro(corners, np.ones(1)) is expected
        np.testing.assert_allclose(path_lengths_m(corners), 0.1 * times)
    assert not to_and_fro(0.1 * np.array([0, 0.05, 0, 0.05, 0])[None, :, None] * np.ones(3), np.ones(1))  # a tremor


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.1, 0.9)])
def test_paths_count_by_their_weights(weights: tuple[float, float]) -> None:
    there_and_back = np.array([0.0, 0.05, 0.0, 0.05, 0.0])
    paths = np.stack([there_and_back, np.linspace(0, 0.1, 5)])[:, :, None] * [1, 0, 0]
    assert to_and_fro(paths, np.array(weights)) is (weights[0] == 1.0)
