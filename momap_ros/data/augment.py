"""Views, sensor and segmentation faults for training, on the model's cells.

A camera may stand elsewhere or zoom in: `cropped` shows a part of what was seen. A real frame has depth holes and
noise, another exposure, and instances that are merged, split, missing or invented. The model meets all of these in
training, drawn anew each time a sample is seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.conditioning import GRID, MAX_INSTANCES, scene_scale
from momap_ros.data.prepared import CELL_ROLES, ROBOT_LABEL, PreparedSplit, true_labels
from momap_ros.geometry import Float32

Cells = npt.NDArray[np.integer]
SMALLEST_CROP = 0.7  # side, of the image's


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


def cropped(split: PreparedSplit, share: float, rng: np.random.Generator) -> PreparedSplit:
    """Some samples seen through a longer lens, off centre: squares that hold what moves and what the sentence names.

    Points stay where they are in the camera's frame; what is measured in scene scales follows the part's own scale.

    Args:
        split: samples in memory.
        share: probability that a sample is cropped.
        rng: source.
    """
    names = ("points_in_camera", "seen_points_in_camera", "label", "body", "role", "mover", "moving", "rgb")
    arrays: dict[str, Any] = {name: np.array(getattr(split, name)) for name in (*names, "latent_from_point", "scale_m")}
    for row in range(len(split)):
        if rng.random() >= share:
            continue
        square = _square_around(_told(split, row), rng)
        seen = split.seen_points_in_camera[row][np.ix_(*cells_of(square, GRID))].astype(np.float32)
        if np.isnan(seen[..., 2]).all():
            continue
        for name in names:
            image = getattr(split, name)[row]
            arrays[name][row] = image[np.ix_(*cells_of(square, len(image)))]
        arrays["scale_m"][row] = scene_scale(seen)
        arrays["latent_from_point"][row] *= split.scale_m[row] / arrays["scale_m"][row]
    return replace(split, **arrays)


def _told(split: PreparedSplit, row: int) -> npt.NDArray[np.bool_]:
    """(32, 32) cells of what is acted upon, of other objects that move, and of those with a word of the sentence."""
    role: Cells = np.asarray(split.role[row])
    body = np.minimum(split.body[row], split.names.shape[1] - 1)
    words = split.words[row, 0]
    has_word = np.array(np.isin(split.names[row], words[words > 0]).any(axis=1))
    is_object = (role != CELL_ROLES["world"]) & (role != CELL_ROLES["robot"])
    return np.asarray((role == CELL_ROLES["acted"]) | (is_object & (split.moving[row] | has_word[body])))


def _square_around(told: npt.NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float, float]:
    """Top, left and side, in cells, of a random square inside the grid that holds some of its cells."""
    spans = []
    for axis in (1, 0):
        found = np.flatnonzero(told.any(axis=axis))
        spans.append((found[0], found[-1] + 1) if len(found) else (GRID / 2, GRID / 2))
    smallest = max(SMALLEST_CROP * GRID, *(last - first for first, last in spans))
    side = rng.uniform(smallest, GRID)
    top, left = (rng.uniform(max(last - side, 0), min(first, GRID - side)) for first, last in spans)
    return float(top), float(left), float(side)


def cells_of(square: tuple[float, float, float], size: int) -> tuple[Cells, Cells]:
    """Rows and columns of an image of that size which the cells of a square's own image show."""
    top, left, side = square
    steps = (np.arange(size) + 0.5) * side / GRID
    rows, columns = (np.floor(start * size / GRID + steps).astype(np.intp) for start in (top, left))
    return np.minimum(rows, size - 1), np.minimum(columns, size - 1)
