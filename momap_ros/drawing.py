"""What pictures are made of: a canvas larger than the image, smooth lines, readable text, colours with a meaning."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64
from momap_ros.rgbd import UInt8

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Color: TypeAlias = "tuple[int, int, int]"

WHITE: Color = (255, 255, 255)
INK: Color = (24, 26, 32)

# Now to later: dark to bright, so that the order survives greyscale printing and colour blindness.
_TIME_ANCHORS: tuple[Color, ...] = ((52, 92, 255), (178, 60, 230), (255, 80, 120), (255, 160, 50), (255, 240, 110))
_GOLDEN_ANGLE = 0.61803398875
_SUBPIXEL_BITS = 4
_LINE_STEP = 1.35


def time_colors(count: int) -> UInt8:
    """(count, 3) colours from now (blue) to the end (yellow)."""
    anchors = np.array(_TIME_ANCHORS, np.float64)
    position = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(position, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.asarray(np.stack(channels, axis=-1).round(), np.uint8)


def instance_color(instance_id: int) -> Color:
    """A colour that is the same for an id in every picture, and far from those of the ids next to it."""
    hue = (0.08 + instance_id * _GOLDEN_ANGLE) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.62 if instance_id % 2 else 0.78, 1.0 if instance_id % 3 else 0.88)
    return round(red * 255), round(green * 255), round(blue * 255)


class Canvas:
    """An image enlarged for drawing.

    Coordinates are pixels of the original image, whose pixel centres are integers; sizes such as line widths are pixels
    of the enlarged picture.

    Attributes:
        image: (H * scale, W * scale, 3) RGB, drawn on in place.
        scale: pixels of the picture per pixel of the original image.
    """

    def __init__(self, image: UInt8, *, min_width: int = 960) -> None:
        """Enlarge an RGB image by the smallest whole number that makes it at least min_width wide."""
        import cv2

        height, width = image.shape[:2]
        self.scale = max(1, -(-min_width // width))
        size = (width * self.scale, height * self.scale)
        self.image: UInt8 = np.array(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)

    def at(self, uv: Float64) -> Float64:
        """(..., 2) position in the picture of (u, v) of the original image."""
        return np.asarray((uv + 0.5) * self.scale - 0.5, np.float64)

    def lines(self, starts: Float64, ends: Float64, color: Color, thickness: int) -> None:
        """Draw (N, 2) to (N, 2) smooth segments, each given in (u, v)."""
        import cv2

        ends_xy = np.stack([self.at(starts), self.at(ends)], axis=1)
        fixed = np.round(ends_xy * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.polylines(self.image, list(fixed), False, color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)  # noqa: FBT003

    def polygon(self, corners: Float64, color: Color) -> None:
        """Fill a (K, 2) polygon given in (u, v)."""
        import cv2

        fixed = np.round(self.at(corners) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], color, cv2.LINE_AA, _SUBPIXEL_BITS)

    def arrow_head(self, tip: Float64, direction: Float64, color: Color, size: float) -> None:
        """A filled triangle at `tip` (u, v) that points along `direction`; `size` is its length in picture pixels."""
        length = np.linalg.norm(direction)
        if not length > 0:
            return
        along = np.asarray(direction) / length * size / self.scale
        across = np.array([-along[1], along[0]]) * 0.5
        self.polygon(np.stack([tip + along * 0.6, tip - along * 0.4 + across, tip - along * 0.4 - across]), color)

    def blend(self, overlay: UInt8, opacity: float | npt.NDArray[np.floating]) -> None:
        """Mix a picture of the same size in, by one opacity or one per pixel."""
        weight = np.asarray(opacity, np.float32)
        if weight.ndim == 2:
            weight = weight[..., None]
        mixed = self.image * (1 - weight) + overlay * weight
        self.image[:] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)

    def text(
        self,
        lines: Sequence[str],
        xy: tuple[float, float],
        *,
        size: int = 20,
        anchor: str = "left top",
        accent: Color | None = None,
    ) -> None:
        """White lines on a dark rounded box, kept inside the picture.

        Args:
            lines: the text; the first is bold.
            xy: picture position of the box's anchor.
            size: font height in picture pixels.
            anchor: which point of the box lies at xy: left|centre|right and top|middle|bottom.
            accent: colour of a bar at the left edge.
        """
        from PIL import Image, ImageDraw

        left, top, right, bottom = self.text_box(lines, xy, size=size, anchor=anchor, accent=accent)
        width, height = right - left, bottom - top
        fonts = [_font(size, bold=index == 0) for index in range(len(lines))]
        pad, step, bar = size * 0.5, size * _LINE_STEP, size * 0.35 if accent else 0.0
        picture = Image.fromarray(self.image)
        draw = ImageDraw.Draw(picture, "RGBA")
        draw.rounded_rectangle((left, top, left + width, top + height), round(size * 0.4), fill=(*INK, 205))
        if accent:
            inner = (left + pad * 0.5, top + pad * 0.7, left + pad * 0.5 + bar * 0.6, top + height - pad * 0.7)
            draw.rectangle(inner, fill=(*accent, 255))
        for index, (font, line) in enumerate(zip(fonts, lines, strict=True)):
            draw.text((left + pad + bar, top + pad * 0.75 + index * step), line, font=font, fill=WHITE)
        self.image[:] = np.asarray(picture)

    def text_box(
        self, lines: Sequence[str], xy: tuple[float, float], *, size: int, anchor: str, accent: Color | None
    ) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the box that `text` would draw, picture pixels."""
        boxes = [_font(size, bold=index == 0).getbbox(line) for index, line in enumerate(lines)]
        pad, bar = size * 0.5, size * 0.35 if accent else 0.0
        width = max(box[2] for box in boxes) + 2 * pad + bar
        height = size * _LINE_STEP * len(lines) + 2 * pad - size * 0.3
        horizontal, vertical = anchor.split()
        left = xy[0] - width * {"left": 0.0, "centre": 0.5, "right": 1.0}[horizontal]
        top = xy[1] - height * {"top": 0.0, "middle": 0.5, "bottom": 1.0}[vertical]
        # Whole pixels: Pillow draws the parts of a translucent rounded box over each other otherwise.
        left = round(min(max(left, 4), max(self.image.shape[1] - width - 4, 4)))
        top = round(min(max(top, 4), max(self.image.shape[0] - height - 4, 4)))
        return left, top, left + round(width), top + round(height)

    def time_bar(
        self,
        labels: Sequence[str],
        xy: tuple[float, float],
        *,
        width: float,
        size: int = 18,
        marker: float | None = None,
    ) -> None:
        """The colour scale of time in a dark box.

        Args:
            labels: spread evenly below the scale.
            xy: lower left corner of the box, picture pixels.
            width: of the box, picture pixels.
            size: font height, picture pixels.
            marker: share of the time that has passed, in [0, 1]; no mark where None.
        """
        from PIL import Image, ImageDraw

        font = _font(size, bold=False)
        pad, thickness = size * 0.7, size * 0.55
        left, bottom = round(xy[0]), round(xy[1])
        top = bottom - round(2 * pad + thickness + size * 1.1)
        picture = Image.fromarray(self.image)
        draw = ImageDraw.Draw(picture, "RGBA")
        draw.rounded_rectangle((left, top, left + round(width), bottom), round(size * 0.4), fill=(*INK, 205))
        inner = int(width - 2 * pad)
        for column, color in enumerate(time_colors(inner)):
            x = left + pad + column
            draw.line((x, top + pad * 0.8, x, top + pad * 0.8 + thickness), fill=tuple(int(c) for c in color))
        if marker is not None:
            x, y = left + pad + marker * inner, top + pad * 0.8 + thickness / 2
            half = thickness * 0.9
            draw.ellipse((x - half, y - half, x + half, y + half), fill=WHITE, outline=INK, width=2)
        for index, label in enumerate(labels):
            share = index / max(len(labels) - 1, 1)
            text_width = font.getlength(label)
            x = left + pad + share * inner - share * text_width
            draw.text((x, top + pad * 0.9 + thickness), label, font=font, fill=WHITE)
        self.image[:] = np.asarray(picture)


@cache
def _font(size: int, *, bold: bool) -> FreeTypeFont:
    """The sans-serif font that matplotlib brings along, so that pictures look the same on every machine."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{mpl.get_data_path()}/fonts/ttf/{name}", size)
