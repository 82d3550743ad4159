#!/usr/bin/env python3
"""Compare what self-scoring says of a forecast with the truth, which only the simulator knows.

    python benchmarks/self_scoring.py --episodes 16 --json benchmarks/results/self_scoring.json

Episodes of the validation split are recorded as bags with truth, as momap_ros.simulation.demo_bag makes them. Forecasts
are made of the true Motion Map: itself, and spoilt in known ways (FORECASTS). Each is given to the scorer with the
bag's first frame; the bag's other frames are all that the scorer sees. What it says of every object and horizon is held
against the true error of the same points, under several conditions (CONDITIONS):

  exact       camera at rest, exact depth in millimetres, true instances
  noisy       the same, colour and depth as a RealSense D435 gives them
  segmented   noisy, and instances found by the tabletop segmenter and tracked
  poses       camera held in a hand, exact, its poses from the bag
  estimated   camera held in a hand, noisy, its poses estimated from the background

Per condition: objects scored, occluded, lost, unmatched; the error that the scorer finds in the true forecast (its
floor); how far its static error is from the true displacement; and the correlation of its error with the true one over
all spoilt forecasts. The robot, one instance of many links, is counted apart: rigid registration is not made for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr
from tqdm import tqdm

from momap_ros.bag import BagReader
from momap_ros.bag_poses import BagPoses
from momap_ros.benchmark.machine import describe_commit
from momap_ros.config import SegmentationConfig
from momap_ros.data.sample import Role, Sample, read_shard
from momap_ros.data.sensor import SENSORS, observe
from momap_ros.files import write_json
from momap_ros.forecaster import foreground_pixels
from momap_ros.geometry import Float32, Float64
from momap_ros.instances import InstanceMap, Int32
from momap_ros.momap import PointTrajectories
from momap_ros.rgbd import RGBDFrame
from momap_ros.scoring.camera import MovingCameraError
from momap_ros.scoring.scorer import ForecastScorer, chosen_points, positions_at
from momap_ros.scoring.scores import ObjectScore, Outcome
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.tabletop import TabletopSegmenter
from momap_ros.segmentation.tracking import InstanceTracker
from momap_ros.simulation.camera_paths import FIXED, HAND_HELD
from momap_ros.simulation.episode_bag import truth_path, write_episode_bag
from momap_ros.simulation.video import FRAME_ID, render_video

SPLIT, FIRST_EPISODE = "val", 28
WIDTH, HEIGHT, RATE_HZ = 480, 360, 4.0
SENSOR_NAME = "realsense_d435"
# A camera at rest blurs nothing, and what its depth is wrong by in all frames alike is no motion.
SENSOR = dataclasses.replace(
    SENSORS[SENSOR_NAME],
    color=dataclasses.replace(SENSORS[SENSOR_NAME].color, motion_px=0.0),
    depth=dataclasses.replace(SENSORS[SENSOR_NAME].depth, scale_spread=0.0),
)
MOVED_M = 0.02
MAX_POINTS = 1500
Forecast = Callable[[Float32, Float64, Float64], Float32]


@dataclass(frozen=True)
class Condition:
    """How an episode is seen."""

    motion: str = FIXED
    noisy: bool = False
    segmented: bool = False
    with_poses: bool = False


CONDITIONS = {
    "exact": Condition(),
    "noisy": Condition(noisy=True),
    "segmented": Condition(noisy=True, segmented=True),
    "poses": Condition(motion=HAND_HELD, with_poses=True),
    "estimated": Condition(motion=HAND_HELD, noisy=True),
}
# Of (P, T, 3) true positions, (T,) times in seconds and a unit vector that every object has of its own.
FORECASTS: dict[str, Forecast] = {
    "true": lambda true, _times_s, _way: true,
    "static": lambda true, _times_s, _way: np.repeat(true[:, :1], true.shape[1], axis=1),
    "half as far": lambda true, _times_s, _way: true[:, :1] + 0.5 * (true - true[:, :1]),
    "half as far again": lambda true, _times_s, _way: true[:, :1] + 1.5 * (true - true[:, :1]),
    "drifts 0.5 cm/s": lambda true, times_s, way: true + 0.005 * times_s[:, None] * way,
    "drifts 2 cm/s": lambda true, times_s, way: true + 0.02 * times_s[:, None] * way,
    "half a second late": lambda true, times_s, _way: delayed(true, times_s, 0.5),
}


def delayed(true: Float32, times_s: Float64, delay_s: float) -> Float32:
    """(P, T, 3) positions that come later."""
    step = np.maximum(times_s - delay_s, 0.0) / times_s[1]
    return np.stack([positions_at(true, float(now)) for now in step], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Comparison:
    """One object at one horizon, as the scorer sees it and as it is.

    Attributes:
        is_robot: the object is the robot.
        score: its errors in the order of FORECASTS.
        true_errors_m: the true errors of the same points, in the same order.
        true_displacement_m: how far the points truly moved.
    """

    is_robot: bool
    score: ObjectScore
    true_errors_m: tuple[float, ...]
    true_displacement_m: float


def seen_frames(bag: Path, condition: Condition, sample: Sample) -> Iterator[tuple[RGBDFrame, InstanceMap]]:
    """Frames and instances of a bag under a condition."""
    segmenter, tracker = TabletopSegmenter(SegmentationConfig()), InstanceTracker(SegmentationConfig.max_lost_frames)
    with BagReader(bag) as reader:
        for item in reader.frames():
            frame, instances = item.frame, item.instances
            if instances is None:
                raise ValueError(f"{bag}: expected label images of all frames; record it with its truth")
            if condition.noisy:
                ids = instances.ids.astype(np.uint8)
                exact = dataclasses.replace(sample, rgb=frame.rgb, depth_m=frame.depth_m, body_ids=ids)
                noisy = observe(exact, np.random.default_rng([7, item.index]), SENSOR)
                frame = dataclasses.replace(frame, rgb=noisy.rgb, depth_m=noisy.depth_m)
            if condition.segmented:
                try:
                    instances = tracker(frame, segmenter(frame))
                except SegmentationError:
                    instances = InstanceMap(np.zeros_like(instances.ids))
            yield frame, instances


def true_trajectories(frame: RGBDFrame, instances: InstanceMap, sample: Sample) -> PointTrajectories:
    """The true futures of the points that a forecast would follow, from their depth as it is seen."""
    pixels = foreground_pixels(frame, instances, MAX_POINTS)
    rows, columns = pixels[:, 1], pixels[:, 0]
    # A pixel whose exact depth is unknown has no true future.
    moved = dataclasses.replace(sample, depth_m=frame.depth_m).momap()
    return PointTrajectories(
        np.ascontiguousarray(moved.xyz[:, rows, columns].transpose(1, 0, 2)[None]),
        instances.ids[rows, columns],
        pixels,
        frame.camera.width,
        frame.camera.height,
        moved.step_s,
        None,
        frame.frame_id,
        frame.stamp_ns,
    )


def spoilt(true: PointTrajectories) -> PointTrajectories:
    """All FORECASTS as the hypotheses of one."""
    times_s = np.arange(true.num_steps) * true.step_s
    positions = np.repeat(true.positions, len(FORECASTS), axis=0)
    for instance_id in np.unique(true.object_ids).tolist():
        own = true.object_ids == instance_id
        way = np.random.default_rng([3, instance_id]).normal(size=3)
        for row, make in enumerate(FORECASTS.values()):
            positions[row, own] = make(true.positions[0, own], times_s, way / np.linalg.norm(way))
    return dataclasses.replace(true, positions=positions)


def compare(bag: Path, condition: Condition) -> Iterator[Comparison]:
    """Score all forecasts of one bag.

    Raises:
        MovingCameraError: the camera's motion could not be estimated.
    """
    sample = next(read_shard(truth_path(bag)))
    poses = BagPoses(bag) if condition.with_poses else None
    scorer = ForecastScorer(estimate_camera=condition.motion != FIXED)
    for index, (frame, seen) in enumerate(seen_frames(bag, condition, sample)):
        pose = None if poses is None else poses.root_from(FRAME_ID, frame.stamp_ns)
        if index == 0:
            true = true_trajectories(frame, seen, sample)
            forecasts, robots = spoilt(true), robot_ids(seen.ids, sample)
            scorer.add(forecasts, frame, seen, world_from_camera=pose)
            continue
        for score in scorer.observe(frame, seen, world_from_camera=pose):
            points = chosen_points(forecasts, score.instance_id)
            step = score.lead_s / true.step_s
            there = positions_at(true.positions[0, points], step)
            errors_m = np.linalg.norm(positions_at(forecasts.positions[:, points], step) - there, axis=-1).mean(axis=-1)
            moved_m = np.linalg.norm(there - true.positions[0, points, 0], axis=-1).mean()
            yield Comparison(score.instance_id in robots, score, tuple(errors_m.tolist()), float(moved_m))


def compared(bag: Path, condition: Condition) -> list[Comparison] | None:
    """What `compare` gives; None where the camera's motion could not be estimated."""
    try:
        return list(compare(bag, condition))
    except MovingCameraError:
        return None


def robot_ids(ids: Int32, sample: Sample) -> set[int]:
    """Instances that are mostly robot."""
    robot = np.isin(sample.body_ids, [b for b, role in enumerate(sample.body_roles) if role == Role.ROBOT])
    return {i for i in np.unique(ids[ids > 0]).tolist() if robot[ids == i].mean() > 0.5}


def figures(comparisons: list[Comparison]) -> dict[str, Any]:
    """What one condition comes to; lengths in millimetres."""
    objects = [c for c in comparisons if not c.is_robot]
    scored = [c for c in objects if c.score.outcome == Outcome.SCORED]
    moved = [c for c in scored if c.true_displacement_m > MOVED_M]
    found = np.array([c.score.errors_m[1:] for c in scored]).ravel()
    exact = np.array([c.true_errors_m[1:] for c in scored]).ravel()
    return {
        "outcomes": outcomes(objects),
        "outcomes of what moved": outcomes([c for c in objects if c.true_displacement_m > MOVED_M]),
        "outcomes of the robot": outcomes([c for c in comparisons if c.is_robot]),
        "floor": spread([c.score.error_m for c in scored]),
        "floor of what moved": spread([c.score.error_m for c in moved]),
        "static error off the true displacement": spread(
            [abs(c.score.static_error_m - c.true_displacement_m) for c in scored]
        ),
        "error off the true error": spread(list(np.abs(found - exact))),
        "pearson": round(float(pearsonr(found, exact).statistic), 3),
        "spearman": round(float(spearmanr(found, exact).statistic), 3),
        "forecasts": [summary(moved, row, name) for row, name in enumerate(FORECASTS)],
    }


def outcomes(comparisons: list[Comparison]) -> dict[str, int]:
    """How many objects and horizons had which outcome."""
    return {outcome.value: sum(c.score.outcome == outcome for c in comparisons) for outcome in Outcome}


def summary(moved: list[Comparison], row: int, name: str) -> dict[str, Any]:
    """Mean errors of what moved under one forecast, found and true, and the skills they give."""
    if not moved:
        return {"name": name, "scored": 0}
    found, true = np.mean([(c.score.errors_m[row], c.true_errors_m[row]) for c in moved], axis=0)
    static, true_static = np.mean([(c.score.static_error_m, c.true_displacement_m) for c in moved], axis=0)
    return {
        "name": name,
        "scored": len(moved),
        "error_mm": round(found * 1e3, 2),
        "true_error_mm": round(true * 1e3, 2),
        "skill": round(1 - found / static, 3),
        "true_skill": round(1 - true / true_static, 3),
    }


def spread(values_m: list[float]) -> dict[str, float]:
    """Median, mean, 95th percentile and largest, millimetres."""
    if not values_m:
        return {}
    values_mm = np.array(values_m) * 1e3
    return {
        "median": round(float(np.median(values_mm)), 2),
        "mean": round(float(values_mm.mean()), 2),
        "p95": round(float(np.percentile(values_mm, 95)), 2),
        "largest": round(float(values_mm.max()), 2),
    }


def recorded(folder: Path, motion: str, count: int) -> Iterator[Path]:
    """Bags of as many episodes as can be recorded with such a camera; those that are there already are taken."""
    episode, made = FIRST_EPISODE, 0
    while made < count:
        bag = folder / f"{motion}_{episode}"
        episode += 1
        try:
            if not truth_path(bag).exists():
                video = render_video(
                    SPLIT, episode - 1, width=WIDTH, height=HEIGHT, frame_rate_hz=RATE_HZ, motion=motion
                )
                write_episode_bag(video, bag)
        except ValueError:
            continue  # no demonstration, or no camera that sees it
        made += 1
        yield bag


def run(folder: Path, count: int, names: list[str]) -> dict[str, Any]:
    """All conditions."""
    report: dict[str, Any] = {
        "format": "momap-self-scoring/1",
        "commit": describe_commit(),
        "split": SPLIT,
        "first_episode": FIRST_EPISODE,
        "episodes": count,
        "image": [WIDTH, HEIGHT],
        "rate_hz": RATE_HZ,
        "moved_m": MOVED_M,
        "conditions": {},
    }
    for name, condition in ((name, CONDITIONS[name]) for name in names):
        comparisons: list[Comparison] = []
        refused = 0
        for bag in tqdm(recorded(folder, condition.motion, count), desc=name, total=count, unit="episode"):
            found = compared(bag, condition)
            comparisons += found or []
            refused += found is None
        report["conditions"][name] = {"episodes refused": refused, **figures(comparisons)}
    return report


def table(report: dict[str, Any]) -> str:
    """The main figures as Markdown, millimetres."""
    lines = [
        "| condition | scored / occluded / lost / unmatched | floor: median, p95 | of what moved: median, p95 "
        "| static off: median, p95 | error off: median, p95 | Pearson | Spearman |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["conditions"].items():
        pairs = [
            f"{row[key].get('median', float('nan')):.1f}, {row[key].get('p95', float('nan')):.1f}"
            for key in (
                "floor",
                "floor of what moved",
                "static error off the true displacement",
                "error off the true error",
            )
        ]
        counts = " / ".join(str(number) for number in row["outcomes"].values())
        lines.append(f"| {name} | {counts} | {' | '.join(pairs)} | {row['pearson']:.3f} | {row['spearman']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), help="which (default: all)"
    )
    parser.add_argument("--episodes", type=int, default=16, help="per condition (default: %(default)s)")
    parser.add_argument("--bags", type=Path, help="folder in which to keep the bags (default: none are kept)")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = run(options.bags or Path(temporary), options.episodes, options.conditions)
    if options.json:
        write_json(options.json, report)
    sys.stdout.write(table(report) + "\n")


if __name__ == "__main__":
    main()
