"""`momap data`: stored samples, looked at, counted, and made of recordings."""

from __future__ import annotations

from typing import Any

from momap_ros.commands import data_import, data_show, data_stats
from momap_ros.commands.common import add_command

DESCRIPTION = """
Work with folders of stored samples, the format that `momap simulate` writes and training reads.

examples:
  momap data show data_cache --out out/samples            pictures of some of them, with what really happens
  momap data stats data_cache --out out/stats             what they consist of, in numbers and plots
  momap data import recordings/ --out data_real --licence "CC BY 4.0"
"""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command and its parts."""
    parser = add_command(
        commands,
        "data",
        "make and look into folders of samples",
        usage="PART ...",
        description=DESCRIPTION,
        run=data_import.run,
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    for module in (data_show, data_stats, data_import):
        module.add_parser(parts)
