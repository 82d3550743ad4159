"""Intrinsics of real cameras and of made-up pinholes, at any image size.

A real camera's image reaches a smaller one as it does in practice: cropped around the middle to the asked aspect ratio
and scaled, or, for the square input of a model, stretched whole.
"""

from __future__ import annotations

import numpy as np

from momap_ros.geometry import PinholeCamera

# Each with where its numbers come from. Data sheets give fields of view, with square pixels and a central principal
# point as the nominal camera; devices differ by up to 3 degrees.
REAL_CAMERAS = {
    # Factory calibration of the colour sensor, github.com/physical-superintelligence-lab/Humanoid-Everyday issue 7.
    "realsense_d435": PinholeCamera(640, 480, 606.815, 606.335, 321.493, 247.556),
    # Factory calibration of the colour sensor, github.com/realsenseai/librealsense issue 5658.
    "realsense_d415": PinholeCamera(1280, 720, 925.769, 925.476, 630.005, 376.119),
    # Data sheet of the L515: colour sensor 70 x 43 degrees.
    "realsense_l515": PinholeCamera(1280, 720, 914.015, 914.015, 639.5, 359.5),
    # Calibration of GraspNet-1Billion, "kinect" (Azure Kinect, colour, undistorted).
    "azure_kinect": PinholeCamera(1280, 720, 631.549, 631.208, 638.435, 366.499),
    # Default of OpenNI for the first Kinect, as in the Point Cloud Library.
    "kinect_v1": PinholeCamera(640, 480, 525.0, 525.0, 319.5, 239.5),
    # Calibration of a rectified left image at HD720, in a public SLAM configuration.
    "zed_2": PinholeCamera(1280, 720, 522.602, 522.602, 650.287, 359.577),
    # Calibration of a rectified left image at HD720: CERD_Model's recordings (ZED, the narrower first one).
    "zed": PinholeCamera(1280, 720, 691.371, 692.51, 659.705, 356.352),
    # Data sheet of the Logitech C920: 78 degrees over the diagonal of 1280x720.
    "webcam": PinholeCamera(1280, 720, 906.788, 906.788, 639.5, 359.5),
}
_REAL_SHARE = 0.5
# (share of the pinholes, width and height of their field of view, range of the vertical one in degrees)
_PINHOLES = (
    (0.25, (1, 1), (26.0, 62.0)),
    (0.45, (4, 3), (24.0, 55.0)),
    (0.30, (16, 9), (20.0, 45.0)),
)
# No two devices are alike: standard deviations of the focal length, and of the principal point in image widths.
_FOCAL_JITTER, _CENTRE_JITTER = 0.01, 0.005


def draw_intrinsics(rng: np.random.Generator, width: int, height: int) -> tuple[str, PinholeCamera]:
    """Draw the name and the intrinsics of a camera for an image of this size.

    Square images show the whole field of view of a real camera, or a 1:1, 4:3 or 16:9 one, stretched (fx != fy); in
    other sizes pixels stay square.
    """
    if rng.random() < _REAL_SHARE:
        name = str(rng.choice(list(REAL_CAMERAS)))
        return name, _jittered(rng, fitted(REAL_CAMERAS[name], width, height))
    kind = int(rng.choice(len(_PINHOLES), p=[share for share, _, _ in _PINHOLES]))
    _, (across, down), fov_range_deg = _PINHOLES[kind]
    fov_rad = np.radians(rng.uniform(*fov_range_deg))
    if width != height:
        return "pinhole", PinholeCamera.from_fov(width, height, vertical_fov_rad=fov_rad)
    wide = PinholeCamera.from_fov(round(height * across / down), height, vertical_fov_rad=fov_rad)
    return f"pinhole_{across}x{down}", wide.resized(width, height)


def fitted(camera: PinholeCamera, width: int, height: int) -> PinholeCamera:
    """The camera of an image scaled to another size: stretched if that is square, else cropped to its aspect first."""
    if width == height:
        return camera.resized(width, height)
    scale = min(camera.width / width, camera.height / height)
    crop_width, crop_height = round(width * scale), round(height * scale)
    left, top = (camera.width - crop_width) // 2, (camera.height - crop_height) // 2
    return camera.cropped(left, top, crop_width, crop_height).resized(width, height)


def _jittered(rng: np.random.Generator, camera: PinholeCamera) -> PinholeCamera:
    focal = 1 + _FOCAL_JITTER * rng.standard_normal()
    shift = _CENTRE_JITTER * camera.width * rng.standard_normal(2)
    width, height = camera.width, camera.height
    return PinholeCamera(
        width, height, camera.fx * focal, camera.fy * focal, camera.cx + shift[0], camera.cy + shift[1]
    )
