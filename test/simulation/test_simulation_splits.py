from __future__ import annotations

import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.simulation.assets import KINDS
from momap_ros.simulation.episodes import Episode, simulate_episode
from momap_ros.simulation.skills.registry import SKILLS
from momap_ros.simulation.splits import SPLITS, STRANGE_KINDS, UNSEEN_KINDS, UNSEEN_PAIRS, UNSEEN_SKILLS


def episodes(split: str, count: int) -> list[Episode]:
    made = (simulate_episode(split, index) for index in range(count))
    return [episode for episode in made if episode is not None]


def pair(episode: Episode) -> tuple[str, str]:
    item = episode.scene.acted_object
    return episode.scene.skill, item.kind if item else ""


HELD_OUT_PAIRS = {(skill, kind) for skill, kinds in UNSEEN_PAIRS.items() for kind in kinds}


def test_seeds_and_names_are_the_splits_own() -> None:
    assert len({split.seed for split in SPLITS.values()}) == len(SPLITS)
    assert [split.name for split in SPLITS.values()] == list(SPLITS)


def test_what_is_held_out_exists() -> None:
    assert set(KINDS) >= UNSEEN_KINDS
    assert set(SKILLS) & UNSEEN_SKILLS
    assert all(kind in SKILLS[skill].kinds for skill, kind in HELD_OUT_PAIRS)


@pytest.mark.parametrize("split", ["train", "val", "futures"])
def test_training_never_sees_what_the_other_splits_are_about(split: str) -> None:
    for episode in episodes(split, 40):
        assert not {item.kind for item in episode.scene.objects} & (UNSEEN_KINDS | STRANGE_KINDS)
        assert episode.scene.skill not in UNSEEN_SKILLS
        assert pair(episode) not in HELD_OUT_PAIRS
        assert episode.scene.factors["textures"] == "common"
        assert episode.scene.factors["arm"] != "square"


def test_every_episode_of_a_split_has_its_factor() -> None:
    objects = episodes("objects", 15)
    assert {pair(episode)[1] for episode in objects} <= UNSEEN_KINDS
    assert len({pair(episode)[1] for episode in objects}) >= 3
    assert {pair(episode) for episode in episodes("composition", 15)} <= HELD_OUT_PAIRS
    assert {episode.scene.skill for episode in episodes("skill", 6)} <= UNSEEN_SKILLS
    for episode in episodes("scene", 10):
        assert episode.scene.factors["textures"] == "held out"
        assert episode.scene.factors["arm"] in {"square", "none"}
        assert pair(episode) not in HELD_OUT_PAIRS
