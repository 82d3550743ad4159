from __future__ import annotations

import numpy as np
import pytest

from momap_ros.segmentation.scoring import score_instances
from momap_ros.shapes import ShapeError

TRUE = np.repeat(np.array([[0, 1, 1, 2, 2, 2]], np.int32), 4, axis=0)


def test_same_regions_under_other_ids_are_perfect() -> None:
    score = score_instances(np.array([0, 900, 3], np.int32)[TRUE], TRUE)

    np.testing.assert_array_equal(score.ious, [1.0, 1.0])
    assert (score.mean_iou, score.recall, score.num_found) == (1.0, 1.0, 2)


def test_iou_of_a_known_overlap() -> None:
    found = np.repeat(np.array([[0, 0, 1, 1, 2, 2]], np.int32), 4, axis=0)

    # Columns: true 1 = {1, 2}, found 1 = {2, 3}: 1 of 3. True 2 = {3, 4, 5}, found 2 = {4, 5}: 2 of 3.
    score = score_instances(found, TRUE)

    np.testing.assert_allclose(score.ious, [1 / 3, 2 / 3])
    assert score.mean_iou == pytest.approx(0.5)
    assert score.recall == 0.0


def test_the_assignment_is_best_in_total_not_greedy() -> None:
    true = np.array([[1] * 10 + [2] * 6], np.int32)
    found = np.array([[1] * 4 + [2] * 12], np.int32)

    # Found 2 overlaps both: 6/16 with 1, 6/12 with 2; found 1 overlaps 1 alone: 4/10.
    np.testing.assert_allclose(score_instances(found, true).ious, [0.4, 0.5])


def test_one_found_instance_serves_one_true_one() -> None:
    np.testing.assert_allclose(score_instances((TRUE > 0).astype(np.int32), TRUE).ious, [0.0, 3 / 5])


def test_nothing_found_scores_zero_and_nothing_true_is_undefined() -> None:
    nothing = np.zeros_like(TRUE)

    assert score_instances(nothing, TRUE).mean_iou == 0.0
    empty = score_instances(TRUE, nothing)
    assert np.isnan(empty.mean_iou)
    assert np.isnan(empty.recall)
    assert empty.num_found == 2


def test_recall_counts_true_instances_above_three_quarters() -> None:
    found = TRUE.copy()
    found[0, 1] = 0  # 7 of 8 pixels of instance 1 remain
    found[:2, 3:5] = 0  # 8 of 12 pixels of instance 2 remain

    assert score_instances(found, TRUE).recall == 0.5


def test_sizes_must_agree() -> None:
    with pytest.raises(ShapeError, match="axis W must be 6"):
        score_instances(TRUE, TRUE[:, :5])
