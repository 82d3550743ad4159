"""Scenes to look around in, and the orbit around them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from momap_ros.geometry import PinholeCamera, project
from momap_ros.momap import MoMap, PointTrajectories
from momap_ros.rgbd import RGBDFrame
from momap_ros.viewer import ViewerError, orbit_frames, scene_from_forecast, scene_from_momap, show_window

CAMERA = PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5)


def wall_momap() -> MoMap:
    """A wall at one metre of which the left half moves 10 cm to the right; the first row has no depth."""
    xyz = np.broadcast_to(CAMERA.rays, (5, 24, 32, 3)).copy()
    xyz[:, :, :16, 0] += np.linspace(0, 0.1, 5, dtype=np.float32)[:, None, None]
    valid = np.ones((24, 32), bool)
    valid[0] = False
    xyz[:, ~valid] = np.nan
    return MoMap(xyz, valid, 0.2)


def test_a_momap_shows_its_points_and_the_tracks_of_those_that_move() -> None:
    scene = scene_from_momap(wall_momap())
    assert scene.points.shape == (5, 23 * 32, 3)
    assert (scene.colors == (255, 150, 60)).all(axis=-1).sum() == 23 * 16
    assert 10 < len(scene.tracks) <= 32
    np.testing.assert_allclose(scene.tracks[:, -1] - scene.tracks[:, 0], [[0.1, 0, 0]] * len(scene.tracks), atol=1e-6)
    uv = project(scene.points[0], scene.camera)
    assert uv.min() >= -0.6
    assert (uv.max(axis=0) <= [31.6, 23.6]).all()


def test_a_forecast_keeps_the_image_colours() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    frame = RGBDFrame(rgb, np.ones((24, 32), np.float32), CAMERA)
    pixels = np.array([[3, 4], [10, 20]], np.int32)
    positions = np.broadcast_to(frame.points_in_camera[pixels[:, 1], pixels[:, 0]][:, None], (2, 5, 3)).copy()
    positions[0, :, 0] += np.linspace(0, 0.1, 5)
    trajectories = PointTrajectories(positions[None], np.array([1, 1], np.int32), pixels, 32, 24, 0.2)
    scene = scene_from_forecast(frame, trajectories)
    assert scene.points.shape == (5, 24 * 32 + 2, 3)
    np.testing.assert_array_equal(scene.colors[-2:], rgb[[4, 20], [3, 10]])
    np.testing.assert_allclose(scene.points[:, -2:], positions.transpose(1, 0, 2))
    np.testing.assert_array_equal(scene.tracks, positions[:1])


def test_the_orbit_turns_about_the_middle_of_the_scene() -> None:
    scene = scene_from_momap(wall_momap())
    pictures = list(orbit_frames(scene, width=64))
    assert {picture.shape for picture in pictures} == {(48, 64, 3)}
    assert len(pictures) == 72
    backdrop = (30, 33, 40)
    for picture in pictures[:: len(pictures) // 6]:
        assert (picture[24, 32] != backdrop).any(), "the middle of the wall stays in the middle of the picture"
    assert (pictures[0] != pictures[18]).any()


@pytest.mark.skipif(sys.platform != "linux", reason="displays are found by environment variables on Linux alone")
def test_without_a_display_the_error_offers_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open3d", reason="needs open3d")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ViewerError, match=r"expected a display, got none; .*--save FILE.mp4"):
        show_window(scene_from_momap(wall_momap()), "momap")
