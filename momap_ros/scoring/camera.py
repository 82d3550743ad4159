"""Does the camera rest? And where did it go: from what the background shows, where nobody gives its poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64, project, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame, UInt8
from momap_ros.rigid_tracks import fit_rigid_tracks

MAX_CORNERS = 300
MIN_CORNERS = 12  # fewer may all lie on one thing that moves
BORDER_PX = 7  # of an image 640 wide: corners keep so far from instances, whose outlines are never exact
WINDOW_PX = 21
MAX_ROUND_TRIP_PX = 1.0  # a corner followed there and back must return
REST_PX = 1.5  # of an image 640 wide: median shift of the background below which a camera rests
REST_DEPTH_M = 0.01  # without corners: median change of the background's depth below which it does
MIN_BACKGROUND_SHARE = 0.02  # of the image: less background says nothing
MAX_RESIDUAL_M = 0.01  # RMS of the corners' points from the motion: depth that far off says too little
MIN_CORRELATION = 0.55  # of the background's texture before and now, for a motion that is the camera's
TEXTURE_PX = 15  # brightness is taken relative to its mean over so many pixels: shadows are no texture
MIN_INLIER_SHARE = 0.5  # of the corners, for a motion that is the camera's

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class MovingCameraError(ValueError):
    """The camera moved, or nobody can tell, and its poses are not known."""


@dataclass(frozen=True, eq=False)
class CameraMotion:
    """What the background says of the camera since the reference frame.

    Attributes:
        shift_px: median shift of the background's corners, pixels of an image 640 wide; NaN where there are too few.
        depth_change_m: median change of depth where both frames show background; NaN where too little is shared.
        camera_from_reference: (4, 4) metres, fitted to the corners; None where they do not agree on one.
    """

    shift_px: float
    depth_change_m: float
    camera_from_reference: Float64 | None

    @property
    def rests(self) -> bool:
        """Whether the camera stands where it stood; corners, where there are enough, know better than depth."""
        if np.isfinite(self.shift_px):
            return self.shift_px <= REST_PX
        return bool(self.depth_change_m <= REST_DEPTH_M)  # False for NaN: nobody can tell


class BackgroundReference:
    """The background of one frame, to which later frames are compared."""

    def __init__(self, frame: RGBDFrame, instances: InstanceMap) -> None:
        """Find corners of the background that have depth."""
        import cv2

        self._gray = _gray(frame)
        self._background = _background(frame, instances)
        self._depth_m = frame.depth_m
        mask = self._background.astype(np.uint8)
        found = cv2.goodFeaturesToTrack(self._gray, MAX_CORNERS, 0.01, 5.0 * _scale(frame), mask=mask)
        # None where there is no corner; OpenCV's own types do not know.
        self._corners = np.asarray(found if np.ndim(found) else (), np.float32).reshape(-1, 2)
        self._points = _lifted(frame, self._corners)

    def compare(self, frame: RGBDFrame, instances: InstanceMap) -> CameraMotion:
        """What a later frame of the same camera says of its motion.

        Corners are followed by Lucas and Kanade's method over an image pyramid, and those that do not return when
        followed back are left out. The rigid motion is the robust fit that objects get, of the corners' points.

        Reference: J. Bouguet, Pyramidal implementation of the Lucas Kanade feature tracker (2001).

        Raises:
            ValueError: the image has another size.
        """
        if frame.depth_m.shape != self._depth_m.shape:
            raise ValueError(
                f"frame: expected the reference's size {self._depth_m.shape[::-1]}, got {frame.depth_m.shape[::-1]}; "
                "start anew with the new images"
            )
        background = _background(frame, instances)
        shared = background & self._background
        change_m = np.abs(frame.depth_m[shared] - self._depth_m[shared])
        enough = shared.mean() >= MIN_BACKGROUND_SHARE
        gray = _gray(frame)
        if enough:  # Exposure changes from frame to frame, which following corners does not forgive.
            gain = np.median(self._gray[shared]) / max(float(np.median(gray[shared])), 1.0)
            gray = np.rint(gray * gain).clip(0, 255).astype(np.uint8)
        corners, kept = self._follow(gray, background)
        if kept.sum() < MIN_CORNERS:
            return CameraMotion(np.nan, float(np.median(change_m)) if enough else np.nan, None)
        shift_px = np.median(np.linalg.norm(corners[kept] - self._corners[kept], axis=1)) / _scale(frame)
        return CameraMotion(
            float(shift_px),
            float(np.median(change_m)) if enough else np.nan,
            self._confirmed(_rigid(self._points[kept], _lifted(frame, corners[kept])), frame, gray, background),
        )

    def _confirmed(
        self, now_from_reference: Float64 | None, frame: RGBDFrame, gray: UInt8, background: Bool
    ) -> Float64 | None:
        """The motion, if it lays the background's texture on what is seen now; a few corners may agree by chance."""
        if now_from_reference is None:
            return None
        rows, columns = np.nonzero(self._background)
        points = frame.camera.rays[rows, columns] * self._depth_m[rows, columns, None]
        uv = project(transform_points(now_from_reference, points), frame.camera)
        height, width = gray.shape
        inside = ((uv > -0.5) & (uv < [width - 0.5, height - 0.5])).all(axis=1)  # NaN is outside
        there = np.rint(uv[inside]).astype(int)
        shown = background[there[:, 1], there[:, 0]]
        before = _texture(self._gray)[rows[inside][shown], columns[inside][shown]]
        now = _texture(gray)[there[shown, 1], there[shown, 0]]
        if len(now) < MIN_BACKGROUND_SHARE * gray.size or not (before.any() and now.any()):
            return None
        return now_from_reference if np.corrcoef(before, now)[0, 1] >= MIN_CORRELATION else None

    def _follow(self, gray: UInt8, background: Bool) -> tuple[Float32, Bool]:
        """(C, 2) the corners in another image, and which of them were found on its background."""
        import cv2

        if not len(self._corners):
            return self._corners, np.zeros(0, np.bool_)
        size = (WINDOW_PX, WINDOW_PX)
        start = self._corners[:, None]
        there, found, _ = cv2.calcOpticalFlowPyrLK(self._gray, gray, start, None, winSize=size)  # type: ignore[call-overload]  # the stub wants an array for None
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(gray, self._gray, there, None, winSize=size)  # type: ignore[call-overload]  # as above
        corners = np.asarray(there, np.float32)[:, 0]
        returned = np.linalg.norm(np.asarray(back)[:, 0] - self._corners, axis=1) <= MAX_ROUND_TRIP_PX
        kept = returned & (found.ravel() > 0) & (found_back.ravel() > 0)
        columns, rows = np.rint(corners).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < gray.shape[1]) & (rows < gray.shape[0])
        kept &= inside & background[np.where(inside, rows, 0), np.where(inside, columns, 0)]
        return corners, np.asarray(kept)


def _rigid(before: Float64, after: Float64) -> Float64 | None:
    """(4, 4) now_from_before of a resting background's (C, 3) points; None where too few agree."""
    fit = fit_rigid_tracks(before, np.stack([before, after], axis=1)[None], iterations=10)
    if not fit.valid[0] or fit.inlier_fraction[0] < MIN_INLIER_SHARE:
        return None
    agree = fit.inlier_fraction[0] * len(before) >= MIN_CORNERS and fit.residual_m[0, 1] <= MAX_RESIDUAL_M
    return np.asarray(fit.motion_t_from_0[0, 1], np.float64) if agree else None


def _lifted(frame: RGBDFrame, corners: Float32) -> Float64:
    """(C, 3) points of image positions (u, v) inside the image, metres; NaN without depth."""
    columns, rows = np.rint(corners).astype(int).T if len(corners) else np.zeros((2, 0), int)
    camera = frame.camera
    on_plane = (corners - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    rays = np.concatenate([on_plane, np.ones((len(corners), 1))], axis=1)
    return np.asarray(rays * frame.depth_m[rows, columns, None], np.float64)


def _background(frame: RGBDFrame, instances: InstanceMap) -> Bool:
    """(H, W) pixels with depth, off every instance."""
    import cv2

    reach = 2 * round(BORDER_PX * _scale(frame)) + 1
    covered = cv2.dilate((instances.ids > 0).astype(np.uint8), np.ones((reach, reach), np.uint8))
    return np.asarray(frame.valid & (covered == 0))


def _gray(frame: RGBDFrame) -> UInt8:
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame.rgb), cv2.COLOR_RGB2GRAY), np.uint8)


def _texture(gray: UInt8) -> Float32:
    import cv2

    bright = gray.astype(np.float32)
    return np.asarray(bright - cv2.blur(bright, (TEXTURE_PX, TEXTURE_PX)), np.float32)


def _scale(frame: RGBDFrame) -> float:
    return frame.camera.width / 640
