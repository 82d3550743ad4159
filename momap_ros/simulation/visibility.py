"""Which points of a Motion Map are seen at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from momap_ros.data.sample import Sample
from momap_ros.geometry import Float32, Float64, PinholeCamera, transform_points
from momap_ros.simulation.cameras import View
from momap_ros.simulation.stage import Stage

Bool = npt.NDArray[np.bool_]
TOLERANCE_M = 0.002


def visibility(stage: Stage, sample: Sample, views: Sequence[View]) -> Bool:
    """Tell for the point first seen at each pixel whether it is seen at each step.

    A point is seen where it projects into the image and the image rendered at that step shows no surface before it at
    the nearest pixel: to TOLERANCE_M, the slope of the surface within the pixel taken into account. So outlines are
    true to half a pixel; a test compares them with rays cast through the points.

    Args:
        stage: the episode; its simulation is at step 0 again afterwards.
        sample: what the first of the cameras saw, with the steps of the stage.
        views: one camera for all steps, or one per step where the camera moves.

    Returns:
        (T, H, W) bool; False where the sample has no depth.
    """
    xyz = sample.momap().xyz
    moves = np.isin(sample.body_ids, sample.moving_bodies)
    visible = np.zeros(xyz.shape[:3], np.bool_)
    for step, state in enumerate(stage.states):
        stage.episode.restore(stage.data, state)
        view = views[min(step, len(views) - 1)]
        depth_m, _ = stage.renderer.depth_and_bodies(stage.data, view)
        chosen = np.ones_like(moves)
        if step == 0 or len(views) == 1:  # what rests is at its own pixel
            visible[step] = depth_m > xyz[step, ..., 2] - TOLERANCE_M
            chosen = moves & (step > 0)
        view_from_sample = view.camera_from_world @ views[0].world_from_camera
        points = transform_points(view_from_sample, xyz[step][chosen])
        visible[step, chosen] = _seen(points, view.camera, depth_m)
    stage.episode.restore(stage.data, 0)
    return visible & np.isfinite(sample.depth_m)


def _seen(points: Float64, camera: PinholeCamera, depth_m: Float32) -> Bool:
    """(P,) whether points (P, 3), metres, camera frame, are in the image with nothing before them."""
    depth = points[:, 2]
    ahead = np.where(depth > 0, depth, np.inf)  # points behind the camera are left out below
    u = np.rint(camera.fx * points[:, 0] / ahead + camera.cx)
    v = np.rint(camera.fy * points[:, 1] / ahead + camera.cy)
    inside = (depth > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    row, column = v[inside].astype(int), u[inside].astype(int)
    right = camera.fx * points[inside, 0] / depth[inside] + camera.cx - column  # of the pixel's middle, in pixels
    below = camera.fy * points[inside, 1] / depth[inside] + camera.cy - row
    shown = depth_m[row, column]
    shown += right * _slope(depth_m, 1)[row, column] + below * _slope(depth_m, 0)[row, column]
    seen = np.zeros(len(points), np.bool_)
    seen[inside] = depth[inside] < shown + TOLERANCE_M
    return seen


def _slope(depth_m: Float32, axis: int) -> Float32:
    """(H, W) metres per pixel along an axis: the smaller of the steps to both neighbours, as one may be an edge."""
    step = np.diff(depth_m, axis=axis)
    end = np.take(step, [-1], axis=axis)
    start = np.take(step, [0], axis=axis)
    after, before = np.concatenate([step, end], axis=axis), np.concatenate([start, step], axis=axis)
    return np.asarray(np.where(np.abs(after) < np.abs(before), after, before), np.float32)
