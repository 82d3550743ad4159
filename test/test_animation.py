"""Moving pictures: pixels carried along their trajectories, and the files they end up in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from momap_ros import animation
from momap_ros.animation import forecast_frames, save_animation
from momap_ros.config import ObjectMotionConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.rgbd import RGBDFrame, UInt8

CAMERA = PinholeCamera(640, 480, 500.0, 500.0, 319.5, 239.5)
STEPS = 6


def textured_scene() -> tuple[RGBDFrame, InstanceMap]:
    """A random texture at one metre; instance 4 is the square of pixels 200 to 279 by 200 to 279."""
    rgb = np.random.default_rng(0).integers(40, 256, (480, 640, 3), dtype=np.uint8)
    ids = np.zeros((480, 640), np.int32)
    ids[200:280, 200:280] = 4
    return RGBDFrame(rgb, np.full((480, 640), 1.0, np.float32), CAMERA), InstanceMap(ids)


def shifted(frame: RGBDFrame, move_m: tuple[float, float, float]) -> tuple[PointTrajectories, list[ObjectMotion]]:
    rows, columns = np.mgrid[204:280:8, 204:280:8].reshape(2, -1)
    start = frame.points_in_camera[rows, columns]
    positions = start[:, None] + np.linspace(0, 1, STEPS)[:, None].astype(np.float32) * np.array(move_m, np.float32)
    pixels = np.stack([columns, rows], axis=1).astype(np.int32)
    ids = np.full(len(rows), 4, np.int32)
    trajectories = PointTrajectories(positions[None].astype(np.float32), ids, pixels, 640, 480, 0.2)
    return trajectories, estimate_object_motions(trajectories, ObjectMotionConfig())


def test_a_moving_object_takes_its_pixels_along_and_leaves_a_ghost() -> None:
    frame, instances = textured_scene()
    trajectories, objects = shifted(frame, (0.3, 0.0, 0.0))  # 150 pixels to the right
    pictures = list(forecast_frames(frame, instances, trajectories, objects))
    assert len(pictures) == STEPS
    assert {picture.shape for picture in pictures} == {(480, 640, 3)}
    first, last = pictures[0].astype(int), pictures[-1].astype(int)
    original = frame.rgb.astype(int)
    # Tails are drawn over some of the pixels: most must be exactly what they should be.
    assert share_equal(first[200:280, 200:280], original[200:280, 200:280]) == 1.0
    assert share_equal(last[200:280, 350:430], original[200:280, 200:280]) > 0.6
    assert share_equal(last[200:280, 200:280], original[200:280, 200:280] * 0.42) > 0.6
    assert share_equal(last[80:190, 300:600], original[80:190, 300:600] * 0.8) == 1.0


def share_equal(picture: npt.NDArray[np.int_], expected: npt.NDArray[np.number]) -> float:
    """Share of the pixels that agree to the last bit but rounding."""
    return float((np.abs(picture - expected) <= 1).all(axis=-1).mean())


def test_an_object_goes_behind_what_is_nearer() -> None:
    frame, instances = textured_scene()
    depth_m = frame.depth_m.copy()
    depth_m[:, 400:] = 0.5
    frame = RGBDFrame(frame.rgb, depth_m, CAMERA)
    trajectories, objects = shifted(frame, (0.3, 0.0, 0.0))
    last = list(forecast_frames(frame, instances, trajectories, objects))[-1].astype(int)
    original = frame.rgb.astype(int)
    assert share_equal(last[200:280, 350:400], original[200:280, 200:250]) > 0.6
    assert share_equal(last[200:280, 404:430], original[200:280, 404:430] * 0.8) > 0.6


def test_a_turn_carries_every_pixel_exactly() -> None:
    frame, instances = textured_scene()
    # A quarter turn about the viewing axis through the square's centre, pixel (239.5, 239.5).
    rows, columns = np.mgrid[204:280:8, 204:280:8].reshape(2, -1)
    start = frame.points_in_camera[rows, columns].astype(np.float64)
    centre = np.array([(239.5 - 319.5) / 500, 0.0, 1.0])
    angles = np.linspace(0, np.pi / 2, STEPS)
    turns = np.array([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angles])
    positions = np.einsum("tij,pj->pti", turns, start - centre) + centre
    pixels, ids = np.stack([columns, rows], axis=1).astype(np.int32), np.full(len(rows), 4, np.int32)
    # The centroid would stay; a shift of 20 cm makes it count as moving.
    positions += np.linspace(0, 0.2, STEPS)[:, None] * np.array([1.0, 0, 0])
    trajectories = PointTrajectories(positions[None].astype(np.float32), ids, pixels, 640, 480, 0.2)
    (motion,) = estimate_object_motions(trajectories, ObjectMotionConfig())
    last = list(forecast_frames(frame, instances, trajectories, [motion]))[-1].astype(int)
    # x -> right, y -> down: the turn takes the image's columns to rows; the shift is 100 pixels.
    turned = np.rot90(frame.rgb[200:280, 200:280].astype(int), -1)
    assert share_equal(last[200:280, 300:380], turned) > 0.6


def test_still_scenes_stay_and_small_images_are_enlarged() -> None:
    frame, instances = textured_scene()
    trajectories, objects = shifted(frame, (0.0, 0.0, 0.0))
    small, small_instances = frame.resized(320, 240), instances.resized(320, 240)
    pictures = list(forecast_frames(small, small_instances, trajectories, objects))
    assert {picture.shape for picture in pictures} == {(480, 640, 3)}
    changes = [np.abs(picture.astype(int) - pictures[0]).max(axis=-1) > 8 for picture in pictures]
    # Only the clock below runs.
    assert not any(change[:380].any() for change in changes)
    assert changes[-1][420:].any()


def test_large_images_are_reduced() -> None:
    frame, instances = textured_scene()
    trajectories, objects = shifted(frame, (0.1, 0.0, 0.0))
    large, large_instances = frame.resized(1280, 960), instances.resized(1280, 960)
    assert next(forecast_frames(large, large_instances, trajectories, objects)).shape == (480, 640, 3)


def some_pictures(count: int = 5) -> list[UInt8]:
    return [np.full((48, 64, 3), 40 * index, np.uint8) for index in range(count)]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_files_play_every_picture_and_hold_the_ends(tmp_path: Path, suffix: str) -> None:
    path = save_animation(tmp_path / f"a{suffix}", some_pictures(), frame_s=0.1)
    assert path.stem == "a"
    levels = read_levels(path)
    # 10 Hz: half a second of the first picture before, a second of the last after.
    assert len(levels) == 5 + 5 + 10
    np.testing.assert_allclose(levels, [0] * 5 + [0, 40, 80, 120, 160] + [160] * 10, atol=4)


def read_levels(path: Path) -> list[float]:
    if path.suffix == ".gif":
        with Image.open(path) as image:
            levels = []
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                repeats = round(image.info["duration"] / 100)
                levels += [float(np.asarray(image.convert("RGB")).mean())] * repeats
            return levels
    video, levels = cv2.VideoCapture(str(path)), []
    while True:
        readable, picture = video.read()
        if not readable:
            return levels
        levels.append(float(picture.mean()))


def test_a_machine_without_encoder_writes_a_gif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "_CODEC", "none")
    path = save_animation(tmp_path / "a.mp4", some_pictures(), frame_s=0.1)
    assert path == tmp_path / "a.gif"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.gif"]


def test_animations_need_pictures_and_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a name ending in .mp4 or .gif"):
        save_animation(tmp_path / "a.avi", some_pictures(), frame_s=0.1)
    with pytest.raises(ValueError, match="got 0 pictures"):
        save_animation(tmp_path / "a.mp4", [], frame_s=0.1)
