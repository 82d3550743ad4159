"""Sensor and segmentation faults for training, on the model's cells.

A real frame has depth holes and noise, another exposure, and instances that are merged, split, missing or invented. The
model meets all of these in training, drawn anew each time a sample is seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from momap_ros.conditioning import GRID, MAX_INSTANCES
from momap_ros.data.prepared import CELL_ROLES, ROBOT_LABEL, true_labels
from momap_ros.geometry import Float32

Cells = npt.NDArray[np.integer]


def faulty_labels(body: Cells, role: Cells, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """(32, 32) instances with the faults of a segmenter without weights."""
    labels = true_labels(body, role)
    if rng.random() < 0.4:
        labels = _split_robot(labels, body, rng)
    if rng.random() < 0.15:
        labels = _merge_neighbours(labels, rng)
    if rng.random() < 0.15:
        labels = _cut(labels, rng)
    if rng.random() < 0.1:
        present = np.unique(labels[(labels > 0) & (role != CELL_ROLES["acted"])])
        if len(present):
            labels = np.where(labels == rng.choice(present), 0, labels)
    if rng.random() < 0.15:
        labels = _invent(labels, rng)
    return labels


def _split_robot(labels: Cells, body: Cells, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    robot = labels == ROBOT_LABEL
    links = np.unique(body[robot])
    if not len(links):
        return labels.astype(np.int32)
    groups = np.sort(rng.integers(0, rng.integers(2, 4), len(links)))
    lookup = np.zeros(256, np.int32)
    lookup[links] = ROBOT_LABEL + groups
    return np.where(robot, lookup[body], labels).astype(np.int32)


def _merge_neighbours(labels: Cells, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    pairs = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1),
        ]
    )
    pairs = pairs[(pairs.min(axis=1) > 0) & (pairs[:, 0] != pairs[:, 1])]
    if not len(pairs):
        return labels.astype(np.int32)
    kept, gone = rng.choice(pairs)
    return np.where(labels == gone, kept, labels).astype(np.int32)


def _cut(labels: Cells, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    large = values[counts >= 8]
    if not len(large):
        return labels.astype(np.int32)
    target = rng.choice(large)
    rows, columns = np.nonzero(labels == target)
    angle = rng.uniform(0, np.pi)
    side = (rows - rows.mean()) * np.sin(angle) + (columns - columns.mean()) * np.cos(angle) > 0
    result = labels.astype(np.int32)
    result[rows[side], columns[side]] = labels.max() + 1
    return result


def _invent(labels: Cells, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    height, width = rng.integers(2, 14, 2)
    top, left = rng.integers(0, GRID - height + 1), rng.integers(0, GRID - width + 1)
    result = labels.astype(np.int32)
    window = result[top : top + height, left : left + width]
    window[window == 0] = labels.max() + 1
    return result


def slots_from_labels(labels: Cells, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """(32, 32) slots in random order, so that their number says nothing; beyond the last one the smallest are lost."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    kept = values[np.argsort(-counts)][: MAX_INSTANCES - 1]
    lookup = np.zeros(int(labels.max()) + 1, np.int32)
    lookup[rng.permutation(kept)] = 1 + np.arange(len(kept))
    return lookup[labels]


def faulty_points(points_in_camera: Float32, labels: Cells, rng: np.random.Generator) -> Float32:
    """(32, 32, 3) points with depth noise growing with the square of depth, holes and missing surfaces (NaN)."""
    depth = points_in_camera[..., 2:]
    sigma = rng.uniform(0, 0.004)
    noise = 1 + sigma * depth * rng.standard_normal(depth.shape) + rng.normal(0, 0.01)
    points = (points_in_camera * noise).astype(np.float32)
    holes = rng.random(depth.shape[:2]) < rng.choice([0.0, 0.02, 0.1])
    if rng.random() < 0.2:
        row, column, radius = rng.uniform(0, GRID), rng.uniform(0, GRID), rng.uniform(1, 6)
        v, u = np.mgrid[:GRID, :GRID]
        holes |= (v - row) ** 2 + (u - column) ** 2 < radius**2
    if rng.random() < 0.1:
        holes |= (labels == rng.choice(labels.ravel())) & (rng.random(holes.shape) < 0.7)
    if holes.mean() < 0.9:
        points[holes] = np.nan
    return points


def faulty_colors(rgb: Float32, rng: np.random.Generator) -> Float32:
    """(64, 64, 3) in about [-1, 1] with another exposure, white balance and noise."""
    gain, offset = rng.uniform(0.7, 1.25), rng.uniform(-0.15, 0.15)
    balance = rng.uniform(-0.08, 0.08, 3)
    noise = rng.normal(0, rng.uniform(0, 0.06), rgb.shape)
    return (rgb * gain + offset + balance + noise).astype(np.float32)
