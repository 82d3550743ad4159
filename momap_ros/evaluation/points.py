"""Which pixels of a sample are scored, and where their points truly go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.metrics_paper import moves
from momap_ros.geometry import Float32
from momap_ros.instances import InstanceMap, Int32
from momap_ros.rgbd import RGBDFrame

Bool = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

POINTS_PER_ROLE = 200
POINTS_PER_INSTANCE = 50
MIN_POINTS = 5
GRID_ACROSS = 64  # columns and rows of the grid on which moving masks are compared
ROLES = ("acted", "robot", "all")


def frame_of(sample: Sample) -> RGBDFrame:
    """The sample's first frame."""
    return RGBDFrame(sample.rgb, sample.depth_m, sample.camera)


def role_image(sample: Sample) -> npt.NDArray[np.uint8]:
    """(H, W) role per pixel."""
    return np.array(sample.body_roles, np.uint8)[sample.body_ids]


def sampled_pixels(mask: Bool, rng: np.random.Generator, count: int = POINTS_PER_ROLE) -> Int32:
    """(P, 2) at most `count` random pixels (u, v) of a mask."""
    rows, columns = np.nonzero(mask)
    if len(rows) > count:
        chosen = rng.choice(len(rows), count, replace=False)
        rows, columns = rows[chosen], columns[chosen]
    return np.stack([columns, rows], axis=-1).astype(np.int32)


def true_trajectories(sample: Sample, pixels: Int32) -> Float32:
    """(P, T, 3) metres, camera frame: `Sample.momap` at chosen pixels only."""
    u, v = pixels[:, 0], pixels[:, 1]
    points = frame_of(sample).points_in_camera[v, u]
    bodies = sample.body_ids[v, u]
    xyz = np.repeat(points[:, None], len(sample.motion_t_from_0), axis=1)
    for slot, body in enumerate(sample.moving_bodies):
        seen = np.flatnonzero(bodies == body)
        motion = sample.motion_t_from_0[1:, slot]
        xyz[seen, 1:] = (points[seen] @ motion[..., :3].transpose(0, 2, 1) + motion[:, None, :, 3]).transpose(1, 0, 2)
    return xyz


def moving_image(sample: Sample, threshold_m: float) -> Bool:
    """(H, W) pixels with depth whose point is at any step farther than a threshold from where it was seen."""
    rows, columns = np.nonzero(np.isin(sample.body_ids, sample.moving_bodies) & np.isfinite(sample.depth_m))
    result = np.zeros(sample.body_ids.shape, np.bool_)
    result[rows, columns] = moves(true_trajectories(sample, np.stack([columns, rows], axis=-1)), threshold_m)
    return result


def objects_by_role(instances: InstanceMap, roles: npt.NDArray[np.uint8]) -> dict[int, Role]:
    """Instance id -> role of most of its pixels, robot and background left out: the objects one could choose among."""
    result = majority_roles(instances, roles)
    return {i: role for i, role in result.items() if role not in {Role.WORLD, Role.ROBOT, Role.HIDDEN}}


def majority_roles(instances: InstanceMap, roles: npt.NDArray[np.uint8]) -> dict[int, Role]:
    """Instance id -> role of most of its pixels."""
    return {
        i: Role(int(np.bincount(roles[instances.ids == i], minlength=len(Role)).argmax())) for i in instances.areas_px
    }


@dataclass(frozen=True, eq=False)
class ScoredPoints:
    """All pixels that are scored in one sample, each once, so that every predictor decodes them once.

    Attributes:
        pixels: (P, 2) int32 (u, v).
        true: (P, T, 3) metres, their true trajectories.
        of_role: "acted", "robot" and "all" -> (n,) indices into pixels; "all" are pixels that truly move. A role with
            fewer than MIN_POINTS pixels is absent.
        grid: (n,) indices of a regular grid over the image, pixels with depth only.
        of_patch: true instance id -> (n,) indices; the robot is one instance.
        of_instance: id in the instance map that predictors are given -> (n,) indices; empty where it has no depth.
        visible: (P, T) bool, whether the point is seen at the step; None where the sample does not say.
    """

    pixels: Int32
    true: Float32
    of_role: Mapping[str, Indices]
    grid: Indices
    of_patch: Mapping[int, Indices]
    of_instance: Mapping[int, Indices]
    visible: Bool | None


def choose_points(sample: Sample, instances: InstanceMap, seed: int, *, moving_threshold_m: float) -> ScoredPoints:
    """Choose the pixels of a sample.

    Args:
        sample: the truth.
        instances: what predictors are given.
        seed: of the random choice.
        moving_threshold_m: what "truly moves" means.
    """
    valid, roles = np.isfinite(sample.depth_m), role_image(sample)
    # A random stream per role: which pixels one role gets does not depend on another's size.
    sets: dict[tuple[str, int], Int32] = {
        ("acted", 0): sampled_pixels((roles == Role.ACTED) & valid, np.random.default_rng(seed)),
        ("robot", 0): sampled_pixels((roles == Role.ROBOT) & valid, np.random.default_rng([seed, 1])),
        ("all", 0): sampled_pixels(moving_image(sample, moving_threshold_m), np.random.default_rng([seed, 2])),
        ("grid", 0): _grid_pixels(valid),
    }
    for kind, ids in (("patch", sample.instance_map(merge_robot=True)), ("instance", instances)):
        for i in ids.areas_px:
            pixels = sampled_pixels((ids.ids == i) & valid, np.random.default_rng(0))
            sets[kind, i] = pixels[:POINTS_PER_INSTANCE]
    everything = np.concatenate(list(sets.values()))
    width = valid.shape[1]
    flat, inverse = np.unique(everything[:, 1] * width + everything[:, 0], return_inverse=True)
    ends = np.cumsum([len(pixels) for pixels in sets.values()])
    index = dict(zip(sets, np.split(inverse.ravel(), ends[:-1]), strict=True))
    rows, columns = np.divmod(flat, width)
    pixels = np.stack([columns, rows], axis=-1).astype(np.int32)
    return ScoredPoints(
        pixels,
        true_trajectories(sample, pixels),
        {role: index[role, 0] for role in ROLES if len(index[role, 0]) >= MIN_POINTS},
        index["grid", 0],
        {i: rows for (kind, i), rows in index.items() if kind == "patch" and len(rows) >= MIN_POINTS},
        {i: rows for (kind, i), rows in index.items() if kind == "instance"},
        None if sample.visible is None else sample.visible[:, rows, columns].T,
    )


def _grid_pixels(valid: Bool) -> Int32:
    """(P, 2) every n-th pixel (u, v) in both directions that has depth, about GRID_ACROSS across."""
    stride = max(1, round(max(valid.shape) / GRID_ACROSS))
    chosen = np.zeros_like(valid)
    chosen[stride // 2 :: stride, stride // 2 :: stride] = True
    rows, columns = np.nonzero(chosen & valid)
    return np.stack([columns, rows], axis=-1).astype(np.int32)
