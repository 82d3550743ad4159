"""What object motions are built on: outliers in numbers, weights, smoothing and increments of rigid tracks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.geometry import Float64, continuous_quaternions, quaternions_from_rotations, se3_from_parts
from momap_ros.rigid_tracks import (
    TrackJob,
    fit_many_rigid_tracks,
    fit_rigid_tracks,
    incremental_motions,
    whittaker_matrix,
)

STEPS, COUNT = 21, 200
ROUNDS = 10
AHEAD = np.array([0.0, 0.0, 0.8])


def screw(centre: Float64, rotation_vector: Float64, shift: Float64, steps: int = STEPS) -> Float64:
    """(T, 4, 4) steady turn about a point and steady shift."""
    share = np.linspace(0.0, 1.0, steps)[:, None]
    rotations = Rotation.from_rotvec(share * rotation_vector).as_matrix()
    return se3_from_parts(rotations, centre + share * shift - rotations @ centre)


def carried(points: Float64, motion: Float64) -> Float64:
    """(P, T, 3)."""
    return np.asarray(np.einsum("tij,pj->pti", motion[:, :3, :3], points) + motion[:, :3, 3])


def error_m(motion: Float64, truth: Float64, points: Float64) -> float:
    return float(np.sqrt(np.mean(np.sum((carried(points, motion) - carried(points, truth)) ** 2, axis=-1))))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["left behind", "another body", "leave late"])
def test_forty_percent_on_one_side_do_not_bend_the_motion(kind: str, seed: int) -> None:
    """The hard case: the outliers agree with each other and lie together, as where a mask covers two objects."""
    generator = np.random.default_rng(seed)
    centre, noise_m = generator.uniform(-0.2, 0.2, 3) + AHEAD, 0.002
    points = centre + generator.uniform(-1.0, 1.0, (COUNT, 3)) * generator.uniform(0.02, 0.06, 3)
    truth, other = (screw(centre, generator.normal(0.0, 0.7, 3), generator.normal(0.0, 0.1, 3)) for _ in range(2))
    positions = carried(points, truth)
    outliers = np.argsort(points[:, 0])[: int(0.4 * COUNT)]
    if kind == "left behind":
        positions[outliers] = points[outliers, None]
    elif kind == "another body":
        positions[outliers] = carried(points[outliers], other)
    else:
        positions[outliers, 10:] += np.linspace(0.0, 0.2, STEPS - 10)[:, None] * generator.normal(0.0, 1.0, 3)
    positions[:, 1:] += generator.normal(0.0, noise_m, positions[:, 1:].shape)

    tracks = fit_rigid_tracks(points, positions[None], iterations=ROUNDS)

    # Six parameters from 3 x 120 numbers: the fit is off by noise * sqrt(6 / 120) RMS over its own points; those beyond
    # them lie up to three of their spreads away. Bent by the outliers it is off by centimetres.
    assert error_m(tracks.motion_t_from_0[0], truth, points) < 3 * noise_m * np.sqrt(6 / (0.6 * COUNT)) + 1e-3


def test_many_objects_at_once_move_as_each_would_alone() -> None:
    """Objects of other sizes, steps, precision and futures; some rest, some are hardly known, some are hard to fit."""
    generator = np.random.default_rng(3)
    jobs = []
    for count, steps, futures in ((200, 21, 3), (40, 21, 1), (90, 2, 4), (60, 21, 2), (2, 21, 1), (50, 21, 2)):
        points = AHEAD + generator.uniform(-0.05, 0.05, (count, 3))
        truths = [screw(AHEAD, generator.normal(0, 0.7, 3), generator.normal(0, 0.1, 3), steps) for _ in range(futures)]
        positions = np.stack([carried(points, truth) for truth in truths])
        positions[:, :, 1:] += generator.normal(0.0, 0.003, positions[:, :, 1:].shape)
        positions[:, : int(0.4 * count), 1:] += generator.normal(0.0, 0.1, 3)
        jobs.append(TrackJob(points, positions, generator.uniform(0.5, 1.0, (futures, count))))
    jobs[0].positions[1] = jobs[0].source_points[:, None]
    jobs[1].positions[:, :5, 7:9] = np.nan
    jobs[3].positions[0, 20:] = np.nan
    jobs[5] = TrackJob(jobs[5].source_points.astype(np.float32), jobs[5].positions.astype(np.float32))

    together = fit_many_rigid_tracks(jobs, iterations=ROUNDS)

    for job, tracks in zip(jobs, together, strict=True):
        alone = fit_rigid_tracks(job.source_points, job.positions, iterations=ROUNDS, weights=job.weights)
        tolerance = 1e-5 if job.positions.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(tracks.motion_t_from_0, alone.motion_t_from_0, atol=tolerance)
        np.testing.assert_allclose(tracks.residual_m, alone.residual_m, atol=tolerance)
        np.testing.assert_array_equal(tracks.inliers, alone.inliers)
        np.testing.assert_allclose(tracks.inlier_fraction, alone.inlier_fraction)
        np.testing.assert_array_equal(tracks.valid, alone.valid)
    np.testing.assert_array_equal(together[0].motion_t_from_0[1], np.broadcast_to(np.eye(4), (21, 4, 4)))
    assert not together[4].valid.any()
    assert fit_many_rigid_tracks([], iterations=ROUNDS) == []


def test_trajectories_of_no_weight_do_not_count() -> None:
    generator = np.random.default_rng(1)
    points = generator.uniform(-0.05, 0.05, (COUNT, 3))
    truth = screw(np.zeros(3), np.array([0.0, 0.5, 0.0]), np.array([0.1, 0.0, 0.0]))
    positions = carried(points, truth)
    wrong = np.arange(COUNT) % 10 < 7  # so many that no robust fit could tell
    positions[wrong, 1:] += 0.2
    weights = np.where(wrong, 0.0, 0.5)

    tracks = fit_rigid_tracks(points, positions[None], iterations=ROUNDS, weights=weights[None])

    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-10)
    np.testing.assert_array_equal(tracks.inliers[0], ~wrong)
    assert tracks.inlier_fraction[0] == 1.0


def test_weights_weigh_as_repeated_points_do() -> None:
    generator = np.random.default_rng(2)
    points = generator.uniform(-0.05, 0.05, (40, 3))
    positions = points[:, None] + generator.normal(0.0, 0.01, (40, STEPS, 3)).cumsum(axis=1)
    positions[:, 0] = points
    repeats = np.where(np.arange(40) < 20, 4, 1)

    weighted = fit_rigid_tracks(points, positions[None], iterations=1, weights=repeats[None] / 4)
    repeated = fit_rigid_tracks(
        np.repeat(points, repeats, axis=0), np.repeat(positions, repeats, axis=0)[None], iterations=1
    )

    np.testing.assert_allclose(weighted.motion_t_from_0, repeated.motion_t_from_0, atol=1e-12)


def test_too_few_trajectories_of_any_weight_are_not_valid() -> None:
    points = np.random.default_rng(3).uniform(-0.05, 0.05, (10, 3))
    positions = points[:, None] + np.linspace(0.0, 0.1, 5)[:, None]
    weights = np.where(np.arange(10) < 2, 1.0, 0.0)

    tracks = fit_rigid_tracks(points, positions[None], iterations=ROUNDS, weights=weights[None])

    assert not tracks.valid[0]
    np.testing.assert_array_equal(tracks.motion_t_from_0[0], np.tile(np.eye(4), (5, 1, 1)))


def test_increments_multiply_up_to_the_motion() -> None:
    truth = screw(np.array([0.1, 0.2, 0.7]), np.array([0.4, -1.0, 2.0]), np.array([0.1, 0.0, -0.2]))

    steps = incremental_motions(truth)

    np.testing.assert_allclose(steps[0], np.eye(4), atol=1e-15)
    product = np.eye(4)
    for increment, expected in zip(steps, truth, strict=True):
        product = increment @ product
        np.testing.assert_allclose(product, expected, atol=1e-12)
    # A steady screw about a point at rest would repeat itself; this one's point moves, only its turn repeats.
    turns = Rotation.from_matrix(steps[1:, :3, :3]).as_rotvec()
    np.testing.assert_allclose(turns, np.tile(np.array([0.4, -1.0, 2.0]) / (STEPS - 1), (STEPS - 1, 1)), atol=1e-12)


def test_steady_motion_is_not_changed_by_smoothing() -> None:
    generator = np.random.default_rng(4)
    points = generator.uniform(-0.05, 0.05, (60, 3)) + AHEAD
    truth = screw(points.mean(axis=0), np.zeros(3), np.array([0.1, 0.0, -0.2]))

    tracks = fit_rigid_tracks(points, carried(points, truth)[None], iterations=ROUNDS, smoothing_steps=8.0)

    # Straight lines have no second differences.
    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-9)
    np.testing.assert_array_equal(tracks.motion_t_from_0[0, 0], np.eye(4))


def test_smoothing_takes_as_much_noise_away_as_its_matrix_says() -> None:
    steps, noise_m, window = 50, 0.01, 8.0
    generator = np.random.default_rng(5)
    points = generator.uniform(-0.05, 0.05, (30, 3)) + AHEAD
    jitter = generator.normal(0.0, noise_m, (400, steps, 3))
    jitter[:, 0] = 0.0
    positions = points[None, :, None] + jitter[:, None]

    smooth = fit_rigid_tracks(points, positions, iterations=ROUNDS, smoothing_steps=window).motion_t_from_0

    # Independent noise through a linear filter: its variance is the sum of the squared weights of a row.
    left = np.sqrt((whittaker_matrix(steps, window)[:, 1:] ** 2).sum(axis=1))
    # 1200 numbers a step: the estimate of a standard deviation is off by 1 / sqrt(2400) = 2 %.
    np.testing.assert_allclose(smooth[:, :, :3, 3].std(axis=(0, 2))[1:], noise_m * left[1:], rtol=0.1)
    assert left[10:-10].max() < 0.5


@pytest.mark.parametrize("period", [8, 16])
def test_a_wave_of_the_stated_period_keeps_half_its_amplitude(period: int) -> None:
    steps = 40 * period
    wave = np.sin(2 * np.pi * np.arange(steps) / period)

    smooth = whittaker_matrix(steps, float(period)) @ wave

    middle = slice(steps // 4, 3 * steps // 4)
    # Exactly: 1 / (1 + (p / 2 pi)^4 (2 sin(pi / p))^4), which tends to 1/2.
    gain = 1 / (1 + (period / np.pi * np.sin(np.pi / period)) ** 4)
    assert np.abs(smooth[middle]).max() == pytest.approx(gain, rel=1e-3)
    assert gain == pytest.approx(0.5, abs=0.03)


def test_smooth_rotations_pass_half_a_turn_without_a_jump() -> None:
    generator = np.random.default_rng(6)
    points = generator.uniform(-0.05, 0.05, (60, 3)) + AHEAD
    truth = screw(points.mean(axis=0), np.array([0.0, 0.0, 5.0]), np.zeros(3), steps=50)

    tracks = fit_rigid_tracks(points, carried(points, truth)[None], iterations=ROUNDS, smoothing_steps=6.0)

    # Steady turns are circles in quaternion space: shortened by the filter, brought back to unit length.
    assert error_m(tracks.motion_t_from_0[0], truth, points) < 0.002


def test_quaternions_of_a_track_never_change_sign_between_steps() -> None:
    truth = screw(np.zeros(3), np.array([0.0, 6.0, 0.0]), np.zeros(3), steps=50)

    quaternions = continuous_quaternions(quaternions_from_rotations(truth[:, :3, :3]))

    half = np.linspace(0.0, 3.0, 50)
    expected = np.stack([np.cos(half), 0 * half, np.sin(half), 0 * half], axis=1)
    np.testing.assert_allclose(quaternions, expected, atol=1e-12)


def test_few_steps_tell_the_same_inliers_and_all_steps_are_fitted() -> None:
    """Two fifths go astray, and five steps are enough to tell them; the motion is exact at all fifty."""
    rng = np.random.default_rng(3)
    truth = np.tile(np.eye(4), (50, 1, 1))
    angles = 0.8 * np.linspace(0.0, 1.0, 50) ** 2
    truth[:, 0, 0] = truth[:, 1, 1] = np.cos(angles)
    truth[:, 1, 0], truth[:, 0, 1] = np.sin(angles), -np.sin(angles)
    truth[:, 0, 3] = 0.2 * np.sin(np.linspace(0.0, 3.0, 50))
    points = rng.uniform(-0.1, 0.1, (100, 3))
    positions = carried(points, truth)[None].copy()
    positions[0, :40, 1:] += rng.normal(size=(40, 1, 3)) * np.linspace(0.0, 0.2, 50)[1:, None]
    tracks = fit_rigid_tracks(points, positions, iterations=ROUNDS, max_fit_steps=5)
    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-12)
    np.testing.assert_array_equal(tracks.inliers[0], np.arange(100) >= 40)
