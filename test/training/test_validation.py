from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.data.prepared import VALIDATION_SPLIT, PreparedSplit
from momap_ros.data.sample import Sample, write_shard
from momap_ros.training.prepare import prepare
from momap_ros.training.small import Run, SmallLaunch
from momap_ros.training.small import run as run_process
from momap_ros.training.steps import SmallTraining
from momap_ros.training.validation import MOST_SAMPLES, WATCHED, Validation, evenly_spread

OPTIONS = SmallTraining(steps=60, batch_size=4, warmup_steps=5, channels=(32, 64), encoder_width=32, encoder_layers=1)


@pytest.fixture(scope="module")
def data(prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared samples, with the same ones once more as if they were another split."""
    folder = tmp_path_factory.mktemp("both") / "prepared"
    folder.mkdir()
    for name in ("train", "codec"):
        shutil.copytree(prepared_folder / name, folder / name)
    shutil.copytree(prepared_folder / "train", folder / VALIDATION_SPLIT)
    shutil.copy(prepared_folder / "vocabulary.json", folder)
    return folder


def looked_at(data: Path) -> Validation:
    found = Validation.of(data, PreparedSplit.open(data / "train"))
    assert found is not None
    return found


def test_without_another_split_nothing_is_looked_at(prepared_folder: Path) -> None:
    assert not (prepared_folder / VALIDATION_SPLIT).exists()
    assert Validation.of(prepared_folder, PreparedSplit.open(prepared_folder / "train")) is None


def test_the_same_samples_have_the_same_losses(data: Path, tmp_path: Path) -> None:
    run = Run(data, tmp_path, OPTIONS, rank=0, world=1)
    losses = looked_at(data).losses(partial(run.loss, run.average))
    assert set(losses) == {f"{name}_{part}" for name in ("seen", "unseen") for part in WATCHED}
    for part in WATCHED:
        assert losses[f"seen_{part}"] == losses[f"unseen_{part}"]


def test_what_is_learned_by_heart_falls(data: Path, tmp_path: Path) -> None:
    run = Run(data, tmp_path, OPTIONS, rank=0, world=1)
    validation = looked_at(data)
    before = validation.losses(partial(run.loss, run.model))
    for _ in range(40):
        run.train_step()
    after = validation.losses(partial(run.loss, run.model))
    assert after["seen_motion"] < before["seen_motion"]


def test_looking_changes_nothing(data: Path, tmp_path: Path) -> None:
    run, other = (Run(data, tmp_path, OPTIONS, rank=0, world=1) for _ in range(2))
    looked_at(data).losses(partial(run.loss, run.model))
    for each in (run, other):
        each.train_step()
    for one, same in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, same)


def test_samples_are_spread_over_the_split_with_sentences_and_pure_noise(data: Path) -> None:
    drawn = evenly_spread(PreparedSplit.open(data / "train"))
    assert 1 < len(drawn.timesteps) <= MOST_SAMPLES
    assert (drawn.timesteps == 999).all()
    assert (drawn.scenes.words[:, 0] > 0).all()
    assert not drawn.scenes.hint_modes.any()
    assert not drawn.scenes.mirrored.any()


def test_a_run_writes_what_it_saw(data: Path, tmp_path: Path) -> None:
    options = SmallTraining(**{**vars(OPTIONS), "steps": 4})
    run_process(0, SmallLaunch(data, tmp_path, options, workers=1, save_every=2))
    with (tmp_path / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(np.isfinite(float(row[f"unseen_{part}"])) for row in rows for part in WATCHED)


def test_shards_of_the_other_split_are_prepared_with_the_same_words(simulated: list[Sample], tmp_path: Path) -> None:
    write_shard(tmp_path / "shards" / "train-0000000-0000008.tar", simulated[:8])
    write_shard(tmp_path / "shards" / "val-0000000-0000002.tar", simulated[8:10])
    prepare(tmp_path / "shards", tmp_path / "out", workers=1)
    split = PreparedSplit.open(tmp_path / "out" / VALIDATION_SPLIT)
    words = json.loads((tmp_path / "out/vocabulary.json").read_text())
    assert [row["key"] for row in split.meta] == [sample.key for sample in simulated[8:10]]
    assert not split.observed.any()
    said = set(" ".join(sample.text for sample in simulated[:8]).lower().split())
    assert said & set(words)
    assert split.words.max() < 33 + len(words)
