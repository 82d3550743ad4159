"""Small samples whose every motion is known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.points import true_trajectories
from momap_ros.evaluation.predictor import Scene
from momap_ros.geometry import Float32, PinholeCamera
from momap_ros.instances import Int32

SIZE, STEPS, DEPTH_M = 64, 20, 0.5
WORLD, HAND, FINGER, CUP, BOWL, BOX = range(6)
ROLES = (Role.WORLD, Role.ROBOT, Role.ROBOT, Role.ACTED, Role.OBJECT, Role.OBJECT)
NAMES = ("world", "hand", "finger", "cup", "bowl", "box")
CORNERS = {HAND: (4, 4), FINGER: (16, 4), CUP: (4, 40), BOWL: (24, 40), BOX: (44, 40)}  # u, v; 12 pixels square


def moved(metres: Sequence[float], turn_rad: float = 0.0, steps: int = STEPS) -> Float32:
    """(T, 3, 4) rigid motions: evenly along a line while turning about the optical axis."""
    share = np.linspace(0.0, 1.0, steps)
    motion = np.zeros((steps, 3, 4), np.float32)
    cosine, sine = np.cos(turn_rad * share), np.sin(turn_rad * share)
    motion[:, 0, 0], motion[:, 0, 1], motion[:, 1, 0], motion[:, 1, 1] = cosine, -sine, sine, cosine
    motion[:, 2, 2] = 1
    motion[:, :, 3] = share[:, None] * np.array(metres)
    return motion


def made_sample(
    motions: dict[int, Float32], key: str = "val_0000000_0", *, skill: str = "push", first_frame: str = ""
) -> Sample:
    """Five squares before a plane, some of which move; depth is the same everywhere."""
    ids = np.zeros((SIZE, SIZE), np.uint8)
    for body, (u, v) in CORNERS.items():
        ids[v : v + 12, u : u + 12] = body
    rng = np.random.default_rng(0)
    return Sample(
        key=key,
        split=key.split("_")[0],
        skill=skill,
        kind="cup",
        text="push the cup",
        rgb=rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8),
        depth_m=np.full((SIZE, SIZE), DEPTH_M, np.float32),
        body_ids=ids,
        camera=PinholeCamera(SIZE, SIZE, 60.0, 60.0, 31.5, 31.5),
        camera_from_world=np.eye(4),
        body_names=NAMES,
        body_roles=ROLES,
        moving_bodies=np.array(sorted(motions), np.uint8),
        motion_t_from_0=(
            np.stack([motions[body] for body in sorted(motions)], axis=1)
            if motions
            else np.zeros((STEPS, 0, 3, 4), np.float32)
        ),
        duration_s=2.0,
        factors={"acts_on": "object"},
        first_frame=first_frame,
    )


def pushed(key: str = "val_0000000_0", far_m: float = 0.1) -> Sample:
    """The cup goes right, the hand and its finger go the same way, the finger turning."""
    way = (far_m, 0.0, 0.0)
    return made_sample({HAND: moved(way), FINGER: moved(way, 0.3), CUP: moved(way)}, key)


@dataclass(frozen=True)
class Around:
    """Draws that are the truth plus a constant offset each: every error is known."""

    offsets_m: tuple[tuple[float, float, float], ...]
    probability: float = 0.75
    name: str = "around"
    told: str = ""

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> AroundPrediction:  # noqa: ARG002
        assert scene.sample is not None
        return AroundPrediction(scene, self)


@dataclass(frozen=True)
class AroundPrediction:
    """Beyond step 0, which is observed."""

    scene: Scene
    of: Around
    step_s: float = 0.2

    def trajectories(self, pixels: Int32) -> Float32:
        assert self.scene.sample is not None
        drawn = np.repeat(true_trajectories(self.scene.sample, pixels)[None], len(self.of.offsets_m), axis=0)
        drawn[:, :, 1:] += np.array(self.of.offsets_m, np.float32)[:, None, None]
        return drawn

    def instance_moving_probability(self) -> dict[int, float]:
        return dict.fromkeys(self.scene.instances.areas_px, self.of.probability)
