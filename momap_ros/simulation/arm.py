"""A parametric 6-joint arm with a parallel gripper, of about the proportions of a WidowX.

The hand is welded to a mocap body: a script that moves the mocap body moves the arm, without inverse kinematics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.parts import COLLISION_ONLY, LOOSE, Point
from momap_ros.simulation.textures import Materials

Geom = mujoco.mjtGeom
ROBOT_BODIES = (
    "arm_base",
    "waist",
    "upper_arm",
    "forearm",
    "forearm_roll",
    "wrist",
    "hand",
    "left_finger",
    "right_finger",
)
BASE_XY = np.array([-0.08, 0.0])
HAND, MOCAP = "hand", "mocap"
OPEN_M = 0.034
START_OPENING_M = 0.03
STYLES = ("round", "slim", "offset", "hand", "glove")
HELD_OUT_STYLES = ("square",)  # of the split that shows scenes never seen in training
_STYLE_SHARES = (0.37, 0.27, 0.22, 0.07, 0.07)
_ALONE = ("hand", "glove")  # styles without an arm
_SKIN = ((0.92, 0.72, 0.60), (0.78, 0.56, 0.42), (0.55, 0.36, 0.25), (0.33, 0.21, 0.15))
_NO_CONTACT: dict[str, Any] = {"contype": 0, "conaffinity": 0, "group": 1, "mass": 0.1}
_FORWARD = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]  # turns a cylinder's axis from z to x
_SIDEWAYS = [np.sqrt(0.5), np.sqrt(0.5), 0, 0]  # turns a cylinder's axis from z to y


@dataclass(frozen=True)
class ArmInfo:
    """The arm of one scene.

    Attributes:
        tip_m: from the hand's origin to the grasp centre, along the hand's x.
        style: one of STYLES or HELD_OUT_STYLES; "offset" has its upper arm beside the joints, as industrial arms do;
            "hand" is a gripper without an arm, "glove" a thumb and four fingers.
        home: joint positions from which the arm starts, radians.
    """

    tip_m: float
    style: str
    home: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    radius: float
    round_links: bool
    link: str
    joint: str
    aside: float = 0.0  # of the upper arm from the plane of the other links, metres

    def straight(self, end: tuple[float, float, float], aside: float = 0.0) -> dict[str, Any]:
        """A link from the body's origin to `end`, round or square; both moved to y = `aside`."""
        if self.round_links:
            return _capsule((0, aside, 0), (end[0], aside, end[2]), self.radius * 0.9, self.link)
        pad = self.radius * 0.7
        return {
            "type": Geom.mjGEOM_BOX,
            "size": [abs(end[0]) / 2 + pad, self.radius * 0.8, abs(end[2]) / 2 + pad],
            "pos": [end[0] / 2, 0, end[2] / 2],
            "material": self.link,
        }

    def barrel(self, radius: float, half_height: float) -> dict[str, Any]:
        """The motor housing of a joint about y."""
        return {
            "type": Geom.mjGEOM_CYLINDER,
            "size": [radius, half_height + self.aside / 2, 0],
            "pos": [0, self.aside / 2, 0],
            "quat": _SIDEWAYS,
            "material": self.joint,
        }


def _capsule(start: Point, end: Point, radius: float, material: str) -> dict[str, Any]:
    return {"type": Geom.mjGEOM_CAPSULE, "fromto": [*start, *end], "size": [radius, 0, 0], "material": material}


def _draw_look(materials: Materials, rng: np.random.Generator, style: str) -> _Look:
    low, high = {"slim": (0.014, 0.02), "offset": (0.026, 0.036)}.get(style, (0.022, 0.034))
    radius = float(rng.uniform(low, high))
    dark = rng.random() < 0.6
    link: Float64 = np.full(3, rng.uniform(0.03, 0.2)) if dark else rng.uniform(0.1, 0.9, 3)
    joint: Float64 = np.full(3, rng.uniform(0.03, 0.2)) if rng.random() < 0.7 else rng.uniform(0.1, 0.9, 3)
    if style == "glove":
        joint = link if rng.random() < 0.3 else np.array(_SKIN[rng.integers(len(_SKIN))])
    aside = 2.2 * radius if style == "offset" else 0.0
    return _Look(radius, style != "square", materials.plain(link), materials.plain(joint), aside)


def add_arm(spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator, *, held_out: bool = False) -> ArmInfo:
    """Build an arm at BASE_XY, facing +x, or a hand alone; `held_out` takes a style of HELD_OUT_STYLES."""
    style = str(rng.choice(HELD_OUT_STYLES) if held_out else rng.choice(STYLES, p=_STYLE_SHARES))
    look = _draw_look(materials, rng, style)
    if style in _ALONE:
        hand = spec.worldbody.add_body(name=HAND, pos=[0.2, 0, 0.3], gravcomp=1)
        hand.add_freejoint(name=f"{HAND}_joint")
        if style == "hand":
            hand.add_geom(**_NO_CONTACT, **_palm(look, rng))
        home: dict[str, float] = {}
    else:
        hand = _add_links(spec, look, rng)
        home = {"upper_arm_joint": -0.3, "forearm_joint": 0.9, "wrist_joint": 1.0}
    tip_m = _add_fingers(spec, hand, materials, rng, hidden=style == "glove")
    if style == "glove":
        _add_glove(hand, look, tip_m)
    _weld_to_mocap(spec)
    return ArmInfo(tip_m, style, home)


def _add_links(spec: mujoco.MjSpec, look: _Look, rng: np.random.Generator) -> mujoco.MjsBody:
    """The chain from the base to the hand, which is returned."""
    shoulder, upper, fore = rng.uniform(0.10, 0.14), rng.uniform(0.24, 0.32), rng.uniform(0.24, 0.32)
    radius = look.radius
    base = spec.worldbody.add_body(name="arm_base", pos=[*BASE_XY, 0])
    base_shape = Geom.mjGEOM_BOX if rng.random() < 0.5 else Geom.mjGEOM_CYLINDER
    base_size = [radius * 2.2, radius * 2.2, 0.03] if base_shape == Geom.mjGEOM_BOX else [radius * 2.2, 0.03, 0]
    base.add_geom(type=base_shape, size=base_size, pos=[0, 0, 0.03], material=look.link, **_NO_CONTACT)
    waist_geom = {
        "type": Geom.mjGEOM_CYLINDER,
        "size": [radius * 1.5, shoulder / 2 - 0.01, 0],
        "pos": [0, 0, shoulder / 2 - 0.01],
        "material": look.joint,
    }
    waist = _add_link(base, "waist", [0, 0, 0.06], axis=[0, 0, 1], limit=3.1, geoms=[waist_geom])
    upper_geoms = [look.barrel(radius * 1.3, radius * 1.6), look.straight((0, 0, upper), look.aside)]
    upper_arm = _add_link(waist, "upper_arm", [0, 0, shoulder], axis=[0, 1, 0], limit=2.0, geoms=upper_geoms)
    fore_geoms = [look.barrel(radius * 1.2, radius * 1.5), look.straight((fore * 0.55, 0, 0))]
    forearm = _add_link(upper_arm, "forearm", [0, 0, upper], axis=[0, 1, 0], limit=2.6, geoms=fore_geoms)
    roll_geom = _capsule((0, 0, 0), (fore * 0.45, 0, 0), radius * 0.75, look.link)
    roll = _add_link(forearm, "forearm_roll", [fore * 0.55, 0, 0], axis=[1, 0, 0], limit=3.1, geoms=[roll_geom])
    wrist_geoms = [look.barrel(radius, radius * 1.1), _capsule((0, 0, 0), (0.06, 0, 0), radius * 0.8, look.link)]
    wrist = _add_link(roll, "wrist", [fore * 0.45, 0, 0], axis=[0, 1, 0], limit=2.4, geoms=wrist_geoms)
    return _add_link(wrist, HAND, [0.07, 0, 0], axis=[1, 0, 0], limit=3.1, geoms=[_palm(look, rng)])


def _palm(look: _Look, rng: np.random.Generator) -> dict[str, Any]:
    if look.aside:
        round_palm = {"type": Geom.mjGEOM_CYLINDER, "quat": _FORWARD, "material": look.joint}
        return {**round_palm, "size": [rng.uniform(0.032, 0.04), 0.018, 0]}
    return {"type": Geom.mjGEOM_BOX, "size": [0.018, rng.uniform(0.035, 0.055), 0.02], "material": look.joint}


def _add_glove(hand: mujoco.MjsBody, look: _Look, tip_m: float) -> None:
    """A forearm, the back of a hand, and a thumb and four fingers that move with the gripper's two."""
    shape = {"type": Geom.mjGEOM_ELLIPSOID, "size": [0.04, 0.026, 0.042], "pos": [0.005, 0, 0], "material": look.joint}
    hand.add_geom(**_NO_CONTACT, **shape)
    hand.add_geom(**_NO_CONTACT, **_capsule((-0.02, 0, 0), (-0.06, 0, 0), 0.023, look.joint))
    hand.add_geom(**_NO_CONTACT, **_capsule((-0.06, 0, 0), (-0.24, 0, 0), 0.032, look.link))
    thumb, others = hand.bodies
    tip = tip_m - 0.02 + 0.004
    thumb.add_geom(**{**_NO_CONTACT, "mass": 0.0}, **_capsule((0.0, 0.006, 0.0), (tip, 0.004, 0.0), 0.0085, look.joint))
    for z, length in ((-0.027, 0.93), (-0.009, 1.0), (0.009, 1.0), (0.027, 0.85)):
        finger = _capsule((0.0, -0.005, z), (tip * length, -0.004, z * 0.8), 0.008, look.joint)
        others.add_geom(**{**_NO_CONTACT, "mass": 0.0}, **finger)


def _add_link(
    parent: mujoco.MjsBody, name: str, pos: list[float], *, axis: list[float], limit: float, geoms: list[dict[str, Any]]
) -> mujoco.MjsBody:
    body = parent.add_body(name=name, pos=pos, gravcomp=1)
    body.add_joint(
        name=f"{name}_joint",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=axis,
        range=[-limit, limit],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=[0.5, 0, 0],
        armature=0.02,
    )
    for geom in geoms:
        body.add_geom(**_NO_CONTACT, **geom)
    return body


def _add_fingers(
    spec: mujoco.MjSpec, hand: mujoco.MjsBody, materials: Materials, rng: np.random.Generator, *, hidden: bool
) -> float:
    """Two sliding fingers with position servos; returns the distance of the grasp centre from the hand.

    `hidden` ones are felt, not seen.
    """
    coloured = rng.random() < 0.4
    material = materials.plain(rng.uniform(0.03, 0.9, 3) if coloured else (0.06, 0.06, 0.06))
    half_length = float(rng.uniform(0.03, 0.045))
    for name, side in (("left_finger", 1), ("right_finger", -1)):
        finger = hand.add_body(name=name, pos=[0.02, side * 0.004, 0], gravcomp=1)
        finger.add_joint(
            name=f"{name}_joint",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, side, 0],
            range=[0, 0.036],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            damping=[2.0, 0, 0],
            armature=0.01,
        )
        finger.add_geom(
            type=Geom.mjGEOM_BOX,
            size=[half_length, 0.0045, 0.011],
            pos=[half_length, side * 0.004, 0],
            material=material,
            friction=[1.5, 0.05, 0.001],
            condim=4,
            mass=0.02,
            **LOOSE,
            **(COLLISION_ONLY if hidden else {"group": 1}),
        )
        servo = spec.add_actuator(name=f"{name}_servo", target=f"{name}_joint", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=120)
    return 0.02 + 2 * half_length - 0.012


def add_weld(spec: mujoco.MjSpec, name: str, first: str, second: str) -> mujoco.MjsEquality:
    """A weld constraint of two bodies, stiff enough to follow a script."""
    weld = spec.add_equality(
        name=name, type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY, name1=first, name2=second
    )
    data = np.zeros(len(weld.data))
    data[6] = data[10] = 1.0  # identity quaternion of the relative pose, and the torque scale
    weld.data = data
    weld.solref = [0.01, 1]
    return weld


def _weld_to_mocap(spec: mujoco.MjSpec) -> None:
    spec.worldbody.add_body(name=MOCAP, mocap=True)
    weld = add_weld(spec, "follow", MOCAP, HAND)
    weld.solimp = [0.95, 0.99, 0.001, 0.5, 2]
