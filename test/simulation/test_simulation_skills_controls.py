from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.geometry import Float64
from momap_ros.simulation.views import body_centre

if TYPE_CHECKING:
    from momap_ros.simulation.episodes import Episode
    from momap_ros.simulation.hand import Rollout

Play = Callable[[str, int], "tuple[Episode, Rollout]"]
BY_HAND = (
    "open_drawer",
    "close_drawer",
    "open_door",
    "close_door",
    "open_lid",
    "close_lid",
    "turn_knob",
    "turn_faucet",
    "flip_lever",
    "press_button",
    "move_slider",
)


def turn_about(axis: Float64, start: Float64, end: Float64) -> float:
    """Angle in radians by which (4, 4) `end` is turned against `start` about a unit axis in the body's frame."""
    relative = start[:3, :3].T @ end[:3, :3]
    sine = np.array([relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]])
    assert np.linalg.norm(relative @ axis - axis) < 0.02  # about this axis and no other
    return float(np.arctan2(sine @ axis / 2, (np.trace(relative) - 1) / 2))


def track(episode: Episode) -> Float64:
    """(S, 4, 4) pose of the acted body at every tenth state and the last, metres, world."""
    scene, last = episode.scene, len(episode.rollout.qpos) - 1
    states = [*range(0, last, 10), last]
    poses = episode.world_from_bodies(mujoco.MjData(scene.model), states)
    return poses[:, scene.model.body(scene.acted).id]


def successes(skill: str, perform_skill: Play) -> list[Episode]:
    episodes = [episode for episode, rollout in (perform_skill(skill, seed) for seed in range(6)) if rollout.success]
    assert len(episodes) >= 5
    return episodes


@pytest.mark.parametrize(("skill", "sign"), [("open_lid", 1), ("close_lid", -1), ("fall_shut", -1)])
def test_a_lid_turns_about_its_hinge(skill: str, sign: int, perform_skill: Play) -> None:
    for episode in successes(skill, perform_skill):
        poses = track(episode)
        assert sign * turn_about(np.array([0.0, -1, 0]), poses[0], poses[-1]) > 0.4
        centre = body_centre(episode.scene.model, "lid")
        rise = (poses[-1] @ [*centre, 1] - poses[0] @ [*centre, 1])[2]
        assert sign * rise > 0.03
        shut = poses[-1] if sign < 0 else poses[0]
        assert shut[2, 2] > 0.97  # level


@pytest.mark.parametrize("skill", ["turn_knob", "turn_faucet", "flip_lever"])
def test_a_part_turns_as_far_as_it_should(skill: str, perform_skill: Play) -> None:
    axis = np.array([0.0, 1, 0]) if skill == "flip_lever" else np.array([0.0, 0, 1])
    for episode in successes(skill, perform_skill):
        poses, fixture = track(episode), episode.scene.fixture
        assert fixture is not None
        turn = turn_about(axis, poses[0], poses[-1])
        assert turn == pytest.approx(episode.scene.task.amount - fixture.start, abs=0.25 * fixture.limit)
        assert abs(turn) > 0.2 * fixture.limit > 0.1
        if skill == "flip_lever":  # the stick leans to one side, then to the other
            side = np.cross(poses[0, :3, 1], [0, 0, 1.0])
            assert poses[0, :3, 2] @ side * (poses[-1, :3, 2] @ side) < 0


def test_a_button_goes_down_and_nowhere_else(perform_skill: Play) -> None:
    for episode in successes("press_button", perform_skill):
        poses = track(episode)
        way = poses[:, :3, 3] - poses[0, :3, 3]
        assert way[:, 2].min() < -0.009
        np.testing.assert_allclose(way[:, :2], 0, atol=1e-9)


def test_a_slider_moves_along_its_rail(perform_skill: Play) -> None:
    for episode in successes("move_slider", perform_skill):
        poses, fixture = track(episode), episode.scene.fixture
        assert fixture is not None
        along = poses[0, :3, :3].T @ (poses[-1, :3, 3] - poses[0, :3, 3])
        assert along[0] == pytest.approx(episode.scene.task.amount - fixture.start, abs=0.25 * fixture.limit)
        assert abs(along[0]) > 0.02
        np.testing.assert_allclose(along[1:], 0, atol=1e-6)


@pytest.mark.parametrize("skill", ["put_on_shelf", "put_in_sink"])
def test_an_object_ends_on_the_shelf_or_in_the_sink(skill: str, perform_skill: Play) -> None:
    for episode in successes(skill, perform_skill):
        scene, poses = episode.scene, track(episode)
        assert scene.fixture is not None
        body = scene.model.body(scene.fixture.body)
        half = np.abs(scene.model.geom_pos[scene.model.geom_bodyid == body.id]).max(0)
        data = mujoco.MjData(scene.model)
        episode.restore(data, len(episode.rollout.qpos) - 1)
        local = data.body(body.id).xmat.reshape(3, 3).T @ (poses[-1, :3, 3] - data.body(body.id).xpos)
        assert (np.abs(local[:2]) < half[:2] + 0.08).all()
        assert scene.fixture.top_m - 0.005 < local[2] < scene.fixture.top_m + 0.03
        # It is carried by the fixture: without it, nothing is between the object and the table.
        below = scene.model.geom_bodyid[data.contact.geom] if data.ncon else np.zeros((0, 2))
        mujoco.mj_collision(scene.model, data)
        below = scene.model.geom_bodyid[data.contact.geom]
        pair = {body.id, scene.model.body(scene.acted).id}
        assert any(set(bodies) == pair for bodies in below)


def test_a_lamp_swings_to_both_sides_from_rest(perform_skill: Play) -> None:
    for episode in successes("swing", perform_skill):
        poses = track(episode)
        centre = np.array([*body_centre(episode.scene.model, "lamp"), 1])
        places = (poses @ centre)[:, :3]
        aside = (places - poses[0, :3, 3]) @ np.cross(poses[0, :3, 0], [0, 0, 1.0])
        assert aside.min() < -0.01
        assert aside.max() > 0.01
        joint = episode.scene.model.joint("lamp_joint").qposadr[0]
        first = episode.rollout.qpos[:3, joint]
        assert np.abs(np.diff(first)).max() < 0.01  # it has not begun to move


@pytest.mark.parametrize("skill", BY_HAND)
def test_the_hand_moves_the_part_without_jumps(skill: str, perform_skill: Play) -> None:
    for seed in range(2):
        episode, rollout = perform_skill(skill, seed)
        scene, fixture = episode.scene, episode.scene.fixture
        assert fixture is not None
        way = rollout.qpos[:, scene.model.joint(fixture.joint).qposadr[0]]
        assert np.abs(np.diff(way)).max() < 0.1 * fixture.limit  # a button springs back fast
        touched = [contact for contact in rollout.contacts if contact.body == scene.model.body(fixture.part).id]
        begins = int(np.argmax(np.abs(way - way[0]) > 0.1 * fixture.limit))
        assert any(contact.first <= begins + 20 for contact in touched)
