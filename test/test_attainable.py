"""benchmarks/attainable.py: demonstrations of one sentence from one first state, as a forecast."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.points import true_trajectories
from momap_ros.evaluation.predictor import NoForecast
from momap_ros.evaluation.scoring import Condition, scene_of
from momap_ros.simulation.episodes import demonstrate_again, simulate_episode
from momap_ros.simulation.views import render_samples

PUT_ON_SHELF, MID_TASK, DIRECTED = 19, 0, 15  # episodes of val


@pytest.fixture(scope="module")
def attainable(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/attainable.py")


def sample_of(index: int) -> Sample:
    episode = simulate_episode("val", index)
    assert episode is not None
    return render_samples(episode, 1, 64)[0]


@pytest.fixture(scope="module")
def directed() -> Sample:
    return sample_of(DIRECTED)


def pixels_of(sample: Sample, *, acted: bool) -> np.ndarray:
    is_acted = (np.array(sample.body_roles) == Role.ACTED)[sample.body_ids]
    rows, columns = np.nonzero((is_acted if acted else sample.body_ids == 0) & np.isfinite(sample.depth_m))
    return np.stack([columns, rows], axis=-1).astype(np.int32)


def test_another_demonstration_begins_in_the_same_state_and_ends_elsewhere() -> None:
    episode = simulate_episode("val", PUT_ON_SHELF, from_rest=True)
    assert episode is not None
    rng = np.random.default_rng(0)

    drawn = [again for again in (demonstrate_again(episode, rng) for _ in range(6)) if again is not None]

    assert len(drawn) >= 2
    for again in drawn:
        assert again.scene.task.about == episode.scene.task.about
        assert np.array_equal(again.rollout.qpos[0], episode.rollout.qpos[0])
    ends = np.array([again.rollout.qpos[-1] for again in (episode, *drawn)])
    assert (np.ptp(ends, axis=0) > 0.005).any()


def test_draws_begin_at_what_is_seen_and_go_where_the_sentence_says(attainable: ModuleType, directed: Sample) -> None:
    scene, acted = scene_of(directed, Condition()), pixels_of(directed, acted=True)

    prediction = attainable.Simulator()(scene, num_hypotheses=4, seed=0)
    drawn, true = prediction.trajectories(acted), true_trajectories(directed, acted)

    assert drawn.shape == (4, *true.shape)
    assert drawn[:, :, 0] == pytest.approx(np.broadcast_to(true[:, 0], drawn[:, :, 0].shape), abs=1e-5)
    ways = (drawn[:, :, -1] - drawn[:, :, 0]).mean(axis=1)
    (true_way,) = (true[None, :, -1] - true[None, :, 0]).mean(axis=1)
    assert np.ptp(ways, axis=0).max() > 1e-3
    # Of four directions on the table the same one is at most 90 degrees away, half of which tilt can add.
    cosines = ways @ true_way / np.linalg.norm(ways, axis=1) / np.linalg.norm(true_way)
    assert (cosines > 0).all()
    background = pixels_of(directed, acted=False)
    at_rest = prediction.trajectories(background)
    assert at_rest == pytest.approx(np.repeat(at_rest[:, :, :1], at_rest.shape[2], axis=2), abs=1e-6)


def test_an_endless_search_ends(attainable: ModuleType, directed: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attainable, "MAX_PLAYED", 2)

    with pytest.raises(NoForecast, match="of 2 demonstrations say the same"):
        attainable.Simulator()(scene_of(directed, Condition()), num_hypotheses=10, seed=0)


def test_a_start_in_the_middle_has_no_other_demonstration(attainable: ModuleType) -> None:
    with pytest.raises(NoForecast, match="begins in the middle"):
        attainable.Simulator()(scene_of(sample_of(MID_TASK), Condition()), num_hypotheses=10, seed=0)


def test_samples_of_another_simulator_are_refused(attainable: ModuleType, directed: Sample) -> None:
    moved = directed.motion_t_from_0.copy()
    moved[-1, :, 0, 3] += 0.001
    scene = scene_of(replace(directed, motion_t_from_0=moved), Condition())

    with pytest.raises(ValueError, match="expected the motion that the simulator plays now, got another; make the"):
        attainable.Simulator()(scene, num_hypotheses=2, seed=0)


def test_a_listener_goes_by_colour_then_by_name(attainable: ModuleType, directed: Sample) -> None:
    def meant_by(text: str, acted: str, *others: str) -> tuple[str, float] | None:
        names = ("world", acted, *others)
        roles = (Role.WORLD, Role.ACTED, *[Role.OBJECT] * len(others))
        ids = np.resize(np.arange(len(names), dtype=np.uint8), directed.body_ids.shape)
        factors = {"acts_on": "object"}
        found: tuple[str, float] | None = attainable.meant_by(
            replace(directed, text=text, body_names=names, body_roles=roles, body_ids=ids, factors=factors)
        )
        return found

    assert meant_by("lift the red can", "red can", "blue can", "green jar") == ("its colour", 1.0)
    assert meant_by("lift the red can", "red can", "red jar") == ("its name", 1.0)
    assert meant_by("lift the can", "red can", "blue can") == ("nothing", 0.5)
    # Names that training never says: of strange objects each could be it, of others none.
    assert meant_by("lift the sponge", "red sponge", "blue can") == ("its name", 1.0)
    assert meant_by("lift the sponge", "red sponge", "blue banana", "red lemon", "green can") == ("nothing", 1 / 3)
    assert meant_by("lift the tovag", "red tovag", "blue can") == ("its name", 1.0)
    assert attainable.meant_by(replace(directed, factors={"acts_on": "fixture"})) is None


def test_rows_that_not_all_have_are_left_out(attainable: ModuleType) -> None:
    scored = {"a": {"rows": [{"key": "1"}, {"key": "2"}]}, "b": {"rows": [{"key": "2"}, {"key": "3"}]}}

    assert attainable.common_rows(scored) == {"a": [{"key": "2"}], "b": [{"key": "2"}]}


def test_skills_are_sorted_by_what_the_checkpoint_loses(attainable: ModuleType) -> None:
    def row(skill: str, best: float) -> dict[str, object]:
        roles = {"acted": {"ade_m": {"best": best, "mean": 2 * best}}}
        return {"skill": skill, "episode": "0", "truth": {"acted": {"static_ade_m": 0.1}}, "roles": roles}

    rows = {"simulator": [row("push", 0.01), row("lift", 0.02), row("lift", 0.04)]}
    rows["ours"] = [row("push", 0.05), row("lift", 0.02), row("lift", 0.04)]

    found = attainable.of_skills(rows)

    assert list(found) == ["lift", "push"]
    assert found["lift"]["n"] == 2
    assert found["lift"]["simulator"] == pytest.approx({"best": 0.03, "mean": 0.06})


def test_committed_tables_are_of_the_committed_numbers(attainable: ModuleType, repository: Path) -> None:
    folder = repository / "benchmarks" / "results" / "evaluation" / "attainable"
    report = json.loads((folder / "attainable.json").read_text())

    assert (folder / "attainable.md").read_text() == attainable.markdown(report)
    for found in report["splits"].values():
        best = {
            name: summary["roles"]["acted"]["ade_share_of_static"]["best"]["value"]
            for name, summary in found["summary"].items()
        }
        assert 0 < best["simulator"] < best["ours"]
