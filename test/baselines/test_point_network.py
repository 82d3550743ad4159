from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from momap_ros.baselines.point_network import (
    Neighbourhood,
    PointNetwork,
    ball_neighbours,
    farthest_point_order,
    gather,
    interpolation,
)


@pytest.fixture
def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    """Three clouds of 90 points, a fifth of which are not valid; the first point of the last cloud is one of them."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand((3, 90, 3), generator=generator)
    valid = torch.rand((3, 90), generator=generator) > 0.2
    valid[2, 0] = False
    return points, valid


def test_every_point_of_the_order_is_farthest_from_those_before(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, valid = clouds
    order = farthest_point_order(points, valid, 20).numpy()
    for cloud, usable, found in zip(points.double().numpy(), valid.numpy(), order, strict=True):
        chosen = [int(np.flatnonzero(usable)[0])]
        while len(chosen) < 20:
            distance = np.linalg.norm(cloud[:, None] - cloud[chosen], axis=-1).min(axis=1)
            chosen.append(int(np.where(usable, distance, -1).argmax()))
        assert found.tolist() == chosen


def test_the_beginning_of_the_order_is_the_order_of_the_beginning(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, valid = clouds
    order = farthest_point_order(points, valid, 24)
    again = farthest_point_order(gather(points, order), torch.ones(3, 24, dtype=torch.bool), 6)
    assert torch.equal(again, torch.arange(6).expand(3, -1))


def test_a_cloud_with_few_valid_points_repeats_them() -> None:
    valid = torch.zeros(1, 8, dtype=torch.bool)
    valid[0, [2, 5]] = True
    order = farthest_point_order(torch.rand(1, 8, 3), valid, 4)[0].tolist()
    assert order[:2] == [2, 5]
    assert set(order) == {2, 5}


def test_balls_hold_the_nearest_valid_points(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, valid = clouds
    centres = points[:, :7] + 0.01
    index = ball_neighbours(centres, points, valid, radius=0.3, count=5).numpy()
    for row in range(3):
        usable = np.flatnonzero(valid[row].numpy())
        distance, nearest = cKDTree(points[row].numpy()[usable]).query(centres[row].numpy(), k=5)
        nearest = usable[nearest]
        expected = np.where(distance <= 0.3, nearest, nearest[:, :1])
        np.testing.assert_array_equal(index[row], expected)
    assert (index == index[:, :, :1]).any()  # some balls held fewer


def test_offsets_are_measured_in_radii(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, valid = clouds
    near = Neighbourhood.of(points[:, :7], points, valid, radius=0.3, count=5)
    assert float(near.offset[valid[:, :7]].norm(dim=-1).max()) <= 1 + 1e-5
    row, centre, neighbour = 1, 3, 4
    expected = (points[row, near.index[row, centre, neighbour]] - points[row, centre]) / 0.3
    torch.testing.assert_close(near.offset[row, centre, neighbour], expected)


def test_interpolation_weighs_by_inverse_distance() -> None:
    coarse = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0]]])
    fine = torch.tensor([[[0.25, 0, 0], [1, 0, 0]]])
    index, weight = interpolation(fine, coarse)
    assert index[0, 0].tolist() == [0, 1, 2]
    inverse = np.array([1 / 0.25, 1 / 0.75, 1 / 4.75])
    np.testing.assert_allclose(weight[0, 0], inverse / inverse.sum(), rtol=1e-5)
    np.testing.assert_allclose(weight[0, 1], [1, 0, 0], atol=1e-6)  # at a coarse point: its own value
    assert index[0, 1, 0] == 1


@pytest.fixture(scope="module")
def network() -> PointNetwork:
    torch.manual_seed(0)
    network = PointNetwork(5, width=8, blocks=(2, 3), radius=0.2, num_neighbours=6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def test_points_that_are_not_valid_give_nothing(
    network: PointNetwork, clouds: tuple[torch.Tensor, torch.Tensor]
) -> None:
    points, valid = clouds
    features = torch.rand(3, 90, 5)
    before = network(points, valid, features)
    assert before.shape == (3, 90, 8)
    noise = torch.rand(3, 90, 1)
    other = network(
        torch.where(valid[..., None], points, noise), valid, torch.where(valid[..., None], features, 9 * noise)
    )
    torch.testing.assert_close(other[valid], before[valid])
    assert not torch.allclose(network(points, valid, features + 0.1)[valid], before[valid])


def test_a_shifted_cloud_has_the_same_features(
    network: PointNetwork, clouds: tuple[torch.Tensor, torch.Tensor]
) -> None:
    points, valid = clouds
    features = torch.rand(3, 90, 5)
    shifted = network(points + torch.tensor([0.5, -0.25, 1.0]), valid, features)
    torch.testing.assert_close(shifted[valid], network(points, valid, features)[valid], atol=1e-3, rtol=1e-3)


def test_all_weights_get_a_gradient(network: PointNetwork, clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, valid = clouds
    network.zero_grad()
    network(points, valid, torch.rand(3, 90, 5))[valid].square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
