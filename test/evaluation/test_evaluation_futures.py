from __future__ import annotations

from evaluation_scenes import BOWL, BOX, CUP, HAND, STEPS, Around, made_sample, moved

from momap_ros.data.sample import Sample
from momap_ros.evaluation.baselines import KnownMotion, RigidOracle, Static
from momap_ros.evaluation.futures import groups_of, moving_objects, score_futures
from momap_ros.evaluation.predictor import Scene
from momap_ros.evaluation.scoring import Condition, Thresholds

FRAME = "futures_0000000_0"


def future(number: int, body: int, metres: tuple[float, float, float]) -> Sample:
    motions = {HAND: moved((0.05, 0, 0)), body: moved(metres)}
    return made_sample(motions, f"{FRAME}_{number}", first_frame=FRAME)


FUTURES = [
    future(0, CUP, (0.10, 0, 0)),
    future(1, CUP, (0.11, 0, 0)),
    future(2, CUP, (0.0, 0.10, 0)),
    future(3, BOWL, (0.10, 0, 0)),
]


def test_groups_begin_with_one_image() -> None:
    alone = made_sample({}, "val_0000000_0")
    other = made_sample({}, "futures_0000001_0_0", first_frame="futures_0000001_0")
    assert [[sample.key for sample in group] for group in groups_of([alone, *FUTURES, other])] == [
        [sample.key for sample in FUTURES]
    ]


def test_objects_that_move_in_any_future_count_but_not_the_robot() -> None:
    objects = moving_objects(FUTURES, 0.02)
    assert [set(FUTURES[0].body_ids[pixels[:, 1], pixels[:, 0]]) for pixels in objects] == [{CUP}, {BOWL}]
    assert moving_objects([made_sample({HAND: moved((0.1, 0, 0)), BOX: moved((0.01, 0, 0))})] * 2, 0.02) == []


def test_coverage_counts_futures_and_distinct_ones() -> None:
    """Draws: the first future (around no offset), and one 6 cm below it, 4 cm from the third at its end."""
    draws = Around(((0.0, 0.0, 0.0), (-0.10, 0.06, 0.0)))
    found = score_futures(FUTURES, [draws, Static(STEPS), RigidOracle()], Condition(num_hypotheses=2), 0)
    # Offsets move every object, so the second draw misses: its bowl is away. The first is 0 and 1 cm from two futures.
    assert found["around"]["end"] == {"futures": 4, "covered": 2, "distinct": 3, "distinct_covered": 1}
    assert found["around"]["path"]["covered"] == 2
    assert found["static"]["end"] == {"futures": 4, "covered": 0, "distinct": 3, "distinct_covered": 0}
    assert found["around"]["episode"] == "futures_0000000"
    assert "rigid oracle" not in found, "it is told one of the futures"


def test_wide_thresholds_cover_everything() -> None:
    wide = Thresholds(covered_end_m=0.2, covered_path_m=0.2)
    found = score_futures(FUTURES, [Static(STEPS)], Condition(thresholds=wide), 0)["static"]
    assert found["end"] == {"futures": 4, "covered": 4, "distinct": 1, "distinct_covered": 1}


def test_no_sentence_is_given() -> None:
    class Listens(Static):
        def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> KnownMotion:
            assert scene.prompt == ""
            assert not scene.hints
            return super().__call__(scene, num_hypotheses=num_hypotheses, seed=seed)

    assert "static" in score_futures(FUTURES, [Listens(STEPS)], Condition(hints=True), 0)
    assert score_futures([made_sample({}, first_frame=FRAME)] * 2, [Static(STEPS)], Condition(), 0) == {}


def test_static_futures_end_where_they_start() -> None:
    """Rest is as far from a future as the object that goes farthest."""
    just = Thresholds(covered_end_m=0.1001, covered_path_m=0.0501)
    found = score_futures(FUTURES, [Static(STEPS)], Condition(thresholds=just), 0)["static"]
    assert (found["end"]["covered"], found["path"]["covered"]) == (3, 3)  # all but the one of 11 cm
