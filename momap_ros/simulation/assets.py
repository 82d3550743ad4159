"""Every kind of loose object: its shape, its colours, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation import food, household, strange, vessels
from momap_ros.simulation.parts import Part
from momap_ros.simulation.parts import yaw_quaternion as yaw_quaternion
from momap_ros.simulation.splits import STRANGE_KINDS
from momap_ros.simulation.strange import made_up_name
from momap_ros.simulation.textures import PALETTE, Materials

# What skills can do with a kind.
#   graspable: taken from above, between the fingers
#   compact: fits in a dish
#   any_side: looks the same to a gripper from every side
#   stackable: rests on another, and others on it
#   steady: rests on anything flat
#   container, support: things stay in it, on it
#   small: swept along with others
#   flat: a finger can press on it and slide it
#   tall: stands on a small foot and can be pushed over
#   lies: rests on its side too, where it is half_width_m high
#   pours: is taken around its body, and tilted
#   wipes: is taken and rubbed over the table
#   rolling: rolls as it stands; tube: rolls when it lies on its side
_TRAITS: Mapping[str, str] = MappingProxyType(
    {
        "block": "graspable compact steady stackable small flat",
        "can": "graspable compact steady any_side stackable tall lies tube pours",
        "ball": "graspable compact any_side rolling",
        "eggplant": "graspable compact",
        "carrot": "graspable compact",
        "banana": "graspable compact",
        "pepper": "graspable compact",
        "sponge": "graspable compact steady wipes flat",
        "spoon": "graspable compact",
        "cup": "graspable compact steady any_side lies pours",
        "bottle": "graspable compact any_side tall lies tube pours",
        "bowl": "container",
        "plate": "support",
        "pot": "container",
        "mug": "graspable compact steady pours",
        "glass": "graspable compact any_side tall lies pours",
        "jar": "graspable compact steady any_side tall lies tube pours",
        "kettle": "graspable",
        "carton": "graspable compact steady tall lies pours",
        "pan": "graspable container",
        "tray": "support",
        "apple": "graspable compact any_side rolling",
        "orange": "graspable compact any_side rolling",
        "lemon": "graspable compact small",
        "tomato": "graspable compact any_side small",
        "potato": "graspable compact small",
        "corn": "graspable compact",
        "bread": "graspable compact steady flat",
        "cheese": "graspable compact steady small flat",
        "soap": "graspable compact steady wipes flat small",
        "fork": "graspable compact",
        "knife": "graspable compact",
        "spatula": "graspable",
        "marker": "graspable compact",
        "screwdriver": "graspable compact",
        "hammer": "graspable",
        "brush": "graspable wipes",
        "book": "graspable flat stackable support",
        "box": "graspable tall",
        "toy car": "graspable compact steady",
        "strange turned thing": "graspable compact steady any_side lies pours",
        "strange beads": "graspable compact",
        "strange bent thing": "graspable compact",
        "strange tool": "graspable",
        "strange lump": "graspable compact small",
        "strange slab": "graspable compact steady wipes flat",
        "strange tower": "graspable compact steady",
        "strange dish": "container",
    }
)
KINDS = tuple(_TRAITS)
WIDE_KINDS = frozenset({"bowl", "plate", "pot", "pan", "tray", "strange dish"})  # need more room than the others
# Colours in which a person would expect to meet these; every other kind comes in any colour.
NATURAL_COLORS: dict[str, tuple[str, ...]] = {
    "eggplant": ("purple",),
    "carrot": ("orange",),
    "banana": ("yellow",),
    "pepper": ("red", "green", "yellow"),
    "sponge": ("yellow", "pink", "blue"),
    "spoon": ("grey", "black", "blue", "brown"),
    "fork": ("grey", "black", "blue", "white"),
    "knife": ("grey", "white"),
    "spatula": ("grey", "black", "red", "green"),
    "screwdriver": ("red", "yellow", "black", "blue"),
    "hammer": ("brown", "black", "red"),
    "pan": ("black", "grey", "red"),
    "apple": ("red", "green", "yellow"),
    "orange": ("orange",),
    "lemon": ("yellow",),
    "tomato": ("red", "orange"),
    "potato": ("brown", "yellow"),
    "corn": ("yellow",),
    "bread": ("brown",),
    "cheese": ("yellow", "orange"),
    "soap": ("white", "pink", "green", "yellow"),
}
_SHAPES = {**vessels.SHAPES, **food.SHAPES, **household.SHAPES, **strange.SHAPES}


@dataclass(frozen=True)
class ObjectInfo:
    """One object on the table.

    Attributes:
        name: body name in the model.
        kind: one of KINDS.
        noun: what people call it: its kind, or a made-up name where nobody has one.
        color: a key of PALETTE.
        half_width_m: from the centre to where a pushing finger touches.
        height_m: height at which other things rest on it.
        top_m: height of its highest point.
        grip_x_m: where on the body's x axis a gripper takes hold.
        grip_z_m: how high it takes hold.
        grip_half_m: from there to where a finger touches.
    """

    name: str
    kind: str
    noun: str
    color: str
    half_width_m: float
    height_m: float
    top_m: float
    grip_x_m: float
    grip_z_m: float
    grip_half_m: float


def has_trait(kind: str, trait: str) -> bool:
    """Whether skills can do this with the kind."""
    return trait in _TRAITS[kind].split()


def kinds_with(trait: str) -> tuple[str, ...]:
    """The kinds that have a trait, in the order of KINDS."""
    return tuple(kind for kind in KINDS if has_trait(kind, trait))


def add_object(
    spec: mujoco.MjSpec,
    materials: Materials,
    rng: np.random.Generator,
    *,
    kind: str,
    color: str,
    name: str,
    xy: Float64,
    z_m: float = 0.0005,
    yaw_rad: float | None = None,
) -> ObjectInfo:
    """Place a free object at `xy` (metres, world), its lowest point at `z_m`; its heading is random where None."""
    heading = rng.uniform(-np.pi, np.pi) if yaw_rad is None else yaw_rad
    body = spec.worldbody.add_body(name=name, pos=[xy[0], xy[1], z_m], quat=yaw_quaternion(heading))
    body.add_freejoint(name=f"{name}_joint")
    size = _SHAPES[kind](Part(spec, body, materials, rng, materials.plain(PALETTE[color])))
    grip_x, grip_z = size.grip or (0.0, max(0.008, 0.55 * size.height_m))
    return ObjectInfo(
        name,
        kind,
        made_up_name(rng) if kind in STRANGE_KINDS else kind,
        color,
        half_width_m=float(size.half_width_m),
        height_m=float(size.height_m),
        top_m=float(size.top_m or size.height_m),
        grip_x_m=float(grip_x),
        grip_z_m=float(grip_z),
        grip_half_m=float(size.half_width_m if size.grip_half_m is None else size.grip_half_m),
    )
