"""Distances between drawn and true trajectories, one function each."""

from __future__ import annotations

import numpy as np

from momap_ros.geometry import Float32, Float64
from momap_ros.shapes import check_shapes


def average_displacement_error(drawn: Float32, true: Float32) -> Float64:
    """Mean distance over points and steps, per hypothesis (ADE).

    Args:
        drawn: (N, P, T, 3) metres.
        true: (P, T, 3) metres.

    Returns:
        (N,) metres.
    """
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    return np.asarray(np.linalg.norm(drawn - true, axis=-1).mean(axis=(1, 2)), np.float64)


def final_displacement_error(drawn: Float32, true: Float32) -> Float64:
    """Mean distance over points at the last step, per hypothesis (FDE); shapes as in `average_displacement_error`."""
    check_shapes(drawn=(drawn, "N P T 3"), true=(true, "P T 3"))
    return np.asarray(np.linalg.norm(drawn[:, :, -1] - true[:, -1], axis=-1).mean(axis=1), np.float64)


def farthest_displacement(drawn: Float32) -> Float64:
    """Largest distance of a point set's centroid from its start, per hypothesis: how far an object goes.

    Args:
        drawn: (N, P, T, 3) metres.

    Returns:
        (N,) metres.
    """
    check_shapes(drawn=(drawn, "N P T 3"))
    centroid = drawn.mean(axis=1)
    return np.asarray(np.linalg.norm(centroid - centroid[:, :1], axis=-1).max(axis=1), np.float64)
