"""The MoMap VAE: a whole MoMap as a latent image of a normalised 32 channels, and back.

Paper: Sec. 3.3.2. The network is diffusers' AutoencoderKL, widened by `inflate_vae`. Its latents have very different
sizes; noise of unit size would drown some and not touch others, so every channel is normalised by its own mean and
standard deviation over training samples, which the network's configuration carries.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from momap_ros.shapes import check_shapes


class StepCodec:
    """Displacements themselves as the code: what `MoMapOutput` is given for a MoMap that has been decoded.

    Args:
        num_steps: T.
    """

    def __init__(self, num_steps: int) -> None:
        """Remember T."""
        self._num_steps = num_steps

    @property
    def num_steps(self) -> int:
        """T, the observation included."""
        return self._num_steps

    @property
    def latent_channels(self) -> int:
        """3 T, step-major."""
        return 3 * self._num_steps

    def encode(self, displacement: torch.Tensor) -> torch.Tensor:
        """(..., T, 3) displacements in scene scales -> (..., 3 T)."""
        check_shapes({"T": self._num_steps}, displacement=(displacement, "... T 3"))
        return displacement.float().flatten(-2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(..., 3 T) -> (..., T, 3) displacements in scene scales."""
        check_shapes({"C": self.latent_channels}, latents=(latents, "... C"))
        displacement: torch.Tensor = latents.float().unflatten(-1, (self._num_steps, 3))
        return displacement


def num_steps_of(vae: AutoencoderKL) -> int:
    """T of a MoMap VAE."""
    return int(vae.config["in_channels"]) // 3


def latent_statistics(vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every latent channel, (1, C, 1, 1) each, on the network's device."""
    device = next(vae.parameters()).device
    mean, std = (
        torch.tensor(vae.config[name], dtype=torch.float32, device=device)[None, :, None, None]
        for name in ("latents_mean", "latents_std")
    )
    return mean, std


def set_latent_statistics(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Store (C,) mean and standard deviation in the network's configuration."""
    check_shapes({"C": int(vae.config["latent_channels"])}, mean=(mean, "C"), std=(std, "C"))
    vae.register_to_config(
        latents_mean=[float(value) for value in mean], latents_std=[float(value) for value in std.clamp(min=1e-6)]
    )


def encode_momaps(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """(B, 3 T, S, S) MoMap images in scene scales -> (B, C, S/8, S/8) normalised latents, without noise."""
    check_shapes({"C": int(vae.config["in_channels"])}, images=(images, "B C S S"))
    mean, std = latent_statistics(vae)
    latents: torch.Tensor = (vae.encode(images).latent_dist.mode().float() - mean) / std
    return latents


def decode_displacement(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Normalised latents -> what every pixel moves.

    The difference to the decoded first step, not to the observation: what the network gets wrong about where a point
    is cancels out, and the observation stays as it was measured.

    Args:
        vae: MoMap VAE.
        latents: (B, C, S/8, S/8) normalised.

    Returns:
        (B, T, 3, S, S) float32 displacements in scene scales; exactly zero at step 0.
    """
    mean, std = latent_statistics(vae)
    decoded = vae.decode(latents.to(mean.dtype) * std + mean).sample.float()
    positions: torch.Tensor = decoded.unflatten(1, (num_steps_of(vae), 3))
    return positions - positions[:, :1]
