from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.conditioning import MAX_WORDS
from momap_ros.data.sample import Role
from momap_ros.simulation.assets import KINDS
from momap_ros.simulation.cameras import look_at
from momap_ros.simulation.language import WORLD_FROM_ROBOT_VIEWER, viewed_direction

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

# Words as a reader of English understands them, for whoever looks through the camera.
WORDS = {
    "left": {"left"},
    "right": {"right"},
    "away": {"away", "back", "farther"},
    "closer": {"closer", "nearer", "front", "towards"},
}

# What else a part of a fixture is called by: what it is a part of, or another word for it.
OTHER_NOUNS = {"drawer": ("cabinet",), "door": ("cabinet",), "lid": ("box",), "faucet_handle": ("tap",)}


@pytest.mark.parametrize(
    ("motion", "expected"),
    [((0.1, 0.02, 0.5), "away"), ((-0.1, 0, 0), "closer"), ((0.02, 0.1, 0), "left"), ((0.05, -0.1, -0.3), "right")],
)
def test_direction_of_a_motion_seen_by_a_camera_that_looks_along_world_x(
    motion: tuple[float, float, float], expected: str
) -> None:
    pose = look_at(np.array([-1.0, 0, 1.0]), np.zeros(3), np.array([0, 0, 1.0]))  # x forward, so y is to the left
    assert viewed_direction(np.array(motion), pose) == expected


def test_the_robot_looks_along_x_and_has_y_to_its_left() -> None:
    told = {
        viewed_direction(np.array(motion), WORLD_FROM_ROBOT_VIEWER): motion
        for motion in ((0.1, 0, 0), (-0.1, 0, 0), (0, 0.1, 0), (0, -0.1, 0))
    }
    assert told == {"away": (0.1, 0, 0), "closer": (-0.1, 0, 0), "left": (0, 0.1, 0), "right": (0, -0.1, 0)}


def test_seen_from_straight_above_up_in_the_image_is_away() -> None:
    pose = look_at(np.array([0.0, 0, 1.0]), np.zeros(3), np.array([1.0, 0, 0]))  # world x is up in the image
    assert viewed_direction(np.array([0.2, 0.05, 0]), pose) == "away"


def told_direction(sample: Sample) -> str | None:
    said = set(sample.text.split())
    matches = [direction for direction, words in WORDS.items() if said & words]
    assert len(matches) <= 1, sample.text
    return matches[0] if matches else None


def test_the_direction_said_is_the_one_the_camera_sees(samples: list[Sample]) -> None:
    compared = 0
    for sample in samples:
        told = told_direction(sample)
        assert (told is not None) == (sample.text_frame != ""), sample.text
        if told is None or sample.text_frame == "robot":
            continue
        seen = sample.body_ids == sample.body_roles.index(Role.ACTED)
        motion = sample.momap().displacement_m[-1][seen].mean(0)
        up = sample.up_in_camera
        level = motion - (motion @ up) * up
        forward = np.array([0, 0, 1.0]) - up[2] * up
        right = np.cross(forward, up)
        sideways, depthwise = level @ right / np.linalg.norm(right), level @ forward / np.linalg.norm(forward)
        component = sideways if told in {"left", "right"} else depthwise
        assert (component > 0) == (told in {"right", "away"}), (sample.key, sample.text)
        # The centre of the body and that of its visible pixels move a little differently when it turns.
        assert abs(component) > 0.6 * max(abs(sideways), abs(depthwise))
        compared += 1
    assert compared >= 12


def test_a_sentence_names_the_acted_object_and_no_other_fits_it(samples: list[Sample]) -> None:
    for sample in samples:
        names = [name for name, role in zip(sample.body_names, sample.body_roles, strict=True) if role == Role.OBJECT]
        if sample.skill == "wait":
            continue
        if sample.kind not in KINDS:
            assert any(noun in sample.text for noun in (*sample.kind.split("_"), *OTHER_NOUNS.get(sample.kind, ())))
            continue
        acted = sample.body_names[sample.body_roles.index(Role.ACTED)]
        if acted not in sample.text:
            assert sample.kind in sample.text
            assert all(name.split()[-1] != sample.kind for name in names), sample.text


def test_a_sentence_in_the_robots_directions_says_so(samples: list[Sample]) -> None:
    sentences = [text for s in samples if s.text_frame == "robot" for text in (s.text, *s.paraphrases)]
    assert sentences
    assert all("robot" in text for text in sentences)
    assert all(len(text.split()) <= MAX_WORDS for text in sentences)
