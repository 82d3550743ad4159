"""`momap bench`: how long every stage takes here."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momap_ros.commands.common import add_command, add_settings, read_settings, say
from momap_ros.config import ForecastConfig

if TYPE_CHECKING:
    from momap_ros.benchmark.report import Report

DESCRIPTION = """
Measure every stage on this machine: decoding, segmentation, the model, object motions, messages, and with ROS the whole
way from published images to received motions between two processes. Takes about two minutes on an idle machine.

example:
  momap bench --out out/bench
  momap bench --out out/bench --network     the network alone: precisions, torch.compile, ONNX Runtime, 1 to 4 steps
  momap bench --out out/bench --network bfloat16 cuda_graphs     two of these ways

what comes out: a table (median, 95th percentile, peak memory, target), printed and as DIR/benchmark.md, and
DIR/benchmark.json with the machine, the versions and the commit. With --network the files are network.md and
network.json, written anew after every way.
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "bench",
        "measure every stage on this machine",
        usage="--out DIR [options]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for both files")
    parser.add_argument("--bag", type=Path, help="recording whose first frame is measured (default: the demo's)")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: everything runs twice, numbers mean nothing"
    )
    parser.add_argument(
        "--network",
        nargs="*",
        metavar="WAY",
        help="measure the network alone instead, in these ways: "
        "float32, bfloat16, compiled, compiled_bfloat16, cuda_graphs, onnxruntime (default: all, about three minutes)",
    )
    add_settings(parser, ForecastConfig, only=("checkpoint", "device", "num_threads"))


def run(arguments: argparse.Namespace) -> int:
    """Measure and write."""
    from momap_ros.benchmark.network import named_variants, network_reports
    from momap_ros.benchmark.report import markdown, write_report
    from momap_ros.benchmark.run import run_benchmark
    from momap_ros.commands.demo import DEMO_BAG
    from momap_ros.files import atomic_path

    config = read_settings(arguments, ForecastConfig)
    bag, quick = arguments.bag or DEMO_BAG, arguments.quick
    name = "benchmark" if arguments.network is None else "network"
    reports: Iterable[Report]
    if arguments.network is None:
        reports = [run_benchmark(bag, config, quick=quick)]
    else:
        reports = network_reports(bag, config, variants=named_variants(arguments.network), quick=quick)
    table = ""
    for report in reports:
        write_report(report, arguments.out / f"{name}.json")
        table = markdown(report)
        with atomic_path(arguments.out / f"{name}.md") as partial:
            partial.write_text(table, encoding="utf-8")
    say(table)
    say(f"written to {arguments.out / f'{name}.json'}")
    return 0
