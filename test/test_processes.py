from __future__ import annotations

import threading

from momap_ros.processes import end_with_parent


def test_a_process_that_multiprocessing_did_not_start_goes_on() -> None:
    """Those that it started: test_simulation_workers.py, test_loop.py."""
    before = threading.active_count()
    end_with_parent()
    assert threading.active_count() == before
