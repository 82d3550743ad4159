"""Few futures that stand for many: those drawn, grouped by where and when they take things, and each group's mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from momap_ros.model.output import MOVING_GATE, MoMapOutput


def group_of_futures(output: MoMapOutput, count: int) -> npt.NDArray[np.intp]:
    """Groups of futures that are alike: those whose union adds least to the squares within are joined first.

    What is compared is the way of every instance's centre over all steps; one that does not move stays where it is.
    Ward, Hierarchical grouping to optimize an objective function, 1963, doi:10.1080/01621459.1963.10500845.

    Args:
        output: N futures.
        count: of groups, at least 1; no more than there are different futures come out.

    Returns:
        (N,) number of each future's group, 0 the largest; of groups of one size, the one with the first future.

    Raises:
        ValueError: no group is asked for.
    """
    if count < 1:
        raise ValueError(f"count: expected a whole number from 1 on, got {count}")
    if count >= output.num_hypotheses:
        return np.arange(output.num_hypotheses)
    slots = range(1, len(output.grid.slot_ids) + 1)
    moves = (output.moving_probability[:, slots] > MOVING_GATE).float()
    ways = output.codec.decode(output.maps[:, slots, 0] * moves[..., None])  # (N, S, T, 3)
    labels = fcluster(linkage(ways.flatten(1).double().numpy(), "ward"), count, "maxclust")
    _, first, group, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), np.intp)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    return np.asarray(rank[group], np.intp)


def mean_futures(output: MoMapOutput, group: npt.NDArray[np.intp]) -> MoMapOutput:
    """The mean future of every group, in the order of their numbers.

    Args:
        output: N futures.
        group: (N,) number of each one's group; every number from 0 on is there.
    """
    member = torch.nn.functional.one_hot(torch.from_numpy(np.asarray(group, np.int64))).float()  # (N, G)
    share = (member / member.sum(dim=0)).T

    def mean(values: torch.Tensor) -> torch.Tensor:  # affine maps are linear in what they were fitted to
        return torch.as_tensor((share @ values.flatten(1)).unflatten(1, values.shape[1:]))

    return replace(
        output,
        latents=mean(output.latents),
        maps=mean(output.maps),
        moving_probability=mean(output.moving_probability),
    )


def grouped(output: MoMapOutput, count: int) -> tuple[MoMapOutput, npt.NDArray[np.float64]]:
    """At most `count` futures that stand for all drawn ones, and the share of the drawn ones behind each.

    The best of ten such futures of sixty draws is nearer to the truth than that of ten draws, and their mean is no
    farther from it: `docs/metrics.md`, "Few futures for many".

    Args:
        output: N futures.
        count: how many are wanted.

    Returns:
        The means of the groups, the largest group first; and their (G,) shares, which sum to 1.

    Raises:
        ValueError: none is wanted.
    """
    group = group_of_futures(output, count)
    return mean_futures(output, group), np.bincount(group) / len(group)


def first_and_others(output: MoMapOutput, count: int) -> MoMapOutput:
    """The first future as it was drawn, then means of groups of those that are unlike it, the largest group first.

    Args:
        output: N futures, the most important one first.
        count: how many are wanted; all of them as they are where there are no more.

    Raises:
        ValueError: none is wanted.
    """
    group = group_of_futures(output, count)
    unlike = np.flatnonzero(group != group[0])
    _, renumbered = np.unique(group[unlike], return_inverse=True)
    return mean_futures(output.reordered(np.append(0, unlike)), np.append(0, 1 + renumbered))
