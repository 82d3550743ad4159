"""Things that a hand sets: knobs and faucets turned, levers flipped, buttons pressed, sliders slid."""

from __future__ import annotations

import numpy as np

from momap_ros.simulation.hand import ScriptedHand, above, quaternion_down
from momap_ros.simulation.scene import Scene
from momap_ros.simulation.skills.operating import fixture_of, operating_skill

_FINGERTIP_M = 0.012  # beyond the grasp centre
PRESSED = 0.7  # of the travel


def _press(scene: Scene, hand: ScriptedHand, rng: np.random.Generator) -> bool:
    """Push the button down with closed fingers, hold it for a moment, and leave upwards."""
    fixture = fixture_of(scene)
    before = hand.joint(fixture.joint)
    contact = np.array([*fixture.xy, fixture.top_m - before + _FINGERTIP_M])
    contact[:2] += rng.normal(0, 0.003, 2)
    quaternion = quaternion_down(float(np.arctan2(contact[1], contact[0]) + rng.uniform(-0.6, 0.6)))
    hand.move_to(above(contact, 0.08), quaternion, hand.speed, 0.0)
    hand.move_to(above(contact, 0.02), quaternion, hand.speed)
    hand.move_to(above(contact, before - scene.task.amount), quaternion, hand.speed * 0.4)
    hand.wait(20)
    pressed = hand.joint(fixture.joint)
    hand.move_to(above(contact, 0.08), quaternion, hand.speed)
    hand.wait(30)
    return pressed - before > PRESSED * (fixture.limit - before)


_SLIDE_SIDE = (
    "slide the slider to the {d}",
    "move the slider to the {d}",
    "push the slider to the {d}",
    "slide the slider {d}",
    "move the slider {d} along the rail",
    "shift the slider to the {d}",
)

SKILLS = (
    operating_skill(
        "turn_knob",
        "knob",
        (
            "turn the knob",
            "rotate the knob",
            "twist the knob",
            "turn the knob on the panel",
            "give the knob a turn",
            "set the knob to another mark",
        ),
        start=(0.0, 1.0),
        goal=(0.0, 1.0),
    ),
    operating_skill(
        "turn_faucet",
        "faucet",
        (
            "turn the faucet",
            "turn the handle of the faucet",
            "turn the tap",
            "rotate the faucet handle",
            "swing the handle of the faucet around",
            "operate the faucet",
        ),
        start=(0.0, 1.0),
        goal=(0.0, 1.0),
    ),
    operating_skill(
        "flip_lever",
        "lever",
        (
            "flip the lever",
            "throw the lever",
            "flip the lever over",
            "move the lever to its other side",
            "switch the lever",
            "tip the lever over",
        ),
        start=(0.0, 0.0),
        goal=(0.9, 1.0),
    ),
    operating_skill(
        "press_button",
        "button",
        (
            "press the button",
            "push the button",
            "push the button down",
            "press down the button",
            "hit the button",
            "press the button on the block",
        ),
        start=(0.0, 0.0),
        goal=(0.9, 1.0),
        perform=_press,
    ),
    operating_skill(
        "move_slider",
        "slider",
        {
            "left": _SLIDE_SIDE,
            "right": _SLIDE_SIDE,
            "away": (
                "slide the slider away",
                "move the slider away",
                "push the slider farther back",
                "slide the slider away from the {viewer}",
                "move the slider to the back",
                "push the slider away along the rail",
            ),
            "closer": (
                "slide the slider closer",
                "move the slider closer",
                "pull the slider nearer",
                "slide the slider towards the {viewer}",
                "move the slider to the front",
                "pull the slider closer along the rail",
            ),
        },
        start=(0.0, 1.0),
        goal=(0.0, 1.0),
    ),
)
