from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.data.sample import Role
from momap_ros.geometry import PinholeCamera, unproject_depth
from momap_ros.simulation.assets import KINDS
from momap_ros.simulation.cameras import HELD_OUT_SECTORS, SECTORS, View, look_at
from momap_ros.simulation.episodes import simulate_episode, simulate_futures
from momap_ros.simulation.stage import NUM_STEPS, open_stage
from momap_ros.simulation.views import MIN_ACTED_SHARE, is_clear, moving_bodies, render_futures, render_samples

if TYPE_CHECKING:
    from conftest import Viewed

    from momap_ros.data.sample import Sample
    from momap_ros.simulation.episodes import Episode


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
        assert np.linalg.norm(sample.momap().displacement_m[:, seen], axis=-1).max() > (
            0.02 if sample.kind in KINDS else 0.01
        )


def test_what_a_sentence_names_as_goal_is_in_the_picture(viewed: list[Viewed]) -> None:
    named = 0
    for item in viewed:
        scene = item.episode.scene
        stood_on = scene.fixture.body if scene.fixture and scene.acted_object else None
        for body in filter(None, (scene.target.name if scene.target else None, stood_on)):
            for sample in item.samples:
                assert (sample.body_ids == scene.model.body(body).id).mean() >= MIN_ACTED_SHARE, (sample.key, body)
                named += 1
    assert named >= 8


def test_roles_cover_the_scene(samples: list[Sample]) -> None:
    for sample in samples:
        roles = list(sample.body_roles)
        assert roles[0] == Role.WORLD
        assert roles.count(Role.ACTED) == (sample.skill != "wait")
        assert roles.count(Role.ROBOT) == {"none": 0, "hand": 3, "glove": 3}.get(sample.factors["arm"], 9)
        assert roles.count(Role.FIXTURE) >= (sample.skill != "wait" and sample.kind not in KINDS)
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


def test_images_have_any_size_and_motions_any_steps(viewed: list[Viewed]) -> None:
    episode = next(item.episode for item in viewed if len(item.samples[0].moving_bodies))
    duration_s = episode.rollout.duration_s
    sample = render_samples(episode, 1, 96, 54, num_steps=12)[0]
    assert sample.rgb.shape == (54, 96, 3)
    assert sample.camera.fx == pytest.approx(sample.camera.fy, rel=0.01)
    assert sample.momap().xyz.shape == (12, 54, 96, 3)
    assert sample.step_s == pytest.approx(duration_s / 11)
    longer = render_samples(episode, 1, 96, 54, num_steps=12, step_s=duration_s / 8)[0]
    np.testing.assert_array_equal(longer.rgb, sample.rgb)
    assert longer.step_s == pytest.approx(duration_s / 8)
    np.testing.assert_array_equal(longer.motion_t_from_0[8:], np.repeat(longer.motion_t_from_0[8:9], 4, axis=0))
    np.testing.assert_allclose(longer.motion_t_from_0[8], sample.motion_t_from_0[-1], atol=0.002)


@pytest.mark.parametrize(("num_steps", "step_s"), [(1, None), (10, 0.0)])
def test_impossible_steps_are_refused(viewed: list[Viewed], num_steps: int, step_s: float | None) -> None:
    with pytest.raises(ValueError, match="steps: expected at least 2 of positive length"):
        render_samples(viewed[0].episode, 1, 32, num_steps=num_steps, step_s=step_s)


def test_samples_say_where_their_camera_stands_and_which_it_is(samples: list[Sample]) -> None:
    assert {sample.factors["sector"] for sample in samples} == set(SECTORS)
    assert len({sample.factors["intrinsics"] for sample in samples}) > 5


def test_the_scene_split_is_seen_from_where_training_never_sees() -> None:
    episodes = (simulate_episode("scene", index) for index in range(12))
    found = [
        sample.factors["sector"]
        for episode in episodes
        if episode is not None and episode.rollout.success
        for sample in render_samples(episode, 2, 64)
    ]
    assert set(found) == set(HELD_OUT_SECTORS)


def test_futures_of_one_scene_share_their_first_image() -> None:
    futures: list[Episode] = []
    index = 0
    while len(futures) < 2:
        futures = simulate_futures("futures", index)[:3]
        index += 1
    found = render_futures(futures, 2, 64)
    groups = {sample.first_frame: [s for s in found if s.first_frame == sample.first_frame] for sample in found}
    assert len({sample.key for sample in found}) == len(found)
    assert max(len(group) for group in groups.values()) >= 2
    for group in groups.values():
        for sample in group:
            np.testing.assert_array_equal(sample.rgb, group[0].rgb)
            np.testing.assert_array_equal(sample.body_ids, group[0].body_ids)
            if sample.skill != "wait":
                assert (sample.body_ids == sample.body_roles.index(Role.ACTED)).mean() >= MIN_ACTED_SHARE
    ends = [sample.motion_t_from_0[-1] for sample in max(groups.values(), key=len)]
    assert any(end.shape != ends[0].shape or not np.allclose(end, ends[0]) for end in ends[1:])


def test_a_camera_inside_a_solid_is_not_clear(viewed: list[Viewed]) -> None:
    episode = next(item.episode for item in viewed if item.episode.scene.fixtures)
    stage = open_stage(episode, 32, 32)
    cabinet = stage.world_from_bodies[0, episode.scene.model.body(episode.scene.fixtures[0].body).id, :3, 3]
    camera = PinholeCamera.from_fov(32, 32, vertical_fov_rad=0.9)
    clear = []
    for position in ([-0.2, 0.4, 0.5], [0.25, 0.0, -0.03]):  # in the air, and within the table's top
        view = View(camera, look_at(np.array(position), cabinet + np.array([0, 0, 0.3]), np.array([0.1, 0.2, 1.0])))
        clear.append(is_clear(stage, view, *stage.renderer.depth_and_bodies(stage.data, view)))
    stage.renderer.close()
    assert clear == [True, False]


def test_nearly_every_camera_finds_a_place_to_see_from(viewed: list[Viewed]) -> None:
    missing = sum(3 - len(item.samples) for item in viewed)
    assert missing <= 0.02 * 3 * len(viewed)
