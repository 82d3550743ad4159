"""The checks that look at a recording alone agree with the scripts' own verdicts, and rest never satisfies one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.simulation.closed_loop_checks import CHECKS, NOBODY_ACTS, succeeded
from momap_ros.simulation.hand import rotation
from momap_ros.simulation.scene import NoRoomError
from momap_ros.simulation.skills.registry import SKILLS

if TYPE_CHECKING:
    from momap_ros.simulation.episodes import Episode
    from momap_ros.simulation.hand import Rollout

SEEDS = 40


def test_every_skill_in_which_somebody_acts_has_a_check() -> None:
    assert set(CHECKS) == {name for name, skill in SKILLS.items() if skill.perform is not None}
    assert NOBODY_ACTS == ("roll_down", "fall", "swing", "fall_shut", "wait")


@pytest.mark.parametrize("skill", CHECKS)
def test_the_check_agrees_with_the_script_and_rest_is_no_success(
    skill: str, perform_skill: Callable[[str, int], tuple[Episode, Rollout]]
) -> None:
    played = None
    for seed in range(SEEDS):
        try:
            played = perform_skill(skill, seed)
            break
        except NoRoomError:
            continue
    assert played is not None
    episode, rollout = played
    assert succeeded(episode.scene, rollout) == rollout.success
    first = [np.repeat(part[:1], 30, axis=0) for part in (rollout.qpos, rollout.mocap_pos, rollout.mocap_quat)]
    rest = replace(rollout, qpos=first[0], mocap_pos=first[1], mocap_quat=first[2], contacts=())
    assert not succeeded(episode.scene, rest)


@pytest.fixture(params=["pick_place", "unstack"])
def carried(
    request: pytest.FixtureRequest, perform_skill: Callable[[str, int], tuple[Episode, Rollout]]
) -> tuple[Episode, Rollout]:
    """Skills whose sentences name no place."""
    return perform_skill(request.param, 0)


def moved(episode: Episode, rollout: Rollout, xyz_m: np.ndarray) -> Rollout:
    """The recording with the acted object elsewhere at its end; (3,) metres, world."""
    qpos = rollout.qpos.copy()
    first = episode.scene.model.jnt_qposadr[episode.scene.model.body(episode.scene.acted).jntadr[0]]
    qpos[-1, first : first + 3] = xyz_m
    return replace(rollout, qpos=qpos)


def test_where_no_place_is_said_the_way_counts(carried: tuple[Episode, Rollout]) -> None:
    episode, rollout = carried
    scene = episode.scene
    first = scene.model.jnt_qposadr[scene.model.body(scene.acted).jntadr[0]]
    start, end = rollout.qpos[0, first : first + 3], rollout.qpos[-1, first : first + 3]
    way = (end - start) * [1, 1, 0]
    aside = np.array([-way[1], way[0], 0.0])
    assert succeeded(scene, moved(episode, rollout, end + 0.2 * way))  # a script would have missed its place
    assert not succeeded(scene, moved(episode, rollout, end - 0.97 * way))  # it is where it was
    assert not succeeded(scene, moved(episode, rollout, end + np.array([0, 0, 0.1])))  # in the air
    if scene.skill == "pick_place":
        assert not succeeded(scene, moved(episode, rollout, end - 0.6 * way))
        assert succeeded(scene, moved(episode, rollout, end + 0.7 * aside))
        assert not succeeded(scene, moved(episode, rollout, end + 1.2 * aside))


@pytest.mark.parametrize("skill", ["put_on_shelf", "put_in_sink"])
def test_anywhere_on_the_shelf_and_in_the_sink_is_right_and_beside_it_is_not(
    skill: str, perform_skill: Callable[[str, int], tuple[Episode, Rollout]]
) -> None:
    episode, rollout = perform_skill(skill, 0)
    scene, fixture = episode.scene, episode.scene.fixture
    assert fixture is not None
    along, across, _ = rotation(scene.model.body(fixture.body).quat).T
    middle = np.array([*fixture.xy, fixture.top_m + 0.005])
    # Boards are at least 11 cm deep and 18 cm wide, basins 13 and 15; none is wider than 30 cm.
    for off in (0.05 * along, -0.05 * along, 0.07 * across, -0.07 * across):
        assert succeeded(scene, moved(episode, rollout, middle + off))
    for off in (0.16 * along, 0.16 * across, np.array([0, 0, 0.05]), np.array([0, 0, -0.02])):
        assert not succeeded(scene, moved(episode, rollout, middle + off))


@pytest.mark.parametrize("skill", ["turn_knob", "turn_faucet"])
def test_where_no_way_is_said_either_way_is_right_and_a_little_is_not(
    skill: str, perform_skill: Callable[[str, int], tuple[Episode, Rollout]]
) -> None:
    episode, rollout = perform_skill(skill, 0)
    fixture = episode.scene.fixture
    assert fixture is not None
    at = episode.scene.model.joint(fixture.joint).qposadr[0]

    def ended(position: float) -> Rollout:
        qpos = rollout.qpos.copy()
        qpos[-1, at] = position
        return replace(rollout, qpos=qpos)

    first, way = rollout.qpos[0, at], rollout.qpos[-1, at] - rollout.qpos[0, at]
    assert abs(way) > 0.39 * fixture.limit  # no script turns it by less
    assert succeeded(episode.scene, ended(first - way))
    assert succeeded(episode.scene, ended(first + np.sign(way) * 0.4 * fixture.limit))
    assert not succeeded(episode.scene, ended(first + 0.3 * fixture.limit))
    assert not succeeded(episode.scene, ended(first - 0.3 * fixture.limit))


def test_nobody_can_succeed_where_nobody_acts(
    perform_skill: Callable[[str, int], tuple[Episode, Rollout]],
) -> None:
    episode, rollout = perform_skill("wait", 0)
    with pytest.raises(ValueError, match="in which nobody acts"):
        succeeded(episode.scene, rollout)
