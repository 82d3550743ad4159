"""`momap simulate`, `train` and `evaluate`: programs with command lines of their own, under one roof."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

TRAIN = """usage: momap train STEP [options]

Train the small model, in three steps that each resume after an interruption:

  momap train prepare --data shards/ --out prepared/          samples to what training reads, vocabulary, codec
  momap train small --data prepared/ --out runs/small --steps 6600 --encoder-steps 3000
  momap train export --run runs/small --data prepared/ --manifest shards/manifest.json --out checkpoint/

and optionally, the mean of the weights of runs that went on from one another:

  momap train average --checkpoints first/checkpoint second/checkpoint --shares 0.4 0.6 --out averaged/

or a student that draws in one or two steps:

  momap train distill --teacher checkpoint/ --data prepared/ --out runs/distilled --steps 2000

or the full-size one, on a GPU, from a Stable Diffusion folder (momap init-full):

  momap train vae --checkpoint full-0 --data shards/ --out runs/vae --steps 20000
  momap train full --checkpoint runs/vae/checkpoint --data shards/ --out runs/full --steps 50000

and what the paper compares with, on the same data: momap-vae, general-flow-original, -rollout, -extend

  momap train baseline --kind momap-vae --data prepared/ --out runs/momap-vae --steps 6500

example of the whole way: docs/data_and_training.md, docs/full_model.md.
`momap train STEP --help` lists the options of a step.

what comes out: a checkpoint folder for `momap forecast --checkpoint checkpoint/ ...` and the node's parameter.
"""


@dataclass(frozen=True)
class Program:
    """A module with a main function that reads sys.argv.

    Attributes:
        module: imported when the command runs.
        summary: a few words for the list of commands.
        needs: the extra of the package that it imports from.
    """

    module: str
    summary: str
    needs: str


COMMANDS: dict[str, str] = {
    "simulate": "generate simulated episodes with exact motion maps",
    "train": "train the models on them",
    "evaluate": "score a checkpoint against baselines",
}
PROGRAMS = {
    "simulate": Program("momap_ros.simulation.generate", COMMANDS["simulate"], "sim"),
    "evaluate": Program("momap_ros.evaluation.evaluate", COMMANDS["evaluate"], "model"),
    "train prepare": Program("momap_ros.training.prepare", "samples to what training reads", "model"),
    "train small": Program("momap_ros.training.small", "the training loop", "model"),
    "train distill": Program("momap_ros.training.distill", "a student of fewer denoising steps", "model"),
    "train vae": Program("momap_ros.training.vae", "the full model's MoMap VAE", "model"),
    "train full": Program("momap_ros.training.full", "the full model's U-Net", "model"),
    "train baseline": Program("momap_ros.baselines.train", "what the paper compares with", "model"),
    "train export": Program("momap_ros.training.export", "a run to a checkpoint folder", "model"),
    "train average": Program("momap_ros.training.average", "the mean of several checkpoints' weights", "model"),
}


def add_parsers(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Name the commands in the list; `run` gets their arguments before argparse sees them."""
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)


def run(given: Sequence[str]) -> int:
    """Run a program with the rest of the command line.

    Args:
        given: the command line, the command's name first.

    Returns:
        The program's exit code.
    """
    words = 2 if given[0] == "train" else 1
    name = " ".join(given[:words])
    if name not in PROGRAMS:
        is_help = len(given) < words or given[1] in ("-h", "--help")
        (sys.stdout if is_help else sys.stderr).write(TRAIN)
        return 0 if is_help else 2
    program = PROGRAMS[name]
    try:
        main = import_module(program.module).main
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"momap: error: {name}: expected the package's extra {program.needs!r}, could not import {error.name}; "
            f"pip install 'momap_ros[{program.needs}]'\n"
        )
        return 1
    sys.argv = [f"momap {name}", *given[words:]]
    return int(main() or 0)
