"""Makes bags of image folders and videos: colour with depth, or colour alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from momap_ros.bag_messages import camera_info_message
from momap_ros.bag_types import CAMERA_INFO, BagError
from momap_ros.bag_write import CAMERA_INFO_TOPIC, BagWriter
from momap_ros.geometry import Float32, PinholeCamera
from momap_ros.images import build_frame
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import FrameError, UInt8
from momap_ros.video import VIDEO_SUFFIXES, VideoError, VideoReader

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FRAME_ID = "camera_color_optical_frame"
DEFAULT_RATE_HZ = 5.0

_COLOR_NAMES, _DEPTH_NAMES, _LABEL_NAMES = ("color", "colour", "rgb"), ("depth",), ("label", "labels")
# The first stamp where the images have none: nodes refuse stamp 0, which drivers send when they do not know the time.
_FIRST_STAMP_NS = 1_000_000_000
_SECONDS_OF_1973, _NANOSECONDS_OF_1973 = 1e8, 1e17


@dataclass(frozen=True)
class CameraFile:
    """Content of a camera.json.

    Attributes:
        camera: intrinsics, or None where the file has none.
        depth_unit_m: metres of one step of a 16-bit depth image.
        stamps_s: one stamp per image, or empty.
        instruction: sentence that belongs to the images, or empty.
    """

    camera: PinholeCamera | None = None
    depth_unit_m: float = 0.001
    stamps_s: tuple[float, ...] = ()
    instruction: str = ""


@dataclass(frozen=True)
class ImageFiles:
    """What was found in a folder: depth and labels are as many as colour, or none.

    Attributes:
        color: colour images, or one video.
        depth: 16-bit depth images.
        labels: label images, 0 = no instance.
    """

    color: tuple[Path, ...]
    depth: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ImportResult:
    """What became of the images.

    Attributes:
        written: frames in the bag.
        has_depth: whether these have depth.
        skipped: reason -> number of frames left out.
    """

    written: int
    has_depth: bool
    skipped: Counter[str]


def read_camera_file(path: Path) -> CameraFile:
    """Read width, height, fx, fy, cx, cy (pixels) and, where given, depth_unit_m, stamps_s and instruction.

    Raises:
        BagError: not JSON, or intrinsics that are incomplete.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = ("width", "height", "fx", "fy", "cx", "cy")
        given = [name for name in names if name in content]
        if given and len(given) < len(names):
            missing = sorted(set(names) - set(given))
            raise BagError(f"{path}: expected {', '.join(names)}, got no {', '.join(missing)}; add them")
        camera = None
        if given:
            size = (int(content["width"]), int(content["height"]))
            camera = PinholeCamera(*size, *(float(content[name]) for name in names[2:]))
        return CameraFile(
            camera,
            float(content.get("depth_unit_m", CameraFile.depth_unit_m)),
            tuple(float(stamp) for stamp in content.get("stamps_s", ())),
            str(content.get("instruction", "")),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise BagError(
            f"{path}: expected a JSON object with the camera's numbers, could not read it: {error}"
        ) from error


def find_images(source: Path) -> ImageFiles:
    """The images of a video, of subfolders (color/, depth/), by suffixes (0_color.jpg, 0_depth.png), or all there are.

    Raises:
        BagError: nothing usable, or colour and depth images that do not match by name.
    """
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        return ImageFiles((source,))
    if not source.is_dir():
        raise BagError(f"{source}: expected a folder of images or a video {VIDEO_SUFFIXES}, got neither")
    by_kind = {
        kind: _images_of_kind(source, names)
        for kind, names in (("color", _COLOR_NAMES), ("depth", _DEPTH_NAMES), ("label", _LABEL_NAMES))
    }
    color = by_kind["color"]
    if not color:
        plain = _listed(source)
        if not plain or by_kind["depth"]:
            raise BagError(
                f"{source}: expected colour images {IMAGE_SUFFIXES} in color/ or named *_color.*, got none; put depth "
                "images of the same names in depth/ or name them *_depth.png"
            )
        return ImageFiles(tuple(plain))
    return ImageFiles(
        tuple(color.values()), _matching(color, by_kind["depth"], "depth"), _matching(color, by_kind["label"], "label")
    )


def import_images(
    files: ImageFiles,
    description: CameraFile,
    out: Path,
    *,
    storage: str = "mcap",
    rate_hz: float | None = None,
    on_image: Callable[[], object] = lambda: None,
) -> ImportResult:
    """Write the images as a bag.

    Args:
        files: what to write.
        description: intrinsics (needed with depth), depth unit, stamps and the prompt.
        out: the bag.
        storage: mcap or sqlite3.
        rate_hz: frames per second where there are no stamps; the video's own, else 5, where None.
        on_image: called before every image, to show progress.

    Raises:
        BagError: no intrinsics for depth, unreadable images, or not one usable frame.
    """
    if files.depth and description.camera is None:
        raise BagError(
            "intrinsics: expected the colour camera's with depth images, got none; put a camera.json beside the "
            "images, give --camera FILE, or --fx --fy --cx --cy in pixels"
        )
    result = ImportResult(0, bool(files.depth), Counter())
    with BagWriter(out, storage=storage) as bag:
        for index, (stamp_ns, rgb) in enumerate(_color_images(files.color, description.stamps_s, rate_hz)):
            on_image()
            if index == 0 and description.instruction:
                bag.write_prompt(description.instruction, stamp_ns)
            try:
                _write(bag, files, index, rgb, stamp_ns, description)
            except FrameError as error:
                result.skipped[str(error)] += 1
                continue
            result = replace(result, written=result.written + 1)
        if not result.written:
            reasons = "; ".join(f"{count}x {reason}" for reason, count in result.skipped.most_common())
            raise BagError(f"{files.color[0].parent}: expected usable frames, got none: {reasons or 'no images'}")
    return result


def _write(  # noqa: PLR0917  (one frame and where it goes)
    bag: BagWriter, files: ImageFiles, index: int, rgb: UInt8, stamp_ns: int, description: CameraFile
) -> None:
    if files.depth and description.camera is not None:
        depth_m = _read_depth_m(files.depth[index], description.depth_unit_m)
        frame = build_frame(rgb, depth_m, description.camera, stamp_ns=stamp_ns, frame_id=FRAME_ID)
        bag.write_frame(frame, millimetres=description.depth_unit_m == CameraFile.depth_unit_m)
    else:
        if description.camera is not None:
            info = camera_info_message(description.camera, stamp_ns, FRAME_ID)
            bag.write(CAMERA_INFO_TOPIC, CAMERA_INFO, info, stamp_ns)
        bag.write_color(rgb, stamp_ns, FRAME_ID)
    if files.labels:
        bag.write_instances(_read_labels(files.labels[index]), stamp_ns, FRAME_ID)


def _listed(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _images_of_kind(source: Path, names: Sequence[str]) -> dict[str, Path]:
    """Name without the kind -> file, sorted by name."""
    for name in names:
        if (source / name).is_dir():
            return {file.stem: file for file in _listed(source / name)}
    found = {}
    for file in _listed(source):
        for name in names:
            if file.stem.endswith(f"_{name}"):
                found[file.stem.removesuffix(f"_{name}")] = file
            elif file.stem.startswith(f"{name}_"):
                found[file.stem.removeprefix(f"{name}_")] = file
    return found


def _matching(color: dict[str, Path], others: dict[str, Path], kind: str) -> tuple[Path, ...]:
    if not others:
        return ()
    missing = [file.name for key, file in color.items() if key not in others]
    if missing:
        raise BagError(
            f"{kind} images: expected one for every colour image, got none for {len(missing)} of {len(color)} "
            f"({', '.join(missing[:3])}); give both the same names, or move the others away"
        )
    return tuple(others[key] for key in color)


def _color_images(
    files: tuple[Path, ...], stamps_s: tuple[float, ...], rate_hz: float | None
) -> Iterator[tuple[int, UInt8]]:
    """(stamp in nanoseconds, (H, W, 3) RGB) of image files or of one video."""
    import cv2

    if files[0].suffix.lower() in VIDEO_SUFFIXES:
        yield from _video_images(files[0], rate_hz)
        return
    for file, stamp_ns in zip(files, _stamps_ns(files, stamps_s, rate_hz), strict=True):
        bgr = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None:
            raise BagError(f"{file}: expected an image, could not decode it; the file is damaged: remove or replace it")
        yield stamp_ns, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _video_images(path: Path, rate_hz: float | None) -> Iterator[tuple[int, UInt8]]:
    try:
        with VideoReader(path) as video:
            rate = rate_hz or video.rate_hz or DEFAULT_RATE_HZ
            for index, rgb in enumerate(video):
                yield _FIRST_STAMP_NS + round(index * 1e9 / rate), rgb
    except VideoError as error:
        raise BagError(f"{path}: {error}") from error


def _stamps_ns(files: tuple[Path, ...], stamps_s: tuple[float, ...], rate_hz: float | None) -> list[int]:
    """Stamps from the description, else at a wished rate, else from names that are times, else at the default rate."""
    if stamps_s and len(stamps_s) != len(files):
        raise BagError(
            f"stamps_s: expected one for each of {len(files)} images, got {len(stamps_s)}; correct camera.json"
        )
    if stamps_s:
        return [round(stamp * 1e9) for stamp in stamps_s]
    numbers = [file.stem for file in files if file.stem.replace(".", "", 1).isdigit()]
    if rate_hz is None and len(numbers) == len(files):
        times = [float(number) for number in numbers]
        if min(times) > _NANOSECONDS_OF_1973:
            return [int(number) for number in numbers]
        if min(times) > _SECONDS_OF_1973:
            return [round(time * 1e9) for time in times]
    return [_FIRST_STAMP_NS + round(index * 1e9 / (rate_hz or DEFAULT_RATE_HZ)) for index in range(len(files))]


def _read_depth_m(file: Path, unit_m: float) -> Float32:
    import cv2

    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        got = "something unreadable" if image is None else f"{image.dtype} {image.shape}"
        raise BagError(f"{file}: expected 16-bit depth of one channel, got {got}; save depth as 16-bit PNG, 0 = none")
    depth_m: Float32 = image.astype(np.float32) * np.float32(unit_m)
    depth_m[image == 0] = np.nan
    return depth_m


def _read_labels(file: Path) -> InstanceMap:
    import cv2

    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype.kind != "u":
        got = "something unreadable" if image is None else f"{image.dtype} {image.shape}"
        raise BagError(f"{file}: expected labels of one integer channel, got {got}; save them as 8 or 16-bit PNG")
    return InstanceMap(image.astype(np.int32))


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) of an image file or of a video's first frame."""
    _, rgb = next(_color_images((file,), (), None))
    return rgb.shape[1], rgb.shape[0]
