"""Episodes and views that the simulation tests share, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # where mujoco is missing, the test modules say so when they skip
    from momap_ros.data.sample import Sample
    from momap_ros.simulation.episodes import Episode
    from momap_ros.simulation.hand import Rollout

NUM_EPISODES = 45


@dataclass(frozen=True)
class Viewed:
    """A successful episode and the samples of its three cameras."""

    episode: Episode
    samples: list[Sample]


@pytest.fixture(scope="session")
def viewed() -> list[Viewed]:
    from momap_ros.simulation.episodes import simulate_episode
    from momap_ros.simulation.views import render_samples

    found = []
    for index in range(NUM_EPISODES):
        episode = simulate_episode("train", index)
        if episode is not None and episode.rollout.success:
            found.append(Viewed(episode, render_samples(episode, 3, 128)))
    return found


@pytest.fixture(scope="session")
def samples(viewed: list[Viewed]) -> list[Sample]:
    return [sample for item in viewed for sample in item.samples]


@pytest.fixture(scope="session")
def perform_skill() -> Callable[[str, int], tuple[Episode, Rollout]]:
    """Play one skill with one seed."""
    import numpy as np

    from momap_ros.simulation.episodes import Episode, perform
    from momap_ros.simulation.scene import build_scene
    from momap_ros.simulation.skills.registry import SKILLS
    from momap_ros.simulation.splits import SPLITS

    def play(skill: str, seed: int) -> tuple[Episode, Rollout]:
        rng = np.random.default_rng(seed)
        chosen = SKILLS[skill]
        scene = build_scene(SPLITS["train"], chosen.furnish, rng, needs_arm=chosen.unfold is None)
        rollout = perform(scene, rng)
        return Episode("train", seed, scene, rollout), rollout

    return play
