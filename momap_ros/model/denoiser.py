"""The small denoiser: a two-level U-Net over the latent image, attending to words and instances."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from momap_ros.model.noise import NoiseShares
from momap_ros.model.prediction import check_prediction
from momap_ros.model.scene_encoder import SceneEncoding

TIME_FREQUENCIES = 32
HEAD_WIDTH = 32


class ResidualBlock(nn.Module):
    """Two convolutions whose middle is scaled and shifted by the time and prompt embedding."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        """Start as the identity (or the 1x1 skip): the second convolution is zero."""
        super().__init__()
        self.norm_in = nn.GroupNorm(8, channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm_out = nn.GroupNorm(8, channels_out)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.dropout = nn.Dropout(0.0)  # training sets its share
        self.modulation = nn.Linear(embedding, 2 * channels_out)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) and (B, E) -> (B, C_out, H, W)."""
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        hidden = functional.silu(self.norm_out(hidden) * (1 + scale) + shift)
        return torch.as_tensor(self.skip(x) + self.conv_out(self.dropout(hidden)))


class ContextAttention(nn.Module):
    """Cells attend to the context tokens and, where asked, to all other cells."""

    def __init__(self, channels: int, context_width: int, *, attend_cells: bool) -> None:
        """Start as the identity: the output projection is zero."""
        super().__init__()
        self.heads = channels // HEAD_WIDTH
        self.norm = nn.GroupNorm(8, channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.context_key_value = nn.Linear(context_width, 2 * channels)
        self.cell_key_value = nn.Conv2d(channels, 2 * channels, 1) if attend_cells else None
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def _heads(self, tokens: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = tokens.unflatten(-1, (self.heads, HEAD_WIDTH))
        return heads.transpose(1, 2)  # (B, L, C) -> (B, heads, L, 32)

    def forward(self, x: torch.Tensor, context: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W), (B, L, D) and (B, L) -> (B, C, H, W)."""
        normed = self.norm(x)
        query = self._heads(self.query(normed).flatten(2).transpose(1, 2))
        key, value = (self._heads(part) for part in self.context_key_value(context).chunk(2, dim=-1))
        if self.cell_key_value is not None:
            cells = self.cell_key_value(normed).flatten(2).transpose(1, 2)
            cell_key, cell_value = (self._heads(part) for part in cells.chunk(2, dim=-1))
            key, value = torch.cat([key, cell_key], dim=2), torch.cat([value, cell_value], dim=2)
            bias = functional.pad(bias, (0, cells.shape[1]))
        mask = bias[:, None, None].to(query.dtype)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        cells_first = attended.transpose(1, 2).flatten(2)  # (B, H * W, C)
        return torch.as_tensor(x + self.out(cells_first.transpose(1, 2).unflatten(2, x.shape[2:])))


class SmallDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' classes are untyped
    """Predicts the clean latent image, or what its config says instead, and a moving-cell logit from a noisy one.

    Paper: Sec. 3.3.3, at the size of an onboard computer. The clean sample is predicted rather than the noise: it lies
    on a low-dimensional set (a few rigid motions, zero elsewhere) that a narrow network can represent.

    Args:
        latent_channels: channels C of the noisy and the clean latent image.
        condition_channels: channels of `SceneEncoding.maps`.
        channels: widths at 16x16 and at 8x8; multiples of 32.
        context_width: width D of the context tokens.
        embedding_width: width of the time and prompt embedding.
        num_middle_blocks: blocks at 8x8.
        noise_shares: shift, tilt and white share of the noise it was trained on, see `momap_ros.model.noise`.
        prediction: what its output means, see `momap_ros.model.prediction`; "sample" = the clean latents.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        latent_channels: int = 30,
        condition_channels: int = 75,
        channels: tuple[int, int] = (96, 192),
        context_width: int = 128,
        embedding_width: int = 192,
        num_middle_blocks: int = 2,
        noise_shares: tuple[float, float, float] = (0.0, 0.0, 1.0),
        prediction: str = "sample",
    ) -> None:
        """Build the layers; the last one is zero, so an untrained model predicts no motion."""
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers' classes are untyped
        fine, coarse = channels
        check_prediction(prediction)
        self.noise_shares = NoiseShares(*noise_shares)
        self.prediction = prediction
        self.time = nn.Sequential(
            nn.Linear(2 * TIME_FREQUENCIES, embedding_width), nn.SiLU(), nn.Linear(embedding_width, embedding_width)
        )
        self.prompt = nn.Linear(context_width, embedding_width)
        self.conv_in = nn.Conv2d(4 * (latent_channels + condition_channels), fine, 3, padding=1)
        self.down_block = ResidualBlock(fine, fine, embedding_width)
        self.down_attention = ContextAttention(fine, context_width, attend_cells=False)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.middle_blocks = nn.ModuleList(
            ResidualBlock(coarse, coarse, embedding_width) for _ in range(num_middle_blocks)
        )
        self.middle_attentions = nn.ModuleList(
            ContextAttention(coarse, context_width, attend_cells=True) for _ in range(num_middle_blocks)
        )
        self.up = nn.Conv2d(coarse, fine, 1)
        self.up_block = ResidualBlock(2 * fine, fine, embedding_width)
        self.up_attention = ContextAttention(fine, context_width, attend_cells=False)
        self.out_block = ResidualBlock(fine, fine, embedding_width)
        self.norm_out = nn.GroupNorm(8, fine)
        self.conv_out = nn.Conv2d(fine, 4 * (latent_channels + 1), 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]  # Conv2d has a bias here

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor, scene: SceneEncoding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One denoising estimate.

        Args:
            noisy: (B, C, 32, 32) latents at `timestep`.
            timestep: (B,) in 0..999, 999 = noise.
            scene: encodings of the same B scenes.

        Returns:
            (B, C, 32, 32) clean latents (see `prediction`) and (B, 32, 32) logits of "this cell moves".
        """
        rates = torch.arange(TIME_FREQUENCIES, device=noisy.device) * (-math.log(1e4) / TIME_FREQUENCIES)
        phase = timestep.float()[:, None] * rates.exp()
        embedding = self.time(torch.cat([phase.sin(), phase.cos()], dim=-1).to(noisy.dtype))
        embedding = functional.silu(embedding + self.prompt(scene.summary))
        context, bias = scene.context, scene.context_bias
        hidden = self.conv_in(functional.pixel_unshuffle(torch.cat([noisy, scene.maps], dim=1), 2))  # (B, fine, 16, 16)
        skip = self.down_attention(self.down_block(hidden, embedding), context, bias)
        hidden = self.down(skip)  # (B, coarse, 8, 8)
        for block, attention in zip(self.middle_blocks, self.middle_attentions, strict=True):
            hidden = attention(block(hidden, embedding), context, bias)
        hidden = functional.interpolate(self.up(hidden), scale_factor=2.0, mode="nearest")
        hidden = self.up_attention(self.up_block(torch.cat([hidden, skip], dim=1), embedding), context, bias)
        hidden = functional.silu(self.norm_out(self.out_block(hidden, embedding)))
        out = functional.pixel_shuffle(self.conv_out(hidden), 2)  # (B, C + 1, 32, 32)
        return out[:, :-1], out[:, -1]
