"""How long the motion takes: the one thing that a latent image of equal steps does not say."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class DurationHead(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' classes are untyped
    """Sentence and scene -> length of the motion.

    Args:
        text_width: D of the text encoder.
        scene_channels: of the condition latents.
        width: of the hidden layer.
        initial_duration_s: what it says until it is trained.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, text_width: int = 768, scene_channels: int = 12, width: int = 128, initial_duration_s: float = 2.0
    ) -> None:
        """Build the layers; the last one begins at zero, and its bias at the initial duration."""
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers' classes are untyped
        self.hidden = nn.Linear(text_width + scene_channels, width)
        self.out = nn.Linear(width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, torch.tensor(initial_duration_s).log().item())

    def forward(self, text: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
        """(B,) natural logarithm of seconds.

        Args:
            text: (B, L, D) hidden states of the text encoder.
            scene: (B, C, h, w) condition latents.
        """
        pooled = torch.cat([text.float().mean(dim=1), scene.float().mean(dim=(2, 3))], dim=1)
        logarithm: torch.Tensor = self.out(torch.nn.functional.silu(self.hidden(pooled)))
        return logarithm[:, 0]
