from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from momap_ros.benchmark import network
from momap_ros.benchmark.report import (
    FORMAT,
    STAGES,
    Report,
    Stage,
    markdown,
    read_report,
    row,
    skipped_row,
    write_report,
)


@pytest.fixture
def report() -> Report:
    """Every stage took 10 to 20 units; the last one could not run."""
    rows = [row(stage, (10.0, 20.0, 12.0), 3.21) for stage in STAGES[:-1]]
    return Report(
        FORMAT,
        "2026-01-31",
        "abc123",
        quick=False,
        machine={"processor": "A processor", "cores": 2, "load_before": 0.25},
        versions={"python": "3.11"},
        settings={"checkpoint": "small", "torch_threads": 2},
        rows=(*rows, skipped_row(STAGES[-1], "no ROS")),
    )


def test_a_target_is_met_by_the_median() -> None:
    values = (1.0, 2.0, 99.0)
    assert row(Stage("a", "A", 1, target=2.0), values, None).met is True
    assert row(Stage("a", "A", 1, target=1.9), values, None).met is False
    assert row(Stage("a", "A", 1), values, None).met is None


def test_what_is_written_is_read(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report


def drop_a_row(document: dict[str, Any]) -> None:
    del document["rows"][3]


def swap_rows(document: dict[str, Any]) -> None:
    document["rows"][0], document["rows"][1] = document["rows"][1], document["rows"][0]


def claim_success(document: dict[str, Any]) -> None:
    target = next(item for item in document["rows"] if item["target"] is not None)
    target |= {"median": target["target"] + 1, "p95": target["target"] + 2, "met": True}


def forget_the_reason(document: dict[str, Any]) -> None:
    document["rows"][-1]["skipped"] = None


def add_a_field(document: dict[str, Any]) -> None:
    document["rows"][0]["mean"] = 1.0


def change_the_format(document: dict[str, Any]) -> None:
    document["format"] = "momap-benchmark/0"


@pytest.mark.parametrize(
    "change", [drop_a_row, swap_rows, claim_success, forget_the_reason, add_a_field, change_the_format]
)
def test_a_changed_file_is_refused(change: Callable[[dict[str, Any]], None], report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(report, path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="measure again"):
        read_report(path)


def test_the_table_has_every_stage_and_says_what_was_missed(report: Report) -> None:
    lines = markdown(report).splitlines()
    assert lines[0] == (
        "A processor, 2 cores, load 0.2 before the run; 2026-01-31, commit abc123; checkpoint small, 2 torch threads."
    )
    assert len(lines) == 4 + len(STAGES)
    assert lines[4] == f"| {STAGES[0].what} | 1 | 12.0 ms | 19.2 ms | 3 MiB |  |"
    of = {stage.name: line for stage, line in zip(STAGES, lines[4:], strict=True)}
    assert of["segment"].endswith("| 15 ms, ok |")
    assert of["message"].endswith("| 5 ms, missed |")
    assert of["not_network"].endswith("| not run: no ROS |  |  | 20 % |")


def test_what_could_not_run_as_a_whole_is_one_line(report: Report) -> None:
    stages = [Stage(f"gpu_{number}", f"on a GPU: {number}", 2) for number in range(3)]
    skipped = dataclasses.replace(report, rows=tuple(skipped_row(stage, "no GPU") for stage in stages))
    assert markdown(skipped).splitlines()[4:] == ["| on a GPU | 2 | not run: no GPU |  |  |  |"]


def test_committed_results_are_whole(repository: Path) -> None:
    results = repository / "benchmarks/results"
    reports = [read_report(path) for path in results.glob("*.json")]
    assert reports
    assert all(item.skipped is None for found in reports for item in found.rows)
    reports += [read_report(path, {network.FORMAT: network.STAGES}) for path in results.glob("network/*.json")]
    assert not any(found.quick for found in reports)
