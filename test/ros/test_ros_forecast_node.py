from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from chat_server import Answer, serving
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from momap_ros.msg import MotionHints, ObjectMotionArray
from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from ros_harness import (
    FRAME_ID,
    NUM_STEPS,
    PERIOD_NS,
    START_NS,
    STEP_S,
    VELOCITY_M_S,
    Camera,
    ConstantVelocityForecaster,
    color_message,
    depth_message,
    info_message,
    scene,
    start,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.images import stamp_ns_of
from momap_ros.instances import InstanceMap
from momap_ros.ros.conversions import (
    forecast_to_numpy,
    header_to_msg,
    hints_to_msg,
    labels_to_msg,
    seconds_from_duration,
    stamp_to_msg,
)
from momap_ros.ros.forecast_node import ForecastNode

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros


class Started:
    """A forecast node that runs, its forecaster, and what it publishes."""

    def __init__(self, ros: Ros, *, activate: bool = True, **parameters: Any) -> None:  # noqa: ANN401
        self.ros = ros
        self.built: list[ConstantVelocityForecaster] = []
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        self.node = ros.add(
            ForecastNode(self._build, context=ros.context, use_global_arguments=False, parameter_overrides=overrides)
        )
        self.trajectories = ros.collect(PointTrajectoriesMsg, "/forecast_node/trajectories")
        self.objects = ros.collect(ObjectMotionArray, "/forecast_node/object_motions")
        if activate:
            assert start(self.node)

    def _build(self, forecast: ForecastConfig, motion: ObjectMotionConfig) -> ConstantVelocityForecaster:
        self.built.append(ConstantVelocityForecaster(forecast, motion))
        return self.built[-1]

    @property
    def forecaster(self) -> ConstantVelocityForecaster:
        return self.built[-1]

    def stamps(self) -> list[int]:
        return [stamp_ns_of(message) for message in self.objects]


def test_a_frame_becomes_trajectories_and_object_motions(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    assert ros.spin_until(lambda: bool(started.trajectories) and bool(started.objects))
    trajectories = forecast_to_numpy(started.trajectories[0])
    assert (trajectories.stamp_ns, trajectories.frame_id) == (stamp_ns, FRAME_ID)
    # Of two hypotheses one is published; both are at the same distance from each other, so the first.
    assert trajectories.positions.shape[::2] == (1, NUM_STEPS)
    moved = trajectories.positions[0, :, -1] - trajectories.positions[0, :, 0]
    np.testing.assert_allclose(moved, np.tile(VELOCITY_M_S * STEP_S * (NUM_STEPS - 1), (len(moved), 1)), atol=1e-5)
    depth_m = scene()[1][trajectories.pixels[:, 1], trajectories.pixels[:, 0]] * 1e-3
    np.testing.assert_allclose(trajectories.positions[0, :, 0, 2], depth_m, atol=1e-5)
    message = started.objects[0]
    assert stamp_ns_of(message) == stamp_ns
    assert len(message.objects) == 2
    assert sorted(round(motion.centroid.z, 3) for motion in message.objects) == [0.71, 0.74]
    assert all(motion.direction_flags[0] == 1 and motion.rigid and motion.valid for motion in message.objects)
    assert seconds_from_duration(message.horizon) == pytest.approx(STEP_S * (NUM_STEPS - 1))
    assert message.model_name == "small"


def test_label_images_of_the_same_stamp_are_used(ros: Ros) -> None:
    started, camera = Started(ros, instances_source="topic"), Camera(ros)
    camera.wait_for_subscriber()
    stamps = [camera.publish(index) for index in range(4)]
    ids = np.where(scene()[2] == 2, 77, 0).astype(np.int32)
    camera.instances.publish(labels_to_msg(InstanceMap(ids), header_to_msg(stamps[2], FRAME_ID)))
    assert ros.spin_until(lambda: bool(started.objects))
    ros.spin_for(0.3)
    assert started.stamps() == [stamps[2]]
    assert [motion.id for motion in started.objects[0].objects] == [77]


def test_no_instance_gives_an_empty_result(ros: Ros) -> None:
    started, camera = Started(ros, instances_source="topic"), Camera(ros)
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    nothing = InstanceMap(np.zeros_like(scene()[2]))
    camera.instances.publish(labels_to_msg(nothing, header_to_msg(stamp_ns, FRAME_ID)))
    assert ros.spin_until(lambda: bool(started.trajectories) and bool(started.objects))
    assert forecast_to_numpy(started.trajectories[0]).num_points == 0
    assert len(started.objects[0].objects) == 0


def test_slow_forecasts_skip_frames_and_take_the_newest(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    busy, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        busy.set()
        go_on.wait(10.0)

    started.forecaster.before_answer = wait
    camera.wait_for_subscriber()
    stamps = [camera.publish(0)]
    assert ros.spin_until(busy.is_set)
    for index in range(1, 6):
        stamps.append(camera.publish(index))
        ros.spin_for(0.05)
    go_on.set()
    assert ros.spin_until(lambda: len(started.objects) == 2)
    assert started.stamps() == [stamps[0], stamps[-1]]
    assert started.node.statistics.skipped()["frames replaced by newer ones"] == 4


def test_a_failing_forecast_is_reported_and_the_next_one_works(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)

    def fail_once() -> None:
        started.forecaster.before_answer = lambda: None
        raise RuntimeError("the model broke")

    started.forecaster.before_answer = fail_once
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(lambda: started.node.statistics.skipped().get("frames with RuntimeError") == 1)
    second = camera.publish(1)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [second]
    assert ros.spin_until(
        lambda: any(
            array.status[0].level == DiagnosticStatus.ERROR and array.status[0].message == "the model broke"
            for array in diagnostics
        )
    )


def test_diagnostics_tell_the_stages_of_a_forecast_from_those_around_it(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(lambda: bool(started.objects))
    seen = len(diagnostics)
    assert ros.spin_until(lambda: len(diagnostics) > seen + 1)
    shown = {pair.key: pair.value for pair in diagnostics[-1].status[0].values}
    assert (shown["network [ms]"], shown["model [ms]"], shown["decode [ms]"]) == ("250.0", "500.0", "125.0")
    # The camera's messages are decoded too: that must not hide behind the forecast's own stage.
    assert 0.0 < float(shown["images [ms]"]) != 125.0


def test_frames_that_cannot_be_used_are_named_and_skipped(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    camera.wait_for_subscriber()
    camera.info.publish(info_message(START_NS))
    depth = depth_message(START_NS)
    depth.height //= 2
    camera.color.publish(color_message(START_NS))
    camera.depth.publish(depth)
    assert ros.spin_until(lambda: started.node.statistics.skipped().get("frames with FrameError") == 1)
    camera.color.publish(color_message(0))
    camera.depth.publish(depth_message(0))
    assert ros.spin_until(lambda: started.node.statistics.skipped().get("color/image_raw without a stamp") == 1)
    assert ros.spin_until(lambda: started.node.statistics.skipped().get("depth/image_raw without a stamp") == 1)
    good = camera.publish(3)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [good]


def test_out_of_memory_three_times_deactivates(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)

    class OutOfMemoryError(RuntimeError):
        """By the name that torch gives it."""

    def run_out() -> None:
        raise OutOfMemoryError("CUDA out of memory")

    started.forecaster.before_answer = run_out
    camera.wait_for_subscriber()
    for index in range(3):
        assert started.node.is_active
        camera.publish(index)
        assert ros.spin_until(
            lambda: started.node.statistics.skipped().get("frames with OutOfMemoryError") == index + 1  # noqa: B023
        )
    assert ros.spin_until(lambda: not started.node.is_active)
    started.forecaster.before_answer = lambda: None
    assert started.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(5)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [stamp_ns]


def test_deactivation_during_a_forecast_waits_and_publishes_nothing(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    busy, answered = threading.Event(), threading.Event()

    def answer_slowly() -> None:
        busy.set()
        time.sleep(0.5)
        answered.set()

    started.forecaster.before_answer = answer_slowly
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(busy.is_set)
    assert started.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert answered.is_set()
    camera.publish(1)
    ros.spin_for(0.5)
    assert not started.objects
    assert len(started.forecaster.frames) == 1
    assert started.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(2)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [stamp_ns]


def test_time_that_goes_back_starts_afresh(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    camera.wait_for_subscriber()
    stamps = []
    for index in (50, 51, 0, 1):
        stamps.append(camera.publish(index))
        assert ros.spin_until(lambda: started.stamps() == stamps)
    assert started.node.statistics.skipped()["time went back"] == 1


def test_depth_within_the_tolerance_pairs(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros, depth_delay_ns=-7_000_000)
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [stamp_ns]


def test_prompt_topic_becomes_the_parameter(ros: Ros) -> None:
    started, camera = Started(ros, forecast__prompt="push the cup"), Camera(ros)
    prompt = camera.node.create_publisher(String, "prompt", 1)
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(lambda: started.forecaster.prompts == ["push the cup"])
    assert ros.spin_until(lambda: prompt.get_subscription_count() > 0)
    prompt.publish(String(data="flibber the red box"))
    assert ros.spin_until(lambda: started.node.get_parameter("forecast.prompt").value == "flibber the red box")
    camera.publish(1)
    assert ros.spin_until(lambda: started.forecaster.prompts == ["push the cup", "flibber the red box"])


def test_settings_that_change_reach_the_next_forecast(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    camera.wait_for_subscriber()
    results = started.node.set_parameters(
        [Parameter("forecast.max_points", value=30), Parameter("forecast.published_hypotheses", value=2)]
    )
    assert all(result.successful for result in results)
    camera.publish(0)
    assert ros.spin_until(lambda: bool(started.trajectories))
    assert forecast_to_numpy(started.trajectories[0]).positions.shape[:2] == (2, 30)


def test_cloud_is_published_while_somebody_listens(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    clouds = ros.collect(PointCloud2, "/forecast_node/cloud")
    camera.wait_for_subscriber()
    camera.publish(0)
    assert ros.spin_until(lambda: bool(clouds) and bool(started.trajectories))
    assert clouds[0].width == started.trajectories[0].num_points
    velocity = np.frombuffer(clouds[0].data, np.float32).reshape(-1, 7)[:, 3:6]
    np.testing.assert_allclose(velocity, np.tile(VELOCITY_M_S, (len(velocity), 1)), atol=1e-5)


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_auto_takes_what_publishers_offer(ros: Ros, reliability: ReliabilityPolicy) -> None:
    started = Started(ros)
    camera = Camera(ros, reliability=reliability)
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [stamp_ns]
    offered = camera.node.get_subscriptions_info_by_topic("/color/image_raw")
    assert [info.qos_profile.reliability for info in offered] == [reliability]


def test_lifecycle_service_drives_a_node_without_autostart(ros: Ros) -> None:
    started, camera = Started(ros, autostart=False), Camera(ros)
    client = camera.node.create_client(ChangeState, "/forecast_node/change_state")
    assert not started.built
    assert ros.spin_until(client.service_is_ready)
    for transition in (1, 3, 4, 2, 1, 3):  # configure, activate, deactivate, clean up, and again
        request = ChangeState.Request()
        request.transition.id = transition
        future = client.call_async(request)
        assert ros.spin_until(future.done)
        assert future.result().success, transition
    assert len(started.built) == 2
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [stamp_ns]


def test_a_failing_configuration_says_why_and_can_be_repeated(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    fail = [True]

    def build(forecast: ForecastConfig, motion: ObjectMotionConfig) -> ConstantVelocityForecaster:
        if fail:
            fail.pop()
            raise FileNotFoundError("expected a checkpoint, got nothing")
        return ConstantVelocityForecaster(forecast, motion)

    node = ros.add(ForecastNode(build, context=ros.context, use_global_arguments=False))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    printed = capfd.readouterr().err
    assert "Traceback" in printed
    assert "configure failed: expected a checkpoint, got nothing" in printed
    assert start(node)


def test_watchdog_names_topics_and_publishers(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    started = Started(ros, input__watchdog_s=0.5)
    ros.spin_for(1.2)
    printed = capfd.readouterr().err
    assert "no message on /color/image_raw" in printed
    assert "0 publishers" in printed
    assert printed.count("no message on /color/image_raw") == 1, "a warning must not be repeated at once"
    Camera(ros)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    expected = "waiting for /color/image_raw, /depth/image_raw, /color/camera_info"
    assert ros.spin_until(lambda: any(array.status[0].message == expected for array in diagnostics))
    assert started.node.is_active


def test_watchdog_states_the_offset_of_streams_that_never_pair(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    Started(ros, input__watchdog_s=0.5)
    camera = Camera(ros, depth_delay_ns=PERIOD_NS * 4 // 10)
    camera.wait_for_subscriber()
    for index in range(12):
        camera.publish(index)
        ros.spin_for(0.1)
    printed = capfd.readouterr().err
    assert "no colour and depth pair" in printed
    assert "40 ms apart" in printed
    assert "the tolerance is 20 ms" in printed


def test_parameters_out_of_range_are_refused(ros: Ros) -> None:
    node = Started(ros, activate=False).node
    for name, value in (
        ("forecast.num_inference_steps", 0),
        ("forecast.num_inference_steps", 1.5),
        ("forecast.seed", -1),
        ("input.sync_tolerance_s", 2.0),
        ("forecast.checkpoint", "other"),
    ):
        before = node.get_parameter(name).value
        result = node.set_parameters([Parameter(name, value=value)])[0]
        assert not result.successful, name
        assert result.reason, name
        assert node.get_parameter(name).value == before


def test_simulated_time_that_goes_back_starts_afresh(ros: Ros) -> None:
    started, camera = Started(ros, use_sim_time=True), Camera(ros)
    clock = camera.node.create_publisher(Clock, "/clock", 10)
    assert ros.spin_until(lambda: clock.get_subscription_count() > 0)

    def set_clock(stamp_ns: int) -> None:
        clock.publish(Clock(clock=stamp_to_msg(stamp_ns)))
        assert ros.spin_until(lambda: started.node.get_clock().now().nanoseconds == stamp_ns)

    set_clock(START_NS + PERIOD_NS)
    set_clock(START_NS + 2 * PERIOD_NS)
    before = started.node.statistics.skipped().get("time went back", 0)
    set_clock(START_NS)
    assert started.node.statistics.skipped()["time went back"] == before + 1
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(1)
    assert ros.spin_until(lambda: bool(started.objects))
    assert started.stamps() == [stamp_ns]
    assert seconds_from_duration(started.objects[0].latency) == pytest.approx(-PERIOD_NS * 1e-9)


def test_qos_of_inputs_and_outputs_can_be_overridden(ros: Ros) -> None:
    name = "qos_overrides./{}"
    overrides: dict[str, Any] = {
        name.format("color/image_raw.subscription.depth"): 9,
        name.format("forecast_node/trajectories.publisher.reliability"): "best_effort",
    }
    Started(ros, **overrides)
    looker = ros.node("looker")
    assert ros.spin_until(lambda: bool(looker.get_publishers_info_by_topic("/forecast_node/trajectories")))
    (offered,) = looker.get_publishers_info_by_topic("/forecast_node/trajectories")
    assert offered.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    node = next(node for node in ros.nodes if node.get_name() == "forecast_node")
    assert node.get_parameter(name.format("color/image_raw.subscription.depth")).value == 9


def test_a_failing_activation_leaves_the_node_inactive_and_idle(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    override = Parameter("qos_overrides./depth/image_raw.subscription.history", value="sometimes")
    node = ros.add(
        ForecastNode(
            ConstantVelocityForecaster,
            context=ros.context,
            use_global_arguments=False,
            parameter_overrides=[override],
        )
    )
    threads = threading.active_count()
    assert node.start_configured()
    assert not node.start_active()
    assert "activate failed: Unexpected QoS override" in capfd.readouterr().err
    assert not node.is_active
    assert threading.active_count() == threads
    assert "/color/image_raw" not in {subscription.topic_name for subscription in node.subscriptions}
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS


def test_shutdown_from_active_stops_everything(ros: Ros) -> None:
    started, camera = Started(ros), Camera(ros)
    camera.wait_for_subscriber()
    assert started.node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    assert not started.node.is_active
    assert ros.spin_until(lambda: camera.color.get_subscription_count() == 0)


# --- direction hints


def json_hints(*hints: tuple[int, str, str, str]) -> String:
    items = [{"id": instance_id, "x": x, "y": y, "z": z} for instance_id, x, y, z in hints]
    return String(data=json.dumps({"hints": items}))


def note_of(started: Started) -> str:
    status = started.node.statistics.status("node", active=True, silent=[])
    return next((pair.value for pair in status.values if pair.key == "motion hints"), "")


def test_hints_reach_the_forecast_and_are_echoed(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    started, camera = Started(ros), Camera(ros)
    echoed = ros.collect(MotionHints, "/forecast_node/applied_hints")
    by_json = camera.node.create_publisher(String, "/forecast_node/motion_hints", 1)
    typed = camera.node.create_publisher(MotionHints, "/forecast_node/motion_hints/typed", 1)
    camera.wait_for_subscriber()
    assert ros.spin_until(lambda: bool(by_json.get_subscription_count() and typed.get_subscription_count()))

    def forecast(index: int) -> dict[int, list[int]]:
        stamp_ns = camera.publish(index)
        assert ros.spin_until(lambda: bool(echoed) and stamp_ns_of(echoed[-1]) == stamp_ns)
        assert echoed[-1].header.frame_id == FRAME_ID
        return {item.id: list(item.flags) for item in echoed[-1].hints}

    def give(publisher: Publisher, message: Any, said: str) -> None:  # noqa: ANN401  (a message of any type)
        publisher.publish(message)
        seen = [""]

        def heard() -> bool:
            seen[0] += capfd.readouterr().err
            return said in seen[0]

        assert ros.spin_until(heard)

    assert forecast(0) == {}
    assert note_of(started) == "none"
    give(by_json, json_hints((1, "right", "stay", "away"), (7, "left", "stay", "stay")), "motion hints: 1: right, away")
    assert forecast(1) == {1: [1, 0, 1]}
    assert started.forecaster.hints[-1] == {1: (1, 0, 1)}
    assert note_of(started) == "1: right, away; not in view: 7"
    give(
        by_json,
        String(data='{"hints": [{"id": 1, "x": "up", "y": "stay", "z": "stay"}]}'),
        "instance 1, axis x: expected left",
    )
    assert started.node.statistics.skipped()["motion hints that cannot be understood"] == 1
    assert forecast(2) == {1: [1, 0, 1]}, "hints that cannot be understood replace nothing"
    old = header_to_msg(START_NS - 20_000_000_000, FRAME_ID)
    give(typed, hints_to_msg({2: (0, -1, 0)}, old), "motion hints: 2: up")
    assert forecast(3) == {}, "they speak of an image of more than hints.max_age_s ago"
    give(typed, hints_to_msg({2: (0, -1, 0)}, header_to_msg(START_NS, FRAME_ID)), "motion hints: 2: up")
    assert forecast(4) == {2: [0, -1, 0]}
    give(typed, MotionHints(), "motion hints: none")
    assert forecast(5) == {}
    give(by_json, json_hints((1, "stay", "up", "stay")), "motion hints: 1: up")
    assert forecast(0) == {}, "time went back, so ids may mean something else"


def test_a_language_model_is_asked_once_at_a_time_and_never_waited_for(
    ros: Ros, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Answer('{"hints": [{"id": 1, "x": "left", "y": "up", "z": "stay"}]}', delay_s=1.0)) as chat:
        started = Started(
            ros, vlm__base_url=chat.base_url, vlm__model="m", vlm__period_s=600.0, forecast__prompt="lift the red box"
        )
        camera = Camera(ros)
        camera.wait_for_subscriber()
        index = 0
        while not any(started.forecaster.hints):
            assert index < 300
            camera.publish(index)
            index += 1
            ros.spin_for(0.1)
        assert started.forecaster.hints[-1] == {1: (-1, -1, 0)}
        assert started.forecaster.hints[0] == {}, "the first frame did not wait for the answer"
        assert len(chat.requests) == 1
        assert "lift the red box" in chat.requests[0]["messages"][-1]["content"][1]["text"]
        started.node.set_parameters([Parameter("forecast.prompt", value="push the blue box")])
        camera.publish(index)
        assert ros.spin_until(lambda: len(chat.requests) == 2)
        assert ros.spin_until(lambda: started.forecaster.hints[-1] == {}), "they were about another sentence"
        assert chat.most_in_flight == 1
