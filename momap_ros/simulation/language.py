"""The sentence of an episode as one camera sees it."""

from __future__ import annotations

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.assets import ObjectInfo
from momap_ros.simulation.scene import Scene

DIRECTIONS = ("left", "right", "away", "closer")

_LIFT = ("lift the {a}", "pick up the {a}", "lift up the {a}", "raise the {a}", "grab the {a}", "pick the {a} up")
_MOVE_SIDE = (
    "move the {a} to the {d}",
    "put the {a} to the {d}",
    "place the {a} on the {d}",
    "pick up the {a} and put it to the {d}",
    "carry the {a} to the {d}",
    "take the {a} and move it {d}",
)
_MOVE_AWAY = (
    "move the {a} away",
    "move the {a} to the back",
    "put the {a} farther away",
    "pick up the {a} and put it farther back",
    "carry the {a} away from the camera",
)
_MOVE_CLOSER = (
    "move the {a} closer",
    "move the {a} to the front",
    "bring the {a} closer",
    "pick up the {a} and put it nearer",
    "carry the {a} towards the camera",
)
_PUSH_SIDE = (
    "push the {a} to the {d}",
    "push the {a} {d}",
    "slide the {a} to the {d}",
    "nudge the {a} to the {d}",
    "shove the {a} {d}",
)
_PUSH_AWAY = (
    "push the {a} away",
    "slide the {a} away",
    "push the {a} farther back",
    "nudge the {a} away from the camera",
    "push the {a} to the back",
)
_PUSH_CLOSER = (
    "push the {a} closer",
    "slide the {a} closer",
    "push the {a} towards the camera",
    "nudge the {a} closer",
    "push the {a} to the front",
)
_PUT_IN = (
    "put the {a} in the {b}",
    "place the {a} in the {b}",
    "drop the {a} into the {b}",
    "put the {a} into the {b}",
    "take the {a} and put it in the {b}",
    "pick up the {a} and place it in the {b}",
)
_PUT_ON = (
    "put the {a} on the {b}",
    "place the {a} onto the {b}",
    "set the {a} on the {b}",
    "put the {a} onto the {b}",
    "take the {a} and put it on the {b}",
    "pick up the {a} and place it on the {b}",
)
_STACK = (
    "stack the {a} on the {b}",
    "put the {a} on top of the {b}",
    "place the {a} on the {b}",
    "stack the {a} on top of the {b}",
    "set the {a} on top of the {b}",
    "take the {a} and stack it on the {b}",
)
_FIXTURE_SENTENCES: dict[str, tuple[str, ...]] = {
    "open_drawer": (
        "open the drawer",
        "pull the drawer out",
        "pull the drawer open",
        "slide the drawer open",
        "pull out the drawer",
        "open the drawer of the cabinet",
    ),
    "close_drawer": (
        "close the drawer",
        "shut the drawer",
        "push the drawer in",
        "slide the drawer shut",
        "push the drawer closed",
        "close the drawer of the cabinet",
    ),
    "open_door": (
        "open the door",
        "open the cabinet door",
        "pull the door open",
        "swing the door open",
        "open the cabinet",
        "open up the door",
    ),
    "close_door": (
        "close the door",
        "shut the door",
        "close the cabinet door",
        "push the door shut",
        "close the cabinet",
        "shut the cabinet door",
    ),
}
_DIRECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "pick_place": {"left": _MOVE_SIDE, "right": _MOVE_SIDE, "away": _MOVE_AWAY, "closer": _MOVE_CLOSER},
    "push": {"left": _PUSH_SIDE, "right": _PUSH_SIDE, "away": _PUSH_AWAY, "closer": _PUSH_CLOSER},
}
_BARE_NOUN_SHARE = 0.35  # how often a person leaves out the colour where the noun alone is clear


def camera_direction(motion_in_world: Float64, world_from_camera: Float64) -> str:
    """The one of DIRECTIONS that describes a motion best for somebody looking through the camera.

    Args:
        motion_in_world: (3,) displacement, metres; its height does not count.
        world_from_camera: (4, 4) pose of the optical frame.
    """
    right, forward = world_from_camera[:2, 0], world_from_camera[:2, 2]
    sideways = float(motion_in_world[:2] @ right / np.linalg.norm(right))
    depthwise = float(motion_in_world[:2] @ forward / np.linalg.norm(forward))
    if abs(sideways) >= abs(depthwise):
        return "right" if sideways > 0 else "left"
    return "away" if depthwise > 0 else "closer"


def sentence(scene: Scene, direction: str, rng: np.random.Generator) -> str:
    """A sentence a person might type for this episode.

    Args:
        scene: what happens to what.
        direction: where the acted object ends, one of DIRECTIONS; used by `pick_place` and `push` only.
        rng: draws the wording.
    """
    templates = _templates(scene, direction)
    wording = str(rng.choice(templates))
    acted, target = scene.acted_object, scene.target
    return wording.format(
        a=_noun(acted, scene, rng) if acted else "",
        b=_noun(target, scene, rng) if target else "",
        d=direction,
    )


def _templates(scene: Scene, direction: str) -> tuple[str, ...]:
    if scene.skill in _FIXTURE_SENTENCES:
        return _FIXTURE_SENTENCES[scene.skill]
    if scene.skill in _DIRECTED:
        return _DIRECTED[scene.skill][direction]
    if scene.skill == "lift":
        return _LIFT
    if scene.skill == "stack":
        return _STACK
    return _PUT_ON if scene.target is not None and scene.target.kind == "plate" else _PUT_IN


def _noun(item: ObjectInfo, scene: Scene, rng: np.random.Generator) -> str:
    """Colour and kind; sometimes the kind alone, where no other object is of that kind."""
    bare = rng.random() < _BARE_NOUN_SHARE
    alone = sum(other.kind == item.kind for other in scene.objects) == 1
    return item.kind if bare and alone else f"{item.color} {item.kind}"
