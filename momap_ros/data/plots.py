"""Statistics of stored samples as one picture of plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from momap_ros.data.statistics import DEPTH_EDGES_M, DEPTH_STEP_M, DIRECTIONS, FIGURES, Statistics
from momap_ros.files import atomic_path
from momap_ros.geometry import Float64

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP = 24
_BINS = 30
_BLUE, _GREEN, _GREY = "#345cff", "#1fae5c", "#7c8797"


def plot_statistics(path: Path, statistics: Statistics, *, title: str) -> Path:
    """Write the plots as one PNG, whole or not at all; returns the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 13), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    grid = figure.add_gridspec(4, 3, width_ratios=(1.15, 1, 1))
    _plot_counts(figure.add_subplot(grid[:2, 0]), "skills [samples]", statistics.counts["skills"].most_common(_TOP))
    _plot_counts(figure.add_subplot(grid[2:, 0]), "words [times]", statistics.counts["words"].most_common(_TOP))
    _plot_moving(figure.add_subplot(grid[0, 1]), statistics)
    _plot_figure(figure.add_subplot(grid[0, 2]), statistics, "acted_share", cumulated_share=0.98)
    _plot_figure(figure.add_subplot(grid[1, 1]), statistics, "acted_motion_m", cumulated_share=0.99)
    directions = [(word, statistics.counts["directions"][word]) for word in DIRECTIONS]
    _plot_counts(figure.add_subplot(grid[1, 2]), "acted object's direction, camera frame", directions)
    _plot_azimuth(figure.add_subplot(grid[2, 1], projection="polar"), statistics)
    _plot_depth(figure.add_subplot(grid[2, 2]), statistics)
    _plot_figure(figure.add_subplot(grid[3, 1]), statistics, "num_instances")
    _plot_figure(figure.add_subplot(grid[3, 2]), statistics, "duration_s")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=100)
    return path


def _plot_counts(axes: Axes, title: str, counts: list[tuple[str, int]]) -> None:
    names, numbers = [name.replace("_", " ") for name, _ in counts], [count for _, count in counts]
    bars = axes.barh(np.arange(len(names)), numbers, color=_BLUE, height=0.75)
    axes.set_yticks(np.arange(len(names)), names)
    axes.bar_label(bars, [f"{number:,}" for number in numbers], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.16, y=0.01)
    _finish(axes, title, ylabel="")


def _plot_figure(axes: Axes, statistics: Statistics, name: str, *, cumulated_share: float = 1.0) -> None:
    """Histogram up to the given share of the samples; whole numbers get a bar each."""
    figure = next(figure for figure in FIGURES if figure.name == name)
    values = _known(statistics.values(name)) * figure.scale
    title = f"{figure.what}{f' [{figure.unit}]' if figure.unit else ''}"
    if len(values):
        end = float(np.quantile(values, cumulated_share))
        if name.startswith("num_"):
            edges = np.arange(np.floor(values.min()), values.max() + 2) - 0.5
        else:
            edges = np.linspace(min(float(values.min()), 0.0), max(end, 1e-3), _BINS + 1)
        axes.hist(values, edges.tolist(), color=_GREEN if name.startswith("acted") else _BLUE, rwidth=0.92)
        median = float(np.median(values))
        axes.axvline(median, color="black", linewidth=1, linestyle="--", label=f"median {median:.3g}")
        if beyond := int((values > edges[-1]).sum()):
            axes.plot([], [], " ", label=f"{beyond:,} farther right")
        axes.legend(fontsize=8, frameon=False)
    _finish(axes, title)


def _plot_moving(axes: Axes, statistics: Statistics) -> None:
    """The robot's moving pixels against those of objects."""
    names = (("robot_moving_share", "robot", _GREY), ("object_moving_share", "objects", _GREEN))
    shares = {name: _known(statistics.values(name)) * 100 for name, _, _ in names}
    everything = np.concatenate(list(shares.values()))
    if len(everything):
        edges = np.linspace(0, max(float(np.quantile(everything, 0.99)), 1e-3), _BINS + 1)
        for name, label, color in names:
            mean = float(shares[name].mean())
            axes.hist(
                shares[name],
                edges.tolist(),
                color=color,
                alpha=0.6,
                label=f"{label}, mean {mean:.1f} %",
            )
        axes.legend(fontsize=8, frameon=False)
        axes.set_yscale("log")
    _finish(axes, "moving pixels of an image [%]")


def _plot_azimuth(axes: Axes, statistics: Statistics) -> None:
    from matplotlib.ticker import MaxNLocator

    counts, edges = np.histogram(np.array(statistics.azimuths_deg, np.float64), np.linspace(-180, 180, 25))
    axes.bar(np.radians(edges[:-1] + 7.5), counts, np.radians(15), color=_GREEN, edgecolor="white", linewidth=0.5)
    axes.set_xticks(np.radians([0, 90, 180, 270]), ["right", "away", "left", "closer"])
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params(labelsize=8)
    axes.set_title("acted object's way over the ground,\nseen from above [samples]", fontsize=10)


def _plot_depth(axes: Axes, statistics: Statistics) -> None:
    pixels = statistics.depth_px
    if total := int(pixels.sum()):
        last = int(np.searchsorted(np.cumsum(pixels), 0.995 * total)) + 1
        axes.bar(DEPTH_EDGES_M[:last], pixels[:last] / total * 100, DEPTH_STEP_M, align="edge", color=_BLUE)
    _finish(axes, "depth [m]", ylabel="pixels [%]")


def _finish(axes: Axes, title: str, *, ylabel: str = "samples") -> None:
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _known(values: Float64) -> Float64:
    return values[np.isfinite(values)]
