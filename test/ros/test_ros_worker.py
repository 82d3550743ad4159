from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from momap_ros.ros.worker import LatestOnlyWorker

WAIT_S = 10.0


class Recorder:
    """A handler that can be held at its first item."""

    def __init__(self) -> None:
        self.items: list[object] = []
        self.errors: list[Exception] = []
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.arrived = threading.Condition()

    def handle(self, item: object) -> None:
        self.started.set()
        assert self.go_on.wait(WAIT_S)
        with self.arrived:
            self.items.append(item)
            self.arrived.notify_all()
        if item == "bad":
            raise ValueError("bad item")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.arrived:
            assert self.arrived.wait_for(condition, WAIT_S)


def test_newest_item_wins_while_the_handler_is_busy() -> None:
    recorder = Recorder()
    worker = LatestOnlyWorker[object](recorder.handle, recorder.errors.append, name="test")
    worker.offer(1)
    assert recorder.started.wait(WAIT_S)
    for item in (2, 3, 4):
        worker.offer(item)
    recorder.go_on.set()
    recorder.wait_for(lambda: len(recorder.items) == 2)
    worker.stop()
    assert recorder.items == [1, 4]
    assert (worker.handled, worker.dropped, worker.failed) == (2, 2, 0)


def test_none_is_an_item() -> None:
    recorder = Recorder()
    recorder.go_on.set()
    worker = LatestOnlyWorker[object](recorder.handle, recorder.errors.append, name="test")
    worker.offer(None)
    recorder.wait_for(lambda: recorder.items == [None])
    worker.stop()
    assert worker.handled == 1


def test_an_exception_is_reported_and_the_next_item_is_handled() -> None:
    recorder = Recorder()
    recorder.go_on.set()
    worker = LatestOnlyWorker[object](recorder.handle, recorder.errors.append, name="test")
    worker.offer("bad")
    recorder.wait_for(lambda: recorder.items == ["bad"])
    worker.offer("good")
    recorder.wait_for(lambda: recorder.items == ["bad", "good"])
    worker.stop()
    assert [str(error) for error in recorder.errors] == ["bad item"]
    assert (worker.handled, worker.failed) == (1, 1)


@pytest.mark.parametrize("discard", [True, False])
def test_what_waits_is_not_handled_after_discard_or_stop(*, discard: bool) -> None:
    recorder = Recorder()
    worker = LatestOnlyWorker[object](recorder.handle, recorder.errors.append, name="test")
    worker.offer(1)
    assert recorder.started.wait(WAIT_S)
    worker.offer(2)
    stopper = threading.Thread(target=worker.discard if discard else worker.stop)
    stopper.start()
    if discard:
        stopper.join(WAIT_S)
        stopper = threading.Thread(target=worker.stop)
        stopper.start()
    assert stopper.is_alive(), "stop must wait for the item that is being handled"
    recorder.go_on.set()
    stopper.join(WAIT_S)
    assert not stopper.is_alive()
    assert recorder.items == [1]
    assert worker.dropped == 1
