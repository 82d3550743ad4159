"""How well instances agree with true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float64
from momap_ros.instances import Int32
from momap_ros.shapes import check_shapes

RECALL_IOU = 0.75


@dataclass(frozen=True, eq=False)
class SegmentationScore:
    """Agreement of one image.

    Attributes:
        ious: (G,) IoU of every true instance with the found one that is assigned to it, in rising order of true id;
            0 where none is left.
        num_found: number of instances found, assigned or not.
    """

    ious: Float64
    num_found: int

    @property
    def mean_iou(self) -> float:
        """Mean over the true instances, in [0, 1]; NaN where the image holds none."""
        return float(np.mean(self.ious)) if len(self.ious) else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true instances with an IoU above 0.75; NaN where the image holds none."""
        return float(np.mean(self.ious > RECALL_IOU)) if len(self.ious) else float("nan")


def score_instances(found: Int32, true: Int32) -> SegmentationScore:
    """Compare instances with the truth, whatever their ids.

    Every true instance is assigned at most one found one, and the other way round, such that the sum of IoUs is largest
    (H. W. Kuhn, doi:10.1002/nav.3800020109).

    Args:
        found: (H, W) ids; 0 = none.
        true: (H, W) ids; 0 = none.

    Returns:
        The scores of the image.

    Raises:
        ShapeError: the images differ in size.
    """
    from scipy.optimize import linear_sum_assignment

    check_shapes(found=(found, "H W"), true=(true, "H W"))
    found_ids, found_index = np.unique(found, return_inverse=True)
    true_ids, true_index = np.unique(true, return_inverse=True)
    shape = (len(true_ids), len(found_ids))
    common = np.bincount(true_index.ravel() * shape[1] + found_index.ravel(), minlength=shape[0] * shape[1]).reshape(
        shape
    )
    union = common.sum(axis=1, keepdims=True) + common.sum(axis=0, keepdims=True) - common
    iou = (common / union)[true_ids > 0][:, found_ids > 0]
    rows, columns = linear_sum_assignment(-iou)
    ious = np.zeros(len(iou))
    ious[rows] = iou[rows, columns]
    return SegmentationScore(ious, int(np.sum(found_ids > 0)))
