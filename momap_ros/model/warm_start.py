"""Start a forecast from the one before: what it said is still to come, as latents of the new frame's cells.

A robot forecasts many times during one motion. Drawn anew, every forecast may choose another of the likely futures;
begun from the last one, each future goes on, and fewer denoising steps are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from momap_ros.conditioning import GRID, SceneGrid
from momap_ros.model.output import MOVING_GATE

if TYPE_CHECKING:
    from momap_ros.model.output import MoMapOutput


def remaining_latents(previous: MoMapOutput, grid: SceneGrid, elapsed_s: float, step_s: float) -> torch.Tensor:
    """The rest of every drawn future, for the cells of a later frame of the same, unmoved camera.

    The instance of a cell says which affine map moved its point; inverted at the elapsed time, the map gives the
    point's place in the earlier frame, and from there the rest of its way. After the last step things stay.

    Args:
        previous: an earlier forecast; its instance ids mean the same objects as the grid's.
        grid: the frame that is forecast now.
        elapsed_s: seconds between the two frames, >= 0.
        step_s: seconds between two steps of the new forecast.

    Returns:
        (N, C, 32, 32) latents without noise; zero for instances that the earlier forecast did not know or saw at rest.
    """
    codec, num_draws = previous.codec, previous.num_hypotheses
    latents = torch.zeros((num_draws, codec.latent_channels, GRID * GRID))
    slots, points = grid.slots.ravel(), grid.points_in_camera.reshape(-1, 3)
    for slot, instance_id in enumerate(grid.slot_ids, start=1):
        cells = np.flatnonzero((slots == slot) & ~np.isnan(points[:, 2]))
        if instance_id not in previous.grid.slot_ids or not len(cells):
            continue
        before = previous.grid.slot_ids.index(instance_id) + 1
        moves = previous.moving_probability[:, before] > MOVING_GATE
        now = torch.from_numpy(points[cells] / previous.grid.scale_m).float()  # (P, 3)
        start = _earlier_points(previous, before, now, elapsed_s)  # (N, P, 3)
        offset = start - previous.centres[before]
        drawn = previous.maps[:, before, None, 0] + offset @ previous.maps[:, before, 1:]  # (N, P, C)
        way = codec.decode(drawn) * moves[:, None, None, None]  # (N, P, T, 3)
        rest = _later(way, previous.step_s, elapsed_s + step_s * np.arange(codec.num_steps))
        rest = (rest - rest[:, :, :1]) * (previous.grid.scale_m / grid.scale_m)
        latents[:, :, cells] = codec.encode(rest).transpose(1, 2)
    return latents.reshape(num_draws, -1, GRID, GRID)


def _earlier_points(previous: MoMapOutput, slot: int, now: torch.Tensor, elapsed_s: float) -> torch.Tensor:
    """(N, P, 3) where points (P, 3) of an instance were in the earlier frame, in its scene scales.

    The drawn displacement at the elapsed time is d + (p - c) G; a point p came to p + d + (p - c) G.
    """
    at = np.array([elapsed_s])
    affine = previous.maps[:, slot]  # (N, 4, C)
    displaced = _later(previous.codec.decode(affine), previous.step_s, at)[:, :, 0]  # (N, 4, 3)
    shift, linear = displaced[:, :1], displaced[:, 1:]
    moved = now[None] - previous.centres[slot] - shift
    return torch.as_tensor(torch.linalg.solve(torch.eye(3) + linear, moved, left=False) + previous.centres[slot])


def _later(way: torch.Tensor, step_s: float, times_s: np.ndarray) -> torch.Tensor:
    """(..., T, 3) displacements at other times (M,): linear between steps, at rest after the last one."""
    position = torch.from_numpy(np.clip(times_s / step_s, 0, way.shape[-2] - 1)).float()
    first = position.floor().long().clamp(max=way.shape[-2] - 2)
    share = (position - first)[:, None]
    return torch.as_tensor(way[..., first, :] * (1 - share) + way[..., first + 1, :] * share)
