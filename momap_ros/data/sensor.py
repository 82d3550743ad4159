"""Real cameras, simulated: what they would have made of a stored sample. Drawn at load time, never stored.

The truth stays with the exact sample: `momap()` of an observed one starts from its noisy depth.

Focal lengths, baselines and steps are the cameras' own; noise and holes are set by the real table tops in
../shared/data: 9 RealSense scenes (by their depth steps, 4 of a D415 and 5 of a D435), 14 frames of a ZED (by its left
border, of 12 cm baseline) and 14 scenes of a first Kinect. Noise is the residual of planes fitted to tiles of 24 pixels
of 640 on the table, as inverse depth, which does not depend on the distance; bend is the spread of the tiles' means
about a quadratic surface; holes are those of the image without its borders. Medians over the real frames, and over 40
simulated samples at 0.6 m:

| | noise, 1/km: real | ours | bend, 1/km: real | ours | holes: real | ours |
|---|---|---|---|---|---|---|
| realsense_d415 | 1.4 | 1.3 | 2.1 | 2.4 | 3 % | 7 % |
| realsense_d435 | 2.6 | 2.3 | 4.1 | 4.3 | 5 % | 6 % |
| zed_2 | 1.0 | 1.1 | 5.5 | 4.4 | 10 % | 16 % |
| kinect_v1 | 2.0 | 1.9 | 1.7 | 1.8 | cropped | 11 % |

(1/km is 1 mm at 1 m.) Our holes are larger because our cameras stand nearer, where shadows are wider, and a robot is
in their way. What does not agree: a real ZED has a thousand small holes per frame, ours dozens of larger ones. No
frames of a time-of-flight camera were at hand; its figures, and all shares at edges and of missing bodies, are
estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from momap_ros.data.color_sensor import ColorSensor, measured_color
from momap_ros.data.depth_sensor import DepthSensor, measured_depth
from momap_ros.data.sample import Sample

MEASURED_SHARE = 0.9  # of a view's pixels lies in the range of a camera that fits it


@dataclass(frozen=True)
class Sensor:
    """An RGB-D camera; without arguments it is perfect."""

    depth: DepthSensor = field(default_factory=DepthSensor)
    color: ColorSensor = field(default_factory=ColorSensor)


_COLOR = ColorSensor(
    exposure_spread=0.3,
    white_balance_spread=0.08,
    defocus_px=1.2,
    motion_px=3.0,
    electrons=(2000.0, 20_000.0),
    read_noise=4.0,
    jpeg_quality=(70, 98),
)
_D415 = DepthSensor(
    focal_px=610.0,
    baseline_m=0.055,
    disparity_noise_px=0.055,
    noise_length_px=5.0,
    waviness_px=0.08,
    waviness_length_px=30.0,
    level_spread=0.25,
    scale_spread=0.005,
    disparity_step_px=1 / 32,
    depth_step_m=0.001,
    min_depth_m=0.3,
    max_depth_m=6.0,
    shadow_m=0.065,
    left_strip=True,
    edge_px=4.0,
    fatten_share=0.4,
    thin_share=0.1,
    flying_share=0.05,
    edge_hole_share=0.1,
    patch_share=0.004,
    patch_length_px=8.0,
    dark_hole_share=0.01,
    bright_hole_share=0.1,
    missing_chance=0.03,
)
_D435 = replace(
    _D415,
    focal_px=385.0,
    baseline_m=0.05,
    disparity_noise_px=0.07,
    min_depth_m=0.17,
    max_depth_m=4.0,
    left_strip=False,  # its depth camera sees more than its colour camera
)
_ZED_2 = replace(
    _D415,
    focal_px=691.0,
    baseline_m=0.12,
    disparity_noise_px=0.06,
    noise_length_px=2.5,
    waviness_px=0.4,
    disparity_step_px=0.0,
    shadow_m=0.12,
    dark_hole_share=0.3,
    bright_hole_share=0.3,
)
_KINECT_V1 = replace(
    _D415,
    focal_px=580.0,
    baseline_m=0.075,
    disparity_noise_px=0.08,
    noise_length_px=2.3,
    disparity_step_px=1 / 8,
    min_depth_m=0.4,
    shadow_m=0.075,
    left_strip=False,
    dark_hole_share=0.5,
)
_TIME_OF_FLIGHT = DepthSensor(
    disparity_noise_px=0.001,
    waviness_px=0.002,
    waviness_length_px=30.0,
    level_spread=0.25,
    scale_spread=0.005,
    depth_step_m=0.001,
    min_depth_m=0.2,
    max_depth_m=4.0,
    edge_px=2.0,
    fatten_share=0.1,
    thin_share=0.1,
    flying_share=0.4,
    edge_hole_share=0.2,
    patch_share=0.002,
    dark_hole_share=0.5,
    bright_hole_share=0.05,
    missing_chance=0.03,
)
SENSORS: Mapping[str, Sensor] = MappingProxyType(
    {
        name: Sensor(depth, _COLOR)
        for name, depth in (
            ("realsense_d415", _D415),
            ("realsense_d435", _D435),
            ("zed_2", _ZED_2),
            ("kinect_v1", _KINECT_V1),
            ("time_of_flight", _TIME_OF_FLIGHT),
        )
    }
)


def fitting_sensors(sample: Sample) -> list[str]:
    """Names of the cameras of SENSORS in whose range a view lies; of those that have most of it there, if none fits.

    Many views are nearer than most cameras measure: who would see such a scene puts another camera there.
    """
    counts = {name: np.sum(sensor.depth.in_range(sample.depth_m)) for name, sensor in SENSORS.items()}
    least = min(MEASURED_SHARE * np.sum(np.isfinite(sample.depth_m)), max(counts.values()))
    return sorted(name for name, count in counts.items() if count >= least)


def observe(sample: Sample, rng: np.random.Generator, sensor: Sensor | None = None) -> Sample:
    """What a real camera would have made of a sample.

    Args:
        sample: exact, of any size.
        rng: source of every choice; equal states give equal bytes.
        sensor: the camera; None = one of those that fit, each as likely.

    Returns:
        The sample with other colours and depth: (H, W, 3) uint8, and (H, W) float32 metres with NaN for holes. All else
        (ids, motion, camera, sentence) is that of the sample.
    """
    if sensor is None:
        sensor = SENSORS[str(rng.choice(fitting_sensors(sample)))]
    rgb = measured_color(sample.rgb, rng, sensor.color)
    return replace(sample, rgb=rgb, depth_m=measured_depth(sample, rng, sensor.depth))
