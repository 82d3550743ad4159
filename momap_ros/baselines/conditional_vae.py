"""MoMap-VAE: the small model without its diffusion, trained as a conditional VAE.

Paper: MoMaps, Sec. 4.1: "uses the same overall architecture but omits the diffusion U-Net in the middle. Instead, it
is trained as a conditional VAE that directly generates the MoMap." As there, a future is one pass through the network,
from a code drawn from a standard normal prior. Here the network is the small model's own: scene encoder, U-Net, moving
head, loss weights and projection on one motion per instance are shared, so that diffusion is all that differs. The code
is an image of the U-Net's coarse level, 8x8: as fine as its attention over cells can make coherent (the paper does not
say).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as functional
from torch import nn

from momap_ros.conditioning import GRID
from momap_ros.model.denoiser import ContextAttention, ResidualBlock, SmallDenoiser
from momap_ros.model.device import training_autocast
from momap_ros.model.scene_encoder import SceneEncoder, SceneEncoding
from momap_ros.training.batches import Batch
from momap_ros.training.scene_losses import scene_losses
from momap_ros.training.steps import SmallTraining, latent_loss

CODE_GRID = 8
CODE_CHANNELS = 8
CELLS_PER_CODE = GRID // CODE_GRID
MAX_LOG_VARIANCE = 10.0


class CodeDecoder(nn.Module):
    """The small model's U-Net, which reads a code instead of noisy latents.

    Called like the denoiser, so that `MoMapPipeline` draws from it in one step: the code is then the part of the
    pipeline's noise that `code_of_noise` takes.
    """

    prediction = "sample"  # what the pipeline asks a denoiser

    def __init__(self, unet: SmallDenoiser) -> None:
        """Put a projection of the code in front of the U-Net."""
        super().__init__()
        self.expand = nn.Conv2d(CODE_CHANNELS, int(unet.config["latent_channels"]), 1)
        self.unet = unet

    @staticmethod
    def code_of_noise(noise: torch.Tensor) -> torch.Tensor:
        """(B, C, 32, 32) white noise -> (B, CODE_CHANNELS, 8, 8) of it."""
        return noise[:, :CODE_CHANNELS, ::CELLS_PER_CODE, ::CELLS_PER_CODE]

    def decode(self, code: torch.Tensor, scene: SceneEncoding) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, CODE_CHANNELS, 8, 8) -> (B, C, 32, 32) clean latents and (B, 32, 32) logits of "this cell moves"."""
        image = functional.interpolate(self.expand(code), scale_factor=float(CELLS_PER_CODE), mode="nearest")
        # There is one noise level only; the U-Net's embedding of it is a constant.
        timestep = torch.zeros(len(code), dtype=torch.int64, device=code.device)
        clean, moving_logits = self.unet(image, timestep, scene)
        return clean, moving_logits

    def forward(
        self,
        noise: torch.Tensor,
        timestep: torch.Tensor,  # noqa: ARG002  (the pipeline gives it)
        scene: SceneEncoding,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `decode`, from the pipeline's noise; the timestep says nothing."""
        return self.decode(self.code_of_noise(noise), scene)


class Posterior(nn.Module):
    """Where a true future lies among the codes: the U-Net's way down, over latents and conditions."""

    def __init__(self, unet: SmallDenoiser) -> None:
        """Start at the prior: the last layer is zero."""
        super().__init__()
        config = unet.config
        fine, coarse = config["channels"]
        self.prompt = nn.Linear(config["context_width"], config["embedding_width"])
        channels_in = config["latent_channels"] + config["condition_channels"]
        self.conv_in = nn.Conv2d(4 * channels_in, fine, 3, padding=1)
        self.fine_block = ResidualBlock(fine, fine, config["embedding_width"])
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.coarse_block = ResidualBlock(coarse, coarse, config["embedding_width"])
        self.attention = ContextAttention(coarse, config["context_width"], attend_cells=True)
        self.conv_out = nn.Conv2d(coarse, 2 * CODE_CHANNELS, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]  # Conv2d has a bias here

    def forward(self, latents: torch.Tensor, scene: SceneEncoding) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, 32, 32) clean latents -> mean and log variance, (B, CODE_CHANNELS, 8, 8) each."""
        embedding = functional.silu(self.prompt(scene.summary))
        hidden = self.conv_in(functional.pixel_unshuffle(torch.cat([latents, scene.maps], dim=1), 2))
        hidden = self.down(self.fine_block(hidden, embedding))
        hidden = self.attention(self.coarse_block(hidden, embedding), scene.context, scene.context_bias)
        mean, log_variance = self.conv_out(hidden).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)


@dataclass(frozen=True)
class LossWeights:
    """Of the auxiliary losses; the defaults are the small model's.

    Attributes:
        mask: which cells move.
        instance: which instances move.
        naming: what they are called.
        motion: how every instance is expected to.
        duration: for how long.
    """

    mask: float = SmallTraining.mask_weight
    instance: float = SmallTraining.instance_weight
    naming: float = SmallTraining.naming_weight
    motion: float = SmallTraining.motion_weight
    duration: float = SmallTraining.duration_weight


class ConditionalVAE(nn.Module):
    """Scene encoder, posterior and decoder.

    Args:
        scene_encoder: the small model's.
        unet: its U-Net.
    """

    def __init__(self, scene_encoder: SceneEncoder, unet: SmallDenoiser) -> None:
        """Put the posterior beside them."""
        super().__init__()
        self.scene_encoder = scene_encoder
        self.posterior = Posterior(unet)
        self.decoder = CodeDecoder(unet)


def training_loss(
    model: ConditionalVAE,
    batch: Batch,
    *,
    noise: torch.Tensor,
    weighing: torch.Tensor,
    kl_weight: float,
    weights: LossWeights,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted error of the clean latents, divergence from the prior, and the small model's auxiliary losses.

    Args:
        model: the network.
        batch: what it learns from.
        noise: (B, CODE_CHANNELS, 8, 8) of the posterior.
        weighing: (C, C + 3) of errors of latents, as in the small model's loss.
        kl_weight: of the divergence, in nats per scene.
        weights: of the auxiliary losses.
    """
    with training_autocast(noise.device):
        scene = model.scene_encoder(batch.conditioning)
        mean, log_variance = model.posterior(batch.latents, scene)
        code = mean + (0.5 * log_variance).exp() * noise
        clean, moving_logits = model.decoder.decode(code, scene)
    mask = functional.binary_cross_entropy_with_logits(moving_logits.float(), batch.moving, reduction="none")
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    parts = {
        "latent": latent_loss(clean.float() - batch.latents, batch.weights, weighing),
        "kl": divergence.flatten(1).sum(dim=1).mean(),
        "mask": (mask * batch.weights[:, 0]).mean(),
    } | scene_losses(scene, batch, weighing)
    heads = sum(weight * parts[name] for name, weight in asdict(weights).items())
    return parts["latent"] + kl_weight * parts["kl"] + heads, parts
