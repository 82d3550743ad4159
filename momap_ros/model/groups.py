"""Few futures that stand for many: those drawn, grouped by where and when they take things, one of each group.

Futures are alternatives and are never averaged: every group is spoken for by one of its members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from momap_ros.geometry import Float64
from momap_ros.model.output import MOVING_GATE, MoMapOutput


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of futures that are alike, the largest first; of one size, the one with the first future.

    Attributes:
        of_future: (N,) number of each future's group.
        speakers: (G,) index of the future of each group that is nearest to the group's mean.
    """

    of_future: npt.NDArray[np.intp]
    speakers: npt.NDArray[np.intp]


def _ways(output: MoMapOutput) -> Float64:
    """(N, 3ST) scene scales: how far the centres of all S instances get; one that does not move stays where it is."""
    slots = range(1, len(output.grid.slot_ids) + 1)
    moves = (output.moving_probability[:, slots] > MOVING_GATE).float()
    ways = output.codec.decode(output.maps[:, slots, 0] * moves[..., None])  # (N, S, T, 3)
    return np.asarray(ways.flatten(1).double().numpy(), np.float64)


def group_futures(output: MoMapOutput, count: int) -> Groups:
    """Group futures; those whose union adds least to the squares within are joined first.

    What that gains: `docs/metrics.md`, "Few futures for many". Ward, Hierarchical grouping to optimize an objective
    function, 1963, doi:10.1080/01621459.1963.10500845.

    Args:
        output: N futures.
        count: of groups wanted, at least 1; no more than there are different futures come out.

    Raises:
        ValueError: no group is wanted.
    """
    if count < 1:
        raise ValueError(f"count: expected a whole number from 1 on, got {count}")
    if count >= output.num_hypotheses:
        alone = np.arange(output.num_hypotheses)
        return Groups(alone, alone)
    ways = _ways(output)
    labels = fcluster(linkage(ways, "ward"), count, "maxclust")
    _, first, group, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), np.intp)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    of_future = np.asarray(rank[group], np.intp)
    members = [np.flatnonzero(of_future == number) for number in range(len(first))]
    speakers = [rows[np.square(ways[rows] - ways[rows].mean(axis=0)).sum(axis=1).argmin()] for rows in members]
    return Groups(of_future, np.array(speakers, np.intp))


def first_and_others(output: MoMapOutput, count: int) -> npt.NDArray[np.intp]:
    """(G,) indices of the first future, and of those that speak for groups that it does not belong to.

    Args:
        output: N futures, the most important one first.
        count: how many are wanted; no more than there are different futures come out.

    Raises:
        ValueError: none is wanted.
    """
    groups = group_futures(output, count)
    return np.append(0, np.delete(groups.speakers, groups.of_future[0]))
