"""Noise that instances share: what the sampler starts from, and what training adds.

All cells of an instance have one motion, affine in the point. White noise per cell averages out over an instance, so
that a large one is known at noise levels at which a small one is not, and a motion is decided in a sliver of the noise
schedule. Noise of which most is itself one affine map per instance hides large and small instances alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from momap_ros.conditioning import MAX_INSTANCES, Conditioning
from momap_ros.shapes import check_shapes

_POINT_CHANNELS = slice(15, 18)
_VALID_CHANNEL = 18


@dataclass(frozen=True)
class NoiseShares:
    """Shares of the noise's variance; they sum to 1.

    Attributes:
        shift: the same for all cells of an instance.
        tilt: linear in the cell's point, about the instance's centre.
        white: independent in every cell.
    """

    shift: float
    tilt: float
    white: float

    def __post_init__(self) -> None:
        """Check the sum."""
        total = self.shift + self.tilt + self.white
        if min(self.shift, self.tilt, self.white) < 0 or abs(total - 1) > 1e-6:
            raise ValueError(f"noise shares: expected three shares that sum to 1, got {self}")


@dataclass(frozen=True, eq=False)
class InstanceFrames:
    """Where noise is shared: the cells of each instance and their place in it. B scenes, or one for all draws.

    Attributes:
        slots: (B, 1024) int64 instance slot per cell; the background, slot 0, shares nothing.
        offsets: (B, 3, 1024) points about their instance's centre, of unit mean square over the instance.
        radius: (B, MAX_INSTANCES) what they were divided by: root mean square distance from the centre, scene scales.
    """

    slots: torch.Tensor
    offsets: torch.Tensor
    radius: torch.Tensor

    @classmethod
    def of(cls, conditioning: Conditioning) -> InstanceFrames:
        """Read them from a model's inputs."""
        slots = conditioning.slots.flatten(1)
        points = conditioning.maps[:, _POINT_CHANNELS].flatten(2)
        valid = conditioning.maps[:, _VALID_CHANNEL].flatten(1)
        member = functional.one_hot(slots, MAX_INSTANCES).to(points.dtype) * valid[..., None]  # (B, 1024, M)
        count = member.sum(dim=1).clamp(min=1)  # (B, M)
        centres = torch.einsum("bcp,bpm->bcm", points, member) / count[:, None]

        def per_cell(per_slot: torch.Tensor) -> torch.Tensor:  # (B, C, M) -> (B, C, 1024)
            return per_slot.gather(2, slots[:, None].expand(-1, per_slot.shape[1], -1))

        offsets = (points - per_cell(centres)) * valid[:, None]
        square = torch.einsum("bcp,bpm->bm", offsets**2, member) / count
        radius = square.clamp(min=1e-8).sqrt()
        return cls(slots, offsets / per_cell(radius[:, None]), radius)


def draw_noise(
    frames: InstanceFrames,
    shares: NoiseShares,
    num_draws: int,
    channels: int,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Noise for num_draws latent images.

    Args:
        frames: of num_draws scenes, or of one scene for all draws.
        shares: of the variance.
        num_draws: N.
        channels: C of a latent image.
        generator: source; the global one of the CPU where None. Noise is drawn where the generator is: on the CPU a
            seed means the same whatever the model's device, on a GPU many scenes take less time.

    Returns:
        (N, C, 32, 32) of zero mean; its variance is 1, in the mean over an instance's cells.
    """
    lengths = check_shapes(slots=(frames.slots, "B P"), offsets=(frames.offsets, "B 3 P"))
    cells = lengths["P"]
    side = int(cells**0.5)
    device = generator.device if generator else torch.device("cpu")
    white = torch.randn((num_draws, channels, cells), generator=generator, device=device)
    if shares.white == 1:
        return white.reshape(num_draws, channels, side, side)
    shift = torch.randn((num_draws, channels, MAX_INSTANCES), generator=generator, device=device)
    tilt = torch.randn((num_draws, channels, 3, MAX_INSTANCES), generator=generator, device=device)
    slots, offsets = frames.slots.to(device), frames.offsets.float().to(device)
    if len(slots) == 1:  # one scene: one product for all draws, several times faster than values one by one
        member = functional.one_hot(slots[0], int(slots.max()) + 1).T.float()  # (S, 1024), slots that own a cell
        design = torch.cat([shares.shift**0.5 * member[None], shares.tilt**0.5 * offsets[0][:, None] * member])
        drawn = torch.cat([shift[:, :, None], tilt], dim=2)[..., : len(member)]  # (N, C, 4, S)
        shared = drawn.flatten(2) @ design.flatten(0, 1)
    else:
        of_instance = shift.gather(2, slots[:, None].expand(-1, channels, -1))
        of_cell = tilt.gather(3, slots[:, None, None].expand(-1, channels, 3, -1))
        shared = shares.shift**0.5 * of_instance + shares.tilt**0.5 * (of_cell * offsets[:, None]).sum(dim=2)
    mixed = torch.where(slots[:, None] > 0, shared + shares.white**0.5 * white, white)
    return mixed.reshape(num_draws, channels, side, side)
