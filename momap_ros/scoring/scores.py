"""What forecasts scored: one entry per object and horizon, and their sums against 'nothing moves'."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np


class Outcome(str, Enum):
    """What became of one object at one horizon."""

    SCORED = "scored"
    OCCLUDED = "occluded"  # too little of it is in sight
    LOST = "lost"  # no pixel has its id any more
    UNMATCHED = "unmatched"  # no rigid motion takes its first surface to what has its id now


@dataclass(frozen=True)
class ObjectScore:
    """One object of one forecast at one horizon.

    Attributes:
        stamp_ns: of the forecast's frame.
        instance_id: the object.
        label: its name, or empty.
        horizon_s: the horizon asked for.
        lead_s: time from the forecast's frame to the one it was compared with, seconds.
        outcome: whether it could be measured, and if not, why.
        errors_m: for every hypothesis the mean distance of its points from where they were seen to be; empty unless
            scored. The first hypothesis is the forecast proper.
        static_error_m: the same for the forecast that nothing moves: how far the points were seen to move; NaN unless
            scored.
    """

    stamp_ns: int
    instance_id: int
    label: str
    horizon_s: float
    lead_s: float
    outcome: Outcome
    errors_m: tuple[float, ...] = ()
    static_error_m: float = np.nan

    @property
    def error_m(self) -> float:
        """Error of the first hypothesis, metres; NaN unless scored."""
        return self.errors_m[0] if self.errors_m else float("nan")

    @property
    def best_error_m(self) -> float:
        """Error of the best hypothesis, known only afterwards, metres; NaN unless scored."""
        return min(self.errors_m, default=float("nan"))


@dataclass(frozen=True)
class HorizonSummary:
    """Scores of one horizon, summed up.

    Attributes:
        horizon_s: seconds.
        counts: outcome -> number of objects.
        num_moved: scored objects that were seen to move.
        moved_error_m: their mean error; NaN where none moved.
        moved_best_error_m: the mean of their best hypotheses' errors.
        moved_static_error_m: the same for the forecast that nothing moves.
        num_still: scored objects that were not seen to move.
        still_error_m: their mean error: motion that was forecast and did not come; NaN where all moved.
        still_static_error_m: their mean observed motion: what the measurement itself is off by.
    """

    horizon_s: float
    counts: dict[Outcome, int]
    num_moved: int
    moved_error_m: float
    moved_best_error_m: float
    moved_static_error_m: float
    num_still: int
    still_error_m: float
    still_static_error_m: float

    @property
    def skill(self) -> float:
        """1 - error / static error of what moved: 1 = exact, 0 = no better than 'nothing moves'; NaN if none moved."""
        return 1.0 - self.moved_error_m / self.moved_static_error_m if self.num_moved else float("nan")


def summarise(
    scores: Iterable[ObjectScore], horizons_s: Sequence[float], *, moving_threshold_m: float
) -> list[HorizonSummary]:
    """One summary per horizon, in the order given.

    Args:
        scores: of any forecasts.
        horizons_s: seconds.
        moving_threshold_m: an object moved when its points were seen farther from their start than this in the mean.
    """
    collected = list(scores)
    summaries = []
    for horizon_s in horizons_s:
        own = [score for score in collected if score.horizon_s == horizon_s]
        scored = [score for score in own if score.outcome == Outcome.SCORED]
        moved = [score for score in scored if score.static_error_m > moving_threshold_m]
        still = [score for score in scored if score.static_error_m <= moving_threshold_m]
        summaries.append(
            HorizonSummary(
                horizon_s,
                {outcome: sum(score.outcome == outcome for score in own) for outcome in Outcome},
                len(moved),
                _mean([score.error_m for score in moved]),
                _mean([score.best_error_m for score in moved]),
                _mean([score.static_error_m for score in moved]),
                len(still),
                _mean([score.error_m for score in still]),
                _mean([score.static_error_m for score in still]),
            )
        )
    return summaries


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
