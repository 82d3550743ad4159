"""`momap init-full`: the full-size model from a Stable Diffusion folder, and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from momap_ros.commands.common import add_command, positive, say

DESCRIPTION = """
Make the full-size model of a local Stable Diffusion 1.5 or 2.1 folder, for training on a GPU.

The image VAE becomes a MoMap VAE (3 T channels in and out, 32 latents), the U-Net gets 44 inputs and 32 outputs; every
new weight is chosen so that the old function is kept exactly. CLIP comes from the same folder. Nothing is downloaded,
pickled weights are refused.

example:
  momap init-full --sd-dir stable-diffusion-v1-5 --out full-0
  momap train vae --checkpoint full-0 --data shards --out runs/vae --steps 20000
  momap train full --checkpoint runs/vae/checkpoint --data shards --out runs/full --steps 50000
  momap forecast kitchen_bag --checkpoint runs/full/checkpoint --out out/full
  momap init-full --describe              parameters, arithmetic and memory at real size; needs no weights

what comes out: a checkpoint folder (diffusers' layout and momap.json) that training takes, and, once trained, the
commands, the node and MoMapPipeline.from_pretrained. Until then its forecasts mean nothing.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "init-full",
        "make the full-size model of a Stable Diffusion folder",
        usage="--sd-dir DIR --out DIR [options] | --describe [--out FILE]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument("--sd-dir", type=Path, metavar="DIR", help="Stable Diffusion 1.5 or 2.1 in diffusers' layout")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="checkpoint folder to make, or with --describe a JSON file"
    )
    parser.add_argument("--num-steps", type=positive, default=50, metavar="T", help="steps (default: %(default)s)")
    parser.add_argument(
        "--latent-channels", type=positive, default=32, metavar="C", help="of the MoMap VAE (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size",
        type=positive,
        default=256,
        metavar="S",
        help="side of the model's square images, a multiple of 64 pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--prediction-type",
        choices=("v_prediction", "epsilon"),
        default="v_prediction",
        help="what the U-Net learns to predict; v_prediction goes with noise levels that end in pure noise, epsilon "
        "keeps the meaning of Stable Diffusion 1.5's outputs and its noise levels (default: %(default)s)",
    )
    parser.add_argument("--hints", action="store_true", help="give the U-Net inputs for direction hints")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the few random new weights (default: 0)")
    parser.add_argument(
        "--describe", action="store_true", help="print parameters, arithmetic and memory at real size instead"
    )


def run(arguments: argparse.Namespace) -> int:
    """Inflate, or describe."""
    if arguments.describe:
        return describe(arguments.out)
    if arguments.sd_dir is None or arguments.out is None:
        raise ValueError("expected --sd-dir and --out, or --describe; see momap init-full --help")
    from momap_ros.model.full_checkpoint import make_full_checkpoint

    size = make_full_checkpoint(
        arguments.sd_dir,
        arguments.out,
        num_steps=arguments.num_steps,
        latent_channels=arguments.latent_channels,
        image_size=arguments.image_size,
        prediction_type=arguments.prediction_type,
        with_hints=arguments.hints,
        seed=arguments.seed,
    )
    say(f"{arguments.out}: {size / 1e6:.1f} MB. It has to be trained: momap train vae, then momap train full")
    return 0


def describe(out: Path | None) -> int:
    """Print what the full-size model costs; as JSON too where a file is given."""
    from momap_ros.files import write_json
    from momap_ros.model.size import describe_full_models, size_table

    report = describe_full_models()
    say(size_table(report))
    if out is not None:
        write_json(out, report)
    return 0
