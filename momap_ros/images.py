"""Image messages to arrays: the one place that knows encodings, row padding, byte order and depth units.

Works on anything with the fields of the sensor_msgs types, so the nodes (rclpy messages) and the bag reader (plain
dataclasses) decode with the same code. Depth leaves here as float32 metres with NaN for every missing reading
(REP 117, REP 118): 16-bit depth is millimetres with 0 = no reading, 32-bit depth is metres.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, PinholeCamera
from momap_ros.rgbd import FrameError, RGBDFrame, UInt8

# cv2 name of the conversion to RGB, number of channels.
_COLOR_ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("", 3),
    "bgr8": ("COLOR_BGR2RGB", 3),
    "rgba8": ("COLOR_RGBA2RGB", 4),
    "bgra8": ("COLOR_BGRA2RGB", 4),
    "mono8": ("COLOR_GRAY2RGB", 1),
}
_DEPTH_ENCODINGS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_LABEL_ENCODINGS = {"8UC1": "u1", "mono8": "u1", "16UC1": "u2", "mono16": "u2", "16SC1": "i2", "32SC1": "i4"}

# A distortion coefficient of this size moves a corner of a 60 degree image by one to two pixels.
_NOTABLE_DISTORTION = 0.01


class ConversionError(ValueError):
    """A message that cannot be decoded; the text names what was expected, what came, and what to do."""


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@runtime_checkable
class CompressedImageMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage."""

    header: Any
    format: str
    data: Any


class StampedMessage(Protocol):
    """Any message with a std_msgs/Header."""

    header: Any


class CameraInfoMessage(Protocol):
    """The fields of sensor_msgs/CameraInfo that are used."""

    header: Any
    height: int
    width: int
    distortion_model: str
    d: Any
    k: Any
    p: Any
    binning_x: int
    binning_y: int
    roi: Any


AnyImageMessage: TypeAlias = "ImageMessage | CompressedImageMessage"


def stamp_ns_of(message: StampedMessage) -> int:
    """Header stamp in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def rgb_from_image(message: AnyImageMessage) -> UInt8:
    """Decode a colour image message, raw (sensor_msgs/Image) or compressed (sensor_msgs/CompressedImage).

    Args:
        message: rgb8, bgr8, rgba8, bgra8 and mono8 are decoded here, other raw encodings by cv_bridge where it is
            installed; compressed messages by their JPEG or PNG content.

    Returns:
        (H, W, 3) uint8, sRGB, in memory of its own.

    Raises:
        ConversionError: unknown encoding, or data that contradicts the stated size.
    """
    import cv2

    if isinstance(message, CompressedImageMessage):
        # The stored orientation is the sensor's, as in the depth image: an EXIF tag must not turn one of the two.
        bgr = _imdecode(message, bytes(message.data), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    if message.encoding not in _COLOR_ENCODINGS:
        return np.asarray(_decode_with_cv_bridge(message, "rgb8", sorted(_COLOR_ENCODINGS)), np.uint8)
    conversion, channels = _COLOR_ENCODINGS[message.encoding]
    pixels = _pixels(message, "u1", channels)
    if not conversion:
        return np.array(pixels, np.uint8)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, conversion)), np.uint8)


def depth_m_from_image(message: AnyImageMessage) -> Float32:
    """Decode a depth image message, raw or compressed (PNG, or compressedDepth with its 12-byte header).

    Args:
        message: 16UC1 or mono16 in millimetres, or 32FC1 in metres.

    Returns:
        (H, W) float32, metres; NaN for zero, negative, infinite and NaN readings.

    Raises:
        ConversionError: unknown encoding, lossy compression, or data that contradicts the stated size.
    """
    if isinstance(message, CompressedImageMessage):
        return _depth_m_from_compressed(message)
    if message.encoding not in _DEPTH_ENCODINGS:
        return _metres_or_nan(_decode_with_cv_bridge(message, "passthrough", sorted(_DEPTH_ENCODINGS)))
    return _metres_or_nan(_pixels(message, _DEPTH_ENCODINGS[message.encoding], 1))


def labels_from_image(message: AnyImageMessage) -> npt.NDArray[np.int32]:
    """Decode a label image.

    Args:
        message: a raw image of one integer channel: 8UC1, mono8, 16UC1, mono16, 16SC1 or 32SC1.

    Returns:
        (H, W) int32; 0 = no instance.

    Raises:
        ConversionError: another encoding, or a negative label.
    """
    if isinstance(message, CompressedImageMessage) or message.encoding not in _LABEL_ENCODINGS:
        got = message.format if isinstance(message, CompressedImageMessage) else message.encoding
        raise ConversionError(
            f"label image {_origin(message)}: expected a raw image of an encoding in {sorted(_LABEL_ENCODINGS)}, got "
            f"{got!r}; publish instance ids as one integer channel, uncompressed"
        )
    labels = _pixels(message, _LABEL_ENCODINGS[message.encoding], 1).astype(np.int32)
    if labels.min() < 0:
        raise ConversionError(
            f"label image {_origin(message)}: expected labels >= 0, got {labels.min()}; use 0 for no instance"
        )
    return labels


def camera_from_info(info: CameraInfoMessage, *, rectified: bool = False) -> PinholeCamera:
    """The pinhole camera of a CameraInfo message, with its region of interest and binning applied.

    Args:
        info: anything with the fields of sensor_msgs/CameraInfo.
        rectified: True for images that were undistorted (image_rect*): their intrinsics are in P; raw images use K.

    Returns:
        Intrinsics of the image as published; distortion is not modelled, see `distortion_note`.

    Raises:
        ConversionError: the camera is not calibrated (zero matrix or size).
    """
    matrix, columns, name = (info.p, 4, "P") if rectified else (info.k, 3, "K")
    fx, cx, fy, cy = (float(matrix[index]) for index in (0, 2, columns + 1, columns + 2))
    if not (fx > 0 and fy > 0 and info.width > 0 and info.height > 0):
        raise ConversionError(
            f"camera_info of frame {info.header.frame_id!r}: expected positive focal lengths in {name} and a size, got "
            f"fx={fx}, fy={fy}, {info.width}x{info.height}; calibrate the camera or publish its nominal intrinsics"
        )
    camera = PinholeCamera(int(info.width), int(info.height), fx, fy, cx, cy)
    if info.roi.width and info.roi.height:
        camera = camera.cropped(info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height)
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    if binning_x > 1 or binning_y > 1:
        camera = camera.resized(camera.width // binning_x, camera.height // binning_y)
    return camera


def distortion_note(info: CameraInfoMessage) -> str:
    """A sentence for the user when a raw image's lens distortion is not negligible, else an empty string."""
    largest = max((abs(float(value)) for value in info.d), default=0.0)
    if largest < _NOTABLE_DISTORTION:
        return ""
    return (
        f"camera_info of frame {info.header.frame_id!r} states lens distortion ({info.distortion_model}, largest "
        f"coefficient {largest:.3g}); points near the image border are off: use the rectified colour topic and depth "
        "registered to it"
    )


def build_frame(
    rgb: UInt8,
    depth_m: Float32,
    camera: PinholeCamera,
    *,
    stamp_ns: int,
    frame_id: str,
    depth_frame_id: str | None = None,
) -> RGBDFrame:
    """Join colour, depth and camera, refusing what is not registered.

    Args:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, metres, NaN = no reading.
        camera: intrinsics; of another size only where the image is an exact scale of it.
        stamp_ns: of the colour image.
        frame_id: TF frame of the colour image.
        depth_frame_id: TF frame of the depth image; not compared where None.

    Raises:
        FrameError: other sizes, other frames, or no depth reading at all.
    """
    height, width = rgb.shape[:2]
    check_registered((width, height), depth_m.shape[::-1], camera, frame_id, depth_frame_id)
    if (camera.width, camera.height) != (width, height):
        camera = camera.resized(width, height)
    if np.isnan(depth_m).all():
        raise FrameError(
            f"depth: expected readings, got none in {width}x{height} pixels; check the sensor's range and "
            "exposure, and that it is not covered"
        )
    return RGBDFrame(rgb, depth_m, camera, stamp_ns, frame_id)


def check_registered(  # noqa: PLR0917  (the five facts that must agree)
    color_size: tuple[int, int],
    depth_size: tuple[int, int],
    camera: PinholeCamera,
    frame_id: str,
    depth_frame_id: str | None,
) -> None:
    """Refuse depth that is not registered to colour, as far as sizes and frames can tell.

    Args:
        color_size: (width, height) of the colour image.
        depth_size: (width, height) of the depth image.
        camera: intrinsics; the image may be an exact scale of theirs.
        frame_id: TF frame of the colour image.
        depth_frame_id: TF frame of the depth image; not compared where None.

    Raises:
        FrameError: one of them disagrees.
    """
    align = (
        "register depth to colour in the camera driver: RealSense align_depth.enable:=true and the topic "
        "aligned_depth_to_color/image_raw, Azure Kinect depth_to_rgb/image_raw, others depth_image_proc's register node"
    )
    size, (width, height) = "{}x{}".format(*color_size), color_size
    if depth_size != color_size:
        got = "{}x{}".format(*depth_size)
        raise FrameError(f"depth not registered: expected the colour image's size {size}, got {got}; {align}")
    if depth_frame_id is not None and depth_frame_id != frame_id:
        raise FrameError(
            f"depth not registered: expected the colour image's frame {frame_id!r}, got {depth_frame_id!r}; {align}"
        )
    if camera.width * height != camera.height * width:
        raise FrameError(
            f"camera_info: expected the image's size {size} or a scale of it, got {camera.width}x{camera.height}; "
            "use the camera_info that is published beside the colour image"
        )


def frame_from_messages(
    color: AnyImageMessage, depth: AnyImageMessage, info: CameraInfoMessage, *, rectified: bool = False
) -> RGBDFrame:
    """Decode the three messages of one RGB-D frame; the stamp and the frame are the colour image's.

    Raises:
        ConversionError: a message that cannot be decoded.
        FrameError: messages that do not belong together, or depth without a reading.
    """
    return build_frame(
        rgb_from_image(color),
        depth_m_from_image(depth),
        camera_from_info(info, rectified=rectified),
        stamp_ns=stamp_ns_of(color),
        frame_id=str(color.header.frame_id),
        depth_frame_id=str(depth.header.frame_id),
    )


def _origin(message: AnyImageMessage) -> str:
    return f"in frame {message.header.frame_id!r}"


def _pixels(message: ImageMessage, scalar: str, channels: int) -> npt.NDArray[Any]:
    """(H, W) or (H, W, channels) view of a raw image's data in the machine's terms, rows without their padding."""
    dtype = np.dtype(scalar).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = int(message.height), int(message.width), int(message.step)
    row_bytes = width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if height < 1 or width < 1 or step < row_bytes or data.size < step * height:
        raise ConversionError(
            f"image {_origin(message)}: expected {height} rows of at least {row_bytes} bytes ({width} pixels of "
            f"{message.encoding}), got step {step} and {data.size} bytes; the publisher fills step or data wrongly"
        )
    rows: npt.NDArray[Any] = data[: step * height].reshape(height, step)[:, :row_bytes].view(dtype)
    return rows if channels == 1 else rows.reshape(height, width, channels)


def _metres_or_nan(depth: npt.NDArray[Any]) -> Float32:
    """Float32 metres of integer millimetres or of metres, NaN where that is not a positive finite number."""
    metres: Float32 = depth.astype(np.float32)
    if depth.dtype.kind == "u":
        metres *= np.float32(0.001)
    metres[~((metres > 0) & np.isfinite(metres))] = np.nan
    return metres


def _decode_with_cv_bridge(message: ImageMessage, desired: str, expected: list[str]) -> npt.NDArray[Any]:
    """Encodings outside the fast path; the one place that needs cv_bridge."""
    refusal = f"image {_origin(message)}: expected an encoding of {expected}, got {message.encoding!r}"
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        raise ConversionError(
            f"{refusal}; set the camera driver to one of them, or install cv_bridge (ros-$ROS_DISTRO-cv-bridge)"
        ) from error
    try:
        decoded: npt.NDArray[Any] = CvBridge().imgmsg_to_cv2(message, desired_encoding=desired)
    except CvBridgeError as error:
        raise ConversionError(f"{refusal}; cv_bridge cannot convert it either: {error}") from error
    if desired == "passthrough" and (decoded.ndim != 2 or decoded.dtype.name not in ("uint16", "float32")):
        raise ConversionError(f"{refusal}, which has no known depth unit; remap the depth topic to the raw depth image")
    return decoded


def _imdecode(message: CompressedImageMessage, content: bytes, flags: int) -> npt.NDArray[Any]:
    import cv2

    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise ConversionError(
            f"compressed image {_origin(message)}: expected JPEG or PNG, got {len(content)} bytes of format "
            f"{message.format!r} that do not decode; the message is damaged or of another codec: use the raw topic"
        )
    return np.asarray(image)


def _depth_m_from_compressed(message: CompressedImageMessage) -> Float32:
    """16-bit PNG in millimetres, or compressedDepth, whose 32FC1 form stores quantised inverse depth."""
    import cv2

    content, form = bytes(message.data), message.format
    is_transport = "compressedDepth" in form
    if "rvl" in form.lower() or "jp" in form.lower():
        raise ConversionError(
            f"compressed depth {_origin(message)}: expected 16-bit PNG, got format {form!r}; record the raw depth "
            "topic, or compressedDepth with its format parameter set to png"
        )
    image = _imdecode(message, content[12:] if is_transport else content, cv2.IMREAD_UNCHANGED)
    if image.ndim != 2 or image.dtype != np.uint16:
        raise ConversionError(
            f"compressed depth {_origin(message)}: expected one 16-bit channel, got {image.dtype} {image.shape} in "
            f"format {form!r}; JPEG and 8-bit PNG lose depth: record the raw or the compressedDepth topic"
        )
    if not (is_transport and form.startswith("32FC1")):
        return _metres_or_nan(image)
    _, quantisation_a, quantisation_b = struct.unpack("<iff", content[:12])
    with np.errstate(divide="ignore"):
        metres = np.float32(quantisation_a) / (image.astype(np.float32) - np.float32(quantisation_b))
    metres[image == 0] = np.nan
    return _metres_or_nan(metres)
