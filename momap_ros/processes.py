"""Processes that do not outlive those that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """From now on this process ends, whatever it is doing, when the one that started it with multiprocessing ends.

    Signals do not do that: a job that a shell put into the background ignores interrupts. A process that was started
    in another way goes on.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
