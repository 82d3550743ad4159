from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from momap_ros.data.growing import LATER, GrowingSplit
from momap_ros.data.prepared import PreparedSplit


@pytest.fixture
def growing_folder(prepared_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared_folder, tmp_path / "prepared")
    return tmp_path / "prepared"


def add_part(folder: Path, number: int, first: int) -> None:
    """The samples of the beginning once more, from one of them on."""
    part = folder / LATER / f"{number:05d}"
    part.mkdir(parents=True)
    meta = json.loads((folder / "train/meta.json").read_text())
    for path in (folder / "train").glob("*.npy"):
        np.save(part / path.name, np.load(path)[first:])
    (part / "meta.json").write_text(json.dumps(meta[first:]))


def assert_same(one: PreparedSplit, other: PreparedSplit) -> None:
    assert one.meta == other.meta
    for name in (f.name for f in fields(PreparedSplit) if f.name != "meta"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_without_parts_it_is_what_was_prepared_first(growing_folder: Path) -> None:
    split, first = GrowingSplit(growing_folder), PreparedSplit.open(growing_folder / "train")
    assert len(split) == len(first)
    assert_same(split.take(np.array([0, 3, 3, 5])), first.take(np.array([0, 3, 3, 5])))


def test_parts_are_taken_up_when_it_looks_and_samples_keep_their_numbers(growing_folder: Path) -> None:
    split, first = GrowingSplit(growing_folder), PreparedSplit.open(growing_folder / "train")
    count = len(first)
    add_part(growing_folder, 1, first=2)
    assert len(split) == count
    split.refresh()
    assert len(split) == 2 * count - 2
    add_part(growing_folder, 2, first=count - 1)
    split.refresh()
    assert len(split) == 2 * count - 1
    taken = split.take(np.array([1, count, count + 1, 2 * count - 2]))
    assert_same(taken, first.take(np.array([1, 2, 3, count - 1])))


def test_a_part_that_is_being_written_is_not_seen(growing_folder: Path) -> None:
    count = len(GrowingSplit(growing_folder))
    (growing_folder / LATER / ".00001.0123abcd.partial").mkdir(parents=True)
    assert len(GrowingSplit(growing_folder)) == count


def test_numbers_in_another_order_are_refused(growing_folder: Path) -> None:
    with pytest.raises(ValueError, match="ascending"):
        GrowingSplit(growing_folder).take(np.array([2, 1]))
