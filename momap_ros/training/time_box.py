"""How many steps a run can take in a given time: measured where it trains, before it begins."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from momap_ros.training.loop import keep_options
from momap_ros.training.scene_run import Options, SceneRun

ENDLESS = 10**9
WARM_UP_STEPS = 5
# A run that is done a little early beats one whose step sizes never came down.
MARGIN = 0.95
# Of the time, for timing the steps of one kind.
MEASURED_SHARE = 0.04


@dataclass(frozen=True)
class TimeBox:
    """The time that a run may take.

    Attributes:
        minutes: from the start of the process to the saved state, compilation and measuring included.
        encoder_share: of the time for steps, for the scene encoder alone.
        measured_steps: steps of either kind that are timed, unless they take too long.
        started_s: of `time.monotonic`.
    """

    minutes: float
    encoder_share: float = 0.2
    measured_steps: int = 50
    started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: no time, or a share outside of 0..1.
        """
        if self.minutes <= 0:
            raise ValueError(f"minutes: expected more than 0, got {self.minutes:g}")
        if not 0 <= self.encoder_share < 1:
            raise ValueError(f"encoder share: expected at least 0 and less than 1, got {self.encoder_share:g}")

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.started_s + 60 * self.minutes - time.monotonic()


def steps_per_s(run: SceneRun[Any, Options], loaders: int, count: int, limit_s: float) -> float:
    """Steps per second of a run, after a few that warm up (and compile).

    Args:
        run: what is measured.
        loaders: processes that draw batches.
        count: steps that are timed, at most.
        limit_s: after which no more of them begin.
    """
    start, timed = time.monotonic(), 0
    for number, drawn in enumerate(islice(run.steps_ahead(loaders), WARM_UP_STEPS + count)):
        if number == WARM_UP_STEPS:
            start = _now_s(run.device)
        elif number > WARM_UP_STEPS and time.monotonic() > start + limit_s:
            break
        run.train_step(drawn)
        timed = number + 1 - WARM_UP_STEPS
    return timed / (_now_s(run.device) - start)


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def fit_steps(run: SceneRun[Any, Options], box: TimeBox, loaders: int) -> Options:
    """The run's options with as many steps as fit.

    Args:
        run: at its beginning; it is left there.
        box: the time.
        loaders: processes that draw batches.

    Raises:
        ValueError: nothing is left after measuring.
    """
    options, limit_s = run.options, MEASURED_SHARE * 60 * box.minutes

    def rate(encoder_steps: int) -> float:
        run.options = replace(options, steps=ENDLESS, encoder_steps=encoder_steps)
        return steps_per_s(run, loaders, box.measured_steps, limit_s)

    with run.rehearsal():
        encoder_rate = rate(ENDLESS) if box.encoder_share else 0.0
        whole_rate = rate(0)
    run.options = options
    left_s = MARGIN * box.left_s
    encoder_steps = int(encoder_rate * left_s * box.encoder_share)
    whole_steps = int(whole_rate * left_s * (1 - box.encoder_share))
    if whole_steps < 1:
        raise ValueError(
            f"minutes: expected time for steps after the start and measuring, got {box.minutes:g} minutes of which "
            f"{max(box.left_s, 0):.0f} s are left; give more"
        )
    return replace(options, steps=encoder_steps + whole_steps, encoder_steps=encoder_steps)


def begin(run: SceneRun[Any, Options], box: TimeBox | None, loaders: int) -> None:
    """Choose a run's steps, where it has a time instead of them and has not begun; its folder keeps the choice."""
    if box and not run.step:
        run.options = fit_steps(run, box, loaders)
        keep_options(run.out, run.options)


def chosen_steps(out: Path) -> dict[str, int]:
    """Steps, and those of the encoder alone, that a run in a given time chose when it began; one where it has not."""
    path = out / "options.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"steps": 1, "encoder_steps": 0}
    return {name: begun[name] for name in ("steps", "encoder_steps")}
