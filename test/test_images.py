"""Decoding of image messages: expected values are written down from the encodings' definitions."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from rosbags.typesys import Stores, get_typestore

from momap_ros.geometry import PinholeCamera, unproject_depth
from momap_ros.images import (
    CameraInfoMessage,
    ConversionError,
    ImageMessage,
    build_frame,
    camera_from_info,
    depth_m_from_image,
    distortion_note,
    frame_from_messages,
    labels_from_image,
    rgb_from_image,
    stamp_ns_of,
)
from momap_ros.rgbd import FrameError

TYPES: Any = get_typestore(Stores.ROS2_JAZZY).types
Header, Time = TYPES["std_msgs/msg/Header"], TYPES["builtin_interfaces/msg/Time"]
Image, CompressedImage = TYPES["sensor_msgs/msg/Image"], TYPES["sensor_msgs/msg/CompressedImage"]
CameraInfo, Roi = TYPES["sensor_msgs/msg/CameraInfo"], TYPES["sensor_msgs/msg/RegionOfInterest"]

# Two rows of three pixels, all channels different.
RGB = np.arange(1, 19, dtype=np.uint8).reshape(2, 3, 3)
DEPTH_MM = np.array([[0, 1, 1234], [500, 65535, 2000]], np.uint16)


def header(frame_id: str = "camera") -> object:
    return Header(stamp=Time(sec=1_700_000_000, nanosec=7), frame_id=frame_id)


def image(pixels: npt.NDArray[Any], encoding: str, *, padding: int = 0, is_bigendian: bool = False) -> ImageMessage:
    """The message of an array, each row followed by `padding` bytes that belong to no pixel."""
    rows = (
        np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if is_bigendian else "<")))
        .view(np.uint8)
        .reshape(len(pixels), -1)
    )
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    message: ImageMessage = Image(
        header=header(),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(is_bigendian),
        step=padded.shape[1],
        data=padded.reshape(-1),
    )
    return message


def camera_info(**changes: object) -> CameraInfoMessage:
    info: CameraInfoMessage = CameraInfo(
        header=header(),
        height=480,
        width=640,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([600.0, 0, 320, 0, 610, 240, 0, 0, 1]),
        r=np.eye(3).reshape(-1),
        p=np.array([580.0, 0, 315, 0, 0, 590, 235, 0, 0, 0, 1, 0]),
        binning_x=0,
        binning_y=0,
        roi=Roi(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )
    for name, value in changes.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, np.full((2, 3, 1), 77, np.uint8)], axis=2)),
        ("bgra8", np.concatenate([RGB[..., ::-1], np.full((2, 3, 1), 77, np.uint8)], axis=2)),
    ],
)
def test_colour_encodings_give_the_same_rgb(encoding: str, pixels: npt.NDArray[np.uint8], padding: int) -> None:
    decoded = rgb_from_image(image(pixels, encoding, padding=padding))
    np.testing.assert_array_equal(decoded, RGB)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous


def test_mono8_fills_three_equal_channels() -> None:
    decoded = rgb_from_image(image(RGB[..., 0], "mono8", padding=1))
    np.testing.assert_array_equal(decoded, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 3])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_millimetres_become_metres_and_zero_becomes_nan(encoding: str, padding: int, *, is_bigendian: bool) -> None:
    decoded = depth_m_from_image(image(DEPTH_MM, encoding, padding=padding, is_bigendian=is_bigendian))
    expected = np.array([[np.nan, 0.001, 1.234], [0.5, 65.535, 2.0]])
    np.testing.assert_allclose(decoded, expected, rtol=1e-6)
    assert decoded.dtype == np.float32


@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 3, 4])
def test_float_metres_keep_their_bits_and_lose_what_is_no_distance(padding: int, *, is_bigendian: bool) -> None:
    metres = np.array([[1.5, np.nan, np.inf], [-np.inf, 0.0, -1.0]], np.float32)
    decoded = depth_m_from_image(image(metres, "32FC1", padding=padding, is_bigendian=is_bigendian))
    np.testing.assert_array_equal(decoded, np.array([[1.5, np.nan, np.nan], [np.nan] * 3], np.float32))


def test_16uc1_and_32fc1_give_the_same_points() -> None:
    camera = PinholeCamera(3, 2, 2.0, 2.5, 1.0, 0.5)
    metres = DEPTH_MM.astype(np.float64) / 1000
    points_16 = unproject_depth(depth_m_from_image(image(DEPTH_MM, "16UC1")), camera)
    points_32 = unproject_depth(depth_m_from_image(image(metres.astype(np.float32), "32FC1")), camera)
    np.testing.assert_array_equal(np.isnan(points_16), np.isnan(points_32))
    np.testing.assert_allclose(points_16, points_32, rtol=2.5e-7)  # two roundings of float32


@pytest.mark.parametrize(
    ("encoding", "dtype"),
    [("8UC1", "u1"), ("mono8", "u1"), ("16UC1", "u2"), ("mono16", "u2"), ("16SC1", "i2"), ("32SC1", "i4")],
)
def test_labels_of_every_integer_encoding(encoding: str, dtype: str) -> None:
    labels = np.array([[0, 1, 2], [100, 3, 0]])
    decoded = labels_from_image(image(labels.astype(dtype), encoding, padding=2, is_bigendian=True))
    np.testing.assert_array_equal(decoded, labels)
    assert decoded.dtype == np.int32


def test_labels_refuse_negative_values_and_other_encodings() -> None:
    with pytest.raises(ConversionError, match="expected labels >= 0, got -4"):
        labels_from_image(image(np.array([[0, -4]], np.int32), "32SC1"))
    with pytest.raises(ConversionError, match=r"frame 'camera'.*got 'rgb8'"):
        labels_from_image(image(RGB, "rgb8"))


@pytest.mark.parametrize(("decode", "encoding"), [(rgb_from_image, "yuv422_yuy2"), (depth_m_from_image, "64FC1")])
@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="cv_bridge is installed and takes over")
def test_unknown_encoding_names_itself_the_frame_and_the_way_out(
    decode: Callable[[ImageMessage], object], encoding: str
) -> None:
    with pytest.raises(ConversionError, match=f"frame 'camera'.*got '{encoding}'.*install cv_bridge"):
        decode(image(np.zeros((2, 4), np.uint8), encoding))


@pytest.mark.parametrize(
    "change", [{"step": 8}, {"height": 3}, {"width": 4}, {"data": np.zeros(17, np.uint8)}, {"width": 0}]
)
def test_data_that_contradicts_the_size_is_refused(change: dict[str, Any]) -> None:
    message = image(RGB, "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ConversionError, match=r"expected \d rows of at least"):
        rgb_from_image(message)


def test_png_colour_is_lossless_and_jpeg_close() -> None:
    rows, columns = np.mgrid[0:48, 0:64]
    rgb = np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=-1).astype(np.uint8)
    for suffix, tolerance in ((".png", 0), (".jpg", 6)):
        content = cv2.imencode(suffix, rgb[..., ::-1])[1].reshape(-1)
        message = CompressedImage(header=header(), format=f"rgb8; {suffix[1:]} compressed bgr8", data=content)
        assert np.abs(rgb_from_image(message).astype(int) - rgb).mean() <= tolerance


def test_compressed_depth_of_millimetres() -> None:
    png = cv2.imencode(".png", DEPTH_MM)[1].tobytes()
    expected = depth_m_from_image(image(DEPTH_MM, "16UC1"))
    with_header = struct.pack("<iff", 0, 0.0, 0.0) + png
    for form, content in (
        ("16UC1; compressedDepth png", with_header),
        ("16UC1; compressedDepth", with_header),
        ("16UC1; png compressed ", png),
    ):
        message = CompressedImage(header=header(), format=form, data=np.frombuffer(content, np.uint8))
        np.testing.assert_array_equal(depth_m_from_image(message), expected)


def test_compressed_depth_of_metres_inverts_its_quantisation() -> None:
    # The transport stores round(a / depth + b) with a = z0 (z0 + 1), b = 1 - a / depth_max.
    quantisation_a, depth_max = 100.0 * 101.0, 10.0
    quantisation_b = 1.0 - quantisation_a / depth_max
    metres = np.array([[0.4, 1.0, 2.5], [np.nan, 5.0, 9.5]])
    stored = np.nan_to_num(np.round(quantisation_a / metres + quantisation_b)).astype(np.uint16)
    content = struct.pack("<iff", 0, quantisation_a, quantisation_b) + cv2.imencode(".png", stored)[1].tobytes()
    message = CompressedImage(
        header=header(), format="32FC1; compressedDepth png", data=np.frombuffer(content, np.uint8)
    )
    # Half a step of a / depth is half of depth^2 / a in depth.
    np.testing.assert_allclose(depth_m_from_image(message), metres, atol=0.55 * 9.5**2 / quantisation_a)


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("16UC1; compressedDepth rvl", b"0" * 40, "expected 16-bit PNG"),
        ("16UC1; jpeg compressed", b"0" * 40, "expected 16-bit PNG"),
        ("16UC1; compressedDepth png", b"0" * 40, "do not decode"),
        ("16UC1; compressedDepth png", b"", "do not decode"),
        ("png", cv2.imencode(".png", RGB)[1].tobytes(), "expected one 16-bit channel"),
    ],
)
def test_compressed_depth_that_is_lost_is_refused(form: str, content: bytes, message: str) -> None:
    compressed = CompressedImage(header=header(), format=form, data=np.frombuffer(content, np.uint8))
    with pytest.raises(ConversionError, match=message):
        depth_m_from_image(compressed)


def test_camera_takes_k_for_raw_and_p_for_rectified() -> None:
    assert camera_from_info(camera_info()) == PinholeCamera(640, 480, 600, 610, 320, 240)
    assert camera_from_info(camera_info(), rectified=True) == PinholeCamera(640, 480, 580, 590, 315, 235)


def test_camera_follows_region_of_interest_and_binning() -> None:
    roi = Roi(x_offset=100, y_offset=40, height=200, width=400, do_rectify=False)
    cropped = camera_from_info(camera_info(roi=roi))
    assert cropped == PinholeCamera(400, 200, 600, 610, 220, 200)
    # A binned pixel covers two: its centre lies between theirs, at (2 u + 0.5).
    binned = camera_from_info(camera_info(roi=roi, binning_x=2, binning_y=2))
    assert binned == PinholeCamera(200, 100, 300, 305, (220 + 0.5) / 2 - 0.5, (200 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("change", "rectified"), [({"k": np.zeros(9)}, False), ({"p": np.zeros(12)}, True), ({"width": 0}, False)]
)
def test_uncalibrated_camera_is_refused(change: dict[str, Any], *, rectified: bool) -> None:
    with pytest.raises(ConversionError, match=r"frame 'camera'.*calibrate the camera"):
        camera_from_info(camera_info(**change), rectified=rectified)


def test_distortion_is_mentioned_only_when_it_matters() -> None:
    assert distortion_note(camera_info()) == ""
    assert distortion_note(camera_info(d=np.array([]))) == ""
    assert "plumb_bob, largest coefficient 0.21" in distortion_note(camera_info(d=np.array([0.1, -0.21])))


def test_frame_of_three_messages() -> None:
    depth = np.full((48, 64), 1500, np.uint16)
    frame = frame_from_messages(image(np.zeros((48, 64, 3), np.uint8), "bgr8"), image(depth, "16UC1"), camera_info())
    assert (frame.stamp_ns, frame.frame_id) == (1_700_000_000_000_000_007, "camera")
    assert stamp_ns_of(camera_info()) == frame.stamp_ns
    # camera_info is of an image ten times as large: the viewing ray of its corner must not change.
    assert frame.camera == PinholeCamera(640, 480, 600, 610, 320, 240).resized(64, 48)


RGB_64, DEPTH_64 = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32)
CAMERA_64 = PinholeCamera(64, 48, 60.0, 60.0, 32.0, 24.0)


@pytest.mark.parametrize(
    ("depth", "camera", "depth_frame", "message"),
    [
        (np.ones((40, 64), np.float32), CAMERA_64, None, r"size 64x48, got 64x40.*align_depth.*aligned_depth_to_color"),
        (DEPTH_64, CAMERA_64, "depth_optical", r"frame 'color_optical', got 'depth_optical'.*align_depth"),
        (
            DEPTH_64,
            PinholeCamera(640, 360, 60.0, 60.0, 32.0, 24.0),
            None,
            r"camera_info: expected .*64x48.*got 640x360",
        ),
        (np.full((48, 64), np.nan, np.float32), CAMERA_64, None, "depth: expected readings, got none in 64x48"),
    ],
)
def test_what_is_not_registered_is_refused(
    depth: npt.NDArray[np.float32], camera: PinholeCamera, depth_frame: str | None, message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        build_frame(RGB_64, depth, camera, stamp_ns=5, frame_id="color_optical", depth_frame_id=depth_frame)


@pytest.mark.ros
def test_messages_of_rclpy_decode_like_plain_dataclasses() -> None:
    sensor_msgs = pytest.importorskip("sensor_msgs.msg", reason="needs ROS")
    plain = image(DEPTH_MM, "16UC1", padding=3)
    message = sensor_msgs.Image(height=2, width=3, encoding="16UC1", step=plain.step)
    message.data.frombytes(plain.data.tobytes())
    np.testing.assert_array_equal(depth_m_from_image(message), depth_m_from_image(plain))
    png = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    compressed = sensor_msgs.CompressedImage(format="png")
    compressed.data.frombytes(png)
    np.testing.assert_array_equal(rgb_from_image(compressed), RGB)
    info = sensor_msgs.CameraInfo(width=640, height=480, k=[600.0, 0.0, 320.0, 0.0, 610.0, 240.0, 0.0, 0.0, 1.0])
    assert camera_from_info(info) == camera_from_info(camera_info())
