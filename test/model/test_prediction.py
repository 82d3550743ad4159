from __future__ import annotations

import math

import pytest
import torch

from momap_ros.model.prediction import PREDICTIONS, clean_of, target_of
from momap_ros.model.schedule import shifted_cosine_scheduler


def drawn(count: int = 1000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean latents, noise and levels from almost no noise to almost nothing else, float64."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, count, 3, 2, 2), generator=generator, dtype=torch.float64)
    alpha = shifted_cosine_scheduler(2.0).alphas_cumprod.double()[torch.arange(count) % 1000]
    return clean, noise, alpha[:, None, None, None]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_true_output_gives_the_clean_latents_at_every_noise_level(prediction: str) -> None:
    clean, noise, alpha = drawn()
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    found = clean_of(target_of(clean, noise, alpha, prediction), noisy, alpha, prediction)
    torch.testing.assert_close(found, clean, rtol=1e-9, atol=1e-9)


def test_targets_are_those_of_the_literature() -> None:
    """At an angle of 30 degrees, a = cos(30)^2 = 3 / 4: signal sqrt(3) / 2, noise 1 / 2."""
    clean, noise, alpha = torch.tensor(2.0), torch.tensor(-3.0), torch.tensor(0.75)
    found = {name: float(target_of(clean, noise, alpha, name)) for name in PREDICTIONS}
    v = -3 * math.sqrt(3) / 2 - 2 / 2
    assert found == pytest.approx({"sample": 2.0, "epsilon": -3.0, "v": v, "flow": -5.0})


def test_clean_latents_are_passed_on_untouched() -> None:
    clean, noise, alpha = drawn(4)
    assert target_of(clean, noise, alpha, "sample") is clean
    assert clean_of(clean, noise, alpha, "sample") is clean


@pytest.mark.parametrize(("prediction", "largest"), [("v", 1.0), ("flow", 1.0)])
def test_an_error_is_not_magnified_but_for_epsilon(prediction: str, largest: float) -> None:
    clean, noise, alpha = drawn()

    def magnified(name: str) -> torch.Tensor:
        zero = torch.zeros_like(clean)
        return clean_of(zero + 1, noise, alpha, name) - clean_of(zero, noise, alpha, name)

    assert float(magnified(prediction).abs().max()) <= largest + 1e-9
    assert float(magnified("epsilon").abs().max()) > 1000


def test_unknown_names_are_refused() -> None:
    clean, noise, alpha = drawn(1)
    with pytest.raises(ValueError, match="expected one of sample, epsilon, v, flow, got 'x0'"):
        target_of(clean, noise, alpha, "x0")
    with pytest.raises(ValueError, match="got 'x0'"):
        clean_of(clean, noise, alpha, "x0")
