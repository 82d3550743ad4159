from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from momap_ros.model.codec import TemporalBasisCodec, load_codec
from momap_ros.training.steps import END_SCALES, error_map, squared_error


@pytest.fixture
def codec(prepared_folder: Path) -> TemporalBasisCodec:
    return load_codec(prepared_folder / "codec")


def test_coefficients_count_by_the_root_of_their_size_with_mean_one(codec: TemporalBasisCodec) -> None:
    count = len(codec.coefficient_std)
    of_each = squared_error(torch.eye(3 * count), error_map(codec, end_weight=0.0))
    assert float(of_each.sum()) == pytest.approx(1.0)
    for axis in of_each.reshape(3, count):
        torch.testing.assert_close(axis / axis[0], (codec.coefficient_std / codec.coefficient_std[0]).sqrt())


def test_an_end_that_is_wrong_costs_its_squared_distance_besides(codec: TemporalBasisCodec) -> None:
    error = torch.randn(5, codec.latent_channels, generator=torch.Generator().manual_seed(1))
    besides = squared_error(error, error_map(codec, 1.5)) - squared_error(error, error_map(codec, 0.0))
    apart = codec.decode(error)[:, -1].norm(dim=-1)
    torch.testing.assert_close(besides, 1.5 * (apart / END_SCALES) ** 2, rtol=1e-4, atol=1e-5)


def test_the_error_is_a_mean_over_channels(codec: TemporalBasisCodec) -> None:
    error = torch.full((2, 4, codec.latent_channels), 2.0)
    assert squared_error(error, torch.eye(codec.latent_channels)).tolist() == [[4.0] * 4] * 2
    assert math.isclose(float(squared_error(error[0, 0], 3 * torch.eye(codec.latent_channels))), 36.0)
