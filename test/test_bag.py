"""Bags written and read back without ROS, and everything a bag can lack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from momap_ros.bag import BagReader
from momap_ros.bag_messages import (
    camera_info_message,
    color_message,
    depth_message,
    instances_message,
    objects_from_message,
    trajectories_from_message,
)
from momap_ros.bag_pairing import pair_by_stamp
from momap_ros.bag_topics import Topic, TopicChoice, choose_topics
from momap_ros.bag_types import CAMERA_INFO, IMAGE, BagError, type_store
from momap_ros.bag_write import (
    CAMERA_INFO_TOPIC,
    COLOR_TOPIC,
    DEPTH_TOPIC,
    INSTANCES_TOPIC,
    OBJECT_MOTIONS_TOPIC,
    TRAJECTORIES_TOPIC,
    BagWriter,
)
from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import estimate_object_motions
from momap_ros.rgbd import RGBDFrame

CAMERA = PinholeCamera(32, 24, 30.0, 31.0, 15.5, 11.5)
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
STORAGES = ["mcap", "sqlite3"]
ROS1_BAG = Path(__file__).parents[2] / "shared" / "data" / "bad_inputs" / "ros1_pointcloud_only.bag"


def make_frame(index: int) -> RGBDFrame:
    rng = np.random.default_rng(index)
    depth_m = rng.uniform(0.4, 2.0, (24, 32)).astype(np.float32)
    depth_m[:3] = np.nan
    rgb = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return RGBDFrame(rgb, depth_m, CAMERA, START_NS + index * PERIOD_NS, "camera_optical")


def make_forecast(frame: RGBDFrame) -> PointTrajectories:
    """Two hypotheses of two objects: one slides right by 10 cm, the other stays; one point is unknown."""
    steps, points = 5, 12
    start = np.random.default_rng(7).uniform(-0.2, 0.2, (points, 3)) + np.array([0, 0, 1])
    slide = np.linspace(0, 0.1, steps)[:, None] * [1.0, 0, 0]
    ids = np.repeat([2, 5], points // 2).astype(np.int32)
    positions = start[:, None] + slide * (ids == 2)[:, None, None]
    positions = np.stack([positions, positions + 0.001 * slide]).astype(np.float32)
    positions[0, 3, 2:] = np.nan
    pixels = np.stack([np.arange(points), np.arange(points) + 3], axis=1).astype(np.int32)
    confidence = np.full((2, points), 0.75, np.float32)
    return PointTrajectories(positions, ids, pixels, 32, 24, 0.2, confidence, frame.frame_id, frame.stamp_ns)


@pytest.mark.parametrize("storage", STORAGES)
def test_frames_instances_and_prompts_round_trip(tmp_path: Path, storage: str) -> None:
    frames = [make_frame(index) for index in range(4)]
    labels = InstanceMap(np.arange(24 * 32, dtype=np.int32).reshape(24, 32) % 400)
    with BagWriter(tmp_path / "bag", storage=storage) as bag:
        for index, frame in enumerate(frames):
            bag.write_frame(frame)
            if index == 2:
                bag.write_instances(labels, frame.stamp_ns, frame.frame_id)
            if index == 1:
                bag.write_prompt("push the cup", frame.stamp_ns + 1)
            if index == 2:
                bag.write_prompt("then the plate", frame.stamp_ns + 1)
    with BagReader(tmp_path / "bag") as reader:
        items = list(reader.frames())
        assert not reader.skipped
    for index, (item, frame) in enumerate(zip(items, frames, strict=True)):
        assert (item.index, item.frame.stamp_ns, item.frame.frame_id) == (index, frame.stamp_ns, "camera_optical")
        assert item.frame.camera == CAMERA
        np.testing.assert_array_equal(item.frame.rgb, frame.rgb)
        np.testing.assert_array_equal(item.frame.depth_m, frame.depth_m)
    assert [item.instances is None for item in items] == [True, True, False, True]
    np.testing.assert_array_equal(items[2].instances.ids, labels.ids)  # type: ignore[union-attr]  # asserted above
    assert [item.prompt for item in items] == ["push the cup"] * 3 + ["then the plate"]


def test_millimetre_depth_is_off_by_half_a_millimetre_at_most(tmp_path: Path) -> None:
    frame = make_frame(0)
    with BagWriter(tmp_path / "bag", compress=True) as bag:
        bag.write_frame(frame, millimetres=True)
    with BagReader(tmp_path / "bag") as reader:
        (item,) = reader.frames()
    np.testing.assert_array_equal(item.frame.valid, frame.valid)
    np.testing.assert_allclose(item.frame.depth_m, frame.depth_m, atol=0.000501)


@pytest.mark.parametrize("storage", STORAGES)
def test_forecast_messages_round_trip(tmp_path: Path, storage: str) -> None:
    trajectories = make_forecast(make_frame(0))
    objects = estimate_object_motions(trajectories, ObjectMotionConfig(), labels={2: "cup"})
    with BagWriter(tmp_path / "bag", storage=storage) as bag:
        bag.write_forecast(trajectories, objects, model_name="test", latency_s=0.25)
    with BagReader(tmp_path / "bag") as reader:
        (_, message), (_, motions) = (
            next(reader.messages(TRAJECTORIES_TOPIC)),
            next(reader.messages(OBJECT_MOTIONS_TOPIC)),
        )
    back = trajectories_from_message(message)
    for name in ("positions", "object_ids", "pixels", "confidence"):
        np.testing.assert_array_equal(getattr(back, name), getattr(trajectories, name))
    assert (back.stamp_ns, back.frame_id, back.step_s) == (START_NS, "camera_optical", 0.2)
    assert (back.image_width, back.image_height) == (32, 24)
    assert (motions.model_name, motions.latency.nanosec, motions.horizon.nanosec) == ("test", 250_000_000, 800_000_000)
    for motion, expected in zip(objects_from_message(motions), objects, strict=True):
        assert (motion.instance_id, motion.label) == (expected.instance_id, expected.label)
        np.testing.assert_allclose(motion.motion_t_from_0, expected.motion_t_from_0, atol=1e-12)
        np.testing.assert_array_equal(motion.direction_flags, expected.direction_flags)
        np.testing.assert_allclose(motion.residual_m, expected.residual_m, atol=1e-9)
        assert motion.displacement_m == pytest.approx(expected.displacement_m, rel=1e-6)
        np.testing.assert_allclose(motion.end_covariance, expected.end_covariance)
        assert len(motion.hypotheses) == len(expected.hypotheses) == 1
        assert motion.hypotheses[0].weight == pytest.approx(expected.hypotheses[0].weight)
        np.testing.assert_allclose(motion.hypotheses[0].motion_t_from_0, expected.motion_t_from_0, atol=1e-12)
        assert motion.articulation.kind == expected.articulation.kind
        for name in ("axis", "axis_point", "positions"):
            np.testing.assert_allclose(
                getattr(motion.articulation, name), getattr(expected.articulation, name), rtol=1e-6
            )


@pytest.mark.ros
def test_ros_reads_and_writes_the_same_messages() -> None:
    pytest.importorskip("rclpy", reason="needs ROS")
    from momap_ros.msg import ObjectMotionArray
    from momap_ros.msg import PointTrajectories as PointTrajectoriesMsg
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CameraInfo, Image

    from momap_ros.bag_messages import trajectories_message
    from momap_ros.object_cdr import objects_cdr

    frame = make_frame(0)
    trajectories = make_forecast(frame)
    objects = estimate_object_motions(trajectories, ObjectMotionConfig(), labels={2: "cup"})
    cases = [
        (color_message(frame.rgb, 5, "a"), IMAGE, Image),
        (depth_message(frame.depth_m, 5, "a", millimetres=True), IMAGE, Image),
        (camera_info_message(CAMERA, 5, "a"), CAMERA_INFO, CameraInfo),
        (trajectories_message(trajectories), "momap_ros/msg/PointTrajectories", PointTrajectoriesMsg),
    ]
    serialized = [(bytes(type_store().serialize_cdr(message, name)), name, kind) for message, name, kind in cases]
    motions = objects_cdr(objects, trajectories, model_name="m", latency_s=0.1)
    for data, name, ros_class in [*serialized, (motions, "momap_ros/msg/ObjectMotionArray", ObjectMotionArray)]:
        through_ros = bytes(serialize_message(deserialize_message(data, ros_class)))
        # Padding bytes are not defined, so the comparison is of what was meant, written once more.
        again = type_store().serialize_cdr(type_store().deserialize_cdr(through_ros, name), name)
        assert bytes(again) == data, name


@pytest.mark.parametrize("existing", ["nothing", "bag", "other"])
def test_nothing_is_left_after_an_exception(tmp_path: Path, existing: str) -> None:
    path = tmp_path / "bag"
    if existing == "bag":
        with BagWriter(path) as bag:
            bag.write_frame(make_frame(0))
    before = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*"))

    def interrupted() -> None:
        with BagWriter(path, overwrite=True) as bag:
            bag.write_frame(make_frame(1))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == before
    if existing == "bag":
        with BagReader(path) as reader:
            assert next(reader.frames()).frame.stamp_ns == START_NS


def test_existing_paths_are_replaced_only_when_allowed_and_a_bag(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_frame(make_frame(0))
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "bag")
    with BagWriter(tmp_path / "bag", overwrite=True) as bag:
        bag.write_frame(make_frame(3))
    with BagReader(tmp_path / "bag") as reader:
        assert [item.frame.stamp_ns for item in reader.frames()] == [START_NS + 3 * PERIOD_NS]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(BagError, match="not a bag and is left alone"):
        BagWriter(tmp_path / "photos", overwrite=True)


def write_raw_bag(path: Path, *, depth_ns: list[int], color_ns: list[int], depth_frame: str = "a") -> Path:
    """A bag whose images carry given stamps, logged in stamp order."""
    frame = make_frame(0)
    with BagWriter(path) as bag:
        bag.write(CAMERA_INFO_TOPIC, CAMERA_INFO, camera_info_message(CAMERA, 0, "a"), START_NS)
        stamps = sorted([(stamp, "color") for stamp in color_ns] + [(stamp, "depth") for stamp in depth_ns])
        for stamp, kind in stamps:
            if kind == "color":
                bag.write(COLOR_TOPIC, IMAGE, color_message(frame.rgb, stamp, "a"), START_NS + stamp)
            else:
                depth = depth_message(frame.depth_m, stamp, depth_frame, millimetres=False)
                bag.write(DEPTH_TOPIC, IMAGE, depth, START_NS + stamp)
    return path


def test_pairs_are_nearest_and_the_rest_is_counted(tmp_path: Path) -> None:
    ms = 1_000_000
    path = write_raw_bag(
        tmp_path / "bag",
        color_ns=[0, 100 * ms, 200 * ms, 300 * ms],
        depth_ns=[5 * ms, 195 * ms, 201 * ms, 330 * ms, 500 * ms],
    )
    with BagReader(path) as reader:
        stamps = [item.frame.stamp_ns for item in reader.frames()]
        assert reader.skipped == {
            "colour image without a depth image of its time": 2,
            "depth image without a colour image of its time": 3,
        }
    assert stamps == [0, 200 * ms]


@pytest.mark.parametrize(
    ("stream", "pairs"),
    [
        ([(0, "c"), (0, "d"), (10, "d"), (10, "c")], [(0, 0), (10, 10)]),
        # The depth image at 8 is within tolerance of colour 3, but colour 9 is nearer.
        ([(3, "c"), (8, "d"), (9, "c")], [(9, 8)]),
        ([(3, "d"), (8, "c"), (9, "d")], [(8, 9)]),
        # Equally near: the earlier one, so that nothing waits in vain.
        ([(0, "c"), (4, "d"), (8, "c")], [(0, 4)]),
        ([(0, "c"), (20, "d")], []),
        ([(5, "c"), (5, "c"), (4, "c"), (5, "d")], [(5, 5)]),
    ],
)
def test_pairing_by_stamp(stream: list[tuple[int, str]], pairs: list[tuple[int, int]]) -> None:
    skipped: list[str] = []
    items = ((t, t if kind == "c" else None, t if kind == "d" else None) for t, kind in stream)
    found = list(pair_by_stamp(items, 6, skipped.append))
    assert found == pairs
    assert 2 * len(found) + len(skipped) == len(stream)


def test_pairing_does_not_hoard_a_stream_without_partner() -> None:
    alive = 0

    class Item:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def stream() -> Iterator[tuple[int, Item | None, Item | None]]:
        nonlocal most
        for index in range(1000):
            yield index * 100_000_000, None, Item()
            most = max(most, alive)

    assert list(pair_by_stamp(stream(), 1000, lambda _reason: None)) == []
    assert most < 30  # two seconds at 10 Hz, and a few in flight


def test_other_frames_are_reported_with_their_reason(tmp_path: Path) -> None:
    path = write_raw_bag(tmp_path / "bag", color_ns=[0, 1], depth_ns=[0, 1], depth_frame="depth_optical")
    with (
        BagReader(path) as reader,
        pytest.raises(BagError, match=r"2x depth not registered: .*'a', got 'depth_optical'"),
    ):
        list(reader.frames())


def test_selected_frames_alone_are_used(tmp_path: Path) -> None:
    path = write_raw_bag(tmp_path / "bag", color_ns=list(range(0, 10, 2)), depth_ns=list(range(0, 10, 2)))
    with BagReader(path) as reader:
        assert [item.index for item in reader.frames(selected=lambda index: index % 2 == 1)] == [1, 3]
        with pytest.raises(BagError, match="nothing was selected"):
            list(reader.frames(selected=lambda index: index > 100))


def test_instances_of_another_size_are_a_named_skip(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(2):
            frame = make_frame(index)
            bag.write_frame(frame)
            ids = np.ones((24, 32) if index else (12, 16), np.int32)
            message = instances_message(InstanceMap(ids), frame.stamp_ns, frame.frame_id)
            bag.write(INSTANCES_TOPIC, IMAGE, message, frame.stamp_ns)
    with BagReader(tmp_path / "bag") as reader:
        assert [item.index for item in reader.frames()] == [1]
        assert list(reader.skipped.values()) == [1]
        assert "expected the colour image's size 32x24, got 16x12" in next(iter(reader.skipped))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.99])
def test_truncated_bags_say_so(tmp_path: Path, storage: str, keep: float) -> None:
    with BagWriter(tmp_path / "bag", storage=storage) as bag:
        for index in range(40):
            bag.write_frame(make_frame(index))
    (file,) = [file for file in (tmp_path / "bag").iterdir() if file.suffix in (".mcap", ".db3")]
    os.truncate(file, int(file.stat().st_size * keep))

    def read() -> None:
        with BagReader(tmp_path / "bag") as reader:
            list(reader.frames())

    with pytest.raises(BagError, match=r"truncated or damaged: copy it again, or recover it"):
        read()


def open_bag(path: Path) -> None:
    with BagReader(path):
        pass


def test_what_is_no_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="got nothing of this name"):
        open_bag(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"expected metadata.yaml.*not a bag.*from-images"):
        open_bag(tmp_path / "empty")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BagError, match=r"got a file '.jpg'"):
        open_bag(tmp_path / "photo.jpg")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n" + bytes(100))
    with pytest.raises(BagError, match=r"got a ROS 1 bag; convert it with `rosbags-convert --src old.bag --dst old`"):
        open_bag(tmp_path / "old.bag")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "killed_0.mcap").write_bytes(b"")
    with pytest.raises(BagError, match=r"did not finish: .*ros2 bag reindex .*killed_0\.mcap"):
        open_bag(tmp_path / "killed")


@pytest.mark.skipif(not ROS1_BAG.is_file(), reason="needs ../shared/data")
def test_a_real_ros1_bag_is_recognised() -> None:
    with pytest.raises(BagError, match="got a ROS 1 bag"):
        open_bag(ROS1_BAG)


def test_a_bare_storage_file_opens(tmp_path: Path) -> None:
    for storage in STORAGES:
        with BagWriter(tmp_path / storage, storage=storage) as bag:
            bag.write_frame(make_frame(0))
        (file,) = [file for file in (tmp_path / storage).iterdir() if file.suffix in (".mcap", ".db3")]
        with BagReader(file) as reader:
            assert [item.frame.stamp_ns for item in reader.frames()] == [START_NS]


RAW, PACKED = IMAGE, "sensor_msgs/msg/CompressedImage"
REALSENSE = [
    Topic("/camera/camera/aligned_depth_to_color/camera_info", CAMERA_INFO, 9),
    Topic("/camera/camera/aligned_depth_to_color/image_raw", RAW, 9, "16UC1"),
    Topic("/camera/camera/color/camera_info", CAMERA_INFO, 9),
    Topic("/camera/camera/color/image_raw", RAW, 9, "rgb8"),
    Topic("/camera/camera/color/image_raw/compressed", PACKED, 9, "rgb8; jpeg compressed bgr8"),
    Topic("/camera/camera/depth/camera_info", CAMERA_INFO, 9),
    Topic("/camera/camera/depth/image_rect_raw", RAW, 9, "16UC1"),
    Topic("/camera/camera/infra1/image_rect_raw", RAW, 9, "mono8"),
]
AZURE = [
    Topic("/depth/camera_info", CAMERA_INFO, 9),
    Topic("/depth/image_raw", RAW, 9, "32FC1"),
    Topic("/depth_to_rgb/image_raw", RAW, 9, "32FC1"),
    Topic("/ir/image_raw", RAW, 9, "mono16"),
    Topic("/rgb/camera_info", CAMERA_INFO, 9),
    Topic("/rgb/image_raw", RAW, 9, "bgra8"),
]
COMPRESSED = [
    Topic("/cam/color/camera_info", CAMERA_INFO, 9),
    Topic("/cam/color/image_rect/compressed", PACKED, 9, "jpeg"),
    Topic("/cam/aligned_depth_to_color/image_raw/compressedDepth", PACKED, 9, "16UC1; compressedDepth png"),
]
TWO_CAMERAS = [
    Topic("/head/color/camera_info", CAMERA_INFO, 9),
    Topic("/head/color/image_raw", RAW, 9, "rgb8"),
    Topic("/wrist/color/camera_info", CAMERA_INFO, 9),
    Topic("/wrist/color/image_raw", RAW, 9, "rgb8"),
    Topic("/wrist/depth/image_raw", RAW, 9, "16UC1"),
]


@pytest.mark.parametrize(
    ("topics", "color", "depth", "info"),
    [
        (REALSENSE, REALSENSE[3], REALSENSE[1], REALSENSE[2]),
        (AZURE, AZURE[5], AZURE[2], AZURE[4]),
        (COMPRESSED, COMPRESSED[1], COMPRESSED[2], COMPRESSED[0]),
        (TWO_CAMERAS, TWO_CAMERAS[3], TWO_CAMERAS[4], TWO_CAMERAS[2]),
    ],
)
def test_topics_of_common_cameras_are_found(topics: list[Topic], color: Topic, depth: Topic, info: Topic) -> None:
    chosen = choose_topics(topics, TopicChoice())
    assert (chosen.color, chosen.depth, chosen.camera_info) == (color, depth, info)
    assert chosen.instances is None
    assert chosen.rectified == ("rect" in color.name)


def test_topics_can_be_named() -> None:
    chosen = choose_topics(REALSENSE, TopicChoice(depth="/camera/camera/depth/image_rect_raw"))
    assert chosen.depth == REALSENSE[6]
    with pytest.raises(
        BagError, match=r"/nope: expected a topic of sensor_msgs/msg/Image .* with messages, got the topics"
    ):
        choose_topics(REALSENSE, TopicChoice(color="/nope"))


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ([], "no colour topic: .* got no topics at all"),
        (
            [Topic("/scan", "sensor_msgs/msg/LaserScan", 3)],
            r"no colour topic: .*/scan \(sensor_msgs/msg/LaserScan, 3 messages\)",
        ),
        (
            [Topic("/rgb/image_raw", RAW, 9, "rgb8")],
            r"no depth: the bag has colour images \(/rgb/image_raw\).*from-images",
        ),
        ([Topic("/rgb/image_raw", RAW, 0)], "no colour topic"),
        ([AZURE[5], AZURE[2]], "no camera_info: expected a sensor_msgs/msg/CameraInfo for /rgb/image_raw"),
    ],
)
def test_missing_topics_are_named_with_what_the_bag_has(topics: list[Topic], message: str) -> None:
    with pytest.raises(BagError, match=message):
        choose_topics(topics, TopicChoice())
