"""The sentences of an episode, as somebody would say them who looks through its camera, or from the robot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import ObjectInfo
from momap_ros.simulation.scene import Scene
from momap_ros.simulation.skill import Skill

DIRECTIONS = ("left", "right", "away", "closer")
_BARE_NOUN_SHARE = 0.35  # how often a person leaves out the colour where the noun alone is clear
ROBOT_FRAME_SHARE = 0.2  # of the sentences with a direction speak from the robot's place, and say so
_SEEN_BY_ROBOT = " from the robot side"
# The robot looks along x of the world; y is to its left.
WORLD_FROM_ROBOT_VIEWER = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Wording:
    """What is said.

    Attributes:
        text: the sentence.
        paraphrases: other sentences that say the same.
        frame: whose directions they use: "camera", "robot", or "" where they use none.
    """

    text: str
    paraphrases: tuple[str, ...]
    frame: str


def viewed_direction(motion_in_world: Float64, world_from_viewer: Float64) -> str:
    """The one of DIRECTIONS that describes a motion best for somebody who looks along z of a pose.

    Args:
        motion_in_world: (3,) displacement, metres; its height does not count.
        world_from_viewer: (4, 4) pose of an optical frame (x right, y down, z forward).
    """
    right, forward = world_from_viewer[:2, 0], world_from_viewer[:2, 2]
    if np.linalg.norm(forward) < np.linalg.norm(world_from_viewer[:2, 1]):
        forward = -world_from_viewer[:2, 1]  # seen from above, up in the image is away
    sideways = float(motion_in_world[:2] @ right / np.linalg.norm(right))
    depthwise = float(motion_in_world[:2] @ forward / np.linalg.norm(forward))
    if abs(sideways) >= abs(depthwise):
        return "right" if sideways > 0 else "left"
    return "away" if depthwise > 0 else "closer"


def wording(
    scene: Scene, skill: Skill, rng: np.random.Generator, *, motion_in_world: Float64, world_from_camera: Float64
) -> Wording:
    """Say what happens.

    Args:
        scene: what happens to what.
        skill: the skill of the scene's task.
        rng: draws the words.
        motion_in_world: (3,) displacement of the acted object's centre, metres.
        world_from_camera: (4, 4) pose of the optical frame.
    """
    frame = "robot" if scene.arm is not None and rng.random() < ROBOT_FRAME_SHARE else "camera"
    viewer = WORLD_FROM_ROBOT_VIEWER if frame == "robot" else world_from_camera
    direction = viewed_direction(motion_in_world, viewer)
    templates = skill.templates if isinstance(skill.templates, tuple) else skill.templates[direction]
    directed = not isinstance(skill.templates, tuple) or any("{d}" in template for template in templates)
    words = {
        "a": _noun(scene.acted_object, scene, rng),
        "b": _noun(scene.target, scene, rng),
        "d": direction,
        "viewer": frame,
    }
    sentences = [templates[index].format(**words) for index in rng.permutation(len(templates))]
    if directed and frame == "robot":
        sentences = [said if "robot" in said else said + _SEEN_BY_ROBOT for said in sentences]
    return Wording(sentences[0], tuple(sentences[1:]), frame if directed else "")


def _noun(item: ObjectInfo | None, scene: Scene, rng: np.random.Generator) -> str:
    """Colour and noun; sometimes the noun alone, where nothing else is called so."""
    if item is None:
        return ""
    bare = rng.random() < _BARE_NOUN_SHARE
    alone = sum(other.noun == item.noun for other in scene.objects) == 1
    return item.noun if bare and alone else f"{item.color} {item.noun}"
