from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from momap_ros.conditioning import HASH_BUCKETS
from momap_ros.data.prepared import PreparedSplit
from momap_ros.data.sample import Sample, write_shard
from momap_ros.model.codec import load_codec
from momap_ros.training.prepare import fit_codec, functions_of, prepare


def test_the_basis_has_as_many_functions_as_asked_for(prepared_folder: Path, tmp_path: Path) -> None:
    shards = prepared_folder / "shards"
    assert fit_codec(shards, tmp_path / "3", 3).latent_channels == 9
    assert load_codec(prepared_folder / "codec").latent_channels == 30
    raw = fit_codec(shards, tmp_path / "raw", None)
    assert raw.latent_channels == 3 * (raw.num_steps - 1)
    assert load_codec(tmp_path / "raw").basis[1:].equal(raw.basis[1:])


def test_more_functions_than_steps_are_refused(prepared_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--functions: expected 1 to 49, .* or raw, got 50"):
        fit_codec(prepared_folder / "shards", tmp_path / "codec", 50)


def test_functions_are_a_number_or_raw() -> None:
    assert (functions_of("10"), functions_of("raw")) == (10, None)
    for text in ("0", "-1", "ten", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="from 1 on, or raw, got"):
            functions_of(text)


def test_strange_things_are_learned_from_but_their_names_stay_unknown(
    prepared_folder: Path, simulated: list[Sample], tmp_path: Path
) -> None:
    data, out = tmp_path / "shards", tmp_path / "prepared"
    shutil.copytree(prepared_folder / "shards", data)
    strange = dataclasses.replace(
        simulated[0], key="strange_0000000_0", split="strange", text="push the red tovag", paraphrases=()
    )
    write_shard(data / "strange-0000000-0000001.tar", [strange])
    prepare(data, out, workers=1)
    assert (out / "vocabulary.json").read_text() == (prepared_folder / "vocabulary.json").read_text()
    split = PreparedSplit.open(out / "train")
    assert len(split) == len(PreparedSplit.open(prepared_folder / "train")) + 1
    assert split.meta[-1]["key"] == "strange_0000000_0"
    words = json.loads((out / "vocabulary.json").read_text())
    assert "push" in words
    assert "tovag" not in words
    known = np.asarray(split.words[-1, 0, :4]) > HASH_BUCKETS
    assert known.tolist() == ["push" in words, "the" in words, "red" in words, False]


def test_strange_things_alone_are_prepared_with_the_words_that_are_there(prepared_folder: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "shards", tmp_path / "prepared"
    data.mkdir()
    with pytest.raises(FileNotFoundError, match="expected shards named train-"):
        prepare(data, out, workers=1)
    shutil.copytree(prepared_folder, out)
    shard = min((prepared_folder / "shards").glob("train-*.tar"))
    shutil.copy(shard, data / "strange-0000000-0000001.tar")
    prepare(data, out, workers=1, keep_codec=True)
    assert json.loads((out / "train" / "shards.json").read_text()) == ["strange-0000000-0000001.tar"]
    assert (out / "vocabulary.json").read_text() == (prepared_folder / "vocabulary.json").read_text()
