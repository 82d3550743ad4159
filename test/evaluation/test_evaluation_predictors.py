from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_scenes import STEPS, pushed

from momap_ros.data.sample import write_shard
from momap_ros.evaluation.predictor import MoMapPredictor
from momap_ros.evaluation.predictors import NAMES, build_entrants


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shard(tmp_path / "train-0000000-0000004.tar", [pushed(f"train_{i:07d}_0", 0.04 * i) for i in range(1, 5)])
    return tmp_path


def test_names_become_predictors(data: Path, tiny_checkpoint: Path) -> None:
    entrants = build_entrants(NAMES, str(tiny_checkpoint), [1, 4], data=data, num_steps=STEPS)
    told = {entrant.predictor.name: entrant.predictor.told for entrant in entrants}
    assert told == {
        "ours, 1 step": "",
        "ours, 4 steps": "",
        "ours without projection, 1 step": "",
        "ours without projection, 4 steps": "",
        "static": "",
        "skill mean": "the skill and the acted object",
        "retrieval": "the skill and the acted object",
        "constant velocity": "the first step",
        "rigid oracle": "the truth",
    }


def test_identities_change_with_what_is_learned(data: Path) -> None:
    (before,) = build_entrants(["skill_mean"], "small", [4], data=data, num_steps=STEPS)
    (again,) = build_entrants(["skill_mean"], "small", [4], data=data, num_steps=STEPS)
    assert before.identity == again.identity
    write_shard(data / "train-0000004-0000008.tar", [pushed(f"train_{i:07d}_0") for i in range(4, 8)])
    (after,) = build_entrants(["skill_mean"], "small", [4], data=data, num_steps=STEPS)
    assert after.identity != before.identity


def test_ones_own_predictor_is_found_by_name(data: Path) -> None:
    (entrant,) = build_entrants(
        ["momap_ros.evaluation.baselines:RigidOracle"], "small", [4], data=data, num_steps=STEPS
    )
    assert entrant.predictor.name == "rigid oracle"
    (named,) = build_entrants(
        ["momap_ros.evaluation.predictor:MoMapPredictor=my_folder"], "small", [4], data=data, num_steps=STEPS
    )
    assert named.predictor == MoMapPredictor("my_folder")


def test_mistakes_are_named(data: Path) -> None:
    with pytest.raises(ValueError, match=r"expected some of ours, .*, static, .* got 'statik'"):
        build_entrants(["statik"], "small", [4], data=data, num_steps=STEPS)
    with pytest.raises(ValueError, match=r"got \['static'\] more than once"):
        build_entrants(["static", "static"], "small", [4], data=data, num_steps=STEPS)
    with pytest.raises(FileNotFoundError, match="train"):
        build_entrants(["retrieval"], "small", [4], data=data / "empty", num_steps=STEPS)


def test_ones_own_weights_are_part_of_the_identity(data: Path, tmp_path: Path) -> None:
    def identity() -> str:
        name = f"momap_ros.evaluation.predictor:MoMapPredictor={tmp_path / 'weights'}"
        (entrant,) = build_entrants([name], "small", [4], data=data, num_steps=STEPS)
        return entrant.identity

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.bin").write_bytes(b"1")
    before = identity()
    (tmp_path / "weights" / "README.md").write_text("A card: whoever corrects it has not trained again.")
    assert identity() == before
    (tmp_path / "weights" / "a.bin").write_bytes(b"2")
    assert identity() != before


def test_the_projection_is_part_of_the_identity(data: Path, tiny_checkpoint: Path) -> None:
    names = ["ours", "ours+no-projection"]
    first, second = build_entrants(names, str(tiny_checkpoint), [4], data=data, num_steps=STEPS)
    assert first.identity != second.identity
    assert first.identity.endswith(", 4 steps")  # as in rows that were scored before there was a choice


def test_draws_that_are_grouped_are_part_of_name_and_identity(data: Path, tiny_checkpoint: Path) -> None:
    names, folder = ["ours", "ours+no-projection"], str(tiny_checkpoint)
    found = build_entrants(names, folder, [4], data=data, num_steps=STEPS, num_draws=60)
    assert [entrant.predictor.name for entrant in found] == [
        "ours, 60 draws, 4 steps",
        "ours without projection, 60 draws, 4 steps",
    ]
    plain = build_entrants(names, folder, [4], data=data, num_steps=STEPS)
    assert len({entrant.identity for entrant in (*found, *plain)}) == 4
