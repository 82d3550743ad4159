from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from momap_ros.msg import ObjectMotionArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_harness import FRAME_ID, Camera, ConstantVelocityForecaster, color_message, depth_message, scene, start
from sensor_msgs.msg import Image

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.images import labels_from_image, stamp_ns_of
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.conversions import MAX_LABEL
from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.segmentation_node import SegmentationNode
from momap_ros.ros.segmenting import StableSegmenter

if TYPE_CHECKING:
    from pathlib import Path

    from ros_harness import Ros

pytestmark = pytest.mark.ros


def scene_frame() -> RGBDFrame:
    rgb, depth_mm, _ = scene()
    depth_m = np.where(depth_mm > 0, depth_mm * 0.001, np.nan).astype(np.float32)
    return RGBDFrame(rgb, depth_m, PinholeCamera(320, 240, 300.0, 300.0, 159.5, 119.5))


def test_label_images_carry_the_colour_stamp_and_stable_ids(ros: Ros) -> None:
    node = ros.add(SegmentationNode(context=ros.context, use_global_arguments=False))
    labels, camera = ros.collect(Image, "/segmentation_node/instances"), Camera(ros)
    assert start(node)
    camera.wait_for_subscriber()
    stamps = []
    for index in range(3):
        stamps.append(camera.publish(index))
        assert ros.spin_until(lambda: len(labels) == len(stamps))
    assert [stamp_ns_of(message) for message in labels] == stamps
    assert {(message.encoding, message.header.frame_id) for message in labels} == {("16UC1", FRAME_ID)}
    ids = [labels_from_image(message) for message in labels]
    np.testing.assert_array_equal(ids[0], ids[2])
    truth = scene()[2]
    for box in (1, 2):
        found = np.bincount(ids[0][truth == box]).argmax()
        assert found > 0
        common = (ids[0] == found) & (truth == box)
        assert common.sum() / ((ids[0] == found) | (truth == box)).sum() > 0.85


def test_frames_without_depth_are_skipped_by_name(ros: Ros) -> None:
    node = ros.add(SegmentationNode(context=ros.context, use_global_arguments=False))
    labels, camera = ros.collect(Image, "/segmentation_node/instances"), Camera(ros)
    assert start(node)
    camera.wait_for_subscriber()
    stamp_ns = camera.publish(0)
    assert ros.spin_until(lambda: len(labels) == 1)
    covered = depth_message(stamp_ns + 100_000_000)
    np.frombuffer(covered.data, np.uint8)[:] = 0
    camera.color.publish(color_message(stamp_ns + 100_000_000))
    camera.depth.publish(covered)
    assert ros.spin_until(lambda: node.statistics.skipped().get("frames with FrameError") == 1)
    assert len(labels) == 1


def test_missing_sam2_weights_fail_the_configuration(
    ros: Ros, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        Parameter("segmentation.method", value="sam2"),
        Parameter("segmentation.sam2_dir", value=str(tmp_path / "missing")),
    ]
    node = ros.add(SegmentationNode(context=ros.context, use_global_arguments=False, parameter_overrides=overrides))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert str(tmp_path / "missing") in capfd.readouterr().err


def test_segmentation_feeds_forecast(ros: Ros) -> None:
    segmentation = ros.add(SegmentationNode(context=ros.context, use_global_arguments=False))
    forecast = ros.add(
        ForecastNode(
            ConstantVelocityForecaster,
            context=ros.context,
            use_global_arguments=False,
            cli_args=["--ros-args", "-r", "instances:=segmentation_node/instances"],
            parameter_overrides=[Parameter("instances_source", value="topic")],
        )
    )
    objects, camera = ros.collect(ObjectMotionArray, "/forecast_node/object_motions"), Camera(ros)
    assert start(segmentation)
    assert start(forecast)
    camera.wait_for_subscriber()
    assert ros.spin_until(lambda: camera.color.get_subscription_count() == 2)
    ros.spin_for(0.6)
    stamp_ns = camera.publish(0)
    assert ros.spin_until(lambda: bool(objects))
    assert stamp_ns_of(objects[0]) == stamp_ns
    assert len(objects[0].objects) == 2


def test_ids_start_anew_after_a_reset_and_beyond_the_largest_label() -> None:
    frame, config = scene_frame(), SegmentationConfig()
    segmenter = StableSegmenter(config)
    assert sorted(segmenter(frame, config).areas_px) == [1, 2]
    segmenter.reset()
    assert sorted(segmenter(frame, config).areas_px) == [1, 2]
    segmenter = StableSegmenter(config)
    segmenter._tracker._next_id = MAX_LABEL
    assert sorted(segmenter(frame, config).areas_px) == [1, 2]


def test_changed_settings_take_effect_with_the_next_frame() -> None:
    frame, config = scene_frame(), SegmentationConfig()
    segmenter = StableSegmenter(config)
    assert len(segmenter(frame, config).areas_px) == 2
    # The boxes are 60 mm and 90 mm high.
    only_low = SegmentationConfig(max_height_m=0.075)
    assert len(segmenter(frame, only_low).areas_px) == 1
