"""Samples of an episode: cameras that see it, their images, and every body's motion in their frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mujoco
import numpy as np

from momap_ros.data.sample import Sample, UInt8
from momap_ros.geometry import Float32, Float64, invert_se3, project, transform_points
from momap_ros.simulation.cameras import View, draw_view
from momap_ros.simulation.episodes import Episode, body_roles
from momap_ros.simulation.language import wording
from momap_ros.simulation.render import SceneRenderer
from momap_ros.simulation.scene import Scene

NUM_STEPS = 50
MIN_ACTED_SHARE = 0.0025  # of the pixels
MIN_DEPTH_M = 0.12
_LARGEST_LINK_M = 0.06  # half the width of anything that a camera could be in
_MARGIN = 0.03  # of the image, kept free around the acted body's path
_MAX_DRAWS = 400
_MAX_RENDERED = 12
_AT_REST = 1e-5  # metres of the origin, or elements of the rotation matrix


@dataclass(frozen=True)
class Stage:
    """An episode ready to be looked at.

    Attributes:
        episode: the episode.
        data: the simulation, at step 0.
        world_from_bodies: (T, B, 4, 4) pose of every body at NUM_STEPS equal steps, metres.
        renderer: draws the episode's scene.
    """

    episode: Episode
    data: mujoco.MjData
    world_from_bodies: Float64
    renderer: SceneRenderer


@dataclass(frozen=True, eq=False)
class FirstImage:
    """What a camera sees at step 0: colour (H, W, 3), depth (H, W) in metres, and body ids (H, W)."""

    view: View
    rgb: UInt8
    depth_m: Float32
    body_ids: UInt8


def open_stage(episode: Episode, width: int, height: int, *, supersampling: int = 1) -> Stage:
    """Prepare an episode for images of this size; close the renderer when done."""
    model = episode.scene.model
    data = mujoco.MjData(model)
    world_from_bodies = episode.world_from_bodies(data, episode.state_indices(NUM_STEPS))
    episode.restore(data, 0)
    renderer = SceneRenderer(model, width, height, supersampling=supersampling)
    return Stage(episode, data, world_from_bodies, renderer)


def render_samples(episode: Episode, num_views: int, size: int) -> list[Sample]:
    """Up to `num_views` samples of `size` x `size` pixels; view k depends on the episode, the size and k alone."""
    stage = open_stage(episode, size, size)
    aims = candidates_xy(episode.scene, stage.world_from_bodies)
    samples = []
    for view_index in range(num_views):
        rng = episode.view_rng(view_index)
        first = find_view(stage, partial(draw_view, rng, size, size, aims))
        if first is not None:
            key = f"{episode.split}_{episode.index:07d}_{view_index}"
            samples.append(build_sample(stage, first, rng, key=key))
    stage.renderer.close()
    return samples


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
    """(T, 3) centre of the acted body over time, metres, world; where nothing is acted on, of the first object."""
    scene = episode.scene
    name = scene.acted or scene.objects[0].name
    return transform_points(world_from_bodies[:, scene.model.body(name).id], body_centre(scene.model, name))


def candidates_xy(scene: Scene, world_from_bodies: Float64) -> Float64:
    """(K, 2) where every object, or the cabinet, stands at step 0, metres, world."""
    names = [item.name for item in scene.objects] + [fixture.body for fixture in scene.fixtures]
    return np.array([world_from_bodies[0, scene.model.body(name).id, :2, 3] for name in names])


def path_in_view(path_in_world: Float64, view: View) -> bool:
    """Whether (P, 3) points all project well inside the image."""
    camera = view.camera
    uv = project(transform_points(view.camera_from_world, path_in_world), camera)
    share = (uv + 0.5) / [camera.width, camera.height]
    return bool(((share > _MARGIN) & (share < 1 - _MARGIN)).all())  # NaN, a point behind the camera, is not inside


def find_view(stage: Stage, draw: Callable[[], View]) -> FirstImage | None:
    """The first camera drawn that shows the acted body and its whole way, with its images; None if there is none."""
    scene = stage.episode.scene
    path = acted_path(stage.episode, stage.world_from_bodies)[[0, NUM_STEPS // 2, -1]]
    acted = scene.model.body(scene.acted).id if scene.acted else -1
    rendered = 0
    for _ in range(_MAX_DRAWS):
        view = draw()
        if not path_in_view(path, view):
            continue
        depth_m, bodies = stage.renderer.depth_and_bodies(stage.data, view)
        visible = (acted < 0 or (bodies == acted).mean() >= MIN_ACTED_SHARE) and bodies.min() >= 0
        if visible and depth_m.min() > MIN_DEPTH_M and _is_in_the_open(stage, view):
            rgb = stage.renderer.bright_rgb(stage.data, view)
            if rgb is not None:
                return FirstImage(view, rgb, depth_m, bodies.astype(np.uint8))
        rendered += 1
        if rendered == _MAX_RENDERED:
            break
    return None


def _is_in_the_open(stage: Stage, view: View) -> bool:
    """Whether the camera is outside the arm: a renderer leaves out the surfaces that are seen from inside."""
    pose, groups, geom = view.world_from_camera, np.array([1, 1, 1, 0, 0, 0], np.uint8), np.zeros(1, np.int32)
    model, origin = stage.episode.scene.model, np.ascontiguousarray(pose[:3, 3])
    for axis in np.ascontiguousarray(pose[:3, :3].T):
        if 0 <= mujoco.mj_ray(model, stage.data, origin, axis, groups, 1, -1, geom, None) < _LARGEST_LINK_M:
            return False
    return True


def build_sample(stage: Stage, first: FirstImage, rng: np.random.Generator, *, key: str) -> Sample:
    """The sample of a view; `rng` words its sentence."""
    episode, scene = stage.episode, stage.episode.scene
    path = acted_path(episode, stage.world_from_bodies)
    moving = moving_bodies(stage.world_from_bodies)
    item = scene.acted_object
    camera_from_world = first.view.camera_from_world
    said = wording(
        scene,
        episode.skill,
        rng,
        motion_in_world=path[-1] - path[0],
        world_from_camera=first.view.world_from_camera,
    )
    step_s = episode.rollout.step_s
    return Sample(
        key=key,
        split=episode.split,
        skill=scene.skill,
        kind=item.kind if item else scene.acted,
        text=said.text,
        rgb=first.rgb,
        depth_m=first.depth_m,
        body_ids=first.body_ids,
        camera=first.view.camera,
        camera_from_world=camera_from_world,
        body_names=body_labels(scene),
        body_roles=body_roles(scene),
        moving_bodies=np.array(moving, np.uint8),
        motion_t_from_0=camera_motion(camera_from_world, stage.world_from_bodies[:, moving]),
        duration_s=episode.rollout.duration_s,
        paraphrases=said.paraphrases,
        text_frame=said.frame,
        contacts=tuple((c.body, c.first * step_s, c.last * step_s) for c in episode.rollout.contacts),
        factors=dict(scene.factors),
    )
