"""Samples of an episode: cameras that see it, their images, and every body's motion in their frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
import numpy.typing as npt

from momap_ros.data.sample import Sample, UInt8
from momap_ros.geometry import Float32, Float64, PinholeCamera, invert_se3, project, transform_points
from momap_ros.simulation.cameras import View, draw_framing, draw_view
from momap_ros.simulation.checks import cast_rays, clearance_m
from momap_ros.simulation.episodes import Episode, body_roles
from momap_ros.simulation.language import wording
from momap_ros.simulation.scene import Scene
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.stage import NUM_STEPS as NUM_STEPS
from momap_ros.simulation.stage import Stage, open_stage, restaged
from momap_ros.simulation.visibility import visibility

MIN_ACTED_SHARE = 0.0025  # of the pixels
MIN_DEPTH_M = 0.12
_LATER_LOOKS, _LATER_CLEARANCE_M = 12, 0.06  # a link is no wider than that around a camera within it
_MARGIN = 0.03  # of the image, kept free around the acted body's path
_TEST_PIXELS = 64  # longer side of the image that decides whether a camera is good; a fifth of the time of 256
_MAX_FRAMINGS, _DRAWS_PER_FRAMING, _STEP_BACK = 24, 8, 1.06
_AT_REST = 1e-5  # metres of the origin, or elements of the rotation matrix


@dataclass(frozen=True, eq=False)
class FirstImage:
    """What a camera sees at step 0: colour (H, W, 3), depth (H, W) in metres, and body ids (H, W)."""

    view: View
    rgb: UInt8
    depth_m: Float32
    body_ids: UInt8


def render_samples(
    episode: Episode,
    num_views: int,
    width: int,
    height: int | None = None,
    *,
    num_steps: int = NUM_STEPS,
    step_s: float | None = None,
    with_visibility: bool = False,
) -> list[Sample]:
    """Up to `num_views` samples; view k depends on the episode, the size and k alone.

    Args:
        episode: the episode.
        num_views: cameras.
        width: pixels.
        height: pixels; as many as across where absent.
        num_steps: of the motion, the first image included.
        step_s: seconds between two steps; so that the steps span the whole motion where absent.
        with_visibility: also tell which points are seen at every step.

    Returns:
        The samples, fewer than asked where no camera sees the task.

    Raises:
        ValueError: fewer than two steps, or a step that is not positive.
    """
    height = height or width
    stage = open_stage(episode, width, height, num_steps=num_steps, step_s=step_s)
    try:
        samples = []
        for view_index in range(num_views):
            rng = episode.view_rng(view_index)
            first = find_view(stage, draw_views(stage, rng, width, height))
            if first is not None:
                key = f"{episode.split}_{episode.index:07d}_{view_index}"
                sample = build_sample(stage, first, rng, key=key)
                samples.append(with_visible(stage, sample, first.view) if with_visibility else sample)
        return samples
    finally:
        stage.renderer.close()


def render_futures(
    futures: Sequence[Episode], num_views: int, width: int, height: int | None = None, *, num_steps: int = NUM_STEPS
) -> list[Sample]:
    """Samples of several demonstrations that start from the very same state, each seen by the same cameras.

    Args:
        futures: demonstrations of one scene; cameras are those of the first.
        num_views: cameras.
        width: pixels.
        height: pixels; as many as across where absent.
        num_steps: of each motion, the first image included.

    Returns:
        Per camera, a sample of each future whose acted body it shows; those of one camera share `first_frame`.
    """
    if not futures:
        return []
    height = height or width
    first_stage = open_stage(futures[0], width, height, num_steps=num_steps)
    try:
        stages = [first_stage] + [restaged(first_stage, other) for other in futures[1:]]
        samples = []
        for view_index in range(num_views):
            rng = futures[0].view_rng(view_index)
            first = find_view(first_stage, draw_views(first_stage, rng, width, height, wide=True))
            if first is None:
                continue
            shared = f"{futures[0].split}_{futures[0].index:07d}_{view_index}"
            for stage in stages:
                if shows_subject(stage, first.body_ids) and stays_clear(stage, first.view):
                    sample = build_sample(stage, first, rng, key=f"{shared}_{stage.episode.future}")
                    samples.append(replace(sample, first_frame=shared))
        return samples
    finally:
        first_stage.renderer.close()


def draw_views(
    stage: Stage, rng: np.random.Generator, width: int, height: int, *, sector: str | None = None, wide: bool = False
) -> Iterator[View]:
    """Cameras to try, in order: several of one framing from farther and farther away, then of the next framing.

    Raises:
        ValueError: the sector is unknown.
    """
    aims = candidates_xy(stage)
    held_out = SPLITS[stage.episode.split].unseen_scene
    for _ in range(_MAX_FRAMINGS):
        framing = draw_framing(rng, width, height, aims, held_out=held_out, sector=sector, wide=wide)
        for draw in range(_DRAWS_PER_FRAMING):
            yield draw_view(rng, framing, _STEP_BACK**draw)


def find_view(stage: Stage, views: Iterable[View], *, whole_path: bool = False) -> FirstImage | None:
    """The first of the cameras that shows the task, with its images; None if there is none.

    It shows the acted body at step 0 and the goal that a sentence may name, the scene is bright, nothing is close to
    the lens or around it, and the arm does not come through the camera later. Nothing else about the acted body counts,
    so that the framing does not give it away.

    Args:
        stage: the episode.
        views: cameras to try.
        whole_path: the acted body's centre must stay inside the image, with a margin, as a person frames a recording.
    """
    path = acted_path(stage)
    path = path[[0, len(path) // 2, -1]] if whole_path else path[:1]
    goals = body_centres(stage, stage.goals)
    for view in views:
        if stage.episode.scene.acted and not path_in_view(path, view, _MARGIN if whole_path else 0.0):
            continue
        if not path_in_view(goals, view, 0.0):
            continue
        if not _shows_task(stage, replace(view, camera=small(view.camera)))[0]:
            continue
        good, depth_m, bodies = _shows_task(stage, view)
        rgb = stage.renderer.bright_rgb(stage.data, view) if good and stays_clear(stage, view) else None
        if rgb is not None:
            return FirstImage(view, rgb, depth_m, bodies)
    return None


def build_sample(stage: Stage, first: FirstImage, rng: np.random.Generator, *, key: str) -> Sample:
    """The sample of a view; `rng` words its sentence.

    Other futures of the same first state are built with the same `first` and the stage of the other episode.
    """
    episode, scene = stage.episode, stage.episode.scene
    path = acted_path(stage)
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
        duration_s=stage.step_s * (len(stage.states) - 1),
        paraphrases=said.paraphrases,
        text_frame=said.frame,
        contacts=tuple((c.body, c.first * step_s, c.last * step_s) for c in episode.rollout.contacts),
        factors={
            **scene.factors,
            "acts_on": "object" if item else "fixture" if scene.acted else "nothing",
            "sector": first.view.sector,
            "intrinsics": first.view.intrinsics,
        },
    )


def with_visible(stage: Stage, sample: Sample, *views: View) -> Sample:
    """The sample with its `visible` filled in, for one camera, or one per step where the camera moves."""
    return replace(sample, visible=visibility(stage, sample, views))


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
    """A readable name per body: colour and noun for objects, the body's own name for the rest."""
    described = {item.name: f"{item.color} {item.noun}" for item in scene.objects}
    names = [str(scene.model.body(body).name) for body in range(scene.model.nbody)]
    return tuple(described.get(name, name) for name in names)


def acted_path(stage: Stage) -> Float64:
    """(T, 3) centre of the acted body over time, metres, world; zeros where nothing is acted on."""
    scene = stage.episode.scene
    if not scene.acted:
        return np.zeros((len(stage.states), 3))
    poses = stage.world_from_bodies[:, scene.model.body(scene.acted).id]
    return transform_points(poses, body_centre(scene.model, scene.acted))


def body_centres(stage: Stage, bodies: Sequence[int]) -> Float64:
    """(K, 3) centres of bodies at step 0, metres, world."""
    model = stage.episode.scene.model
    centres = [body_centre(model, str(model.body(body).name)) for body in bodies]
    return transform_points(stage.world_from_bodies[0, list(bodies)], np.reshape(centres, (-1, 3)))


def candidates_xy(stage: Stage) -> Float64:
    """(K, 2) where every object, and every fixture, stands at step 0, metres, world."""
    scene = stage.episode.scene
    names = [item.name for item in scene.objects] + [fixture.body for fixture in scene.fixtures]
    bodies = [scene.model.body(name).id for name in names]
    return stage.world_from_bodies[0, bodies, :2, 3]


def path_in_view(path_in_world: Float64, view: View, margin: float) -> bool:
    """Whether (P, 3) points all project into the image, off its border by a margin (share of the image)."""
    camera = view.camera
    uv = project(transform_points(view.camera_from_world, path_in_world), camera)
    share = (uv + 0.5) / [camera.width, camera.height]
    return bool(((share > margin) & (share < 1 - margin)).all())  # NaN, a point behind the camera, is not inside


def shows_subject(stage: Stage, bodies: npt.NDArray[np.integer]) -> bool:
    """Whether the (H, W) body ids show what the episode is about: at least MIN_ACTED_SHARE of the pixels each.

    The acted body, or without one any object; and what the acted object goes to, or comes from.
    """
    subject = max(((bodies == body).mean() for body in stage.subjects), default=1.0)
    return bool(min([subject, *((bodies == body).mean() for body in stage.goals)]) >= MIN_ACTED_SHARE)


def is_clear(stage: Stage, view: View, depth_m: Float32, bodies: npt.NDArray[np.integer]) -> bool:
    """Whether a camera is inside the room, with nothing close before the lens and outside of every solid.

    Args:
        stage: the scene; its simulation is in the state that was rendered.
        view: the camera.
        depth_m: (H, W) what it sees.
        bodies: (H, W) what it sees.
    """
    return bool(bodies.min() >= 0 and depth_m.min() > MIN_DEPTH_M) and not _inside_body(stage, view, depth_m)


def stays_clear(stage: Stage, view: View) -> bool:
    """Whether nothing that moves ever comes through the camera: where it stands, the arm may want to go."""
    model, data = stage.episode.scene.model, stage.data
    try:
        for state in stage.states[:: max(1, len(stage.states) // _LATER_LOOKS)]:
            stage.episode.restore(data, state)
            if clearance_m(model, data, view.world_from_camera) <= _LATER_CLEARANCE_M:
                return False
        return True
    finally:
        stage.episode.restore(data, stage.states[0])


def small(camera: PinholeCamera) -> PinholeCamera:
    """The camera in the small image that decides whether a view is good."""
    scale = min(1.0, _TEST_PIXELS / max(camera.width, camera.height))
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def _shows_task(stage: Stage, view: View) -> tuple[bool, Float32, UInt8]:
    """Whether a camera is good as far as depth and bodies tell; its depth (H, W) in metres, its body ids (H, W)."""
    depth_m, bodies = stage.renderer.depth_and_bodies(stage.data, view)
    return shows_subject(stage, bodies) and is_clear(stage, view, depth_m, bodies), depth_m, bodies.astype(np.uint8)


def _inside_body(stage: Stage, view: View, depth_m: Float32) -> bool:
    """Whether the lens is inside a solid: only outer faces are drawn, so the image shows what is beyond; a ray hits."""
    camera = view.camera
    row, column = camera.height // 2, camera.width // 2
    point = camera.rays[row, column] * depth_m[row, column]
    ray = cast_rays(stage.episode.scene.model, stage.data, point[None], view.camera_from_world)
    return ray.occluded_share > 0
