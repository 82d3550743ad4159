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
TOLERANCE_M = 0.004
# How much deeper than its neighbour pixel a point may lie on the same surface, in pixel widths: surfaces of up to 60
# degrees from the image plane; steeper ones count as hidden.
_SLOPE = 1.8


def visibility(stage: Stage, sample: Sample, views: Sequence[View]) -> Bool:
    """Tell for the point first seen at each pixel whether it is seen at each step.

    A point is seen where it projects into the image and one of the four pixels around it shows the same body at the
    point's depth: to TOLERANCE_M and the depth that a slanted surface gains over a pixel. So a thing less than
    4 mm before a surface of its own body does not hide it, and outlines are true to a pixel.

    Args:
        stage: the episode; its simulation is at step 0 again afterwards.
        sample: what the first of the cameras saw, with the steps of the stage.
        views: one camera for all steps, or one per step where the camera moves.

    Returns:
        (T, H, W) bool; False where the sample has no depth.
    """
    xyz, ids = sample.momap().xyz, sample.body_ids
    moves = np.isin(ids, sample.moving_bodies)
    visible = np.zeros(xyz.shape[:3], np.bool_)
    for step, state in enumerate(stage.states):
        stage.episode.restore(stage.data, state)
        view = views[min(step, len(views) - 1)]
        depth_m, bodies = stage.renderer.depth_and_bodies(stage.data, view)
        if len(views) == 1:  # what rests is where it was, pixel by pixel
            visible[step] = (bodies == ids) & (depth_m > xyz[step, ..., 2] - TOLERANCE_M)
            chosen = moves if step else np.zeros_like(moves)
            view_from_sample = np.eye(4)
        else:
            chosen = np.ones_like(moves)
            view_from_sample = view.camera_from_world @ views[0].world_from_camera
        points = transform_points(view_from_sample, xyz[step][chosen])
        visible[step, chosen] = _seen(points, ids[chosen], view.camera, depth_m, bodies)
    stage.episode.restore(stage.data, 0)
    return visible & np.isfinite(sample.depth_m)


def _seen(
    points: Float64, ids: npt.NDArray[np.uint8], camera: PinholeCamera, depth_m: Float32, bodies: npt.NDArray[np.int32]
) -> Bool:
    """(P,) whether points (P, 3) of bodies (P,) are what the image shows at one of the four pixels around them."""
    depth = points[:, 2]
    ahead = np.where(depth > 0, depth, np.inf)  # points behind the camera are left out below
    u = camera.fx * points[:, 0] / ahead + camera.cx
    v = camera.fy * points[:, 1] / ahead + camera.cy
    inside = (depth > 0) & (np.abs(u - camera.width / 2 + 0.5) <= camera.width / 2)
    inside &= np.abs(v - camera.height / 2 + 0.5) <= camera.height / 2
    left, top = np.floor(u[inside]).astype(int), np.floor(v[inside]).astype(int)
    tolerance = TOLERANCE_M + _SLOPE * depth[inside] / min(camera.fx, camera.fy)
    found = np.zeros(len(left), np.bool_)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        columns = np.clip(left + right, 0, camera.width - 1)
        rows = np.clip(top + down, 0, camera.height - 1)
        gap = depth[inside] - depth_m[rows, columns]
        found |= (bodies[rows, columns] == ids[inside]) & (np.abs(gap) < tolerance)
    seen = np.zeros(len(points), np.bool_)
    seen[inside] = found
    return seen
