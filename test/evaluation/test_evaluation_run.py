from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_scenes import CUP, STEPS, Around, made_sample, moved, pushed

from momap_ros.data.sample import write_shard
from momap_ros.evaluation import run
from momap_ros.evaluation.baselines import RigidOracle, Static
from momap_ros.evaluation.run import Entrant, Plan, chunks_of, score_split
from momap_ros.evaluation.scoring import Condition, Thresholds

CONDITION = Condition(num_hypotheses=2)
ENTRANTS = (Entrant(Static(STEPS), "static"), Entrant(RigidOracle(), "rigid"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two shards of five views of three episodes, and six; chunks of two samples."""
    keys = [f"val_{episode:07d}_{view}" for episode in range(6) for view in range(2)][:11]
    write_shard(tmp_path / "data" / "val-0000000-0000003.tar", [pushed(key) for key in keys[:5]])
    write_shard(tmp_path / "data" / "val-0000003-0000006.tar", [pushed(key) for key in keys[5:]])
    return Plan(tmp_path / "data", tmp_path / "out", ENTRANTS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHUNK_SAMPLES", 2)


def test_chunks_are_whole_episodes(plan: Plan) -> None:
    first, second = sorted(plan.data.iterdir())
    assert [(chunk.start, chunk.stop) for chunk in chunks_of(first, None)] == [(0, 2), (2, 4), (4, 5)]
    assert [(chunk.start, chunk.stop) for chunk in chunks_of(first, 3)] == [(0, 2), (2, 4)]
    # The fifth key is another view of the third episode, alone at the start of the second shard.
    assert [(chunk.start, chunk.stop) for chunk in chunks_of(second, None)] == [(0, 3), (3, 5), (5, 6)]


def test_all_samples_are_scored_once_and_in_order(plan: Plan) -> None:
    found = score_split(plan, "val", CONDITION)
    assert list(found) == ["static", "rigid oracle"]
    for content in found.values():
        keys = [row["key"] for row in content["rows"]]
        assert keys == sorted(keys)
        assert len(keys) == 11
        assert content["no_forecast"] == content["groups"] == []
    some = score_split(replace(plan, limit=7), "val", CONDITION)
    assert [row["key"] for row in some["static"]["rows"]] == [row["key"] for row in found["static"]["rows"]][:8]


def test_nothing_is_done_twice(plan: Plan) -> None:
    first = score_split(plan, "val", CONDITION)
    files = {path: path.stat().st_mtime_ns for path in plan.out.rglob("*.json")}
    assert len(files) == 12
    gone = sorted(files)[3]
    gone.unlink()
    assert score_split(plan, "val", CONDITION) == first
    assert [path for path, at in files.items() if path.stat().st_mtime_ns != at] == [gone]
    # Another predictor later costs only itself.
    more = replace(plan, entrants=(*ENTRANTS, Entrant(Around(((0.0, 0.0, 0.0),)), "around")))
    again = score_split(more, "val", CONDITION)
    assert {name: again[name] for name in first} == first
    assert len(again["around"]["rows"]) == 11
    assert all(path.stat().st_mtime_ns == at for path, at in files.items() if path != gone)


def test_rows_of_another_evaluation_are_refused(plan: Plan) -> None:
    score_split(plan, "val", CONDITION)
    changed = replace(CONDITION, thresholds=Thresholds(moving_m=0.03))
    with pytest.raises(ValueError, match="expected rows of this evaluation, got some with another condition; choose"):
        score_split(plan, "val", changed)
    other = replace(plan, entrants=(Entrant(Static(STEPS), "other weights"),))
    with pytest.raises(ValueError, match="another predictor"):
        score_split(other, "val", CONDITION)
    keys = [f"val_{number // 2:07d}_{number % 2}" for number in range(5)]
    write_shard(min(plan.data.iterdir()), [pushed(key, 0.2) for key in keys])
    with pytest.raises(ValueError, match="shard_sha256"):
        score_split(plan, "val", CONDITION)


def test_conditions_have_their_own_rows(plan: Plan) -> None:
    score_split(plan, "val", CONDITION)
    score_split(plan, "val", replace(CONDITION, prompt=False))
    folders = {path.parents[1].name for path in plan.out.rglob("*.json")}
    assert folders == {"true_text", "true_no_text"}
    content = json.loads(next(plan.out.rglob("*.json")).read_text())
    assert content["identity"]["condition"]["thresholds"]["moving_m"] == 0.02


def test_futures_of_one_frame_are_scored_together(tmp_path: Path) -> None:
    samples = [
        made_sample({CUP: moved((0.1 * number, 0, 0))}, f"futures_0000000_0_{number}", first_frame="futures_0000000_0")
        for number in range(5)
    ]
    write_shard(tmp_path / "futures-0000000-0000001.tar", samples)
    found = score_split(Plan(tmp_path, tmp_path / "out", ENTRANTS), "futures", CONDITION)
    (group,) = found["static"]["groups"]
    # The first future rests; the others go 10 cm and more.
    assert group["end"] == {"futures": 5, "covered": 1, "distinct": 5, "distinct_covered": 1}
    assert found["rigid oracle"]["groups"] == []
