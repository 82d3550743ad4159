"""Which part of a forecast leaves the process, and in which frame."""

from __future__ import annotations

import dataclasses

import numpy as np

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import Forecast, all_pixels
from momap_ros.geometry import Float32, Float64
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.shapes import check_shapes


def published_trajectories(forecast: Forecast, config: ForecastConfig) -> PointTrajectories:
    """As many futures of a forecast as `config` says, of the followed or of all pixels.

    The first is the one that the objects' motions describe. Of more, not of all, the others speak for those drawn that
    are unlike it, see `momap_ros.model.groups`.
    """
    trajectories = forecast.trajectories
    count = min(config.published_hypotheses, trajectories.num_hypotheses)
    chosen = np.arange(count)
    if 1 < count < trajectories.num_hypotheses:
        from momap_ros.model.groups import first_and_others

        chosen = first_and_others(forecast.output, count)
    if config.dense:
        return forecast.output.trajectories(all_pixels(forecast.output.frame), chosen.tolist())
    return trajectories.reordered(chosen)


def in_frame(trajectories: PointTrajectories, target_from_source: Float64, frame_id: str) -> PointTrajectories:
    """The same trajectories in another frame.

    Args:
        trajectories: positions in the source frame.
        target_from_source: (4, 4) rigid transform at the time of step 0; the source frame does not move afterwards.
        frame_id: TF name of the target frame.
    """
    check_shapes(target_from_source=(target_from_source, "4 4"))
    rotation = target_from_source[:3, :3].astype(np.float32)
    positions = trajectories.positions @ rotation.T + target_from_source[:3, 3].astype(np.float32)
    return dataclasses.replace(trajectories, positions=positions, frame_id=frame_id)


def objects_in_frame(
    forecast: Forecast, target_from_source: Float64, frame_id: str, config: ObjectMotionConfig
) -> list[ObjectMotion]:
    """The object motions estimated anew in another frame: sizes and direction flags depend on the axes."""
    motions = estimate_object_motions(
        in_frame(forecast.trajectories, target_from_source, frame_id),
        config,
        hypothesis=0,
        labels={motion.instance_id: motion.label for motion in forecast.objects},
        moving_probability={motion.instance_id: motion.moving_probability for motion in forecast.objects},
    )
    pairs = zip(motions, forecast.objects, strict=True)  # of the same trajectories, in the same order
    return [dataclasses.replace(motion, goal_id=before.goal_id) for motion, before in pairs]


def mean_velocity_m_s(trajectories: PointTrajectories) -> Float32:
    """(P, 3) metres per second from the first to the last step of the first hypothesis; NaN where either is unknown."""
    horizon_s = (trajectories.num_steps - 1) * trajectories.step_s
    ends = trajectories.positions[0, :, -1] - trajectories.positions[0, :, 0]
    return np.asarray(ends / max(horizon_s, trajectories.step_s), np.float32)
