from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.evaluation.metrics_paper import (
    direction_accuracy,
    distance_signature_error,
    foreground_mask_iou,
    local_distance_difference,
    moves,
    nearest_neighbours,
    nearest_patch_accuracy,
    time_warped_error,
)
from momap_ros.geometry import Float32, Float64
from momap_ros.shapes import ShapeError


def curves(points: int = 6, steps: int = 20, seed: int = 0) -> Float32:
    """(P, T, 3) smooth random paths of about a decimetre."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(points, 1, 3)) * 0.1 + np.cumsum(rng.normal(size=(points, steps, 3)), axis=1) * 0.02
    ).astype(np.float32)


def line(length_m: float, steps: int = 11) -> Float32:
    """(1, T, 3) along x at constant speed."""
    path = np.zeros((1, steps, 3), np.float32)
    path[0, :, 0] = np.linspace(0, length_m, steps)
    return path


# --- fg_mask_iou


def test_moving_is_farther_than_the_threshold_at_any_step() -> None:
    there_and_back = np.zeros((2, 3, 3), np.float32)
    there_and_back[0, 1, 0], there_and_back[1, 1, 0] = 0.021, 0.019
    assert moves(there_and_back, 0.02).tolist() == [True, False]


def test_iou_counts_points() -> None:
    true = np.concatenate([line(0.1)] * 3 + [line(0.0)] * 5)
    drawn = np.concatenate([line(0.1)] * 2 + [line(0.0)] * 4 + [line(0.1)] * 2)
    # Both: 2. Either: 2 + 1 + 2.
    assert foreground_mask_iou(np.stack([drawn, true, 0 * true]), true, threshold_m=0.02) == pytest.approx([0.4, 1, 0])


def test_iou_of_stillness_is_one_and_of_false_motion_zero() -> None:
    still = np.concatenate([line(0.0)] * 4)
    moving = np.concatenate([line(0.1)] * 4)
    assert foreground_mask_iou(np.stack([still, moving]), still, threshold_m=0.02).tolist() == [1, 0]


def test_iou_of_noise_is_the_share_of_the_foreground() -> None:
    """All points of noise move, so the intersection is the foreground and the union everything."""
    rng = np.random.default_rng(0)
    true = np.concatenate([line(0.1, 20)] * 13 + [line(0.0, 20)] * 87)
    noise = rng.normal(size=(1, 100, 20, 3)).astype(np.float32)
    assert foreground_mask_iou(noise, true, threshold_m=0.02) == pytest.approx([0.13])


# --- ate_dtw


def reference_dtw(first: Float64, second: Float64) -> float:
    """One pair of paths (T, 3), cell by cell; ties prefer the diagonal."""
    steps = len(first)
    total = np.full((steps + 1, steps + 1), np.inf)
    length = np.zeros((steps + 1, steps + 1))
    total[0, 0] = 0
    for i in range(1, steps + 1):
        for j in range(1, steps + 1):
            before = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda cell: total[cell])
            total[i, j] = total[before] + np.linalg.norm(first[i - 1] - second[j - 1])
            length[i, j] = length[before] + 1
    return float(total[-1, -1] / length[-1, -1])


def test_time_warping_agrees_with_the_textbook() -> None:
    drawn, true = np.stack([curves(seed=1), curves(seed=2)]), curves(seed=3)
    expected = [np.mean([reference_dtw(*pair) for pair in zip(of_draw, true, strict=True)]) for of_draw in drawn]
    np.testing.assert_allclose(time_warped_error(drawn, true), expected, rtol=1e-5)


def test_a_delayed_copy_costs_nothing() -> None:
    """It waits three steps, then goes the same way twice as fast."""
    true = curves(steps=20)
    true[:, 17:] = true[:, 16:17]
    delayed = np.concatenate([true[:, :1]] * 3 + [true[:, :17]], axis=1)
    assert time_warped_error(delayed[None], true) == pytest.approx([0], abs=1e-7)
    assert np.linalg.norm(delayed - true, axis=-1).mean() > 0.01


def test_a_shifted_path_costs_its_shift() -> None:
    """Across the direction of motion no warp helps."""
    true = line(0.3)
    shifted = true + np.array([0, 0.04, 0], np.float32)
    assert time_warped_error(shifted[None], true) == pytest.approx([0.04], rel=1e-5)


def test_one_step_is_a_distance() -> None:
    true = np.zeros((1, 1, 3), np.float32)
    assert time_warped_error(true[None] + np.float32(1), true) == pytest.approx([3**0.5])


# --- D_sig


def test_the_signature_knows_no_place_and_no_direction() -> None:
    true = curves()
    turned = true @ Rotation.random(random_state=0).as_matrix().T.astype(np.float32) + np.float32(0.7)
    mirrored = true * np.array([-1, 1, 1], np.float32)
    assert distance_signature_error(np.stack([turned, mirrored]), true) == pytest.approx([0, 0], abs=1e-6)


def test_the_signature_error_of_rest_is_the_mean_distance_within_the_path() -> None:
    true = curves()
    distance = np.linalg.norm(true[:, :, None] - true[:, None], axis=-1)
    off_diagonal = distance.sum() / (len(true) * 20 * 19)
    assert distance_signature_error(np.repeat(true[None, :, :1], 20, axis=2), true) == pytest.approx([off_diagonal])


def test_the_signature_error_of_a_stretched_line() -> None:
    """|i - j| / 10 times 0.1 m longer; the mean of |i - j| over i != j in 0..10 is (11 + 1) / 3."""
    assert distance_signature_error(line(0.3)[None], line(0.2)) == pytest.approx([0.1 / 10 * 12 / 3], rel=1e-5)


# --- local_dist_diff


def test_neighbours_are_the_nearest_others() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0]], np.float32)
    assert nearest_neighbours(points, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert nearest_neighbours(points, 8).shape == (4, 3)


def test_rigid_motions_keep_distances() -> None:
    points = np.random.default_rng(0).normal(size=(10, 1, 3)).astype(np.float32)
    true = np.repeat(points, 5, axis=1)
    turned = true @ Rotation.random(random_state=1).as_matrix().T.astype(np.float32) + np.float32(2)
    assert local_distance_difference(turned[None], true, num_neighbours=3) == pytest.approx([0], abs=1e-5)


def test_growth_changes_distances_by_its_share() -> None:
    """A row of points 1 cm apart grows to twice its size: one neighbour is 1 cm too far at all but the first step."""
    true = np.zeros((5, 4, 3), np.float32)
    true[..., 0] = 0.01 * np.arange(5)[:, None]
    drawn = true.copy()
    drawn[:, 1:] *= 2
    assert local_distance_difference(drawn[None], true, num_neighbours=1) == pytest.approx([0.01 * 3 / 4], rel=1e-4)


# --- patch_nearest_acc


def patches() -> Float32:
    """(I = 3, T = 5, 3): the first goes from the second, at x = 0, to the third, at x = 1."""
    true = np.zeros((3, 5, 3), np.float32)
    true[0, :, 0], true[2, :, 0] = [0.1, 0.2, 0.4, 0.6, 0.9], 1.0
    return true


def test_the_nearest_patch_changes_at_the_right_step() -> None:
    true = patches()
    rest, late = np.repeat(true[:, :1], 5, axis=1), true.copy()
    late[0, 3, 0] = 0.4
    moving = np.array([True, False, False])
    # Of the four later steps: rest is right in the two before the change; late misses one.
    assert nearest_patch_accuracy(np.stack([true, rest, late]), true, moving).tolist() == [1, 0.5, 0.75]


def test_without_a_choice_there_is_no_nearest_patch() -> None:
    true = patches()
    assert np.isnan(nearest_patch_accuracy(true[None, :2], true[:2], np.array([True, False]))).all()
    assert np.isnan(nearest_patch_accuracy(true[None], true, np.zeros(3, np.bool_))).all()


# --- q_acc_dT


def test_directions_are_counted_per_axis() -> None:
    true = line(0.1)
    opposite, across = -true, np.zeros_like(true)
    across[..., 1] = true[..., 0]
    drawn = np.stack([true, opposite, across, 0 * true])
    assert direction_accuracy(drawn, true, span=1, threshold_m=0.003) == pytest.approx([1, 2 / 3, 1 / 3, 2 / 3])


def test_spans_beyond_the_end_are_undefined() -> None:
    assert np.isnan(direction_accuracy(line(0.1)[None], line(0.1), span=11, threshold_m=0.003)).all()
    assert direction_accuracy(line(0.1)[None], line(0.1), span=10, threshold_m=0.003).tolist() == [1]


@pytest.mark.parametrize("stay", [0.61, 0.20, 0.0])
def test_noise_guesses_the_sign_of_what_does_not_stay(stay: float) -> None:
    """Noise always leaves the dead band and has a random sign, so it is right in half of what truly moves.

    These are the shares of staying that the paper's ablation without a VAE implies for spans of 1, 4 and 16 steps;
    it reports 0.194, 0.398 and 0.531.
    """
    rng = np.random.default_rng(0)
    shape = (400, 51, 3)
    step = np.where(rng.random(shape) < stay, 0.0, rng.choice([-0.02, 0.02], shape))
    true = np.cumsum(step, axis=1).astype(np.float32)
    noise = rng.normal(size=(1, *shape)).astype(np.float32)
    found = direction_accuracy(noise, true, span=1, threshold_m=0.003)
    assert found == pytest.approx([0.5 * (1 - stay)], abs=0.01)
    reported = {0.61: 0.194, 0.20: 0.398, 0.0: 0.531}[stay]
    assert found == pytest.approx([reported], abs=0.04)


def test_shapes_must_agree() -> None:
    for metric in (time_warped_error, distance_signature_error):
        with pytest.raises(ShapeError):
            metric(curves()[None, :3], curves())
