"""What several commands share: options made of settings, topics by name, which frames to use, plain output."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from momap_ros.config import InputConfig, SegmentationConfig, Settings

if TYPE_CHECKING:
    from momap_ros.bag import BagFrame, BagReader
    from momap_ros.bag_topics import TopicChoice
    from momap_ros.segmentation.base import Segmenter

Group = TypeVar("Group", bound=Settings)
Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def say(text: str = "") -> None:
    """Write a line to standard output; a progress bar on standard error is not disturbed."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)


def add_command(
    commands: Any,  # noqa: ANN401  (argparse keeps the type private)
    name: str,
    summary: str,
    *,
    usage: str,
    description: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a command whose --help is the description as it stands, then the options with their defaults.

    Args:
        commands: what `add_subparsers` returned.
        name: of the command.
        summary: a few words for the list of commands.
        usage: the arguments that must be given; options have their own list below.
        description: what it does, an example, what comes out.
        run: called with the parsed arguments; returns the exit code.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        usage=f"%(prog)s {usage}",
        description=description.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_settings(
    parser: argparse.ArgumentParser,
    group: type[Settings],
    *,
    prefix: str = "",
    only: Collection[str] = (),
    leave_out: Collection[str] = (),
) -> None:
    """Options for the fields of a settings group; type, default, range and text are the dataclass's.

    Args:
        parser: gets the options, under the group's own heading.
        group: a settings dataclass.
        prefix: before every option's name, for instance "segmentation-".
        only: fields to offer; all where empty.
        leave_out: fields not to offer.
    """
    section = parser.add_argument_group((group.__doc__ or group.__name__).splitlines()[0].rstrip("."))
    for field in _offered(group, only, leave_out):
        option = f"--{prefix}{field.name.replace('_', '-')}"
        text = _help_of(field)
        if isinstance(field.default, bool):
            off = f"--no-{prefix}{field.name.replace('_', '-')}"
            action = "store_false" if field.default else "store_true"
            name = option.removeprefix("--").replace("-", "_")
            section.add_argument(off if field.default else option, dest=name, action=action, help=text)
        else:
            section.add_argument(
                option,
                type=type(field.default),
                default=field.default,
                choices=field.metadata["choices"] or None,
                metavar=None if field.metadata["choices"] else _placeholder(field),
                help=text,
            )


def read_settings(arguments: argparse.Namespace, group: type[Group], *, prefix: str = "", **known: object) -> Group:
    """The group with the values of its options, and of `known`; fields that were not offered keep their defaults.

    Raises:
        ValueError: a value outside its range.
    """
    values = dict(known)
    for field in dataclasses.fields(group):  # type: ignore[arg-type]  # subclasses are dataclasses, the base is not
        name = f"{prefix}{field.name}".replace("-", "_")
        if field.name not in known and hasattr(arguments, name):
            values[field.name] = getattr(arguments, name)
    return group(**values)


def add_bag_options(parser: argparse.ArgumentParser) -> None:
    """The bag, and its topics by name."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, or a bare .mcap or .db3 file")
    section = parser.add_argument_group("Topics, found by type and name where not given")
    for name, text in (
        ("color", "colour images"),
        ("depth", "depth images registered to colour"),
        ("camera-info", "intrinsics of the colour images"),
        ("instances", "label images"),
        ("prompt", "sentences"),
    ):
        section.add_argument(f"--{name}-topic", default="", metavar="TOPIC", help=text)
    add_settings(parser, InputConfig, only=("sync_tolerance_s",))


def chosen_topics(arguments: argparse.Namespace) -> TopicChoice:
    """The topics that were given by name."""
    from momap_ros.bag_topics import TopicChoice

    names = (field.name for field in dataclasses.fields(TopicChoice))
    return TopicChoice(**{name: getattr(arguments, f"{name}_topic") for name in names})


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Which frames of the bag are used."""
    which = parser.add_argument_group("Which frames").add_mutually_exclusive_group()
    which.add_argument(
        "--every", type=positive, default=1, metavar="N", help="every N-th RGB-D frame (default: %(default)s)"
    )
    which.add_argument(
        "--frames", type=_indices, metavar="I,J,...", help="these frames alone, counted from 0, for instance 0,12,24"
    )


@contextmanager
def opened_bag(path: Path, wanted: TopicChoice) -> Iterator[BagReader]:
    """The bag; what it left out and why goes to standard error at the end.

    Raises:
        BagError: it cannot be read, or lacks colour, depth or camera_info; at once, before a model is loaded.
    """
    from momap_ros.bag import BagReader
    from momap_ros.bag_topics import choose_topics

    with BagReader(path) as bag:
        choose_topics(bag.topics, wanted)
        yield bag
    for note in bag.notes:
        warn(note)
    for reason, count in bag.skipped.most_common():
        warn(f"skipped {count}x: {reason}")


def selected_frames(arguments: argparse.Namespace, bag: BagReader, *, what: str) -> Iterator[BagFrame]:
    """The frames that were asked for, with a progress bar."""
    from tqdm import tqdm

    from momap_ros.bag_topics import choose_topics

    wanted = chosen_topics(arguments)
    frames: list[int] | None = arguments.frames
    chosen = None if frames is None else frozenset(frames)
    pairs = choose_topics(bag.topics, wanted).color.count
    total = -(-pairs // arguments.every) if frames is None else len(frames)
    items = bag.frames(
        wanted,
        tolerance_s=arguments.sync_tolerance_s,
        selected=lambda index: index % arguments.every == 0 if chosen is None else index in chosen,
    )
    with tqdm(total=total, desc=what, unit="frame") as bar:
        for item in items:
            yield item
            bar.update()
            if frames is not None and item.index >= max(frames):
                return


def build_segmenter(config: SegmentationConfig) -> Segmenter:
    """The segmenter that the settings name.

    Raises:
        SegmentationError: its weights are missing.
    """
    if config.method == "sam2":
        from momap_ros.segmentation.sam2 import Sam2Segmenter

        return Sam2Segmenter(config)
    from momap_ros.segmentation.tabletop import TabletopSegmenter

    return TabletopSegmenter(config)


def warn(text: str) -> None:
    """Write a warning to standard error, below a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"momap: warning: {text}", file=sys.stderr)


def _offered(
    group: type[Settings], only: Collection[str], leave_out: Collection[str]
) -> Iterator[dataclasses.Field[Any]]:
    for field in dataclasses.fields(group):  # type: ignore[arg-type]  # subclasses are dataclasses, the base is not
        if (not only or field.name in only) and field.name not in leave_out:
            yield field


def _help_of(field: dataclasses.Field[Any]) -> str:
    """Description, default and range; percent signs are argparse's own."""
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    limits = [f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high is not None else ""]
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    facts = ", ".join(["default: " + (str(default) or "empty"), *(limit for limit in limits if limit)])
    return f"{field.metadata['description']} ({facts})".replace("%", "%%")


def _placeholder(field: dataclasses.Field[Any]) -> str:
    return {int: "N", float: "X", str: "TEXT"}[type(field.default)]


def positive(text: str) -> int:
    """Type of an option that is a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text}")
    return value


def _indices(text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 0:
        raise argparse.ArgumentTypeError(f"expected frame numbers like 0,12,24, got {text!r}")
    return values
