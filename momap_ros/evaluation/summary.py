"""Rows of samples become means with intervals, ratios, calibration and coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from momap_ros.evaluation.calibration import reliability
from momap_ros.evaluation.points import ROLES
from momap_ros.evaluation.scoring import Row
from momap_ros.geometry import Float64

Figures = dict[str, Any]
REDUCTIONS = ("best", "selected", "mean")
IN_MEDIAN_DEPTHS = ("ate_dtw_m", "d_sig_m", "local_dist_diff_m")
METRICS = (
    *("ade_m", "fde_m", "ade_visible_m", "ade_occluded_m", "fg_mask_iou", *IN_MEDIAN_DEPTHS),
    *("patch_nearest_acc", "q_acc_1", "q_acc_4", "q_acc_16"),
)
RESAMPLES = 2000
MIN_OBJECTS_FOR_BINDING = 3


class Bootstrap:
    """Resamples episodes, not samples: the views of an episode share its motion, so they vary together.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), Sec. 13.3: percentile intervals.

    Args:
        episodes: of every row.
        resamples: how many.
        seed: of the draws; equal rows give equal intervals.
    """

    def __init__(self, episodes: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> None:
        """Draw how often every episode counts in every resample."""
        names, self._of_row = np.unique(np.array(episodes, dtype=str), return_inverse=True)
        count = len(names)
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)

    def ratio(self, numerator: Float64, denominator: Float64) -> Figures:
        """Sum over sum with its 95 % interval; NaN in either leaves the row out of both.

        Args:
            numerator: one value per row.
            denominator: one value per row; ones give a mean.

        Returns:
            value and samples, and low and high where there are at least two episodes; empty without a row, or where
            the denominators sum to 0.
        """
        known = np.isfinite(numerator) & np.isfinite(denominator)
        above, below = np.where(known, numerator, 0.0), np.where(known, denominator, 0.0)
        if not known.any() or below.sum() == 0:
            return {}
        episodes = self._weights.shape[1]
        sums = np.stack([np.bincount(self._of_row, values, episodes) for values in (above, below)], axis=1)
        drawn = self._weights @ sums
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = drawn[:, 0] / drawn[:, 1]
        figures: Figures = {"value": float(above.sum() / below.sum()), "samples": int(known.sum())}
        if len(np.unique(self._of_row[known])) > 1:  # one episode says nothing about others
            low, high = np.percentile(ratios[np.isfinite(ratios)], [2.5, 97.5])
            figures |= {"low": float(low), "high": float(high)}
        return figures

    def mean(self, values: Float64) -> Figures:
        """Mean with its 95 % interval."""
        return self.ratio(values, np.ones(len(values)))


def summarise(rows: Sequence[Row]) -> Figures:
    """Everything that is said about one predictor on one set of samples.

    Args:
        rows: what `score_sample` made, at least one.
    """
    bootstrap = Bootstrap([row["episode"] for row in rows])
    result: Figures = {"samples": len(rows), "episodes": len({row["episode"] for row in rows})}
    result["roles"] = {role: _role_summary(rows, role, bootstrap) for role in ROLES}
    result["right_object"] = bootstrap.mean(_column(rows, "right_object"))
    result["right_object_head"] = bootstrap.mean(_column(rows, "right_object_head"))
    result["chance"] = bootstrap.mean(_column(rows, "chance"))
    result["acted_segmented"] = bootstrap.mean(_column(rows, "acted_segmented"))
    result["still"] = bootstrap.mean(_column(rows, "still"))
    result["duration_ratio"] = bootstrap.mean(_column(rows, "duration_ratio"))
    choices = [row for row in rows if row["choice"] and row.get("num_objects", 0) >= MIN_OBJECTS_FOR_BINDING]
    if choices:
        of_choices = Bootstrap([row["episode"] for row in choices])
        result["binding"] = of_choices.mean(_column(choices, "right_object"))
        result["binding_chance"] = of_choices.mean(_column(choices, "chance"))
    for role in ("acted", "robot"):
        result[f"joint_{role}_m"] = bootstrap.mean(_values(rows, "joint_m", role))
    result["moving_probability"] = _moving_summary(rows)
    return result


def summarise_skill(rows: Sequence[Row]) -> Figures:
    """The few figures of one skill: errors of acted object and robot, and the right object."""
    bootstrap = Bootstrap([row["episode"] for row in rows])
    result: Figures = {"samples": len(rows), "right_object": bootstrap.mean(_column(rows, "right_object"))}
    for role in ("acted", "robot"):
        result[role] = {
            "static": bootstrap.mean(_values(rows, "truth", role, "static_ade_m")),
            "best": bootstrap.mean(_values(rows, "roles", role, "ade_m", "best")),
            "mean": bootstrap.mean(_values(rows, "roles", role, "ade_m", "mean")),
        }
    return result


def summarise_futures(groups: Sequence[Row]) -> Figures:
    """Coverage over all first frames."""
    bootstrap = Bootstrap([group["episode"] for group in groups])
    result: Figures = {"first_frames": len(groups)}
    for name in ("end", "path"):
        counts = {key: np.array([group[name][key] for group in groups], np.float64) for key in groups[0][name]}
        result[name] = {key: int(values.sum()) for key, values in counts.items()}
        result[name]["covered_share"] = bootstrap.ratio(counts["covered"], counts["futures"])
        result[name]["distinct_covered_share"] = bootstrap.ratio(counts["distinct_covered"], counts["distinct"])
    return result


def _values(rows: Sequence[Row], *path: str) -> Float64:
    """One number per row from nested dictionaries; NaN where absent."""
    result = np.full(len(rows), np.nan)
    for number, row in enumerate(rows):
        value: Any = row
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            result[number] = value
    return result


def _column(rows: Sequence[Row], name: str) -> Float64:
    return _values(rows, name)


def _role_summary(rows: Sequence[Row], role: str, bootstrap: Bootstrap) -> Figures:
    """Means of all metrics of one role, shares of static, and what the draws say as a distribution."""
    static = _values(rows, "truth", role, "static_ade_m")
    depth_m = _column(rows, "median_depth_m")
    figures: Figures = {
        "static_ade_m": bootstrap.mean(static),
        "static_fde_m": bootstrap.mean(_values(rows, "truth", role, "static_fde_m")),
        "step_m": bootstrap.mean(_values(rows, "truth", role, "step_m")),
        "unknown": bootstrap.mean(_values(rows, "roles", role, "unknown")),
    }
    for metric in METRICS:
        columns = {name: _values(rows, "roles", role, metric, name) for name in REDUCTIONS}
        figures[metric] = {name: bootstrap.mean(values) for name, values in columns.items()}
        if metric in IN_MEDIAN_DEPTHS:
            relative = {name: bootstrap.mean(values / depth_m) for name, values in columns.items()}
            figures[f"{metric.removesuffix('_m')}_depths"] = relative
        if metric == "ade_m":
            shares = {name: bootstrap.ratio(values, static) for name, values in columns.items()}
            figures["ade_share_of_static"] = shares
    for name in ("path", "end"):
        figures[f"energy_{name}_m"] = bootstrap.mean(_values(rows, "roles", role, f"energy_{name}_m"))
        figures[f"dispersion_{name}"] = _dispersion(rows, role, name, bootstrap)
    return figures


def _dispersion(rows: Sequence[Row], role: str, name: str, bootstrap: Bootstrap) -> Figures:
    """Spread of the draws, error of their mean, and the corrected ratio: 1 where draws are like truths."""
    variance = _values(rows, "roles", role, f"variance_{name}")
    error = _values(rows, "roles", role, f"error_{name}")
    draws = _column(rows, "hypotheses")
    corrected = variance * (draws + 1) / draws
    squared = bootstrap.ratio(corrected, error)
    if not squared:
        return {}
    return {
        "spread_m": float(np.sqrt(np.nanmean(variance))),
        "error_of_mean_m": float(np.sqrt(np.nanmean(error))),
        "ratio": {
            key: value if key == "samples" else float(np.sqrt(max(value, 0.0))) for key, value in squared.items()
        },
    }


def _moving_summary(rows: Sequence[Row]) -> Figures:
    """Reliability of the moving probability: objects (acted and others) and robot apart."""
    result: Figures = {}
    for kind, roles in (("objects", {"acted", "other"}), ("robot", {"robot"})):
        cases = [case for row in rows for case in row["moving"] if case[0] in roles]
        if not cases:
            continue
        found = reliability(np.array([case[1] for case in cases]), np.array([case[2] for case in cases], np.bool_))
        result[kind] = {
            "cases": len(cases),
            "expected_error": found.expected_error,
            "brier": found.brier,
            "bins": [
                {"count": int(count), "stated": _or_none(stated), "true_share": _or_none(share)}
                for count, stated, share in zip(found.count, found.stated, found.true_share, strict=True)
            ],
        }
    return result


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
