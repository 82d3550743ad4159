from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.data.sample import Sample, write_shard
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.views import render_samples

if TYPE_CHECKING:
    from conftest import Viewed


def shard_bytes(path: Path, samples: list[Sample]) -> bytes:
    write_shard(path, samples)
    return path.read_bytes()


def test_an_episode_is_the_same_bytes_every_time_and_with_any_number_of_views(
    viewed: list[Viewed], tmp_path: Path
) -> None:
    for item in viewed[1:3]:
        again = simulate_episode("train", item.episode.index)
        assert again is not None
        expected = shard_bytes(tmp_path / "first.tar", item.samples[:1])
        assert shard_bytes(tmp_path / "again.tar", render_samples(again, 1, 128)) == expected


def test_splits_are_different_episodes() -> None:
    first, second = simulate_episode("train", 3), simulate_episode("val", 3)
    assert first is not None
    assert second is not None
    assert not np.array_equal(first.rollout.mocap_pos[0], second.rollout.mocap_pos[0])


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"split: expected one of \['train', 'val', .*\], got 'test'"):
        simulate_episode("test", 0)
