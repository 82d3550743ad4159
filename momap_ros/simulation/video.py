"""A whole episode as RGB-D frames of one camera, fixed or moving, with the truth beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from momap_ros.data.sample import Sample
from momap_ros.geometry import Float64, PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.simulation.camera_paths import FIXED, camera_path
from momap_ros.simulation.cameras import View, draw_over_shoulder_view
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.stage import Stage, open_stage
from momap_ros.simulation.views import build_sample, draw_views, find_view, is_clear, small, with_visible

FRAME_ID = "camera_color_optical_frame"
_MAX_DRAWS = 400
_MAX_PATHS = 20
_CHECKED_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Video:
    """An episode as one camera records it.

    Attributes:
        frames: RGB-D frames at equal time steps; stamps start at 0.
        instance_maps: instances of each frame, ids stable over time, the robot one instance.
        world_from_camera: (F, 4, 4) pose of the optical frame at each frame, metres; world z is up.
        sample: the first frame with the motion of every body; `sample.text` is the sentence, `sample.momap()` the true
            MoMap, in the camera's frame at the first frame however the camera moves.
    """

    frames: tuple[RGBDFrame, ...]
    instance_maps: tuple[InstanceMap, ...]
    world_from_camera: Float64
    sample: Sample


def render_video(
    split: str,
    episode: int,
    *,
    width: int,
    height: int,
    camera_index: int = 0,
    frame_rate_hz: float = 10.0,
    sector: str | None = None,
    motion: str = FIXED,
    with_visibility: bool = False,
) -> Video:
    """Render a demonstration from start to end.

    Args:
        split: one of momap_ros.simulation.splits.SPLITS.
        episode: number within the split.
        width: pixels.
        height: pixels.
        camera_index: each number is another camera.
        frame_rate_hz: frames per simulated second.
        sector: one of cameras.ALL_SECTORS; where absent, a camera over the robot's shoulder that frames the whole
            motion, as a person sets one up.
        motion: one of camera_paths.MOTIONS.
        with_visibility: also fill in `sample.visible`, as the camera sees it where it is at each step.

    Returns:
        The frames and the truth; equal arguments give equal videos.

    Raises:
        ValueError: the demonstration fails, no such camera sees the task, or sector or motion is unknown.
    """
    simulated = simulate_episode(split, episode)
    if simulated is None or not simulated.rollout.success:
        raise ValueError(f"episode {episode} of {split}: expected a successful demonstration; take another episode")
    stage = open_stage(simulated, width, height, supersampling=2)
    try:
        rng = simulated.video_rng(camera_index)
        if sector is None:
            views: Iterator[View] = (draw_over_shoulder_view(rng, width, height) for _ in range(_MAX_DRAWS))
        else:
            views = draw_views(stage, rng, width, height, sector=sector)
        first = find_view(stage, views, whole_path=sector is None)
        if first is None:
            raise ValueError(
                f"episode {episode} of {split}: expected camera {camera_index} to see the acted object, it does not; "
                "take another camera or episode"
            )
        sample = build_sample(stage, first, rng, key=f"{split}_{episode:07d}_video_{camera_index}")
        times_s = np.arange(int(simulated.rollout.duration_s * frame_rate_hz) + 1) / frame_rate_hz
        step_times_s = np.arange(len(stage.states)) * stage.step_s
        path = _clear_path(stage, first.view, motion, times_s=np.append(times_s, step_times_s), rng=rng)
        if with_visibility:
            step_views = [replace(first.view, world_from_camera=pose) for pose in path[len(times_s) :]]
            sample = with_visible(stage, sample, *(step_views if motion != FIXED else step_views[:1]))
        return _record(stage, first.view.camera, sample, times_s=times_s, path=path[: len(times_s)])
    finally:
        stage.renderer.close()


def _clear_path(stage: Stage, view: View, motion: str, *, times_s: Float64, rng: np.random.Generator) -> Float64:
    """(F, 4, 4) poses of a camera that meets nothing on its way."""
    checked = [int(index) for index in np.linspace(0, len(times_s) - 1, _CHECKED_FRAMES)]
    for _ in range(_MAX_PATHS):
        path = camera_path(view.world_from_camera, motion, times_s, rng)
        if motion == FIXED or all(_is_clear_at(stage, view, path[index], times_s[index]) for index in checked):
            stage.episode.restore(stage.data, 0)
            return path
    raise ValueError(
        f"episode {stage.episode.index} of {stage.episode.split}: expected a {motion} camera to meet nothing on its "
        "way, it does; take another camera or episode"
    )


def _is_clear_at(stage: Stage, view: View, world_from_camera: Float64, time_s: float) -> bool:
    stage.episode.restore(stage.data, _state_at(stage, time_s))
    moved = replace(view, world_from_camera=world_from_camera, camera=small(view.camera))
    return is_clear(stage, moved, *stage.renderer.depth_and_bodies(stage.data, moved))


def _record(stage: Stage, camera: PinholeCamera, sample: Sample, *, times_s: Float64, path: Float64) -> Video:
    frames, instance_maps = [], []
    for time_s, pose in zip(times_s, path, strict=True):
        stage.episode.restore(stage.data, _state_at(stage, time_s))
        view = View(camera, pose)
        depth_m, bodies = stage.renderer.depth_and_bodies(stage.data, view)
        rgb = stage.renderer.rgb(stage.data, view)
        frames.append(RGBDFrame(rgb, depth_m, camera, round(time_s * 1e9), FRAME_ID))
        seen = replace(sample, body_ids=bodies.astype(np.uint8))
        instance_maps.append(seen.instance_map(merge_robot=True))
    return Video(tuple(frames), tuple(instance_maps), path, sample)


def _state_at(stage: Stage, time_s: float) -> int:
    rollout = stage.episode.rollout
    return min(round(time_s / rollout.step_s), len(rollout.qpos) - 1)
