from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.data.sample import Role
from momap_ros.geometry import unproject_depth
from momap_ros.simulation.views import MIN_ACTED_SHARE, NUM_STEPS, moving_bodies

if TYPE_CHECKING:
    from conftest import Viewed

    from momap_ros.data.sample import Sample


def test_the_momap_is_every_point_carried_by_its_body(viewed: list[Viewed]) -> None:
    for item in viewed[:8]:
        sample, episode = item.samples[0], item.episode
        data = mujoco.MjData(episode.scene.model)
        world_from_camera = np.linalg.inv(sample.camera_from_world)
        points = unproject_depth(sample.depth_m, sample.camera).astype(np.float64)
        world = points @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
        states = episode.state_indices(NUM_STEPS)
        episode.restore(data, states[0])
        bodies = sample.body_ids
        local = np.einsum("hwji,hwj->hwi", data.xmat.reshape(-1, 3, 3)[bodies], world - data.xpos[bodies])
        xyz = sample.momap().xyz
        for step in (0, 17, 49):
            episode.restore(data, states[step])
            moved = np.einsum("hwij,hwj->hwi", data.xmat.reshape(-1, 3, 3)[bodies], local) + data.xpos[bodies]
            in_camera = moved @ sample.camera_from_world[:3, :3].T + sample.camera_from_world[:3, 3]
            np.testing.assert_allclose(xyz[step], in_camera, atol=2e-5)  # float32, and rest below 1e-5 m


def test_steps_are_equal_and_span_the_whole_motion(viewed: list[Viewed]) -> None:
    for item in viewed:
        states = item.episode.state_indices(NUM_STEPS)
        assert states[0] == 0
        assert states[-1] == len(item.episode.rollout.qpos) - 1
        assert np.ptp(np.diff(states)) <= 1
        for sample in item.samples:
            assert sample.duration_s == pytest.approx(states[-1] * item.episode.rollout.step_s)
            assert 1.0 < sample.duration_s < 15.1


def test_a_moment_beyond_the_end_is_the_last_one(viewed: list[Viewed]) -> None:
    episode = viewed[0].episode
    states, last = episode.state_indices(200, step_s=0.1), len(episode.rollout.qpos) - 1
    assert states[:3] == [round(i * 0.1 / episode.rollout.step_s) for i in range(3)]
    assert states[-1] == last
    assert states.index(last) == pytest.approx(episode.rollout.duration_s / 0.1, abs=1)


def test_the_acted_body_is_visible_and_moves(samples: list[Sample]) -> None:
    for sample in samples:
        if sample.skill == "wait":
            assert Role.ACTED not in sample.body_roles
            assert len(sample.moving_bodies) == 0
            continue
        acted = sample.body_roles.index(Role.ACTED)
        seen = sample.body_ids == acted
        assert seen.mean() >= MIN_ACTED_SHARE
        assert acted in sample.moving_bodies
        assert np.linalg.norm(sample.momap().displacement_m[:, seen], axis=-1).max() > 0.02


def test_roles_cover_the_scene(samples: list[Sample]) -> None:
    for sample in samples:
        roles = list(sample.body_roles)
        assert roles[0] == Role.WORLD
        assert roles.count(Role.ACTED) == (sample.skill != "wait")
        assert roles.count(Role.ROBOT) == {"none": 0, "hand": 3, "glove": 3}.get(sample.factors["arm"], 9)
        assert roles.count(Role.FIXTURE) == (sample.kind in {"drawer", "door"})
        assert not np.isin(sample.body_ids, [i for i, role in enumerate(roles) if role == Role.HIDDEN]).any()


def test_depth_is_complete_and_fits_its_storage(samples: list[Sample]) -> None:
    for sample in samples:
        assert np.isfinite(sample.depth_m).all()
        assert sample.depth_m.min() > 0.1
        assert sample.depth_m.max() < 6.5


def test_a_body_that_turns_in_place_counts_as_moving() -> None:
    poses = np.tile(np.eye(4), (3, 4, 1, 1))
    poses[1, 2, :2, :2] = [[0, -1], [1, 0]]
    poses[2, 3, 0, 3] = 0.001
    poses[2, 1, 0, 3] = 1e-7
    assert moving_bodies(poses) == [2, 3]


def test_the_framing_does_not_tell_which_object_will_move(
    samples: list[Sample], record_property: Callable[[str, object], None]
) -> None:
    hits, chances = [], []
    for sample in samples:
        if sample.kind in {"drawer", "door"} or sample.skill == "wait":
            continue
        centre = np.array(sample.rgb.shape[1::-1]) / 2 - 0.5
        distances = []
        for body, role in enumerate(sample.body_roles):
            rows, columns = np.nonzero(sample.body_ids == body)
            if role in {Role.ACTED, Role.OBJECT} and len(rows) >= MIN_ACTED_SHARE * sample.body_ids.size:
                distance = np.linalg.norm([columns.mean(), rows.mean()] - centre)
                distances.append((distance, role == Role.ACTED))
        if len(distances) >= 3:
            hits.append(min(distances)[1])
            chances.append(1 / len(distances))
    assert len(hits) >= 30
    share, chance = float(np.mean(hits)), float(np.mean(chances))
    record_property("nearest to the centre is acted", f"{share:.2f}, chance {chance:.2f}, {len(hits)} views")
    assert share < chance + 0.10
