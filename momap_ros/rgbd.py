"""One registered colour and depth image with its camera: what every stage of the package starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, PinholeCamera, unproject_depth
from momap_ros.shapes import check_shapes

UInt8 = npt.NDArray[np.uint8]
Pixel = TypeVar("Pixel", bound=np.generic)


class FrameError(ValueError):
    """An RGB-D frame that cannot be used; the message names what is wrong with it."""


@dataclass(frozen=True, eq=False)
class RGBDFrame:
    """A colour image and the depth image registered to it.

    Attributes:
        rgb: (H, W, 3) uint8, sRGB.
        depth_m: (H, W) float32, metres along optical z, positive; NaN where there is no reading.
        camera: intrinsics of both images.
        stamp_ns: acquisition time of the colour image, nanoseconds.
        frame_id: TF name of the camera's optical frame.

    Raises:
        ShapeError: the images and the camera differ in size.
        FrameError: wrong dtypes, or depth that is zero, negative or infinite instead of NaN.
    """

    rgb: UInt8
    depth_m: Float32
    camera: PinholeCamera
    stamp_ns: int = 0
    frame_id: str = "camera_color_optical_frame"

    def __post_init__(self) -> None:
        """Check sizes, dtypes and the meaning of depth values."""
        size = {"H": self.camera.height, "W": self.camera.width}
        check_shapes(size, rgb=(self.rgb, "H W 3"), depth_m=(self.depth_m, "H W"))
        if self.rgb.dtype != np.uint8 or self.depth_m.dtype != np.float32:
            raise FrameError(f"expected rgb uint8 and depth_m float32, got {self.rgb.dtype} and {self.depth_m.dtype}")
        # NaN where nothing was measured, and then no comparison holds.
        nearest, farthest = (reduce(self.depth_m, axis=None) for reduce in (np.fmin.reduce, np.fmax.reduce))
        if nearest <= 0 or np.isinf(farthest):
            raise FrameError(
                f"depth_m: expected positive finite metres or NaN, got values in [{nearest}, {farthest}]; "
                "decode the depth image with momap_ros.ros.conversions or set missing readings to NaN"
            )

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(H, W), True where depth was measured."""
        return ~np.isnan(self.depth_m)

    @cached_property
    def points_in_camera(self) -> Float32:
        """(H, W, 3) metres, optical frame; NaN where there is no depth. Paper: Sec. 3.3.1, "XYZ map"."""
        return unproject_depth(self.depth_m, self.camera)

    def points_at(self, u: npt.NDArray[np.int32], v: npt.NDArray[np.int32]) -> Float32:
        """(P, 3) `points_in_camera` of chosen columns and rows, without making those of all pixels."""
        return self.camera.rays[v, u] * self.depth_m[v, u].astype(np.float32, copy=False)[:, None]

    def resized(self, width: int, height: int) -> RGBDFrame:
        """The frame stretched to another size: colour by area or bilinearly, depth by nearest pixel (never blended)."""
        import cv2

        shrinks = width <= self.camera.width and height <= self.camera.height
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        rgb = cv2.resize(np.ascontiguousarray(self.rgb), (width, height), interpolation=interpolation)
        return RGBDFrame(
            np.asarray(rgb, np.uint8),
            resize_nearest(self.depth_m, width, height),
            self.camera.resized(width, height),
            self.stamp_ns,
            self.frame_id,
        )


def resize_nearest(image: npt.NDArray[Pixel], width: int, height: int) -> npt.NDArray[Pixel]:
    """(height, width, ...) image of the source pixels whose centres lie nearest; labels and depth are never mixed."""
    rows = np.minimum(((np.arange(height) + 0.5) * image.shape[0] / height).astype(np.intp), image.shape[0] - 1)
    columns = np.minimum(((np.arange(width) + 0.5) * image.shape[1] / width).astype(np.intp), image.shape[1] - 1)
    resized: npt.NDArray[Pixel] = image[rows[:, None], columns]
    return resized
