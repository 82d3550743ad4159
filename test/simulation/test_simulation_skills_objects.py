"""Skills that act on loose objects: a demonstration that calls itself a success did what its sentence says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.simulation.arm import BASE_XY
from momap_ros.simulation.assets import has_trait
from momap_ros.simulation.skills.registry import SKILLS

if TYPE_CHECKING:
    from momap_ros.geometry import Float64
    from momap_ros.simulation.episodes import Episode
    from momap_ros.simulation.hand import Rollout

Play = Callable[[str, int], "tuple[Episode, Rollout]"]
NUM_STATES = 21
SEEDS = range(20, 24)


def played(play: Play, skill: str) -> list[tuple[Episode, Float64]]:
    """Successful episodes and the (T, B, 4, 4) poses of every body at NUM_STATES equal steps; most of them succeed."""
    found = []
    for seed in SEEDS:
        episode, rollout = play(skill, seed)
        if rollout.success:
            data = mujoco.MjData(episode.scene.model)
            found.append((episode, episode.world_from_bodies(data, episode.state_indices(NUM_STATES))))
    assert len(found) >= 3
    return found


def acted(episode: Episode, poses: Float64) -> Float64:
    """(T, 4, 4) pose of the acted body."""
    return np.asarray(poses[:, episode.scene.model.body(episode.scene.acted).id])


def centres(episode: Episode, poses: Float64, name: str) -> Float64:
    """(T, 3) centre of mass of a body, metres, world; where a thing rolls, its origin goes round."""
    body = episode.scene.model.body(name)
    return np.asarray(poses[:, body.id, :3, :3] @ body.ipos + poses[:, body.id, :3, 3])


def unit_xy(vector: Float64) -> Float64:
    return np.asarray(vector[:2] / np.linalg.norm(vector[:2]))


@pytest.mark.parametrize("skill", ["pull", "slide", "sweep", "roll"])
def test_objects_go_where_they_are_sent(skill: str, perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, skill):
        scene = episode.scene
        assert scene.task.motion_xy is not None
        path = centres(episode, poses, scene.acted)
        moved = path[-1] - path[0]
        assert moved[:2] @ unit_xy(scene.task.motion_xy) > 0.03
        assert abs(moved[2]) < 0.02
        if skill == "pull":
            distances = np.linalg.norm(path[[0, -1], :2] - BASE_XY, axis=-1)
            assert distances[1] < distances[0] - 0.02
        elif skill == "sweep":
            others = [item.name for item in scene.objects if item.name != scene.acted]
            ways = [centres(episode, poses, name) for name in others]
            assert max(np.linalg.norm(way[-1] - way[0]) for way in ways) > 0.03
        elif skill == "slide":
            assert acted(episode, poses)[:, 2, 2].min() > 0.95, "it stays flat"


@pytest.mark.parametrize("skill", ["topple", "upright"])
def test_objects_are_tipped(skill: str, perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, skill):
        upright = acted(episode, poses)[:, 2, 2]
        before, after = (upright[0], upright[-1]) if skill == "topple" else (upright[-1], upright[0])
        assert before > 0.96
        assert abs(after) < 0.5


def test_what_is_poured_is_tilted_over_the_dish(perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, "pour"):
        scene, pose = episode.scene, acted(episode, poses)
        assert scene.acted_object is not None
        assert scene.target is not None
        tilted = int(pose[:, 2, 2].argmin())
        mouth = pose[tilted, :3, 3] + scene.acted_object.top_m * pose[tilted, :3, 2]
        dish = poses[tilted, scene.model.body(scene.target.name).id, :3, 3]
        assert pose[tilted, 2, 2] < np.cos(np.radians(50))
        assert np.linalg.norm((mouth - dish)[:2]) < scene.target.half_width_m + 0.03
        assert mouth[2] > dish[2] + scene.target.height_m


def test_what_is_turned_stays_in_its_place(perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, "turn"):
        pose, path = acted(episode, poses), centres(episode, poses, episode.scene.acted)
        assert pose[0, :3, 0] @ pose[-1, :3, 0] < np.cos(0.7)
        assert np.linalg.norm(path[-1] - path[0]) < 0.05


def test_wiping_goes_to_and_fro_on_the_table(perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, "wipe"):
        path = acted(episode, poses)[:, :3, 3]
        assert np.abs(path[:, 2]).max() < 0.01
        steps = np.diff(path[:, :2], axis=0)
        axis = np.linalg.svd(steps)[2][0]
        signs = np.sign([step @ axis for step in steps if np.linalg.norm(step) > 0.005])
        assert (np.diff(signs) != 0).sum() >= 3


def test_what_is_unstacked_lay_on_the_other_and_lies_on_the_table(perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, "unstack"):
        scene, pose = episode.scene, acted(episode, poses)
        assert scene.target is not None
        below = poses[:, scene.model.body(scene.target.name).id, :3, 3]
        assert np.linalg.norm(pose[0, :2, 3] - below[0, :2]) < 0.02
        assert pose[0, 2, 3] > below[0, 2] + 0.003
        assert abs(pose[-1, 2, 3]) < 0.02
        assert np.linalg.norm(pose[-1, :2, 3] - below[-1, :2]) > 0.05
        assert scene.target not in scene.free_objects


@pytest.mark.parametrize("skill", ["roll_down", "fall"])
def test_gravity_alone_moves_what_was_at_rest(skill: str, perform_skill: Play) -> None:
    for episode, poses in played(perform_skill, skill):
        scene, path = episode.scene, centres(episode, poses, episode.scene.acted)
        data = mujoco.MjData(scene.model)
        soon = episode.world_from_bodies(data, [0, 25])
        start = centres(episode, soon, scene.acted)
        assert np.linalg.norm(start[1] - start[0]) < 1e-4, "the first frame shows it at rest"
        assert path[-1, 2] < path[0, 2]
        assert np.linalg.norm(path[-1] - path[0]) > 0.02
        assert not episode.rollout.contacts
        assert scene.acted_object not in scene.free_objects


@pytest.mark.parametrize("skill", [skill.name for skill in SKILLS.values() if skill.retarget and skill.kinds])
def test_another_goal_is_drawn_from_what_lies_about(skill: str, perform_skill: Play) -> None:
    episode, _ = perform_skill("unstack", 21)
    retarget = SKILLS[skill].retarget
    assert retarget is not None
    tasks = [retarget(episode.scene, np.random.default_rng(seed)) for seed in range(8)]
    for task in tasks:
        if task is not None:
            assert task.item in episode.scene.free_objects
            assert task.item is not task.target
    if skill in {"unstack", "pick_place", "push", "pull", "lift"}:
        assert None not in tasks


def test_upright_things_lie_at_first(perform_skill: Play) -> None:
    episode, _ = perform_skill("upright", 20)
    item = episode.scene.acted_object
    assert item is not None
    assert has_trait(item.kind, "lies")
    assert item not in episode.scene.free_objects


def test_objects_touch_in_cluttered_scenes_and_stay_where_they_are(perform_skill: Play) -> None:
    touching = 0
    for seed in range(40, 100):
        episode, _ = perform_skill("wait", seed)
        scene = episode.scene
        if scene.factors["clutter"] == "apart":
            continue
        data = mujoco.MjData(scene.model)
        episode.restore(data, 0)
        mujoco.mj_forward(scene.model, data)
        names = [item.name for item in scene.objects]
        for name in names:
            assert np.linalg.norm(data.body(name).xpos[:2] - scene.model.body(name).pos[:2]) < 0.04
        bodies = [scene.model.body(name).id for name in names]
        pairs = scene.model.geom_bodyid[data.contact.geom]
        touching += int((np.isin(pairs, bodies).all(axis=1) & (pairs[:, 0] != pairs[:, 1])).sum())
    assert touching >= 2, touching
