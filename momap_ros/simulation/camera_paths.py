"""Cameras that move: held in a hand, or carried around the table by an arm."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.simulation.scene import WORK_AREA_CENTRE

FIXED, HAND_HELD, CARRIED = "fixed", "hand_held", "carried"
MOTIONS = (FIXED, HAND_HELD, CARRIED)
# A hand sways 2 to 3 cm and a degree or two in the recordings we have of one.
_SWAY_M, _SWAY_RAD = 0.012, np.radians(0.8)
_SWAY_HZ = (0.15, 0.9)
_NUM_WAVES = 3
_ORBIT_RAD = np.radians((8, 20))
_DOLLY = (0.85, 1.2)


def camera_path(world_from_camera: Float64, motion: str, times_s: Float64, rng: np.random.Generator) -> Float64:
    """Draw the poses of a camera over time; at time 0 it is where it was told to be, to the last bit.

    Args:
        world_from_camera: (4, 4) pose at time 0, metres.
        motion: one of MOTIONS.
        times_s: (F,) from 0 on.
        rng: draws the motion, the same one whatever the times.

    Returns:
        (F, 4, 4) world_from_camera.

    Raises:
        ValueError: the motion is unknown.
    """
    if motion not in MOTIONS:
        raise ValueError(f"motion: expected one of {list(MOTIONS)}, got {motion!r}")
    if motion == FIXED:
        return np.repeat(world_from_camera[None], len(times_s), axis=0)
    poses = (_hand_held if motion == HAND_HELD else _carried)(world_from_camera, times_s, rng)
    return np.where((times_s == 0)[:, None, None], world_from_camera, poses)


def _hand_held(world_from_camera: Float64, times_s: Float64, rng: np.random.Generator) -> Float64:
    """Three shifts and three small turns, each a sum of slow waves that starts at 0."""
    frequencies = rng.uniform(*_SWAY_HZ, (_NUM_WAVES, 6))
    phases = rng.uniform(0, 2 * np.pi, (_NUM_WAVES, 6))
    sizes = rng.normal(0, 1 / np.sqrt(_NUM_WAVES), (_NUM_WAVES, 6))
    waves = np.sin(2 * np.pi * frequencies * times_s[:, None, None] + phases) - np.sin(phases)
    sway = (sizes * waves).sum(axis=1)
    turns = Rotation.from_rotvec(_SWAY_RAD * sway[:, 3:]).as_matrix()
    return np.asarray(world_from_camera @ se3_from_parts(turns, _SWAY_M * sway[:, :3]))


def _carried(world_from_camera: Float64, times_s: Float64, rng: np.random.Generator) -> Float64:
    """One smooth swing around the middle of the table, nearer or farther on the way, over 4 to 10 seconds."""
    angle = rng.choice([-1, 1]) * rng.uniform(*_ORBIT_RAD)
    dolly, seconds = rng.uniform(*_DOLLY), rng.uniform(4, 10)
    ramp = np.clip(times_s / seconds, 0, 1)
    share = ramp**3 * (10 - 15 * ramp + 6 * ramp**2)  # at rest at both ends, without a jerk
    turns = Rotation.from_rotvec(share[:, None] * [0, 0, angle]).as_matrix()
    centre = np.array([*WORK_AREA_CENTRE, 0.02])
    arm = (1 + share * (dolly - 1))[:, None] * (turns @ (world_from_camera[:3, 3] - centre))
    return se3_from_parts(turns @ world_from_camera[:3, :3], centre + arm)
