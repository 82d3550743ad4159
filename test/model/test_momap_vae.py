"""Latents of unit size, and displacements that begin at zero."""

from __future__ import annotations

import pytest
import torch
from sd_folders import tiny_vae

from momap_ros.model.inflate import inflate_vae
from momap_ros.model.momap_vae import (
    StepCodec,
    decode_displacement,
    encode_momaps,
    latent_statistics,
    num_steps_of,
    set_latent_statistics,
)
from momap_ros.shapes import ShapeError


def images(count: int, num_steps: int = 6) -> torch.Tensor:
    return torch.randn(count, 3 * num_steps, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_measured_latents_have_unit_size() -> None:
    vae = inflate_vae(tiny_vae(), 6)
    raw = vae.encode(images(4)).latent_dist.mode()
    set_latent_statistics(vae, raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3), correction=0))
    latents = encode_momaps(vae, images(4))
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(32), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3), correction=0), torch.ones(32), rtol=1e-3, atol=1e-3)
    # What the decoder is given is what the encoder said.
    decoded = vae.decode(raw).sample.unflatten(1, (6, 3))
    torch.testing.assert_close(decode_displacement(vae, latents), decoded - decoded[:, :1], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_nothing_moves_at_step_0() -> None:
    vae = inflate_vae(tiny_vae(), 6)
    torch.nn.init.normal_(vae.decoder.conv_out.weight)
    moved = decode_displacement(vae, torch.randn(2, 32, 8, 8))
    assert moved.shape == (2, 6, 3, 64, 64)
    assert not moved[:, 0].any()
    assert float(moved[:, 1:].abs().mean()) > 0.1


def test_a_channel_that_never_changes_does_not_divide_by_zero() -> None:
    vae = inflate_vae(tiny_vae(), 6)
    set_latent_statistics(vae, torch.zeros(32), torch.zeros(32))
    _, std = latent_statistics(vae)
    assert float(std.min()) > 0
    with pytest.raises(ShapeError):
        set_latent_statistics(vae, torch.zeros(4), torch.ones(4))


def test_images_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="images"):
        encode_momaps(inflate_vae(tiny_vae(), 6), images(1, num_steps=5))


def test_steps_are_their_own_code() -> None:
    codec = StepCodec(7)
    displacement = torch.randn(4, 7, 3)
    latents = codec.encode(displacement)
    assert latents.shape == (4, codec.latent_channels) == (4, 21)
    assert torch.equal(codec.decode(latents), displacement)
    assert torch.equal(latents[:, 3 * 5 + 2], displacement[:, 5, 2])
    assert num_steps_of(inflate_vae(tiny_vae(), 7)) == codec.num_steps
