"""Joins the colour and depth images of a recording by their stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")

# A message whose partner is still missing when its own stream is this far ahead has lost it.
_WINDOW_NS = 2_000_000_000


@dataclass(frozen=True)
class _Waiting(Generic[First]):
    stamp_ns: int
    item: First


def pair_by_stamp(
    stream: Iterable[tuple[int, First | None, Second | None]], tolerance_ns: int, skip: Callable[[str], None]
) -> Iterator[tuple[First, Second]]:
    """Join two interleaved streams by nearest stamp, in stamp order, with little memory.

    Args:
        stream: (stamp, first, None) for an item of the first stream, (stamp, None, second) for one of the second.
        tolerance_ns: largest stamp difference of a pair.
        skip: told the reason of every item without a partner.
    """
    first: deque[_Waiting[First]] = deque()
    second: deque[_Waiting[Second]] = deque()
    newest = {"colour": -1, "depth": -1}
    for stamp_ns, first_item, second_item in stream:
        name = "depth" if first_item is None else "colour"
        if stamp_ns <= newest[name]:
            skip(f"{name} image whose stamp is not later than the one before")
            continue
        newest[name] = stamp_ns
        if first_item is not None:
            first.append(_Waiting(stamp_ns, first_item))
        elif second_item is not None:
            second.append(_Waiting(stamp_ns, second_item))
        yield from _ready_pairs(first, second, tolerance_ns, skip, is_end=False)
    yield from _ready_pairs(first, second, tolerance_ns, skip, is_end=True)


def _ready_pairs(
    first: deque[_Waiting[First]],
    second: deque[_Waiting[Second]],
    tolerance_ns: int,
    skip: Callable[[str], None],
    *,
    is_end: bool,
) -> Iterator[tuple[First, Second]]:
    """Pairs that nothing still to come can change."""
    lonely = "colour image without a depth image of its time", "depth image without a colour image of its time"
    while first and second:
        gap = second[0].stamp_ns - first[0].stamp_ns
        if abs(gap) > tolerance_ns:
            skip(lonely[0] if gap > 0 else lonely[1])
            (first if gap > 0 else second).popleft()
            continue
        # The later one might be nearer to the successor of the earlier one.
        stamps = [waiting.stamp_ns for waiting in (first if gap > 0 else second)][:2]
        if gap != 0 and len(stamps) < 2 and not is_end:
            return
        if gap != 0 and len(stamps) == 2 and abs(stamps[1] - stamps[0] - abs(gap)) < abs(gap):
            skip(lonely[0] if gap > 0 else lonely[1])
            (first if gap > 0 else second).popleft()
            continue
        yield first.popleft().item, second.popleft().item
    for queue, reason in ((first, lonely[0]), (second, lonely[1])):
        while queue and (is_end or queue[-1].stamp_ns - queue[0].stamp_ns > _WINDOW_NS):
            skip(reason)
            queue.popleft()
