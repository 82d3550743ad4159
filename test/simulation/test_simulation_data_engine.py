"""benchmarks/data_engine.py: its figures against numbers computed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.data.sample import Role
from momap_ros.simulation.episodes import Episode, simulate_episode
from momap_ros.simulation.views import render_samples


@pytest.fixture(scope="module")
def engine(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/data_engine.py")


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    """The first three that succeed and in which something is acted on."""
    found: list[Episode] = []
    index = 0
    while len(found) < 3:
        episode = simulate_episode("train", index)
        if episode is not None and episode.rollout.success and episode.scene.acted:
            found.append(episode)
        index += 1
    return found


def test_true_points_pass_and_shifted_ones_are_found(engine: ModuleType, episodes: list[Episode]) -> None:
    total: Counter[str] = Counter()
    for episode in episodes:
        [sample] = render_samples(episode, 1, 128)
        total += engine.count_rays(episode, sample)
    assert total["points"] == 3 * engine.RAY_POINTS * engine.RAY_STEPS
    assert total["violations"] == 0
    assert total["shift_found"] > 0.4 * total["shift_points"] > 0
    assert total["lag_found"] > 0.05 * total["lag_points"] > 0


def test_shares_are_those_of_the_pixels(engine: ModuleType, episodes: list[Episode]) -> None:
    for episode in episodes:
        [sample] = render_samples(episode, 1, 128)
        momap = sample.momap()
        facts = engine.sample_facts(sample)
        acted = sample.body_roles.index(Role.ACTED)
        robot = [body for body, role in enumerate(sample.body_roles) if role == Role.ROBOT]
        assert facts.acted == pytest.approx((sample.body_ids == acted).sum() / 128**2)
        assert facts.robot == pytest.approx(np.isin(sample.body_ids, robot).sum() / 128**2)
        farthest = np.linalg.norm(momap.xyz - momap.xyz[0], axis=-1).max(axis=0)
        assert facts.moving == pytest.approx((farthest > 0.01).mean())
        assert facts.on_movers == pytest.approx(np.isin(sample.body_ids, sample.moving_bodies).mean())
        assert facts.sentences == (sample.text, *sample.paraphrases)


def test_figures_are_computed_from_the_facts(engine: ModuleType) -> None:
    hit, miss = engine.FramingLeak(1, 0.25, 0.1, 1), engine.FramingLeak(0, 0.25, 0.1, 1)
    facts = [
        engine.SampleFacts(("lift the can", "raise the can"), 0.1, 0.1, 0.05, 0.2, hit),
        engine.SampleFacts(("lift the can",), 0.3, 0.4, 0.01, 0.0, miss),
        engine.SampleFacts(("open the door",), 0.2, 0.2, None, 0.1, None),
    ]
    content = engine.Content(
        tried=Counter(lift=4, topple=2),
        succeeded=Counter(lift=4, topple=1),
        samples=facts,
        rays=Counter(points=2500, violations=1, shift_points=1250, shift_found=1000, lag_points=100, lag_found=5),
        memory=[(index, 200.0 + index / 80) for index in range(0, 1000, 25)],
    )

    framing = engine.framing_figure(content)
    figures = [
        *engine.pixel_figures(content),
        *engine.success_figures(content),
        *engine.ray_figures(content),
        engine.sentence_figure(content),
        framing,
        engine.memory_figure(content),
    ]
    assert [(figure.value, figure.met) for figure in figures] == [
        *[(20.0, True), (23.33, None), (3.0, False), (10.0, None)],
        *[(100.0, True), (50.0, False)],
        *[(1, False), (80.0, True), (5.0, False)],
        (2, False),
        (25.0, False),  # one hit of two, where half a hit is chance
        (250, False),  # 1 MiB in 80 episodes
    ]
    assert "2 samples with at least 3 objects" in framing.note


def test_the_page_shows_every_figure(engine: ModuleType) -> None:
    figures = [
        {"name": "speed", "value": 28174, "unit": "", "target": ">= 20000", "met": True, "note": "n"},
        {"name": "size", "value": 132.6, "unit": "kB", "target": "<= 110", "met": False, "note": ""},
    ]
    report = {
        "date": "2026-01-01",
        "commit": None,
        "quick": True,
        "machine": {"processor": "p", "cores": 2, "load_before": 0.1},
        "versions": {"mujoco": "4", "python": "3"},
        **{"split": "train", "episodes": 1, "no_scene": 0, "rollouts": 1, "samples": 1},
        "figures": figures,
    }
    page = engine.markdown(report)
    assert "| speed | 28,174 | >= 20000 | yes | n |" in page
    assert "| size | 132.6 kB | <= 110 | **no** |  |" in page
    assert "the numbers mean nothing" in page
