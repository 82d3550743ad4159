"""Frames of videos by number."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from momap_ros.video import VideoError, VideoReader


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Eight frames at 4 Hz; frame n is red of level 20 n + 40."""
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 4.0, (32, 24))  # type: ignore[attr-defined]
    for number in range(8):
        image = np.zeros((24, 32, 3), np.uint8)
        image[..., 2] = 20 * number + 40
        writer.write(image)
    writer.release()
    return path


def test_frames_by_number_in_any_order(video: Path) -> None:
    with VideoReader(video) as reader:
        assert reader.rate_hz == 4.0
        for number in (0, 3, 3, 7, 2, 2, 0):
            frame = reader.frame(number)
            assert frame.shape == (24, 32, 3)
            np.testing.assert_allclose(frame.mean(axis=(0, 1)), [20 * number + 40, 0, 0], atol=4)


def test_all_frames_whatever_was_read_before(video: Path) -> None:
    with VideoReader(video) as reader:
        for first in (0, 5):
            reader.frame(first)
            levels = [frame[..., 0].mean() for frame in reader]
            np.testing.assert_allclose(levels, [20 * number + 40 for number in range(8)], atol=4)


def test_missing_frames_and_broken_files_are_errors(video: Path) -> None:
    with VideoReader(video) as reader, pytest.raises(VideoError, match="the video ends early"):
        reader.frame(8)
    video.write_bytes(video.read_bytes()[:400])
    with pytest.raises(VideoError, match="could not decode one frame"):
        VideoReader(video)
