"""What a model must beat; baselines that are told more than the model say so."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from momap_ros.data.sample import Role, Sample
from momap_ros.geometry import Float32, Float64

NUM_RETRIEVED = 10


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

    def retrieve(self, sample: Sample, rng: np.random.Generator) -> Float32:
        """(10, T, 3) random training translations of the same skill in the sample's camera, metres."""
        pool = self.by_skill[sample.skill]
        return self._in_camera(sample, pool[rng.integers(0, len(pool), NUM_RETRIEVED)])

    @staticmethod
    def _in_camera(sample: Sample, translation: Float64) -> Float32:
        return np.asarray(translation @ sample.camera_from_world[:3, :3].T, np.float32)
