from __future__ import annotations

import numpy as np
import pytest
import torch

from momap_ros.geometry import Float64
from momap_ros.model.schedule import CLEAN_BOUND, NUM_TIMESTEPS, shifted_cosine_scheduler


def cosine_time(shift: float) -> Float64:
    """The time in [0, 1] at which the plain cosine schedule has the noise level of every timestep."""
    alphas_cumprod = shifted_cosine_scheduler(shift).alphas_cumprod.double().numpy()
    return np.asarray(np.arccos(np.sqrt(alphas_cumprod)) * 2 / np.pi)


@pytest.mark.parametrize("shift", [1.0, 2.0, 6.0])
def test_noise_grows_from_almost_none_to_almost_all(shift: float) -> None:
    alphas_cumprod = shifted_cosine_scheduler(shift).alphas_cumprod
    assert len(alphas_cumprod) == NUM_TIMESTEPS
    assert (alphas_cumprod.diff() < 0).all()
    assert alphas_cumprod[0] > 0.9998
    assert 0 < alphas_cumprod[-1] < 1e-5


def test_without_a_shift_time_is_uniform() -> None:
    np.testing.assert_allclose(cosine_time(1.0), 0.999 * np.arange(1, 1001) / 1000, atol=2e-4)


@pytest.mark.parametrize("shift", [2.0, 6.0])
def test_the_shift_multiplies_the_odds_of_time(shift: float) -> None:
    plain, shifted = cosine_time(1.0), cosine_time(shift)
    odds, shifted_odds = plain / (1 - plain), shifted / (1 - shifted)
    np.testing.assert_allclose(shifted_odds[5:900] / odds[5:900], shift, rtol=0.02)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_a_perfect_predictor_ends_at_the_clean_sample(num_steps: int) -> None:
    scheduler = shifted_cosine_scheduler(6.0)
    scheduler.set_timesteps(num_steps)
    generator = torch.Generator().manual_seed(0)
    clean, sample = torch.randn((2, 3, 8), generator=generator)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(clean, timestep, sample, return_dict=False)[0]
    assert torch.equal(sample, clean)


def test_the_first_step_starts_at_pure_noise() -> None:
    scheduler = shifted_cosine_scheduler(6.0)
    for num_steps in (1, 4, 10):
        scheduler.set_timesteps(num_steps)
        assert scheduler.timesteps[0] == NUM_TIMESTEPS - 1
        assert len(scheduler.timesteps) == num_steps


def test_steps_between_keep_the_forward_process() -> None:
    """With the true clean sample, DDIM moves along x = sqrt(a) clean + sqrt(1 - a) noise with the same noise."""
    scheduler = shifted_cosine_scheduler(6.0)
    scheduler.set_timesteps(4)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 100), generator=generator)
    first, second = scheduler.timesteps[1:3]
    alphas = scheduler.alphas_cumprod
    sample = alphas[first].sqrt() * clean + (1 - alphas[first]).sqrt() * noise
    expected = alphas[second].sqrt() * clean + (1 - alphas[second]).sqrt() * noise
    # The scheduler counts back by 1000 / 4 timesteps, exactly to the next one.
    np.testing.assert_allclose(scheduler.step(clean, first, sample, return_dict=False)[0], expected, atol=1e-5)


def test_bounds_hold_for_the_clean_latents_of_every_step_alone() -> None:
    """Beyond them, a step goes to the bound and keeps the noise; without bounds it goes to where it was told."""
    clean, sample = torch.full((8,), 100.0), torch.ones(8)
    bounded, free = shifted_cosine_scheduler(2.0, bounded=True), shifted_cosine_scheduler(2.0)
    for scheduler in (bounded, free):
        scheduler.set_timesteps(4)
    timestep, following = free.timesteps[1:3]
    alpha, after = free.alphas_cumprod[timestep], free.alphas_cumprod[following]
    noise = (sample - alpha.sqrt() * clean) / (1 - alpha).sqrt()
    for scheduler, reached in ((bounded, CLEAN_BOUND), (free, 100.0)):
        expected = after.sqrt() * reached + (1 - after).sqrt() * noise
        np.testing.assert_allclose(scheduler.step(clean, timestep, sample, return_dict=False)[0], expected, rtol=1e-4)
