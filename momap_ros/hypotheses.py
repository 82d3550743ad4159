"""Where an object may end: the drawn futures grouped by their end poses, with weights and covariances.

Futures are alternatives and are never averaged: every group is spoken for by one of its members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momap_ros.articulation import PointSpread
from momap_ros.geometry import Float64, transform_points
from momap_ros.shapes import check_shapes


@dataclass(frozen=True, eq=False)
class EndCluster:
    """Futures whose ends agree.

    Attributes:
        representative: index of the future that most others of the cluster are near to.
        members: indices of all its futures, rising, the representative included.
        weight: their share of all drawn futures, those without a valid motion included, in (0, 1].
        end_covariance: (6, 6) of the members' ends about the representative's, see `end_covariance`.
    """

    representative: int
    members: tuple[int, ...]
    weight: float
    end_covariance: Float64


def cluster_ends(
    ends: Float64, valid: npt.NDArray[np.bool_], points: PointSpread, tolerance_m: float
) -> list[EndCluster]:
    """Group end poses: the one with the most others near it takes them with it, again and again.

    Two ends are near each other where the object's points (RMS) are at most `tolerance_m` apart, so turns count by what
    they do to the object. No member is farther than that from its representative. Of ends with equally many others near
    them, the one with the smaller mean distance from those represents them.

    Reference: Daura et al., Peptide Folding, doi:10.1002/(SICI)1521-3773(19990115)38:1/2<236::AID-ANIE236>3.0.CO;2-M.

    Args:
        ends: (N, 4, 4) rigid motion of the object from step 0 to the last step in every future.
        valid: (N,) futures in which the object has a motion; the others are in no cluster.
        points: of the object at step 0.
        tolerance_m: metres.

    Returns:
        Clusters by falling weight, then by index of the representative.
    """
    check_shapes(ends=(ends, "N 4 4"), valid=(valid, "N"))
    if len(ends) and valid.all() and (ends == ends[:1]).all():  # an object at rest, mostly
        return [EndCluster(0, tuple(range(len(ends))), 1.0, end_covariance(ends, ends[0], points.centroid))]
    apart_m = points.distance_m(ends[:, None], ends[None])
    near = apart_m <= tolerance_m
    left = np.array(valid, np.bool_)
    clusters = []
    while left.any():
        inside = near & left
        counts = np.where(left, inside.sum(axis=1), 0)
        mean_m = np.where(inside, apart_m, 0.0).sum(axis=1) / np.maximum(counts, 1)
        centre = int(np.lexsort((mean_m, -counts))[0])
        if counts[centre] == 1:  # so does every other one that is left
            alone = np.full((6, 6), np.nan)
            clusters += [EndCluster(one, (one,), 1 / len(ends), alone) for one in np.flatnonzero(left).tolist()]
            break
        members = np.flatnonzero(inside[centre])
        covariance = end_covariance(ends[members], ends[centre], points.centroid)
        clusters.append(
            EndCluster(centre, tuple(members.tolist()), len(members) / len(ends), covariance),
        )
        left[members] = False
    return sorted(clusters, key=lambda cluster: (-cluster.weight, cluster.representative))


def end_covariance(ends: Float64, reported: Float64, centroid: Float64) -> Float64:
    """(6, 6) second moment of ends about a reported one: x y z of the centroid (metres), then rotation (radians).

    The order and the fixed axes are those of geometry_msgs/PoseWithCovariance. A rotation is the vector (axis times
    angle) that turns the reported orientation into the other, along the frame's axes.

    Args:
        ends: (M, 4, 4) rigid motions from step 0, that of the reported one included.
        reported: (4, 4) one of them.
        centroid: (3,) of the object at step 0, metres.

    Returns:
        Sum over the ends divided by M - 1; NaN where M < 2, because a single end says nothing of its spread.
    """
    check_shapes(ends=(ends, "M 4 4"), reported=(reported, "4 4"))
    if len(ends) < 2:
        return np.full((6, 6), np.nan)
    if (ends == reported).all():  # an object at rest, mostly
        return np.zeros((6, 6))
    from scipy.spatial.transform import Rotation

    shift = transform_points(ends, centroid) - transform_points(reported, centroid)
    turn = Rotation.from_matrix(ends[:, :3, :3] @ reported[:3, :3].T).as_rotvec()
    deviation = np.concatenate([shift, turn], axis=1)
    return np.asarray(deviation.T @ deviation / (len(ends) - 1))


def medoid(paths: Float64, valid: npt.NDArray[np.bool_]) -> int:
    """The valid hypothesis whose (N, T, 3) centroid track is nearest to all others'; 0 where none is valid."""
    indices = np.flatnonzero(valid)
    if not len(indices):
        return 0
    tracks = paths[indices]
    apart = np.linalg.norm(tracks[:, None] - tracks[None], axis=-1).mean(axis=(1, 2))
    return int(indices[np.argmin(apart)])


def agreement(ends: Float64, valid: npt.NDArray[np.bool_], chosen: int, tolerance_m: float) -> tuple[float, float]:
    """Share of all hypotheses that end near the chosen one, and the valid ones' RMS distance from its end, metres."""
    if not valid.any():
        return 0.0, 0.0
    apart = np.linalg.norm(ends[valid] - ends[chosen], axis=-1)
    return float(np.sum(apart <= tolerance_m) / len(ends)), float(np.sqrt(np.mean(apart**2)))
