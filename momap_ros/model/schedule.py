"""The noise schedule, as a diffusers scheduler that any checkpoint carries along."""

from __future__ import annotations

import numpy as np
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

NUM_TIMESTEPS = 1000


def shifted_cosine_scheduler(shift: float) -> DDIMScheduler:
    """Cosine noise levels that spend their time where rigid motion is decided.

    All cells of an instance share one motion, so their mean is already known at noise levels at which a single cell is
    not: white noise per cell hides an instance of n cells sqrt(n) times less. Uniform time u is therefore mapped to
    t = s u / (1 + (s - 1) u) with s about the square root of an instance's cells (Hoogeboom et al., simple diffusion,
    arXiv:2301.11093, shift the schedule with image size for the same reason).

    Args:
        shift: s >= 1; 1 is the plain cosine schedule.

    Returns:
        A DDIM scheduler that predicts the clean sample, with trailing steps: the first one starts at pure noise.
    """
    uniform = np.arange(1, NUM_TIMESTEPS + 1) / NUM_TIMESTEPS * 0.999
    shifted = shift * uniform / (1 + (shift - 1) * uniform)
    alphas_cumprod = np.cos(0.5 * np.pi * shifted) ** 2
    alphas = alphas_cumprod / np.concatenate([[1.0], alphas_cumprod[:-1]])
    scheduler: DDIMScheduler = DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        trained_betas=[float(beta) for beta in 1.0 - alphas],
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return scheduler
