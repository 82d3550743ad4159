from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from momap_ros.data.sample import iterate_samples, write_shard
from momap_ros.data.shard_index import ShardIndex

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


def test_samples_by_number_are_those_read_in_order(simulated: list[Sample], tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0000000-0000002.tar", simulated[:2])
    write_shard(tmp_path / "train-0000002-0000005.tar", simulated[2:5])
    write_shard(tmp_path / "val-0000000-0000001.tar", simulated[5:6])
    index = ShardIndex(tmp_path, "train")
    expected = list(iterate_samples(tmp_path, "train"))
    assert len(index) == len(expected) == 5
    for number in (3, 0, 4, 1, 2):
        found = index[number]
        assert (found.key, found.text) == (expected[number].key, expected[number].text)
        np.testing.assert_array_equal(found.rgb, expected[number].rgb)
        np.testing.assert_array_equal(found.depth_m, expected[number].depth_m)
        np.testing.assert_array_equal(found.motion_t_from_0, expected[number].motion_t_from_0)


def test_a_folder_without_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-\*\.tar"):
        ShardIndex(tmp_path, "train")
