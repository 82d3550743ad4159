from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.articulation import PointSpread
from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.hypotheses import cluster_ends, end_covariance

POINTS = np.random.default_rng(0).uniform(-0.05, 0.05, (300, 3)) + np.array([0.1, 0.0, 0.8])
BODY = PointSpread.of(POINTS)
TOLERANCE_M = 0.02


def shifted(*shifts_m: float) -> Float64:
    ends = np.tile(np.eye(4), (len(shifts_m), 1, 1))
    ends[:, 0, 3] = shifts_m
    return ends


def test_ends_that_agree_form_one_cluster() -> None:
    ends = shifted(0.3, -0.2, 0.30, 0.31, -0.21, 0.6)

    clusters = cluster_ends(ends, np.ones(6, np.bool_), BODY, TOLERANCE_M)

    assert [cluster.members for cluster in clusters] == [(0, 2, 3), (1, 4), (5,)]
    assert [cluster.weight for cluster in clusters] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    # 0.30 has the others at 0 and 1 cm, 0.31 both at 1 cm; of two alike the first.
    assert [cluster.representative for cluster in clusters] == [0, 1, 5]


def test_no_member_is_farther_than_the_tolerance() -> None:
    """A chain of ends, each near to the next one, is not one place."""
    ends = shifted(*np.arange(12) * 0.015)

    clusters = cluster_ends(ends, np.ones(12, np.bool_), BODY, TOLERANCE_M)

    assert sorted(member for cluster in clusters for member in cluster.members) == list(range(12))
    for cluster in clusters:
        reach = np.abs(ends[list(cluster.members), 0, 3] - ends[cluster.representative, 0, 3])
        assert reach.max() <= TOLERANCE_M
    assert len(clusters[0].members) == 3


def test_turns_count_by_what_they_do_to_the_points() -> None:
    """A box of 10 cm turned by a quarter on the spot is not where it was."""
    rotations = Rotation.from_rotvec([[0.0, 0.0, 0.0], [0.0, 0.0, 0.02], [0.0, 0.0, np.pi / 2]]).as_matrix()
    ends = se3_from_parts(rotations, BODY.centroid - rotations @ BODY.centroid)

    clusters = cluster_ends(ends, np.ones(3, np.bool_), BODY, TOLERANCE_M)

    assert [cluster.members for cluster in clusters] == [(0, 1), (2,)]


def test_futures_without_a_motion_are_in_no_cluster() -> None:
    valid = np.array([True, False, True])

    clusters = cluster_ends(shifted(0.1, 0.1, 0.1), valid, BODY, TOLERANCE_M)

    assert [cluster.members for cluster in clusters] == [(0, 2)]
    assert clusters[0].weight == pytest.approx(2 / 3)
    assert cluster_ends(shifted(0.1), np.zeros(1, np.bool_), BODY, TOLERANCE_M) == []


def test_covariance_is_that_of_the_drawn_ends() -> None:
    generator = np.random.default_rng(1)
    deviation = generator.multivariate_normal(np.zeros(6), np.diag([1, 4, 9, 1, 2, 3]) * 1e-4, 4000)
    deviation[0] = 0.0
    reported = Rotation.from_rotvec([0.3, -0.8, 0.2]).as_matrix()
    rotations = Rotation.from_rotvec(deviation[:, 3:]).as_matrix() @ reported
    centres = np.array([0.2, 0.1, 0.7]) + deviation[:, :3]
    ends = se3_from_parts(rotations, centres - rotations @ BODY.centroid)

    covariance = end_covariance(ends, ends[0], BODY.centroid)

    np.testing.assert_allclose(covariance, deviation.T @ deviation / 3999, atol=1e-12)
    # Variances of 4000 draws are known to sqrt(2 / 4000) = 2.2 %.
    np.testing.assert_allclose(np.diag(covariance), np.array([1, 4, 9, 1, 2, 3]) * 1e-4, rtol=0.12)


def test_one_end_says_nothing_of_its_spread() -> None:
    assert np.isnan(end_covariance(shifted(0.1), shifted(0.1)[0], BODY.centroid)).all()
    clusters = cluster_ends(shifted(0.1, 0.5), np.ones(2, np.bool_), BODY, TOLERANCE_M)
    assert all(np.isnan(cluster.end_covariance).all() for cluster in clusters)
