"""What a colour camera makes of an exact image: exposure, white balance, blur, noise and compression.

Light is linear and noise is counted in electrons: shot noise whose variance is the signal, and read noise (A. Foi et
al., doi:10.1109/TIP.2008.2001399). Blur and noise therefore act on linear light, after sRGB is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from momap_ros.data.sample import UInt8
from momap_ros.geometry import Float32

REFERENCE_WIDTH_PX = 640
_LEVELS = 1 << 14  # of the linear signal; enough to keep all 256 levels of sRGB apart


@dataclass(frozen=True)
class ColorSensor:
    """The range of one kind of colour camera, drawn anew for each frame; without arguments it is perfect.

    Attributes:
        exposure_spread: standard deviation of the exposure, stops (1 = twice the light).
        white_balance_spread: standard deviation of the gains of red and of blue, stops.
        defocus_px: largest standard deviation of the Gaussian blur, pixels of an image 640 wide.
        motion_px: longest way of the image during exposure, in any direction, pixels of an image 640 wide.
        electrons: fewest and most electrons of a white pixel, drawn on a logarithmic scale; None = no noise. Fewer are
            a higher gain.
        read_noise: standard deviation of the noise of a black pixel, electrons.
        jpeg_quality: lowest and highest quality of the compression, 1 to 100; None = not compressed.
    """

    exposure_spread: float = 0.0
    white_balance_spread: float = 0.0
    defocus_px: float = 0.0
    motion_px: float = 0.0
    electrons: tuple[float, float] | None = None
    read_noise: float = 0.0
    jpeg_quality: tuple[int, int] | None = None


def measured_color(rgb: UInt8, rng: np.random.Generator, sensor: ColorSensor) -> UInt8:
    """(H, W, 3) uint8 sRGB as the sensor would give it."""
    optics = (sensor.exposure_spread, sensor.white_balance_spread, sensor.defocus_px, sensor.motion_px)
    if any(optics) or sensor.electrons is not None:
        to_linear, to_srgb = _curves()
        balance = sensor.white_balance_spread * rng.standard_normal(3) * [1, 0, 1]
        gains = 2.0 ** (balance + sensor.exposure_spread * rng.standard_normal())
        light = np.asarray(cv2.LUT(rgb, (to_linear[:, None, None] * gains).astype(np.float32)), np.float32)
        light = _blurred(light, rng, sensor, rgb.shape[1] / REFERENCE_WIDTH_PX)
        if sensor.electrons is not None:
            light += _noise(light, rng, np.exp(rng.uniform(*np.log(sensor.electrons))), sensor.read_noise)
        levels = np.clip(light, 0, 1, out=light) * np.float32(_LEVELS - 1) + np.float32(0.5)
        rgb = to_srgb.take(levels.astype(np.uint16))
    if sensor.jpeg_quality:
        quality = int(rng.integers(sensor.jpeg_quality[0], sensor.jpeg_quality[1] + 1))
        coded = cv2.imencode(".jpg", rgb[..., ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), quality])[1]
        rgb = np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
    return rgb


def _noise(light: Float32, rng: np.random.Generator, white: float, read_noise: float) -> Float32:
    """Shot and read noise of linear light, for a white pixel of that many electrons."""
    sigma = np.sqrt(light * np.float32(1 / white) + np.float32((read_noise / white) ** 2))
    sigma *= rng.standard_normal(light.shape, np.float32)
    return np.asarray(sigma, np.float32)


def _blurred(light: Float32, rng: np.random.Generator, sensor: ColorSensor, scale: float) -> Float32:
    """Linear light out of focus, and smeared along a straight way."""
    sigma_px = scale * sensor.defocus_px * rng.random()
    if sigma_px > 0.1:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), sigma_px), np.float32)
    way_px, angle = scale * sensor.motion_px * rng.random(), rng.uniform(0, np.pi)
    if way_px > 0.5:
        light = np.asarray(cv2.filter2D(light, -1, _way(way_px, angle)), np.float32)
    return light


def _way(length_px: float, angle: float) -> Float32:
    """Kernel of a straight way through the centre: points along it, shared out between the pixels around each."""
    radius = int(np.ceil(length_px / 2))
    kernel = np.zeros((2 * radius + 2, 2 * radius + 2))
    x, y = radius + np.linspace(-0.5, 0.5, 4 * radius + 1) * length_px * np.array([[np.cos(angle)], [np.sin(angle)]])
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    for below in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - below - (y - row)) * np.abs(1 - right - (x - column))
            np.add.at(kernel, (row + below, column + right), weight)
    return np.asarray(kernel[:-1, :-1] / kernel[:-1, :-1].sum(), np.float32)


@lru_cache(maxsize=1)
def _curves() -> tuple[Float32, UInt8]:
    """Linear light of each sRGB value, and the sRGB value of each linear level (IEC 61966-2-1)."""
    srgb = np.arange(256) / 255
    to_linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.arange(_LEVELS) / (_LEVELS - 1)
    to_srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return to_linear.astype(np.float32), np.rint(255 * to_srgb).astype(np.uint8)
