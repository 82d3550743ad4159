from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from momap_ros.data.growing import LATER, GrowingSplit
from momap_ros.data.prepared import PreparedSplit
from momap_ros.training.follow import prepare_later, prepared_shards
from momap_ros.training.prepare import prepare


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("train-*.tar"))


@pytest.fixture
def begun(prepared_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A folder with one shard, and what was prepared of it."""
    data, out = tmp_path / "shards", tmp_path / "prepared"
    data.mkdir()
    shutil.copy(shards_of(prepared_folder / "shards")[0], data)
    prepare(data, out, workers=1)
    return data, out


def add_shard(data: Path, number: int) -> Path:
    """The first shard under another name, as a later one would come: whole at once."""
    target = data / f"train-{number:07d}-{number + 100:07d}.tar"
    return Path(shutil.copy(shards_of(data)[0], target))


def test_later_shards_become_a_part_with_the_words_and_the_basis_that_are_there(begun: tuple[Path, Path]) -> None:
    data, out = begun
    assert prepare_later(data, out, least=1, workers=1) == 0
    later = add_shard(data, 9000)
    assert prepare_later(data, out, least=2, workers=1) == 0
    first = PreparedSplit.open(out / "train")
    assert prepare_later(data, out, least=1, workers=1) == len(first)
    assert prepared_shards(out) == {shards_of(data)[0].name, later.name}
    part = PreparedSplit.open(out / LATER / "00001")
    for name in ("latent_from_point", "words", "names", "rgb", "seen_points_in_camera"):
        np.testing.assert_array_equal(getattr(part, name), getattr(first, name), err_msg=name)
    assert prepare_later(data, out, least=1, workers=1) == 0


def test_preparing_anew_forgets_the_parts(begun: tuple[Path, Path]) -> None:
    data, out = begun
    add_shard(data, 9000)
    prepare_later(data, out, least=1, workers=1)
    prepare(data, out, workers=1)
    assert not (out / LATER).exists()
    assert len(PreparedSplit.open(out / "train")) == len(GrowingSplit(out))


def test_there_must_be_samples_to_add_to(begun: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="without --follow first"):
        prepare_later(begun[0], tmp_path / "nothing", least=1)


def test_the_command_adds_shards_until_it_is_killed(begun: tuple[Path, Path]) -> None:
    data, out = begun
    command = [sys.executable, "-m", "momap_ros.training.prepare", "--data", str(data), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "1", "--follow", "1"], start_new_session=True)
    try:
        split = GrowingSplit(out)
        count = len(split)
        for number in (1, 2):
            add_shard(data, 9000 + number)
            until = time.monotonic() + 60
            while len(split) <= number * count and process.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
                split.refresh()
            assert len(split) == (1 + number) * count
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
