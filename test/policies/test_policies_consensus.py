"""What drawn futures have in common, on futures whose common part is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import Float64, transform_points
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import estimate_object_motions
from momap_ros.policies.consensus import agreed, agreed_motion

CENTROID = np.array([0.3, 0.1, 0.5])
STEPS = 11


@dataclass(frozen=True, eq=False)
class Future:
    motion_t_from_0: Float64
    weight: float = 0.1


def future(turn: tuple[float, float, float], end: tuple[float, float, float], weight: float = 0.1) -> Future:
    """The centroid goes straight to its start plus `end` while the object turns by a rotation vector."""
    share = np.linspace(0, 1, STEPS)[:, None]
    motion = np.repeat(np.eye(4)[None], STEPS, axis=0)
    motion[:, :3, :3] = Rotation.from_rotvec(share * np.array(turn)).as_matrix()
    motion[:, :3, 3] = CENTROID + share * np.array(end) - motion[:, :3, :3] @ CENTROID
    return Future(motion, weight)


def end_of(motion: Float64 | None) -> Float64:
    assert motion is not None
    return np.asarray(transform_points(motion[-1], CENTROID) - CENTROID)


def test_one_future_is_its_own_consensus() -> None:
    only = future((0.3, -0.2, 0.9), (0.1, 0.2, -0.05), weight=1.0)
    motion = agreed_motion([only], CENTROID, 0.008)
    assert motion is not None
    np.testing.assert_allclose(motion, only.motion_t_from_0, atol=1e-12)


def test_a_mean_rests_while_its_futures_wander() -> None:
    # At step 1 they differ by 4 cm about a mean of 1 cm, of 10 cm in all; from step 2 on by nothing.
    futures = [future((0, 0, 0), (0.1, 0.0, 0.0)) for _ in range(2)]
    for each, aside in zip(futures, (0.04, -0.04), strict=True):
        each.motion_t_from_0[1, 1, 3] += aside
    motion = agreed_motion(futures, CENTROID, 0.008)
    assert motion is not None
    np.testing.assert_allclose(motion[:, 0, 3], [0, 0, *np.linspace(0.02, 0.1, 9)], atol=1e-12)


def test_of_strokes_the_longest_drawn_is_taken_twice_as_long_and_not_their_mean() -> None:
    phase = 2 * np.pi * 3 * np.linspace(0, 1, 50)
    futures = []
    for number, reach_m in enumerate((0.02, 0.05, 0.03)):
        strokes = np.repeat(np.eye(4)[None], 50, axis=0)
        strokes[:, number % 2, 3] = reach_m * np.sin(phase)
        futures.append(Future(strokes))
    motion = agreed_motion(futures, CENTROID, 0.008)
    assert motion is not None
    np.testing.assert_allclose(motion[:, :3, 3], 2.1 * futures[1].motion_t_from_0[:, :3, 3], atol=1e-12)


def test_futures_of_one_outcome_are_averaged_by_weight() -> None:
    futures = [future((0, 0, 0), (0.2, 0.0, 0.0), 0.3), future((0, 0, 0), (0.2, 0.04, 0.0), 0.1)]
    mean = np.array([0.2, 0.01, 0.0])
    mean *= (0.75 * 0.2 + 0.25 * np.hypot(0.2, 0.04)) / np.linalg.norm(mean)  # as long as they are
    np.testing.assert_allclose(end_of(agreed_motion(futures, CENTROID, 0.008)), mean, atol=1e-12)


@pytest.mark.parametrize("aside_m", [0.0, 0.02, 0.036])
def test_ways_in_different_directions_have_a_mean_as_long_as_they_are(aside_m: float) -> None:
    futures = [future((0, 0, 0), (0.1, aside, 0.0)) for aside in (aside_m, -aside_m)]
    end = end_of(agreed_motion(futures, CENTROID, 0.008))
    np.testing.assert_allclose(end, [np.hypot(0.1, aside_m), 0, 0], atol=1e-12)


def test_a_mean_of_opposite_ways_is_not_made_long() -> None:
    futures = [future((0, 0, 0), (x, 0.0, 0.0)) for x in (0.012, -0.008)]
    np.testing.assert_allclose(end_of(agreed_motion(futures, CENTROID, 0.008)), [1.4 * 0.002, 0, 0], atol=1e-12)


def test_another_outcome_is_left_out_not_averaged() -> None:
    left = [future((0, 0, 0), (0.2, 0.01 * k, 0.0)) for k in (-1, 0, 1)]
    right = [future((0, 0, 0), (-0.2, 0.0, 0.0)) for _ in range(2)]
    end = end_of(agreed_motion([*right, *left], CENTROID, 0.008))
    np.testing.assert_allclose(end, [0.2, 0, 0], atol=2e-4)  # of which two are a little longer


def test_futures_at_rest_do_not_count() -> None:
    still = [future((0, 0, 0), (0, 0, 0)) for _ in range(8)]
    moves = future((0, 0, 0), (0.0, 0.1, 0.0))
    np.testing.assert_allclose(end_of(agreed_motion([*still, moves], CENTROID, 0.008)), [0, 0.1, 0], atol=1e-12)
    assert agreed_motion(still, CENTROID, 0.008) is None
    assert agreed_motion([], CENTROID, 0.008) is None


def test_a_turn_in_place_is_a_motion() -> None:
    motion = agreed_motion([future((0, 0, 1.0), (0, 0, 0))], CENTROID, 0.008)
    assert motion is not None
    np.testing.assert_allclose(Rotation.from_matrix(motion[-1, :3, :3]).as_rotvec(), [0, 0, 1.0], atol=1e-12)


@pytest.mark.parametrize(
    ("turns", "agreed_rad"), [((0.8, 1.0, 1.2), 1.0), ((-1.0, 0.1, 1.2), 0.0), ((0.3, 0.3, 0.3), 0.0)]
)
def test_a_turn_is_followed_where_the_futures_agree_on_it(turns: tuple[float, ...], agreed_rad: float) -> None:
    motion = agreed_motion([future((0, 0, turn), (0.1, 0, 0)) for turn in turns], CENTROID, 0.008)
    assert motion is not None
    np.testing.assert_allclose(Rotation.from_matrix(motion[-1, :3, :3]).as_rotvec(), [0, 0, agreed_rad], atol=1e-9)
    np.testing.assert_allclose(end_of(motion), [0.1, 0, 0], atol=1e-12)


def test_an_object_motion_takes_the_way_that_its_hypotheses_agree_on() -> None:
    """Ten noisy draws of one translation: the mean of ten is nearer to it than a draw."""
    rng = np.random.default_rng(0)
    points = CENTROID + rng.uniform(-0.02, 0.02, (40, 3))
    ends = np.array([0.2, 0.0, 0.1]) + rng.normal(0, 0.03, (10, 3))
    positions = points[None, :, None] + np.linspace(0, 1, STEPS)[:, None] * ends[:, None, None]
    pixels = np.stack([np.arange(40), np.zeros(40)], axis=1).astype(np.int32)
    trajectories = PointTrajectories(positions.astype(np.float32), np.ones(40, np.int32), pixels, 64, 64, 0.1)
    (motion,) = estimate_object_motions(trajectories, ObjectMotionConfig(max_hypotheses=10), hypothesis=0)
    followed = agreed(motion, 0.008)
    about_mean_m = np.sqrt(((ends - ends.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert followed.hypothesis_spread_m == pytest.approx(about_mean_m, rel=0.15)
    end = transform_points(followed.motion_t_from_0[-1], motion.centroid_m) - motion.centroid_m
    assert np.linalg.norm(end - [0.2, 0.0, 0.1]) < 0.5 * np.linalg.norm(ends - [0.2, 0.0, 0.1], axis=1).mean()


def test_an_object_whose_turns_contradict_each_other_stays_as_reported() -> None:
    turns = [future((0, 0, turn), (0, 0, 0)) for turn in (-1.0, 1.0)]
    points = CENTROID + np.random.default_rng(0).uniform(-0.02, 0.02, (40, 3))
    positions = np.stack([transform_points(turn.motion_t_from_0[None], points[:, None]) for turn in turns])
    pixels = np.stack([np.arange(40), np.zeros(40)], axis=1).astype(np.int32)
    trajectories = PointTrajectories(positions.astype(np.float32), np.ones(40, np.int32), pixels, 64, 64, 0.1)
    (motion,) = estimate_object_motions(trajectories, ObjectMotionConfig(), hypothesis=0)
    assert agreed(motion, 0.008) is motion
