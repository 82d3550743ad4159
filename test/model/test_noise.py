from __future__ import annotations

import numpy as np
import pytest
import torch

from momap_ros.conditioning import CONDITION_CHANNELS, GRID, MAX_INSTANCES, MAX_WORDS, TOKEN_FEATURES, Conditioning
from momap_ros.model.noise import InstanceFrames, NoiseShares, draw_noise

DRAWS, CHANNELS = 4000, 2
SHARES = NoiseShares(0.5, 0.3, 0.2)


def scene() -> Conditioning:
    """Instances of 8x8 and 2x2 cells on a plane, seen from above; a corner of the first one has no depth."""
    slots = torch.zeros((1, GRID, GRID), dtype=torch.int64)
    slots[0, 4:12, 4:12], slots[0, 20:22, 20:22] = 1, 2
    maps = torch.zeros((1, CONDITION_CHANNELS, GRID, GRID))
    v, u = torch.meshgrid(torch.arange(GRID) / GRID, torch.arange(GRID) / GRID, indexing="ij")
    maps[0, 15], maps[0, 16], maps[0, 18] = u, v, 1.0
    maps[0, 15:19, 4:6, 4:6] = 0.0
    tokens = torch.zeros((1, MAX_INSTANCES, TOKEN_FEATURES))
    valid = torch.zeros((1, MAX_INSTANCES), dtype=torch.bool)
    return Conditioning(maps, slots, tokens, valid, torch.zeros((1, MAX_WORDS), dtype=torch.int64))


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """(draws * channels, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    noise = draw_noise(InstanceFrames.of(scene()), SHARES, DRAWS, CHANNELS, generator=generator)
    assert noise.shape == (DRAWS, CHANNELS, GRID, GRID)
    return noise.flatten(0, 1).numpy()


def test_offsets_have_no_mean_and_unit_size_over_an_instance() -> None:
    frames = InstanceFrames.of(scene())
    valid = scene().maps[0, 18].flatten() > 0
    for slot in (1, 2):
        offsets = frames.offsets[0][:, (frames.slots[0] == slot) & valid]
        torch.testing.assert_close(offsets.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
        assert float((offsets**2).sum(dim=0).mean()) == pytest.approx(1, rel=1e-4)
    assert not frames.offsets[0][:, ~valid].any()


def test_one_scene_for_all_draws_is_the_same_scene_for_each() -> None:
    one = InstanceFrames.of(scene())
    each = InstanceFrames(one.slots.repeat(3, 1), one.offsets.repeat(3, 1, 1), one.radius.repeat(3, 1))

    shared, single = (
        draw_noise(frames, SHARES, 3, CHANNELS, generator=torch.Generator().manual_seed(4)) for frames in (one, each)
    )

    torch.testing.assert_close(shared, single)


def test_the_variance_is_one_in_the_mean_over_an_instance(drawn: np.ndarray) -> None:
    """Of 8000 draws a variance of one is known to 1.6 %."""
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn[:, 26:, 26:].var(axis=0).mean() == pytest.approx(1, abs=0.02)  # background
    large, small = drawn[:, 6:12, 6:12], drawn[:, 20:22, 20:22]
    assert small.var(axis=0).mean() == pytest.approx(1, abs=0.05)
    assert 0.7 < large.var(axis=0).mean() < 1  # its middle: the linear part is small there
    assert drawn[:, 4:6, 4:6].var(axis=0).mean() == pytest.approx(0.7, abs=0.04)  # without depth: no linear part


def test_two_cells_share_what_their_places_say(drawn: np.ndarray) -> None:
    """The covariance of two cells is shift + tilt times the product of their offsets; across instances it is 0."""
    offsets = InstanceFrames.of(scene()).offsets[0].unflatten(1, (GRID, GRID)).numpy()
    for first, second in (((20, 20), (21, 21)), ((20, 20), (20, 21)), ((7, 7), (11, 11))):
        expected = 0.5 + 0.3 * float(offsets[:, first[0], first[1]] @ offsets[:, second[0], second[1]])
        found = float((drawn[:, first[0], first[1]] * drawn[:, second[0], second[1]]).mean())
        assert found == pytest.approx(expected, abs=0.05)
    for first, second in (((7, 7), (20, 20)), ((0, 0), (0, 1)), ((0, 0), (7, 7))):
        assert (drawn[:, first[0], first[1]] * drawn[:, second[0], second[1]]).mean() == pytest.approx(0, abs=0.05)


def test_white_noise_is_torchs_own() -> None:
    expected = torch.randn((3, 5, GRID * GRID), generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    found = draw_noise(InstanceFrames.of(scene()), NoiseShares(0.0, 0.0, 1.0), 3, 5, generator=generator)
    assert torch.equal(found.flatten(2), expected)


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.3), (1.2, -0.2, 0.0)])
def test_impossible_shares_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        NoiseShares(*shares)
