"""Scores in words, numbers and one plot: the tables that the command line prints, scores.json, scores.png."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from momap_ros.files import atomic_path
from momap_ros.report import aligned
from momap_ros.scoring.scores import HorizonSummary, ObjectScore, Outcome, summarise

FILE_FORMAT = "momap-scores/1"
_OURS, _BEST, _STATIC, _GRAY = "#345cff", "#1fae5c", "#7c8797", "#c8ccd4"


def object_score_table(scores: Sequence[ObjectScore], horizons_s: Sequence[float], *, moving_threshold_m: float) -> str:
    """One row per object and horizon, over all forecasts; one line says so where there is none."""
    outcomes = [outcome.value for outcome in Outcome]
    rows: list[tuple[str, ...]] = [("id", "label", "horizon", *outcomes, "moved by", "error", "skill")]
    for instance_id in sorted({score.instance_id for score in scores}):
        own = [score for score in scores if score.instance_id == instance_id]
        label = next((score.label for score in own if score.label), "-")
        for horizon_s in horizons_s:
            at = [score for score in own if score.horizon_s == horizon_s]
            if at:
                rows.append((str(instance_id), label, f"{horizon_s:g} s", *_object_cells(at, moving_threshold_m)))
    return aligned(rows, left=(1,)) if len(rows) > 1 else "no object at any horizon"


def _object_cells(scores: Sequence[ObjectScore], moving_threshold_m: float) -> tuple[str, ...]:
    scored = [score for score in scores if score.outcome == Outcome.SCORED]
    counts = [str(sum(score.outcome == outcome for score in scores)) for outcome in Outcome]
    if not scored:
        return (*counts, "-", "-", "-")
    static_m = sum(score.static_error_m for score in scored) / len(scored)
    error_m = sum(score.error_m for score in scored) / len(scored)
    # Of what stayed where it was, the measurement's own noise would decide.
    skill = f"{1 - error_m / static_m:+.2f}" if static_m > moving_threshold_m else "-"
    return (*counts, _centimetres(static_m), _centimetres(error_m), skill)


def horizon_table(summaries: Sequence[HorizonSummary]) -> str:
    """One row per horizon: what moved and what did not, apart."""
    outcomes = [outcome.value for outcome in Outcome]
    header = ("horizon", *outcomes, "moved", "static", "ours", "best", "skill", "still", "ours", "noise")
    rows = [
        (
            f"{summary.horizon_s:g} s",
            *(str(summary.counts[outcome]) for outcome in Outcome),
            str(summary.num_moved),
            *map(_centimetres, (summary.moved_static_error_m, summary.moved_error_m, summary.moved_best_error_m)),
            "-" if math.isnan(summary.skill) else f"{summary.skill:+.2f}",
            str(summary.num_still),
            *map(_centimetres, (summary.still_error_m, summary.still_static_error_m)),
        )
        for summary in summaries
    ]
    return aligned([header, *rows], left=())


def write_scores(
    path: Path,
    scores: Sequence[ObjectScore],
    horizons_s: Sequence[float],
    *,
    moving_threshold_m: float,
    facts: dict[str, Any],
) -> Path:
    """Write all scores and their summaries as JSON, SI units, null where unknown; returns the path.

    Args:
        path: the file.
        scores: one entry each.
        horizons_s: seconds.
        moving_threshold_m: what counts as moved, metres.
        facts: of the run: recording, model, settings.
    """
    content = {
        "format": FILE_FORMAT,
        **facts,
        "moving_threshold_m": moving_threshold_m,
        "horizons": [
            {
                **{key: _known(value) for key, value in vars(summary).items() if key != "counts"},
                "skill": _known(summary.skill),
                "counts": {outcome.value: count for outcome, count in summary.counts.items()},
            }
            for summary in summarise(scores, horizons_s, moving_threshold_m=moving_threshold_m)
        ],
        "scores": [
            {**{key: _known(value) for key, value in vars(score).items()}, "outcome": score.outcome.value}
            for score in scores
        ],
    }
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def plot_scores(path: Path, scores: Sequence[ObjectScore], summaries: Sequence[HorizonSummary], *, title: str) -> Path:
    """Draw the error over the horizon, ours against 'nothing moves', as PNG; returns the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    moved_axes, single_axes = figure.subplots(1, 2)
    horizons_s = [summary.horizon_s for summary in summaries]
    lines = (
        ("nothing moves", _STATIC, "--", [summary.moved_static_error_m for summary in summaries]),
        ("forecast", _OURS, "-", [summary.moved_error_m for summary in summaries]),
        ("best of its futures", _BEST, ":", [summary.moved_best_error_m for summary in summaries]),
        ("forecast, of what stayed", _GRAY, "-", [summary.still_error_m for summary in summaries]),
    )
    for label, color, style, values_m in lines:
        moved_axes.plot(
            horizons_s, [100 * value for value in values_m], style, color=color, marker="o", linewidth=2, label=label
        )
    counts = ", ".join(f"{summary.horizon_s:g} s: {summary.num_moved}" for summary in summaries)
    moved_axes.set_title(f"objects that moved ({counts})", fontsize=10)
    moved_axes.set_xlabel("horizon [s]")
    moved_axes.set_ylabel("mean distance from what was seen [cm]")
    moved_axes.set_ylim(bottom=0)
    moved_axes.legend(frameon=False, fontsize=9)
    scored = [score for score in scores if score.outcome == Outcome.SCORED]
    moved_cm = [100 * score.static_error_m for score in scored]
    error_cm = [100 * score.error_m for score in scored]
    single_axes.scatter(moved_cm, error_cm, s=18, color=_OURS, alpha=0.6, edgecolors="none")
    end = 1.05 * max([*moved_cm, *error_cm, 1.0])
    single_axes.plot([0, end], [0, end], "--", color=_STATIC, label="as good as 'nothing moves'")
    single_axes.set(xlim=(0, end), ylim=(0, end), xlabel="seen to move by [cm]", ylabel="forecast off by [cm]")
    single_axes.set_title(f"every object and horizon ({len(scored)})", fontsize=10)
    single_axes.legend(frameon=False, fontsize=9)
    for axes in (moved_axes, single_axes):
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=110)
    return path


def _centimetres(length_m: float) -> str:
    return "-" if math.isnan(length_m) else f"{length_m * 100:.1f} cm"


def _known(value: Any) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """The value as JSON can hold it: NaN becomes null, tuples lists."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
