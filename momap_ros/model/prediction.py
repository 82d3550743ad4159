"""What the denoiser's output means: the clean latents, the noise, or a mixture of both.

Latents at a noise level are x = sqrt(a) c + sqrt(1 - a) n, with the clean latents c, the noise n and a the scheduler's
`alphas_cumprod`. Every output below and x together say what c is, so that the sampler always steps from clean latents.

    name      output                          clean latents
    sample    c                               output
    epsilon   n                               (x - sqrt(1 - a) output) / sqrt(a)
    v         sqrt(a) n - sqrt(1 - a) c       sqrt(a) x - sqrt(1 - a) output
    flow      n - c                           (x - sqrt(1 - a) output) / (sqrt(a) + sqrt(1 - a))

`v` is that of Salimans and Ho (arXiv:2202.00512). `flow` is the velocity of flow matching (arXiv:2210.02747) on the
same noise levels as the others, and not on its own straight path: only what is predicted differs. `epsilon` multiplies
errors by 1 / sqrt(a), more than 1000 at the first step; its scheduler bounds the clean latents, see
`momap_ros.model.schedule`.
"""

from __future__ import annotations

import torch

PREDICTIONS = ("sample", "epsilon", "v", "flow")


def check_prediction(prediction: str) -> None:
    """Refuse names that are not in PREDICTIONS.

    Raises:
        ValueError: says which there are.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction: expected one of {', '.join(PREDICTIONS)}, got {prediction!r}")


def target_of(clean: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, prediction: str) -> torch.Tensor:
    """What the denoiser is to say of latents with noise.

    Args:
        clean: (B, C, H, W) latents.
        noise: (B, C, H, W).
        alpha: `alphas_cumprod` of the noise level, (B, 1, 1, 1) or a number.
        prediction: one of PREDICTIONS.

    Raises:
        ValueError: an unknown prediction.
    """
    check_prediction(prediction)
    if prediction == "sample":
        return clean
    if prediction == "epsilon":
        return noise
    return noise - clean if prediction == "flow" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


def clean_of(output: torch.Tensor, noisy: torch.Tensor, alpha: torch.Tensor, prediction: str) -> torch.Tensor:
    """The clean latents that an output of the denoiser stands for; "sample" gives the output itself.

    Args:
        output: (B, C, H, W) of the denoiser.
        noisy: (B, C, H, W) latents that it was given.
        alpha: `alphas_cumprod` of their noise level, (B, 1, 1, 1) or a number.
        prediction: one of PREDICTIONS.

    Raises:
        ValueError: an unknown prediction.
    """
    check_prediction(prediction)
    if prediction == "sample":
        return output
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if prediction == "v":
        return signal * noisy - noise * output
    return (noisy - noise * output) / (signal if prediction == "epsilon" else signal + noise)
