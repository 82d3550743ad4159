from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message

from momap_ros.ros.conversions import stamp_to_msg
from momap_ros.ros.diagnostics import RATE_WINDOW_S, Statistics, diagnostic_array, is_out_of_memory, memory_mebibytes

pytestmark = pytest.mark.ros


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_status_shows_rates_stages_skips_and_memory() -> None:
    statistics = Statistics()
    for _ in range(10):
        statistics.count_arrival("color/image_raw")
    statistics.count_skipped("frames with FrameError")
    statistics.set_skipped("colour without depth", 4)
    statistics.set_stages({"forecast": 0.25})
    with statistics.stage("decode"):
        pass
    status = statistics.status("/forecast_node", active=True, silent=[])
    shown = values(status)
    assert shown["color/image_raw [Hz]"] == f"{10 / RATE_WINDOW_S:.1f}"
    assert shown["skipped: frames with FrameError"] == "1"
    assert shown["skipped: colour without depth"] == "4"
    assert shown["forecast [ms]"] == "250.0"
    assert "decode [ms]" in shown
    assert float(shown["peak memory [MiB]"]) > 10
    assert (status.level, status.message) == (DiagnosticStatus.OK, "running")
    array = diagnostic_array(stamp_to_msg(5), status)
    assert array.header.stamp.nanosec == 5
    serialize_message(array)


def test_silence_warns_and_an_error_is_louder() -> None:
    statistics = Statistics()
    status = statistics.status("/node", active=True, silent=["/depth"])
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "waiting for /depth")
    statistics.set_error("the model broke")
    status = statistics.status("/node", active=True, silent=["/depth"])
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "the model broke")
    assert values(status)["last error"] == "the model broke"


def test_an_inactive_node_says_so() -> None:
    assert Statistics().status("/node", active=False, silent=[]).message == "inactive"


def test_stage_is_measured_when_its_block_raises() -> None:
    statistics = Statistics()
    with pytest.raises(RuntimeError), statistics.stage("forecast"):
        raise RuntimeError
    assert statistics.stage_s("forecast") >= 0.0


def test_counts_of_many_threads_add_up() -> None:
    statistics = Statistics()

    def count() -> None:
        for _ in range(1000):
            statistics.count_skipped("x")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statistics.skipped() == {"x": 4000}


def test_out_of_memory_is_known_by_torch_s_name() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("full"))
    assert not is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert "peak memory" in memory_mebibytes()
