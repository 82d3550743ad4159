"""Video files, decoded with OpenCV: frames by number or all in order, always from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from momap_ros.rgbd import UInt8

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")


class VideoError(ValueError):
    """A video that cannot be decoded, or ends before the frame that was asked for."""


class VideoReader:
    """One video file; used as a context manager.

    Seeking in compressed video is inexact with some encoders, so frames are counted: going forward costs decoding,
    going back means opening the file again.

    Attributes:
        path: the file.
        rate_hz: frames per second that the file states; 0 where it states none.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            VideoError: not one frame can be decoded.
        """
        import cv2

        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        self.rate_hz = float(self._capture.get(cv2.CAP_PROP_FPS))
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC)) if self._capture.isOpened() else 0
        self._next = 0
        if not self._advance():
            codec = bytes(code >> shift & 255 for shift in (0, 8, 16, 24)).decode("ascii", "replace").strip("\0")
            raise VideoError(
                f"expected a video, could not decode one frame{f' of codec {codec}' if codec else ''}; convert it to "
                "H.264, for instance with `ffmpeg -i OLD.mp4 -c:v libx264 NEW.mp4`"
            )

    def __enter__(self) -> VideoReader:
        """The reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._capture.release()

    def frame(self, number: int) -> UInt8:
        """(H, W, 3) RGB of a frame, counted from 0.

        Raises:
            VideoError: the video ends before.
        """
        if number < self._next - 1:
            self._capture.open(str(self.path))
            self._next = 0
        while self._next <= number:
            if not self._advance():
                raise VideoError("expected more frames, the video ends early; it is incomplete: copy it again")
        return self._current()

    def __iter__(self) -> Iterator[UInt8]:
        """(H, W, 3) RGB of every frame from the first on."""
        number = 0
        while number < self._next or self._advance():
            yield self.frame(number)
            number += 1

    def _advance(self) -> bool:
        """Decode the next frame, if there is one; it becomes the current one."""
        found = bool(self._capture.grab())
        self._next += found
        return found

    def _current(self) -> UInt8:
        import cv2

        readable, bgr = self._capture.retrieve()
        if not readable:
            raise VideoError("expected a colour frame, could not decode it; the video is damaged: copy it again")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
