"""Where the forecast comes from that drives the hand: the truth, a model, or something that knows less or other things.

All answer with the motion of every instance in the first image; the follower that acts on it is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from momap_ros.config import FollowerConfig, ForecastConfig, ObjectMotionConfig
from momap_ros.data.sample import iterate_samples
from momap_ros.evaluation.baselines import SkillMotions
from momap_ros.forecaster import Forecaster, foreground_pixels
from momap_ros.geometry import Float32, FloatArray
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.policies.consensus import agreed
from momap_ros.simulation.closed_loop_view import FirstView

POLICIES = {
    "oracle": "the true future as a forecast: what follower and hand can do at best",
    "ours": "the checkpoint's forecast: what its drawn futures agree on",
    "ours-draw": "the checkpoint's most representative single future",
    "static": "a forecast in which nothing moves",
    "random": "a random object, moved 15 cm straight into a random direction that is not downwards",
    "skill-mean": "told skill and object: the skill's mean motion in training",
    "retrieval": "told skill and object: the motion of one training episode of the skill",
}
TOLD = ("skill-mean", "retrieval")
OURS = ("ours", "ours-draw")
GUIDANCE = ("text", "none", "hints")
_RANDOM_WAY_M, _RANDOM_S = 0.15, 5.0
_NUM_STEPS = 50
_DRAWS = 20
_MAX_POINTS = 1500
_TRAINING_SAMPLES = (0, 6000, 3)  # as in momap_ros.evaluation.evaluate

# Motions of all instances in the camera's frame, and the seconds between two of their steps.
Answer: TypeAlias = "tuple[list[ObjectMotion], float]"
Policy: TypeAlias = "Callable[[FirstView, np.random.Generator], Answer]"


@dataclass(frozen=True)
class PolicyChoice:
    """Which policy, and what it may use.

    Attributes:
        name: one of POLICIES.
        guidance: what a model is told, one of GUIDANCE: the sentence, nothing, or nothing but the true direction flags
            of the acted object.
        checkpoint: bundled name or folder, for those of OURS.
        data: folder with train shards, for the policies of TOLD.
        replan_every_s: seconds between two forecasts while an object is held; 0 = one forecast per episode.
    """

    name: str
    guidance: str = "text"
    checkpoint: str = "small"
    data: Path | None = None
    replan_every_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unknown names, and a policy without what it needs."""
        for value, known in ((self.name, tuple(POLICIES)), (self.guidance, GUIDANCE)):
            if value not in known:
                raise ValueError(f"policy: expected one of {list(known)}, got {value!r}")
        if self.name in TOLD and self.data is None:
            raise ValueError(f"policy {self.name}: expected a folder with train shards, got none; give --data")
        if not 0 <= self.replan_every_s < np.inf:
            raise ValueError(
                f"replan-every: expected seconds, 0 for one forecast per episode, got {self.replan_every_s}"
            )

    @property
    def label(self) -> str:
        """Its row in tables."""
        label = f"{self.name}, {self.guidance}" if self.name in OURS else self.name
        return f"{label}, every {self.replan_every_s:g} s" if self.replan_every_s else label


def make_policy(choice: PolicyChoice) -> Policy:
    """Load what the policy needs; done once.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        FileNotFoundError: there are no train shards.
    """
    if choice.name == "oracle":
        return lambda view, _rng: true_motions(view)
    if choice.name == "static":
        return lambda view, _rng: _translated(view, None, np.zeros((_NUM_STEPS, 3)))
    if choice.name == "random":
        return _random
    if choice.name in OURS:
        return _model(choice)
    assert choice.data is not None  # checked when the choice was made
    motions = SkillMotions(itertools.islice(iterate_samples(choice.data, "train"), *_TRAINING_SAMPLES))
    return _told(motions, retrieve=choice.name == "retrieval")


def true_motions(view: FirstView) -> Answer:
    """The true future, fitted to points of the image as a forecast is."""
    momap, (pixels, ids) = view.sample.momap(), _followed(view)
    positions = momap.xyz[:, pixels[:, 1], pixels[:, 0]].transpose(1, 0, 2)[None]
    farthest = np.linalg.norm(positions[0] - positions[0, :, :1], axis=-1).max(axis=1)
    # The fit's own probability asks how far the middle gets; a knob's does not.
    moves = {int(i): float(farthest[ids == i].max() > FollowerConfig().min_displacement_m) for i in np.unique(ids)}
    return _motions(view, np.ascontiguousarray(positions), momap.step_s, moves)


def _model(choice: PolicyChoice) -> Policy:
    settings = ForecastConfig(checkpoint=choice.checkpoint, num_hypotheses=_DRAWS)
    forecaster = Forecaster(settings, ObjectMotionConfig(max_hypotheses=_DRAWS))
    least_m = FollowerConfig().min_displacement_m

    def answer(view: FirstView, _rng: np.random.Generator) -> Answer:
        hints = None
        acted = view.instance_of_acted()
        if choice.guidance == "hints" and acted is not None:
            body = view.body_of(acted)
            hints = {acted: view.sample.direction_flags()[body].tolist()}
        prompt = view.sample.text if choice.guidance == "text" else ""
        forecast = forecaster(view.frame, view.instances, prompt, hints)
        objects = forecast.objects
        if choice.name == "ours":
            objects = [agreed(motion, least_m) for motion in objects]
        return objects, forecast.trajectories.step_s

    return answer


def _random(view: FirstView, rng: np.random.Generator) -> Answer:
    ids = [int(number) for number in view.instances.areas_px if number not in view.robot_ids]
    if not ids:
        return _translated(view, None, np.zeros((_NUM_STEPS, 3)))
    direction = rng.normal(size=3)
    direction[2] = abs(direction[2])
    way = _RANDOM_WAY_M * direction / np.linalg.norm(direction)
    in_camera = view.sample.camera_from_world[:3, :3] @ way
    return _translated(view, int(rng.choice(ids)), np.linspace(0, 1, _NUM_STEPS)[:, None] * in_camera)


def _told(motions: SkillMotions, *, retrieve: bool) -> Policy:
    def answer(view: FirstView, rng: np.random.Generator) -> Answer:
        acted = view.instance_of_acted()
        if acted is None or view.sample.skill not in motions.by_skill:
            return _translated(view, None, np.zeros((_NUM_STEPS, 3)))
        drawn = motions.retrieve(view.sample, rng) if retrieve else motions.mean(view.sample)
        return _translated(view, acted, drawn[0])

    return answer


def _translated(view: FirstView, instance_id: int | None, translation_m: FloatArray) -> Answer:
    """One instance moved by (T, 3) metres, camera frame, all others at rest."""
    pixels, ids = _followed(view)
    points = view.frame.points_in_camera[pixels[:, 1], pixels[:, 0]]
    positions = np.repeat(points[None, :, None], len(translation_m), axis=2).astype(np.float32)
    if instance_id is not None:
        positions[0, ids == instance_id] += np.asarray(translation_m - translation_m[0], np.float32)
    step_s = _RANDOM_S / (len(translation_m) - 1)
    return _motions(view, positions, step_s, {int(i): float(i == instance_id) for i in np.unique(ids)})


def _followed(view: FirstView) -> tuple[np.ndarray, np.ndarray]:
    pixels = foreground_pixels(view.frame, view.instances, _MAX_POINTS)
    return pixels, view.instances.ids[pixels[:, 1], pixels[:, 0]]


def _motions(view: FirstView, positions: Float32, step_s: float, moves: dict[int, float]) -> Answer:
    pixels, ids = _followed(view)
    size = view.frame.camera.width, view.frame.camera.height
    trajectories = PointTrajectories(positions, ids, pixels, *size, step_s)
    return (
        estimate_object_motions(
            trajectories,
            ObjectMotionConfig(),
            hypothesis=0,
            labels=view.instances.labels,
            moving_probability=moves,
        ),
        step_s,
    )
