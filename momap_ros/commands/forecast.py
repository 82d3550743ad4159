"""`momap forecast`: forecasts of a recording, without ROS."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import (
    add_bag_options,
    add_command,
    add_frame_options,
    add_settings,
    build_segmenter,
    chosen_topics,
    opened_bag,
    read_settings,
    say,
    selected_frames,
    warn,
)
from momap_ros.config import ForecastConfig, ObjectMotionConfig, SegmentationConfig
from momap_ros.hints import Hints, describe_hints, in_view, parse_hints

if TYPE_CHECKING:
    from momap_ros.bag import BagFrame
    from momap_ros.bag_write import BagWriter
    from momap_ros.forecaster import Forecast
    from momap_ros.instances import InstanceMap

DESCRIPTION = """
Forecast the frames of a recording: where will every point and every object go?

Every frame is segmented into instances (or its label image is taken from the recording), the model draws several
futures, and each object gets a motion. No ROS is needed.

example:
  momap forecast kitchen_bag --prompt "put the cup on the plate" --out out/cup
  momap forecast kitchen_bag --frames 0 --hint 3=right,up --out out/hinted
  momap forecast kitchen_bag --hints hints.json --out out/hinted

what comes out, in the folder --out:
  objects.csv        one line per object and frame: probability to move, direction, distance, residual (SI units)
  forecast_bag/      rosbag2 (mcap) with the forecasts as the ROS node publishes them, and what they were made of
  overlay.png        the instances with their ids
  trajectories.png   tracks of the moving objects, coloured by time; other futures are thin lines
  forecast.gif       the image's pixels carried along, in real time
  momap_0000.npz     with --save-momap: the dense motion map of frame 0, (T, 256, 256, 3) metres

The printed table says of each object: probability to move, direction (left/right, up/down, away/closer as the camera
sees it), distance of its centroid over the horizon in cm, how far its points are from a rigid motion in mm, and how far
apart the futures end in cm.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "forecast",
        "forecast the frames of a recording",
        usage="BAG --out DIR [--prompt SENTENCE] [options]",
        description=DESCRIPTION,
        run=run,
    )
    add_bag_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--prompt", help="sentence that says what will happen (default: the recording's own, if any)")
    parser.add_argument(
        "--hint",
        action="append",
        default=[],
        type=_hint,
        metavar="ID=WORDS",
        help="direction of an instance, for instance 3=right,up or 4=stays; may be repeated",
    )
    parser.add_argument(
        "--hints",
        default={},
        type=_hints,
        metavar="FILE|JSON",
        help='directions as JSON, or a file of it: {"hints": [{"id": 3, "x": "right", "y": "up", "z": "stay"}]}',
    )
    parser.add_argument(
        "--instances",
        choices=("segment", "bag"),
        default="segment",
        help="segment: find the instances here; bag: take the recording's label images (default: %(default)s)",
    )
    parser.add_argument(
        "--pictures",
        choices=("first", "all", "none"),
        default="first",
        help="pictures of the first forecast, or numbered ones of all (default: %(default)s)",
    )
    parser.add_argument("--save-momap", action="store_true", help="write the dense motion maps as .npz, too")
    parser.add_argument(
        "--no-inputs",
        dest="inputs",
        action="store_false",
        help="write forecasts alone into forecast_bag, without the images that `momap view` shows",
    )
    add_frame_options(parser)
    add_settings(parser, ForecastConfig, leave_out=("prompt", "target_frame"))
    add_settings(parser, ObjectMotionConfig, prefix="motion-")
    add_settings(parser, SegmentationConfig, prefix="segmentation-")


@dataclass(frozen=True, eq=False)
class Result:
    """One forecast frame.

    Attributes:
        item: the frame.
        instances: what was forecast.
        prompt: the sentence that was used.
        forecast: the futures.
    """

    item: BagFrame
    instances: InstanceMap
    prompt: str
    forecast: Forecast


def run(arguments: argparse.Namespace) -> int:
    """Forecast and write."""
    from momap_ros.bag_write import BagWriter
    from momap_ros.forecast_files import BAG_NAME, OBJECTS_NAME
    from momap_ros.forecaster import Forecaster
    from momap_ros.report import ForecastRecord, write_objects_csv

    records: list[ForecastRecord] = []
    seconds: list[float] = []
    with (
        opened_bag(arguments.bag, chosen_topics(arguments)) as bag,
        BagWriter(arguments.out / BAG_NAME, compress=True, overwrite=True) as writer,
    ):
        config = read_settings(arguments, ForecastConfig, prompt=arguments.prompt or "")
        forecaster = Forecaster(config, read_settings(arguments, ObjectMotionConfig, prefix="motion-"))
        source = InstanceSource(arguments)
        hints = _all_hints(arguments)
        for item in selected_frames(arguments, bag, what="forecast"):
            instances = source.of(item)
            if instances is None:
                continue
            prompt = item.prompt if arguments.prompt is None else arguments.prompt
            # The ids are those of the first frame, so one that is not there is a mistake; later it may leave the view.
            used = hints if not records else in_view(hints, instances.areas_px)[0]
            forecast = forecaster(item.frame, instances, prompt, used)
            tell_hints(item.index, hints, forecast)
            result = Result(item, instances, prompt, forecast)
            tell(result, is_new_prompt=all(record.prompt != prompt for record in records))
            store(writer, result, config, with_inputs=arguments.inputs)
            draw(arguments, result, is_first=not records)
            records.append(ForecastRecord(item.frame.stamp_ns, prompt, forecast.objects))
            seconds.append(result.forecast.seconds)
        if not records:
            raise ValueError(f"{arguments.bag}: expected a frame to forecast, got none; {source.reasons()}")
    write_objects_csv(arguments.out / OBJECTS_NAME, records)
    if source.skipped:
        warn(f"skipped {source.reasons()}")
    median_s = sorted(seconds)[len(seconds) // 2]
    say(f"\n{len(records)} forecasts, {median_s:.2f} s each in the median, network in {forecaster.execution}")
    say(f"results in {arguments.out}")
    return 0


def tell(result: Result, *, is_new_prompt: bool) -> None:
    """Print the table of objects, and once per prompt what the model does not understand of it."""
    from momap_ros.report import object_table

    sentence = f', "{result.prompt}"' if result.prompt else ""
    say(f"\nframe {result.item.index}, {result.item.frame.stamp_ns * 1e-9:.3f} s{sentence}")
    say(object_table(result.forecast.objects))
    if is_new_prompt and result.forecast.ignored_words:
        words = ", ".join(result.forecast.ignored_words)
        warn(f"the model does not know: {words} (`momap info --words` lists its words)")
    if result.forecast.dropped_ids:
        ids = ", ".join(str(instance_id) for instance_id in result.forecast.dropped_ids)
        warn(f"frame {result.item.index}: no forecast for instances too small or too many for the model: {ids}")


def tell_hints(index: int, hints: Hints, forecast: Forecast) -> None:
    """Print which hints a forecast was drawn with, and warn of those it was not."""
    if hints:
        say(f"\nframe {index}, hints: {describe_hints(forecast.applied_hints)}")
    unused = ", ".join(str(instance_id) for instance_id in hints if instance_id not in forecast.applied_hints)
    if unused:
        warn(f"frame {index}: not in view, or too small for the model, so their hints were not used: {unused}")


def store(writer: BagWriter, result: Result, config: ForecastConfig, *, with_inputs: bool) -> None:
    """Write the forecast as the node publishes it, and what it was made of."""
    from momap_ros.selection import published_trajectories

    frame = result.item.frame
    if result.prompt:
        writer.write_prompt(result.prompt, frame.stamp_ns)
    if with_inputs:
        writer.write_frame(frame)
        writer.write_instances(result.instances, frame.stamp_ns, frame.frame_id)
    published = published_trajectories(result.forecast, config)
    forecast = result.forecast
    writer.write_forecast(published, forecast.objects, model_name=config.checkpoint, latency_s=forecast.seconds)


def draw(arguments: argparse.Namespace, result: Result, *, is_first: bool) -> None:
    """Write the pictures and the dense map that were asked for."""
    from momap_ros.forecast_files import PicturedForecast, write_animation, write_stills

    forecast, suffix = result.forecast, f"_{result.item.index:04d}"
    if arguments.save_momap:
        forecast.momap(0).save(arguments.out / f"momap{suffix}.npz")
    if arguments.pictures == "none" or (arguments.pictures == "first" and not is_first):
        return
    pictured = PicturedForecast(
        result.item.frame, result.instances, forecast.trajectories, forecast.objects, result.prompt
    )
    write_stills(arguments.out, pictured, suffix=suffix if arguments.pictures == "all" else "")
    if is_first:
        write_animation(arguments.out, pictured)


class InstanceSource:
    """Instance maps of frames, from where the user wants them; what is missing is counted."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Load the segmenter, unless the label images are used."""
        from momap_ros.segmentation.tracking import InstanceTracker

        config = read_settings(arguments, SegmentationConfig, prefix="segmentation-")
        self._from_bag = arguments.instances == "bag"
        self._segmenter = None if self._from_bag else build_segmenter(config)
        self._tracker = InstanceTracker(config.max_lost_frames)
        self.skipped: Counter[str] = Counter()

    def of(self, item: BagFrame) -> InstanceMap | None:
        """The instances of a frame; None where it must be skipped."""
        from momap_ros.segmentation.base import SegmentationError

        if self._segmenter is None:
            if item.instances is None:
                self.skipped["frame without a label image of its stamp; use --instances segment"] += 1
            return item.instances
        try:
            return self._tracker(item.frame, self._segmenter(item.frame))
        except SegmentationError as error:
            self.skipped[str(error)] += 1
            return None

    def reasons(self) -> str:
        """Why frames were skipped."""
        return "; ".join(f"{count}x {reason}" for reason, count in self.skipped.most_common())


def _all_hints(arguments: argparse.Namespace) -> Hints:
    """What --hints and --hint say together.

    Raises:
        ValueError: an instance occurs twice.
    """
    hints: Hints = dict(arguments.hints)
    for instance_id, flags in arguments.hint:
        if instance_id in hints:
            raise ValueError(f"--hint: expected every instance once, got instance {instance_id} again")
        hints[instance_id] = flags
    return hints


def _hints(text: str) -> Hints:
    try:
        if not text.lstrip().startswith(("{", "[")):
            text = Path(text).read_text(encoding="utf-8")
        return parse_hints(text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _hint(text: str) -> tuple[int, tuple[int, int, int]]:
    from momap_ros.report import direction_from_words

    instance_id, separator, words = text.partition("=")
    try:
        if not separator:
            raise ValueError("expected ID=WORDS")
        return int(instance_id), direction_from_words(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected ID=WORDS, for instance 3=right,up, got {text!r}: {error}"
        ) from error
