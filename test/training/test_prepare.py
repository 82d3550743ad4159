from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from momap_ros.model.codec import load_codec
from momap_ros.training.prepare import fit_codec, functions_of


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
