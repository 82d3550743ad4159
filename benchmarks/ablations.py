#!/usr/bin/env python3
"""What each part of the small model is worth: every arm is trained and scored like the reference but for one thing.

    python benchmarks/ablations.py --data data_cache --out out/ablations --steps 6600 --encoder-steps 3000 --limit 200

The folder --data holds shards of train, val and objects and manifest.json, as `momap simulate` writes them. All arms
see the same samples, in the same order and with the same seed, for as many steps; arms that only differ in how they are
asked share the reference's weights.

What comes out, in --out:
  ablations.md       figures of the reference, and of every arm as a share of them with 95 % intervals: bootstrap
                     resamples of episodes, in which both are scored on the same samples
  ablations.json     the same, and everything that `momap evaluate` says of each arm
  prepared/ runs/ evaluation/

Kill it whenever you like: the same command goes on, and what is done is not done again. Arms can be added later with
--arms. The tables are written anew after every arm. One arm costs a training (about 80 minutes for 6,600 steps on two
cores) and one to two seconds per scored sample; another basis needs the samples prepared once more.

How to read it, and what an arm does not say: docs/data_and_training.md, "Ablations".

arms:
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from momap_ros.data.sample import iterate_samples
from momap_ros.evaluation.predictors import build_entrants
from momap_ros.evaluation.report import PAPER, look_up, number, table
from momap_ros.evaluation.run import Plan, score_split
from momap_ros.evaluation.scoring import Condition, Row
from momap_ros.evaluation.summary import Bootstrap, summarise
from momap_ros.files import atomic_path
from momap_ros.geometry import Float64
from momap_ros.training.export import export
from momap_ros.training.loop import keep_options
from momap_ros.training.prepare import NUM_FUNCTIONS, prepare
from momap_ros.training.small import SmallLaunch, train
from momap_ros.training.steps import SmallTraining

SPLITS = ("val", "objects")
SAVE_EVERY = 250


@dataclass(frozen=True)
class Arm:
    """One way to do it differently; the defaults are the reference.

    Attributes:
        what: for people.
        functions: K of the basis; None = no compression in time.
        training: options of `SmallTraining` that differ.
        predictor: of `momap evaluate`.
        steps: of denoising.
        prompt: whether the sentence is given.
        hints: whether the true directions are given.
    """

    what: str
    functions: int | None = NUM_FUNCTIONS
    training: Mapping[str, Any] = field(default_factory=dict)
    predictor: str = "ours"
    steps: int = 4
    prompt: bool = True
    hints: bool = False

    @property
    def basis(self) -> str:
        """Folder of its prepared samples."""
        return "raw" if self.functions is None else f"{self.functions}-functions"

    @property
    def run(self) -> str:
        """Folder of its training; arms with the same one share weights."""
        values = ["-".join(value) if isinstance(value, tuple) else str(value) for value in self.training.values()]
        return "_".join([self.basis, *values])


ARMS = {
    "reference": Arm("the small model as it is"),
    "no-xyz": Arm("never sees points (paper: no xyz)", training={"blind_to": ("points",)}),
    "no-sem": Arm("never sees instance colours (paper: no sem)", training={"blind_to": ("colors",)}),
    "raw": Arm("no compression in time (paper: no vae)", functions=None),
    "functions-5": Arm("a basis of 5 functions", functions=5),
    "functions-20": Arm("a basis of 20 functions", functions=20),
    "epsilon": Arm("predicts the noise", training={"prediction": "epsilon"}),
    "epsilon-20": Arm("predicts the noise, 20 steps", training={"prediction": "epsilon"}, steps=20),
    "v": Arm("predicts v", training={"prediction": "v"}),
    "flow": Arm("predicts noise minus clean latents", training={"prediction": "flow"}),
    "by-length": Arm("errors count by their length, not its square", training={"by_length": True}),
    "no-text": Arm("is not given the sentence", prompt=False),
    "hints": Arm("is given the true direction of every instance", hints=True),
    "no-projection": Arm("cells are not projected on one motion per instance", predictor="ours+no-projection"),
    **{f"steps-{n}": Arm(f"{n} denoising step{'s' if n > 1 else ''} instead of 4", steps=n) for n in (1, 2, 10, 20)},
}
# Title, where it is in rows and summaries, factor for the table.
_OF_ROLE = (("best ADE", "ade_m", "best"), ("mean ADE", "ade_m", "mean"), ("energy", "energy_path_m"))
COLUMNS = {
    "Errors": (
        *(
            (f"{role} {title} v [mm]", ("roles", role, *path), 1e3)
            for role in ("acted", "robot")
            for title, *path in _OF_ROLE
        ),
        ("right object ^", ("right_object",), 1.0),
    ),
    "The paper's columns: all moving points, best of 10": tuple(
        (title, ("roles", "all", name, "best"), scale) for name, title, scale in PAPER if "depths" not in name
    ),
}


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    arms = "\n".join(f"  {name:<18} {arm.what}" for name, arm in ARMS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}{arms}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="optimizer steps of every training")
    parser.add_argument("--encoder-steps", type=int, default=0, metavar="N", help="of the scene encoder alone, of them")
    parser.add_argument("--batch-size", type=int, default=SmallTraining.batch_size, metavar="N", help="default: 64")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every training (default: 0)")
    parser.add_argument("--limit", type=int, metavar="SAMPLES", help="first samples of each split that are scored")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), metavar="NAME", help="default: val objects")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME", help="default: all; reference always"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the trainings (default: cpu)")
    parser.add_argument("--loaders", type=int, default=0, metavar="N", help="processes that build batches for a GPU")
    return parser


def checkpoint_of(arm: Arm, options: SmallTraining, given: argparse.Namespace) -> Path:
    """Prepare and train what is not yet; the arm's checkpoint folder.

    Raises:
        ValueError: a run of the folder began with other options.
    """
    prepared, run = given.out / "prepared" / arm.basis, given.out / "runs" / arm.run
    checkpoint: Path = run / "checkpoint"
    run.mkdir(parents=True, exist_ok=True)
    keep_options(run, options)
    if not checkpoint.is_dir():
        if not (prepared / "vocabulary.json").is_file():  # the last thing that is written
            prepare(given.data, prepared, workers=given.workers, num_functions=arm.functions)
        # One GPU trains all: processes beside it build batches.
        workers = 1 if given.device == "cuda" else given.workers
        train(SmallLaunch(prepared, run.absolute(), options, workers, SAVE_EVERY, given.device, given.loaders))
        export(run, prepared, given.data / "manifest.json", checkpoint)
    return checkpoint


def rows_of(name: str, checkpoint: Path, given: argparse.Namespace) -> dict[str, list[Row]]:
    """What `momap evaluate` scores of an arm, with the true instance ids; split -> rows."""
    arm, found = ARMS[name], {}
    for split in given.splits:
        num_steps = len(next(iterate_samples(given.data, split)).motion_t_from_0)
        entrants = build_entrants([arm.predictor], str(checkpoint), [arm.steps], data=given.data, num_steps=num_steps)
        plan = Plan(given.data, given.out / "evaluation" / name, entrants, given.limit, given.workers)
        (scored,) = score_split(plan, split, Condition(prompt=arm.prompt, hints=arm.hints)).values()
        found[split] = scored["rows"]
    return found


def relative_to(reference: Sequence[Row], rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Every column as the arm's sum over the reference's, of the samples that both forecast, with its interval."""
    of_reference = {row["key"]: row for row in reference}
    own = [row for row in rows if row["key"] in of_reference]
    other = [of_reference[row["key"]] for row in own]
    bootstrap = Bootstrap([row["episode"] for row in own])

    def column(of: Sequence[Row], path: Sequence[str]) -> Float64:
        return np.array([look_up(row, *path) for row in of], np.float64)  # None becomes NaN

    paths = {title: path for columns in COLUMNS.values() for title, path, _ in columns}
    return {title: bootstrap.ratio(column(own, path), column(other, path)) for title, path in paths.items()}


def markdown(arms: Mapping[str, dict[str, Any]], settings: Mapping[str, Any]) -> str:
    """All tables; arm name -> what, and per split summary and relative."""
    lines = ["# Ablations", "", f"`{json.dumps(settings)}`", ""]
    lines += ["First row: the reference's figures. Other rows: the arm's over the reference's, 1 = no difference, with"]
    lines += ["95 % intervals over episodes; one training per row, so that chance in training is not in them.", ""]
    for split in next(iter(arms.values()))["splits"]:
        for title, columns in COLUMNS.items():
            rows = []
            for name, arm in arms.items():
                summary, relative = arm["splits"][split]["summary"], arm["splits"][split]["relative"]
                row = {"arm": f"{name}: {arm['what']}", "n": str(summary["samples"])}
                for heading, path, scale in columns:
                    own = number(summary, *path, scale=scale, digits=1 if scale > 1 else 3)
                    row[heading] = own if name == "reference" else number(relative, heading, digits=2, interval=True)
                rows.append(row)
            cells = [(heading, itemgetter(heading)) for heading in rows[0]]
            lines += [f"## {split}: {title}", "", *table(rows, cells)]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = build_parser()
    given = parser.parse_args(argv)
    if not (given.data / "manifest.json").is_file():
        parser.error(f"--data: expected a folder with manifest.json, as momap simulate writes it, got {given.data}")
    options = SmallTraining(
        given.steps, encoder_steps=given.encoder_steps, batch_size=given.batch_size, seed=given.seed
    )
    given.out.mkdir(parents=True, exist_ok=True)
    keep_options(given.out, options, data=str(given.data.absolute()))
    chosen = [name for name in ARMS if name in {"reference", *given.arms}]
    settings = {name: str(value) for name, value in vars(given).items() if name not in ("out", "workers", "data")}
    reference: dict[str, list[Row]] = {}
    results: dict[str, dict[str, Any]] = {}
    for position, name in enumerate(chosen, start=1):
        arm = ARMS[name]
        tqdm.write(f"[{position}/{len(chosen)}] {name}: {arm.what}")
        checkpoint = checkpoint_of(arm, replace(options, **arm.training), given)
        rows = rows_of(name, checkpoint, given)
        reference = reference or rows
        splits = {
            split: {"summary": summarise(rows[split]), "relative": relative_to(reference[split], rows[split])}
            for split in given.splits
        }
        results[name] = {"what": arm.what, "splits": splits}
        report = json.dumps({"settings": settings, "arms": results}, indent=1) + "\n"
        for file, text in (("ablations.json", report), ("ablations.md", markdown(results, settings))):
            with atomic_path(given.out / file) as path:
                path.write_text(text, encoding="utf-8")
    tqdm.write(f"{given.out / 'ablations.md'}: {len(results)} arms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
