from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from box_scene import BOX, START_NS, forecast, moved, pose, render

from momap_ros.geometry import Float64
from momap_ros.momap import PointTrajectories
from momap_ros.scoring import scorer as scorer_module
from momap_ros.scoring.camera import MovingCameraError
from momap_ros.scoring.scorer import ForecastScorer, positions_at
from momap_ros.scoring.scores import ObjectScore, Outcome, summarise

SPEED_M_S = 0.06
STEP_S = 0.25


def box_at(time_s: float) -> Float64:
    """It slides to the right and turns."""
    return moved(pose(), (SPEED_M_S * time_s, 0, 0), 10 * time_s)


def box_forecast(scales: tuple[float, ...] = (1.0,)) -> PointTrajectories:
    steps = [box_at(step * STEP_S) for step in range(9)]
    return forecast(*render(box_at(0)), steps, step_s=STEP_S, scales=scales)


def follow(scorer: ForecastScorer, times_s: list[float]) -> list[ObjectScore]:
    return [score for time_s in times_s for score in scorer.observe(*render(box_at(time_s), time_s))]


def true_displacement_m(time_s: float) -> float:
    path = forecast(*render(box_at(0)), [box_at(0), box_at(time_s)], step_s=1.0).positions[0]
    return float(np.linalg.norm(path[:, 1] - path[:, 0], axis=1).mean())


def test_the_true_forecast_is_exact_and_standing_still_is_off_by_the_motion() -> None:
    scorer = ForecastScorer((0.5, 1.0, 2.0))
    scorer.add(box_forecast((1.0, 0.0, 0.5)), *render(box_at(0)))
    scores = follow(scorer, [0.25 * i for i in range(1, 9)])
    assert [(s.horizon_s, s.lead_s, s.instance_id, s.label) for s in scores] == [
        (h, h, BOX, "box") for h in (0.5, 1.0, 2.0)
    ]
    for score in scores:
        displacement_m = true_displacement_m(score.lead_s)
        exact, static, half = score.errors_m
        assert score.outcome == Outcome.SCORED
        assert exact == score.error_m == score.best_error_m < 0.004
        assert score.static_error_m == pytest.approx(displacement_m, abs=0.004)
        assert static == pytest.approx(score.static_error_m)
        assert half == pytest.approx(displacement_m / 2, abs=0.004)
    assert scorer.num_pending == 0


def test_a_horizon_takes_the_frame_nearest_to_it_and_the_forecast_at_that_very_time() -> None:
    scorer = ForecastScorer((0.5, 1.0, 1.5))
    scorer.add(box_forecast(), *render(box_at(0)))
    # 0.4 is nearer to 0.5 than 0.8, the next, would be; 0.8 and 1.2 are as near to 1.0; nothing is near 1.5.
    scores = follow(scorer, [0.1, 0.2, 0.4, 0.8, 1.2, 2.0])
    assert [(s.horizon_s, s.lead_s) for s in scores] == [(0.5, 0.4), (1.0, 0.8)]
    assert max(s.error_m for s in scores) < 0.003


def test_horizons_beyond_a_forecast_are_not_asked_for() -> None:
    scorer = ForecastScorer((1.0, 2.0, 5.0))
    scorer.add(box_forecast(), *render(box_at(0)))
    assert len(follow(scorer, [0.5, 1.0, 1.5, 2.0])) == 2
    assert scorer.num_pending == 0


@pytest.mark.parametrize(
    ("later", "outcome"),
    [
        ({"screen": (0, 319 // 2 + 40)}, Outcome.OCCLUDED),
        ({"gone": True, "screen": (100, 220)}, Outcome.OCCLUDED),
        ({"gone": True}, Outcome.LOST),
        ({"size_m": np.array([0.05, 0.2, 0.03])}, Outcome.UNMATCHED),
    ],
)
def test_what_cannot_be_measured_is_named(later: dict[str, object], outcome: Outcome) -> None:
    scorer = ForecastScorer((1.0,))
    scorer.add(box_forecast(), *render(box_at(0)))
    gone = later.pop("gone", False)
    (score,) = scorer.observe(*render(None if gone else box_at(0), 1.0, **later))  # type: ignore[arg-type]
    assert score.outcome == outcome
    assert np.isnan([score.error_m, score.best_error_m, score.static_error_m]).all()
    later["gone"] = gone


def test_a_camera_that_moves_is_refused_estimated_or_given() -> None:
    world_from_camera = moved(np.eye(4), (0.03, 0.01, -0.02), 1.5)
    first, later = render(box_at(0)), render(box_at(1), 1.0, world_from_camera=world_from_camera)
    refusing = ForecastScorer((1.0,))
    refusing.add(box_forecast(), *first)
    with pytest.raises(
        MovingCameraError, match=r"expected one that rests.*shifted by \d+ pixels of 640.*camera's poses"
    ):
        refusing.observe(*later)
    assert refusing.num_pending == 0
    estimating = ForecastScorer((1.0,), estimate_camera=True)
    estimating.add(box_forecast(), *first)
    given = ForecastScorer((1.0,))
    given.add(box_forecast(), *first, world_from_camera=moved(np.eye(4), (1, 2, 3), 40))
    pose_later = moved(np.eye(4), (1, 2, 3), 40) @ world_from_camera
    for scores in (estimating.observe(*later), given.observe(*later, world_from_camera=pose_later)):
        assert scores[0].error_m < 0.005
        assert scores[0].static_error_m == pytest.approx(true_displacement_m(1.0), abs=0.005)
    given.add(box_forecast(), *first, world_from_camera=np.eye(4))
    with pytest.raises(MovingCameraError, match="give it for all frames or for none"):
        given.observe(*render(box_at(1), 1.0))


def test_memory_is_bounded_and_can_be_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "MAX_PENDING", 3)
    scorer = ForecastScorer((1.0,))
    for _ in range(5):
        scorer.add(box_forecast(), *render(box_at(0)))
    assert (scorer.num_pending, scorer.dropped) == (3, 2)
    scorer.reset()
    assert scorer.num_pending == 0
    assert scorer.observe(*render(box_at(1), 1.0)) == []


def test_a_forecast_of_another_frame_is_refused() -> None:
    scorer = ForecastScorer()
    frame, instances = render(box_at(0))
    with pytest.raises(ValueError, match=r"expected those of the frame at .* in 'optical'"):
        scorer.add(dataclasses.replace(box_forecast(), frame_id="base"), frame, instances)
    with pytest.raises(ValueError, match="expected those of the frame at"):
        scorer.add(box_forecast(), dataclasses.replace(frame, stamp_ns=START_NS + 1), instances)
    with pytest.raises(ValueError, match="expected positive seconds"):
        ForecastScorer((0.0, 1.0))


def test_positions_between_the_steps_lie_on_the_line_and_end_with_the_forecast() -> None:
    positions = np.array([[[0, 0, 0], [1, 0, 0], [1, 2, 0]]], np.float32)
    for step, expected in ((0, (0, 0, 0)), (0.25, (0.25, 0, 0)), (1.5, (1, 1, 0)), (2, (1, 2, 0)), (7, (1, 2, 0))):
        np.testing.assert_allclose(positions_at(positions, step), [expected])


def test_the_summary_is_of_what_moved() -> None:
    def score(outcome: Outcome, static_m: float, *errors_m: float, horizon_s: float = 1.0) -> ObjectScore:
        return ObjectScore(0, 1, "", horizon_s, horizon_s, outcome, errors_m, static_m)

    scores = [
        score(Outcome.SCORED, 0.1, 0.02, 0.01),
        score(Outcome.SCORED, 0.3, 0.08, 0.2),
        score(Outcome.SCORED, 0.002, 0.006, 0.001),
        score(Outcome.LOST, np.nan),
        score(Outcome.SCORED, 0.5, 0.5, horizon_s=2.0),
    ]
    one, two, five = summarise(scores, (1.0, 2.0, 5.0), moving_threshold_m=0.02)
    assert one.counts == {Outcome.SCORED: 3, Outcome.OCCLUDED: 0, Outcome.LOST: 1, Outcome.UNMATCHED: 0}
    assert (one.num_moved, one.num_still) == (2, 1)
    assert one.moved_error_m == pytest.approx(0.05)
    assert one.moved_best_error_m == pytest.approx(0.045)
    assert one.moved_static_error_m == pytest.approx(0.2)
    assert one.skill == pytest.approx(0.75)
    assert (one.still_error_m, one.still_static_error_m) == pytest.approx((0.006, 0.002))
    assert two.skill == pytest.approx(0.0)
    assert five.num_moved == 0
    assert np.isnan(five.skill)
