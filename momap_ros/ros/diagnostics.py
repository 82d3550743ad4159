"""What a node counts and measures, as text for /diagnostics.

Filled by hand instead of by diagnostic_updater: two message types, one timer, one dependency less.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

RATE_WINDOW_S = 5.0
ERROR_SHOWN_S = 10.0


class Statistics:
    """Counts, rates and durations of one node; every method may be called from any thread."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._lock = threading.Lock()
        self._arrivals: dict[str, deque[float]] = {}
        self._skipped: Counter[str] = Counter()
        self._stage_s: dict[str, float] = {}
        self._notes: dict[str, str] = {}
        self._last_error = ""
        self._last_error_at = float("-inf")

    def count_arrival(self, name: str) -> None:
        """One message of an input arrived, or one result left."""
        now = time.monotonic()
        with self._lock:
            times = self._arrivals.setdefault(name, deque())
            times.append(now)
            while now - times[0] > RATE_WINDOW_S:
                times.popleft()

    def count_skipped(self, reason: str) -> None:
        """One message or frame was not used."""
        with self._lock:
            self._skipped[reason] += 1

    def set_skipped(self, reason: str, count: int) -> None:
        """State a count that is kept elsewhere."""
        with self._lock:
            self._skipped[reason] = count

    def set_error(self, text: str) -> None:
        """Remember what went wrong last."""
        with self._lock:
            self._last_error = text
            self._last_error_at = time.monotonic()

    def set_note(self, name: str, text: str) -> None:
        """State something in words."""
        with self._lock:
            self._notes[name] = text

    def set_stages(self, seconds: Mapping[str, float]) -> None:
        """Remember how long stages took that were measured elsewhere."""
        with self._lock:
            self._stage_s.update(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure how long the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.set_stages({name: time.perf_counter() - start})

    def stage_s(self, name: str) -> float:
        """Seconds that a stage took last."""
        with self._lock:
            return self._stage_s[name]

    def skipped(self) -> dict[str, int]:
        """Reason -> how often."""
        with self._lock:
            return dict(self._skipped)

    def rates_hz(self) -> dict[str, float]:
        """Name -> arrivals per second over the last few seconds."""
        now = time.monotonic()
        with self._lock:
            recent = {name: sum(now - at <= RATE_WINDOW_S for at in times) for name, times in self._arrivals.items()}
        return {name: count / RATE_WINDOW_S for name, count in recent.items()}

    def status(self, name: str, *, active: bool, silent: list[str]) -> DiagnosticStatus:
        """The node's state as one diagnostic status.

        Args:
            name: of the node.
            active: whether it is meant to work.
            silent: inputs from which nothing comes although the node is active.
        """
        rates = self.rates_hz()
        with self._lock:
            values = {f"{key} [Hz]": f"{rate:.1f}" for key, rate in rates.items()}
            values |= {f"{key} [ms]": f"{seconds * 1e3:.1f}" for key, seconds in self._stage_s.items()}
            values |= {f"skipped: {reason}": str(count) for reason, count in self._skipped.items()}
            values |= self._notes
            values["last error"] = self._last_error
            recent_error = time.monotonic() - self._last_error_at < ERROR_SHOWN_S
        values |= {f"{key} [MiB]": f"{mebibytes:.0f}" for key, mebibytes in memory_mebibytes().items()}
        level, message = DiagnosticStatus.OK, "running" if active else "inactive"
        if silent:
            level, message = DiagnosticStatus.WARN, "waiting for " + ", ".join(silent)
        if recent_error:
            level, message = DiagnosticStatus.ERROR, values["last error"]
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        return DiagnosticStatus(level=level, name=name, message=message, values=pairs)


def memory_mebibytes() -> dict[str, float]:
    """Peak memory of the process, and what CUDA holds where torch is in use."""
    memory = {"peak memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0}
    torch = sys.modules.get("torch")  # a node without a network must not import it for this
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        memory["GPU memory"] = torch.cuda.memory_reserved() / 2**20
        memory["peak GPU memory"] = torch.cuda.max_memory_reserved() / 2**20
    return memory


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that the GPU's memory is full."""
    return type(error).__name__ == "OutOfMemoryError"


def release_gpu_memory() -> None:
    """Give memory that torch only caches back to the device."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def diagnostic_array(stamp: Time, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """Statuses as one message for /diagnostics."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message
