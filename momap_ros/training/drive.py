"""Start the processes of a run and take its steps: progress bar, log, saved states, and the end of its time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from tqdm import tqdm

from momap_ros.training.loop import keep_options, start_workers
from momap_ros.training.scene_run import Options, SceneRun
from momap_ros.training.steps import PhasedTraining
from momap_ros.training.time_box import TimeBox, chosen_steps

LOG_EVERY = 100


@dataclass(frozen=True)
class Launch(Generic[Options]):
    """Where and how a run happens; none of it changes the result, but for the number of processes.

    Attributes:
        data: folder written by `momap train prepare`.
        out: run folder, absolute.
        options: of the run.
        workers: processes, one GPU each on CUDA.
        save_every: steps between two saved states.
        device: "cpu" or "cuda".
        loaders: processes per worker that draw batches ahead; 0 = the worker itself.
        box: the time that the run may take, which decides its steps unless it has begun; None = `options.steps`.
    """

    data: Path
    out: Path
    options: Options
    workers: int
    save_every: int
    device: str = "cpu"
    loaders: int = 0
    box: TimeBox | None = None


def start(run: Callable[..., None], launch: Launch[Options]) -> None:
    """Call `run(rank, launch)` in processes of their own; the folder says with which options, and a run goes on.

    Args:
        run: a function of a module.
        launch: what it is given.

    Raises:
        ValueError: the run began with other options, or several processes shall measure their time.
    """
    if launch.box and launch.workers > 1:
        raise ValueError(f"minutes: expected one worker (--workers 1), which measures its steps, got {launch.workers}")
    launch.out.mkdir(parents=True, exist_ok=True)
    if not launch.box or (launch.out / "options.json").exists():
        keep_options(launch.out, launch.options)
    start_workers(run, launch, out=launch.out, workers=launch.workers)


@dataclass(frozen=True)
class Course:
    """What is told of a run while it goes on.

    Attributes:
        name: on the progress bar.
        losses: parts of the loss that get a column of the log each; empty where no step of the line had one.
        shown: those of them that stand beside the progress bar.
        writes: False for all processes of a run but one.
    """

    name: str
    losses: Sequence[str]
    shown: Sequence[str]
    writes: bool = True


def drive(run: SceneRun[Any, Any], course: Course, launch: Launch[Any], save: Callable[[], None]) -> None:
    """Take the steps that are left.

    Args:
        run: what is trained.
        course: what is told of it.
        launch: how it happens.
        save: called every `save_every` steps and at the end, in the process that writes.
    """
    steps, box = run.options.steps, launch.box
    history: list[dict[str, torch.Tensor]] = []
    progress = tqdm(total=steps, initial=run.step, desc=course.name, unit="step", disable=not course.writes)
    for drawn in run.steps_ahead(launch.loaders):
        history.append(run.train_step(drawn))
        progress.update()
        ends = run.step == steps or (box is not None and box.left_s < 0)
        if course.writes and (run.step % LOG_EVERY == 0 or ends):
            row = run.log_row({name: logged_mean(history, name) for name in course.losses})
            run.log(row)
            progress.set_postfix({name: row[name] for name in course.shown} | {"per_s": row["samples_per_s"]})
            history = []
        if course.writes and (run.step % launch.save_every == 0 or ends):
            save()
        if ends:
            break
    progress.close()


def logged_mean(history: Sequence[Mapping[str, torch.Tensor]], name: str) -> float | str:
    """Mean of one part of the loss over the steps that had it, to five digits; "" where none had."""
    values = [parts[name] for parts in history if name in parts]
    return float(f"{float(torch.stack(values).mean()):.5g}") if values else ""


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of what is compared at an equal budget, and of where and how it happens."""
    parser.add_argument("--data", type=Path, required=True, help="folder written by `momap train prepare`")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run continues from it")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="optimizer steps, all together")
    length.add_argument(
        "--minutes",
        type=float,
        help="as many steps as fit into this time, measured first; one worker. A run that has begun keeps its steps "
        "and ends when they are done or the time is up",
    )
    parser.add_argument(
        "--encoder-share",
        type=float,
        default=TimeBox.encoder_share,
        help="with --minutes: of the time, for the scene encoder alone, in models that have one (default 0.2)",
    )
    parser.add_argument(
        "--encoder-steps",
        type=int,
        default=0,
        help="with --steps: the first of them, which train the scene encoder alone and are four times as fast "
        "(default 0)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each (default 2)")
    parser.add_argument("--save-every", type=int, default=250, help="steps between two saved states (default 250)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="one GPU per worker on cuda")
    parser.add_argument(
        "--loaders", type=int, default=0, help="processes per worker that build batches, for a GPU (default 0)"
    )
    parser.add_argument("--grows", action="store_true", help="read what momap train prepare --follow adds meanwhile")
    numbers = {
        "batch-size": "scenes per step, all processes together",
        "learning-rate": "its peak",
        "warmup-steps": "steps over which the learning rate rises",
    }
    add_numbers(parser, PhasedTraining, numbers)


def add_numbers(parser: argparse.ArgumentParser, options: type, numbers: Mapping[str, str]) -> None:
    """Options whose type and default are those of the options that they become; what each means, per name."""
    for name, meaning in numbers.items():
        default = getattr(options, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} (default {default})")


def given_options(arguments: argparse.Namespace, options: type[PhasedTraining]) -> dict[str, Any]:
    """What the command line names of a run's options; in a given time, a run that has begun keeps its steps."""
    given = {name: value for name, value in vars(arguments).items() if name in options.__dataclass_fields__}
    return given | (chosen_steps(arguments.out) if arguments.minutes is not None else {})


def given_launch(arguments: argparse.Namespace, *, has_encoder: bool = True) -> dict[str, Any]:
    """Where and how a run happens: fields of a `Launch`.

    Args:
        arguments: of a parser with `add_run_options`.
        has_encoder: whether a share of the time is the scene encoder's.
    """
    share = arguments.encoder_share if has_encoder else 0.0
    box = TimeBox(arguments.minutes, share) if arguments.minutes is not None else None
    names = ("data", "workers", "save_every", "device", "loaders")
    return {name: getattr(arguments, name) for name in names} | {"out": arguments.out.absolute(), "box": box}
