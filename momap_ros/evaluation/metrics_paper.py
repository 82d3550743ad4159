"""The eight columns of the paper's Table 1, one function each.

Paper: Sec. 4.2, whose text leaves thresholds, neighbours and units open; here they are arguments. What was chosen, and
why, is on docs/metrics.md. In all functions N are hypotheses, P points, T steps, I patches; positions are metres in the
camera frame, without NaN; results are one number per hypothesis, for the caller to take the best of.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from momap_ros.evaluation.metrics import lengths
from momap_ros.geometry import Float32, Float64
from momap_ros.shapes import check_shapes

Bool = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


def moves(trajectories: Float32, threshold_m: float) -> Bool:
    """Whether points are at any step farther than a threshold from where they start: (..., T, 3) -> (...)."""
    check_shapes(trajectories=(trajectories, "... T 3"))
    farthest = lengths(trajectories - trajectories[..., :1, :]).max(axis=-1)
    return np.asarray(farthest > threshold_m)


def foreground_mask_iou(drawn: Float32, true: Float32, *, threshold_m: float) -> Float64:
    """fg_mask_iou, higher is better: intersection over union of the drawn and the true moving points.

    Where nothing moves in both, the forecast is right: 1.

    Args:
        drawn: (N, P, T, 3).
        true: (P, T, 3).
        threshold_m: a point moves if it is at any step farther than this from where it starts.
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    drawn_moves, true_moves = moves(drawn, threshold_m), moves(true, threshold_m)
    union = (drawn_moves | true_moves).sum(axis=1)
    intersection = (drawn_moves & true_moves).sum(axis=1)
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def time_warped_error(drawn: Float32, true: Float32) -> Float64:
    """ate_dtw in metres, lower is better: distance to the true path with time warped to fit it.

    Dynamic time warping per point, without a window, steps (1, 0), (0, 1), (1, 1); of warps with equal sums the one
    with more diagonal steps. The sum of distances along the warp is divided by its length, then averaged over points.

    Reference: Sakoe and Chiba, doi:10.1109/TASSP.1978.1163055.

    Args:
        drawn: (N, P, T, 3).
        true: (P, T, 3).
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    # Coordinates, then time, come first: every operation below runs over all hypotheses and points at once.
    moved = np.ascontiguousarray(drawn.transpose(3, 2, 0, 1))  # (3, T, N, P)
    target = np.ascontiguousarray(true.transpose(2, 1, 0))[:, :, None]  # (3, T, 1, P)
    steps, shape = moved.shape[1], (moved.shape[1] + 1, *moved.shape[2:])
    # Sums and lengths of the best warps that end on the two previous antidiagonals i + j; row i + 1, row 0 is outside.
    last, before = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    last_length, before_length = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    before[0] = 0
    for diagonal in range(2 * steps - 1):
        low, high = max(0, diagonal - steps + 1), min(diagonal, steps - 1) + 1
        offset = moved[:, low:high] - target[:, diagonal - high + 1 : diagonal - low + 1][:, ::-1]
        distance = np.sqrt((offset * offset).sum(axis=0))
        total, length = before[low:high], before_length[low:high]
        for rows in (slice(low, high), slice(low + 1, high + 1)):
            better = last[rows] < total
            total, length = np.where(better, last[rows], total), np.where(better, last_length[rows], length)
        before, before_length = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
        before[low + 1 : high + 1], before_length[low + 1 : high + 1] = total + distance, length + 1
        last, before, last_length, before_length = before, last, before_length, last_length
    return np.asarray((last[steps] / last_length[steps]).mean(axis=1), np.float64)


def distance_signature_error(drawn: Float32, true: Float32) -> Float64:
    """D_sig in metres, lower is better: difference of shape of the paths, whatever rotates or shifts them.

    A path's signature is the T x T matrix of distances between its positions at any two steps; the error is the mean
    absolute difference of the matrices off their diagonals.

    Args:
        drawn: (N, P, T, 3).
        true: (P, T, 3).
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    moved = np.ascontiguousarray(drawn.transpose(3, 2, 0, 1))  # (3, T, N, P)
    target = np.ascontiguousarray(true.transpose(2, 1, 0))[:, :, None]  # (3, T, 1, P)
    total, steps = np.zeros(len(drawn)), moved.shape[1]
    for lag in range(1, steps):  # the matrices are symmetric and their diagonals are zero
        step, true_step = moved[:, lag:] - moved[:, :-lag], target[:, lag:] - target[:, :-lag]
        difference = np.sqrt((step * step).sum(axis=0)) - np.sqrt((true_step * true_step).sum(axis=0))
        total += np.abs(difference).sum(axis=(0, 2), dtype=np.float64)
    pairs = steps * (steps - 1) // 2
    return np.asarray(total / max(pairs * moved.shape[3], 1))


def nearest_neighbours(points: Float32, count: int) -> Indices:
    """(P, K) indices of the nearest other points, K = `count` or all there are; points are (P, 3)."""
    check_shapes(points=(points, "P 3"))
    offset = points[:, None] - points
    distance = np.einsum("pqc,pqc->pq", offset, offset)
    np.fill_diagonal(distance, np.inf)
    count = min(count, len(points) - 1)
    return np.asarray(np.argsort(distance, axis=1, kind="stable")[:, :count])


def local_distance_difference(drawn: Float32, true: Float32, *, num_neighbours: int) -> Float64:
    """local_dist_diff in metres, lower is better: how much distances between neighbours differ from the true ones.

    Neighbours are those of the first frame among the points that are scored, the same for drawn and true.

    Args:
        drawn: (N, P, T, 3).
        true: (P, T, 3); at least two points.
        num_neighbours: K per point; all there are where they are fewer.
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    neighbours = nearest_neighbours(true[:, 0], num_neighbours)
    total = np.zeros(len(drawn))
    for of_point in neighbours.T:
        distance = lengths(drawn - drawn[:, of_point])
        true_distance = lengths(true - true[of_point])
        total += np.abs(distance - true_distance).mean(axis=(1, 2), dtype=np.float64)
    return np.asarray(total / max(neighbours.shape[1], 1))


def nearest_patch_accuracy(drawn_centroids: Float32, true_centroids: Float32, scored: Bool) -> Float64:
    """patch_nearest_acc, higher is better: how often the patch nearest to a moving patch is the right one.

    Per step after the first and scored patch; NaN where fewer than three patches leave no choice, or none is scored.

    Args:
        drawn_centroids: (N, I, T, 3).
        true_centroids: (I, T, 3).
        scored: (I,) patches whose neighbour is asked for: those that truly move.
    """
    check_shapes(
        drawn_centroids=(drawn_centroids, "N I T 3"), true_centroids=(true_centroids, "I T 3"), scored=(scored, "I")
    )
    if len(true_centroids) < 3 or not scored.any():
        return np.full(len(drawn_centroids), np.nan)
    drawn_nearest, true_nearest = _nearest_patch(drawn_centroids), _nearest_patch(true_centroids)
    return np.asarray((drawn_nearest == true_nearest)[:, scored, 1:].mean(axis=(1, 2)), np.float64)


def _nearest_patch(centroids: Float32) -> Indices:
    """(..., I, T) index of the other patch that is nearest."""
    offset = centroids[..., :, None, :, :] - centroids[..., None, :, :, :]
    distance = np.einsum("...c,...c->...", offset, offset)
    own = np.arange(distance.shape[-2])
    distance[..., own, own, :] = np.inf
    return np.asarray(distance.argmin(axis=-2))


def direction_accuracy(drawn: Float32, true: Float32, *, span: int, threshold_m: float) -> Float64:
    """q_acc_dT, higher is better: how often a point goes left, stays or goes right as it should, and so on per axis.

    Of the motion from every step t to t + dT, each of the three axes of the camera (x right, y down, z forward) is one
    of three directions; the result is the share of right ones over axes, steps and points. NaN where T <= dT.

    Args:
        drawn: (N, P, T, 3).
        true: (P, T, 3).
        span: dT in steps.
        threshold_m: along an axis, a shorter motion is "stay".
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    if true.shape[1] <= span:
        return np.full(len(drawn), np.nan)
    same = _directions(drawn, span, threshold_m) == _directions(true, span, threshold_m)
    return np.asarray(same.mean(axis=(1, 2, 3)), np.float64)


def _directions(trajectories: Float32, span: int, threshold_m: float) -> npt.NDArray[np.int8]:
    motion = trajectories[..., span:, :] - trajectories[..., :-span, :]
    return np.asarray(motion > threshold_m, np.int8) - np.asarray(motion < -threshold_m, np.int8)
