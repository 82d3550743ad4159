from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.geometry import PinholeCamera, project, transform_points
from momap_ros.simulation.cameras import (
    HELD_OUT_SECTORS,
    SECTORS,
    Framing,
    View,
    draw_framing,
    draw_over_shoulder_view,
    draw_view,
    look_at,
)
from momap_ros.simulation.scene import WORK_AREA_CENTRE

UP = np.array([0.0, 0.0, 1.0])
OBJECTS_XY = np.array([[0.2, 0.1], [0.35, -0.15]])


def drawn(count: int, *, held_out: bool = False) -> list[tuple[Framing, View]]:
    rng = np.random.default_rng(0)
    framings = [draw_framing(rng, 128, 96, OBJECTS_XY, held_out=held_out) for _ in range(count)]
    return [(framing, draw_view(rng, framing, 1.0 + 0.5 * rng.random())) for framing in framings]


def direction(framing: Framing, view: View) -> tuple[float, float]:
    """Azimuth and elevation of the camera as seen from its aim, degrees; azimuth 0 is in front of the robot."""
    x, y, z = view.world_from_camera[:3, 3] - framing.aim
    return float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def test_look_at_puts_the_target_in_the_centre_and_up_in_the_image_up() -> None:
    position, target = np.array([1.0, -2.0, 1.5]), np.array([0.2, 0.1, 0.0])
    world_from_camera = look_at(position, target, UP)
    view = View(PinholeCamera(64, 48, 60.0, 60.0, 31.5, 23.5), world_from_camera)
    np.testing.assert_allclose(world_from_camera[:3, :3] @ world_from_camera[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(world_from_camera[:3, :3]) == pytest.approx(1.0)
    target_in_camera = transform_points(view.camera_from_world, target)
    distance = float(np.linalg.norm(target - position))
    np.testing.assert_allclose(target_in_camera, [0.0, 0.0, distance], atol=1e-12)
    above = project(transform_points(view.camera_from_world, target + 0.1 * UP), view.camera)
    np.testing.assert_allclose(above[0], 31.5, atol=1e-9)
    assert above[1] < 23.5


def test_training_never_sees_from_the_sides_or_steeply() -> None:
    for framing, view in drawn(500):
        azimuth, elevation = direction(framing, view)
        if framing.sector == "top_down":
            assert elevation > 81.9
            continue
        assert elevation < 56  # a camera lifted off the table stands a little higher than drawn
        assert not 62 < abs(azimuth) < 118


def test_held_out_cameras_stand_nowhere_else() -> None:
    for framing, view in drawn(300, held_out=True):
        azimuth, elevation = direction(framing, view)
        assert framing.sector in HELD_OUT_SECTORS
        assert (62 < abs(azimuth) < 118) or 56.9 < elevation < 78.1


def test_sectors_have_their_shares() -> None:
    names = [framing.sector for framing, _ in drawn(800)]
    assert sum(sector.share for sector in SECTORS.values()) == pytest.approx(1)
    assert sum(sector.share for sector in HELD_OUT_SECTORS.values()) == pytest.approx(1)
    for name, sector in SECTORS.items():
        error = np.sqrt(sector.share * (1 - sector.share) / len(names))
        assert names.count(name) / len(names) == pytest.approx(sector.share, abs=4 * error)
    asked = [draw_framing(np.random.default_rng(seed), 64, 64, OBJECTS_XY, sector="side") for seed in range(5)]
    assert {framing.sector for framing in asked} == {"side"}


def test_an_unknown_sector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sector: expected one of \['over_shoulder', .*\], got 'below'"):
        draw_framing(np.random.default_rng(0), 64, 64, OBJECTS_XY, sector="below")


def test_cameras_look_at_their_aim_from_above_the_table() -> None:
    for framing, view in drawn(300) + drawn(100, held_out=True):
        assert view.world_from_camera[2, 3] > 0.03
        seen = project(transform_points(view.camera_from_world, framing.aim), view.camera)
        np.testing.assert_allclose(seen, [view.camera.cx, view.camera.cy], atol=1e-6)


def test_seven_in_ten_cameras_aim_at_any_object_and_the_rest_at_the_table() -> None:
    rng, far = np.random.default_rng(0), np.array([[50.0, 0.0], [90.0, 0.0]])
    aims = np.array([draw_framing(rng, 128, 128, far).aim[0] for _ in range(600)])
    error = np.sqrt(0.7 * 0.3 / 600)
    assert np.mean(aims > 10) == pytest.approx(0.7, abs=4 * error)
    assert np.mean(aims > 70) == pytest.approx(0.35, abs=4 * error)
    nothing = draw_framing(rng, 128, 128, np.zeros((0, 2)))
    np.testing.assert_allclose(nothing.aim[:2], WORK_AREA_CENTRE, atol=0.081)


def test_the_image_spans_the_drawn_extent_unless_the_camera_would_touch() -> None:
    rng, near = np.random.default_rng(1), 0
    for _ in range(200):
        framing = draw_framing(rng, 160, 120, OBJECTS_XY)
        camera = framing.camera
        distance = float(np.linalg.norm(draw_view(rng, framing, 1.5).world_from_camera[:3, 3] - framing.aim)) / 1.5
        spanned = np.sqrt((160 * distance / camera.fx) * (120 * distance / camera.fy))
        if distance > 0.2:
            assert spanned == pytest.approx(framing.extent_m, rel=0.03)
        near += distance <= 0.2
    assert near < 130


def test_the_video_camera_stands_behind_the_robot_and_sees_the_table() -> None:
    for seed in range(20):
        view = draw_over_shoulder_view(np.random.default_rng(seed), 320, 240)
        assert view.world_from_camera[0, 3] < WORK_AREA_CENTRE[0] - 0.1
        centre = project(transform_points(view.camera_from_world, np.array([*WORK_AREA_CENTRE, 0.0])), view.camera)
        assert np.all(np.abs(centre - [159.5, 119.5]) < [40, 40])
