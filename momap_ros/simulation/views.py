"""Samples of an episode: cameras that see it, their images, and every body's motion in their frames."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.data.sample import Sample, UInt8
from momap_ros.geometry import Float32, Float64, invert_se3, project, transform_points
from momap_ros.simulation.cameras import View, draw_view
from momap_ros.simulation.episodes import Episode, body_roles
from momap_ros.simulation.language import camera_direction, sentence
from momap_ros.simulation.render import SceneRenderer
from momap_ros.simulation.scene import Scene

NUM_STEPS = 50
MIN_ACTED_SHARE = 0.0025  # of the pixels
MIN_DEPTH_M = 0.12
_MARGIN = 0.03  # of the image, kept free around the acted body's path
_MAX_DRAWS = 400
_MAX_RENDERED = 12
_AT_REST = 1e-5  # metres of the origin, or elements of the rotation matrix


@dataclass(frozen=True)
class _Stage:
    """An episode ready to be looked at: `data` is at step 0, poses are those of every step."""

    episode: Episode
    data: mujoco.MjData
    world_from_bodies: Float64
    renderer: SceneRenderer
    size: int


def render_samples(episode: Episode, num_views: int, size: int) -> list[Sample]:
    """Up to `num_views` samples of `size` x `size` pixels; view k depends on the episode, the size and k alone."""
    data = mujoco.MjData(episode.scene.model)
    world_from_bodies = episode.world_from_bodies(data, episode.state_indices(NUM_STEPS))
    episode.restore(data, 0)
    stage = _Stage(episode, data, world_from_bodies, SceneRenderer(episode.scene.model, size, size), size)
    samples = [_render_sample(stage, view_index) for view_index in range(num_views)]
    stage.renderer.close()
    return [sample for sample in samples if sample is not None]


def moving_bodies(world_from_bodies: Float64) -> list[int]:
    """Bodies whose pose changes at any of the (T, B, 4, 4) steps."""
    change = np.abs(world_from_bodies - world_from_bodies[:1]).max(axis=(0, 2, 3))
    return [int(body) for body in np.flatnonzero(change > _AT_REST)]


def camera_motion(camera_from_world: Float64, world_from_bodies: Float64) -> Float32:
    """(T, B, 3, 4) camera-frame transforms that take a point of each body from step 0 to step t, metres."""
    step_from_first = world_from_bodies @ invert_se3(world_from_bodies[0])
    motion = camera_from_world @ step_from_first @ invert_se3(camera_from_world)
    return np.ascontiguousarray(motion[..., :3, :], np.float32)


def body_centre(model: mujoco.MjModel, name: str) -> Float64:
    """(3,) mean position of a body's geoms, metres, body frame; a door's origin is on its hinge, its centre is not."""
    body = model.body(name).id
    return np.asarray(model.geom_pos[model.geom_bodyid == body].mean(axis=0), np.float64)


def body_labels(scene: Scene) -> tuple[str, ...]:
    """A readable name per body: colour and kind for objects, the body's own name for the rest."""
    described = {item.name: f"{item.color} {item.kind}" for item in scene.objects}
    names = [str(scene.model.body(body).name) for body in range(scene.model.nbody)]
    return tuple(described.get(name, name) for name in names)


def acted_path(episode: Episode, world_from_bodies: Float64) -> Float64:
    """(T, 3) centre of the acted body over time, metres, world."""
    scene = episode.scene
    return transform_points(
        world_from_bodies[:, scene.model.body(scene.acted).id], body_centre(scene.model, scene.acted)
    )


def candidates_xy(scene: Scene, world_from_bodies: Float64) -> Float64:
    """(K, 2) where every object, or the cabinet, stands at step 0, metres, world."""
    names = [item.name for item in scene.objects] + (["cabinet"] if scene.fixture else [])
    return np.array([world_from_bodies[0, scene.model.body(name).id, :2, 3] for name in names])


def path_in_view(path_in_world: Float64, view: View) -> bool:
    """Whether (P, 3) points all project well inside the image."""
    camera = view.camera
    uv = project(transform_points(view.camera_from_world, path_in_world), camera)
    share = (uv + 0.5) / [camera.width, camera.height]
    return bool(((share > _MARGIN) & (share < 1 - _MARGIN)).all())  # NaN, a point behind the camera, is not inside


def _find_view(stage: _Stage, rng: np.random.Generator) -> tuple[View, UInt8, Float32, UInt8] | None:
    """A camera that shows the acted body and its whole way, with colour, depth and body ids; None if none is found."""
    scene = stage.episode.scene
    path = acted_path(stage.episode, stage.world_from_bodies)[[0, NUM_STEPS // 2, -1]]
    acted = scene.model.body(scene.acted).id
    aims = candidates_xy(scene, stage.world_from_bodies)
    rendered = 0
    for _ in range(_MAX_DRAWS):
        view = draw_view(rng, stage.size, stage.size, aims)
        if not path_in_view(path, view):
            continue
        depth_m, bodies = stage.renderer.depth_and_bodies(stage.data, view)
        visible = (bodies == acted).mean() >= MIN_ACTED_SHARE and bodies.min() >= 0
        if visible and depth_m.min() > MIN_DEPTH_M:
            rgb = stage.renderer.rgb(stage.data, view)
            if rgb is not None:
                return view, rgb, depth_m, bodies.astype(np.uint8)
        rendered += 1
        if rendered == _MAX_RENDERED:
            break
    return None


def _render_sample(stage: _Stage, view_index: int) -> Sample | None:
    episode, scene = stage.episode, stage.episode.scene
    rng = episode.view_rng(view_index)
    found = _find_view(stage, rng)
    if found is None:
        return None
    view, rgb, depth_m, body_ids = found
    path = acted_path(episode, stage.world_from_bodies)
    moving = moving_bodies(stage.world_from_bodies)
    item = scene.acted_object
    return Sample(
        key=f"{episode.split}_{episode.index:07d}_{view_index}",
        split=episode.split,
        skill=scene.skill,
        kind=item.kind if item else scene.acted,
        text=sentence(scene, camera_direction(path[-1] - path[0], view.world_from_camera), rng),
        rgb=rgb,
        depth_m=depth_m,
        body_ids=body_ids,
        camera=view.camera,
        camera_from_world=view.camera_from_world,
        body_names=body_labels(scene),
        body_roles=body_roles(scene),
        moving_bodies=np.array(moving, np.uint8),
        motion_t_from_0=camera_motion(view.camera_from_world, stage.world_from_bodies[:, moving]),
        duration_s=episode.rollout.duration_s,
    )
