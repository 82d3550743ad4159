"""Rigid motions against exact truth; rotations are built by transforms3d, which shares no code with the package."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import transforms3d.axangles

from momap_ros.articulation import JointKind
from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import Float64, invert_se3, se3_from_parts, transform_points
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.rigid_tracks import fit_rigid_tracks
from momap_ros.shapes import ShapeError

STEPS = 21
CONFIG = ObjectMotionConfig()


def rotation_about(axis: tuple[float, float, float], angle_rad: float) -> Float64:
    return np.asarray(transforms3d.axangles.axangle2mat(axis, angle_rad), np.float64)


def motion_about(
    centre: Float64, axis: tuple[float, float, float], angle_rad: float, shift: tuple[float, float, float]
) -> Float64:
    """(T, 4, 4) steady turn about a point and steady shift."""
    share = np.linspace(0.0, 1.0, STEPS)
    rotations = np.stack([rotation_about(axis, angle_rad * s) for s in share])
    return se3_from_parts(rotations, centre + share[:, None] * np.array(shift) - rotations @ centre)


def box_points(count: int, seed: int = 0, centre: tuple[float, float, float] = (0.1, -0.2, 0.9)) -> Float64:
    return np.array(centre) + np.random.default_rng(seed).uniform(-0.04, 0.04, (count, 3))


def moved(points: Float64, motion: Float64) -> Float64:
    """(P, T, 3)."""
    return np.swapaxes(transform_points(motion[:, None], points[None]), 0, 1)


def angle_deg(a: Float64, b: Float64) -> Float64:
    """Angle between rotations, from the chord length, which stays exact near zero."""
    chord = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8.0)
    return np.asarray(np.degrees(2.0 * np.arcsin(np.minimum(chord, 1.0))))


def trajectories_of(
    objects: dict[int, Float64], step_s: float = 0.1, frame_id: str = "camera_color_optical_frame"
) -> PointTrajectories:
    """Trajectories of objects given as id -> (N, P, T, 3)."""
    positions = np.concatenate(list(objects.values()), axis=1).astype(np.float32)
    ids = np.concatenate([np.full(array.shape[1], key, np.int32) for key, array in objects.items()])
    pixels = np.stack([np.arange(len(ids)), np.zeros(len(ids))], axis=-1).astype(np.int32)
    return PointTrajectories(positions, ids, pixels, len(ids), 1, step_s, None, frame_id)


def motion_of(positions: Float64, config: ObjectMotionConfig = CONFIG) -> ObjectMotion:
    (result,) = estimate_object_motions(trajectories_of({1: positions}), config)
    return result


TRUE_MOTIONS = {
    "translation": ((0.0, 0.0, 1.0), 0.0, (0.1, -0.05, 0.2)),
    "rotation": ((0.0, 0.6, 0.8), 1.5, (0.0, 0.0, 0.0)),
    "half turn": ((1.0, 0.0, 0.0), np.pi, (0.0, 0.0, 0.0)),
    "both": ((0.48, 0.6, 0.64), -2.0, (-0.3, 0.1, 0.05)),
}


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize("name", TRUE_MOTIONS)
def test_exact_motion_is_recovered(name: str, iterations: int) -> None:
    points = box_points(50)
    truth = motion_about(points.mean(axis=0), *TRUE_MOTIONS[name])

    tracks = fit_rigid_tracks(points, moved(points, truth)[None], iterations=iterations)

    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-12)
    np.testing.assert_allclose(tracks.residual_m, 0.0, atol=1e-12)
    assert tracks.inliers.all()
    assert tracks.valid.all()


@pytest.mark.parametrize("share", [0.15, 0.4])
@pytest.mark.parametrize("kind", ["scattered", "left behind"])
def test_outliers_do_not_bend_the_motion(share: float, kind: str) -> None:
    generator = np.random.default_rng(3)
    points = box_points(400)
    truth = motion_about(points.mean(axis=0), (0.48, 0.6, 0.64), 1.0, (0.2, 0.0, -0.1))
    positions = moved(points, truth)
    outliers = np.arange(len(points)) < share * len(points)
    positions[outliers] = points[outliers, None]
    if kind == "scattered":
        positions[outliers, 1:] += generator.normal(0.0, 0.05, (outliers.sum(), STEPS - 1, 3))

    tracks = fit_rigid_tracks(points, positions[None], iterations=CONFIG.reweighting_iterations)

    # The inliers are exact and the last round uses them alone.
    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-9)
    np.testing.assert_array_equal(tracks.inliers[0], ~outliers)
    assert tracks.inlier_fraction[0] == pytest.approx(1.0 - share)


def test_plain_least_squares_is_bent_by_the_same_outliers() -> None:
    points = box_points(400)
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (0.2, 0.0, 0.0))
    positions = moved(points, truth)
    positions[:160] = points[:160, None]

    tracks = fit_rigid_tracks(points, positions[None], iterations=1)

    # 40 % stay behind: least squares moves the object by 60 % of the way.
    assert transform_points(tracks.motion_t_from_0[0, -1], points.mean(axis=0))[0] - points[
        :, 0
    ].mean() == pytest.approx(0.12, abs=0.005)
    assert tracks.inlier_fraction[0] == 1.0


def test_noise_is_averaged_as_least_squares_promises() -> None:
    noise_m, count = 0.004, 600
    generator = np.random.default_rng(5)
    points = box_points(count)
    truth = motion_about(points.mean(axis=0), (0.0, 0.6, 0.8), 1.0, (0.1, 0.0, 0.0))
    positions = moved(points, truth)
    positions[:, 1:] += generator.normal(0.0, noise_m, positions[:, 1:].shape)

    tracks = fit_rigid_tracks(points, positions[None], iterations=CONFIG.reweighting_iterations)

    centroid = points.mean(axis=0)
    error = transform_points(tracks.motion_t_from_0[0], centroid) - transform_points(truth, centroid)
    # Standard error of a mean: noise / sqrt(count) = 0.16 mm an axis; five times that is a real fault.
    assert np.abs(error).max() < 5 * noise_m / np.sqrt(count)
    # Lever: points spread 0.08/sqrt(12) m an axis, two axes per rotation axis.
    angle_std_deg = np.degrees(noise_m / (np.sqrt(2 * count) * 0.08 / np.sqrt(12)))
    assert angle_deg(tracks.motion_t_from_0[0, :, :3, :3], truth[:, :3, :3]).max() < 5 * angle_std_deg
    # RMS of a 3D distance is sqrt(3) times the noise of one axis.
    np.testing.assert_allclose(tracks.residual_m[0, 1:], np.sqrt(3) * noise_m, rtol=0.1)


def test_result_does_not_depend_on_the_camera_frame() -> None:
    generator = np.random.default_rng(7)
    points = box_points(200)
    positions = moved(points, motion_about(points.mean(axis=0), (0.0, 0.6, 0.8), 0.7, (0.1, 0.02, -0.1)))
    positions[:, 1:] += generator.normal(0.0, 0.003, positions[:, 1:].shape)
    positions[:40, 1:] += 0.1
    base_from_camera = se3_from_parts(rotation_about((0.48, 0.64, 0.6), 2.0), np.array([0.4, -0.3, 0.2]))

    in_camera = fit_rigid_tracks(points, positions[None], iterations=CONFIG.reweighting_iterations)
    in_base = fit_rigid_tracks(
        transform_points(base_from_camera, points),
        transform_points(base_from_camera, positions)[None],
        iterations=CONFIG.reweighting_iterations,
    )

    expected = base_from_camera @ in_camera.motion_t_from_0 @ invert_se3(base_from_camera)
    np.testing.assert_allclose(in_base.motion_t_from_0, expected, atol=1e-10)
    np.testing.assert_allclose(in_base.residual_m, in_camera.residual_m, atol=1e-10)
    np.testing.assert_array_equal(in_base.inliers, in_camera.inliers)


def test_mirrored_points_give_a_rotation_not_a_mirror() -> None:
    points = box_points(60)
    mirrored = points * np.array([1.0, 1.0, -1.0])
    positions = np.stack([points, mirrored], axis=1)

    rotation = fit_rigid_tracks(points, positions[None], iterations=1).motion_t_from_0[0, 1, :3, :3]

    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_planar_points_determine_the_motion() -> None:
    points = box_points(80)
    points[:, 2] = 0.9
    truth = motion_about(points.mean(axis=0), (0.6, 0.0, 0.8), 1.2, (0.0, 0.1, 0.0))

    tracks = fit_rigid_tracks(points, moved(points, truth)[None], iterations=4)

    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-10)


def test_collinear_points_give_a_translation_only() -> None:
    points = np.array([0.0, 0.0, 1.0]) + np.linspace(-0.1, 0.1, 30)[:, None] * np.array([0.6, 0.8, 0.0])
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.3, (0.05, -0.02, 0.1))

    result = motion_of(moved(points, truth)[None])

    np.testing.assert_array_equal(result.motion_t_from_0[:, :3, :3], np.broadcast_to(np.eye(3), (STEPS, 3, 3)))
    np.testing.assert_allclose(result.motion_t_from_0[-1, :3, 3], [0.05, -0.02, 0.1], atol=1e-6)
    assert result.valid


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_points_are_not_valid(count: int) -> None:
    points = box_points(count)
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (0.1, 0.0, 0.0))

    result = motion_of(moved(points, truth)[None])

    assert not result.valid
    assert not result.rigid
    np.testing.assert_array_equal(result.motion_t_from_0, np.broadcast_to(np.eye(4), (STEPS, 4, 4)))
    np.testing.assert_allclose(result.centroid_m, points.mean(axis=0), atol=1e-7)
    assert np.isnan(result.residual_m).all()
    assert (result.displacement_m, result.moving_probability, result.inlier_fraction) == (0.0, 0.0, 0.0)
    assert (result.hypothesis_weight, result.hypothesis_spread_m) == (0.0, 0.0)


def test_unknown_trajectories_are_not_valid() -> None:
    everything_unknown = motion_of(np.full((2, 10, STEPS, 3), np.nan))
    positions = np.repeat(box_points(10)[None, :, None], STEPS, axis=2)
    positions[:, :, 1:] = np.nan
    future_unknown = motion_of(positions)

    for result in (everything_unknown, future_unknown):
        assert not result.valid
        np.testing.assert_array_equal(result.motion_t_from_0, np.broadcast_to(np.eye(4), (STEPS, 4, 4)))
    assert np.isnan(everything_unknown.centroid_m).all()
    assert np.isfinite(future_unknown.centroid_m).all()


def test_points_may_leave_one_after_the_other() -> None:
    points = box_points(STEPS * 3)
    truth = motion_about(points.mean(axis=0), (0.0, 0.6, 0.8), 1.0, (0.2, 0.0, 0.0))
    positions = moved(points, truth)
    for step in range(STEPS):
        positions[: 3 * step, step] = np.nan

    tracks = fit_rigid_tracks(points, positions[None], iterations=CONFIG.reweighting_iterations)

    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-9)
    assert tracks.valid[0]
    # The first three points are known at step 0 alone: they can neither agree nor disagree.
    assert tracks.inliers[0].sum() == len(points) - 3
    assert tracks.inlier_fraction[0] == 1.0


def test_steps_without_points_keep_the_motion_before_them() -> None:
    points = box_points(40)
    truth = motion_about(points.mean(axis=0), (0.0, 0.6, 0.8), 1.0, (0.2, 0.0, 0.0))
    positions = moved(points, truth)
    positions[:, 10:] = np.nan

    tracks = fit_rigid_tracks(points, positions[None], iterations=CONFIG.reweighting_iterations)

    np.testing.assert_allclose(tracks.motion_t_from_0[0, :10], truth[:10], atol=1e-9)
    np.testing.assert_allclose(tracks.motion_t_from_0[0, 10:], np.broadcast_to(truth[9], (STEPS - 10, 4, 4)), atol=1e-9)
    assert np.isnan(tracks.residual_m[0, 10:]).all()
    assert np.isfinite(tracks.residual_m[0, :10]).all()


def test_steps_with_two_points_keep_the_rotation_before_them() -> None:
    points = box_points(40)
    truth = motion_about(points.mean(axis=0), (0.0, 0.6, 0.8), 1.0, (0.2, 0.0, 0.0))
    truth[10:, :3, :3] = truth[9, :3, :3]
    truth[10:, :3, 3] = truth[9, :3, 3] + np.linspace(0.01, 0.1, STEPS - 10)[:, None]
    positions = moved(points, truth)
    positions[2:, 10:] = np.nan

    tracks = fit_rigid_tracks(points, positions[None], iterations=CONFIG.reweighting_iterations)

    np.testing.assert_allclose(tracks.motion_t_from_0[0], truth, atol=1e-9)


def test_static_object_is_exactly_the_identity() -> None:
    result = motion_of(np.repeat(box_points(500)[None, :, None], STEPS, axis=2))

    np.testing.assert_array_equal(result.motion_t_from_0, np.broadcast_to(np.eye(4), (STEPS, 4, 4)))
    np.testing.assert_array_equal(result.residual_m, np.zeros(STEPS))
    assert result.valid
    assert result.rigid
    assert (result.displacement_m, result.speed_m_s, result.moving_probability) == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(result.direction, np.zeros(3))
    assert (result.inlier_fraction, result.hypothesis_weight) == (1.0, 1.0)


def test_stretching_object_is_not_rigid() -> None:
    points = box_points(200)
    stretch = np.linspace(1.0, 2.0, STEPS)[None, :, None]
    centre = points.mean(axis=0)

    result = motion_of((centre + stretch * (points - centre)[:, None])[None])

    assert result.valid
    assert not result.rigid
    # Doubling moves every point by its distance from the centre.
    assert result.residual_m[-1] == pytest.approx(np.sqrt(np.mean(np.sum((points - centre) ** 2, axis=1))), rel=1e-3)


def test_published_numbers_of_a_straight_motion() -> None:
    points = box_points(100)
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (-0.3, 0.0, 0.4))
    trajectories = trajectories_of({7: moved(points, truth)[None]}, step_s=0.1)

    (result,) = estimate_object_motions(trajectories, CONFIG, labels={7: "mug"}, moving_probability={7: 0.75})

    assert (result.instance_id, result.label, result.moving_probability) == (7, "mug", 0.75)
    np.testing.assert_allclose(result.centroid_m, points.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(result.size_m, np.ptp(points, axis=0), atol=1e-6)
    np.testing.assert_allclose(result.direction, [-0.6, 0.0, 0.8], atol=1e-6)
    assert result.displacement_m == pytest.approx(0.5, abs=1e-6)
    assert result.speed_m_s == pytest.approx(0.5 / 2.0, abs=1e-6)
    np.testing.assert_array_equal(result.direction_flags, [-1, 0, 1])
    # After one of 20 steps: 15 and 20 mm; the threshold is 20 mm. After 4 and 16: 60/80 and 240/320 mm.
    assert result.direction_flags_1[0] == 0
    np.testing.assert_array_equal(result.direction_flags_4, [-1, 0, 1])
    np.testing.assert_array_equal(result.direction_flags_16, [-1, 0, 1])
    assert result.direction_flags.dtype == np.int8


def test_flags_of_a_motion_that_turns_back() -> None:
    points = box_points(50)
    path = np.concatenate([np.linspace(0.0, 0.16, 17), np.linspace(0.12, 0.0, 4)])
    positions = points[:, None] + path[:, None] * np.array([0.0, -1.0, 0.0])

    result = motion_of(positions[None])

    np.testing.assert_array_equal(result.direction_flags, [0, 0, 0])
    np.testing.assert_array_equal(result.direction_flags_16, [0, -1, 0])
    np.testing.assert_array_equal(result.direction, [0.0, 0.0, 0.0])
    assert result.moving_probability == 1.0
    assert result.speed_m_s == pytest.approx(0.32 / 2.0, abs=1e-5)


def test_short_forecasts_take_the_last_step_for_long_flags() -> None:
    points = box_points(50)
    positions = points[:, None] + np.array([0.0, 0.03, 0.06])[:, None] * np.array([1.0, 0.0, 0.0])

    result = motion_of(positions[None])

    np.testing.assert_array_equal(result.direction_flags_16, [1, 0, 0])


def test_two_modes_are_not_averaged() -> None:
    points = box_points(60)
    left, right = (motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (x, 0.0, 0.0)) for x in (-0.2, 0.3))
    stays = np.broadcast_to(np.eye(4), (STEPS, 4, 4))
    hypotheses = np.stack([moved(points, motion) for motion in (left, left, left, right, stays)])

    result = motion_of(hypotheses)

    np.testing.assert_allclose(result.motion_t_from_0, left, atol=1e-5)
    assert result.hypothesis_weight == pytest.approx(3 / 5)
    assert result.moving_probability == pytest.approx(4 / 5)
    # Ends lie 0, 0, 0, 0.5 and 0.2 m from the reported one.
    assert result.hypothesis_spread_m == pytest.approx(np.sqrt((0.5**2 + 0.2**2) / 5), abs=1e-5)


def test_hypotheses_agree_within_a_quarter_of_the_way() -> None:
    points = box_points(60)
    ends_m = (0.2, 0.2, 0.2, 0.24, 0.26)
    motions = [motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (x, 0.0, 0.0)) for x in ends_m]

    result = motion_of(np.stack([moved(points, motion) for motion in motions]))

    assert result.displacement_m == pytest.approx(0.2, abs=1e-5)
    # A quarter of 0.2 m is 50 mm: 0.24 m agrees, 0.26 m does not.
    assert result.hypothesis_weight == pytest.approx(4 / 5)


def test_broken_hypotheses_do_not_vote() -> None:
    points = box_points(60)
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.4, (0.2, 0.0, 0.0))
    hypotheses = np.stack([moved(points, truth)] * 4)
    hypotheses[0, :, 1:] = np.nan

    result = motion_of(hypotheses)

    np.testing.assert_allclose(result.motion_t_from_0, truth, atol=1e-5)
    assert result.valid
    assert result.moving_probability == 1.0
    assert result.hypothesis_weight == pytest.approx(3 / 4)


def test_objects_come_in_rising_order_without_the_background() -> None:
    points = box_points(30)
    still = np.repeat(points[None, :, None], STEPS, axis=2)
    goes = moved(points, motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (0.0, 0.2, 0.0)))[None]

    results = estimate_object_motions(trajectories_of({9: still, 0: goes, 4: goes}), CONFIG)

    assert [result.instance_id for result in results] == [4, 9]
    assert [result.moving_probability for result in results] == [1.0, 0.0]
    assert estimate_object_motions(trajectories_of({0: goes}), CONFIG) == []


def test_subsampling_keeps_the_motion_and_is_repeatable() -> None:
    points = box_points(3000)
    truth = motion_about(points.mean(axis=0), (0.0, 0.6, 0.8), 1.0, (0.1, 0.0, 0.0))
    positions = moved(points, truth)[None]
    config = ObjectMotionConfig(max_points_per_object=50)

    first, second = motion_of(positions, config), motion_of(positions, config)

    np.testing.assert_allclose(first.motion_t_from_0, truth, atol=1e-4)
    np.testing.assert_array_equal(first.motion_t_from_0, second.motion_t_from_0)
    # Centroid and size come from all points, not from the drawn ones.
    np.testing.assert_allclose(first.size_m, np.ptp(points, axis=0), atol=1e-6)


def test_one_step_has_nothing_to_fit() -> None:
    result = motion_of(box_points(10)[None, :, None])

    assert not result.valid
    np.testing.assert_array_equal(result.motion_t_from_0, np.eye(4)[None])
    assert result.speed_m_s == 0.0


def test_arrays_of_different_points_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"positions: expected \(N, P, T, 3\), got \(1, 5, 4, 3\); axis P must be 4"):
        fit_rigid_tracks(np.zeros((4, 3)), np.zeros((1, 5, 4, 3)), iterations=1)


def test_each_different_end_is_a_hypothesis_with_its_whole_motion() -> None:
    points = box_points(60)
    left, right = (motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (x, 0.0, 0.0)) for x in (-0.2, 0.3))
    stays = np.broadcast_to(np.eye(4), (STEPS, 4, 4))
    trajectories = trajectories_of({1: np.stack([moved(points, m) for m in (right, left, left, left, right, stays)])})

    # As a forecaster asks: the first future is reported, of the others only the ends are fitted.
    (result,) = estimate_object_motions(trajectories, CONFIG, hypothesis=0, moving_probability={1: 0.9})

    assert [item.weight for item in result.hypotheses] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    for item, truth in zip(result.hypotheses, (left, right, stays), strict=True):
        np.testing.assert_allclose(item.motion_t_from_0, truth, atol=1e-5)
    np.testing.assert_array_equal(result.hypotheses[1].motion_t_from_0, result.motion_t_from_0)
    # Three ends 0.5 m away, one 0.3 m, one 0, about the reported one, over six minus one.
    assert result.end_covariance[0, 0] == pytest.approx((3 * 0.5**2 + 0.3**2) / 5, abs=1e-5)
    assert np.trace(result.end_covariance[:3, :3]) * 5 / 6 == pytest.approx(result.hypothesis_spread_m**2, rel=1e-6)
    np.testing.assert_allclose(result.hypotheses[0].end_covariance, 0.0, atol=1e-8)
    assert np.isnan(result.hypotheses[2].end_covariance).all()


def test_only_the_most_frequent_ends_are_kept() -> None:
    points = box_points(60)
    motions = [motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.0, (x, 0.0, 0.0)) for x in (0.1, 0.1, 0.4, 0.7)]

    result = motion_of(np.stack([moved(points, m) for m in motions]), ObjectMotionConfig(max_hypotheses=2))

    assert [item.weight for item in result.hypotheses] == pytest.approx([0.5, 0.25])


def test_pose_starts_at_the_centroid_and_follows_the_motion() -> None:
    points = box_points(60)
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 1.0, (0.1, 0.2, 0.0))

    result = motion_of(moved(points, truth)[None])

    np.testing.assert_allclose(result.frame_from_object[0], se3_from_parts(np.eye(3), points.mean(axis=0)), atol=1e-6)
    np.testing.assert_allclose(
        result.frame_from_object[-1, :3, 3], points.mean(axis=0) + np.array([0.1, 0.2, 0.0]), atol=1e-5
    )
    np.testing.assert_allclose(result.frame_from_object[:, :3, :3], truth[:, :3, :3], atol=1e-5)
    rebuilt = np.eye(4)
    for increment in result.motion_t_from_previous:
        rebuilt = increment @ rebuilt
    np.testing.assert_allclose(rebuilt, result.motion_t_from_0[-1], atol=1e-12)


def test_joints_are_told_from_rigid_motion_alone() -> None:
    points = box_points(200)
    corner = points.min(axis=0)
    opens = moved(points, motion_about(corner, (0.0, 0.0, 1.0), 1.2, (0.0, 0.0, 0.0)))
    slides = moved(points, motion_about(corner, (0.0, 0.0, 1.0), 0.0, (0.0, 0.1, 0.0)))
    stretched = slides + np.linspace(0.0, 1.0, STEPS)[:, None] * (points - corner)[:, None]

    hinged, sliding, soft = (motion_of(positions[None]) for positions in (opens, slides, stretched))

    assert hinged.articulation.kind is JointKind.REVOLUTE
    np.testing.assert_allclose(hinged.articulation.axis, [0.0, 0.0, 1.0], atol=1e-4)
    np.testing.assert_allclose(hinged.articulation.axis_point[:2], corner[:2], atol=1e-4)
    assert hinged.articulation.positions[-1] == pytest.approx(1.2, abs=1e-4)
    assert sliding.articulation.kind is JointKind.PRISMATIC
    assert sliding.articulation.range == pytest.approx((0.0, 0.1), abs=1e-5)
    assert (hinged.deformable, soft.deformable) == (False, True)
    assert soft.articulation.kind is JointKind.UNKNOWN


def test_confidence_weighs_the_trajectories() -> None:
    points = box_points(60)
    truth = motion_about(points.mean(axis=0), (0.0, 0.0, 1.0), 0.5, (0.2, 0.0, 0.0))
    positions = moved(points, truth)
    positions[:40, 1:] += 0.1
    trusted = (np.arange(60) >= 40).astype(np.float32)
    trajectories = dataclasses.replace(trajectories_of({1: positions[None]}), confidence=trusted[None])

    (result,) = estimate_object_motions(trajectories, CONFIG)

    np.testing.assert_allclose(result.motion_t_from_0, truth, atol=1e-5)


def test_no_points_give_no_motions() -> None:
    empty = np.zeros((2, 0, STEPS, 3))
    assert estimate_object_motions(trajectories_of({1: empty}), CONFIG) == []
