from __future__ import annotations

import numpy as np
import pytest

from momap_ros.evaluation.metrics import (
    average_displacement_error,
    energy_score,
    farthest_displacement,
    final_displacement_error,
    masked_displacement_error,
    root_mean_square_distance,
    spread_and_error,
)
from momap_ros.geometry import Float32
from momap_ros.shapes import ShapeError


def straight(velocity: tuple[float, float, float], start: tuple[float, float, float] = (0, 0, 1)) -> Float32:
    """(P = 3, T = 5, 3) three points moving alike, one step a second."""
    time = np.arange(5)[:, None]
    track = np.array(start) + time * np.array(velocity)
    return np.stack([track, track + 0.1, track - 0.2]).astype(np.float32)


def test_errors_of_a_perfect_forecast_are_zero() -> None:
    true = straight((0.1, 0, 0))
    assert average_displacement_error(true[None], true) == 0
    assert final_displacement_error(true[None], true) == 0


def test_errors_of_straight_motions_are_known() -> None:
    """Drawn at twice the speed: the error at step t is t times the true speed, 0.05 m."""
    true, drawn = straight((0.03, 0.04, 0)), straight((0.06, 0.08, 0))
    still = straight((0, 0, 0))
    hypotheses = np.stack([drawn, still, true])
    np.testing.assert_allclose(average_displacement_error(hypotheses, true), [0.1, 0.1, 0], atol=1e-6)
    np.testing.assert_allclose(final_displacement_error(hypotheses, true), [0.2, 0.2, 0], atol=1e-6)


def test_errors_are_means_over_points() -> None:
    true = straight((0, 0, 0))
    drawn = true.copy()
    drawn[1, -1] += [0.3, 0, 0]  # one of three points, at one of five steps
    assert average_displacement_error(drawn[None], true)[0] == pytest.approx(0.3 / 15, rel=1e-5)
    assert final_displacement_error(drawn[None], true)[0] == pytest.approx(0.1, rel=1e-5)


def test_errors_do_not_depend_on_the_camera_frame() -> None:
    rng = np.random.default_rng(0)
    true, drawn = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 5, 3), (2, 3, 5, 3)))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    for error in (average_displacement_error, final_displacement_error):
        np.testing.assert_allclose(error(drawn, true), error(drawn @ turn.T + 3, true @ turn.T + 3), rtol=1e-5)


def test_the_farthest_displacement_is_that_of_the_centroid() -> None:
    there_and_back = straight((0, 0, 0))
    there_and_back[:, 2] += [0.3, 0.4, 0]
    spreading = straight((0, 0, 0))
    spreading[1, 1:, 0] += 5
    spreading[2, 1:, 0] -= 5
    found = farthest_displacement(np.stack([there_and_back, spreading, straight((0.1, 0, 0))]))
    np.testing.assert_allclose(found, [0.5, 0, 0.4], atol=1e-6)


def test_other_shapes_are_refused() -> None:
    true = straight((0, 0, 0))
    with pytest.raises(ShapeError, match="drawn"):
        average_displacement_error(true, true)
    with pytest.raises(ShapeError, match="true"):
        final_displacement_error(true[None], true[:2])


def test_an_energy_score_is_the_distance_of_a_single_draw() -> None:
    """All coordinates off by (3, 0, 4) cm: the root mean square distance is 5 cm."""
    true = straight((0.1, 0, 0))
    drawn = true + np.array([0.03, 0, 0.04], np.float32)
    assert energy_score(drawn[None], true) == pytest.approx(0.05, rel=1e-5)
    assert root_mean_square_distance(drawn, true) == pytest.approx(0.05, rel=1e-5)


def test_an_energy_score_of_two_draws() -> None:
    """Each 1 cm away on either side: 1 cm to the truth less half of 2 cm between them."""
    true = straight((0.1, 0, 0))
    offset = np.array([0, 0.01, 0], np.float32)
    assert energy_score(np.stack([true + offset, true - offset]), true) == pytest.approx(0.0, abs=1e-6)
    assert energy_score(np.stack([true + offset, true + offset]), true) == pytest.approx(0.01, rel=1e-4)


def test_the_energy_score_rewards_what_is_believed() -> None:
    """Truth N(0, 1): draws with the same spread score better than draws with half or twice of it (a proper score)."""
    rng = np.random.default_rng(0)
    scores = {spread: 0.0 for spread in (0.5, 1.0, 2.0)}
    for _ in range(400):
        true = rng.normal(size=(1, 1, 3)).astype(np.float32)
        for spread in scores:
            scores[spread] += energy_score((spread * rng.normal(size=(10, 1, 1, 3))).astype(np.float32), true) / 400
    assert scores[1.0] < scores[0.5] - 0.02
    assert scores[1.0] < scores[2.0] - 0.02
    # The mean distance of two standard normals in 3D is sqrt(2) 2 sqrt(2 / pi); a perfect forecast scores half of it.
    assert scores[1.0] == pytest.approx(0.5 * 2**0.5 * 2 * (2 / np.pi) ** 0.5, abs=0.1)


def test_draws_like_truths_have_the_spread_of_their_error() -> None:
    """N = 10 draws and the truth from one distribution: error = 11 / 10 x variance."""
    rng = np.random.default_rng(0)
    found = np.array(
        [
            spread_and_error(rng.normal(size=(10, 4, 5, 3)).astype(np.float32), true)
            for true in rng.normal(size=(300, 4, 5, 3)).astype(np.float32)
        ]
    ).mean(axis=0)
    assert found[0] == pytest.approx(3.0, rel=0.02)  # three coordinates of variance 1
    assert found[1] / found[0] == pytest.approx(1.1, rel=0.02)


def test_masks_choose_points_and_steps() -> None:
    true = straight((0.0, 0, 0))
    drawn = true.copy()
    drawn[0, 3:, 1] += 0.2
    mask = np.zeros((3, 5), np.bool_)
    mask[0, 2:4] = True
    assert masked_displacement_error(drawn[None], true, mask) == pytest.approx([0.1])
    assert np.isnan(masked_displacement_error(drawn[None], true, mask & False)).all()
