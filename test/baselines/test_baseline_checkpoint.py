from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from momap_ros.baselines.checkpoint import KINDS, Baseline, Widths
from momap_ros.model.checkpoint import CheckpointError
from momap_ros.model.codec import TemporalBasisCodec

TINY = Widths(channels=(32, 64), points=8, hidden=32)
WORDS = ["lift", "mug", "the"]


def new(kind: str) -> Baseline:
    torch.manual_seed(0)
    return Baseline.new(kind, WORDS, TemporalBasisCodec.pinned_cosines(50, 10), TINY)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    baseline = new("general-flow-rollout")
    baseline.save(tmp_path / "checkpoint", baseline.model, {"steps_done": 3})
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_is_loaded(kind: str, tmp_path: Path) -> None:
    baseline = new(kind)
    baseline.save(tmp_path / "checkpoint", baseline.model, {"steps_done": 3})
    loaded = Baseline.load(tmp_path / "checkpoint")
    assert (loaded.kind, loaded.widths, loaded.vocabulary) == (kind, TINY, WORDS)
    before, after = baseline.model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(loaded.codec.basis, baseline.codec.basis)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training
    suffixes = {path.suffix for path in (tmp_path / "checkpoint").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
    info = json.loads((tmp_path / "checkpoint" / "baseline.json").read_text())
    assert info["training"] == {"steps_done": 3}


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of momap-vae, general-flow-original, .*, got 'gan'"):
        new("gan")


def test_folders_without_a_baseline_are_refused(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="got no folder; `momap train baseline --out RUN` writes RUN/checkpoint"):
        Baseline.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"expected \['baseline.json', 'model.safetensors', 'codec'\] in it, got"):
        Baseline.load(saved.parent)
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected \['model.safetensors'\] in it"):
        Baseline.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "momap-baseline/0"}, "got 'momap-baseline/0' and 'general-flow-rollout'; train it again"),
        ({"kind": "gan"}, "got 'momap-baseline/1' and 'gan'"),
        ({"kind": "general-flow-extend"}, "model.safetensors does not fit"),
        ({"vocabulary": ["lift"]}, "model.safetensors does not fit"),
    ],
)
def test_damaged_descriptions_are_refused(saved: Path, change: dict[str, object], message: str) -> None:
    info = json.loads((saved / "baseline.json").read_text())
    (saved / "baseline.json").write_text(json.dumps(info | change))
    with pytest.raises(CheckpointError, match=message):
        Baseline.load(saved)


def test_damaged_files_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit"):
        Baseline.load(saved)
    (saved / "baseline.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"baseline\.json is not JSON"):
        Baseline.load(saved)
