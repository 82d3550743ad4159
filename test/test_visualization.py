"""Pictures: the pixels are where the mathematics says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.config import ObjectMotionConfig
from momap_ros.drawing import Canvas, instance_color, time_colors
from momap_ros.geometry import PinholeCamera, project
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.rgbd import RGBDFrame
from momap_ros.visualization import draw_trajectories, innermost_pixel, overlay_instances

CAMERA = PinholeCamera(320, 240, 300.0, 300.0, 159.5, 119.5)


def grey_frame(level: int = 128) -> RGBDFrame:
    return RGBDFrame(np.full((240, 320, 3), level, np.uint8), np.full((240, 320), 1.0, np.float32), CAMERA)


def straight_forecast(
    move_m: tuple[float, float, float], *, hypotheses: int = 1
) -> tuple[PointTrajectories, list[ObjectMotion]]:
    """Object 1 (around pixel 100, 120) moves in a straight line, object 2 (around pixel 250, 60) stays."""
    pixels = np.array([[u, v] for u, v in np.ndindex(5, 5)]) * 4 - 8
    pixels = np.concatenate([pixels + [100, 120], pixels + [250, 60]]).astype(np.int32)  # noqa: RUF005  (adds vectors)
    ids = np.repeat([1, 2], 25).astype(np.int32)
    start = np.concatenate([(pixels - [159.5, 119.5]) / 300.0, np.ones((50, 1))], axis=1)
    move = np.where(ids[:, None] == 1, np.array(move_m), 0.0)
    positions = start[:, None] + np.linspace(0, 1, 11)[:, None] * move[:, None]
    spread = 1 + 0.2 * np.arange(hypotheses)[:, None, None, None]
    all_positions = start[:, None] + (positions - start[:, None]) * spread
    trajectories = PointTrajectories(all_positions.astype(np.float32), ids, pixels, 320, 240, 0.1)
    return trajectories, estimate_object_motions(trajectories, ObjectMotionConfig())


def near(color: npt.NDArray[np.uint8], expected: tuple[int, ...] | npt.NDArray[np.uint8], tolerance: int) -> bool:
    return bool((np.abs(color.astype(int) - np.array(expected, int)) <= tolerance).all())


def test_time_runs_from_dark_to_bright() -> None:
    colors = time_colors(50).astype(float)
    luma = colors @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > 0).mean() > 0.95
    assert luma[-1] - luma[0] > 100


def test_ids_have_stable_and_different_colours() -> None:
    colors = np.array([instance_color(instance_id) for instance_id in range(1, 16)], float)
    distance = np.linalg.norm(colors[:, None] - colors, axis=-1)[~np.eye(15, dtype=bool)]
    assert distance.min() > 25
    assert instance_color(3) == instance_color(3)


def test_canvas_coordinates_keep_pixel_centres() -> None:
    canvas = Canvas(np.zeros((30, 40, 3), np.uint8), min_width=120)
    assert canvas.scale == 3
    # Pixel (0, 0) becomes the picture's pixels 0, 1, 2: its centre is pixel 1.
    np.testing.assert_allclose(canvas.at(np.array([[0.0, 0.0], [10.0, 5.0]])), [[1.0, 1.0], [31.0, 16.0]])
    canvas.lines(np.array([[10.0, 5.0]]), np.array([[20.0, 5.0]]), (200, 100, 50), 1)
    lit = np.argwhere(canvas.image[..., 0] > 100)
    assert (lit[:, 0].min(), lit[:, 0].max()) == (16, 16)
    assert (lit[:, 1].min(), lit[:, 1].max()) == (31, 61)


@pytest.mark.parametrize("xy", [(-50.0, -50.0), (1000.0, 1000.0), (160.0, 120.0)])
def test_text_stays_inside_the_picture(xy: tuple[float, float]) -> None:
    canvas = Canvas(np.full((240, 320, 3), 255, np.uint8), min_width=320)
    canvas.text(["one line", "another"], xy, size=14, anchor="centre middle", accent=(255, 0, 0))
    changed = np.argwhere((canvas.image != 255).any(axis=-1))
    assert len(changed) > 500
    assert changed.min() >= 3
    assert (changed.max(axis=0) <= [237, 317]).all()


def test_overlay_mixes_the_instance_colour_and_leaves_the_rest() -> None:
    ids = np.zeros((240, 320), np.int32)
    ids[40:200, 60:260] = 9
    picture = overlay_instances(grey_frame(100), InstanceMap(ids, {9: "tray"}), min_width=320)
    assert picture.shape == (240, 320, 3)
    expected = np.round(0.6 * 100 + 0.4 * np.array(instance_color(9))).astype(np.uint8)
    assert near(picture[60, 90], expected, 1)
    np.testing.assert_array_equal(picture[:30], 100)
    np.testing.assert_array_equal(picture[:, 270:], 100)
    outline = picture[41:199, 58:63].reshape(-1, 3)
    assert any(near(color, instance_color(9), 2) for color in outline)


def test_overlay_of_no_instances_is_the_image() -> None:
    picture = overlay_instances(grey_frame(77), InstanceMap(np.zeros((240, 320), np.int32)), min_width=640)
    np.testing.assert_array_equal(picture, np.full((480, 640, 3), 77))


def test_innermost_pixel_of_a_bent_area_is_inside_it() -> None:
    mask = np.zeros((50, 50), bool)
    mask[5:45, 5:12] = True
    mask[38:45, 5:45] = True
    u, v, radius = innermost_pixel(mask)
    assert mask[v, u]
    assert radius == pytest.approx(4.0, abs=1.5)
    mask[:] = True
    u, v, radius = innermost_pixel(mask)
    assert (abs(u - 24.5), abs(v - 24.5)) <= (0.5, 0.5)


def test_tracks_follow_the_projection_in_the_colours_of_time() -> None:
    trajectories, objects = straight_forecast((0.3, 0.0, 0.0))
    picture = draw_trajectories(grey_frame(), trajectories, objects, min_width=960)
    empty = draw_trajectories(grey_frame(), trajectories, [], min_width=960)
    # The centroid goes from pixel (100, 120) to (190, 120): 300 px per metre at one metre.
    path = project(np.array([[-59.5 / 300, 0.5 / 300, 1.0], [-59.5 / 300 + 0.27, 0.5 / 300, 1.0]]), CAMERA)
    np.testing.assert_allclose(path, [[100, 120], [181, 120]])
    colors = time_colors(10)
    for share, color in ((0.05, colors[0]), (0.5, colors[5]), (0.75, colors[7])):
        drawn = picture[3 * 120 + 1, round(3 * (100 + 90 * share)) + 1]
        assert near(drawn, color, 12), (share, drawn, color)
    # Beyond the arrow's tip nothing is drawn, nor around the object that stays.
    np.testing.assert_array_equal(picture[270:450, 630:], empty[270:450, 630:])
    np.testing.assert_array_equal(picture[150:240, 690:810], empty[150:240, 690:810])


def test_a_picture_without_motion_says_so() -> None:
    trajectories, objects = straight_forecast((0.0, 0.0, 0.0))
    picture = draw_trajectories(grey_frame(), trajectories, objects, min_width=320)
    np.testing.assert_array_equal(
        picture[60:180], draw_trajectories(grey_frame(), trajectories, [], min_width=320)[60:180]
    )
    assert len(np.unique(picture[10:50, 100:220].reshape(-1, 3), axis=0)) > 5, "a caption at the top"


def test_other_hypotheses_are_thin_lines_beyond_the_first() -> None:
    single, objects = straight_forecast((0.2, 0.0, 0.0))
    several, _ = straight_forecast((0.2, 0.0, 0.0), hypotheses=4)
    one = draw_trajectories(grey_frame(), single, objects, min_width=320)
    four = draw_trajectories(grey_frame(), several, objects, min_width=320)
    # The fourth ends 60 % farther: 36 pixels beyond the first's end at pixel 160.
    changed = np.argwhere((one != four).any(axis=-1))
    assert changed[:, 1].max() in range(192, 199)


def test_points_that_leave_the_view_or_are_unknown_are_no_problem() -> None:
    trajectories, objects = straight_forecast((0.9, 0.0, -0.95))
    trajectories.positions[0, :5, 4:] = np.nan
    picture = draw_trajectories(grey_frame(), trajectories, objects, prompt="grasp", min_width=320)
    assert picture.shape == (240, 320, 3)
    assert near(picture[120, 104], time_colors(10)[0], 40)


def test_captions_of_neighbours_do_not_cover_each_other() -> None:
    trajectories, _ = straight_forecast((0.2, 0.0, 0.0))
    # Both halves lie on the same pixels and move alike.
    trajectories.positions[:, 25:] = trajectories.positions[:, :25]
    trajectories.pixels[25:] = trajectories.pixels[:25]
    objects = estimate_object_motions(trajectories, ObjectMotionConfig())
    picture = draw_trajectories(grey_frame(), trajectories, objects, min_width=960)
    for instance_id in (1, 2):
        bar = np.asarray((np.abs(picture.astype(int) - instance_color(instance_id)) <= 2).all(axis=-1))
        rows = np.flatnonzero(bar.any(axis=1))
        assert bar.sum() > 60
        assert rows.max() - rows.min() >= 30, "the whole bar is seen"
