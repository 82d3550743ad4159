"""A worker thread with one slot: the newest item wins, so slow work never builds up delay. Knows nothing of ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestOnlyWorker(Generic[Item]):
    """Handles items in a thread of its own; an item that arrives before the last one was taken replaces it.

    An exception of the handler is reported and counted, and the next item is handled as usual.

    Attributes:
        handled: items the handler finished without an exception.
        dropped: items replaced or discarded before the handler took them.
        failed: items whose handling raised.
    """

    def __init__(self, handle: Callable[[Item], None], on_error: Callable[[Exception], None], *, name: str) -> None:
        """Start the thread.

        Args:
            handle: called in the worker's thread with one item at a time.
            on_error: called in the worker's thread with what `handle` raised; must not raise itself.
            name: of the thread, as debuggers show it.
        """
        self._handle = handle
        self._on_error = on_error
        self._condition = threading.Condition()
        self._slot: list[Item] = []  # a list, because None may be an item
        self._stopping = False
        self.handled = 0
        self.dropped = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Put an item into the slot, in place of one that still waits there; never blocks."""
        with self._condition:
            self.dropped += len(self._slot)
            self._slot = [item]
            self._condition.notify()

    def discard(self) -> None:
        """Empty the slot: what waits there is out of date."""
        with self._condition:
            self.dropped += len(self._slot)
            self._slot = []

    def stop(self) -> None:
        """Discard what waits, let the handler finish the item it has, and join the thread."""
        with self._condition:
            self.dropped += len(self._slot)
            self._slot = []
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._slot or self._stopping)
                if self._stopping:
                    return
                item = self._slot.pop()
            try:
                self._handle(item)
            except Exception as error:  # noqa: BLE001  (one bad frame must not end the thread; it is reported)
                self.failed += 1
                self._on_error(error)
            else:
                self.handled += 1
