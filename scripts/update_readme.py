#!/usr/bin/env python3
"""Rewrites the parts of README.md that are made from the code and from benchmarks/results.

    python scripts/update_readme.py

A part lies between `<!-- made: NAME -->` and `<!-- end -->`. test/test_readme.py fails when one is out of date.
"""

from __future__ import annotations

import re
from pathlib import Path

from momap_ros.benchmark.report import markdown, read_report
from momap_ros.config import (
    ForecastConfig,
    ForecastNodeConfig,
    InputConfig,
    MarkersConfig,
    ObjectMotionConfig,
    SegmentationConfig,
)
from momap_ros.files import atomic_path
from momap_ros.ros.parameters import parameter_table_markdown

REPOSITORY = Path(__file__).resolve().parents[1]
PART = re.compile(r"(<!-- made: (?P<name>\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
GROUPS = {
    "start": ForecastNodeConfig,
    "input": InputConfig,
    "forecast": ForecastConfig,
    "segmentation": SegmentationConfig,
    "motion": ObjectMotionConfig,
    "markers": MarkersConfig,
}


def part(name: str) -> str:
    """The text of one part: a group's parameters, or the newest committed benchmark."""
    if name == "benchmark":
        results = sorted((REPOSITORY / "benchmarks/results").glob("*.json"))
        return markdown(read_report(results[-1])) if results else "Not measured yet: run `make bench`.\n"
    return parameter_table_markdown([GROUPS[name]])


def updated(text: str) -> str:
    """The README with all its parts made anew."""
    return PART.sub(lambda found: f"{found[1]}\n{part(found['name'])}\n{found[3]}", text)


def main() -> None:
    """Rewrite README.md in place."""
    path = REPOSITORY / "README.md"
    text = updated(path.read_text(encoding="utf-8"))
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
