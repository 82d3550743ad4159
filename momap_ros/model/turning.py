"""How instances are expected to turn: a linear map for each, from where a cell lies in it to the cell's latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import nn

from momap_ros.conditioning import MAX_INSTANCES
from momap_ros.model.noise import InstanceFrames

# A turn by a right angle moves a point by as much as it is away from the axis: in latents per scene scale, about.
TURN_GAIN = 4.0


@dataclass(frozen=True, eq=False)
class Shapes:
    """Instances as `Turning` reads them.

    Attributes:
        described: (B, M, 3 channels + 6) means over an instance's cells of looks times place, and of place times place.
        frames: where cells lie in their instances.
    """

    described: torch.Tensor
    frames: InstanceFrames


class Turning(nn.Module):
    """What a scene encoder adds to the expected latents of an instance's cells, beside their mean.

    A rigid motion is affine in the point. Which way something turns depends on its shape, and on what lies where in it
    (which end of a bottle its neck is); a network of convolutions would have to multiply that by the cells' places.
    """

    def __init__(self, width: int, channels: int, latent_channels: int) -> None:
        """Build the layers; what is added to the tokens and to the cells begins at zero.

        Args:
            width: of the tokens.
            channels: of the looks of cells.
            latent_channels: C of the latent image.
        """
        super().__init__()
        features = 3 * channels + 6
        self.places = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.features = nn.Linear(features, width)
        self.turns = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 3 * latent_channels)
        )
        for layers in (self.places, self.turns):
            for parameter in layers[-1].parameters():
                nn.init.zeros_(parameter)

    @staticmethod
    def shapes(looks: torch.Tensor, frames: InstanceFrames) -> Shapes:
        """What the instances of B scenes are like, and where their cells lie.

        Args:
            looks: (B, channels, 1024) of the cells.
            frames: where they lie in their instances.
        """
        member = functional.one_hot(frames.slots, MAX_INSTANCES).to(looks.dtype)  # (B, 1024, M)
        count = member.sum(dim=1).clamp(min=1)[..., None]
        offsets = frames.offsets.to(looks.dtype)
        squares = torch.stack([offsets[:, i] * offsets[:, j] for i in range(3) for j in range(i, 3)], dim=1)
        leaning = (looks[:, :, None] * offsets[:, None]).flatten(1, 2)
        return Shapes((torch.cat([leaning, squares], dim=1) @ member).transpose(1, 2) / count, frames)

    def forward(self, tokens: torch.Tensor, shapes: Shapes) -> torch.Tensor:
        """(B, C, 1024) to be added to the cells' expected latents: of zero mean over an instance, zero off instances.

        Args:
            tokens: (B, M, width) of the instances, when they have heard the sentence.
            shapes: of the same scenes.
        """
        frames = shapes.frames
        known = torch.cat([tokens, self.features(shapes.described)], dim=-1)
        turns = self.turns(known).unflatten(2, (3, -1))  # (B, M, 3, C)
        places = TURN_GAIN * frames.offsets * frames.radius.gather(1, frames.slots)[:, None]  # from scene scales
        member = functional.one_hot(frames.slots, MAX_INSTANCES).to(turns.dtype)
        on_instances = member * (torch.arange(MAX_INSTANCES, device=member.device) > 0)
        of_cells = torch.einsum("bpm,bmkc->bpkc", on_instances, turns)
        return torch.einsum("bkp,bpkc->bcp", places.to(turns.dtype), of_cells)
