"""Pictures of an evaluation: spread against error, reliability of the moving probability, errors per skill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from momap_ros.evaluation.scoring import Row
from momap_ros.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREEN, _GREY, _LIGHT = "#345cff", "#1fae5c", "#7c8797", "#c9d2ff"
_MM = 1e3


def _figure(columns: int, *, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure, [figure.add_subplot(1, columns, 1 + i) for i in range(columns)]


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=100, metadata={"Software": None})
    return path


def plot_spread(path: Path, rows: Sequence[Row], title: str) -> Path | None:
    """Spread of the draws against the error of their mean, one dot per sample; None without several draws."""
    roles = ("acted", "robot")
    values = {role: _spread_and_error_mm(rows, role) for role in roles}
    if not any(len(found) for found in values.values()):
        return None
    figure, axes = _figure(2, width=5, height=5, title=f"spread and error of the path: {title}")
    for role, of_role in zip(roles, axes, strict=True):
        found = values[role]
        if len(found):
            spread, error = found.T
            end = 1.05 * float(np.percentile(found, 99))
            of_role.scatter(spread, error, s=9, color=_LIGHT, edgecolors=_BLUE, linewidths=0.4, label="a sample")
            # Root mean squares, as the ratio in the table: a few bad misses count.
            bins = np.array_split(np.argsort(spread, kind="stable"), min(8, max(1, len(found) // 10)))
            binned = np.array([np.sqrt((found[index] ** 2).mean(axis=0)) for index in bins])
            of_role.plot(*binned.T, "o-", color=_GREEN, markersize=5, label="equal groups, RMS")
            of_role.plot([0, end], [0, end], "--", color=_GREY, linewidth=1, label="calibrated")
            of_role.set(xlim=(0, end), ylim=(0, end))
            of_role.legend(fontsize=8, frameon=False)
        _finish(of_role, role, "spread x sqrt((N + 1) / N) [mm]", "RMS error of the mean [mm]")
    return _save(figure, path)


def _spread_and_error_mm(rows: Sequence[Row], role: str) -> np.ndarray:
    found = [
        (figures["variance_path"] * (row["hypotheses"] + 1) / row["hypotheses"], figures["error_path"])
        for row in rows
        if "variance_path" in (figures := row["roles"].get(role, {}))
    ]
    return _MM * np.sqrt(np.array(found).reshape(-1, 2))


def plot_reliability(path: Path, summary: dict[str, Any], title: str) -> Path | None:
    """How often instances move for which a probability was stated; None where none was."""
    found = summary["moving_probability"]
    if not found:
        return None
    figure, axes = _figure(len(found), width=5, height=5, title=f"which instance moves: {title}")
    for (kind, figures), of_kind in zip(found.items(), axes, strict=True):
        width = 1 / len(figures["bins"])
        centres = (np.arange(len(figures["bins"])) + 0.5) * width
        share = [bin_["true_share"] or 0.0 for bin_ in figures["bins"]]
        bars = of_kind.bar(centres, share, 0.9 * width, color=_BLUE)
        of_kind.bar_label(bars, [str(bin_["count"]) for bin_ in figures["bins"]], fontsize=7, padding=2)
        of_kind.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1)
        of_kind.set(xlim=(0, 1), ylim=(0, 1.08))
        label = f"{kind}: ECE {figures['expected_error']:.3f}, Brier {figures['brier']:.3f}"
        _finish(of_kind, label, "stated probability that it moves", "share that moves; numbers are instances")
    return _save(figure, path)


def plot_skills(path: Path, by_skill: dict[str, Any], title: str) -> Path | None:
    """Best and mean error per skill beside that of rest; None where no skill moves anything."""
    skills = [skill for skill, figures in by_skill.items() if figures["acted"]["static"]]
    if not skills:
        return None
    figure, axes = _figure(2, width=6, height=1.5 + 0.32 * len(skills), title=f"ADE per skill: {title}")
    for role, of_role in zip(("acted", "robot"), axes, strict=True):
        at = np.arange(len(skills))
        for offset, name, color in ((-0.27, "static", _GREY), (0.0, "mean", _LIGHT), (0.27, "best", _BLUE)):
            found = [by_skill[skill][role][name] for skill in skills]
            value = _MM * np.array([each.get("value", 0.0) for each in found])
            # Without a second episode there is no interval.
            low, high = (
                _MM * np.array([each.get(k, each.get("value", 0.0)) for each in found]) for k in ("low", "high")
            )
            errors = np.maximum(0, [value - low, high - value])
            of_role.barh(at + offset, value, 0.25, color=color, label=name, xerr=errors, error_kw={"linewidth": 0.7})
        of_role.set_yticks(at, [skill.replace("_", " ") for skill in skills])
        of_role.invert_yaxis()
        of_role.legend(fontsize=8, frameon=False)
        _finish(of_role, role, "ADE [mm], 95 % intervals", "")
    return _save(figure, path)


def _finish(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
