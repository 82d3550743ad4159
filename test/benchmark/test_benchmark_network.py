from __future__ import annotations

import json
from pathlib import Path

import pytest

from momap_ros.benchmark.network import FORMAT, HYPOTHESES, STEPS, VARIANTS, stage_of
from momap_ros.cli import main
from momap_ros.commands.demo import DEMO_BAG
from momap_ros.model.execution import missing_for_compile


def test_every_row_has_a_name_of_its_own() -> None:
    names = {stage_of(variant, count, steps).name for variant in VARIANTS for count in HYPOTHESES for steps in STEPS}
    assert len(names) == len(VARIANTS) * len(HYPOTHESES) * len(STEPS)
    assert stage_of("float32", 1, 1).what == "torch, float32: N = 1, 1 step"


@pytest.mark.slow
def test_a_quick_run_measures_every_variant_or_says_why_not(tiny_checkpoint: Path, tmp_path: Path) -> None:
    if not DEMO_BAG.exists():
        pytest.skip("needs the bundled recording")
    arguments = ["bench", "--network", "--quick", "--checkpoint", str(tiny_checkpoint), "--out", str(tmp_path)]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    assert report["format"] == FORMAT
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [f"{variant}_n1_s{steps}" for variant in VARIANTS for steps in (1, 2)]
    for variant in ("float32", "bfloat16", *(["compiled"] if not missing_for_compile() else [])):
        assert rows[f"{variant}_n1_s2"]["median"] > 0
    for row in rows.values():
        assert (row["median"] is None) == bool(row["skipped"])
