"""Forecasts drive the hand: the truth succeeds, rest does not, and every failure has its name."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.commands import rollout as command
from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, invert_se3, transform_points
from momap_ros.object_motion import ObjectMotion
from momap_ros.simulation.closed_loop import FAILURES, Attempt, attempt
from momap_ros.simulation.closed_loop_policies import POLICIES, PolicyChoice, make_policy, true_motions
from momap_ros.simulation.closed_loop_replanning import Replanning, Replans
from momap_ros.simulation.closed_loop_run import ROWS, RunSettings, run
from momap_ros.simulation.closed_loop_view import FirstView, first_view, later_view
from momap_ros.simulation.episodes import Episode, simulate_episode, skill_of_episode
from momap_ros.simulation.stage import open_stage

SIZE = 192
Looked = tuple[Episode, FirstView]


@pytest.fixture(scope="module")
def look() -> Callable[[str, int], Looked]:
    """The n-th episode of a skill of val, and what its camera sees; each made once."""
    made: dict[tuple[str, int], Looked] = {}

    def find(skill: str, number: int) -> Looked:
        if (skill, number) not in made:
            indices = [index for index in range(400) if skill_of_episode("val", index).name == skill]
            episode = simulate_episode("val", indices[number], from_rest=True)
            assert episode is not None
            stage = open_stage(episode, SIZE, SIZE)
            view = first_view(stage, SIZE)
            stage.renderer.close()
            assert view is not None
            made[skill, number] = episode, view
        return made[skill, number]

    return find


def follow(
    looked: Looked,
    change: Callable[[ObjectMotion], ObjectMotion] | None = None,
    config: FollowerConfig = FollowerConfig(),  # noqa: B008  (frozen)
) -> Attempt:
    """Follow the true future, or what a change makes of the motion of every object that moves."""
    episode, view = looked
    motions, step_s = true_motions(view)
    if change is not None:
        motions = [change(motion) if motion.moving_probability else motion for motion in motions]
    return attempt(episode, view, motions, step_s, config=config)


def test_fingers_that_close_on_nothing_try_another_place() -> None:
    episode = simulate_episode("train", 100_214, from_rest=True)  # open_drawer, whose handle is seen askew
    assert episode is not None
    stage = open_stage(episode, 256, 256)
    view = first_view(stage, 256)
    stage.renderer.close()
    assert view is not None
    assert follow((episode, view)).success


def backwards(motion: ObjectMotion) -> ObjectMotion:
    return replace(motion, motion_t_from_0=invert_se3(motion.motion_t_from_0))


@pytest.mark.parametrize(("skill", "number"), [("lift", 0), ("open_drawer", 0), ("push", 0), ("roll", 1)])
def test_the_true_future_succeeds_and_rest_never_does(
    look: Callable[[str, int], Looked], skill: str, number: int
) -> None:
    episode, view = look(skill, number)
    result = follow((episode, view))
    assert result.success, (result.failure, result.details)
    assert result.failure == ""
    motions, step_s = make_policy(PolicyChoice("static"))(view, np.random.default_rng(0))
    still = attempt(episode, view, motions, step_s, config=FollowerConfig())
    assert (still.success, still.failure) == (False, "nothing moves")


def test_attempts_repeat_exactly(look: Callable[[str, int], Looked]) -> None:
    one, other = follow(look("lift", 0)), follow(look("lift", 0))
    np.testing.assert_array_equal(one.rollout.qpos, other.rollout.qpos)


def test_a_forecast_of_another_object_is_called_so(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("lift", 0)
    acted = view.instance_of_acted()
    assert acted is not None
    motions, step_s = true_motions(view)
    track = next(motion.motion_t_from_0 for motion in motions if motion.instance_id == acted)
    others = [motion for motion in motions if motion.instance_id not in {acted, *view.robot_ids}]
    wrong = [replace(other, moving_probability=1.0, motion_t_from_0=track) for other in others]
    result = attempt(episode, view, wrong, step_s, config=FollowerConfig())
    assert (result.success, result.failure) == (False, "wrong object")


def test_a_gripper_that_is_too_small_finds_no_contact(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("lift", 0)
    motions, step_s = true_motions(view)
    result = attempt(episode, view, motions, step_s, config=FollowerConfig(opening_m=0.005))
    assert result.failure == "no contact found"


def test_hypotheses_that_contradict_each_other_are_not_followed(look: Callable[[str, int], Looked]) -> None:
    result = follow(look("lift", 0), lambda motion: replace(motion, hypothesis_spread_m=0.5))
    assert result.failure == "hypotheses too spread"


def test_a_camera_that_is_not_where_it_is_believed_leads_past_the_object(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("lift", 0)
    moved = view.sample.camera_from_world.copy()
    moved[:3, 3] += moved[:3, :3] @ [0.0, 0.0, -0.1]  # everything is taken to be 10 cm higher than it is
    result = follow((episode, replace(view, sample=replace(view.sample, camera_from_world=moved))))
    assert result.failure == "no grasp"


def test_a_drawer_that_is_shut_cannot_be_pushed_in(look: Callable[[str, int], Looked]) -> None:
    result = follow(look("open_drawer", 0), backwards, FollowerConfig(disagreement_m=0.01))
    assert result.failure == "stopped on disagreement"


def test_a_joint_is_not_forced_past_its_stop(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("turn_knob", 0)

    def twice(motion: ObjectMotion) -> ObjectMotion:
        track = motion.motion_t_from_0
        return replace(motion, motion_t_from_0=np.append(track, track[-1] @ track, axis=0))

    result = follow((episode, view), twice)
    fixture = episode.scene.fixture
    assert fixture is not None
    angles = result.rollout.qpos[:, episode.scene.model.joint(fixture.joint).qposadr[0]]
    assert angles.max() - angles.min() > 0.5
    assert angles.min() > -0.05
    assert angles.max() < fixture.limit + 0.05


def test_what_is_carried_beside_a_dish_and_stays_there_is_poured_into_it(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("pour", 2)
    target = episode.scene.target
    assert target is not None
    dish = episode.scene.model.body(target.name).id
    goal = next(number for number in view.instances.areas_px if view.body_of(number) == dish)

    def untilted(motion: ObjectMotion) -> ObjectMotion:
        path = transform_points(motion.motion_t_from_0, motion.centroid_m)
        track = np.repeat(np.eye(4)[None], len(path), axis=0)
        track[:, :3, 3] = path - path[0]
        return replace(motion, motion_t_from_0=track, goal_id=goal, hypothesis_spread_m=0.03)

    assert follow((episode, view), untilted).success
    assert not follow((episode, view), lambda motion: replace(untilted(motion), goal_id=0)).success


def test_a_push_the_other_way_is_called_so_or_ends_in_something(look: Callable[[str, int], Looked]) -> None:
    result = follow(look("push", 0), backwards)
    assert not result.success
    assert result.failure in {"wrong direction", "collision"}


@pytest.mark.parametrize(
    ("skill", "share", "failure"),
    [
        ("move_slider", 0.2, "too short"),
        ("pick_place", 0.4, "too short"),
        ("stack", 1.5, "too far"),
        ("open_drawer", 1.5, "too far"),
    ],
)
def test_a_part_of_the_way_is_too_short_and_more_than_the_way_too_far(
    look: Callable[[str, int], Looked], skill: str, share: float, failure: str
) -> None:
    def scaled(motion: ObjectMotion) -> ObjectMotion:
        track = motion.motion_t_from_0.copy()
        track[:, :3, 3] *= share
        return replace(motion, motion_t_from_0=track)

    result = follow(look(skill, 0), scaled)
    assert (result.success, result.failure) == (False, failure), result.details


def test_what_stands_in_the_way_is_a_collision(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("lift", 0)
    acted = view.instance_of_acted()
    motions, step_s = true_motions(view)
    mine = next(motion for motion in motions if motion.instance_id == acted)
    loose = {
        item.name: view.sample.body_names[episode.scene.model.body(item.name).id] for item in episode.scene.objects
    }
    other = next(motion for motion in motions if motion.instance_id != acted and motion.label in loose.values())
    through = np.repeat(np.eye(4)[None], len(mine.motion_t_from_0), axis=0)
    way = 1.6 * (other.centroid_m - mine.centroid_m)
    through[:, :3, 3] = np.linspace(0, 1, len(through))[:, None] * way
    result = attempt(episode, view, [replace(mine, motion_t_from_0=through)], step_s, config=FollowerConfig())
    assert result.failure == "collision", result.details


def over_the_edge(view: FirstView, edge_m: float, beyond_m: float) -> Callable[[ObjectMotion], ObjectMotion]:
    """Up, sideways until it is so far beyond the table's edge, and down to the table's height; 12 s."""
    in_camera = view.sample.camera_from_world[:3, :3]

    def change(motion: ObjectMotion) -> ObjectMotion:
        x, y, _ = transform_points(view.world_from_camera, motion.centroid_m)
        aside = np.array([0.1 - x, np.sign(y) * (edge_m + beyond_m) - y, 0.15])
        corners = np.array([[0, 0, 0], [0, 0, 0.15], aside, aside * [1, 1, 0]])
        shares = np.linspace(0, 3, 60)
        way = np.stack([np.interp(shares, range(4), corners[:, axis]) for axis in range(3)], axis=1)
        track = np.repeat(np.eye(4)[None], len(way), axis=0)
        track[:, :3, 3] = way @ in_camera.T
        return replace(motion, motion_t_from_0=track)

    return change


def edge_of_table(model: mujoco.MjModel) -> float:
    """Half the table's width, metres: of the widest box whose upper side is at height 0."""
    tops = (model.geom_bodyid == 0) & (np.abs(model.geom_pos[:, 2] + model.geom_size[:, 2]) < 1e-6)
    return float(model.geom_size[tops, 1].max())


def test_what_is_let_go_beside_the_table_is_lost_although_it_went_the_right_way(
    look: Callable[[str, int], Looked],
) -> None:
    episode, view = look("push", 1)  # a narrow table, whose edge the arm reaches
    result = follow((episode, view), over_the_edge(view, edge_of_table(episode.scene.model), 0.06))
    body = episode.scene.model.body(episode.scene.acted)
    height_m = result.rollout.qpos[-1, episode.scene.model.jnt_qposadr[body.jntadr[0]] + 2]
    assert height_m < -0.3  # on the floor
    assert (result.success, result.failure) == (False, "lost object")


def test_a_way_beyond_the_arms_reach_ends_in_unstable_physics(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("lift", 0)
    result = follow((episode, view), over_the_edge(view, edge_of_table(episode.scene.model), 0.4))
    assert (result.success, result.failure) == (False, "unstable physics")


def test_contacts_too_stiff_for_the_time_step_are_unstable_physics(look: Callable[[str, int], Looked]) -> None:
    episode, view = look("lift", 0)
    model = copy.copy(episode.scene.model)
    other = next(item.name for item in episode.scene.objects if item.name != episode.scene.acted)
    model.geom_solref[model.geom_bodyid == model.body(other).id] = [-1e12, 0.0]  # N/m per kg, undamped
    result = follow((replace(episode, scene=replace(episode.scene, model=model)), view))
    assert (result.success, result.failure) == (False, "unstable physics")


def follow_again(looked: Looked, forecast: Callable[[FirstView], tuple[list[ObjectMotion], float]]) -> Attempt:
    """Follow the true future, and forecast so every half second while the object is held."""
    episode, view = looked
    stage = open_stage(episode, SIZE, SIZE)
    motions, step_s = true_motions(view)
    try:
        again = Replanning(stage, view, forecast, every_s=0.5)
        return attempt(episode, view, motions, step_s, config=FollowerConfig(), replanning=again)
    finally:
        stage.renderer.close()


def resting(view: FirstView) -> tuple[list[ObjectMotion], float]:
    return make_policy(PolicyChoice("static"))(view, np.random.default_rng(0))


@pytest.mark.parametrize(("skill", "number"), [("lift", 0), ("open_drawer", 0)])
def test_the_truth_forecast_again_and_again_succeeds_as_it_does_once(
    look: Callable[[str, int], Looked], skill: str, number: int
) -> None:
    once, again = follow(look(skill, number)), follow_again(look(skill, number), true_motions)
    assert once.success
    assert again.success, (again.failure, again.details)
    assert once.replans == Replans()
    assert again.replans.taken > 0
    assert again.replans.stopped == 0
    # Every half second of the way that the first plan had left, and of what replanning added to it.
    assert again.replans.taken + again.replans.kept >= int(once.plan_s / 0.5)


def test_forecasts_that_say_something_else_leave_the_first_plan_as_it_is(look: Callable[[str, int], Looked]) -> None:
    def away(view: FirstView) -> tuple[list[ObjectMotion], float]:
        motions, step_s = true_motions(view)
        return [replace(motion, motion_t_from_0=aside(motion.motion_t_from_0)) for motion in motions], step_s

    def aside(track: Float64) -> Float64:
        moved: Float64 = track.copy()
        moved[:, 0, 3] += np.linspace(0, 0.3, len(track))
        return moved

    looked = look("lift", 0)
    once = follow(looked)
    for forecast in (resting, away):
        again = follow_again(looked, forecast)
        assert (again.replans.taken, again.replans.stopped) == (0, 0)
        assert again.replans.kept == int(once.plan_s / 0.5)
        np.testing.assert_array_equal(again.rollout.qpos, once.rollout.qpos)


def test_later_forecasts_whose_hypotheses_contradict_each_other_stop_the_gripper(
    look: Callable[[str, int], Looked],
) -> None:
    def spread(view: FirstView) -> tuple[list[ObjectMotion], float]:
        motions, step_s = true_motions(view)
        return [replace(motion, hypothesis_spread_m=0.5) for motion in motions], step_s

    result = follow_again(look("lift", 0), spread)
    assert result.replans == Replans(stopped=1)
    assert (result.success, result.failure) == (False, "hypotheses too spread")


def test_a_later_image_shows_the_state_and_its_truth_is_the_rest_of_the_demonstration(
    look: Callable[[str, int], Looked],
) -> None:
    episode, view = look("lift", 0)
    stage = open_stage(episode, SIZE, SIZE)
    step, acted = 30, episode.scene.model.body(episode.scene.acted).id
    data = mujoco.MjData(episode.scene.model)
    try:
        start = later_view(stage, view, stage.data, step=0)
        episode.restore(data, stage.states[step])
        later = later_view(stage, view, data, step=step)
    finally:
        stage.renderer.close()
    np.testing.assert_array_equal(start.instances.ids, view.instances.ids)
    np.testing.assert_array_equal(start.sample.depth_m, view.sample.depth_m)
    np.testing.assert_allclose(start.sample.motion_t_from_0, view.sample.motion_t_from_0, atol=1e-6)
    # In the camera's frame: where the demonstration takes the object from that step on.
    slot = list(view.sample.moving_bodies).index(acted)
    whole = np.repeat(np.eye(4)[None], len(stage.states), axis=0)
    whole[:, :3] = view.sample.motion_t_from_0[:, slot]
    expected = whole[step:] @ np.linalg.inv(whole[step])
    rest = later.sample.motion_t_from_0[:, slot]
    np.testing.assert_allclose(rest[: len(expected)], expected[:, :3], atol=1e-5)
    np.testing.assert_array_equal(rest[len(expected) :], np.repeat(rest[-1:], step, axis=0))
    assert later.sample.step_s == view.sample.step_s
    assert not np.array_equal(later.frame.depth_m, view.frame.depth_m)


def test_the_command_offers_the_policies() -> None:
    assert tuple(POLICIES) == command.POLICIES
    assert len(set(FAILURES)) == len(FAILURES)
    with pytest.raises(ValueError, match="expected a folder with train shards"):
        PolicyChoice("retrieval")
    with pytest.raises(ValueError, match="replan-every: expected seconds, 0 for one forecast per episode, got -1"):
        PolicyChoice("oracle", replan_every_s=-1.0)


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    options = ["--policy", "oracle", "static", "--skills", "lift", "--episodes", "2"]
    line = [sys.executable, "-m", "momap_ros.cli", "rollout", *options, "--out", str(tmp_path)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = tmp_path / ROWS
    deadline = time.monotonic() + 300
    while not (rows.exists() and rows.read_bytes().count(b"\n")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = rows.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    rows.write_bytes(whole + b'{"split": "val", "ind')  # as a kill in the middle of a line leaves it
    choices = [PolicyChoice("oracle"), PolicyChoice("static")]
    report = run(RunSettings("val"), choices, tmp_path, episodes_per_skill=2, skills=["lift"], videos=1)
    assert rows.read_bytes().startswith(whole)
    assert rows.read_bytes().count(b"\n") == 4
    assert report["policies"]["oracle"]["all"]["successes"] == 2
    assert report["policies"]["static"]["failures"] == {"nothing moves": 2}
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# Closed loop on val")
    content = rows.read_bytes()
    run(RunSettings("val"), choices, tmp_path, episodes_per_skill=2, skills=["lift"])
    assert rows.read_bytes() == content
    with pytest.raises(ValueError, match="take another folder"):
        run(RunSettings("val", instances="tabletop"), choices, tmp_path, episodes_per_skill=1)
    with pytest.raises(ValueError, match="skills: expected names of"):
        run(RunSettings("val"), choices, tmp_path, episodes_per_skill=1, skills=["fall"])


def test_a_run_begins_where_it_is_told_to(tmp_path: Path) -> None:
    settings = RunSettings("train", image_size=64, first_episode=100_000)
    run(settings, [PolicyChoice("static")], tmp_path, episodes_per_skill=2, skills=["lift"])
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2
    assert all(row["index"] >= 100_000 for row in rows)
