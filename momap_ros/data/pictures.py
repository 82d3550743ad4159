"""Pictures of stored samples: contact sheets of images with their true motion, of depth and instances, and videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momap_ros.animation import carried_frames, video_size
from momap_ros.data.sample import Role, Sample, SampleError
from momap_ros.data.statistics import BodyMotion, body_motions, carried_points
from momap_ros.drawing import INK, WHITE, Canvas, Color, instance_color
from momap_ros.geometry import Float64, project, unproject_depth
from momap_ros.momap import direction_flags
from momap_ros.report import direction_in_words
from momap_ros.rgbd import RGBDFrame, UInt8, resize_nearest
from momap_ros.visualization import draw_outline, draw_tracks, fill_instances, innermost_pixel

# None of them is a colour of time.
ROLE_COLORS: dict[Role, Color] = {
    Role.ACTED: (60, 235, 120),
    Role.ROBOT: (176, 186, 200),
    Role.OBJECT: WHITE,
    Role.FIXTURE: (206, 178, 140),
}
_ROLE_WORDS = {
    Role.ACTED: "acted on",
    Role.ROBOT: "robot",
    Role.OBJECT: "object",
    Role.FIXTURE: "fixture",
}
# A turning knob moves less than what statistics call moving.
_MOVES_M = 0.005
_DIRECTION_M = 0.02
_TRACKS_PER_ROLE, _TAILS_PER_BODY = 7, 2
_NO_DEPTH: Color = (160, 40, 40)
_GAP = 10
_TEXT_LINES = 4


@dataclass(frozen=True, eq=False)
class Tile:
    """One sample on a sheet.

    Attributes:
        picture: (h, w, 3) of any size; shrunk to the sheet's tiles.
        heading: one line, cut where it is too long.
        words: at most two lines.
        facts: one line.
    """

    picture: UInt8
    heading: str
    words: str
    facts: str


def has_motion(sample: Sample) -> bool:
    """Whether the true motion of its pixels can be drawn."""
    return not {"camera", "depth", "motion"} & set(sample.lacks)


def moves(sample: Sample) -> bool:
    """Whether anything that is seen moves, as far as the sample says."""
    return has_motion(sample) and any(motion.moving_px for motion in body_motions(sample, moving_threshold_m=_MOVES_M))


def motion_tile(sample: Sample, *, width: int) -> Tile:
    """The image with outlines by role and true trajectories by time; a recording without motion stays as it is.

    Args:
        sample: what is drawn.
        width: of the tile on the sheet; the picture is at least twice as wide, pixels.
    """
    canvas = Canvas(sample.rgb, min_width=2 * width)
    stroke = canvas.image.shape[1] / (2.4 * width)  # lines are equally thick on the sheet, whatever the image's size
    if "instances" not in sample.lacks:
        _draw_roles(canvas, sample, stroke)
    if not has_motion(sample):
        lacking = ", ".join(sample.lacks)
        return Tile(canvas.image, _heading(sample), _quoted(sample), f"{sample.source}: no {lacking}")
    motions = list(body_motions(sample, moving_threshold_m=_MOVES_M))
    for tracks in _tracks_by_role(sample, motions):
        draw_tracks(canvas, project(tracks, sample.camera), thickness=max(round(3 * stroke), 1), arrow=15.0 * stroke)
    return Tile(canvas.image, _heading(sample), _quoted(sample), _facts(sample, motions))


def depth_tile(sample: Sample, *, width: int, depth_range_m: tuple[float, float]) -> Tile:
    """Depth above instances with their ids.

    Args:
        sample: what is drawn.
        width: of the tile on the sheet, pixels.
        depth_range_m: nearest and farthest depth told apart by colour, see `depth_colors`.
    """
    grey = np.repeat(sample.rgb.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    colors = depth_colors(sample.depth_m, depth_range_m)
    depth, canvas = Canvas(colors, min_width=2 * width), Canvas(grey, min_width=2 * width)
    instances = sample.instance_map(merge_robot=True)
    fill_instances(canvas, instances, opacity=0.6)
    size = round(canvas.image.shape[1] / 26)
    for instance_id in instances.areas_px:
        draw_outline(canvas, instances.ids == instance_id, instance_color(instance_id))
    for instance_id in instances.areas_px:
        u, v, radius = innermost_pixel(instances.ids == instance_id)
        x, y = canvas.at(np.array([u, v], np.float64))
        fits = radius * canvas.scale > 1.5 * size
        above = y - radius * canvas.scale - 0.4 * size
        anchor = "centre middle" if fits else "centre bottom"
        canvas.text([str(instance_id)], (x, y if fits else above), size=size, anchor=anchor)
    names = ", ".join(f"{instance_id} {instances.labels.get(instance_id, '')}" for instance_id in instances.areas_px)
    measured = sample.depth_m[np.isfinite(sample.depth_m)]
    spread = f"{measured.min():.2f} to {measured.max():.2f} m" if measured.size else "no depth"
    return Tile(np.concatenate([depth.image, canvas.image]), _heading(sample), names or "no instances", spread)


def depth_colors(depth_m: npt.NDArray[np.floating], depth_range_m: tuple[float, float]) -> UInt8:
    """(..., 3) colours of depths, bright near and dark far in equal ratios, one colour of its own for NaN."""
    import matplotlib as mpl

    near, far = np.log(depth_range_m)
    share = (np.log(depth_m) - near) / max(far - near, 1e-9)
    mapped = mpl.colormaps["viridis_r"](np.nan_to_num(share).clip(0, 1), bytes=True)
    colors: UInt8 = np.array(mapped[..., :3], np.uint8)
    colors[np.isnan(depth_m)] = _NO_DEPTH
    return colors


def depth_range(samples: Sequence[Sample]) -> tuple[float, float]:
    """Nearest and farthest depth of all but 4 % of the pixels, metres; of samples without depth (0.5, 2.0)."""
    known = [sample.depth_m[np.isfinite(sample.depth_m)][::7] for sample in samples]
    depths = np.concatenate([np.zeros(0, np.float32), *known])
    if not depths.size:
        return 0.5, 2.0
    near, far = np.percentile(depths, [2, 98])
    return float(near), float(far)


def motion_sheet(samples: Sequence[Sample], *, title: str, columns: int, width: int) -> UInt8:
    """The contact sheet of images with true motion; RGB."""
    tiles = [motion_tile(sample, width=width) for sample in samples]
    legend = [(_ROLE_WORDS[role], color) for role, color in ROLE_COLORS.items()]
    return contact_sheet(tiles, title=title, legend=legend, columns=columns, width=width, with_time=True)


def depth_sheet(samples: Sequence[Sample], *, title: str, columns: int, width: int) -> UInt8:
    """The contact sheet of depth and instances, in the order of `motion_sheet`; RGB."""
    near, far = depth_range(samples)
    tiles = [depth_tile(sample, width=width, depth_range_m=(near, far)) for sample in samples]
    marks_m = np.geomspace(near, far, 5)
    legend = [
        (f"{mark:.2f} m", _as_color(color))
        for mark, color in zip(marks_m, depth_colors(marks_m, (near, far)), strict=True)
    ]
    legend.append(("no depth", _NO_DEPTH))
    return contact_sheet(tiles, title=title, legend=legend, columns=columns, width=width)


def contact_sheet(
    tiles: Sequence[Tile],
    *,
    title: str,
    legend: Sequence[tuple[str, Color]],
    columns: int,
    width: int,
    with_time: bool = False,
) -> UInt8:
    """A grid of tiles with captions below them and a title with the legend above.

    Args:
        tiles: at least one.
        title: bold, first of the header.
        legend: words with their colours.
        columns: of the grid, at most.
        width: of a tile, pixels; pictures are fitted into it.
        with_time: the legend has the colour scale of time.

    Returns:
        RGB picture.
    """
    columns = min(columns, len(tiles))
    pictures = [_fitted(tile.picture, width) for tile in tiles]
    size = max(round(width / 24), 10)
    picture_height = max(picture.shape[0] for picture in pictures)
    cell_height = picture_height + round(size * (1.35 * _TEXT_LINES + 0.7)) + _GAP
    header, rows = (
        _header(title, legend, columns * (width + _GAP) + _GAP, with_time=with_time),
        -(-len(tiles) // columns),
    )
    top = header.shape[0]
    sheet = np.full((top + rows * cell_height + _GAP, header.shape[1], 3), INK, np.uint8)
    sheet[:top] = header
    for index, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        left, upper = _GAP + index % columns * (width + _GAP), top + index // columns * cell_height
        inset = (width - picture.shape[1]) // 2
        sheet[upper : upper + picture.shape[0], left + inset : left + inset + picture.shape[1]] = picture
        below = upper + picture_height
        sheet[below : below + cell_height - picture_height - _GAP, left : left + width] = _caption(
            tile, width, cell_height - picture_height - _GAP, size
        )
    return sheet


class TrueMotion:
    """The pixels of all moving bodies of a sample, carried along exactly: what `carried_frames` shows.

    Attributes:
        frame: the first frame at the size of the video.
        mask: (H, W), True for these pixels.
        colors: (P, 3) theirs.
        tails: (tracks, T, 3) a few trajectories, metres, optical frame.
    """

    def __init__(self, sample: Sample) -> None:
        """Gather the pixels of the bodies that move."""
        frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
        size = video_size(sample.camera)
        self.frame = frame.resized(*size)
        ids = resize_nearest(sample.body_ids, *size)
        moving = [motion.body for motion in body_motions(sample, moving_threshold_m=_MOVES_M) if motion.moving_px]
        self.mask: npt.NDArray[np.bool_] = np.isin(ids, moving) & self.frame.valid
        self.colors: UInt8 = self.frame.rgb[self.mask]
        self._points = self.frame.points_in_camera[self.mask]
        slot_of_body = {int(body): slot for slot, body in enumerate(sample.moving_bodies)}
        self._motion = sample.motion_t_from_0
        self._slots = np.array([slot_of_body[int(body)] for body in ids[self.mask]], np.intp)
        chosen = [_evenly(np.flatnonzero(self._slots == slot), _TAILS_PER_BODY) for slot in np.unique(self._slots)]
        followed = np.concatenate([np.zeros(0, np.intp), *chosen])
        paths = [self.points_at(step)[followed] for step in range(len(self._motion))]
        self.tails: npt.NDArray[np.floating] = np.stack(paths, axis=1)

    def points_at(self, step: int) -> Float64:
        """(P, 3) positions at a step, metres, optical frame; in the order of `colors`."""
        motion = self._motion[step, self._slots].astype(np.float64)
        return np.asarray(np.einsum("pij,pj->pi", motion[..., :3], self._points) + motion[..., 3], np.float64)


def sample_frames(sample: Sample) -> Iterator[UInt8]:
    """The true motion as moving pictures, one per step: the image's own pixels carried along; RGB.

    Raises:
        SampleError: the sample lacks what this needs.
    """
    if not has_motion(sample):
        raise SampleError(
            f"{sample.key}: expected a sample with true motion, got one of {sample.source} that lacks "
            f"{', '.join(sample.lacks)}; show it on a sheet"
        )
    carried = TrueMotion(sample)
    return carried_frames(carried.frame, carried, step_s=sample.step_s, prompt=sample.text)


def _draw_roles(canvas: Canvas, sample: Sample, stroke: float) -> None:
    """Outlines, the acted object's last and thickest; all links of the robot are one."""
    ids = sample.instance_map(merge_robot=True).ids
    roles = sample.instance_roles(merge_robot=True)
    for instance_id in sorted(roles, key=lambda instance: roles[instance] == Role.ACTED):
        mask = ids == instance_id
        if mask.any():
            is_acted = roles[instance_id] == Role.ACTED
            draw_outline(canvas, mask, ROLE_COLORS[roles[instance_id]], max(round((5 if is_acted else 1) * stroke), 1))


def _tracks_by_role(sample: Sample, motions: Sequence[BodyMotion]) -> Iterator[Float64]:
    """(P, T, 3) true trajectories of a few pixels of the robot, of other objects and last of the acted ones."""
    slot_of_body = {int(body): slot for slot, body in enumerate(sample.moving_bodies)}
    moving = [motion.body for motion in motions if motion.moving_px]
    points = unproject_depth(sample.depth_m, sample.camera)
    for roles in ((Role.ROBOT,), (Role.OBJECT, Role.FIXTURE, Role.WORLD), (Role.ACTED,)):
        bodies = [body for body in moving if sample.body_roles[body] in roles]
        rows, columns = np.nonzero(np.isin(sample.body_ids, bodies) & np.isfinite(sample.depth_m))
        for pixel in _evenly(np.arange(len(rows)), _TRACKS_PER_ROLE):
            seen = rows[pixel], columns[pixel]
            motion = sample.motion_t_from_0[:, slot_of_body[int(sample.body_ids[seen])]]
            yield carried_points(points[seen][None], motion).transpose(1, 0, 2)


def _evenly(items: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """At most so many items, evenly spread, without the ends."""
    count = min(count, len(items))
    return items[((np.arange(count) + 0.5) * len(items) / max(count, 1)).astype(np.intp)]


def _quoted(sample: Sample) -> str:
    return f"“{sample.text}”" if sample.text else "no sentence"


def _heading(sample: Sample) -> str:
    return f"{sample.skill or 'no skill'}  {sample.key}"


def _facts(sample: Sample, motions: Sequence[BodyMotion]) -> str:
    """How long it takes, and how far the acted object gets."""
    acted = [motion for motion in motions if sample.body_roles[motion.body] == Role.ACTED]
    if Role.ACTED not in sample.body_roles:
        told = "nothing is acted on" if any(motion.moving_px for motion in motions) else "nothing moves"
    elif not acted:
        told = "the acted object is not seen"
    else:
        farthest = max(acted, key=lambda motion: motion.farthest_m)
        way = farthest.centre_m[-1] - farthest.centre_m[0]
        words = direction_in_words(direction_flags(way, _DIRECTION_M)).replace("stays", "turns or comes back")
        told = f"{sample.kind or 'object'} {farthest.farthest_m * 100:.0f} cm, {words}"
    return f"{sample.duration_s:.1f} s: {told}"


def _fitted(picture: UInt8, width: int) -> UInt8:
    import cv2

    height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _caption(tile: Tile, width: int, height: int, size: int) -> UInt8:
    canvas = Canvas(np.full((height, width, 3), INK, np.uint8), min_width=1)
    heading, words = (
        _wrapped(canvas, tile.heading, size, max_lines=1, bold=True),
        _wrapped(canvas, tile.words, size, max_lines=2),
    )
    facts = _wrapped(canvas, tile.facts, size, max_lines=_TEXT_LINES - len(heading) - len(words))
    lines = [*heading, *words, *facts]
    canvas.text(lines, (0, 0), size=size)
    return canvas.image


def _wrapped(canvas: Canvas, text: str, size: int, *, max_lines: int, bold: bool = False) -> list[str]:
    """The text in lines that fit the canvas; what does not fit ends in an ellipsis."""

    def fits(line: str) -> bool:
        lines = [line] if bold else ["", line]  # the first of several is bold
        left, _, right, _ = canvas.text_box(lines, (0, 0), size=size, anchor="left top", accent=None)
        return right - left <= int(canvas.image.shape[1]) - 8

    lines, words = [""], text.split(" ")
    for index, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
        elif len(lines) < max_lines and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {' '.join(words[index:])}".strip()
            break
    while not fits(lines[-1]) and len(lines[-1]) > 1:
        lines[-1] = lines[-1].removesuffix("…")[:-1].rstrip() + "…"
    return lines


def _header(title: str, legend: Sequence[tuple[str, Color]], width: int, *, with_time: bool) -> UInt8:
    """Title and legend in as many rows as they need."""
    size, bar_width, row_height = 18, 260, 64 if with_time else 44
    canvas = Canvas(np.full((row_height, width, 3), INK, np.uint8), min_width=1)
    places: list[tuple[int, int]] = []
    x, row = _GAP, 0
    items: list[tuple[str, Color | None]] = [(title, None), *legend]
    widths = [bar_width] if with_time else []
    for text, accent in items:
        left, _, right, _ = canvas.text_box([text], (0, 0), size=size, anchor="left top", accent=accent)
        widths.append(right - left)
    for item_width in [*widths[1:], bar_width] if with_time else widths:
        if x > _GAP and x + item_width + _GAP > width:
            x, row = _GAP, row + 1
        places.append((x, row * row_height))
        x += item_width + _GAP
    canvas = Canvas(np.full(((row + 1) * row_height, width, 3), INK, np.uint8), min_width=1)
    for (text, accent), (left, top) in zip(items, places, strict=False):
        canvas.text([text], (left, top + row_height / 2), size=size, anchor="left middle", accent=accent)
    if with_time:
        left, top = places[-1]
        canvas.time_bar(["paths: first frame", "end"], (left, top + row_height - 8), width=bar_width, size=14)
    return canvas.image


def _as_color(values: UInt8) -> Color:
    return int(values[0]), int(values[1]), int(values[2])
