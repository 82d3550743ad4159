"""How many denoising steps a deadline leaves time for, learned from the forecasts before."""

from __future__ import annotations

import numpy as np

# Weight of the newest forecast; computers warm up, throttle and share their cores.
NEWEST_WEIGHT = 0.3


class StepBudget:
    """Remembers how long forecasts took, per number of steps, and inverts it.

    A forecast takes a fixed time and a time per step. With one number of steps seen so far, all of its time is put down
    to the steps, which is never too hopeful; with several, a line is fitted.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._seconds: dict[int, float] = {}

    def record(self, num_steps: int, seconds: float) -> None:
        """Take note of a forecast."""
        before = self._seconds.get(num_steps, seconds)
        self._seconds[num_steps] = before + NEWEST_WEIGHT * (seconds - before)

    def steps_within(self, deadline_s: float, wanted: int) -> int:
        """Steps, at least 1 and at most `wanted`, that are expected to end in time; all of them without a deadline.

        Args:
            deadline_s: seconds for one forecast; 0 = no limit.
            wanted: configured number of steps.
        """
        if not deadline_s or not self._seconds:
            return wanted
        steps, seconds = np.array(list(self._seconds)), np.array(list(self._seconds.values()))
        if len(steps) == 1:
            per_step, fixed = seconds[0] / steps[0], 0.0
        else:
            per_step, fixed = np.polyfit(steps, seconds, 1)
        if per_step <= 0:  # no more than noise
            return wanted if fixed <= deadline_s else 1
        return int(np.clip((deadline_s - fixed) / per_step, 1, wanted))
