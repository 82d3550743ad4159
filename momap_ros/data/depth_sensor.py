"""What a depth camera makes of exact depth: shadows, ragged edges, correlated noise, steps and holes.

All happens in inverse depth, where planes are affine in the pixel, disparity is linear, and noise of equal strength is
the depth noise of triangulation, growing with the square of depth:

    noise of depth = depth^2 / (focal length * baseline) * noise of disparity

(A. Chatterjee, V. M. Govindu, arXiv:1505.01936; for the first Kinect C. V. Nguyen, S. Izadi, D. Lovell,
doi:10.1109/3DIMPVT.2012.84). Disparity steps, and edges that are displaced at random, follow the ICL-NUIM benchmark (A.
Handa et al., doi:10.1109/ICRA.2014.6907054). Lengths in pixels are those of an image 640 wide and scale with the width.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from momap_ros.data.sample import Sample
from momap_ros.geometry import Float32, PinholeCamera

Mask = npt.NDArray[np.bool_]
REFERENCE_WIDTH_PX = 640
JUMP = 0.01  # half the relative step of depth from which neighbours are on two surfaces
DARK = 25  # of 255
BRIGHT = 250  # of 255, in every channel


@dataclass(frozen=True)
class DepthSensor:
    """How one kind of depth camera measures; without arguments it is perfect.

    Attributes:
        focal_px: focal length of the depth camera itself, its own pixels; turns disparity into depth with baseline_m. A
            time-of-flight camera has neither: focal_px = baseline_m = 1 makes its "disparities" inverse metres.
        baseline_m: distance between the two cameras, or camera and projector, metres.
        disparity_noise_px: standard deviation of disparity, pixels of the depth camera.
        noise_length_px: standard deviation of the Gaussian that smooths this noise; 0 = independent pixels.
        waviness_px: standard deviation of a second, long-waved noise of disparity, pixels of the depth camera: what
            bends tables.
        waviness_length_px: its length, as noise_length_px.
        level_spread: both noises of a frame are stronger by exp(level_spread * normal).
        scale_spread: all depths of a frame are longer by the factor 1 + scale_spread * normal.
        disparity_step_px: disparity is rounded to multiples, pixels of the depth camera; 0 = not.
        depth_step_m: depth is rounded to multiples, metres; 0 = not.
        min_depth_m: nothing nearer is measured, metres.
        max_depth_m: nothing farther is measured, metres.
        shadow_m: distance from the colour camera to the rightmost eye, metres. What only one eye sees leaves a hole to
            the left of near objects.
        left_strip: whether shadows cover the left border too, where the eyes' images do not overlap.
        edge_px: how far from an edge it is blurred, fattened or lost.
        fatten_share: share of the pixels near edges that take the depth of the near surface.
        thin_share: share of them that take the depth of the far surface.
        flying_share: share of them with a depth in between.
        edge_hole_share: share of them without depth.
        patch_share: share of all pixels lost in patches, with no visible reason.
        patch_length_px: length of the patches, and of the raggedness of all other holes.
        dark_hole_share: share lost where the image is darker than 25 of 255.
        bright_hole_share: share lost where all channels exceed 250 of 255.
        missing_chance: chance of a body (shiny, black or transparent) to lose between 30 % and all of its pixels.
    """

    focal_px: float = 1.0
    baseline_m: float = 1.0
    disparity_noise_px: float = 0.0
    noise_length_px: float = 0.0
    waviness_px: float = 0.0
    waviness_length_px: float = 40.0
    level_spread: float = 0.0
    scale_spread: float = 0.0
    disparity_step_px: float = 0.0
    depth_step_m: float = 0.0
    min_depth_m: float = 0.0
    max_depth_m: float = float("inf")
    shadow_m: float = 0.0
    left_strip: bool = False
    edge_px: float = 0.0
    fatten_share: float = 0.0
    thin_share: float = 0.0
    flying_share: float = 0.0
    edge_hole_share: float = 0.0
    patch_share: float = 0.0
    patch_length_px: float = 8.0
    dark_hole_share: float = 0.0
    bright_hole_share: float = 0.0
    missing_chance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be a camera."""
        if self.focal_px <= 0 or self.baseline_m <= 0:
            raise ValueError(
                f"depth sensor: expected a positive focal length and baseline, got focal_px={self.focal_px}, "
                f"baseline_m={self.baseline_m}"
            )
        if self.fatten_share + self.thin_share > 1:
            raise ValueError(
                "depth sensor: expected fatten_share + thin_share <= 1, as a pixel is on one side of an edge; got "
                f"{self.fatten_share} + {self.thin_share}"
            )

    def in_range(self, depth_m: Float32) -> Mask:
        """Where depth, of any shape, is neither too near nor too far to be measured; False at NaN."""
        return np.asarray((depth_m > self.min_depth_m) & (depth_m <= self.max_depth_m))


def measured_depth(sample: Sample, rng: np.random.Generator, sensor: DepthSensor) -> Float32:
    """Depth as the sensor would give it.

    Args:
        sample: exact depth, and the colours and bodies that decide where it is lost.
        rng: source of every choice.
        sensor: what it is measured with.

    Returns:
        (H, W) float32 metres, NaN for holes. What was NaN stays so, but for pixels near an edge.
    """
    camera, true_m = sample.camera, sample.depth_m
    scale = camera.width / REFERENCE_WIDTH_PX
    inverse = np.divide(1, true_m, where=np.isfinite(true_m), out=np.zeros_like(true_m))
    ragged = smooth_field(rng, inverse.shape, sensor.patch_length_px * scale)
    lost = _lost(sample, rng, sensor, ragged) | shadows(inverse, camera, sensor)
    measured = inverse
    if sensor.edge_px:
        near_edge, measured = _ragged_edges(inverse, rng, sensor, max(1, round(sensor.edge_px * scale)))
        lost |= near_edge & _lowest(ragged, sensor.edge_hole_share)
    measured = _noisy(measured, rng, sensor, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth_m = np.where(measured == inverse, true_m, 1 / measured)
        if sensor.depth_step_m:
            depth_m = np.rint(depth_m / sensor.depth_step_m) * np.float32(sensor.depth_step_m)
        seen = (measured > 0) & sensor.in_range(depth_m) & ~lost
    return np.where(seen, depth_m, np.float32(np.nan)).astype(np.float32, copy=False)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], length_px: float) -> Float32:
    """(H, W) normal noise of unit variance, smoothed by a Gaussian whose standard deviation is `length_px`.

    Its correlation at a distance of d pixels is exp(-d^2 / (4 length_px^2)). Long waves are drawn on a coarser grid.
    """
    if length_px <= 0.2:
        return rng.standard_normal(shape, np.float32)
    coarse = max(1, int(length_px / 2))
    grid = tuple(-(-side // coarse) for side in shape)
    kernel = cv2.getGaussianKernel(2 * int(3 * length_px / coarse + 1) + 1, length_px / coarse, cv2.CV_32F)
    kernel = kernel / np.linalg.norm(kernel)
    field = cv2.sepFilter2D(rng.standard_normal(grid, np.float32), -1, kernel, kernel)
    if coarse > 1:
        field = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(field, np.float32)


def shadows(inverse_depth: Float32, camera: PinholeCamera, sensor: DepthSensor) -> Mask:
    """Where a second eye, to the right of the camera, cannot see what the camera sees.

    A pixel at u appears to the second eye at u - fx * shadow_m / depth. It is hidden if a pixel to its right appears
    farther left, and out of view if it appears to the left of the image.

    Args:
        inverse_depth: (H, W), 1 / metres; 0 = unknown.
        camera: intrinsics.
        sensor: gives shadow_m and left_strip.
    """
    if not sensor.shadow_m:
        return np.zeros(inverse_depth.shape, np.bool_)
    u_other = np.arange(camera.width, dtype=np.float32) - np.float32(camera.fx * sensor.shadow_m) * inverse_depth
    leftmost = np.minimum.accumulate(u_other[:, ::-1], axis=1)[:, ::-1]
    hidden = leftmost < u_other
    return np.asarray(hidden | (u_other < 0) if sensor.left_strip else hidden)


def _lost(sample: Sample, rng: np.random.Generator, sensor: DepthSensor, ragged: Float32) -> Mask:
    """Holes for reasons of the surface: none visible, too dark, too bright, or shiny."""
    lost = _lowest(ragged, sensor.patch_share)
    if sensor.dark_hole_share:
        dark = cv2.cvtColor(sample.rgb, cv2.COLOR_RGB2GRAY) < DARK
        lost |= dark & _lowest(ragged, sensor.dark_hole_share)
    if sensor.bright_hole_share:
        bright = cv2.inRange(sample.rgb, np.full(3, BRIGHT), np.full(3, 255)) > 0
        lost |= bright & _lowest(ragged, sensor.bright_hole_share)
    if sensor.missing_chance:
        bodies = np.arange(len(sample.body_names))
        shiny = (rng.random(len(bodies)) < sensor.missing_chance) & (bodies > 0)
        lost |= shiny[sample.body_ids] & _lowest(ragged, rng.uniform(0.3, 1.0))
    return lost


def _ragged_edges(
    inverse: Float32, rng: np.random.Generator, sensor: DepthSensor, radius_px: int
) -> tuple[Mask, Float32]:
    """Where the edges are, and inverse depth with the near surface grown, shrunk or mixed with the far one there.

    Half of the largest plus the smallest neighbour is the pixel itself on every plane, however steep, and off by half
    the jump beside an edge. Matching windows that hold both surfaces cause all of this (D. Scharstein, R. Szeliski,
    doi:10.1023/A:1014573219977, sec. 3); a time-of-flight pixel that sees both mixes them.
    """
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
    near, far = cv2.dilate(inverse, window), cv2.erode(inverse, window)
    near_edge = np.abs(0.5 * (near + far) - inverse) > JUMP * inverse
    inner = (slice(radius_px, -radius_px),) * 2  # half of a window says nothing
    near_edge &= np.pad(np.ones_like(near_edge[inner]), radius_px)
    side = smooth_field(rng, inverse.shape, radius_px)
    result = np.where(near_edge & _lowest(side, sensor.fatten_share), near, inverse)
    result = np.where(near_edge & _lowest(-side, sensor.thin_share), far, result)
    if sensor.flying_share:
        drawn = rng.random(inverse.shape, np.float32) / np.float32(sensor.flying_share)
        result = np.where(near_edge & (far > 0) & (drawn < 1), near + (far - near) * drawn, result)
    return near_edge, result


def _noisy(inverse: Float32, rng: np.random.Generator, sensor: DepthSensor, scale: float) -> Float32:
    """Inverse depth with noise and steps; 0 stays 0."""
    factor = sensor.focal_px * sensor.baseline_m  # disparity in pixels of an inverse depth of 1 / metre
    level = np.exp(sensor.level_spread * rng.standard_normal()) if sensor.level_spread else 1.0
    result = inverse
    for strength_px, length_px in (
        (sensor.disparity_noise_px, sensor.noise_length_px),
        (sensor.waviness_px, sensor.waviness_length_px),
    ):
        if strength_px:
            result = result + np.float32(strength_px * level / factor) * smooth_field(
                rng, result.shape, length_px * scale
            )
    if sensor.scale_spread:
        result = result / np.float32(1 + sensor.scale_spread * rng.standard_normal())
    if sensor.disparity_step_px:
        step = np.float32(sensor.disparity_step_px / factor)
        result = np.rint(result / step) * step
    return np.where(inverse > 0, result, inverse)


def _lowest(field: Float32, share: float) -> Mask:
    """The pixels of a unit-variance field that lie below its `share` quantile."""
    if share <= 0:
        return np.zeros(field.shape, np.bool_)
    return np.asarray(field < (NormalDist().inv_cdf(share) if share < 1 else np.inf))
