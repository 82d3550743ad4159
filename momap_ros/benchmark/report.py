"""What is measured, with its targets, and the file and the table that come out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from momap_ros.files import write_json

FORMAT = "momap-benchmark/2"


@dataclass(frozen=True)
class Stage:
    """One row of the report.

    Attributes:
        name: short, never changed: results of different days are compared by it.
        what: one line for readers.
        cores: processor cores it may use.
        target: the median it should stay within; None = it is only watched.
        unit: of median, p95 and target.
    """

    name: str
    what: str
    cores: int
    target: float | None = None
    unit: str = "ms"


STAGES = (
    Stage("decode", "rgb8 and 16UC1 messages, 640x480, to a frame", 1),
    Stage("segment", "tabletop instances, 640x480", 1, target=15.0),
    Stage("track", "stable ids of the instances, 640x480", 1),
    Stage("condition", "frame, instances and prompt to the network's inputs", 2),
    Stage("network_n1_s1", "scene encoder and denoiser, N = 1, 1 step", 2),
    Stage("network_n1_s4", "scene encoder and denoiser, N = 1, 4 steps", 2),
    Stage("network_n10_s1", "scene encoder and denoiser, N = 10, 1 step", 2),
    Stage("network_n10_s4", "scene encoder and denoiser, N = 10, 4 steps", 2),
    Stage("codec_dense", "latents to displacements, 256x256 pixels, T = 50", 2),
    Stage("codec_points", "1500 points, N = 10, every object moving: latents to metres", 2),
    Stage("dense_momap", "one MoMap, 256x256, T = 50, every object moving", 2),
    Stage("motion_default", "object motions of the default forecast", 2),
    Stage("motion_dense", "object motions, 256x256 trajectories, T = 50, 20 objects, robust", 1, target=50.0),
    Stage("forecast", "the default forecast in one call, without ROS", 2),
    Stage("message_fill", "the default forecast's messages filled", 2),
    Stage("message", "the default forecast's messages filled and published", 2, target=5.0),
    Stage("receive", "read the object motions from the bytes of a message", 2),
    Stage("receive_message", "the same bytes made message objects by rclpy", 2),
    Stage("end_to_end", "images published to object motions in numbers: two processes, DDS", 2, target=1500.0),
    Stage(
        "not_network",
        "share of end_to_end beyond the network's time in these frames, by the node's /diagnostics",
        2,
        target=20.0,
        unit="%",
    ),
)
# Of files that are kept. In the first format `not_network` was the share beyond the median of network_n10_s4.
FORMATS = {
    FORMAT: STAGES,
    "momap-benchmark/1": tuple(stage for stage in STAGES if stage.name not in {"receive", "receive_message"}),
}


@dataclass(frozen=True)
class Row:
    """One measured stage; its fields are the JSON's.

    Attributes:
        name: of the stage.
        what: of the stage.
        unit: of median, p95 and target.
        cores: it was allowed to use.
        runs: that were counted.
        median: of the runs.
        p95: 95th percentile of the runs.
        peak_memory_mib: most memory of a run beyond what the process held before; of end_to_end: most memory of the
            whole node. None = not known.
        target: the median it should stay within, or None.
        met: whether it does; None without a target.
        skipped: why nothing was measured; the numbers are then None.
    """

    name: str
    what: str
    unit: str
    cores: int
    runs: int
    median: float | None
    p95: float | None
    peak_memory_mib: float | None
    target: float | None
    met: bool | None
    skipped: str | None


@dataclass(frozen=True)
class Report:
    """One run of the benchmark.

    Attributes:
        format: FORMAT, or that of another program with rows of its own.
        date: day of the run, ISO 8601.
        commit: of the source tree, with -dirty where files were changed; None outside a git checkout.
        quick: True for a smoke test, whose numbers mean nothing.
        machine: processor, cores, memory, load, operating system.
        versions: of Python, ROS and the libraries.
        settings: what was run: checkpoint, frame, threads.
        rows: one per stage, in their order.
    """

    format: str
    date: str
    commit: str | None
    quick: bool
    machine: Mapping[str, str | int | float]
    versions: Mapping[str, str]
    settings: Mapping[str, str | int | float]
    rows: tuple[Row, ...]


def row(stage: Stage, values: tuple[float, ...], peak_memory_mib: float | None) -> Row:
    """The row of a stage from its runs, in the stage's unit."""
    import numpy as np

    median, p95 = round(float(np.median(values)), 3), round(float(np.percentile(values, 95)), 3)
    memory = None if peak_memory_mib is None else round(peak_memory_mib, 1)
    met = None if stage.target is None else median <= stage.target
    return Row(
        stage.name, stage.what, stage.unit, stage.cores, len(values), median, p95, memory, stage.target, met, None
    )


def skipped_row(stage: Stage, reason: str) -> Row:
    """The row of a stage that could not run."""
    return Row(stage.name, stage.what, stage.unit, stage.cores, 0, None, None, None, stage.target, None, reason)


def write_report(report: Report, path: Path) -> None:
    """Write the JSON, whole or not at all."""
    write_json(path, dataclasses.asdict(report))


def read_report(path: Path, formats: Mapping[str, Sequence[Stage]] = FORMATS) -> Report:
    """Read and check what `write_report` wrote.

    Args:
        path: JSON.
        formats: that are accepted, with the stages of their rows.

    Raises:
        ValueError: another format, unknown or missing fields or stages, or numbers that contradict each other.
    """
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    stages = formats.get(document.get("format", ""))
    if stages is None:
        known = " or ".join(formats)
        raise ValueError(f"{path}: expected format {known}, got {document.get('format')!r}; measure again")
    try:
        report = Report(**{**document, "rows": tuple(Row(**item) for item in document["rows"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the fields of a benchmark report: {error}; measure again") from error
    expected, got = [stage.name for stage in stages], [item.name for item in report.rows]
    if expected != got:
        raise ValueError(f"{path}: expected the stages {expected}, got {got}; measure again")
    for item in report.rows:
        if not _is_consistent(item):
            raise ValueError(f"{path}: expected numbers of one measurement, got {item}; measure again")
    return report


def _is_consistent(item: Row) -> bool:
    if item.median is None or item.p95 is None:
        return bool(item.skipped) and item.runs == 0 and item.met is None
    numbers = [item.median, item.p95, item.peak_memory_mib or 0.0]
    target_fits = item.met == (None if item.target is None else item.median <= item.target)
    return (
        item.runs > 0
        and item.skipped is None
        and target_fits
        and item.median <= item.p95
        and all(math.isfinite(number) for number in numbers)
    )


def markdown(report: Report) -> str:
    """The report as a Markdown table under one line that says where and when."""
    machine, settings = report.machine, report.settings
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']:.1f} before the run; "
        f"{report.date}, commit {report.commit or 'unknown'}; checkpoint {settings['checkpoint']}, "
        f"{settings['torch_threads']} torch threads.",
        "",
        "| stage | cores | median | p95 | peak memory | target |",
        "|---|---|---|---|---|---|",
    ]
    if report.quick:
        lines.insert(0, "A smoke test: these numbers mean nothing.\n")
    # Of something that could not run as a whole, "what: row 1", "what: row 2" are one line.
    for (what, reason), group in groupby(report.rows, lambda item: (item.what.partition(": ")[0], item.skipped)):
        items = list(group)
        if reason and len(items) > 1:
            items = [dataclasses.replace(items[0], what=what)]
        lines += map(_line, items)
    return "\n".join(lines) + "\n"


def _line(item: Row) -> str:
    cells = [item.what, str(item.cores)]
    if item.median is None or item.p95 is None:
        cells += [f"not run: {item.skipped}", "", ""]
    else:
        memory = "" if item.peak_memory_mib is None else f"{item.peak_memory_mib:.0f} MiB"
        cells += [_number(item.median, item.unit), _number(item.p95, item.unit), memory]
    return "| " + " | ".join([*cells, _target(item)]) + " |"


def _number(value: float, unit: str) -> str:
    """Three significant digits, and no more than the clock gives."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f} {unit}"


def _target(item: Row) -> str:
    if item.target is None:
        return ""
    verdict = {True: ", ok", False: ", missed", None: ""}[item.met]
    return f"{item.target:g} {item.unit}{verdict}"
