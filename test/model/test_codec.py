from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.shapes import ShapeError


def curves_of_rank(rank: int, count: int = 200, num_steps: int = 30, seed: int = 0) -> torch.Tensor:
    """(P, T, 3) random mixtures of `rank` functions of time that vanish at step 0."""
    generator = torch.Generator().manual_seed(seed)
    functions = torch.randn((rank, num_steps), generator=generator)
    functions[:, 0] = 0
    return torch.einsum("pkc,kt->ptc", torch.randn((count, rank, 3), generator=generator), functions)


def min_jerk(num_steps: int) -> torch.Tensor:
    """The smooth step from 0 to 1 with zero velocity and acceleration at both ends."""
    time = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    return 10 * time**3 - 15 * time**4 + 6 * time**5


def rotation(seed: int) -> torch.Tensor:
    q, r = torch.linalg.qr(torch.randn((3, 3), generator=torch.Generator().manual_seed(seed)))
    q = q * torch.sign(torch.diagonal(r))
    turn: torch.Tensor = q * torch.sign(torch.linalg.det(q))
    return turn


def test_a_fit_recovers_motions_of_its_rank_exactly() -> None:
    curves = curves_of_rank(4)
    codec = TemporalBasisCodec.fit(curves, 4)
    unseen = curves_of_rank(4, seed=0, count=300)[200:]  # other mixtures of the same functions
    for displacement in (curves, unseen):
        np.testing.assert_allclose(codec.decode(codec.encode(displacement)), displacement, atol=2e-5)


def test_a_fit_keeps_what_carries_most_of_the_motion() -> None:
    """The residual of uncentred PCA is the energy in the singular values left out (Eckart and Young)."""
    curves = curves_of_rank(6)
    singular = torch.linalg.svdvals(curves.double().transpose(1, 2).reshape(-1, 30))
    codec = TemporalBasisCodec.fit(curves, 3)
    residual = (codec.decode(codec.encode(curves)) - curves).double().square().sum()
    assert float(residual) == pytest.approx(float(singular[3:].square().sum()), rel=1e-4)


def test_latents_of_the_fitted_motions_have_unit_size() -> None:
    curves = curves_of_rank(5, count=1000)
    latents = TemporalBasisCodec.fit(curves, 5).encode(curves).reshape(-1, 3, 5)
    np.testing.assert_allclose(latents.transpose(1, 2).reshape(-1, 5, 3).std(dim=(0, 2)), np.ones(5), rtol=1e-3)


@pytest.mark.parametrize(
    "codec",
    [TemporalBasisCodec.pinned_cosines(50, 10), TemporalBasisCodec.fit(curves_of_rank(8), 6)],
    ids=["cosines", "fitted"],
)
def test_the_basis_is_orthonormal_and_vanishes_at_the_observation(codec: TemporalBasisCodec) -> None:
    num_functions = codec.basis.shape[1]
    np.testing.assert_allclose(codec.basis.T @ codec.basis, np.eye(num_functions), atol=1e-6)
    assert float(codec.basis[0].abs().max()) < 1e-6
    decoded = codec.decode(torch.randn((7, codec.latent_channels), generator=torch.Generator().manual_seed(1)))
    assert decoded.shape == (7, codec.num_steps, 3)
    assert float(decoded[:, 0].abs().max()) < 1e-5


def test_no_motion_has_the_code_zero() -> None:
    codec = TemporalBasisCodec.fit(curves_of_rank(4), 4)
    assert not codec.encode(torch.zeros(3, 30, 3)).any()
    assert not codec.decode(torch.zeros(3, 12)).any()


def test_turning_the_camera_turns_the_latents() -> None:
    codec = TemporalBasisCodec.fit(curves_of_rank(8), 5)
    displacement, turn = curves_of_rank(8, seed=5), rotation(3)
    turned_first = codec.encode(displacement @ turn.T)
    turned_last = torch.einsum("ij,pjk->pik", turn, codec.encode(displacement).reshape(-1, 3, 5)).flatten(1)
    np.testing.assert_allclose(turned_first, turned_last, atol=1e-5)


def test_latents_are_ordered_by_axis() -> None:
    codec = TemporalBasisCodec.pinned_cosines(20, 4)
    displacement = torch.zeros(20, 3)
    displacement[:, 1] = codec.basis[:, 2]
    np.testing.assert_allclose(codec.encode(displacement), np.eye(12)[4 + 2], atol=1e-6)


def test_cosines_carry_smooth_motions() -> None:
    """Truncation of a min-jerk step of 1 to ten functions: under 0.2 % at any step, measured against its length."""
    codec = TemporalBasisCodec.pinned_cosines(50, 10)
    direction = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    displacement = min_jerk(50)[:, None] * direction
    error = (codec.decode(codec.encode(displacement.float())) - displacement).norm(dim=-1)
    assert float(error.max()) < 0.002


def test_all_functions_carry_every_motion() -> None:
    codec = TemporalBasisCodec.pinned_cosines(12, 11)
    displacement = curves_of_rank(11, num_steps=12)
    np.testing.assert_allclose(codec.decode(codec.encode(displacement)), displacement, atol=2e-5)


def test_a_half_precision_model_decodes_in_single_precision() -> None:
    codec = TemporalBasisCodec.pinned_cosines(50, 10)
    assert codec.decode(torch.zeros(30, dtype=torch.float16)).dtype == torch.float32


def test_save_and_load_keep_every_bit(tmp_path: Path) -> None:
    codec = TemporalBasisCodec.fit(curves_of_rank(8), 5)
    codec.save_pretrained(tmp_path / "codec")
    loaded = TemporalBasisCodec.from_pretrained(tmp_path / "codec", local_files_only=True, low_cpu_mem_usage=False)
    assert torch.equal(loaded.basis, codec.basis)
    assert torch.equal(loaded.coefficient_std, codec.coefficient_std)


def test_other_numbers_of_steps_or_channels_are_refused() -> None:
    codec = TemporalBasisCodec.pinned_cosines(50, 10)
    with pytest.raises(ShapeError, match="displacement"):
        codec.encode(torch.zeros(49, 3))
    with pytest.raises(ShapeError, match="latents"):
        codec.decode(torch.zeros(29))


def test_the_raw_codec_is_lossless_and_every_step_for_itself() -> None:
    curves = curves_of_rank(8)
    codec = TemporalBasisCodec.raw(curves)
    latents = codec.encode(curves)
    assert latents.shape[-1] == codec.latent_channels == 3 * (curves.shape[1] - 1)
    torch.testing.assert_close(codec.decode(latents), curves, rtol=1e-4, atol=1e-5)
    by_step = curves[:, 1:] / codec.coefficient_std[:, None]
    torch.testing.assert_close(latents.unflatten(-1, (3, -1)), by_step.transpose(1, 2))
    torch.testing.assert_close(latents.unflatten(-1, (3, -1)).flatten(0, 1).std(dim=0), torch.ones(len(by_step[0])))
