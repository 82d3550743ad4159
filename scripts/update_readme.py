#!/usr/bin/env python3
"""Rewrites the parts of README.md and of three pages in docs/ that are made from the code and from benchmarks/results.

    python scripts/update_readme.py

A part lies between `<!-- made: NAME -->` and `<!-- end -->`. test/test_readme.py fails when one is out of date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from momap_ros.benchmark.network import FORMAT, STAGES
from momap_ros.benchmark.report import markdown, read_report
from momap_ros.config import (
    ForecastConfig,
    ForecastNodeConfig,
    HintsConfig,
    InputConfig,
    MarkersConfig,
    ObjectMotionConfig,
    PlannerConfig,
    SegmentationConfig,
    VlmConfig,
)
from momap_ros.files import atomic_path
from momap_ros.model.size import size_table
from momap_ros.ros.parameters import parameter_table_markdown

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/data_card.md", "docs/full_model.md", "docs/speed.md")
RESULTS = REPOSITORY / "benchmarks/results"
DATA_ENGINE = RESULTS / "data/data_engine.json"
FULL_MODEL_SIZE = RESULTS / "model/full_model_size.json"
FULL_MODEL_SPEED = RESULTS / "model/full_model_speed.md"
PART = re.compile(r"(<!-- made: (?P<name>\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
GROUPS = {
    "start": ForecastNodeConfig,
    "input": InputConfig,
    "forecast": ForecastConfig,
    "segmentation": SegmentationConfig,
    "motion": ObjectMotionConfig,
    "planner": PlannerConfig,
    "markers": MarkersConfig,
    "hints": HintsConfig,
    "vlm": VlmConfig,
}


def data_engine() -> str:
    """What the data engine was measured to make: one row per figure, and the success of every skill in one line."""
    report = json.loads(DATA_ENGINE.read_text(encoding="utf-8"))
    machine, prefix = report["machine"], "success of "
    rows = [figure for figure in report["figures"] if not figure["name"].startswith(prefix)]
    skills = [figure for figure in report["figures"] if figure["name"].startswith(prefix)]
    met = {True: "", False: ", **missed**", None: ""}
    return "\n".join(
        [
            f"{report['date']}, commit {report['commit']}, {report['episodes']} episodes of `{report['split']}`, "
            f"{report['samples']} samples; {machine['processor']}, {machine['cores']} cores.",
            "",
            "| figure | value | target | |",
            "|---|---:|---|---|",
            *(
                f"| {row['name']} | {row['value']:,} {row['unit']} | {row['target']}{met[row['met']]} | {row['note']} |"
                for row in rows
            ),
            "",
            "Success in percent, target > 95: "
            + ", ".join(f"{skill['name'].removeprefix(prefix)} {skill['value']:g}" for skill in skills)
            + ".",
            "",
        ]
    )


def part(name: str) -> str:
    """The text of one part: a group's parameters, or figures of a committed result."""
    if name == "data_engine":
        return data_engine()
    if name == "full_model_size":
        report = json.loads(FULL_MODEL_SIZE.read_text(encoding="utf-8"))
        return f"{report['date']}, commit {report['commit']}.\n\n{size_table(report)}\n"
    if name == "full_model_speed":
        return FULL_MODEL_SPEED.read_text(encoding="utf-8")
    if name == "benchmark":
        return markdown(read_report(sorted(RESULTS.glob("*.json"))[-1]))
    if name == "network":
        results = sorted(RESULTS.glob("network/*.json"))
        return markdown(read_report(results[-1], {FORMAT: STAGES})) if results else "Not measured yet: `make bench`.\n"
    return parameter_table_markdown([GROUPS[name]])


def updated(text: str) -> str:
    """A page with all its parts made anew."""
    return PART.sub(lambda found: f"{found[1]}\n{part(found['name'])}\n{found[3]}", text)


def main() -> None:
    """Rewrite the pages in place."""
    for page in PAGES:
        text = updated((REPOSITORY / page).read_text(encoding="utf-8"))
        with atomic_path(REPOSITORY / page) as partial:
            partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
