"""Drawn scenes -> training batches: inputs, targets and hints, computed where the model is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from momap_ros.conditioning import GRID, MAX_INSTANCES, Conditioning, assemble
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.training.scenes import HINT_MODES, DrawnScenes

HINT_THRESHOLD_M = 0.02


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch.

    Attributes:
        conditioning: model inputs.
        latents: (B, C, 32, 32) clean latents.
        moving: (B, 32, 32) float, cells that move.
        slot_moves: (B, MAX_INSTANCES) float, slots most of whose cells move.
        slot_latents: (B, MAX_INSTANCES, C) mean latent of a slot's cells.
        slot_names: (B, MAX_INSTANCES, MAX_NAME_WORDS) int64 words of the name of the body that most of a slot's cells
            belong to; zeros where it has none.
        weights: (B, 1, 32, 32) loss weights with mean 1.
        log_duration: (B,).
    """

    conditioning: Conditioning
    latents: torch.Tensor
    moving: torch.Tensor
    slot_moves: torch.Tensor
    slot_latents: torch.Tensor
    slot_names: torch.Tensor
    weights: torch.Tensor
    log_duration: torch.Tensor


def target_latents(scenes: DrawnScenes) -> torch.Tensor:
    """(B, C, 32, 32) exact whitened latents of the cells' points, not mirrored."""
    mover = scenes.mover.flatten(1).long()  # (B, 1024)
    points = scenes.points_in_camera.flatten(1, 2).float()
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=2)
    latents = points.new_zeros(*mover.shape, scenes.latent_from_point.shape[2])
    sample, cell = mover.nonzero(as_tuple=True)
    matrices = scenes.latent_from_point[sample, mover[sample, cell]]
    latents[sample, cell] = (matrices @ homogeneous[sample, cell][..., None])[..., 0]
    return torch.as_tensor(latents.transpose(1, 2).unflatten(2, (GRID, GRID)))


def _hints(
    *,
    latents: torch.Tensor,
    member: torch.Tensor,
    slot_moves: torch.Tensor,
    scenes: DrawnScenes,
    codec: TemporalBasisCodec,
) -> tuple[torch.Tensor, torch.Tensor]:
    """True direction flags per slot and which slots are told: (B, M, 3) and (B, M)."""
    to_end = (codec.basis[-1] * codec.coefficient_std).to(latents.device)
    final = to_end @ latents.unflatten(1, (3, -1)).flatten(3)  # (B, 3, 1024)
    count = member.sum(dim=1)
    mean = torch.einsum("bpm,bcp->bmc", member, final) / count.clamp(min=1)[..., None] * scenes.scale_m[:, None, None]
    flags = torch.where(mean.abs() > HINT_THRESHOLD_M, mean.sign(), torch.zeros_like(mean)).long()
    mode = scenes.hint_modes[:, None]
    told = (mode == HINT_MODES.index("all")) | ((mode == HINT_MODES.index("moved")) & (slot_moves > 0))
    given = told & (count > 0)
    given[:, 0] = False
    return flags, given


def complete(scenes: DrawnScenes, codec: TemporalBasisCodec) -> Batch:
    """What a model is given and asked for in drawn scenes, on the device where they are."""
    flip = scenes.mirrored[:, None, None]

    def mirror(image: torch.Tensor) -> torch.Tensor:  # (B, H, W), or (B, H, W, C)
        return torch.where(flip if image.dim() == 3 else flip[..., None], image.flip(2), image)

    def mirror_x(values: torch.Tensor, of_x: torch.Tensor, dim: int) -> torch.Tensor:  # the sign of x
        sign = torch.where(of_x, -1.0, 1.0).to(values.device).reshape(-1, *(1,) * (values.dim() - dim - 1))
        return torch.where(flip[..., None], sign * values, values)

    latents = target_latents(scenes)
    latents = torch.where(flip[..., None], latents.flip(-1), latents)
    latents = mirror_x(latents, torch.arange(latents.shape[1]) < latents.shape[1] // 3, 1)  # x, then y, then z
    slots, moving = mirror(scenes.slots).long(), mirror(scenes.moving).float()
    member = functional.one_hot(slots.flatten(1), MAX_INSTANCES).float()
    count = member.sum(dim=1).clamp(min=1)
    slot_moves = (torch.einsum("bpm,bp->bm", member, moving.flatten(1)) / count > 0.5).float()
    slot_latents = torch.einsum("bpm,bcp->bmc", member, latents.flatten(2)) / count[..., None]
    flags, given = _hints(latents=latents, member=member, slot_moves=slot_moves, scenes=scenes, codec=codec)
    conditioning = assemble(
        rgb=mirror(scenes.rgb).float(),
        points_in_camera=mirror_x(mirror(scenes.seen_points_in_camera), torch.arange(3) < 1, 3),
        scale_m=scenes.scale_m,
        slots=slots,
        colors=scenes.colors,
        hint_flags=flags,
        hint_given=given,
        words=scenes.words,
    )
    weights = mirror(scenes.weights)[:, None]
    names, log_duration = scenes.slot_names, scenes.duration_s.log()
    return Batch(conditioning, latents, moving, slot_moves, slot_latents, names, weights, log_duration)
