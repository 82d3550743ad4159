"""A forecast node that scores itself, over real DDS."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from ros_harness import (
    FOCAL_PX,
    FRAME_ID,
    HEIGHT,
    START_NS,
    VELOCITY_M_S,
    WIDTH,
    Camera,
    ConstantVelocityForecaster,
    depth_message,
    info_message,
    start,
)
from sensor_msgs.msg import Image

from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.conversions import header_to_msg, labels_to_msg
from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.scoring import Seen, StreamScorer

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

CAMERA = PinholeCamera(WIDTH, HEIGHT, FOCAL_PX, FOCAL_PX, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
STEP_S = 0.25


def moved_scene(
    time_s: float, *, background_px: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Two boxes seen from above on a spotted table; the first moves along x, the image's columns, with VELOCITY_M_S."""
    spots = np.random.default_rng(0).integers(40, 220, (HEIGHT // 8, WIDTH // 8 + 8), dtype=np.uint8)
    table = np.repeat(np.repeat(spots, 8, axis=0), 8, axis=1)[:, background_px : background_px + WIDTH]
    rgb = np.repeat(table[..., None], 3, axis=2)
    depth_mm, ids = np.full((HEIGHT, WIDTH), 800, np.uint16), np.zeros((HEIGHT, WIDTH), np.int32)
    for instance_id, left, depth_m in ((1, 70, 0.74), (2, 190, 0.71)):
        corners = (np.array([[left, 100], [left + 60, 160]]) - [CAMERA.cx, CAMERA.cy]) * depth_m / FOCAL_PX
        shift_m = VELOCITY_M_S * time_s * (instance_id == 1)
        depth_m += shift_m[2]
        (x0, y0), (x1, y1) = np.rint((corners + shift_m[:2]) * FOCAL_PX / depth_m + [CAMERA.cx, CAMERA.cy]).astype(int)
        rgb[y0:y1, x0:x1] = (90 * instance_id, 60, 20)
        depth_mm[y0:y1, x0:x1], ids[y0:y1, x0:x1] = round(depth_m * 1000), instance_id
    return rgb, depth_mm, ids


def publish(camera: Camera, time_s: float, *, background_px: int = 0) -> None:
    rgb, depth_mm, ids = moved_scene(time_s, background_px=background_px)
    stamp_ns = START_NS + round(time_s * 1e9)
    color = Image(header=header_to_msg(stamp_ns, FRAME_ID), height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    color.data.frombytes(rgb.tobytes())
    depth = depth_message(stamp_ns)
    del depth.data[:]
    depth.data.frombytes(depth_mm.tobytes())
    camera.info.publish(info_message(stamp_ns))
    camera.color.publish(color)
    camera.depth.publish(depth)
    camera.instances.publish(labels_to_msg(InstanceMap(ids), header_to_msg(stamp_ns, FRAME_ID)))


def scoring_values(diagnostics: list[Any]) -> tuple[DiagnosticStatus | None, dict[str, str]]:
    """The newest self-scoring status and its values."""
    for array in reversed(diagnostics):
        for status in array.status:
            if status.name == "/forecast_node: self-scoring":
                return status, {pair.key: pair.value for pair in status.values}
    return None, {}


def test_a_node_says_how_good_it_was(ros: Ros) -> None:
    parameters = {"self_scoring": True, "scoring_period_s": 10.0, "instances_source": "topic"}
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    node = ros.add(
        ForecastNode(
            ConstantVelocityForecaster, context=ros.context, use_global_arguments=False, parameter_overrides=overrides
        )
    )
    assert start(node)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    camera = Camera(ros)
    camera.wait_for_subscriber()
    for index in range(5):
        before = node.statistics.rates_hz().get("results", 0.0)
        publish(camera, index * STEP_S)
        ros.spin_until(lambda: node.statistics.rates_hz().get("results", 0.0) != before, 5.0)  # noqa: B023
        ros.spin_for(0.6)  # scoring rests four times as long as it worked
    assert ros.spin_until(lambda: "1 s: scored" in scoring_values(diagnostics)[1])
    status, values = scoring_values(diagnostics)
    assert status is not None
    assert status.level == DiagnosticStatus.OK
    for horizon in ("0.5 s", "1 s"):
        assert (values[f"{horizon}: scored"], values[f"{horizon}: moved"]) == ("2", "1")
        displacement_m = float(horizon[:-2]) * float(np.linalg.norm(VELOCITY_M_S))
        assert float(values[f"{horizon}: error of 'nothing moves' [m]"]) == pytest.approx(displacement_m, abs=0.008)
        assert float(values[f"{horizon}: error [m]"]) < 0.008
        assert float(values[f"{horizon}: skill"]) > 0.85
        # The forecaster moves all objects; the second did not.
        assert float(values[f"{horizon}: error of what stayed [m]"]) == pytest.approx(displacement_m, abs=0.008)


def test_without_being_asked_a_node_does_not_score(ros: Ros) -> None:
    threads = threading.active_count()
    node = ros.add(ForecastNode(ConstantVelocityForecaster, context=ros.context, use_global_arguments=False))
    assert start(node)
    assert node.more_statuses() == []
    assert threading.active_count() == threads + 1  # the forecast's own


def seen_at(time_s: float, *, background_px: int = 0) -> Seen:
    rgb, depth_mm, ids = moved_scene(time_s, background_px=background_px)
    depth_m = (depth_mm / 1000).astype(np.float32)
    frame = RGBDFrame(rgb, depth_m, CAMERA, START_NS + round(time_s * 1e9), FRAME_ID)
    rows, columns = np.nonzero(ids == 1)
    points = frame.points_in_camera[rows[::20], columns[::20]]
    path = np.arange(9, dtype=np.float32)[:, None] * STEP_S * VELOCITY_M_S
    positions = np.repeat((points[:, None] + path)[None], 3, axis=0).astype(np.float32)
    trajectories = PointTrajectories(
        positions,
        np.ones(len(points), np.int32),
        np.stack([columns[::20], rows[::20]], axis=-1).astype(np.int32),
        WIDTH,
        HEIGHT,
        STEP_S,
        None,
        FRAME_ID,
        frame.stamp_ns,
    )
    return Seen(trajectories, frame, InstanceMap(ids), None)


def wait_for(condition: Any) -> bool:  # noqa: ANN401
    deadline = time.monotonic() + 30.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def test_a_camera_that_moves_is_named_and_scoring_goes_on() -> None:
    scorer = StreamScorer(period_s=10.0, window_s=60.0, moving_threshold_m=0.02)
    try:
        scorer.offer(seen_at(0.0))
        assert wait_for(lambda: scorer._scorer.num_pending == 1)
        scorer.offer(seen_at(0.5, background_px=12))
        assert wait_for(lambda: scorer.status("x").level == DiagnosticStatus.WARN)
        assert "expected one that rests, got one that moved" in scorer.status("x").message
        assert "set forecast.target_frame" in scorer.status("x").message
        scorer.reset()
        scorer.offer(seen_at(1.0))
        assert wait_for(lambda: scorer._scorer.num_pending == 1)
    finally:
        scorer.stop()


def test_offering_never_waits() -> None:
    scorer = StreamScorer(period_s=1.0, window_s=2.0, moving_threshold_m=0.02)
    try:
        seen = seen_at(0.0)
        started = time.perf_counter()
        for _ in range(200):
            scorer.offer(seen)
        assert time.perf_counter() - started < 5.0  # scoring all of them would take longer
    finally:
        scorer.stop()


def test_scores_leave_the_window() -> None:
    scorer = StreamScorer(period_s=1.0, window_s=2.0, moving_threshold_m=0.02)
    try:
        for time_s in (0.0, 0.5, 4.0):
            scorer.offer(seen_at(time_s))
            assert wait_for(lambda: scorer._scorer._last_stamp_ns == START_NS + round(time_s * 1e9))  # noqa: B023
            if time_s == 0.5:
                assert wait_for(lambda: scorer.status("x").message == "1 objects scored")
        assert wait_for(lambda: scorer.status("x").message == "0 objects scored")
    finally:
        scorer.stop()
