"""What is read once per scene: the words of the prompt and one token per instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as functional
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from momap_ros.conditioning import (
    BLINDABLE,
    CONDITION_CHANNELS,
    HASH_BUCKETS,
    MAX_INSTANCES,
    MAX_WORDS,
    TOKEN_FEATURES,
    Conditioning,
)
from momap_ros.model.noise import InstanceFrames
from momap_ros.model.turning import Turning


@dataclass(frozen=True, eq=False)
class SceneEncoding:
    """A scene as the denoiser reads it; shared by all hypotheses and all steps.

    Attributes:
        maps: (B, C, 32, 32) conditioning maps, zero where the encoder is blind, with what the tokens wrote back to the
            cells of their instance; the last are the latents that a cell is expected to have.
        context: (B, L, D) word and instance tokens.
        context_bias: (B, L) added to attention logits: 0, or a large negative number for padding.
        summary: (B, D) mean of the word tokens.
        moving_logits: (B, MAX_INSTANCES) which instance moves.
        motion: (B, MAX_INSTANCES, C) the mean latent that every instance is expected to have, over all futures.
        courses: (B, MAX_INSTANCES, MAX_INSTANCES, C / 3) how much of the way from one instance to each other one that
            motion holds, as latents of one axis, see `Pointing`.
        names: (B, MAX_INSTANCES, W) logit of each word of the vocabulary being part of an instance's name.
        log_duration: (B,) natural logarithm of the predicted length of the motion in seconds.
    """

    maps: torch.Tensor
    context: torch.Tensor
    context_bias: torch.Tensor
    summary: torch.Tensor
    moving_logits: torch.Tensor
    motion: torch.Tensor
    courses: torch.Tensor
    names: torch.Tensor
    log_duration: torch.Tensor

    def repeat(self, num_hypotheses: int) -> SceneEncoding:
        """The encoding of every scene num_hypotheses times, hypotheses of a scene next to each other."""
        return SceneEncoding(*(getattr(self, f.name).repeat_interleave(num_hypotheses, dim=0) for f in fields(self)))


class Appearance(nn.Module):
    """What instances look like: features of two convolutions, pooled over the cells of each instance."""

    def __init__(self, channels: int, width: int) -> None:
        """Build the layers."""
        super().__init__()
        self.conv_in = nn.Conv2d(CONDITION_CHANNELS, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Linear(2 * channels, width)

    def looks(self, conditioning: Conditioning) -> torch.Tensor:
        """(B, channels, 1024) of the cells of B scenes."""
        hidden = functional.silu(self.conv_in(conditioning.maps))
        return functional.silu(self.conv_out(hidden)).flatten(2)

    def forward(self, conditioning: Conditioning, hidden: torch.Tensor) -> torch.Tensor:
        """(B, MAX_INSTANCES, width) of B scenes and the looks of their cells."""
        member = functional.one_hot(conditioning.slots.flatten(1), MAX_INSTANCES).to(hidden.dtype)  # (B, 1024, M)
        count = member.sum(dim=1).clamp(min=1)[..., None]
        mean = (hidden @ member).transpose(1, 2) / count
        square = (hidden**2 @ member).transpose(1, 2) / count
        return torch.as_tensor(self.out(torch.cat([mean, (square - mean**2).clamp(min=0)], dim=-1)))


class Pointing(nn.Module):
    """Motions toward other instances: each head points at one of them and gives the way there a course over time.

    A goal that the sentence names is a place in space: its vector times a course is what a network of this size would
    otherwise have to multiply out by itself. Vectors turn with the camera, so these motions do.
    """

    def __init__(self, width: int, latent_channels: int, heads: int = 8, key_width: int = 16) -> None:
        """Build the layers; the courses begin at zero."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * key_width)
        self.key = nn.Linear(width, heads * key_width)
        self.course = nn.Linear(width, heads * latent_channels // 3)
        nn.init.zeros_(self.course.weight)
        nn.init.zeros_(self.course.bias)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean latents of M instances, and the courses that they are made of.

        Args:
            tokens: (B, M, width).
            positions: (B, M, 3) in scene scales.
            valid: (B, M) bool, instances that exist; at least one per scene.

        Returns:
            (B, M, C), x, then y, then z; and (B, M, M, C / 3) what is to be multiplied by the way from each instance
            to each other one.
        """
        query, key, course = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.course)
        )  # (B, H, M, ...)
        logits = query @ key.transpose(2, 3) / key.shape[3] ** 0.5
        pointed_at = logits.masked_fill(~valid[:, None, None], float("-inf")).softmax(dim=3)
        toward = pointed_at.to(positions.dtype) @ positions[:, None] - positions[:, None]
        motion = torch.einsum("bhmc,bhmk->bmck", toward.to(course.dtype), course).flatten(2)
        return motion, torch.einsum("bhmn,bhmk->bmnk", pointed_at.to(course.dtype), course)


class SceneEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' classes are untyped
    """A small transformer over prompt words and instance tokens.

    Which words name an instance is read from its looks first; the words of the sentence that name it, and where in the
    sentence they stand, are then part of its token: whether it is what is put, or what something is put on.

    Each instance token also says how its instance is expected to move: a goal that the sentence names (put the cup on
    the plate) reaches the cells through it.

    Args:
        vocabulary: learned words; the checkpoint carries them.
        width: token width D.
        num_layers: transformer layers.
        written_channels: learned channels that instance tokens write back to their cells.
        latent_channels: C of the latent image; the expected motion is written back too.
        appearance_channels: widths of the convolutions that look at the instances.
        blind_to: conditions, of BLINDABLE, that this model never sees, nor the denoiser: zero in maps and tokens.
        expects_turns: the expected motion that is written back turns its instance too, see `Turning`; else it is the
            same for all of an instance's cells.

    Raises:
        ValueError: `blind_to` names something else.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        vocabulary: Sequence[str] = (),
        width: int = 128,
        num_layers: int = 3,
        written_channels: int = 16,
        latent_channels: int = 30,
        appearance_channels: int = 48,
        blind_to: Sequence[str] = (),
        expects_turns: bool = False,
    ) -> None:
        """Build the layers; weights are random until loaded or trained."""
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers' classes are untyped
        if unknown := sorted(set(blind_to) - BLINDABLE.keys()):
            raise ValueError(f"blind_to: expected some of {', '.join(BLINDABLE)}, got {', '.join(unknown)}")
        num_words = 1 + HASH_BUCKETS + len(vocabulary)
        self.words = nn.Embedding(num_words, width)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.02)
        self.empty_prompt = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.instances = nn.Sequential(nn.Linear(TOKEN_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.appearance = Appearance(appearance_channels, width)
        to_names = nn.Linear(width, num_words)
        nn.init.constant_(to_names.bias, -4.0)  # few words name anything
        self.names = nn.Sequential(nn.Linear(width, width), nn.SiLU(), to_names)
        self.mentioned = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.moving = nn.Linear(width, 1)
        self.duration = nn.Linear(width, 1)
        self.motion = nn.Linear(width, latent_channels)
        self.pointing = Pointing(width, latent_channels)
        self.write_back = nn.Linear(width, written_channels)
        self.turning = Turning(width, appearance_channels, latent_channels) if expects_turns else None

    def _seen(self, conditioning: Conditioning) -> Conditioning:
        """The inputs with zeros where this model is blind."""
        for name in self.config["blind_to"]:
            maps, tokens = (torch.tensor(index, device=conditioning.maps.device) for index in BLINDABLE[name])
            conditioning = replace(
                conditioning,
                maps=conditioning.maps.index_fill(1, maps, 0.0),
                tokens=conditioning.tokens.index_fill(2, tokens, 0.0),
            )
        return conditioning

    def forward(self, conditioning: Conditioning) -> SceneEncoding:
        """Encode B scenes."""
        conditioning = self._seen(conditioning)
        words, valid = conditioning.words, conditioning.token_valid
        batch = words.shape[0]
        sentence = self.words(words) + self.positions
        text = torch.cat([self.empty_prompt.expand(batch, -1, -1), sentence], dim=1)
        looks = self.appearance.looks(conditioning)
        instances = self.instances(conditioning.tokens) + self.appearance(conditioning, looks)
        shapes = None
        if self.turning is not None:
            shapes = self.turning.shapes(looks, InstanceFrames.of(conditioning))
            instances = instances + self.turning.places(shapes.described)
        names = self.names(instances)
        named_by = names.sigmoid().gather(2, words[:, None].expand(-1, MAX_INSTANCES, -1)) * (words > 0)[:, None]
        instances = instances + self.mentioned(named_by.to(sentence.dtype) @ sentence)
        tokens = torch.cat([text, instances], dim=1)  # (B, 1 + MAX_WORDS + M, D)
        first = torch.zeros(batch, 1, dtype=torch.bool, device=words.device)
        padding = torch.cat([first, words == 0, ~valid], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=padding)
        num_text = 1 + MAX_WORDS
        is_text = (~padding[:, :num_text, None]).to(tokens.dtype)
        summary = (tokens[:, :num_text] * is_text).sum(dim=1) / is_text.sum(dim=1)
        instance_tokens = tokens[:, num_text:]
        toward, courses = self.pointing(instance_tokens, conditioning.positions, valid)
        motion = self.motion(instance_tokens) + toward
        written = torch.cat([self.write_back(instance_tokens), motion], dim=-1) * valid[..., None]  # (B, M, W + C)
        cells = conditioning.slots.flatten(1)[..., None].expand(-1, -1, written.shape[-1])
        on_cells = written.gather(1, cells).transpose(1, 2)
        if self.turning is not None and shapes is not None:
            added = self.turning(instance_tokens, shapes)
            on_cells = on_cells + functional.pad(added, (0, 0, self.config["written_channels"], 0)).to(on_cells.dtype)
        on_cells = on_cells.unflatten(2, conditioning.maps.shape[2:])
        return SceneEncoding(
            torch.cat([conditioning.maps, on_cells.to(conditioning.maps.dtype)], dim=1),
            tokens,
            torch.zeros(padding.shape, device=words.device).masked_fill(padding, -1e4),
            summary,
            self.moving(instance_tokens)[..., 0],
            motion,
            courses,
            names,
            self.duration(summary)[..., 0],
        )
