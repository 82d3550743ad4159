"""What planners ask of a forecast: which object, at what velocities, and the space that moving objects will sweep."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from momap_ros.config import PlannerConfig
from momap_ros.geometry import Float32, Float64
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion
from momap_ros.shapes import check_shapes

# Voxels are numbered with so many bits an axis, enough for 20 km at 1 cm.
_BITS = 21


def moving_objects(objects: Sequence[ObjectMotion], config: PlannerConfig) -> list[ObjectMotion]:
    """The objects that are expected to move, the most probable first, of equally probable ones the farthest."""
    moving = [
        motion for motion in objects if motion.valid and motion.moving_probability >= config.min_moving_probability
    ]
    return sorted(moving, key=lambda motion: (-motion.moving_probability, -motion.displacement_m, motion.instance_id))


def followed_object(objects: Sequence[ObjectMotion], config: PlannerConfig) -> ObjectMotion | None:
    """The object that `config.object_id` names, moving or not; of all moving ones the first where it is 0.

    Returns:
        None where there is no such object, or its motion is not known.
    """
    if config.object_id:
        return next((m for m in objects if m.instance_id == config.object_id and m.valid), None)
    return next(iter(moving_objects(objects, config)), None)


def steps_within(num_steps: int, step_s: float, horizon_s: float) -> int:
    """Number of steps up to a time after the observation, the observation included; all where the time is 0."""
    if horizon_s <= 0:
        return num_steps
    return min(num_steps, 1 + int(horizon_s / step_s + 1e-9))


def twists(frame_from_object: Float64, step_s: float) -> Float64:
    """Velocities along a track of poses, by central differences, one-sided at both ends.

    Args:
        frame_from_object: (T, 4, 4) pose at every step, metres.
        step_s: seconds between two steps.

    Returns:
        (T, 6) linear velocity of the pose's origin, metres per second, and angular velocity, radians per second, both
        along the frame's axes; zeros where there is one step only.
    """
    check_shapes(frame_from_object=(frame_from_object, "T 4 4"))
    count = len(frame_from_object)
    if count < 2:
        return np.zeros((count, 6))
    from scipy.spatial.transform import Rotation

    before, after = np.maximum(np.arange(count) - 1, 0), np.minimum(np.arange(count) + 1, count - 1)
    elapsed_s = ((after - before) * step_s)[:, None]
    shift = frame_from_object[after, :3, 3] - frame_from_object[before, :3, 3]
    turn = frame_from_object[after, :3, :3] @ np.swapaxes(frame_from_object[before, :3, :3], 1, 2)
    return np.asarray(np.concatenate([shift, Rotation.from_matrix(turn).as_rotvec()], axis=1) / elapsed_s)


def swept_volume(
    trajectories: PointTrajectories, object_ids: Collection[int], *, voxel_m: float, num_steps: int
) -> Float32:
    """The space that objects pass through: the middles of all voxels that a followed point of theirs comes into.

    Between two steps a point goes straight, and is looked at so often that it never moves on by more than a voxel along
    any axis. What nobody sees of an object, its back and inside, is not swept.

    Args:
        trajectories: all its hypotheses count.
        object_ids: which objects.
        voxel_m: side of a voxel, metres.
        num_steps: of the motion, the observation included.

    Returns:
        (V, 3) metres, the trajectories' frame, every voxel once; on a grid through the frame's origin.

    Raises:
        ValueError: a point is too far away for the grid.
    """
    chosen = np.isin(trajectories.object_ids, list(object_ids))
    paths = trajectories.positions[:, chosen, :num_steps].astype(np.float64).reshape(-1, num_steps, 3) / voxel_m
    limit = 2 ** (_BITS - 1)
    if np.nanmax(np.abs(paths), initial=0.0) >= limit:
        raise ValueError(f"swept volume: expected points within {limit * voxel_m:.0f} m, got farther ones")
    keys = [_voxels(paths[:, 0])]
    for step in range(1, num_steps):
        start, move = paths[:, step - 1], paths[:, step] - paths[:, step - 1]
        longest = np.nanmax(np.abs(move), initial=0.0)
        pieces = max(1, int(np.ceil(longest)))
        shares = np.arange(1, pieces + 1)[:, None, None] / pieces
        keys.append(_voxels((start + shares * move).reshape(-1, 3)))
    found = np.unique(np.concatenate(keys))
    axes = [(found >> (_BITS * axis)) & (2**_BITS - 1) for axis in range(3)]
    return np.asarray((np.stack(axes, axis=1) - limit + 0.5) * voxel_m, np.float32)


def _voxels(points: Float64) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Numbers of the voxels of (P, 3) points in voxel sides, each once; unknown points are in none."""
    known = points[np.isfinite(points).all(axis=1)]
    cells = np.floor(known).astype(np.int64) + 2 ** (_BITS - 1)
    return np.unique(cells[:, 0] | cells[:, 1] << _BITS | cells[:, 2] << 2 * _BITS)
