"""Forecasts as 3D flow: what Dream2Flow's planner and General Flow's controller take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float32, Float64, FloatArray
from momap_ros.instances import InstanceMap, Int32
from momap_ros.momap import PointTrajectories
from momap_ros.policies.sampling import (
    Bool,
    Index,
    check_hypothesis,
    draw_points,
    farthest_points,
    points_of,
    resample_in_time,
    uniform_times_s,
)
from momap_ros.shapes import check_shapes

DREAM2FLOW_POINTS = 1024
DREAM2FLOW_EROSION_PX = 11
GENERAL_FLOW_POINTS, GENERAL_FLOW_FUTURE_STEPS, GENERAL_FLOW_RADIUS_M = 256, 3, 0.08
GENERAL_FLOW_WEIGHT_OFFSET_M = 0.1


@dataclass(frozen=True, eq=False)
class ObjectFlow:
    """The flow of one object.

    Attributes:
        positions: (T, N, 3) float32, metres, frame `frame_id`; zeros where not valid.
        valid: (T, N) bool, where the position is known.
        pixels: (N, 2) int32 (u, v) in the source image at step 0.
        times_s: (T,) seconds since the observation.
        frame_id: TF name of the frame of all positions.
    """

    positions: Float32
    valid: Bool
    pixels: Int32
    times_s: Float64
    frame_id: str


@dataclass(frozen=True, eq=False)
class KeypointFlow:
    """The flow of the points near a gripper.

    Attributes:
        positions: (Q, T, 3) float32, metres, the trajectories' frame; [:, 0] are the keypoints; all known.
        weights: (Q,) float32, larger near the gripper; for a weighted rigid fit from step to step.
        times_s: (T,) seconds since the observation.
        hypothesis: the future that was taken.
        mean_path_m: mean length of its keypoints' ways.
    """

    positions: Float32
    weights: Float32
    times_s: Float64
    hypothesis: int
    mean_path_m: float


def dream2flow_flow(
    trajectories: PointTrajectories,
    object_id: int,
    *,
    instances: InstanceMap | None = None,
    erosion_px: int = DREAM2FLOW_EROSION_PX,
    max_points: int = DREAM2FLOW_POINTS,
    num_steps: int | None = None,
    hypothesis: int = 0,
) -> ObjectFlow:
    """The object flow of Dream2Flow's trajectory optimiser: T x N x 3 and a mask of what is known.

    Sampling: where an instance map is given, points near the object's edge are left out (their depth is the least
    certain), then farthest-point sampling keeps at most 1024. All T steps of the forecast, or `num_steps` spread evenly
    over it, positions linear in between. Normalisation: none; metres in the trajectories' frame. Dream2Flow plans in
    the robot's frame: transform the trajectories with `momap_ros.selection.in_frame` first.

    Reference: Dream2Flow, arXiv:2512.24766; github.com/KDharmarajanDev/Dream2Flow at 3a5ff26,
    dream2flow/flow/object_flow.py (read for shapes and meaning only, it has no licence).

    Args:
        trajectories: forecast in any frame.
        object_id: instance to follow.
        instances: where the object is, same size as the image; no erosion without.
        erosion_px: side of the square that must lie inside the object around a point, pixels; odd.
        max_points: largest N; fewer where the object has fewer points.
        num_steps: T; the forecast's own steps where None.
        hypothesis: which future; the first is the most representative one.

    Raises:
        ValueError: the object has no points (or none away from its edge), no such hypothesis, or an even erosion.
        ShapeError: the instance map has another size than the image.
    """
    check_hypothesis(trajectories, hypothesis)
    points = points_of(trajectories, [object_id])
    if instances is not None:
        points = _away_from_edge(trajectories, points, instances, erosion_px)
    points = points[farthest_points(trajectories.positions[hypothesis, points, 0], max_points)]
    times_s = uniform_times_s(trajectories, trajectories.num_steps if num_steps is None else num_steps)
    positions = resample_in_time(trajectories.positions[hypothesis, points], trajectories.step_s, times_s)
    valid: Bool = np.asarray(np.isfinite(positions).all(axis=-1))
    known = np.where(valid[..., None], positions, 0.0)
    return ObjectFlow(
        np.ascontiguousarray(known.transpose(1, 0, 2), np.float32),
        np.ascontiguousarray(valid.T),
        trajectories.pixels[points],
        times_s,
        trajectories.frame_id,
    )


def general_flow_keypoints(
    trajectories: PointTrajectories,
    gripper_m: FloatArray,
    *,
    radius_m: float = GENERAL_FLOW_RADIUS_M,
    num_points: int = GENERAL_FLOW_POINTS,
    num_future_steps: int = GENERAL_FLOW_FUTURE_STEPS,
    horizon_s: float | None = None,
    robot_ids: Sequence[int] = (),
    seed: int = 0,
) -> KeypointFlow:
    """The keypoint flow of General Flow's controller: the points around the gripper and where they go.

    Sampling: the points nearest to the gripper within `radius_m`, at most 256; where there are fewer, some are
    repeated, drawn at random, so that there are always 256. Steps: the observation and 3 more, evenly over `horizon_s`,
    positions linear in between. Of all futures the one whose keypoints go the longest way is taken, as its
    authors do with theirs. Weights are 1 / (distance to the gripper + 0.1 m). Normalisation: none, metres.

    Reference: General Flow, arXiv:2401.11439; github.com/michaelyuancb/general_flow at 1752551, aff_exec.py (MIT).

    Args:
        trajectories: forecast in any frame, all hypotheses.
        gripper_m: (3,) position of the gripper, metres, in the trajectories' frame.
        radius_m: points farther away are left out, metres.
        num_points: Q.
        num_future_steps: T - 1.
        horizon_s: seconds from the observation to the last step; the whole forecast where None.
        robot_ids: instances that are the robot itself.
        seed: of the repeated points.

    Raises:
        ValueError: no point with a known future near the gripper; the message says how far the nearest is.
    """
    check_shapes(gripper_m=(gripper_m, "3"))
    last_s = (trajectories.num_steps - 1) * trajectories.step_s
    times_s = np.linspace(0.0, last_s if horizon_s is None else horizon_s, num_future_steps + 1)
    known = np.isfinite(trajectories.positions).all(axis=(0, 2, 3))
    points = np.flatnonzero(known & ~np.isin(trajectories.object_ids, list(robot_ids)))
    distance_m = np.linalg.norm(trajectories.positions[0, points, 0] - gripper_m, axis=-1)
    if not (distance_m < radius_m).any():
        nearest = f"the nearest is {distance_m.min():.3f} m away" if len(points) else "there is none at all"
        raise ValueError(
            f"gripper_m: expected points with a known future within {radius_m} m of {np.asarray(gripper_m).tolist()} "
            f"in frame {trajectories.frame_id!r}, got none; {nearest}; is the gripper given in that frame?"
        )
    near = np.argsort(distance_m, kind="stable")[: min(num_points, int((distance_m < radius_m).sum()))]
    chosen = draw_points(near, num_points, seed) if len(near) < num_points else near
    positions = resample_in_time(trajectories.positions[:, points[chosen]], trajectories.step_s, times_s)
    lengths_m = np.linalg.norm(np.diff(positions, axis=2), axis=-1).sum(axis=-1).mean(axis=-1)
    hypothesis = int(lengths_m.argmax())
    return KeypointFlow(
        positions[hypothesis].astype(np.float32),
        (1.0 / (distance_m[chosen] + GENERAL_FLOW_WEIGHT_OFFSET_M)).astype(np.float32),
        times_s,
        hypothesis,
        float(lengths_m[hypothesis]),
    )


def _away_from_edge(trajectories: PointTrajectories, points: Index, instances: InstanceMap, erosion_px: int) -> Index:
    """The points around which a square of this side belongs to their object."""
    size = {"H": trajectories.image_height, "W": trajectories.image_width}
    check_shapes(size, ids=(instances.ids, "H W"))
    if erosion_px < 1 or erosion_px % 2 == 0:
        raise ValueError(f"erosion_px: expected an odd number of pixels, got {erosion_px}")
    object_id = trajectories.object_ids[points[0]]
    reach = erosion_px // 2
    # Sums over squares from one table of running sums; outside the image is outside the object.
    mask = np.pad(instances.ids == object_id, reach).astype(np.int64)
    running = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    u, v = trajectories.pixels[points].T
    inside_px = (
        running[v + erosion_px, u + erosion_px]
        - running[v, u + erosion_px]
        - running[v + erosion_px, u]
        + running[v, u]
    )
    kept: Index = points[inside_px == erosion_px**2]
    if not len(kept):
        raise ValueError(
            f"object {object_id}: expected points at least {reach} px from its edge, got none of {len(points)}; "
            "take a smaller erosion_px"
        )
    return kept
