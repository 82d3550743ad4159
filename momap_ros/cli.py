"""The command line: `momap --help`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from momap_ros.commands import (
    bag,
    bench,
    data,
    delegated,
    demo,
    export,
    forecast,
    info,
    init_full,
    rollout,
    segment,
    view,
)

DESCRIPTION = """Forecast how every point and every object of an RGB-D scene will move.

Start here:
  momap demo                     the bundled recording through the real ROS nodes; table, and pictures in out/demo
  momap bag check BAG            can this recording be used, and if not, why
  momap forecast BAG --prompt "put the cup on the plate" --out out/cup
  momap COMMAND --help           what a command does, an example, what comes out

Lengths are metres, times seconds, positions in the camera's optical frame (x right, y down, z forward)."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="momap", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (demo, forecast, segment, bag, data, view, rollout, export, init_full, info, bench):
        module.add_parser(commands)
    delegated.add_parsers(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the command line without the program's name; that of the process where None.

    Returns:
        0, or 1 after an error, which is one line on standard error.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in delegated.COMMANDS:
        return guarded(lambda: delegated.run(given), debug=False)
    arguments = build_parser().parse_args(given)
    return guarded(lambda: int(arguments.run(arguments)), debug=arguments.debug)


def guarded(command: Callable[[], int], *, debug: bool) -> int:
    """Run a command; an exception becomes one line on standard error, after its traceback where debug is set."""
    try:
        return command()
    except KeyboardInterrupt:
        sys.stderr.write("momap: stopped\n")
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough (`momap info | head`).
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001  (the user gets one line for every error)
        if debug:
            traceback.print_exc()
        # Errors of this package explain themselves; others are bugs and are called what they are.
        known = isinstance(error, ValueError | OSError | ImportError) or type(error).__module__.startswith("momap_ros")
        text = str(error) if known else f"{type(error).__name__}: {error}; a bug: please report it with `momap --debug`"
        sys.stderr.write(f"momap: error: {text}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
