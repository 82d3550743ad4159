"""Forecasts in words and numbers: directions, the per-object table, the CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momap_ros.files import atomic_path
from momap_ros.hints import AXIS_WORDS
from momap_ros.object_motion import ObjectMotion

CSV_COLUMNS = (
    "stamp_ns",
    "prompt",
    "id",
    "label",
    "moving_probability",
    "direction",
    "displacement_m",
    "speed_m_s",
    "residual_m",
    "hypothesis_spread_m",
    "hypothesis_weight",
    "inlier_fraction",
    "rigid",
    "valid",
    *(f"centroid_{axis}_m" for axis in "xyz"),
    *(f"size_{axis}_m" for axis in "xyz"),
    *(f"direction_{axis}" for axis in "xyz"),
    "goal_id",
)


@dataclass(frozen=True)
class ForecastRecord:
    """The objects of one forecast.

    Attributes:
        stamp_ns: of the image.
        prompt: sentence that the forecast was asked with.
        objects: one motion per object.
    """

    stamp_ns: int
    prompt: str
    objects: Sequence[ObjectMotion]


def direction_in_words(flags: npt.NDArray[np.int8]) -> str:
    """(3,) direction flags of the camera's optical frame in words, "stays" where all are zero."""
    words = [pair[int(flag > 0)] for flag, pair in zip(flags, AXIS_WORDS, strict=True) if flag != 0]
    return ", ".join(words) or "stays"


def direction_from_words(words: str) -> tuple[int, int, int]:
    """Direction flags of words like those of `direction_in_words`, separated by commas.

    Raises:
        ValueError: an unknown word, or two that contradict each other.
    """
    known = {
        word: (axis, sign) for axis, pair in enumerate(AXIS_WORDS) for word, sign in zip(pair, (-1, 1), strict=True)
    }
    flags = [0, 0, 0]
    given = [word.strip() for word in words.split(",")]
    for word in given if given != ["stays"] else []:
        axis, sign = known.get(word, (0, 0))
        if sign == 0 or flags[axis] != 0:
            raise ValueError(
                f"direction {words!r}: expected stays, or some of {' '.join(known)} separated by commas, one per axis"
            )
        flags[axis] = sign
    return flags[0], flags[1], flags[2]


def largest_residual_m(motion: ObjectMotion) -> float:
    """Largest RMS residual over the steps, metres; NaN where no motion could be fitted."""
    known = motion.residual_m[~np.isnan(motion.residual_m)]
    return float(known.max()) if motion.valid and known.size else float("nan")


def object_table(objects: Sequence[ObjectMotion]) -> str:
    """The per-object table that the command line prints; one line says so where there is no object."""
    if not objects:
        return "no objects"
    header = ("id", "label", "moves", "direction", "goes to", "distance", "residual", "spread")
    rows = [
        (
            str(motion.instance_id),
            motion.label or "-",
            f"{motion.moving_probability:.0%}",
            direction_in_words(motion.direction_flags) if motion.valid else "unknown",
            str(motion.goal_id or "-"),
            f"{motion.displacement_m * 100:.1f} cm" if motion.valid else "-",
            f"{largest_residual_m(motion) * 1000:.1f} mm" if motion.valid else "-",
            f"{motion.hypothesis_spread_m * 100:.1f} cm" if motion.valid else "-",
        )
        for motion in objects
    ]
    return aligned([header, *rows], left=(1, 3))


def aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> str:
    """Rows as text, columns two spaces apart, a rule below the first row; right-aligned except the columns `left`."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def write_objects_csv(path: Path, records: Iterable[ForecastRecord]) -> None:
    """Write one line per object and forecast; SI units, positions in the camera's optical frame."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for record in records:
            writer.writerows(_csv_row(record, motion) for motion in record.objects)


def _csv_row(record: ForecastRecord, motion: ObjectMotion) -> list[object]:
    numbers = (motion.displacement_m, motion.speed_m_s, largest_residual_m(motion), motion.hypothesis_spread_m)
    return [
        record.stamp_ns,
        record.prompt,
        motion.instance_id,
        motion.label,
        f"{motion.moving_probability:.4f}",
        direction_in_words(motion.direction_flags),
        *(f"{number:.6f}" for number in numbers),
        f"{motion.hypothesis_weight:.4f}",
        f"{motion.inlier_fraction:.4f}",
        int(motion.rigid),
        int(motion.valid),
        *(f"{number:.6f}" for vector in (motion.centroid_m, motion.size_m, motion.direction) for number in vector),
        motion.goal_id,
    ]
