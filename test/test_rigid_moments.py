"""Sums over points against what they are sums of, one point and step at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.geometry import Float64
from momap_ros.rigid_moments import Moments

STEPS = 6


def made_up(unknown_steps: bool) -> tuple[list[Float64], list[Float64], Moments]:  # noqa: FBT001  (parametrised)
    """Two futures of seven points and one of four; a trajectory of the second object is not known at all."""
    generator = np.random.default_rng(0)
    sources = [generator.normal(size=(7, 3)), generator.normal(size=(4, 3))]
    positions = [generator.normal(size=(2, 7, STEPS, 3)), generator.normal(size=(1, 4, STEPS, 3))]
    sources[1][3] = np.nan
    if unknown_steps:
        positions[0][1, 2, 3:] = np.nan
    return sources, positions, Moments(sources, positions)


@pytest.mark.parametrize("unknown_steps", [False, True])
def test_distances_and_residuals_are_those_of_every_point(unknown_steps: bool) -> None:  # noqa: FBT001
    sources, positions, moments = made_up(unknown_steps)
    generator = np.random.default_rng(1)
    rotation = Rotation.random(3 * STEPS, rng=generator).as_matrix().reshape(3, STEPS, 3, 3)
    translation = generator.normal(size=(3, STEPS, 3))
    inliers = generator.random((3, 7)) < 0.7

    distances = moments.trajectory_distances(rotation, translation)
    residuals = moments.step_residuals(rotation, translation, inliers)
    motion = moments.in_input_coordinates(rotation, translation)

    futures = [(sources[0], positions[0][0]), (sources[0], positions[0][1]), (sources[1], positions[1][0])]
    for row, (source, target) in enumerate(futures):
        moved = np.einsum("tij,pj->pti", motion[row, :, :3, :3], source) + motion[row, :, :3, 3]
        square = ((moved - target) ** 2).sum(axis=-1)  # (P, T)
        known = np.isfinite(square).any(axis=1)
        expected = np.sqrt(np.nanmean(square[known], axis=1))
        np.testing.assert_allclose(distances[row, : len(source)][known], expected, rtol=1e-9)
        followers = square[inliers[row, : len(source)] & known]
        np.testing.assert_allclose(residuals[row], np.sqrt(np.nanmean(followers, axis=0)), rtol=1e-9)


def test_some_rows_alone_are_the_same_rows() -> None:
    _, _, moments = made_up(unknown_steps=True)
    weights = np.random.default_rng(2).random((3, 7)) * moments.known.any(axis=2)
    rotation, translation = moments.fit(weights)

    part = moments.of_rows(np.array([2, 0]))

    for whole, own in zip((rotation, translation), part.fit(weights[[2, 0]]), strict=True):
        np.testing.assert_allclose(own, whole[[2, 0]], atol=1e-12)
