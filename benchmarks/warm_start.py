#!/usr/bin/env python3
"""What a warm start does to forecasts that are made again and again during one motion.

    python benchmarks/warm_start.py --episodes 24 --json benchmarks/results/evaluation/warm_start.json

Episodes of the validation split are rendered as videos of a camera at rest, the true instances given. While the acted
object still has a way to go, every frame is forecast in several ways (WAYS), each of which sees all frames before it.
A forecast is held against what the simulator does from that frame to the end of the motion:

  best, mean  error of the best of ten futures and of all, mean over the acted object's points and the rest of the
              motion, as a share of the error of "it stays where it is now"
  jump        how far the end of the published (most representative) future lies from where the frame before had it:
              what a robot that follows the forecast sees it change its mind by

both with 95 % intervals over episodes. The first frame, forecast before anything moves, is counted apart: nothing can
be continued there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from momap_ros.benchmark.machine import describe_commit
from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.report import number, table
from momap_ros.evaluation.summary import Bootstrap
from momap_ros.files import write_json
from momap_ros.forecaster import Forecaster
from momap_ros.geometry import Float64
from momap_ros.momap import PointTrajectories
from momap_ros.scoring.scorer import positions_at
from momap_ros.simulation.video import Video, render_video

SPLIT, FIRST_EPISODE = "val", 200
WIDTH, HEIGHT, RATE_HZ = 256, 256, 2.0
# A frame counts while the acted object's points are still to go so far, in the mean over the rest of the motion.
TO_GO_M = 0.01
COMPARED_TIMES = 20
WAYS: dict[str, dict[str, Any]] = {
    "anew, 4 steps": {"num_inference_steps": 4},
    "anew, 2 steps": {"num_inference_steps": 2},
    "warm start, 2 steps": {"num_inference_steps": 4, "warm_start": True},
    "warm start, 1 step": {"num_inference_steps": 2, "warm_start": True},
}
Row = dict[str, Any]


def true_ways(sample: Sample, points: Float64, body: int, *, now_s: float, times_s: Float64) -> Float64:
    """Where points of a body will be.

    Args:
        sample: the truth, from the episode's first frame on.
        points: (P, 3) as seen at now_s, camera frame, metres.
        body: id of the body they are on.
        now_s: seconds since the first frame.
        times_s: (M,) seconds after now_s.

    Returns:
        (P, M, 3) metres.
    """
    if body not in sample.moving_bodies:
        return np.repeat(points[:, None], len(times_s), axis=1)
    motion = sample.motion_t_from_0[:, list(sample.moving_bodies).index(body)].astype(np.float64)
    # Poses between two steps: matrices are mixed, which is exact for shifts and second order in the turn of a step.
    flat = motion.reshape(len(motion), 12)
    at = [positions_at(flat, (now_s + time_s) / sample.step_s).reshape(3, 4) for time_s in (0.0, *times_s)]
    first = np.linalg.solve(at[0][:, :3], (points - at[0][:, 3]).T).T
    return np.stack([first @ pose[:, :3].T + pose[:, 3] for pose in at[1:]], axis=1)


def compared(trajectories: PointTrajectories, sample: Sample, body: int, now_s: float) -> tuple[Row, Float64] | None:
    """Errors of one forecast of one frame, metres, and where its first future ends; None: nothing left to compare."""
    own = trajectories.object_ids == body
    left_s = sample.duration_s - now_s
    if not own.any() or left_s <= 0:
        return None
    times_s = np.linspace(0, left_s, COMPARED_TIMES + 1)[1:]
    drawn = trajectories.positions[:, own].astype(np.float64)  # (N, P, T, 3)
    known = np.isfinite(drawn).all(axis=(0, 2, 3))
    drawn = drawn[:, known]
    if not known.any():
        return None
    now = drawn[0, :, 0]
    true = true_ways(sample, now, body, now_s=now_s, times_s=times_s)
    to_go_m = float(np.linalg.norm(true - now[:, None], axis=-1).mean())
    if to_go_m < TO_GO_M:
        return None
    said = np.stack([positions_at(drawn, time_s / trajectories.step_s) for time_s in times_s], axis=2)
    errors_m = np.linalg.norm(said - true, axis=-1).mean(axis=(1, 2))
    row = {"best_m": float(errors_m.min()), "mean_m": float(errors_m.mean()), "static_m": to_go_m}
    return row, said[0, :, -1].mean(axis=0)


def rows_of(video: Video, episode: int, forecasters: Mapping[str, Forecaster]) -> Iterator[Row]:
    """What every way says of every frame of a video."""
    sample = video.sample
    acted = [b for b, role in enumerate(sample.body_roles) if role == Role.ACTED and b in sample.moving_bodies]
    for name, forecaster in forecasters.items():
        forecaster.forget()
        ends: dict[int, Float64] = {}
        for frame, instances in zip(video.frames, video.instance_maps, strict=True):
            forecast, before, ends = forecaster(frame, instances, sample.text), ends, {}
            for body in acted:
                found = compared(forecast.trajectories, sample, body, frame.stamp_ns * 1e-9)
                if found is None:
                    continue
                row, ends[body] = found
                jump_m = float(np.linalg.norm(ends[body] - before[body])) if body in before else np.nan
                yield row | {
                    "way": name,
                    "episode": str(episode),
                    "first": frame is video.frames[0],
                    "continued": forecast.continued,
                    "jump_m": jump_m,
                }


def summary(rows: list[Row]) -> dict[str, Any]:
    """Figures of one way."""
    bootstrap = Bootstrap([row["episode"] for row in rows])

    def column(name: str) -> Float64:
        return np.array([row[name] for row in rows], np.float64)

    return {
        "forecasts": len(rows),
        "continued": sum(row["continued"] for row in rows),
        "best over static": bootstrap.ratio(column("best_m"), column("static_m")),
        "mean over static": bootstrap.ratio(column("mean_m"), column("static_m")),
        "jump_m": bootstrap.mean(column("jump_m")),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        {
            "frames": frames,
            "forecast": name,
            "n": str(figures["forecasts"]),
            "best / static": number(figures, "best over static", interval=True),
            "mean / static": number(figures, "mean over static", interval=True),
            "jump of the end [mm]": number(figures, "jump_m", scale=1e3, digits=0, interval=True),
        }
        for frames, ways in report["frames"].items()
        for name, figures in ways.items()
    ]
    return "\n".join(table(rows, [(title, itemgetter(title)) for title in rows[0]])) if rows else ""


def videos(count: int) -> Iterator[tuple[int, Video]]:
    """As many episodes as are asked for; those that fail or that no such camera sees are passed over."""
    episode, made = FIRST_EPISODE, 0
    while made < count:
        episode += 1
        try:
            video = render_video(SPLIT, episode - 1, width=WIDTH, height=HEIGHT, frame_rate_hz=RATE_HZ)
        except ValueError:
            continue
        made += 1
        yield episode - 1, video


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=ForecastConfig.checkpoint, help="name or folder (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=24, help="videos (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args(argv)
    motion = ObjectMotionConfig()
    forecasters = {
        name: Forecaster(ForecastConfig(checkpoint=options.checkpoint, **settings), motion)
        for name, settings in WAYS.items()
    }
    rows: list[Row] = []
    for episode, video in tqdm(videos(options.episodes), total=options.episodes, unit="episode"):
        rows += rows_of(video, episode, forecasters)
    frames = {"first": [row for row in rows if row["first"]], "later": [row for row in rows if not row["first"]]}
    report = {
        "format": "momap-warm-start/1",
        "commit": describe_commit(),
        "checkpoint": options.checkpoint,
        "split": SPLIT,
        "first_episode": FIRST_EPISODE,
        "episodes": options.episodes,
        "rate_hz": RATE_HZ,
        "to_go_m": TO_GO_M,
        "frames": {
            title: {name: summary([row for row in chosen if row["way"] == name]) for name in WAYS}
            for title, chosen in frames.items()
            if chosen
        },
    }
    if options.json:
        write_json(options.json, report)
    sys.stdout.write(markdown(report))


if __name__ == "__main__":
    main()
