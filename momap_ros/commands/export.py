"""`momap export`: a checkpoint in the formats of other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from momap_ros.commands.common import add_command, say

DESCRIPTION = """
Write a checkpoint in the format of another runtime.

example:
  momap export onnx --checkpoint small --out out/onnx
"""
ONNX_DESCRIPTION = """
Write the small model as two ONNX graphs in single precision: the scene encoder, run once per frame, and one denoising
step of any number of futures. Needs the extra: pip install 'momap_ros[onnx]'.

example:
  momap export onnx --checkpoint small --out out/onnx

what comes out: scene_encoder.onnx, denoiser.onnx, and onnx.json with the opset, names and shapes of all inputs and
outputs, the noise levels of the sampler, and the largest difference from torch of every output, measured with ONNX
Runtime. Graphs that differ by more than rounding are not kept.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command and its parts."""
    parser = add_command(
        commands,
        "export",
        "write a checkpoint for other runtimes",
        usage="FORMAT ...",
        description=DESCRIPTION,
        run=run,
    )
    formats = parser.add_subparsers(title="formats", metavar="FORMAT", required=True)
    onnx = add_command(
        formats,
        "onnx",
        "two ONNX graphs, compared with torch",
        usage="--out DIR [--checkpoint NAME]",
        description=ONNX_DESCRIPTION,
        run=run,
    )
    onnx.add_argument(
        "--checkpoint", default="small", help="bundled small checkpoint or its folder (default: %(default)s)"
    )
    onnx.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the files; replaced as a whole"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and print how far the graphs are from torch."""
    from momap_ros.model.onnx_export import export_onnx

    info = export_onnx(arguments.checkpoint, arguments.out)
    for name, difference in info["max_difference"].items():
        say(f"{name:32} largest difference from torch {difference:.1e}")
    say(f"opset {info['opset']}; written to {arguments.out}")
    return 0
