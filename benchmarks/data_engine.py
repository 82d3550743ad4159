#!/usr/bin/env python3
"""Measure the data engine: all figures that its data card states, by one command.

    python benchmarks/data_engine.py --out out/data_engine              # about half an hour on two idle cores
    python benchmarks/data_engine.py --out out/data_engine --quick      # does it run? The numbers mean nothing

Writes data_engine.json and data_engine.md, with commit, date and machine. Two parts:

- content: episodes are simulated and rendered at 256x256, two views each, in this process, one at a time. What the
  figures need of a sample is a few numbers (`SampleFacts`); no image outlives its episode.
- speed: the engine itself (`momap simulate`), with one worker and with two.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from tqdm import tqdm

from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.data.sample import Role, Sample
from momap_ros.files import atomic_path
from momap_ros.simulation.checks import FramingLeak, framing_leak, ray_check
from momap_ros.simulation.episodes import Episode, simulate_episode
from momap_ros.simulation.generate import Request, generate
from momap_ros.simulation.shards import ShardTask, memory_mib, render
from momap_ros.simulation.splits import SPLITS

FORMAT = "momap-data-engine/1"
SIZE, VIEWS, STEPS = 256, 2, 50
MOVING_M = 0.01  # a pixel moves where its point does by more than this at some step
RAY_POINTS, RAY_STEPS = 250, 5
CONTROL_SHIFT_M = 0.005
CONTROL_LAG = 2
CONTROL_EPISODES = 50
MEMORY_EVERY = 25  # episodes
SPEED_EPISODES, SCALING_EPISODES = 300, 1000
ALL_ROLLOUTS, ALL_SIZE, ALL_CORES = 50_000, 128, 16


@dataclass(frozen=True)
class Figure:
    """One row of the table: a rounded value, its target in words, and whether it is met; None where there is none."""

    name: str
    value: float
    unit: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class SampleFacts:
    """What the figures need of one sample; shares are of all pixels."""

    sentences: tuple[str, ...]
    moving: float  # points that go farther than MOVING_M
    on_movers: float  # points on bodies that move at all
    acted: float | None  # None where nothing is acted on
    robot: float
    leak: FramingLeak | None  # None where the acted thing is no loose object, or has too few beside it


@dataclass
class Content:
    """What the episodes of the content part showed."""

    tried: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    no_scene: int = 0
    samples: list[SampleFacts] = field(default_factory=list)
    rays: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, float]] = field(default_factory=list)  # (episodes so far, MiB)


def stream(split: str, episodes: int, content: Content) -> Iterator[tuple[Episode, list[Sample]]]:
    """Successful episodes with their samples; counts what was tried and what memory was held."""
    task = ShardTask(split, 0, episodes, VIEWS, SIZE, SIZE, STEPS)
    for index in tqdm(range(episodes), desc="content", unit="episode"):
        if index % MEMORY_EVERY == 0:
            content.memory.append((index, memory_mib()))
        episode = simulate_episode(split, index)
        if episode is None:
            content.no_scene += 1
            continue
        content.tried[episode.scene.skill] += 1
        if episode.rollout.success:
            content.succeeded[episode.scene.skill] += 1
            yield episode, render([episode], task)


def measure_content(split: str, episodes: int) -> Content:
    """Look at every sample of these episodes, and cast rays at the first view of each."""
    content = Content()
    for episode, samples in stream(split, episodes, content):
        content.samples += [sample_facts(sample) for sample in samples]
        for sample in samples[:1]:
            content.rays += count_rays(episode, sample)
    return content


def sample_facts(sample: Sample) -> SampleFacts:
    """The facts of one sample."""
    roles = np.array(sample.body_roles)[sample.body_ids]
    leak = framing_leak([sample] if sample.factors["acts_on"] == "object" else [])
    return SampleFacts(
        sentences=(sample.text, *sample.paraphrases),
        moving=float(sample.momap().moving_mask(MOVING_M).mean()),
        on_movers=float(np.isin(sample.body_ids, sample.moving_bodies).mean()),
        acted=float((roles == Role.ACTED).mean()) if Role.ACTED in sample.body_roles else None,
        robot=float((roles == Role.ROBOT).mean()),
        leak=leak if leak.count else None,
    )


def count_rays(episode: Episode, sample: Sample) -> Counter[str]:
    """Rays through points of one sample at RAY_STEPS steps: violations, and found controls of early episodes.

    Returns:
        Numbers of points and violations; of points shifted by 5 mm, and moved 2 steps late, and those found wrong.
    """
    rng = np.random.default_rng(episode.index)
    steps = np.linspace(0, len(sample.motion_t_from_0) - 1, RAY_STEPS).round().astype(int).tolist()
    check = ray_check(episode, sample, steps, num_points=RAY_POINTS, rng=rng)
    found = Counter(points=len(check.gap_m), violations=check.violations)
    if episode.index < CONTROL_EPISODES and len(sample.moving_bodies):
        for name, wrong in (("shift", {"towards_camera_m": CONTROL_SHIFT_M}), ("lag", {"lag_steps": CONTROL_LAG})):
            control = ray_check(episode, sample, steps, num_points=RAY_POINTS, rng=rng, moving_only=True, **wrong)
            found += Counter({f"{name}_points": len(control.gap_m), f"{name}_found": control.violations})
    return found


def success_figures(content: Content) -> list[Figure]:
    """Share of the demonstrations of every skill that succeed."""
    return [
        Figure(
            f"success of {skill}",
            round(100 * content.succeeded[skill] / tried, 1),
            "%",
            "> 95",
            content.succeeded[skill] / tried > 0.95,
            f"{content.succeeded[skill]} of {tried}",
        )
        for skill, tried in sorted(content.tried.items())
    ]


def ray_figures(content: Content) -> list[Figure]:
    """Is every point where the scene is, and would the check notice if it were not?"""
    rays = content.rays
    episodes = rays["points"] // (RAY_POINTS * RAY_STEPS)
    note = f"of {rays['points']} points in {episodes} episodes"
    figures = [Figure("ray violations", rays["violations"], "points", "0", rays["violations"] == 0, note)]
    for name, what, least in (("shift", "5 mm shift", 40), ("lag", f"{CONTROL_LAG} steps of lag", 10)):
        share = 100 * rays[f"{name}_found"] / max(1, rays[f"{name}_points"])
        figures.append(Figure(f"ray control: {what} found", round(share, 1), "%", f"> {least}", share > least))
    return figures


def pixel_figures(content: Content) -> list[Figure]:
    """What the images show, on average."""

    def mean(name: str) -> tuple[float, str]:
        values = [value for facts in content.samples if (value := getattr(facts, name)) is not None]
        return 100 * float(np.mean(values or [0])), f"{len(values)} samples"

    moving, count = mean("moving")
    on_movers, _ = mean("on_movers")
    acted, acted_count = mean("acted")
    robot, _ = mean("robot")
    return [
        Figure("moving pixels", round(moving, 2), "%", ">= 8", moving >= 8, f"by more than 1 cm; {count}"),
        Figure("pixels on moving bodies", round(on_movers, 2), "%", note=count),
        Figure("pixels of the acted object", round(acted, 2), "%", ">= 4", acted >= 4, acted_count),
        Figure("pixels of the robot", round(robot, 2), "%", note=count),
    ]


def sentence_figure(content: Content) -> Figure:
    """Variety of the language."""
    distinct = len({facts.sentences[0] for facts in content.samples})
    every = len({sentence for facts in content.samples for sentence in facts.sentences})
    note = f"in {len(content.samples)} samples; {every} with the paraphrases"
    return Figure("distinct sentences", distinct, "", ">= 500", distinct >= 500, note)


def framing_figure(content: Content) -> Figure:
    """Does the image centre tell which object will move?"""
    leaks = [facts.leak for facts in content.samples if facts.leak is not None]
    total = FramingLeak(
        *(sum(getattr(leak, name) for leak in leaks) for name in ("hits", "expected", "variance", "count"))
    )
    excess = 100 * total.excess
    note = f"standard error {100 * total.standard_error:.1f}; {total.count} samples with at least 3 objects"
    name = "object nearest to the centre is the acted one, above chance"
    return Figure(name, round(excess, 1), "points", "<= 5", excess <= 5, note)


def memory_figure(content: Content) -> Figure:
    """Growth after the first quarter, by a straight line through the rest."""
    rest = np.array(content.memory[len(content.memory) // 4 :], np.float64)
    per_20000 = float(np.polyfit(rest[:, 0], rest[:, 1], 1)[0]) * 20_000 if len(rest) > 2 else 0.0
    note = f"{rest[0, 1]:.0f} MiB at episode {rest[0, 0]:.0f}, {rest[-1, 1]:.0f} at {rest[-1, 0]:.0f}"
    return Figure("memory growth over 20,000 episodes", round(per_20000), "MiB", "< 200", per_20000 < 200, note)


def run_engine(split: str, episodes: int, *, views: int, size: int, workers: int) -> tuple[dict[str, Any], float]:
    """One run of the engine into a folder that is then removed; the split's part of the manifest, and wall seconds."""
    with tempfile.TemporaryDirectory() as folder:
        request = Request(split, num_views=views, width=size, height=size, num_steps=STEPS, episodes=episodes)
        start = time.perf_counter()
        manifest = generate(request, Path(folder), workers)
        return manifest["splits"][split], time.perf_counter() - start


def storage_and_core_figures(split: str, episodes: int) -> list[Figure]:
    """What one core makes in an hour, and how large it is."""
    figures, kilobytes = [], 0.0
    for views in (1, VIEWS):
        entry, wall_s = run_engine(split, episodes, views=views, size=SIZE, workers=1)
        per_hour = 3600 * entry["samples"] / entry["cpu_s"]
        note = f"by processor time, {entry['samples']} samples; {3600 * entry['samples'] / wall_s:.0f} by the clock"
        name = f"samples per hour and core at {SIZE}x{SIZE}, {views} view{'s' * (views > 1)}"
        figures.append(Figure(name, round(per_hour), "", ">= 20000", per_hour >= 20_000, note))
        kilobytes = entry["bytes"] / entry["samples"] / 1000
    size = Figure(
        f"size of a sample at {SIZE}x{SIZE}", round(kilobytes, 1), "kB", "<= 110", kilobytes <= 110, "in the tar"
    )
    return [*figures, size]


def scaling_figures(split: str, episodes: int) -> list[Figure]:
    """What a second core brings, and from that how long the whole data set takes on many."""
    (_, one_s), (entry, two_s) = (
        run_engine(split, episodes, views=VIEWS, size=ALL_SIZE, workers=workers) for workers in (1, 2)
    )
    minutes = ALL_ROLLOUTS * (2 * two_s / entry["rollouts"]) / ALL_CORES / 60
    busy = ALL_ROLLOUTS * (entry["cpu_s"] / entry["rollouts"]) / ALL_CORES / 60
    return [
        Figure(
            "two workers against one",
            round(one_s / two_s, 2),
            "x",
            ">= 1.8",
            one_s / two_s >= 1.8,
            f"{episodes} episodes: {one_s:.0f} s and {two_s:.0f} s, worker start included",
        ),
        Figure(
            f"{ALL_ROLLOUTS} rollouts x {VIEWS} views at {ALL_SIZE}x{ALL_SIZE} on {ALL_CORES} cores",
            round(minutes, 1),
            "min",
            "<= 10",
            minutes <= 10,
            f"extrapolated from {entry['rollouts']} rollouts on 2 cores by the clock; {busy:.1f} by processor time",
        ),
    ]


def build_report(split: str, episodes: int, *, quick: bool) -> dict[str, Any]:
    """Measure everything."""
    machine, commit = describe_machine(), describe_commit()  # before anybody changes it
    content = measure_content(split, episodes)
    speed_episodes, scaling_episodes = (10, 10) if quick else (SPEED_EPISODES, SCALING_EPISODES)
    figures = [
        *storage_and_core_figures(split, speed_episodes),
        *success_figures(content),
        *ray_figures(content),
        *pixel_figures(content),
        sentence_figure(content),
        framing_figure(content),
        *scaling_figures(split, scaling_episodes),
        memory_figure(content),
    ]
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": commit,
        "quick": quick,
        "machine": machine,
        "versions": describe_versions() | {"mujoco": mujoco.__version__},
        "split": split,
        "episodes": episodes,
        "no_scene": content.no_scene,
        "rollouts": sum(content.succeeded.values()),
        "samples": len(content.samples),
        "figures": [asdict(figure) for figure in figures],
        "memory_mib": content.memory,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    machine = report["machine"]
    lines = [
        "# The data engine, measured",
        "",
        f"{report['date']}, commit {report['commit'] or 'unknown'}, `python benchmarks/data_engine.py"
        f" --episodes {report['episodes']}{' --quick' * report['quick']}`.",
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before']}; "
        f"MuJoCo {report['versions']['mujoco']}, Python {report['versions']['python']}.",
        f"Content: {report['episodes']} episodes of `{report['split']}`, {report['rollouts']} rollouts, "
        f"{report['samples']} samples; {report['no_scene']} episodes had no room for their objects.",
        "",
        "| figure | value | target | met | |",
        "| --- | ---: | --- | --- | --- |",
    ]
    met = {True: "yes", False: "**no**", None: ""}
    for figure in report["figures"]:
        value = f"{figure['value']:,} {figure['unit']}".strip()
        lines.append(f"| {figure['name']} | {value} | {figure['target']} | {met[figure['met']]} | {figure['note']} |")
    if report["quick"]:
        lines.insert(2, "**A smoke test: the numbers mean nothing.**\n")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data_engine.json and data_engine.md")
    parser.add_argument("--episodes", type=int, default=2000, help="of the content part (default: 2000)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--quick", action="store_true", help="24 episodes, short speed runs")
    options = parser.parse_args()
    episodes = min(24, options.episodes) if options.quick else options.episodes
    report = build_report(options.split, episodes, quick=options.quick)
    for name, text in (("data_engine.json", json.dumps(report, indent=1) + "\n"), ("data_engine.md", markdown(report))):
        with atomic_path(options.out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    sys.stdout.write(markdown(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
