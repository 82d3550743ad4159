from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.geometry import PinholeCamera
from momap_ros.simulation.intrinsics import REAL_CAMERAS, draw_intrinsics, fitted

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
# Degrees across and down, of the makers' data sheets, for the whole sensor; devices differ by up to 3.
FIELDS_OF_VIEW_DEG = {
    "realsense_d435": (None, 42.5),  # calibrated at 640x480, which cuts off the sides
    "realsense_d415": (69.4, 42.5),
    "realsense_l515": (70, 43),
    "azure_kinect": (90, 59),
    "kinect_v1": (62, 48.6),
    "zed_2": (None, 70),  # rectification cuts off the sides
}


def fov_deg(size: float, focal: float) -> float:
    return float(np.degrees(2 * np.arctan(size / 2 / focal)))


@pytest.mark.parametrize("name", FIELDS_OF_VIEW_DEG)
def test_fields_of_view_are_those_of_the_data_sheet(name: str) -> None:
    camera, (across, down) = REAL_CAMERAS[name], FIELDS_OF_VIEW_DEG[name]
    assert down is not None
    assert fov_deg(camera.height, camera.fy) == pytest.approx(down, abs=3)
    if across is not None:
        assert fov_deg(camera.width, camera.fx) == pytest.approx(across, abs=3)


def test_the_webcam_has_its_diagonal() -> None:
    camera = REAL_CAMERAS["webcam"]
    assert fov_deg(np.hypot(camera.width, camera.height), camera.fx) == pytest.approx(78, abs=0.01)


@pytest.mark.parametrize(("name", "folder"), [("zed", "pour_water_rgbd"), ("kinect_v1", "tabletop_labelled")])
def test_recordings_have_the_intrinsics_of_their_camera(name: str, folder: str) -> None:
    file = SHARED_DATA / folder / "camera.json"
    if not file.exists():
        pytest.skip(f"needs {folder} of the shared data")
    known = json.loads(file.read_text())
    camera = PinholeCamera(**{key: known[key] for key in ("width", "height", "fx", "fy", "cx", "cy")})
    assert REAL_CAMERAS[name] == camera


@pytest.mark.parametrize(("width", "height"), [(128, 128), (320, 240), (320, 180), (256, 128), (60, 90)])
def test_a_pixel_looks_where_it_looked_in_the_original_image(width: int, height: int) -> None:
    original = REAL_CAMERAS["azure_kinect"]
    camera = fitted(original, width, height)
    assert (camera.width, camera.height) == (width, height)
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])  # of the outermost pixels
    rays = (corners - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    first, last = rays * [original.fx, original.fy] + [original.cx, original.cy]
    if width == height:
        np.testing.assert_allclose([first, last], [[-0.5, -0.5], [1279.5, 719.5]])
        return
    assert camera.fx / camera.fy == pytest.approx(original.fx / original.fy, rel=0.005)
    assert np.all(first >= -0.501)
    assert np.all(last <= [1279.501, 719.501])
    np.testing.assert_allclose((first + last) / 2, [639.5, 359.5], atol=1)  # cropped around the middle
    assert min(last - first - [1280, 720]) == pytest.approx(min(0, *(last - first - [1280, 720])), abs=1)
    assert np.any(np.abs(last - first - [1280, 720]) < 1)  # and no more than needed


def test_square_images_are_stretched_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    square = [draw_intrinsics(rng, 128, 128) for _ in range(600)]
    names = [name for name, _ in square]
    stretches = {name: np.median([c.fy / c.fx for n, c in square if n == name]) for name in set(names)}
    expected = {"pinhole_1x1": 1.0, "pinhole_4x3": 171 / 128, "pinhole_16x9": 228 / 128}  # at a whole number of pixels
    expected |= {name: (c.fy / c.height) / (c.fx / c.width) for name, c in REAL_CAMERAS.items()}
    assert stretches == pytest.approx(expected, rel=1e-9)
    assert np.mean([name in REAL_CAMERAS for name in names]) == pytest.approx(0.5, abs=0.08)
    for _ in range(50):
        name, camera = draw_intrinsics(rng, 320, 240)
        assert (camera.width, camera.height) == (320, 240)
        assert camera.fx / camera.fy == pytest.approx(1, rel=0.005)
        assert not name.startswith("pinhole_")


def test_no_two_devices_are_alike_but_all_are_near_their_kind() -> None:
    rng = np.random.default_rng(0)
    drawn = [camera for name, camera in (draw_intrinsics(rng, 640, 480) for _ in range(1500)) if name == "kinect_v1"]
    focal = np.array([camera.fx for camera in drawn])
    centre = np.array([[camera.cx, camera.cy] for camera in drawn])
    assert len(set(focal)) == len(focal) > 50
    assert focal.mean() == pytest.approx(525, abs=4 * 5.25 / np.sqrt(len(focal)))
    assert focal.std() == pytest.approx(5.25, rel=0.4)
    np.testing.assert_allclose(centre.std(0), 3.2, rtol=0.4)
    np.testing.assert_allclose(centre.mean(0), [319.5, 239.5], atol=4 * 3.2 / np.sqrt(len(focal)))
