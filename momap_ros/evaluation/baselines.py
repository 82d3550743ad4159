"""What a model must beat; baselines that are told more than the model say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.points import true_trajectories
from momap_ros.evaluation.predictor import NoForecast, Scene
from momap_ros.geometry import Float32, Float64, transform_points
from momap_ros.instances import Int32
from momap_ros.rigid_inliers import MIN_TRAJECTORIES
from momap_ros.rigid_tracks import fit_rigid_tracks

NUM_RETRIEVED = 10
TOLD_SKILL = "the skill and the acted object"


def acted_translation_in_world(sample: Sample) -> Float64 | None:
    """(T, 3) mean displacement of the acted body's visible points, metres, world frame; None where it does not move."""
    acted = [slot for slot, body in enumerate(sample.moving_bodies) if sample.body_roles[body] == Role.ACTED]
    if not acted:
        return None
    points = _points(sample)[sample.body_ids == sample.moving_bodies[acted[0]]]
    motion = sample.motion_t_from_0[:, acted[0]]
    centre = points.mean(axis=0)
    displacement = motion[:, :, :3] @ centre + motion[:, :, 3] - centre
    return np.asarray(displacement @ sample.camera_from_world[:3, :3], np.float64)


def _points(sample: Sample) -> Float32:
    from momap_ros.geometry import unproject_depth

    return unproject_depth(sample.depth_m, sample.camera)


class SkillMotions:
    """Translations of acted objects per skill, from training samples.

    Both baselines drawn from it are told the skill and which object acts; neither is a competitor a robot could run.

    Args:
        samples: training samples.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        """Collect one translation per sample."""
        collected: dict[str, list[Float64]] = {}
        for sample in samples:
            translation = acted_translation_in_world(sample)
            if translation is not None:
                collected.setdefault(sample.skill, []).append(translation)
        self.by_skill = {skill: np.stack(rows) for skill, rows in collected.items()}

    def mean(self, sample: Sample) -> Float32:
        """(1, T, 3) the skill's mean translation in the sample's camera, metres."""
        return self._in_camera(sample, self.by_skill[sample.skill].mean(axis=0, keepdims=True))

    def retrieve(self, sample: Sample, rng: np.random.Generator, count: int = NUM_RETRIEVED) -> Float32:
        """(N, T, 3) random training translations of the same skill in the sample's camera, metres."""
        pool = self.by_skill[sample.skill]
        return self._in_camera(sample, pool[rng.integers(0, len(pool), count)])

    @staticmethod
    def _in_camera(sample: Sample, translation: Float64) -> Float32:
        return np.asarray(translation @ sample.camera_from_world[:3, :3].T, np.float32)


@dataclass(frozen=True, eq=False)
class KnownMotion:
    """A prediction made of N rigid motions per group of pixels.

    Attributes:
        scene: where it starts.
        step_s: seconds between two steps; NaN where nothing is said about time.
        num_steps: T.
        group: (H, W) int32 index into motions per pixel; -1 = at rest.
        motions: (N, G, T, 4, 4) metres, camera frame; takes a point from step 0 to step t.
    """

    scene: Scene
    step_s: float
    num_steps: int
    group: Int32
    motions: Float64

    def trajectories(self, pixels: Int32) -> Float32:
        """(N, P, T, 3) metres, camera frame."""
        u, v = pixels[:, 0], pixels[:, 1]
        points, group = self.scene.frame.points_in_camera[v, u], self.group[v, u]
        still = np.repeat(points[:, None], self.num_steps, axis=1)
        positions = np.repeat(still[None], len(self.motions), axis=0)
        for index in range(self.motions.shape[1]):
            rows = np.flatnonzero(group == index)
            moved = transform_points(self.motions[:, index, :, None], points[rows])  # (N, T, P, 3)
            positions[:, rows] = moved.transpose(0, 2, 1, 3)
        return positions

    def instance_moving_probability(self) -> dict[int, float]:
        """Nothing is stated."""
        return {}


def truth_of(scene: Scene, predictor: str) -> Sample:
    """The sample of a scene, for oracles.

    Raises:
        ValueError: the scene has none.
    """
    if scene.sample is None:
        raise ValueError(f"predictor {predictor}: expected a scene with its true sample, which it is told; got none")
    return scene.sample


@dataclass(frozen=True)
class Static:
    """Nothing moves: whoever is worse than this should have said nothing.

    Attributes:
        num_steps: T.
        name: of its row.
        told: nothing.
    """

    num_steps: int = 50
    name: str = "static"
    told: str = ""

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> KnownMotion:  # noqa: ARG002
        """One future at rest."""
        nothing = np.full(scene.instances.ids.shape, -1, np.int32)
        return KnownMotion(scene, np.nan, self.num_steps, nothing, np.zeros((1, 0, self.num_steps, 4, 4)))


def _acted_translations(scene: Scene, sample: Sample, translations: Float32) -> KnownMotion:
    """The acted body moves along N paths (N, T, 3); all else rests."""
    roles = np.array(sample.body_roles)[sample.body_ids]
    group = np.where(roles == Role.ACTED, 0, -1).astype(np.int32)
    motions = np.tile(np.eye(4), (*translations.shape[:2], 1, 1))
    motions[..., :3, 3] = translations
    return KnownMotion(scene, sample.step_s, translations.shape[1], group, motions[:, None])


@dataclass(frozen=True, eq=False)
class SkillMeanOracle:
    """The acted object moves by the mean motion of the skill in training; all else rests."""

    skill_motions: SkillMotions
    name: str = "skill mean"
    told: str = TOLD_SKILL

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> KnownMotion:  # noqa: ARG002
        """One future.

        Raises:
            NoForecast: training shows no motion of the skill.
        """
        sample = truth_of(scene, self.name)
        _check_skill(self.skill_motions, sample)
        return _acted_translations(scene, sample, self.skill_motions.mean(sample))


@dataclass(frozen=True, eq=False)
class RetrievalOracle:
    """The acted object moves by random motions of the same skill in training; all else rests."""

    skill_motions: SkillMotions
    name: str = "retrieval"
    told: str = TOLD_SKILL

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> KnownMotion:
        """N futures.

        Raises:
            NoForecast: training shows no motion of the skill.
        """
        sample = truth_of(scene, self.name)
        _check_skill(self.skill_motions, sample)
        drawn = self.skill_motions.retrieve(sample, np.random.default_rng([seed, 3]), num_hypotheses)
        return _acted_translations(scene, sample, drawn)


def _check_skill(skill_motions: SkillMotions, sample: Sample) -> None:
    if sample.skill not in skill_motions.by_skill:
        raise NoForecast(f"{sample.key}: no training motion of the skill {sample.skill!r}")


@dataclass(frozen=True, eq=False)
class _TruePaths:
    """A prediction made of the true trajectories, extrapolated from their first step."""

    sample: Sample

    @property
    def step_s(self) -> float:
        """Seconds between two steps, the true ones."""
        return self.sample.step_s

    def trajectories(self, pixels: Int32) -> Float32:
        """(1, P, T, 3) metres, camera frame."""
        first = true_trajectories(self.sample, pixels)[:, :2]
        steps = np.arange(len(self.sample.motion_t_from_0), dtype=np.float32)[:, None]
        return np.asarray(first[:, :1] + steps * (first[:, 1:] - first[:, :1]), np.float32)[None]

    def instance_moving_probability(self) -> dict[int, float]:
        """Nothing is stated."""
        return {}


@dataclass(frozen=True)
class ConstantVelocityOracle:
    """Every point goes on as it truly moves from the first to the second step: what two frames would tell."""

    name: str = "constant velocity"
    told: str = "the first step"

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> _TruePaths:  # noqa: ARG002
        """One future."""
        return _TruePaths(truth_of(scene, self.name))


@dataclass(frozen=True)
class RigidOracle:
    """Every instance moves by the one rigid motion per step that fits its true motion best, by Kabsch's method.

    What it leaves is the floor of any forecast that moves the given instances rigidly: nothing where ids are true and
    bodies rigid, more where the robot is one instance or the segmenter joined or missed what moves.
    """

    name: str = "rigid oracle"
    told: str = "the truth"

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> KnownMotion:  # noqa: ARG002
        """One future."""
        sample = truth_of(scene, self.name)
        ids = scene.instances.ids
        motions: list[Float64] = []
        group = np.full(ids.shape, -1, np.int32)
        for instance_id in scene.instances.areas_px:
            rows, columns = np.nonzero((ids == instance_id) & scene.frame.valid)
            if len(rows) < MIN_TRAJECTORIES:
                continue
            true = true_trajectories(sample, np.stack([columns, rows], axis=-1).astype(np.int32))
            tracks = fit_rigid_tracks(true[:, 0], true[None], iterations=1)
            group[ids == instance_id] = len(motions)
            motions.append(tracks.motion_t_from_0)
        steps = len(sample.motion_t_from_0)
        stacked = np.stack(motions, axis=1) if motions else np.zeros((1, 0, steps, 4, 4))
        return KnownMotion(scene, sample.step_s, steps, group, stacked)
