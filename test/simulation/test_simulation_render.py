from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco

from momap_ros.geometry import PinholeCamera, unproject_depth
from momap_ros.simulation.cameras import View, look_at
from momap_ros.simulation.checks import cast_rays
from momap_ros.simulation.render import MIN_MEAN_LUMA, SceneRenderer

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.simulation.episodes import Episode
    from momap_ros.simulation.hand import Rollout

POSE = look_at(np.array([-0.3, 0.35, 0.5]), np.array([0.28, 0.0, 0.02]), np.array([0.05, 0, 1.0]))
Stage = tuple[mujoco.MjModel, mujoco.MjData]


@pytest.fixture(scope="module")
def stage(perform_skill: Callable[[str, int], tuple[Episode, Rollout]]) -> Stage:
    episode, _ = perform_skill("open_drawer", 3)
    data = mujoco.MjData(episode.scene.model)
    episode.restore(data, 0)
    return episode.scene.model, data


@pytest.fixture
def renderer(stage: Stage, camera: PinholeCamera) -> Iterator[SceneRenderer]:
    made = SceneRenderer(stage[0], camera.width, camera.height)
    yield made
    made.close()


def luma(image: npt.NDArray[np.uint8]) -> float:
    """Mean brightness as ITU-R BT.601 weighs the colours."""
    return float(image.mean((0, 1)) @ [0.299, 0.587, 0.114])


def described(camera: PinholeCamera) -> str:
    return f"{camera.width}x{camera.height}-fx{camera.fx:.0f}-fy{camera.fy:.0f}-cx{camera.cx:.0f}"


CAMERAS = [
    PinholeCamera.from_fov(96, 96, vertical_fov_rad=0.9),
    PinholeCamera.from_fov(640, 480, vertical_fov_rad=0.8).resized(96, 96),
    PinholeCamera.from_fov(1280, 720, vertical_fov_rad=0.7).resized(96, 96),
    PinholeCamera.from_fov(128, 72, vertical_fov_rad=0.7),
    PinholeCamera(100, 80, 90.0, 110.0, 35.0, 52.0),  # off-centre, as real calibrations are
]


@pytest.mark.parametrize("camera", CAMERAS, ids=described)
def test_an_unprojected_pixel_lies_where_its_ray_meets_the_scene(
    stage: Stage, renderer: SceneRenderer, camera: PinholeCamera
) -> None:
    model, data = stage
    view = View(camera, POSE)
    depth_m, _ = renderer.depth_and_bodies(data, view)
    points = unproject_depth(depth_m, camera).reshape(-1, 3)[::7]
    gaps = np.abs(cast_rays(model, data, points, view.camera_from_world).gap_m)
    assert np.median(gaps) < 1e-5  # half a pixel off in the image would be millimetres on the table
    assert np.mean(gaps < 1e-3) > 0.98  # the rest: edges, and curved surfaces that are drawn as polygons


@pytest.mark.parametrize("camera", CAMERAS[1:3] + CAMERAS[4:], ids=described)
def test_the_body_of_a_pixel_is_the_one_its_ray_meets(
    stage: Stage, renderer: SceneRenderer, camera: PinholeCamera
) -> None:
    model, data = stage
    _, bodies = renderer.depth_and_bodies(data, View(camera, POSE))
    groups, geom, hits = np.array([1, 1, 1, 0, 0, 0], np.uint8), np.zeros(1, np.int32), []
    rays = (camera.rays.reshape(-1, 3)[::7].astype(np.float64)) @ POSE[:3, :3].T
    for ray in rays:
        mujoco.mj_ray(model, data, POSE[:3, 3].copy(), ray, groups, 1, -1, geom, None)
        hits.append(model.geom_bodyid[geom[0]])
    assert np.mean(bodies.reshape(-1)[::7] == hits) > 0.995
    assert len(set(hits)) >= 4


@pytest.mark.parametrize("camera", [PinholeCamera.from_fov(96, 96, vertical_fov_rad=0.9)], ids=described)
def test_a_cropped_camera_renders_the_crop(stage: Stage, renderer: SceneRenderer, camera: PinholeCamera) -> None:
    model, data = stage
    whole, _ = renderer.depth_and_bodies(data, View(camera, POSE))
    crop = SceneRenderer(model, 40, 30)
    part, _ = crop.depth_and_bodies(data, View(camera.cropped(50, 20, 40, 30), POSE))
    crop.close()
    close = np.isclose(part, whole[20:50, 50:90], rtol=1e-4)
    assert close.mean() > 0.99  # a pixel on an edge may fall to the other side


@pytest.mark.parametrize("camera", [PinholeCamera.from_fov(64, 48, vertical_fov_rad=0.9)], ids=described)
def test_supersampling_is_the_average_of_a_larger_image(
    stage: Stage, renderer: SceneRenderer, camera: PinholeCamera
) -> None:
    model, data = stage
    large = SceneRenderer(model, 128, 96)
    expected = large.rgb(data, View(camera.resized(128, 96), POSE)).reshape(48, 2, 64, 2, 3).mean((1, 3))
    large.close()
    smooth = SceneRenderer(model, 64, 48, supersampling=2)
    image = smooth.rgb(data, View(camera, POSE))
    smooth.close()
    assert image.shape == renderer.rgb(data, View(camera, POSE)).shape == (48, 64, 3)
    np.testing.assert_allclose(image, expected, atol=1.0)


@pytest.mark.parametrize("camera", [PinholeCamera.from_fov(64, 48, vertical_fov_rad=0.9)], ids=described)
def test_a_dark_scene_is_brightened_and_a_black_one_refused(
    camera: PinholeCamera, perform_skill: Callable[[str, int], tuple[Episode, Rollout]]
) -> None:
    episode, _ = perform_skill("lift", 2)
    model = episode.scene.model
    data = mujoco.MjData(model)
    episode.restore(data, 0)
    model.light_active[:] = 0
    model.vis.headlight.diffuse[:] = 0
    model.vis.headlight.ambient[:] = 0.1
    dim = SceneRenderer(model, 64, 48)
    assert luma(dim.rgb(data, View(camera, POSE))) < MIN_MEAN_LUMA
    bright = dim.bright_rgb(data, View(camera, POSE))
    assert bright is not None
    assert luma(bright) >= MIN_MEAN_LUMA
    model.mat_rgba[:, :3] = 0
    assert dim.bright_rgb(data, View(camera, POSE)) is None
    dim.close()


def test_no_sample_is_unreadably_dark(samples: list[Sample]) -> None:
    assert min(luma(sample.rgb) for sample in samples) >= MIN_MEAN_LUMA
