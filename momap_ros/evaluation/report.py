"""The results as a page of tables: what is compared stands side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from momap_ros.evaluation.scoring import Thresholds

Result = dict[str, Any]
Cell = Callable[[Result], str]
NO_VISIBILITY = "No sample says which points are seen: simulate with `--visibility` to have visible and occluded apart."
PAPER = (
    ("fg_mask_iou", "fg_mask_iou ^", 1.0),
    ("ate_dtw_m", "ate_dtw v [mm]", 1e3),
    ("ate_dtw_depths", "[depths]", 1.0),
    ("d_sig_m", "D_sig v [mm]", 1e3),
    ("d_sig_depths", "[depths]", 1.0),
    ("local_dist_diff_m", "local_dist_diff v [mm]", 1e3),
    ("local_dist_diff_depths", "[depths]", 1.0),
    ("patch_nearest_acc", "patch_nearest_acc ^", 1.0),
    ("q_acc_1", "q_acc_1 ^", 1.0),
    ("q_acc_4", "q_acc_4 ^", 1.0),
    ("q_acc_16", "q_acc_16 ^", 1.0),
)

# Told nothing, and learned nothing either.
UNLEARNED = ("static", "constant velocity")
# Whom a model is held against, and what the table calls it.
STANDING = {"models": "best of the models", "static": "better than static", "retrieval": "better than retrieval*"}


def look_up(result: Result, *path: str) -> Any:  # noqa: ANN401  (numbers, figures with intervals, or None)
    """Something nested; None where any part is absent or empty."""
    found: Any = result
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if found not in ({}, []) else None


def number(result: Result, *path: str, scale: float = 1.0, digits: int = 3, interval: bool = False) -> str:
    """A figure for a table, with its interval where wanted; "-" where there is none."""
    found = look_up(result, *path)
    if found is None:
        return "-"
    if not isinstance(found, dict):
        return f"{found * scale:.{digits}f}"
    text = f"{found['value'] * scale:.{digits}f}"
    if interval and "low" in found:
        text += f" [{found['low'] * scale:.{digits}f}, {found['high'] * scale:.{digits}f}]"
    return text


def table(results: Sequence[Result], columns: Sequence[tuple[str, Cell]]) -> list[str]:
    """A Markdown table, one row per result."""
    lines = ["| " + " | ".join(title for title, _ in columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell(result) for _, cell in columns) + " |" for result in results]
    return [*lines, ""]


def _name(result: Result) -> str:
    return f"{result['split']}, {result['condition']}: {result['predictor']}{'*' if result['told'] else ''}"


def _value(*path: str, scale: float = 1.0, digits: int = 3, interval: bool = False) -> Cell:
    return lambda result: number(result, *path, scale=scale, digits=digits, interval=interval)


def _millimetres(*path: str, interval: bool = False) -> Cell:
    return _value(*path, scale=1e3, digits=1, interval=interval)


def markdown(results: Sequence[Result], settings: Result) -> str:
    """The whole page.

    Args:
        results: one per split, condition and predictor.
        settings: of the command.
    """
    scored = [result for result in results if result["samples"]]
    lines = ["# Evaluation", "", *_settings(settings, results)]
    lines += ["## Errors", "", *_error_table(scored)]
    lines += ["## Ours beside the baselines", "", *classic_table(scored)]
    for role, title in (("all", "all moving points"), ("acted", "acted object"), ("robot", "robot")):
        lines += [f"## The paper's columns: {title}", "", *_paper_tables(scored, role)]
    lines += ["## Visible and occluded", "", *_visibility_table(scored)]
    lines += ["## Draws as a distribution", "", *_distribution_tables(scored)]
    lines += ["## Several futures of one first frame", "", *_coverage_table(results)]
    lines += ["## Skills", "", *_skill_tables(scored)]
    return "\n".join(lines)


def _settings(settings: Result, results: Sequence[Result]) -> list[str]:
    thresholds = Thresholds(**settings["thresholds"])
    told = sorted({(result["predictor"], result["told"]) for result in results if result["told"]})
    draws = settings.get("num_draws", 0)  # reports of before lack it
    grouped = f"; those of ours speak for N groups of {draws} draws" if draws else ""
    return [
        "`" + settings["command"] + "`",
        "",
        f"Best, ADE-selected and mean of N = {settings['num_hypotheses']} draws{grouped}. Brackets are 95 % intervals: "
        f"{settings['resamples']} bootstrap resamples of episodes, percentiles, seed 0. ADE: mean distance over up to "
        f"{settings['points_per_role']} points of the role and all steps. Every column is defined in docs/metrics.md.",
        "",
        "Thresholds: a point moves if it is ever farther than "
        f"{1e3 * thresholds.moving_m:g} mm from its start; directions are told apart beyond "
        f"{1e3 * thresholds.direction_m:g} mm per axis; {thresholds.num_neighbours} neighbours; a true future is "
        f"covered by a draw whose objects all end within {1e3 * thresholds.covered_end_m:g} mm (end) or stay within "
        f"{1e3 * thresholds.covered_path_m:g} mm in the mean (path).",
        "",
        *[f"*{name} is told {what}; it is no competitor that a robot could run." for name, what in told],
        "",
    ]


def _error_table(results: Sequence[Result]) -> list[str]:
    columns: list[tuple[str, Cell]] = [
        ("split, ids, prompt: predictor", _name),
        (
            "n",
            lambda result: (
                f"{result['samples']}" + (f" of {result['asked']}" if result["asked"] > result["samples"] else "")
            ),
        ),
    ]
    for role in ("acted", "robot"):
        columns += [
            (f"{role} static", _millimetres("roles", role, "static_ade_m")),
            (f"{role} best", _millimetres("roles", role, "ade_m", "best", interval=True)),
            (f"{role} mean", _millimetres("roles", role, "ade_m", "mean", interval=True)),
            (f"{role} best/static", _value("roles", role, "ade_share_of_static", "best", interval=True)),
            (f"{role} mean/static", _value("roles", role, "ade_share_of_static", "mean", interval=True)),
        ]
    columns += [
        ("all best", _millimetres("roles", "all", "ade_m", "best")),
        ("all mean", _millimetres("roles", "all", "ade_m", "mean")),
        ("acted end best", _millimetres("roles", "acted", "fde_m", "best")),
        ("acted end mean", _millimetres("roles", "acted", "fde_m", "mean")),
        ("right object", _value("right_object", interval=True)),
        ("chance", _value("chance")),
        ("still scenes left still", _value("still")),
    ]
    return [*table(results, columns), "ADE and end errors in mm.", ""]


def _beside(result: Result, results: Sequence[Result]) -> list[Result]:
    """The results on the same split under the same condition, itself included."""
    return [r for r in results if (r["split"], r["condition"]) == (result["split"], result["condition"])]


def classic_table(results: Sequence[Result]) -> list[str]:
    """One row per model, split and condition, its baselines beside it; models are told nothing."""
    rows = []
    for result in results:
        if result["told"] or result["predictor"] == "static":
            continue
        others = {other["predictor"]: other for other in _beside(result, results)}
        rows.append(result | {"others": others})
    best, mean = ("roles", "acted", "ade_m", "best"), ("roles", "acted", "ade_m", "mean")
    columns: list[tuple[str, Cell]] = [
        ("split, ids, prompt: model", _name),
        ("n", lambda result: str(result["samples"])),
        ("static", _millimetres("roles", "acted", "static_ade_m")),
        ("skill mean*", _millimetres("others", "skill mean", *best)),
        ("retrieval min*", _millimetres("others", "retrieval", *best)),
        ("retrieval mean*", _millimetres("others", "retrieval", *mean)),
        ("**ours min**", _millimetres(*best)),
        ("ours mean", _millimetres(*mean)),
        ("**min/static**", _value("roles", "acted", "ade_share_of_static", "best")),
        ("mean/static", _value("roles", "acted", "ade_share_of_static", "mean")),
        ("robot static", _millimetres("roles", "robot", "static_ade_m")),
        ("robot min", _millimetres("roles", "robot", "ade_m", "best")),
        ("robot mean", _millimetres("roles", "robot", "ade_m", "mean")),
        ("**right object**", _value("right_object")),
        ("chance", _value("chance")),
        ("right, >= 3 objects", _value("binding")),
    ]
    return [*table(rows, columns), "ADE in mm over all steps. *Told the skill and the acted object.", ""]


def _paper_tables(results: Sequence[Result], role: str) -> list[str]:
    lines = []
    for reduction, title in (("best", "Best of N, each column for itself"), ("selected", "The draw with the best ADE")):
        columns: list[tuple[str, Cell]] = [("split, ids, prompt: predictor", _name)]
        for metric, heading, scale in PAPER:
            digits = 1 if scale > 1 else 4 if "depths" in metric else 3
            columns.append((heading, _value("roles", role, metric, reduction, scale=scale, digits=digits)))
        lines += [f"{title}:", "", *table(results, columns)]
    # Of the predictor that has a forecast for most samples.
    of_split = {result["split"]: result for result in sorted(results, key=lambda result: int(result["samples"]))}
    steps = [
        f"{split} {number(of_split[split], 'roles', role, 'step_m', scale=1e3, digits=1)}" for split in sorted(of_split)
    ]
    return [
        *lines,
        f"^ higher is better, v lower. Mean true motion in one step along one axis, mm: {', '.join(steps)}.",
        "",
        *standing_table(results, role),
    ]


def standing_table(results: Sequence[Result], role: str) -> list[str]:
    """In how many of the paper's eight columns, best of N, each learned model is ahead, and behind whom in the others.

    Args:
        results: one per split, condition and predictor. Who is told something is a rival apart.
        role: whose points are scored.
    """
    rows = []
    for result in results:
        if result["told"] or result["predictor"] in UNLEARNED:
            continue
        same = _beside(result, results)
        models = [r for r in same if not r["told"] and r["predictor"] not in (*UNLEARNED, result["predictor"])]
        rivals = {"models": models} | {r["predictor"]: [r] for r in same}
        row = {"name": _name(result)}
        for rival in STANDING:
            row[rival], row[f"behind {rival}"] = _ahead(result, rivals.get(rival, []), role)
        rows.append(row)
    columns: list[tuple[str, Cell]] = [("split, ids, prompt: model", itemgetter("name"))]
    for rival, heading in STANDING.items():
        columns += [(heading, itemgetter(rival)), ("but for", itemgetter(f"behind {rival}"))]
    return ["Ahead in, best of N; lengths count in metres:", "", *table(rows, columns)] if rows else []


def _ahead(result: Result, rivals: Sequence[Result], role: str) -> tuple[str, str]:
    """As "6 of 8": columns in which no rival is better; and the others, with the name of the one that is."""
    ahead, behind = 0, []
    for metric, heading, _ in PAPER:
        if metric.endswith("_depths"):
            continue
        path, sign = ("roles", role, metric, "best", "value"), 1 if "^" in heading else -1
        own = look_up(result, *path)
        others = {rival["predictor"]: value for rival in rivals if (value := look_up(rival, *path)) is not None}
        if own is None or not others:
            continue
        first = max(others, key=lambda name: sign * others[name])
        if sign * others[first] > sign * own:
            behind.append(heading.split()[0] + (f" ({first})" if len(rivals) > 1 else ""))
        else:
            ahead += 1
    count = ahead + len(behind)
    return (f"{ahead} of {count}" if count else "-"), ", ".join(behind) or "-"


def _visibility_table(results: Sequence[Result]) -> list[str]:
    columns: list[tuple[str, Cell]] = [("split, ids, prompt: predictor", _name)]
    for role in ("acted", "robot", "all"):
        for part in ("visible", "occluded"):
            columns += [
                (f"{role} {part} best", _millimetres("roles", role, f"ade_{part}_m", "best")),
                (f"{role} {part} mean", _millimetres("roles", role, f"ade_{part}_m", "mean")),
            ]
    lines = [*table(results, columns), "ADE in mm over the points and steps that the camera sees, or does not see."]
    known = any(look_up(result, "roles", "all", "ade_visible_m", "mean") for result in results)
    return [*lines, "" if known else f"\n{NO_VISIBILITY}\n"]


def _distribution_tables(results: Sequence[Result]) -> list[str]:
    columns: list[tuple[str, Cell]] = [("split, ids, prompt: predictor", _name)]
    for role in ("acted", "robot"):
        for part in ("path", "end"):
            columns += [
                (f"{role} {part} energy", _millimetres("roles", role, f"energy_{part}_m", interval=True)),
                (f"{role} {part} spread", _millimetres("roles", role, f"dispersion_{part}", "spread_m")),
                (f"{role} {part} error", _millimetres("roles", role, f"dispersion_{part}", "error_of_mean_m")),
                (f"{role} {part} ratio", _value("roles", role, f"dispersion_{part}", "ratio", interval=True)),
            ]
    lines = [
        *table(results, columns),
        "Energy score (proper, lower is better), spread of the draws and RMS error of their mean in mm. Ratio: "
        "sqrt((N + 1) / N) spread / error, 1 where draws are like truths, below where they are too alike.",
        "",
    ]
    stated = [result for result in results if result["moving_probability"]]
    columns = [
        ("split, ids, prompt: predictor", _name),
        ("objects", lambda result: str(look_up(result, "moving_probability", "objects", "cases") or "-")),
        ("ECE", _value("moving_probability", "objects", "expected_error")),
        ("Brier", _value("moving_probability", "objects", "brier")),
        ("robots", lambda result: str(look_up(result, "moving_probability", "robot", "cases") or "-")),
        ("robot ECE", _value("moving_probability", "robot", "expected_error")),
        ("robot Brier", _value("moving_probability", "robot", "brier")),
    ]
    return [*lines, "Probability that an instance moves (lower is better):", "", *table(stated, columns)]


def _coverage_table(results: Sequence[Result]) -> list[str]:
    found = [result for result in results if result.get("futures")]
    if not found:
        return ["No sample shares its first frame with another: evaluate the split `futures`.", ""]
    columns: list[tuple[str, Cell]] = [
        ("split, ids: predictor", lambda result: f"{result['split']}, {result['condition']}: {result['predictor']}"),
        ("first frames", lambda result: str(result["futures"]["first_frames"])),
    ]
    for part in ("end", "path"):
        columns += [
            (f"covered ({part}) ^", _value("futures", part, "covered_share", interval=True)),
            (f"distinct futures hit ({part}) ^", _hits(part)),
        ]
    note = "Drawn without sentence and hints, whatever the other tables were given; objects only."
    return [*table(found, columns), note, ""]


def _hits(part: str) -> Cell:
    return lambda result: "{distinct_covered} of {distinct}".format(**result["futures"][part])


def _skill_tables(results: Sequence[Result]) -> list[str]:
    lines = []
    for result in results:
        if result["told"] or result["predictor"] == "static":
            continue
        rows = [figures | {"skill": skill} for skill, figures in result["by_skill"].items()]
        columns: list[tuple[str, Cell]] = [
            ("skill", lambda row: str(row["skill"])),
            ("n", lambda row: str(row["samples"])),
        ]
        for role in ("acted", "robot"):
            columns += [
                (f"{role} static", _millimetres(role, "static")),
                (f"{role} best", _millimetres(role, "best", interval=True)),
                (f"{role} mean", _millimetres(role, "mean", interval=True)),
            ]
        columns.append(("right object", _value("right_object")))
        lines += [f"{_name(result)}", "", *table(rows, columns)]
    return lines
