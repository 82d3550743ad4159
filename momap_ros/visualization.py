"""Still pictures of instances and forecasts, laid over the camera's image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from momap_ros.drawing import INK, Canvas, Color, instance_color, time_colors
from momap_ros.geometry import Float64, project, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion
from momap_ros.report import direction_in_words
from momap_ros.rgbd import RGBDFrame, UInt8

# A probability above a half: more futures move the object than not.
MOVING_PROBABILITY = 0.5
# Shorter ways are not worth an arrow.
_MIN_TRAVEL_M = 0.015

_FILL_OPACITY, _TRACK_OPACITY, _ALTERNATIVES_OPACITY = 0.40, 0.75, 0.35
# More lines hide the image and each other.
_TRACKS_IN_TOTAL, _MIN_TRACKS_PER_OBJECT = 28, 7
_LABEL_SIZE, _CAPTION_SIZE = 18, 17
# Shorter tracks are dots: an arrow would claim a direction that the picture cannot show.
_MIN_ARROW_PX = 5.0


def overlay_instances(frame: RGBDFrame, instances: InstanceMap, *, min_width: int = 960) -> UInt8:
    """Instances as coloured areas with outlines and their ids.

    Args:
        frame: the image.
        instances: of the same size.
        min_width: the picture is enlarged by a whole number until it is so wide, pixels.

    Returns:
        RGB picture.
    """
    canvas = Canvas(frame.rgb, min_width=min_width)
    fill_instances(canvas, instances, opacity=_FILL_OPACITY)
    for instance_id in instances.areas_px:
        draw_outline(canvas, instances.ids == instance_id, instance_color(instance_id))
    for instance_id in instances.areas_px:
        name = instances.labels.get(instance_id, "")
        u, v, radius = innermost_pixel(instances.ids == instance_id)
        x, y = canvas.at(np.array([u, v], np.float64))
        label = f"{instance_id} {name}".strip()
        fits = radius * canvas.scale > 0.35 * _LABEL_SIZE * len(label)
        above = y - 0.7 * _LABEL_SIZE - radius * canvas.scale
        canvas.text(
            [label],
            (x, y if fits else above),
            size=_LABEL_SIZE,
            anchor="centre middle" if fits else "centre bottom",
            accent=instance_color(instance_id),
        )
    return canvas.image


def fill_instances(canvas: Canvas, instances: InstanceMap, *, opacity: float) -> None:
    """Lay every instance's colour over its pixels."""
    ids = np.repeat(np.repeat(instances.ids, canvas.scale, axis=0), canvas.scale, axis=1)
    fill = np.zeros_like(canvas.image)
    for instance_id in instances.areas_px:
        fill[ids == instance_id] = instance_color(instance_id)
    canvas.blend(fill, (ids > 0) * opacity)


def draw_outline(canvas: Canvas, mask: npt.NDArray[np.bool_], color: Color, thickness: int = 2) -> None:
    """The outline of an (H, W) mask with a dark rim; `thickness` is in pixels of the picture."""
    import cv2

    enlarged = np.repeat(np.repeat(mask.astype(np.uint8), canvas.scale, axis=0), canvas.scale, axis=1)
    outlines, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas.image, outlines, -1, INK, thickness + 3, cv2.LINE_AA)
    cv2.drawContours(canvas.image, outlines, -1, color, thickness, cv2.LINE_AA)


def innermost_pixel(mask: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """(u, v) of the pixel of a mask that is farthest from its outside, and that distance; all in pixels.

    Unlike the centroid it is always inside.
    """
    import cv2

    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    v, u = np.unravel_index(int(np.argmax(distance)), mask.shape)
    return int(u), int(v), float(distance.max())


def draw_trajectories(
    frame: RGBDFrame,
    trajectories: PointTrajectories,
    objects: Sequence[ObjectMotion],
    *,
    hypothesis: int = 0,
    prompt: str = "",
    min_width: int = 960,
) -> UInt8:
    """Forecast tracks over the image, coloured by time, with one arrow and one caption per moving object.

    Args:
        frame: the image the forecast starts from.
        trajectories: positions in the camera's optical frame.
        objects: their motions; objects that probably stay get no tracks.
        hypothesis: the future whose points are drawn; the centroids of all others are thin white lines.
        prompt: sentence below the legend's title.
        min_width: the picture is enlarged by a whole number until it is so wide, pixels.

    Returns:
        RGB picture.
    """
    canvas = Canvas(_calm(frame.rgb), min_width=min_width)
    plain = canvas.image.copy()
    moving = moving_objects(objects)
    for motion in moving:
        points = np.flatnonzero(trajectories.object_ids == motion.instance_id)
        _draw_alternatives(canvas, frame, trajectories.positions[:, points], hypothesis)
    canvas.blend(plain, 1.0 - _ALTERNATIVES_OPACITY)
    with_alternatives = canvas.image.copy()
    for motion in moving:
        points = np.flatnonzero(trajectories.object_ids == motion.instance_id)
        count = min(len(points), max(_TRACKS_IN_TOTAL // len(moving), _MIN_TRACKS_PER_OBJECT))
        chosen = points[((np.arange(count) + 0.5) * len(points) / max(count, 1)).astype(int)]
        draw_tracks(canvas, project(trajectories.positions[hypothesis, chosen], frame.camera), thickness=2, arrow=12.0)
    canvas.blend(with_alternatives, 1.0 - _TRACK_OPACITY)
    for motion in moving:
        path = project(transform_points(motion.motion_t_from_0, motion.centroid_m), frame.camera)
        draw_tracks(canvas, path[None], thickness=6, arrow=26.0)
    seconds = (trajectories.num_steps - 1) * trajectories.step_s
    title = f"“{prompt}”" if prompt else "forecast"
    bottom = canvas.image.shape[0] - 14
    canvas.text([title], (14, 14), size=22)
    canvas.time_bar(["now", f"+{seconds:.1f} s"], (14, bottom), width=260)
    legends = [(0, 0, 28 + 15 * len(title), 64), (0, bottom - 70, 290, bottom + 14)]
    _draw_captions(canvas, frame, moving, taken=legends)
    if not moving:
        canvas.text(["nothing moves"], (canvas.image.shape[1] / 2, 14), size=22, anchor="centre top")
    return canvas.image


def moving_objects(objects: Sequence[ObjectMotion]) -> list[ObjectMotion]:
    """The objects that move in most futures, and visibly in the one that is reported."""
    return [
        motion
        for motion in objects
        if motion.valid and motion.moving_probability >= MOVING_PROBABILITY and _travel_m(motion) >= _MIN_TRAVEL_M
    ]


def _travel_m(motion: ObjectMotion) -> float:
    """Largest distance of the centroid from its start, metres."""
    path = transform_points(motion.motion_t_from_0, motion.centroid_m)
    return float(np.linalg.norm(path - path[0], axis=-1).max())


def _calm(rgb: UInt8) -> UInt8:
    """The image darker and with less colour, so that drawn colours stand out."""
    grey = rgb.mean(axis=-1, keepdims=True)
    return np.asarray((0.42 * rgb + 0.24 * grey + 22).clip(0, 255), np.uint8)


def draw_tracks(canvas: Canvas, tracks: Float64, *, thickness: int, arrow: float) -> None:
    """(P, T, 2) tracks as smooth lines with a dark rim, later pieces over earlier ones; NaN positions leave gaps."""
    steps = tracks.shape[1]
    colors = time_colors(max(steps - 1, 1))
    known = _is_known(tracks)
    for rim in (True, False):
        for step in range(steps - 1):
            drawn = known[:, step] & known[:, step + 1]
            starts, ends = tracks[drawn, step], tracks[drawn, step + 1]
            if rim:
                canvas.lines(starts, ends, INK, thickness + 2)
            else:
                canvas.lines(starts, ends, _as_color(colors[step]), thickness)
    for track, is_known in zip(tracks, known, strict=True):
        visible = track[is_known]
        if len(visible) > 1 and np.linalg.norm(visible[-1] - visible[0]) >= _MIN_ARROW_PX:
            direction = visible[-1] - visible[max(len(visible) - 1 - max(steps // 6, 1), 0)]
            canvas.arrow_head(visible[-1], direction, INK, arrow * 1.35)
            canvas.arrow_head(visible[-1], direction, _as_color(colors[-1]), arrow)


def _draw_alternatives(canvas: Canvas, frame: RGBDFrame, positions: npt.NDArray[np.float32], hypothesis: int) -> None:
    """Where an object's centroid goes in the futures that are not drawn in full."""
    if not positions.shape[1]:
        return
    centroids = positions.mean(axis=1)
    for index, centroid in enumerate(centroids):
        if index != hypothesis:
            path = project(centroid, frame.camera)
            known = _is_known(path)
            drawn = known[:-1] & known[1:]
            canvas.lines(path[:-1][drawn], path[1:][drawn], (196, 200, 210), 1)


def _draw_captions(
    canvas: Canvas, frame: RGBDFrame, moving: Sequence[ObjectMotion], *, taken: list[tuple[int, int, int, int]]
) -> None:
    """Name, direction and distance of every object, beside its start and not over boxes that are `taken`."""
    for motion in moving:
        start, end = project(transform_points(motion.motion_t_from_0[[0, -1]], motion.centroid_m), frame.camera)
        if not np.isfinite(start).all():
            continue
        name = motion.label or f"object {motion.instance_id}"
        lines = [name, f"{direction_in_words(motion.direction_flags)}, {motion.displacement_m * 100:.0f} cm"]
        accent = instance_color(motion.instance_id)
        # First on the side that the motion does not use.
        goes_right = bool(np.isfinite(end).all() and end[0] > start[0])
        x, y = canvas.at(start)
        sides = ("right", "left") if goes_right else ("left", "right")
        places = [
            ((x + (-24 if side == "right" else 24), y + row * 30), f"{side} {'top' if row > 0 else 'bottom'}")
            for row in (1, -1, 2, 3, 4, -2, 5, -3)
            for side in sides
        ]
        boxes = [canvas.text_box(lines, xy, size=_CAPTION_SIZE, anchor=anchor, accent=accent) for xy, anchor in places]
        covered = [sum(_overlap_px(box, other) for other in taken) for box in boxes]
        best = int(np.argmin(covered))
        taken.append(boxes[best])
        canvas.text(lines, places[best][0], size=_CAPTION_SIZE, anchor=places[best][1], accent=accent)


def _overlap_px(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> int:
    """Area that two (left, top, right, bottom) boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def _is_known(uv: Float64) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(uv).all(axis=-1))


def _as_color(values: npt.NDArray[np.uint8]) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])
