"""A network over point clouds in plain PyTorch: PointNeXt without its compiled operators.

Source: Qian et al., PointNeXt, NeurIPS 2022, arXiv:2206.04670, as General Flow uses it. As there: farthest point
sampling by a factor of 4 per stage, balls whose radius doubles from stage to stage, offsets divided by the radius,
maximum over neighbours, inverted residual blocks, inverse-distance interpolation on the way back. Other than there: a
ball keeps its nearest neighbours rather than the first found; layer norm takes the place of batch norm, so that a step
depends neither on how a batch is shared among processes nor on running statistics, and stands behind the maximum: the
linear layer in front of it then runs once per point and not once per neighbour.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import nn

from momap_ros.shapes import check_shapes

STRIDE = 4
NUM_INTERPOLATED = 3
EXPANSION = 4


def farthest_point_order(points: torch.Tensor, valid: torch.Tensor, count: int) -> torch.Tensor:
    """Each point of the order is the valid one farthest from all before it; the first valid point begins.

    The beginning of the order is the order of the beginning: one call serves all stages.

    Args:
        points: (B, P, 3).
        valid: (B, P) bool; a scene with fewer than `count` valid points repeats some.
        count: length of the order.

    Returns:
        (B, count) int64 indices.
    """
    check_shapes(points=(points, "B P 3"), valid=(valid, "B P"))
    with torch.no_grad():
        planes = points.float().permute(2, 0, 1).contiguous()  # (3, B, P)
        scene = torch.arange(points.shape[0], device=points.device)
        distance = torch.where(valid, torch.inf, -1.0)
        order = torch.empty(points.shape[0], count, dtype=torch.int64, device=points.device)
        for position in range(count):
            chosen = distance.argmax(dim=1)
            order[:, position] = chosen
            to_chosen = (planes - planes[:, scene, chosen][..., None]).square_().sum(dim=0)
            torch.minimum(distance, to_chosen, out=distance)
    return order


def ball_neighbours(
    centres: torch.Tensor, points: torch.Tensor, valid: torch.Tensor, *, radius: float, count: int
) -> torch.Tensor:
    """The nearest valid points within a radius; where there are fewer, the nearest of all fills up.

    Args:
        centres: (B, M, 3).
        points: (B, P, 3).
        valid: (B, P) bool.
        radius: in the unit of the points.
        count: K.

    Returns:
        (B, M, K) int64 indices of points.
    """
    with torch.no_grad():
        distance = torch.cdist(centres.float(), points.float()).masked_fill_(~valid[:, None], torch.inf)
        nearest, index = distance.topk(min(count, points.shape[1]), dim=-1, largest=False)
        return torch.where(nearest <= radius, index, index[..., :1])


def distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(B, M, 3) and (B, P, 3) -> (B, M, P); exact for points that coincide, unlike distances by matrix products."""
    return torch.cdist(first.float(), second.float(), compute_mode="donot_use_mm_for_euclid_dist")


def gather(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, P, C) values at (B, ...) indices -> (B, ..., C)."""
    batch, length, channels = values.shape
    offset = torch.arange(batch, device=values.device).mul_(length).reshape(batch, *(1,) * (index.dim() - 1))
    return functional.embedding(index + offset, values.reshape(batch * length, channels))


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Who is near whom.

    Attributes:
        index: (B, M, K) int64 points near each centre.
        offset: (B, M, K, 3) where they lie from it, in radii.
    """

    index: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def of(
        cls, centres: torch.Tensor, points: torch.Tensor, valid: torch.Tensor, *, radius: float, count: int
    ) -> Neighbourhood:
        """Arguments as of `ball_neighbours`."""
        index = ball_neighbours(centres, points, valid, radius=radius, count=count)
        return cls(index, (gather(points, index) - centres[:, :, None]) / radius)


class LocalAggregation(nn.Module):
    """Maximum over neighbours of a linear function of their features and offsets."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Build the layers."""
        super().__init__()
        self.features = nn.Linear(channels_in, channels_out)
        self.offsets = nn.Linear(3, channels_out, bias=False)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, features: torch.Tensor, near: Neighbourhood) -> torch.Tensor:
        """(B, P, C_in) -> (B, M, C_out)."""
        projected = self.features(features)
        largest = (gather(projected, near.index) + self.offsets(near.offset).to(projected.dtype)).max(dim=2).values
        return functional.relu(self.norm(largest))


class InvertedResidual(nn.Module):
    """Aggregation over neighbours, then two layers of which the first is wider, added to the input."""

    def __init__(self, channels: int) -> None:
        """Start as the identity: the last layer is zero."""
        super().__init__()
        self.aggregation = LocalAggregation(channels, channels)
        self.widen = nn.Linear(channels, EXPANSION * channels)
        self.narrow = nn.Linear(EXPANSION * channels, channels)
        self.norm = nn.LayerNorm(EXPANSION * channels)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, features: torch.Tensor, near: Neighbourhood) -> torch.Tensor:
        """(B, M, C) -> (B, M, C)."""
        hidden = functional.relu(self.norm(self.widen(self.aggregation(features, near))))
        return functional.relu(features + self.narrow(hidden))


class Residuals(nn.Module):
    """Inverted residual blocks of one stage, among the same neighbours."""

    def __init__(self, channels: int, count: int) -> None:
        """Build `count` blocks, which may be none."""
        super().__init__()
        self.blocks = nn.ModuleList(InvertedResidual(channels) for _ in range(count))

    def forward(self, features: torch.Tensor, near: Neighbourhood) -> torch.Tensor:
        """(B, M, C) -> (B, M, C)."""
        for block in self.blocks:
            features = block(features, near)
        return features


class Propagation(nn.Module):
    """Features of a coarse cloud interpolated at a fine one and joined with what is known there."""

    def __init__(self, channels_fine: int, channels_coarse: int) -> None:
        """Build the layers."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels_fine + channels_coarse, channels_fine),
            nn.LayerNorm(channels_fine),
            nn.ReLU(),
            nn.Linear(channels_fine, channels_fine),
            nn.LayerNorm(channels_fine),
            nn.ReLU(),
        )

    def forward(
        self, fine: torch.Tensor, coarse: torch.Tensor, index: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """(B, P, C_fine), (B, M, C_coarse), and (B, P, 3) indices and weights -> (B, P, C_fine)."""
        near, share = gather(coarse, index), weight[..., None].to(coarse.dtype)
        # Not `.sum(dim=2)`, which autocast would carry out in float32.
        interpolated = near[:, :, 0] * share[:, :, 0]
        for neighbour in range(1, near.shape[2]):
            interpolated = interpolated + near[:, :, neighbour] * share[:, :, neighbour]
        return torch.as_tensor(self.layers(torch.cat([fine, interpolated], dim=-1)))


class PointNetwork(nn.Module):
    """Features of every point of a cloud, from its own and from what lies around it.

    Args:
        channels_in: features per point.
        width: channels of the finest stage; each coarser one has twice as many.
        blocks: blocks per stage, the set abstraction that begins it included; one coarser stage per number.
        radius: of the first ball, in the unit of the points.
        num_neighbours: points per ball.
    """

    def __init__(
        self, channels_in: int, *, width: int, blocks: tuple[int, ...], radius: float, num_neighbours: int
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.radius, self.num_neighbours = radius, num_neighbours
        channels = [width * 2**stage for stage in range(len(blocks) + 1)]
        self.stem = nn.Linear(channels_in, width)
        self.abstractions = nn.ModuleList(
            LocalAggregation(fine, coarse) for fine, coarse in itertools.pairwise(channels)
        )
        self.residuals = nn.ModuleList(
            Residuals(coarse, count - 1) for coarse, count in zip(channels[1:], blocks, strict=True)
        )
        self.propagations = nn.ModuleList(Propagation(fine, coarse) for fine, coarse in itertools.pairwise(channels))

    def forward(self, points: torch.Tensor, valid: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Read B clouds.

        Args:
            points: (B, P, 3).
            valid: (B, P) bool; the other points neither give nor get anything.
            features: (B, P, channels_in).

        Returns:
            (B, P, width); anything where not valid.
        """
        count = points.shape[1]
        order = farthest_point_order(points, valid, max(count // STRIDE, 1))
        levels = [(points, valid, self.stem(features))]
        radius = self.radius
        for stage, abstraction in enumerate(self.abstractions):
            fine_points, fine_valid, fine = levels[-1]
            count = max(count // STRIDE, 1)
            # Of the first stage the order has indices of the cloud; every later one takes its beginning.
            coarse_points = gather(points, order[:, :count])
            coarse_valid = torch.ones_like(order[:, :count], dtype=torch.bool)
            near = Neighbourhood.of(coarse_points, fine_points, fine_valid, radius=radius, count=self.num_neighbours)
            coarse = abstraction(fine, near)
            radius *= 2
            among = Neighbourhood.of(
                coarse_points, coarse_points, coarse_valid, radius=radius, count=self.num_neighbours
            )
            coarse = self.residuals[stage](coarse, among)
            levels.append((coarse_points, coarse_valid, coarse))
        coarse_points, _, result = levels.pop()
        while levels:
            fine_points, _, fine = levels.pop()
            index, weight = interpolation(fine_points, coarse_points)
            result = self.propagations[len(levels)](fine, result, index, weight)
            coarse_points = fine_points
        return torch.as_tensor(result)


def interpolation(fine: torch.Tensor, coarse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P, 3) indices of the coarse points nearest to every fine one, and their weights by inverse distance."""
    with torch.no_grad():
        distance = distances(fine, coarse)
        nearest, index = distance.topk(min(NUM_INTERPOLATED, coarse.shape[1]), dim=-1, largest=False)
        weight = 1 / (nearest + 1e-8)
        return index, weight / weight.sum(dim=-1, keepdim=True)
