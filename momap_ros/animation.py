"""Moving pictures of forecasts: the image's own pixels carried along their forecast trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from momap_ros.drawing import Canvas, time_colors
from momap_ros.files import atomic_path
from momap_ros.geometry import Float32, Float64, PinholeCamera, project, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion
from momap_ros.rgbd import RGBDFrame, UInt8
from momap_ros.splatting import nearest_weights, splat_points
from momap_ros.visualization import moving_objects

_MAX_WIDTH, _MIN_WIDTH = 960, 640
_TRACKS_PER_OBJECT = 6
_TAIL_STEPS = 14
_NEIGHBOURS = 8
# Pixels of an instance this far from its followed points near by show something else: a mask edge, a bad reading.
_STRAY_M = 0.05
_BACKGROUND_BRIGHTNESS, _GHOST_BRIGHTNESS = 0.80, 0.42
_HOLD_FIRST_S, _HOLD_LAST_S = 0.5, 1.0
_GIF_COLORS = 256
# MPEG-4 part 2: OpenCV's wheels have no fast encoder of a newer codec. Browsers want the .gif.
_CODEC = "mp4v"


def forecast_frames(
    frame: RGBDFrame,
    instances: InstanceMap,
    trajectories: PointTrajectories,
    objects: Sequence[ObjectMotion],
    *,
    hypothesis: int = 0,
    prompt: str = "",
) -> Iterator[UInt8]:
    """One picture per step: moving objects in full colour over the dimmed scene, where they were a darker ghost.

    Args:
        frame: the image the forecast starts from.
        instances: of the same size.
        trajectories: positions in the camera's optical frame.
        objects: their motions; objects that probably stay remain part of the scene.
        hypothesis: the future that is shown.
        prompt: sentence shown above.

    Yields:
        RGB pictures of equal size, at least 640 pixels wide.
    """
    size = video_size(frame.camera)
    frame, instances = frame.resized(*size), instances.resized(*size)
    carried = _Carried(frame, instances, trajectories, moving=moving_objects(objects), hypothesis=hypothesis)
    yield from carried_frames(frame, carried, step_s=trajectories.step_s, prompt=prompt)


def video_size(camera: PinholeCamera) -> tuple[int, int]:
    """(width, height) of moving pictures of a camera's image: its own, or a whole fraction that is not too large."""
    factor = -(-camera.width // _MAX_WIDTH)
    return camera.width // factor, camera.height // factor


class CarriedPixels(Protocol):
    """Pixels that leave their place.

    Attributes:
        mask: (H, W), True for these pixels.
        colors: (P, 3) theirs.
        tails: (tracks, T, 3) a few trajectories, metres, optical frame.
    """

    mask: npt.NDArray[np.bool_]
    colors: UInt8
    tails: npt.NDArray[np.floating]

    def points_at(self, step: int) -> Float64:
        """(P, 3) positions at a step, metres, optical frame; in the order of `colors`."""


def carried_frames(frame: RGBDFrame, carried: CarriedPixels, *, step_s: float, prompt: str) -> Iterator[UInt8]:
    """One picture per step: the carried pixels in full colour over the dimmed scene; see `forecast_frames`."""
    background = frame.rgb * np.float32(_BACKGROUND_BRIGHTNESS)
    background[carried.mask] = frame.rgb[carried.mask] * np.float32(_GHOST_BRIGHTNESS)
    depth_m = np.where(carried.mask, np.float32(np.nan), frame.depth_m)
    num_steps = carried.tails.shape[1]
    for step in range(num_steps):
        points = carried.points_at(step)
        # An object that comes closer needs larger squares to stay without gaps.
        growth = np.nanmedian(carried.points_at(0)[:, 2] / points[:, 2]) if len(points) else 1.0
        size = 2 if not growth > 1.25 else 3
        picture = splat_points(
            background.astype(np.uint8), depth_m, points, carried.colors, camera=frame.camera, size_px=size
        )
        canvas = Canvas(picture, min_width=_MIN_WIDTH)
        _draw_tails(canvas, frame, carried.tails, step)
        if prompt:
            canvas.text([f"“{prompt}”"], (10, 10), size=17)
        _draw_clock(canvas, f"+{step * step_s:.1f} s", step / max(num_steps - 1, 1), (num_steps - 1) * step_s)
        yield canvas.image


@dataclass(frozen=True, eq=False)
class _CarriedObject:
    """The pixels of one moving object, and where they go.

    They follow the object's rigid motion; what its followed points do beyond that is interpolated between them.

    Attributes:
        colors: (Q, 3) uint8.
        start: (Q, 3) where they are seen, metres.
        motion_t_from_0: (T, 4, 4) the rigid motion.
        deviation_m: (P, T, 3) of the followed points from it.
        index: (Q, K) followed points near each pixel.
        weight: (Q, K) their weights.
    """

    colors: UInt8
    start: Float32
    motion_t_from_0: Float64
    deviation_m: Float64
    index: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float64]

    def points_at(self, step: int) -> Float64:
        """(Q, 3) positions at a step, metres."""
        deviation = np.einsum("qk,qkc->qc", self.weight, self.deviation_m[self.index, step])
        return np.asarray(transform_points(self.motion_t_from_0[step], self.start) + deviation, np.float64)


class _Carried:
    """The pixels of all moving objects.

    Attributes:
        mask: (H, W), True for these pixels.
        colors: (P, 3) theirs.
        tails: (tracks, T, 3) a few trajectories of each object.
    """

    def __init__(
        self,
        frame: RGBDFrame,
        instances: InstanceMap,
        trajectories: PointTrajectories,
        *,
        moving: Sequence[ObjectMotion],
        hypothesis: int,
    ) -> None:
        positions = trajectories.positions[hypothesis]
        known = ~np.isnan(positions).any(axis=(1, 2))
        followed = {
            motion.instance_id: np.flatnonzero(known & (trajectories.object_ids == motion.instance_id))
            for motion in moving
        }
        self.mask: npt.NDArray[np.bool_] = np.zeros(instances.ids.shape, bool)
        self._objects: list[_CarriedObject] = []
        scale = frame.rgb.shape[1::-1] / np.array([trajectories.image_width, trajectories.image_height])
        tails = [np.zeros((0, trajectories.num_steps, 3), np.float32)]
        for motion in moving:
            own = followed[motion.instance_id]
            if not len(own):
                continue
            rows, columns = np.nonzero((instances.ids == motion.instance_id) & frame.valid)
            pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
            references = (trajectories.pixels[own] + 0.5) * scale - 0.5
            index, weight = nearest_weights(pixels, references, neighbours=_NEIGHBOURS)
            start = frame.points_in_camera[rows, columns]
            near = np.linalg.norm(start - np.einsum("qk,qkc->qc", weight, positions[own, 0][index]), axis=-1) < _STRAY_M
            self.mask[rows[near], columns[near]] = True
            deviation_m = positions[own] - transform_points(motion.motion_t_from_0, positions[own, :1])
            self._objects.append(
                _CarriedObject(
                    frame.rgb[rows[near], columns[near]],
                    start[near],
                    motion.motion_t_from_0,
                    deviation_m,
                    index[near],
                    weight[near],
                )
            )
            tails.append(positions[own[np.linspace(0, len(own) - 1, min(len(own), _TRACKS_PER_OBJECT)).astype(int)]])
        self.tails: npt.NDArray[np.floating] = np.concatenate(tails)

        self.colors: UInt8 = np.concatenate([np.zeros((0, 3), np.uint8), *(item.colors for item in self._objects)])

    def points_at(self, step: int) -> Float64:
        """(P, 3) positions of all pixels at a step, metres, optical frame; in the order of `colors`."""
        return np.concatenate([np.zeros((0, 3)), *(item.points_at(step) for item in self._objects)])


def _draw_tails(canvas: Canvas, frame: RGBDFrame, tails: npt.NDArray[np.floating], step: int) -> None:
    colors = time_colors(max(tails.shape[1] - 1, 1))
    uv = project(tails[:, : step + 1], frame.camera)
    for earlier in range(max(step - _TAIL_STEPS, 0), step):
        drawn = np.isfinite(uv[:, earlier : earlier + 2]).all(axis=(1, 2))
        color = int(colors[earlier][0]), int(colors[earlier][1]), int(colors[earlier][2])
        canvas.lines(uv[drawn, earlier], uv[drawn, earlier + 1], color, 2)


def _draw_clock(canvas: Canvas, now: str, share: float, seconds: float) -> None:
    """The scale of time with a marker at the present step."""
    width, size = 220.0, 15
    bottom = canvas.image.shape[0] - 10
    canvas.time_bar(["now", f"+{seconds:.1f} s"], (10, bottom), width=width, size=size, marker=share)
    canvas.text([now], (20 + width, bottom), size=17, anchor="left bottom")


def save_animation(path: Path, frames: Iterable[UInt8], *, frame_s: float) -> Path:
    """Write pictures as .mp4 (MPEG-4) or .gif, the first and the last one held a little longer.

    Args:
        path: ends in .mp4 or .gif; an .mp4 that this machine cannot encode becomes a .gif of the same name.
        frames: RGB pictures of equal size.
        frame_s: seconds each is shown.

    Returns:
        The file that was written.

    Raises:
        ValueError: another suffix, or no pictures.
    """
    pictures = list(frames)
    if path.suffix not in (".mp4", ".gif") or not pictures:
        raise ValueError(f"{path}: expected pictures and a name ending in .mp4 or .gif, got {len(pictures)} pictures")
    rate_hz = min(1.0 / frame_s, 25.0)
    first, last = (round(hold * rate_hz) for hold in (_HOLD_FIRST_S, _HOLD_LAST_S))
    pictures = [pictures[0]] * first + pictures + [pictures[-1]] * last
    if path.suffix == ".mp4" and _write_video(path, pictures, rate_hz):
        return path
    path = path.with_suffix(".gif")
    _write_gif(path, pictures, rate_hz)
    return path


class _NoEncoderError(Exception):
    """OpenCV wrote nothing."""


def _write_video(path: Path, pictures: Sequence[UInt8], rate_hz: float) -> bool:
    """Whether OpenCV on this machine could encode the video."""
    import cv2

    height, width = (length // 2 * 2 for length in pictures[0].shape[:2])  # encoders want even sizes
    with suppress(_NoEncoderError), atomic_path(path) as partial:
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*_CODEC), rate_hz, (width, height))
        for picture in pictures:
            writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
        writer.release()
        if not partial.is_file() or not partial.stat().st_size:
            raise _NoEncoderError
        return True
    return False


def _write_gif(path: Path, pictures: Sequence[UInt8], rate_hz: float) -> None:
    from PIL import Image

    # One palette for all frames: it makes the file smaller and keeps still areas from flickering.
    sample = np.concatenate([picture[::3, ::3] for picture in pictures[:: max(len(pictures) // 30, 1)]])
    palette = Image.fromarray(sample).quantize(_GIF_COLORS)
    images = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with atomic_path(path) as partial:
        images[0].save(
            partial, save_all=True, append_images=images[1:], duration=round(1000 / rate_hz), loop=0, optimize=False
        )
