from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from evaluation_scenes import BOWL, CUP, FINGER, HAND, STEPS, Around, made_sample, moved, pushed

from momap_ros.data.sample import Role
from momap_ros.evaluation.baselines import ConstantVelocityOracle, RigidOracle, Static
from momap_ros.evaluation.points import role_image, true_trajectories
from momap_ros.evaluation.predictor import MoMapPredictor, NoForecast, Scene
from momap_ros.evaluation.scoring import Condition, Thresholds, episode_of, scene_of, score_sample
from momap_ros.momap import direction_flags

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.evaluation.predictor import Predictor
    from momap_ros.evaluation.scoring import Row
    from momap_ros.geometry import Float32
    from momap_ros.instances import Int32

STATIC = Static(STEPS)


def row_of(sample: Sample, predictor: Predictor, condition: Condition | None = None, seed: int = 0) -> Row:
    row = score_sample(sample, [predictor], condition or Condition(), seed)[predictor.name]
    assert row is not None
    return row


def test_a_perfect_predictor_has_perfect_scores() -> None:
    for offsets in (((0.0, 0.0, 0.0),), ((0.0, 0.0, 0.0), (0.3, 0.0, 0.0))):
        row = row_of(pushed(), Around(offsets))
        for role in ("acted", "robot", "all"):
            figures = row["roles"][role]
            for name in ("ade_m", "fde_m", "ate_dtw_m", "d_sig_m", "local_dist_diff_m"):
                assert figures[name]["best"] == pytest.approx(0.0, abs=1e-6)
            for name in ("fg_mask_iou", "patch_nearest_acc", "q_acc_1", "q_acc_4", "q_acc_16"):
                assert figures[name]["best"] == 1.0


def test_offsets_are_found_again() -> None:
    """Two draws, 3 and 5 cm beside the truth at all steps but the first."""
    row = row_of(pushed(), Around(((0.0, 0.03, 0.0), (0.0, 0.0, 0.05))))
    late = (STEPS - 1) / STEPS
    for role in ("acted", "robot", "all"):
        figures = row["roles"][role]
        assert figures["ade_m"] == pytest.approx(
            {"best": 0.03 * late, "selected": 0.03 * late, "mean": 0.04 * late}, rel=1e-4
        )
        assert figures["fde_m"] == pytest.approx({"best": 0.03, "selected": 0.03, "mean": 0.04}, rel=1e-4)
        # Distances to the truth less half of that between the draws.
        assert figures["energy_end_m"] == pytest.approx(0.04 - 0.5 * 34**0.5 / 100, rel=1e-3)
        # Mean (0, 1.5, 2.5) cm; each draw is half of their distance from it, and N - 1 = 1.
        assert figures["error_end"] == pytest.approx(8.5e-4, rel=1e-3)
        assert figures["variance_end"] == pytest.approx(2 * 34e-4 / 4, rel=1e-3)
        assert figures["unknown"] == 0
    assert row["duration_ratio"] == pytest.approx(0.2 / (2.0 / (STEPS - 1)))


@dataclass(frozen=True)
class Drawn:
    """Draws made of the truth by a function of it."""

    change: Callable[[Float32], Float32]
    name: str = "drawn"
    told: str = ""

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> DrawnPrediction:  # noqa: ARG002
        return DrawnPrediction(scene, self.change)


@dataclass(frozen=True)
class DrawnPrediction:
    """(P, T, 3) to (N, P, T, 3)."""

    scene: Scene
    change: Callable[[Float32], Float32]
    step_s: float = float("nan")

    def trajectories(self, pixels: Int32) -> Float32:
        assert self.scene.sample is not None
        return self.change(true_trajectories(self.scene.sample, pixels))

    def instance_moving_probability(self) -> dict[int, float]:
        return {}


def test_the_draw_with_the_best_ade_decides_all_columns() -> None:
    """The first draw jumps away at the end, the second is beside the truth all the time but for the end."""

    def change(true: Float32) -> Float32:
        drawn = np.stack([true, true])
        drawn[0, :, -1, 1] += 0.2
        drawn[1, :, 1:-1, 1] += 0.02
        return drawn

    figures = row_of(pushed(), Drawn(change))["roles"]["acted"]
    assert figures["ade_m"]["selected"] == figures["ade_m"]["best"] == pytest.approx(0.2 / STEPS, rel=1e-4)
    assert figures["fde_m"] == pytest.approx({"best": 0.0, "selected": 0.2, "mean": 0.1}, abs=1e-6)


def test_static_scores_are_those_of_the_true_motion() -> None:
    """The cup goes 10 cm evenly: 5 cm on average, 10 at the end; its camera x is right in none of the windows."""
    row = row_of(pushed(), STATIC)
    figures = row["roles"]["acted"]
    assert row["truth"]["acted"]["static_ade_m"] == pytest.approx(0.05, rel=1e-4)
    assert row["truth"]["acted"]["static_fde_m"] == pytest.approx(0.10, rel=1e-4)
    assert row["truth"]["acted"]["step_m"] == pytest.approx(0.1 / (STEPS - 1) / 3, rel=1e-4)
    assert figures["ade_m"]["best"] == figures["ade_m"]["mean"] == pytest.approx(0.05, rel=1e-4)
    assert figures["energy_end_m"] == pytest.approx(0.1, rel=1e-4)
    assert figures["fg_mask_iou"]["best"] == 0
    for span in (1, 4, 16):
        assert figures[f"q_acc_{span}"]["mean"] == pytest.approx(2 / 3)
    assert figures["local_dist_diff_m"]["best"] == pytest.approx(0.0, abs=1e-6)
    assert "variance_end" not in figures
    assert row["right_object"] == 0.0
    assert row["chance"] == pytest.approx(1 / 3)


def test_the_rigid_oracle_leaves_what_is_not_rigid() -> None:
    """The cup is one body; hand and finger turn against each other but are one instance."""
    row = row_of(pushed(), RigidOracle())
    assert row["roles"]["acted"]["ade_m"]["best"] == pytest.approx(0.0, abs=1e-6)
    robot = row["roles"]["robot"]["ade_m"]["best"]
    assert 1e-4 < robot < row["truth"]["robot"]["static_ade_m"]
    assert row["right_object"] == 1.0


def test_constant_velocity_is_exact_for_even_motion() -> None:
    row = row_of(made_sample({CUP: moved((0.1, 0.05, -0.02))}), ConstantVelocityOracle())
    assert row["roles"]["acted"]["ade_m"]["best"] == pytest.approx(0.0, abs=1e-5)
    # A finger that turns leaves the tangent.
    assert row_of(pushed(), ConstantVelocityOracle())["roles"]["robot"]["fde_m"]["best"] > 1e-3


def test_the_wrong_object_is_noticed() -> None:
    wrong = made_sample({BOWL: moved((0.1, 0, 0))})

    def follow(_: Float32) -> Float32:
        return np.zeros(0, np.float32)

    class Bowl(Drawn):
        def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> DrawnPrediction:  # noqa: ARG002
            return DrawnPrediction(replace(scene, sample=wrong), lambda true: true[None])

    row = row_of(made_sample({CUP: moved((0.1, 0, 0))}), Bowl(follow))
    assert row["right_object"] == 0.0
    assert row["roles"]["acted"]["ade_m"]["best"] == pytest.approx(0.05, rel=1e-4)
    # Cup and bowl have the same size, so they share nothing of their union.
    assert row["roles"]["all"]["fg_mask_iou"]["best"] == 0.0


def test_unknown_points_are_forecast_to_rest() -> None:
    def nothing(true: Float32) -> Float32:
        drawn = np.repeat(true[None], 2, axis=0)
        drawn[:, :, 1:] = np.nan
        return drawn

    row = row_of(pushed(), Drawn(nothing))
    for role in ("acted", "robot"):
        assert row["roles"][role]["unknown"] == pytest.approx((STEPS - 1) / STEPS)
        assert row["roles"][role]["ade_m"]["best"] == pytest.approx(row["truth"][role]["static_ade_m"])


def test_still_scenes_ask_for_stillness() -> None:
    still = made_sample({})

    def one_moves(true: Float32) -> Float32:
        drawn = np.stack([true, true])
        drawn[1, :, -1] += 0.1
        return drawn

    row = row_of(still, Drawn(one_moves))
    assert row["still"] == 0.5
    assert "all" not in row["roles"]
    assert "ate_dtw_m" not in row["roles"]["acted"]
    assert "still" not in row_of(pushed(), STATIC)


def test_visible_and_occluded_are_apart() -> None:
    """Off by 4 cm where seen and 8 cm where not."""
    sample = pushed()
    visible = np.ones((STEPS, 64, 64), np.bool_)
    visible[STEPS // 2 :] = False

    def change(true: Float32) -> Float32:
        drawn: Float32 = true[None].copy()
        drawn[:, :, : STEPS // 2, 2] += 0.04
        drawn[:, :, STEPS // 2 :, 2] += 0.08
        return drawn

    figures = row_of(replace(sample, visible=visible), Drawn(change))["roles"]["acted"]
    assert figures["ade_visible_m"]["best"] == pytest.approx(0.04, rel=1e-4)
    assert figures["ade_occluded_m"]["best"] == pytest.approx(0.08, rel=1e-4)
    assert "ade_visible_m" not in row_of(sample, Drawn(change))["roles"]["acted"]


def test_stated_probabilities_are_kept_with_what_happened() -> None:
    row = row_of(pushed(), Around(((0.0, 0.0, 0.0),), probability=0.9))
    assert sorted(row["moving"]) == [
        ("acted", 0.9, True),
        ("other", 0.9, False),
        ("other", 0.9, False),
        ("robot", 0.9, True),
    ]
    assert row_of(pushed(), STATIC)["moving"] == []


def test_thresholds_count() -> None:
    """The cup goes 2.5 cm: it moves, or not."""
    sample = made_sample({CUP: moved((0.025, 0, 0))})
    assert row_of(sample, STATIC)["roles"]["acted"]["fg_mask_iou"]["best"] == 0.0
    strict = Condition(thresholds=Thresholds(moving_m=0.03))
    assert row_of(sample, STATIC, strict)["roles"]["acted"]["fg_mask_iou"]["best"] == 1.0


def test_all_predictors_see_the_same_and_may_decline() -> None:
    scenes: list[Scene] = []

    @dataclass(frozen=True)
    class Declines:
        name: str
        told: str = ""

        def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> DrawnPrediction:  # noqa: ARG002
            scenes.append(scene)
            raise NoForecast("nothing to say")

    rows = score_sample(pushed(), [Declines("a"), STATIC, Declines("b")], Condition(), 0)
    assert list(rows) == ["a", "static", "b"]
    assert rows["a"] is None
    assert rows["static"] is not None
    assert scenes[0] is scenes[1]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"predictor drawn: expected trajectories .* got \("):
        row_of(pushed(), Drawn(lambda true: true[None, :, :-1]))


def test_conditions_are_what_predictors_get() -> None:
    sample = pushed()
    assert scene_of(sample, Condition()).prompt == "push the cup"
    assert not scene_of(sample, Condition()).hints
    assert scene_of(sample, Condition(prompt=False)).prompt == ""
    hints = scene_of(sample, Condition(hints=True)).hints
    assert {i: list(flags) for i, flags in hints.items()} == {
        i: flags.tolist() for i, flags in sample.direction_flags().items()
    }
    assert list(hints[CUP]) == direction_flags(np.array([0.1, 0.0, 0.0]), 0.02).tolist() == [1, 0, 0]


def test_views_and_futures_belong_to_their_episode() -> None:
    assert episode_of("val_0000012_1") == episode_of("val_0000012_0") == "val_0000012"
    assert episode_of("futures_0000003_1_7") == "futures_0000003"
    assert episode_of("my_split_0000003_1") == "my_split_0000003"
    assert episode_of("kitchen") == "kitchen"


def test_a_model_that_moves_nothing_scores_as_static(tiny_checkpoint: Path, simulated: list[Sample]) -> None:
    model = MoMapPredictor(str(tiny_checkpoint), 1)
    with torch.no_grad():
        for parameter in model.pipeline.denoiser.conv_out.parameters():
            parameter.zero_()
    for sample in simulated[:3]:
        row = row_of(sample, model, Condition(num_hypotheses=2))
        for role, figures in row["roles"].items():
            static = pytest.approx(row["truth"][role]["static_ade_m"], rel=1e-5)
            assert figures["ade_m"] == {"best": static, "selected": static, "mean": static}
        assert row["right_object"] == 0.0  # nothing moves, so nothing moves farthest
        assert role_image(sample).max() > Role.WORLD


def test_equal_seeds_give_equal_rows(tiny_checkpoint: Path, simulated: list[Sample]) -> None:
    model = MoMapPredictor(str(tiny_checkpoint), 1)
    condition = Condition(num_hypotheses=2)
    first, again, other = (row_of(simulated[0], model, condition, seed) for seed in (3, 3, 4))
    assert first == again
    assert first["roles"]["acted"]["ade_m"] != other["roles"]["acted"]["ade_m"]
    # What the rest of this file is about happens to the model's draws as well.
    assert first["hypotheses"] == 2
    assert {case[0] for case in first["moving"]} <= {"acted", "other", "robot"}
    assert len(first["moving"]) > 0


def test_the_hand_is_one_instance() -> None:
    scene = scene_of(pushed(), Condition())
    assert HAND in scene.instances.areas_px
    assert FINGER not in scene.instances.areas_px
