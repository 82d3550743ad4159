"""A whole episode as RGB-D frames of one fixed camera, with the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from momap_ros.data.sample import Sample
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.simulation.cameras import draw_over_shoulder_view
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.views import FirstImage, Stage, build_sample, find_view, open_stage

FRAME_ID = "camera_color_optical_frame"


@dataclass(frozen=True, eq=False)
class Video:
    """An episode as one camera records it.

    Attributes:
        frames: RGB-D frames at equal time steps; stamps start at 0.
        instance_maps: instances of each frame, ids stable over time, the robot one instance.
        sample: the first frame with the motion of every body; `sample.text` is the sentence, `sample.momap()` the true
            MoMap.
    """

    frames: tuple[RGBDFrame, ...]
    instance_maps: tuple[InstanceMap, ...]
    sample: Sample


def render_video(
    split: str, episode: int, *, width: int, height: int, camera_index: int = 0, frame_rate_hz: float = 10.0
) -> Video:
    """Render a demonstration from start to end.

    Args:
        split: one of momap_ros.simulation.episodes.SPLITS.
        episode: number within the split.
        width: pixels.
        height: pixels.
        camera_index: each number is another static camera over the robot's shoulder.
        frame_rate_hz: frames per simulated second.

    Returns:
        The frames and the truth; equal arguments give equal videos.

    Raises:
        ValueError: the demonstration fails, or no such camera sees the acted object; take another episode.
    """
    simulated = simulate_episode(split, episode)
    if simulated is None or not simulated.rollout.success:
        raise ValueError(f"episode {episode} of {split}: expected a successful demonstration; take another episode")
    stage = open_stage(simulated, width, height, supersampling=2)
    try:
        rng = simulated.video_rng(camera_index)
        first = find_view(stage, lambda: draw_over_shoulder_view(rng, width, height))
        if first is None:
            raise ValueError(
                f"episode {episode} of {split}: expected camera {camera_index} to see the acted object, it does not; "
                "take another camera or episode"
            )
        sample = build_sample(stage, first, rng, key=f"{split}_{episode:07d}_video_{camera_index}")
        return _record(stage, first, sample, frame_rate_hz)
    finally:
        stage.renderer.close()


def _record(stage: Stage, first: FirstImage, sample: Sample, frame_rate_hz: float) -> Video:
    rollout = stage.episode.rollout
    num_frames = int(rollout.duration_s * frame_rate_hz) + 1
    frames, instance_maps = [], []
    for index in range(num_frames):
        stage.episode.restore(stage.data, round(index / (frame_rate_hz * rollout.step_s)))
        depth_m, bodies = stage.renderer.depth_and_bodies(stage.data, first.view)
        rgb = stage.renderer.rgb(stage.data, first.view)
        stamp_ns = round(index * 1e9 / frame_rate_hz)
        frames.append(RGBDFrame(rgb, depth_m, first.view.camera, stamp_ns, FRAME_ID))
        seen = replace(sample, body_ids=bodies.astype(np.uint8))
        instance_maps.append(seen.instance_map(merge_robot=True))
    return Video(tuple(frames), tuple(instance_maps), sample)
