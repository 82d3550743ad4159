from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.simulation.hand import Contact, Rollout, quaternion_down, quaternion_forward, rotation, smooth_shares
from momap_ros.simulation.skills.registry import SKILLS

if TYPE_CHECKING:
    from momap_ros.simulation.episodes import Episode

Play = Callable[[str, int], "tuple[Episode, Rollout]"]
CHECKED_HERE = (
    "lift",
    "pick_place",
    "put_in",
    "place_on",
    "stack",
    "push",
    "open_drawer",
    "close_drawer",
    "open_door",
    "close_door",
)


@pytest.mark.parametrize("skill", SKILLS)
def test_most_demonstrations_succeed(skill: str, perform_skill: Play) -> None:
    successes = sum(perform_skill(skill, seed)[1].success for seed in range(8))
    assert successes >= 5  # benchmarks/data_engine.py counts them over thousands


@pytest.mark.parametrize("skill", CHECKED_HERE)
def test_success_means_what_the_skill_says(skill: str, perform_skill: Play) -> None:
    compared = 0
    for seed in range(6):
        episode, rollout = perform_skill(skill, seed)
        if not rollout.success:
            continue
        scene, data = episode.scene, mujoco.MjData(episode.scene.model)
        poses = episode.world_from_bodies(data, [0, len(rollout.qpos) - 1])
        acted = scene.model.body(scene.acted).id
        start, end = poses[:, acted]
        moved = end[:3, 3] - start[:3, 3]
        if skill == "lift":
            assert moved[2] > 0.05
        elif skill == "pick_place":
            assert scene.task.goal_xy is not None
            assert np.linalg.norm(end[:2, 3] - scene.task.goal_xy) < 0.05
        elif skill in {"put_in", "place_on", "stack"}:
            assert scene.target is not None
            over = end[:3, 3] - poses[1, scene.model.body(scene.target.name).id, :3, 3]
            assert np.linalg.norm(over[:2]) < 0.08
            assert over[2] > (0.5 * scene.target.height_m if skill == "stack" else -0.005)
        elif skill == "push":
            assert scene.task.motion_xy is not None
            assert moved[:2] @ scene.task.motion_xy > 0
            assert np.linalg.norm(moved[:2]) > 0.03
        elif skill.endswith("drawer"):
            outwards = start[:3, 0] @ moved
            assert outwards > 0.03 if skill.startswith("open") else outwards < -0.03
        else:
            angle = np.arccos((np.trace(start[:3, :3].T @ end[:3, :3]) - 1) / 2)
            assert angle > 0.3
        compared += 1
    assert compared >= 4


def test_the_hand_points_where_its_orientation_says() -> None:
    np.testing.assert_allclose(rotation(quaternion_down(0.7))[:, 0], [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(rotation(quaternion_down(0.7))[:, 1], [-np.sin(0.7), np.cos(0.7), 0], atol=1e-9)
    forward = rotation(quaternion_forward(np.array([0.6, 0.8]), 0.5))[:, 0]
    np.testing.assert_allclose(forward, [0.6 * np.cos(0.5), 0.8 * np.cos(0.5), -np.sin(0.5)], atol=1e-9)


@pytest.mark.parametrize("skill", SKILLS)
def test_every_skill_has_its_own_wordings(skill: str) -> None:
    templates = SKILLS[skill].templates
    groups = (templates,) if isinstance(templates, tuple) else tuple(templates.values())
    assert all(len(set(group)) == len(group) >= 6 for group in groups)
    assert isinstance(templates, tuple) or set(templates) == {"left", "right", "away", "closer"}


@pytest.mark.parametrize("ease", ["smooth", "jerk", "early", "late"])
def test_a_motion_begins_and_ends_at_rest(ease: str) -> None:
    shares = np.concatenate([[0.0], smooth_shares(200, ease)])
    assert shares[-1] == 1.0
    assert (np.diff(shares) >= 0).all()
    assert np.diff(shares)[[0, -1]].max() < 0.2 * np.diff(shares).max()


def test_a_camera_switched_on_late_sees_the_rest() -> None:
    states = np.arange(20.0)
    rollout = Rollout(
        states[:, None],
        states[:, None, None],
        states[:, None, None],
        step_s=0.1,
        success=True,
        contacts=(Contact(3, 2, 4), Contact(5, 4, 12)),
    )
    rest = rollout.from_state(8)
    assert rest.qpos[0, 0] == rest.mocap_pos[0, 0, 0] == 8.0
    assert rest.duration_s == pytest.approx(1.1)
    assert rest.contacts == (Contact(5, 0, 4),)
    assert rest.success
