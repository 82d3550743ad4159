"""Score a checkpoint on stored samples: `momap evaluate --help`."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from momap_ros.evaluation.run import Plan
    from momap_ros.evaluation.scoring import Condition

DESCRIPTION = """Score forecasts of a checkpoint and of baselines against the exact futures of simulated samples.

example:
  momap simulate --split val --episodes 160 --views 2 --size 256 --out data_cache
  momap evaluate --checkpoint small --data data_cache --out out/evaluation --splits val --predictors ours static
  momap evaluate --checkpoint small --data data_cache --out out/evaluation          all baselines, val and objects

Every predictor forecasts the same samples and is scored on the same pixels. Those with * in the tables are told
something that a robot does not know, named below each table; they show what is hard, not what to beat.

  ours               the checkpoint, once per number of --steps
  ours+no-projection the same without its projection on one motion per instance
  static             nothing moves: who is worse should have said nothing
  skill_mean*        mean training motion of the skill, applied to the acted object; needs train shards
  retrieval*         random training motions of the skill, applied to the acted object; needs train shards
  constant_velocity* every point goes on as in its true first step
  rigid_oracle*      the best rigid motion of every instance: the floor of forecasts that move instances rigidly
  MODULE:NAME[=TEXT] your own: NAME, called with TEXT if given, returns a momap_ros.evaluation.predictor.Predictor

what comes out, in the folder --out:
  report.md          tables: errors with 95 % intervals, the paper's columns, calibration, coverage, skills
  report.json        the same and more, as numbers
  spread_*.png reliability_*.png skills_*.png
  rows/              figures of every sample. Kill it whenever you like: the same command goes on from there

What every column means, its formula and thresholds: docs/metrics.md. On one core a sample takes about a second per
predictor that draws ten futures."""

DEFAULT_PREDICTORS = ("ours", "static", "skill_mean", "retrieval", "constant_velocity", "rigid_oracle")


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="momap evaluate",
        usage="%(prog)s --data DIR --out DIR [options]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", default="small", help="bundled name or folder (default: small)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report, plots and rows")
    parser.add_argument("--splits", nargs="+", default=["val", "objects"], metavar="NAME", help="default: val objects")
    parser.add_argument(
        "--predictors", nargs="+", default=list(DEFAULT_PREDICTORS), metavar="NAME", help="default: all listed above"
    )
    parser.add_argument(
        "--steps", nargs="+", type=int, default=[4], metavar="N", help="denoising steps of ours (default: 4)"
    )
    parser.add_argument(
        "--instances",
        nargs="+",
        default=["true", "tabletop"],
        choices=["true", "tabletop"],
        help="the simulator's instance ids, or those of the segmenter a robot would use (default: both)",
    )
    parser.add_argument("--no-prompt", action="store_true", help="leave the sentence out")
    parser.add_argument("--hints", action="store_true", help="give the true direction of every instance")
    parser.add_argument("--num-hypotheses", type=int, default=10, metavar="N", help="draws (default: 10)")
    parser.add_argument(
        "--draws",
        type=int,
        metavar="M",
        help="ours draws so many futures and gives N that speak for them (default: it draws N)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="first samples of each split, to whole episodes")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    limits = parser.add_argument_group("thresholds of the metrics")
    limits.add_argument("--moving-mm", type=float, default=20.0, metavar="X", help="a point moves (default: 20)")
    limits.add_argument("--direction-mm", type=float, default=3.0, metavar="X", help="it is no stay (default: 3)")
    limits.add_argument("--neighbours", type=int, default=8, metavar="K", help="of local_dist_diff (default: 8)")
    limits.add_argument("--covered-end-mm", type=float, default=30.0, metavar="X", help="coverage (default: 30)")
    limits.add_argument("--covered-path-mm", type=float, default=20.0, metavar="X", help="coverage (default: 20)")
    return parser


def main() -> int:
    """Command line."""
    from tqdm import tqdm

    from momap_ros.data.sample import iterate_samples
    from momap_ros.evaluation.points import POINTS_PER_ROLE
    from momap_ros.evaluation.predictors import build_entrants
    from momap_ros.evaluation.report import classic_table, markdown
    from momap_ros.evaluation.run import Plan
    from momap_ros.evaluation.scoring import Condition, Thresholds
    from momap_ros.evaluation.summary import RESAMPLES

    parser = build_parser()
    given = parser.parse_args()
    _check(parser, given)
    thresholds = Thresholds(
        moving_m=given.moving_mm / 1e3,
        direction_m=given.direction_mm / 1e3,
        num_neighbours=given.neighbours,
        covered_end_m=given.covered_end_mm / 1e3,
        covered_path_m=given.covered_path_mm / 1e3,
    )
    num_steps = len(next(iterate_samples(given.data, given.splits[0])).motion_t_from_0)
    num_draws = given.draws or 0
    entrants = build_entrants(
        given.predictors, given.checkpoint, given.steps, data=given.data, num_steps=num_steps, num_draws=num_draws
    )
    plan = Plan(given.data, given.out, entrants, given.limit, given.workers)
    settings = {
        "command": _command(given),
        "num_hypotheses": given.num_hypotheses,
        "num_draws": num_draws,
        "points_per_role": POINTS_PER_ROLE,
        "resamples": RESAMPLES,
        "thresholds": asdict(thresholds),
        "predictors": {each.predictor.name: {"told": each.predictor.told, "is": each.identity} for each in entrants},
    }
    results: list[dict[str, Any]] = []
    for split in given.splits:
        for instances in given.instances:
            condition = Condition(instances, not given.no_prompt, given.hints, given.num_hypotheses, thresholds)
            results += _evaluate(plan, split, condition)
    page = markdown(results, settings)
    _write(given.out / "report.json", json.dumps({"settings": settings, "results": results}, indent=1) + "\n")
    _write(given.out / "report.md", page)
    tqdm.write("\n".join(classic_table(results)))
    tqdm.write(f"all tables: {given.out / 'report.md'}")
    return 0


def _check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is loaded."""
    if given.out.suffix == ".json" or given.out.is_file():
        parser.error(f"--out: expected a folder, got {given.out}; the report is written into it")
    for name in ("limit", "workers", "num_hypotheses", "draws", "neighbours"):
        value = getattr(given, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}: expected a whole number from 1 on, got {value}")
    if min(given.steps) < 1:
        parser.error(f"--steps: expected whole numbers from 1 on, got {given.steps}")


def _command(given: argparse.Namespace) -> str:
    """The command that makes this report again; where it is written and by how many processes does not matter."""
    words = ["momap", "evaluate"]
    for name, value in vars(given).items():
        if name in ("out", "workers") or value is None or value is False:
            continue
        values: Sequence[object] = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def _evaluate(plan: Plan, split: str, condition: Condition) -> list[dict[str, Any]]:
    """Results of all predictors on one split under one condition, and their plots."""
    from momap_ros.evaluation.plots import plot_reliability, plot_skills, plot_spread
    from momap_ros.evaluation.run import score_split
    from momap_ros.evaluation.summary import summarise, summarise_futures, summarise_skill

    results = []
    for entrant, found in zip(plan.entrants, score_split(plan, split, condition).values(), strict=True):
        rows, predictor = found["rows"], entrant.predictor
        result: dict[str, Any] = {"split": split, "condition": condition.title, "predictor": predictor.name}
        result |= {"told": predictor.told, "samples": 0, "asked": len(rows) + len(found["no_forecast"])}
        if rows:
            skills = sorted({row["skill"] for row in rows})
            by_skill = {skill: summarise_skill([row for row in rows if row["skill"] == skill]) for skill in skills}
            result |= summarise(rows) | {"by_skill": by_skill}
        if found["groups"]:
            result["futures"] = summarise_futures(found["groups"])
        results.append(result)
        if rows and not predictor.told and predictor.name != "static":
            title = f"{split}, {condition.title}, {predictor.name}"
            stem = title.replace(", ", "_").replace(" ", "-")
            plot_spread(plan.out / f"spread_{stem}.png", rows, title)
            plot_reliability(plan.out / f"reliability_{stem}.png", result, title)
            plot_skills(plan.out / f"skills_{stem}.png", result["by_skill"], title)
    return results


def _write(path: Path, text: str) -> None:
    from momap_ros.files import atomic_path

    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
