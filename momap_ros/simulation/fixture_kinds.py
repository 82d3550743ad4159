"""Every kind of fixture: how it is made, and the room that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from momap_ros.simulation.cabinets import add_door, add_drawer
from momap_ros.simulation.containers import add_lidded_box, add_shelf, add_sink
from momap_ros.simulation.controls import add_button, add_faucet, add_knob, add_lamp, add_lever, add_slider
from momap_ros.simulation.fixtures import FixtureInfo


@dataclass(frozen=True)
class FixtureKind:
    """How a fixture is put on the table.

    Attributes:
        body: name of its body, of which a scene has one at most.
        make: called with (spec, materials, rng, xy=..., yaw_rad=...).
        radius_m: room that it needs, its moving part included.
        distance_m: range of its distance from the arm's base.
        facing_arm: its local +x looks at the arm, give or take 20 degrees; else anywhere.
    """

    body: str
    make: Callable[..., FixtureInfo]
    radius_m: float
    distance_m: tuple[float, float]
    facing_arm: bool = True


FIXTURES: Mapping[str, FixtureKind] = MappingProxyType(
    {
        "drawer": FixtureKind("cabinet", add_drawer, 0.17, (0.40, 0.46)),
        "door": FixtureKind("cabinet", add_door, 0.20, (0.40, 0.46)),
        "lid": FixtureKind("box", add_lidded_box, 0.15, (0.34, 0.41)),
        "shelf": FixtureKind("shelf", add_shelf, 0.15, (0.38, 0.45)),
        "sink": FixtureKind("sink", add_sink, 0.18, (0.38, 0.43)),
        "knob": FixtureKind("panel", add_knob, 0.11, (0.30, 0.42)),
        "faucet": FixtureKind("faucet", add_faucet, 0.11, (0.32, 0.42)),
        "lever": FixtureKind("lever_base", add_lever, 0.09, (0.30, 0.42), facing_arm=False),
        "button": FixtureKind("button_base", add_button, 0.09, (0.28, 0.42), facing_arm=False),
        "slider": FixtureKind("rail", add_slider, 0.14, (0.30, 0.38), facing_arm=False),
        "lamp": FixtureKind("lamp_stand", add_lamp, 0.15, (0.36, 0.45)),
    }
)
