"""Two message streams joined by stamp. Knows nothing of ROS.

Not message_filters: its approximate synchroniser pairs neighbours although the exact partner is on its way, stays
locked after an exception in the callback, and starves once a bag starts again from the beginning.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")

# A stream whose stamps go back by more than this has started again; less is jitter of the sender's clock.
REWIND_NS = 200_000_000


@dataclass(frozen=True)
class Pair(Generic[First, Second]):
    """One item of each stream.

    Attributes:
        first: item of the first stream.
        second: item of the second stream.
        first_stamp_ns: its stamp.
        second_stamp_ns: its stamp.
    """

    first: First
    second: Second
    first_stamp_ns: int
    second_stamp_ns: int


class StampPairer(Generic[First, Second]):
    """Joins items whose stamps are equal, or, where no equal one exists, nearest within a tolerance.

    An equal stamp pairs at once. A nearest partner is taken once nothing nearer can follow, that is when the second
    stream has passed the first item's stamp, or when `settle` is called because nothing follows. The newest pair wins:
    what is older is dropped and counted. Pairs leave in rising order of stamps.

    Attributes:
        paired: pairs returned.
        dropped_first: items of the first stream that found no partner.
        dropped_second: items of the second stream that found no partner.
        offset_ns: stamp of the newest first item minus the nearest second item's, for messages; None before both came.
    """

    def __init__(
        self, *, tolerance_ns: int, queue_length: int = 10, on_rewind: Callable[[], None] = lambda: None
    ) -> None:
        """Start with empty queues.

        Args:
            tolerance_ns: largest stamp difference within a pair.
            queue_length: items of each stream that wait for a partner.
            on_rewind: called when a stream's stamps went back, after everything waiting was forgotten.
        """
        self.tolerance_ns = tolerance_ns
        self._queue_length = queue_length
        self._on_rewind = on_rewind
        self._queues: tuple[list[tuple[int, Any]], list[tuple[int, Any]]] = ([], [])
        self._newest: list[int | None] = [None, None]
        self._paired_up_to: list[int | None] = [None, None]
        self._dropped = [0, 0]
        self.paired = 0
        self.offset_ns: int | None = None

    @property
    def dropped_first(self) -> int:
        """Items of the first stream that found no partner."""
        return self._dropped[0]

    @property
    def dropped_second(self) -> int:
        """Items of the second stream that found no partner."""
        return self._dropped[1]

    def add_first(self, stamp_ns: int, item: First) -> Pair[First, Second] | None:
        """Take an item of the first stream; returns the pair it completes, if any."""
        return self._add(0, stamp_ns, item)

    def add_second(self, stamp_ns: int, item: Second) -> Pair[First, Second] | None:
        """Take an item of the second stream; returns the pair it completes, if any."""
        return self._add(1, stamp_ns, item)

    @property
    def waits(self) -> bool:
        """Whether a partner within the tolerance is there but a nearer one may follow; see `settle`."""
        return self._newest_match(must_be_final=False) is not None

    def settle(self) -> Pair[First, Second] | None:
        """Pair the newest item with the nearest partner there is, although a nearer one might have followed."""
        match = self._newest_match(must_be_final=False)
        return None if match is None else self._take(*match)

    def reset(self) -> None:
        """Forget all waiting items and stamps; counts stay."""
        for side in (0, 1):
            self._dropped[side] += len(self._queues[side])
            self._queues[side].clear()
        self._newest = [None, None]
        self._paired_up_to = [None, None]
        self.offset_ns = None

    def _add(self, side: int, stamp_ns: int, item: First | Second) -> Pair[First, Second] | None:
        newest = self._newest[side]
        if newest is not None and stamp_ns < newest - REWIND_NS:
            self.reset()
            self._on_rewind()
            newest = None
        paired_up_to = self._paired_up_to[side]
        if paired_up_to is not None and stamp_ns <= paired_up_to:
            self._dropped[side] += 1
            return None
        queue, others = self._queues[side], self._queues[1 - side]
        bisect.insort(queue, (stamp_ns, item), key=_stamp)
        self._newest[side] = stamp_ns if newest is None else max(newest, stamp_ns)
        if len(queue) > self._queue_length:
            del queue[0]
            self._dropped[side] += 1
        self._measure_offset()
        equal = bisect.bisect_left(others, stamp_ns, key=_stamp)
        if equal < len(others) and others[equal][0] == stamp_ns:
            return self._take(stamp_ns, stamp_ns)
        match = self._newest_match(must_be_final=True)
        return None if match is None else self._take(*match)

    def _newest_match(self, *, must_be_final: bool) -> tuple[int, int] | None:
        """Stamps of the newest pair within the tolerance; final = no nearer second item can follow."""
        newest_second = self._newest[1]
        if newest_second is None:
            return None
        for stamp_ns, _ in reversed(self._queues[0]):
            if must_be_final and newest_second < stamp_ns:
                continue
            nearest = _nearest(self._queues[1], stamp_ns)
            if nearest is not None and abs(nearest - stamp_ns) <= self.tolerance_ns:
                return stamp_ns, nearest
        return None

    def _take(self, first_stamp_ns: int, second_stamp_ns: int) -> Pair[First, Second]:
        """Remove a pair and everything older from the queues."""
        items = []
        for side, stamp_ns in enumerate((first_stamp_ns, second_stamp_ns)):
            queue = self._queues[side]
            position = bisect.bisect_left(queue, stamp_ns, key=_stamp)
            items.append(queue[position][1])
            self._dropped[side] += position
            del queue[: position + 1]
            self._paired_up_to[side] = stamp_ns
        self.paired += 1
        return Pair(items[0], items[1], first_stamp_ns, second_stamp_ns)

    def _measure_offset(self) -> None:
        if self._queues[0] and self._queues[1]:
            newest_first = self._queues[0][-1][0]
            nearest = _nearest(self._queues[1], newest_first)
            self.offset_ns = None if nearest is None else newest_first - nearest


def _stamp(entry: tuple[int, Any]) -> int:
    return entry[0]


def _nearest(queue: list[tuple[int, Any]], stamp_ns: int) -> int | None:
    """The stamp in a sorted queue that is nearest to the given one."""
    position = bisect.bisect_left(queue, stamp_ns, key=_stamp)
    around = queue[max(position - 1, 0) : position + 1]
    return min((stamp for stamp, _ in around), key=lambda stamp: abs(stamp - stamp_ns), default=None)
