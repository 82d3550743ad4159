from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.data.sample import Role
from momap_ros.evaluation.baselines import NUM_RETRIEVED, SkillMotions, acted_translation_in_world
from momap_ros.geometry import Float64, se3_from_parts

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


def translated(sample: Sample, path_in_world: Float64, seed: int) -> Sample:
    """The sample seen from elsewhere, its acted body moving along a path (T, 3) in the world without turning."""
    rotation = Rotation.random(random_state=seed).as_matrix()
    slot = [sample.body_roles[body] for body in sample.moving_bodies].index(Role.ACTED)
    motion = sample.motion_t_from_0.copy()
    motion[:, slot, :, :3] = np.eye(3)
    motion[:, slot, :, 3] = path_in_world @ rotation.T
    camera_from_world = se3_from_parts(rotation, np.array([0.1, 0.2, 0.3]))
    return replace(sample, camera_from_world=camera_from_world, motion_t_from_0=motion)


def path(seed: int) -> Float64:
    steps = np.random.default_rng(seed).normal(size=(50, 3)) * 0.02
    steps[0] = 0
    return np.cumsum(steps, axis=0)


def test_a_translation_is_the_same_from_every_camera(simulated: list[Sample]) -> None:
    for seed in range(3):
        found = acted_translation_in_world(translated(simulated[0], path(0), seed))
        assert found is not None
        np.testing.assert_allclose(found, path(0), atol=1e-5)


def test_a_lifted_object_goes_up() -> None:
    """World z points up."""
    pytest.importorskip("momap_ros.simulation", exc_type=ImportError)
    from momap_ros.simulation.episodes import Episode, perform
    from momap_ros.simulation.scene import build_scene
    from momap_ros.simulation.skills.registry import SKILLS
    from momap_ros.simulation.splits import SPLITS
    from momap_ros.simulation.views import render_samples

    rng = np.random.default_rng(4)
    scene = build_scene(SPLITS["val"], SKILLS["lift"].furnish, rng)
    (sample,) = render_samples(Episode("val", 0, scene, perform(scene, rng)), 1, 64)
    translation = acted_translation_in_world(sample)
    assert translation is not None
    assert translation[-1, 2] > 0.05
    assert translation[-1, 2] > 3 * np.linalg.norm(translation[-1, :2])


def test_a_body_that_stays_has_no_translation(simulated: list[Sample]) -> None:
    sample = simulated[0]
    others = np.array([sample.body_roles[body] != Role.ACTED for body in sample.moving_bodies])
    resting = replace(
        sample, moving_bodies=sample.moving_bodies[others], motion_t_from_0=sample.motion_t_from_0[:, others]
    )
    assert acted_translation_in_world(resting) is None
    assert SkillMotions([resting]).by_skill == {}


def test_the_mean_motion_of_a_skill_is_shown_in_the_camera_of_the_sample(simulated: list[Sample]) -> None:
    first, second = translated(simulated[0], path(1), 1), translated(simulated[0], path(2), 2)
    motions = SkillMotions([first, second])
    seen = translated(simulated[0], path(3), 3)
    expected = (path(1) + path(2)) / 2 @ seen.camera_from_world[:3, :3].T
    np.testing.assert_allclose(motions.mean(seen), expected[None], atol=1e-5)


def test_skills_are_kept_apart(simulated: list[Sample]) -> None:
    skills = {sample.skill for sample in simulated}
    motions = SkillMotions(simulated)
    assert set(motions.by_skill) == skills
    for skill in skills:
        assert len(motions.by_skill[skill]) == sum(sample.skill == skill for sample in simulated)


def test_retrieved_motions_are_training_motions(simulated: list[Sample]) -> None:
    motions = SkillMotions([translated(simulated[0], path(seed), seed) for seed in range(4)])
    seen = translated(simulated[0], path(9), 9)
    drawn = motions.retrieve(seen, np.random.default_rng(0))
    assert drawn.shape == (NUM_RETRIEVED, 50, 3)
    pool = np.stack([path(seed) for seed in range(4)]) @ seen.camera_from_world[:3, :3].T
    nearest = np.abs(drawn[:, None] - pool[None]).max(axis=(2, 3)).min(axis=1)
    assert nearest.max() < 1e-5
    assert len(np.unique(drawn[:, -1, 0].round(5))) > 1
    np.testing.assert_array_equal(drawn, motions.retrieve(seen, np.random.default_rng(0)))


def test_a_skill_without_training_motions_has_no_baseline(simulated: list[Sample]) -> None:
    with pytest.raises(KeyError, match="juggle"):
        SkillMotions(simulated).mean(replace(simulated[0], skill="juggle"))
