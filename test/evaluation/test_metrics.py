from __future__ import annotations

import numpy as np
import pytest

from momap_ros.evaluation.metrics import average_displacement_error, farthest_displacement, final_displacement_error
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
