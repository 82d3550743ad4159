"""Fewer points and other steps: what all policy adapters do to trajectories before they change their coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, Float64, FloatArray, PinholeCamera, project
from momap_ros.instances import Int32
from momap_ros.momap import PointTrajectories
from momap_ros.shapes import check_shapes

Index = npt.NDArray[np.intp]
Bool = npt.NDArray[np.bool_]

# Positions at step 0 must project onto the pixels they were seen in; a larger distance means another frame or camera.
MAX_REPROJECTION_PX = 1.0


def resample_in_time(positions: FloatArray, step_s: float, times_s: FloatArray) -> Float64:
    """Positions at other times: linear between neighbouring steps, the last position after the last step.

    Args:
        positions: (..., T, 3) metres at times 0, step_s, 2 step_s, ...; NaN = unknown.
        step_s: seconds between two steps.
        times_s: (K,) seconds since step 0.

    Returns:
        (..., K, 3) metres; NaN where a step that has a share in the time is unknown.

    Raises:
        ValueError: a time before step 0.
    """
    lengths = check_shapes(positions=(positions, "... T 3"), times_s=(times_s, "K"))
    if times_s.size and not times_s.min() >= 0:
        raise ValueError(f"times_s: expected seconds from step 0 on, got {times_s.min()}")
    last = lengths["T"] - 1
    at = np.minimum(np.asarray(times_s, np.float64) / step_s, last)
    # A time that is meant to be a step must not miss it by a rounding error, or an unknown neighbour would spoil it.
    at = np.where(np.abs(at - np.round(at)) < 1e-6, np.round(at), at)
    lower = np.floor(at).astype(np.intp)
    share = (at - lower)[:, None]
    before = np.asarray(positions, np.float64)[..., lower, :]
    after = np.asarray(positions, np.float64)[..., np.minimum(lower + 1, last), :]
    return np.where(share > 0, before + share * (after - before), before)


def uniform_times_s(trajectories: PointTrajectories, num_steps: int) -> Float64:
    """(num_steps,) seconds, evenly spread from step 0 to the last step, both included.

    Raises:
        ValueError: fewer than two steps wanted.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps: expected at least 2, the observation and a future, got {num_steps}")
    return np.linspace(0.0, (trajectories.num_steps - 1) * trajectories.step_s, num_steps)


def points_of(trajectories: PointTrajectories, object_ids: Sequence[int]) -> Index:
    """(Q,) points of some objects that have a position at step 0, in their order.

    Raises:
        ValueError: there is none; the message lists the objects that have points.
    """
    observed = np.isfinite(trajectories.positions[0, :, 0]).all(axis=-1)
    points = np.flatnonzero(np.isin(trajectories.object_ids, list(object_ids)) & observed)
    if not len(points):
        present = np.unique(trajectories.object_ids[observed]).tolist()
        raise ValueError(f"object_ids: expected objects with points, among {present}, got {list(object_ids)}")
    return points


def draw_points(points: Index, count: int, seed: int) -> Index:
    """(count,) points, drawn at random without repetition; where there are fewer, all of them and some again."""
    rng = np.random.default_rng(seed)
    if len(points) >= count:
        return np.sort(rng.choice(points, count, replace=False))
    return np.concatenate([points, rng.choice(points, count - len(points))])


def farthest_points(positions: FloatArray, count: int) -> Index:
    """Indices of at most `count` points that cover the set: each is the farthest from those before it.

    Reference: Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5. It begins with the point farthest from the mean, so that
    the answer depends on nothing but the points.

    Args:
        positions: (P, 3) metres, all known.
        count: largest number of points; all are taken where there are fewer.
    """
    check_shapes(positions=(positions, "P 3"))
    points = np.asarray(positions, np.float64)
    if len(points) <= count:
        return np.arange(len(points))
    chosen = np.zeros(count, np.intp)
    chosen[0] = np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1))
    distance = np.full(len(points), np.inf)
    for place in range(1, count):
        distance = np.minimum(distance, ((points - points[chosen[place - 1]]) ** 2).sum(axis=1))
        chosen[place] = np.argmax(distance)
    return chosen


def check_hypothesis(trajectories: PointTrajectories, hypothesis: int) -> None:
    """Refuse the number of a future that was not drawn.

    Raises:
        ValueError: there is no such hypothesis.
    """
    if not 0 <= hypothesis < trajectories.num_hypotheses:
        raise ValueError(f"hypothesis: expected 0 to {trajectories.num_hypotheses - 1}, got {hypothesis}")


def check_in_camera(trajectories: PointTrajectories, camera: PinholeCamera) -> None:
    """Refuse trajectories that this camera cannot have seen.

    Raises:
        ValueError: another image size, or positions that do not project onto their pixels at step 0.
    """
    size = (trajectories.image_width, trajectories.image_height)
    if size != (camera.width, camera.height):
        raise ValueError(
            f"camera: expected the one of the {size[0]}x{size[1]} image, got {camera.width}x{camera.height}; "
            "take the camera of the frame that was forecast"
        )
    if not trajectories.num_hypotheses:
        return
    apart = np.abs(project(trajectories.positions[0, :, 0], camera) - trajectories.pixels)
    worst = float(np.nanmax(apart)) if np.isfinite(apart).any() else 0.0
    if worst > MAX_REPROJECTION_PX:
        raise ValueError(
            f"trajectories: expected positions in the camera's optical frame, which project onto their pixels at step "
            f"0; got {worst:.1f} px from them in frame {trajectories.frame_id!r}; leave target_frame empty, or "
            "transform them back with momap_ros.selection.in_frame"
        )


def fixed_tracks(
    trajectories: PointTrajectories, num_points: int, num_steps: int, seed: int
) -> tuple[Float32, Bool, Int32]:
    """The first hypothesis of points of all objects, in arrays whose shapes do not depend on what is in view.

    Points are drawn at random, repeated where there are too few; steps are spread evenly over the forecast, positions
    linear in between.

    Returns:
        (num_points, num_steps, 3) metres, zeros where unknown; (num_points, num_steps), where they are known: nowhere
        without objects; (num_points,) instance of each point, 0 without objects.
    """
    times_s = uniform_times_s(trajectories, num_steps)
    positions, object_ids = np.full((num_points, num_steps, 3), np.nan), np.zeros(num_points, np.int32)
    ids = [instance_id for instance_id in np.unique(trajectories.object_ids).tolist() if instance_id > 0]
    if ids:
        points = draw_points(points_of(trajectories, ids), num_points, seed)
        positions = resample_in_time(trajectories.positions[0, points], trajectories.step_s, times_s)
        object_ids = trajectories.object_ids[points]
    valid: Bool = np.asarray(np.isfinite(positions).all(axis=-1))
    return np.where(valid[..., None], positions, 0.0).astype(np.float32), valid, object_ids
