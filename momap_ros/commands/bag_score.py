"""`momap bag score`: forecasts of a recording, compared with what the recording shows later."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import (
    add_bag_options,
    add_command,
    add_settings,
    chosen_topics,
    opened_bag,
    read_settings,
    say,
    warn,
)
from momap_ros.commands.forecast import InstanceSource
from momap_ros.config import ForecastConfig, ObjectMotionConfig, SegmentationConfig

if TYPE_CHECKING:
    from momap_ros.bag import BagFrame, BagReader
    from momap_ros.bag_forecasts import StoredForecast
    from momap_ros.bag_poses import BagPoses
    from momap_ros.geometry import Float64
    from momap_ros.instances import InstanceMap
    from momap_ros.momap import PointTrajectories
    from momap_ros.scoring.scores import ObjectScore

DESCRIPTION = """
Forecast frames of a recording, and compare with what the recording itself shows later: how good is the model on my
scenes, against 'nothing moves'? No labels are needed; docs/self_scoring.md says how it is measured and what it cannot.

The camera must rest, or its poses must be on /tf; --estimate-camera takes them from the background instead. With
--recorded the forecasts that are already in the recording are scored, and no model is run.

example:
  momap bag score kitchen_bag --every 1.0 --prompt "put the cup on the plate" --out out/score
  momap bag score robot_bag --recorded --instances bag --out out/score

what comes out, in the folder --out:
  scores.json   every object, forecast and horizon: error, 'nothing moves', what became of it; sums per horizon
  scores.png    error over the horizon, ours against 'nothing moves'

The printed tables: "moved by" (static) is how far an object's points were seen to move, which is the error of 'nothing
moves'; "error" (ours) how far the forecast was off; best: of all futures drawn; skill 1 - error / static, so 0 is no
better than 'nothing moves'. What stayed is apart: there the error is motion that did not come, and noise is what the
measurement itself is off by. Occluded: too little in sight; lost: no pixel has the id any more; unmatched: no rigid
motion explains what has the id now.
"""


def add_part(parts: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the part of `momap bag`."""
    parser = add_command(
        parts,
        "score",
        "compare forecasts with what comes later",
        usage="BAG [--every S] [--prompt SENTENCE] [--out DIR] [options]",
        description=DESCRIPTION,
        run=run,
    )
    add_bag_options(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for scores.json and scores.png")
    parser.add_argument(
        "--every", type=_seconds, default=1.0, metavar="S", help="seconds between forecasts (default: %(default)s)"
    )
    parser.add_argument(
        "--horizons",
        type=_horizons,
        default=(0.5, 1.0, 2.0, 5.0),
        metavar="S,S,...",
        help="seconds after a forecast at which to compare (default: 0.5,1,2,5)",
    )
    parser.add_argument("--prompt", help="sentence that says what will happen (default: the recording's own, if any)")
    parser.add_argument(
        "--instances",
        choices=("segment", "bag"),
        default="segment",
        help="segment: find the instances here; bag: take the recording's label images (default: %(default)s)",
    )
    parser.add_argument("--recorded", action="store_true", help="score the recording's own forecasts; no model is run")
    parser.add_argument(
        "--estimate-camera", action="store_true", help="estimate the poses of a camera that moves from the background"
    )
    add_settings(parser, ForecastConfig, leave_out=("prompt", "target_frame", "dense", "published_hypotheses"))
    add_settings(parser, ObjectMotionConfig, prefix="motion-")
    add_settings(parser, SegmentationConfig, prefix="segmentation-")


def run(arguments: argparse.Namespace) -> int:
    """Forecast, follow, compare."""
    from momap_ros.scoring.report import horizon_table, object_score_table, plot_scores, write_scores
    from momap_ros.scoring.scores import summarise

    threshold_m: float = arguments.motion_moving_threshold_m
    with opened_bag(arguments.bag, chosen_topics(arguments)) as bag:
        run_ = _Run(arguments, bag)
        scores = list(run_.scores())
    if run_.skipped:
        warn("skipped " + "; ".join(f"{count}x {reason}" for reason, count in run_.skipped.most_common()))
    if not scores:
        raise ValueError(
            f"{arguments.bag}: expected later frames to compare {run_.num_forecasts} forecasts with, got none: the "
            f"recording covers {run_.seconds:.1f} s, the forecasts {run_.reach_s:.1f} s, the horizons are "
            f"{', '.join(f'{horizon:g}' for horizon in arguments.horizons)} s; record longer, or choose --horizons"
        )
    summaries = summarise(scores, arguments.horizons, moving_threshold_m=threshold_m)
    say(object_score_table(scores, arguments.horizons, moving_threshold_m=threshold_m))
    say(f"\n{run_.num_forecasts} forecasts of {arguments.bag}, model {run_.model_name}; camera: {run_.camera}\n")
    say(horizon_table(summaries))
    if arguments.out is not None:
        facts = {
            "bag": str(arguments.bag),
            "model": run_.model_name,
            "forecasts": run_.num_forecasts,
            "camera": run_.camera,
            "instances": arguments.instances,
        }
        write_scores(
            arguments.out / "scores.json", scores, arguments.horizons, moving_threshold_m=threshold_m, facts=facts
        )
        plot_scores(arguments.out / "scores.png", scores, summaries, title=f"{arguments.bag.name}, {run_.model_name}")
        say(f"\nresults in {arguments.out}")
    return 0


class _Run:
    """One pass over a recording.

    Attributes:
        skipped: reason -> frames that were not used.
        num_forecasts: forecasts that were made or found.
        seconds: what the recording covers.
        reach_s: the longest forecast.
        model_name: what made the forecasts.
        camera: how its motion is known, in words.
    """

    def __init__(self, arguments: argparse.Namespace, bag: BagReader) -> None:
        """Load what is needed."""
        from momap_ros.bag_poses import BagPoses
        from momap_ros.scoring.scorer import ForecastScorer

        self._arguments, self._bag = arguments, bag
        self._instances = InstanceSource(arguments)
        self._scorer = ForecastScorer(arguments.horizons, estimate_camera=arguments.estimate_camera)
        self._poses = BagPoses(arguments.bag)
        self._source = _Recorded(arguments.bag, self._poses) if arguments.recorded else _Model(arguments)
        self.skipped = self._instances.skipped
        self.num_forecasts, self.seconds, self.reach_s = 0, 0.0, 0.0
        self.camera = "estimated from the background" if arguments.estimate_camera else "at rest"

    @property
    def model_name(self) -> str:
        """What made the forecasts."""
        return self._source.model_name

    def scores(self) -> Iterator[ObjectScore]:
        """The scores, as the frames that tell them come.

        Raises:
            MovingCameraError: the camera moves, and its poses are neither given nor to be estimated.
        """
        from tqdm import tqdm

        from momap_ros.bag_topics import choose_topics

        wanted = chosen_topics(self._arguments)
        frames = self._bag.frames(wanted, tolerance_s=self._arguments.sync_tolerance_s)
        total = choose_topics(self._bag.topics, wanted).color.count
        first_ns: int | None = None
        for item in tqdm(frames, total=total, desc="score", unit="frame"):
            first_ns = item.frame.stamp_ns if first_ns is None else first_ns
            self.seconds = (item.frame.stamp_ns - first_ns) * 1e-9
            instances = self._instances.of(item)
            is_posed, world_from_camera = self._pose(item)
            if instances is None or not is_posed:
                continue
            yield from self._scorer.observe(item.frame, instances, world_from_camera=world_from_camera)
            trajectories = self._source.at(item, instances)
            if trajectories is not None:
                self.num_forecasts += 1
                self.reach_s = max(self.reach_s, (trajectories.num_steps - 1) * trajectories.step_s)
                self._scorer.add(trajectories, item.frame, instances, world_from_camera=world_from_camera)

    def _pose(self, item: BagFrame) -> tuple[bool, Float64 | None]:
        """Whether the frame can be used, and the camera's pose where the recording follows it."""
        if not self._poses.follows(item.frame.frame_id):
            return True, None
        self.camera = "poses from the recording"
        world_from_camera = self._poses.root_from(item.frame.frame_id, item.frame.stamp_ns)
        if world_from_camera is None:
            self.skipped[f"frame without a transform of {item.frame.frame_id} near its stamp"] += 1
        return world_from_camera is not None, world_from_camera


class _Model:
    """Forecasts made here, every so many seconds."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Load the model."""
        from momap_ros.forecaster import Forecaster

        config = read_settings(arguments, ForecastConfig, prompt=arguments.prompt or "")
        self._forecaster = Forecaster(config, read_settings(arguments, ObjectMotionConfig, prefix="motion-"))
        self._prompt, self._every_s = arguments.prompt, arguments.every
        self._next_ns: int | None = None
        self.model_name = str(arguments.checkpoint)

    def at(self, item: BagFrame, instances: InstanceMap) -> PointTrajectories | None:
        """The futures of a frame; None where it is not its turn."""
        stamp_ns = item.frame.stamp_ns
        if self._next_ns is not None and stamp_ns < self._next_ns:
            return None
        self._next_ns = stamp_ns + round(self._every_s * 1e9)
        prompt = item.prompt if self._prompt is None else self._prompt
        return self._forecaster(item.frame, instances, prompt).trajectories


class _Recorded:
    """The recording's own forecasts, in rising order of their stamps."""

    def __init__(self, path: Path, poses: BagPoses) -> None:
        """Begin to read them.

        Raises:
            BagError: there are none.
        """
        from momap_ros.bag_forecasts import read_forecasts

        self._poses = poses
        self._stored = read_forecasts(path)
        self._next: StoredForecast | None = next(self._stored)
        self.model_name = self._next.model_name

    def at(self, item: BagFrame, instances: InstanceMap) -> PointTrajectories | None:
        """The forecast that starts from a frame; None where there is none.

        Raises:
            ValueError: its positions are in a frame that the recording does not tie to the camera.
        """
        stamp_ns = item.frame.stamp_ns
        while self._next is not None and self._next.trajectories.stamp_ns < stamp_ns:
            self._next = next(self._stored, None)
        if self._next is None or self._next.trajectories.stamp_ns != stamp_ns:
            return None
        trajectories = self._in_camera(self._next.trajectories, item.frame.frame_id)
        # Ids are those of the instances at hand: the recorded ones may be of another segmentation.
        columns, rows = trajectories.pixels.T
        return dataclasses.replace(trajectories, object_ids=instances.ids[rows, columns])

    def _in_camera(self, trajectories: PointTrajectories, camera_id: str) -> PointTrajectories:
        from momap_ros.selection import in_frame

        if trajectories.frame_id == camera_id:
            return trajectories
        camera_from_frame = self._poses.target_from(camera_id, trajectories.frame_id, trajectories.stamp_ns)
        if camera_from_frame is None:
            raise ValueError(
                f"forecasts: expected positions in the camera's frame {camera_id!r}, got {trajectories.frame_id!r}, "
                "and the recording has no transform between them at the forecast's time; record /tf and /tf_static, too"
            )
        return in_frame(trajectories, camera_from_frame, camera_id)


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected positive seconds, got {text}")
    return value


def _horizons(text: str) -> tuple[float, ...]:
    try:
        values = tuple(sorted(float(part) for part in text.split(",")))
    except ValueError:
        values = ()
    if not values or not values[0] > 0:
        raise argparse.ArgumentTypeError(f"expected positive seconds like 0.5,1,2, got {text!r}")
    return values
