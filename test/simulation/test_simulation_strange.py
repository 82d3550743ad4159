from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.simulation.assets import KINDS, add_object
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.room import empty_spec
from momap_ros.simulation.skills.registry import SKILLS
from momap_ros.simulation.splits import STRANGE_KINDS, UNSEEN_KINDS
from momap_ros.simulation.strange import SHAPES, made_up_name
from momap_ros.simulation.textures import Materials
from momap_ros.simulation.views import body_labels

MADE_UP = re.compile(r"[bdfgklmnprstvz][aeiou][bdfgklmnprstvz][aeiou][bgvxz]")


def test_no_made_up_name_is_a_word_of_any_sentence() -> None:
    rng = np.random.default_rng(0)
    names = [made_up_name(rng) for _ in range(500)]
    assert all(MADE_UP.fullmatch(name) for name in names)
    assert len(set(names)) > 480
    sentences = [skill.templates for skill in SKILLS.values()]
    assert sentences
    said = set(re.findall(r"[a-z]+", " ".join([*map(str, sentences), *KINDS]).lower()))
    words = said | set(MoMapPipeline.from_pretrained("small").vocabulary.words)
    assert len(words) > 150
    assert not [word for word in words if MADE_UP.fullmatch(word)]


def sizes(kind: str, seed: int) -> list[float]:
    """Every number of the shape of one object."""
    spec, rng = empty_spec(), np.random.default_rng(seed)
    add_object(spec, Materials(spec, rng), rng, kind=kind, color="red", name="thing", xy=np.zeros(2), yaw_rad=0.0)
    model: mujoco.MjModel = spec.compile()
    return [len(model.geom_size), *np.round(model.geom_size, 4).ravel(), *np.round(model.geom_pos, 4).ravel()]


@pytest.mark.parametrize("kind", SHAPES)
def test_no_two_are_alike_and_the_same_seed_makes_the_same(kind: str) -> None:
    shapes = [sizes(kind, seed) for seed in range(6)]
    assert len({tuple(shape) for shape in shapes}) == 6
    assert sizes(kind, 3) == shapes[3]


def test_the_split_asks_for_strange_and_for_known_things_among_others() -> None:
    assert set(SHAPES) == STRANGE_KINDS
    # Is what is asked for strange? -> does something strange lie beside it?
    asked: dict[bool, list[bool]] = {True: [], False: []}
    for index in range(40):
        episode = simulate_episode("strange", index)
        if episode is None or episode.scene.acted_object is None:
            continue
        item, kinds = episode.scene.acted_object, {other.kind for other in episode.scene.objects}
        assert not kinds & UNSEEN_KINDS
        strange = item.kind in STRANGE_KINDS
        assert bool(MADE_UP.fullmatch(item.noun)) == strange
        assert item.noun == item.kind or strange
        assert f"{item.color} {item.noun}" in body_labels(episode.scene)
        others = [other for other in episode.scene.objects if other is not item]
        asked[strange].append(any(other.kind in STRANGE_KINDS for other in others))
    assert min(len(asked[True]), len(asked[False])) >= 8
    assert any(asked[False]), "what is known must be asked for beside strange things, or whatever is strange is meant"
    assert not all(asked[True])
