"""`momap demo`: the bundled recording through the real nodes, over DDS, and what comes of it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from momap_ros.commands.common import add_command, add_settings, say, warn
from momap_ros.config import ForecastConfig

DEMO_BAG = Path(__file__).resolve().parents[1] / "demo" / "recording"

DESCRIPTION = """
Play the bundled recording (a simulated arm at a table, colour and depth, a sentence) through the real ROS 2 nodes:
player, segmentation and forecast nodes, and a recorder, in separate processes that talk over DDS on this machine alone.
Needs the ROS wheels of `make setup` or a sourced ROS 2 workspace; without ROS the same stages run directly.

example:
  momap demo
  momap demo --out out/mine --rate 1.0
  momap view out/demo

what comes out, in the folder --out:
  objects.csv        one line per object and forecast (SI units)
  forecast_bag/      what was played, and what the nodes published, recorded over DDS (rosbag2, mcap)
  overlay.png        the instances of the first forecast
  trajectories.png   its tracks, coloured by time
  forecast.gif       its pixels carried along, in real time
  log/               output of every process

The printed table says of each object: probability to move, direction as the camera sees it, distance of its centroid in
cm, residual of a rigid motion in mm, and how far apart the futures end in cm.
"""

OBJECTS_TOPIC = "/forecast_node/object_motions"
PROMPT_TOPIC = "/prompt"
RECORDED = {
    PROMPT_TOPIC: "std_msgs/msg/String",
    "/segmentation_node/instances": "sensor_msgs/msg/Image",
    "/forecast_node/trajectories": "momap_ros/msg/PointTrajectories",
    OBJECTS_TOPIC: "momap_ros/msg/ObjectMotionArray",
}
# Two listen to every topic of the recording: both nodes to images, the forecast node and the recorder to the sentence.
LISTENERS = 2
READY = "activate: done"
START_TIMEOUT_S, LISTENERS_TIMEOUT_S, FIRST_RESULT_TIMEOUT_S = 180.0, 30.0, 120.0
QUIET_S, END_TIMEOUT_S = 3.0, 15.0
# Without ROS every frame would be forecast; the nodes take what they have time for.
DIRECT_EVERY = 6


class DemoError(RuntimeError):
    """A process of the demo did not do its part; the message names it and its log."""


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        "the bundled recording through the real ROS nodes",
        usage="[--out DIR] [options]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/demo"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--bag", type=Path, default=DEMO_BAG, help="another recording with the same topics")
    parser.add_argument(
        "--rate", type=float, default=0.5, metavar="X", help="recorded seconds per second (default: %(default)s)"
    )
    add_settings(parser, ForecastConfig, only=("checkpoint", "num_hypotheses", "device"))


def run(arguments: argparse.Namespace) -> int:
    """Record the nodes at work, then show it."""
    missing = [name for name in ("rclpy", "momap_ros.msg") if find_spec(name) is None]
    if missing:
        warn(
            f"the nodes need ROS, and {' and '.join(missing)} cannot be found: run `make setup`, or source a ROS 2 "
            "workspace with this package; now running the same stages directly, without nodes"
        )
        return _run_directly(arguments)
    _run_nodes(arguments)
    _show(arguments.out)
    return 0


def _run_directly(arguments: argparse.Namespace) -> int:
    from momap_ros.commands import forecast

    parser = argparse.ArgumentParser()
    forecast.add_parser(parser.add_subparsers())
    options = ["--every", str(DIRECT_EVERY), "--checkpoint", arguments.checkpoint, "--device", arguments.device]
    options += ["--num-hypotheses", str(arguments.num_hypotheses)]
    direct = parser.parse_args(["forecast", str(arguments.bag), "--out", str(arguments.out), *options])
    return int(direct.run(direct))


def _run_nodes(arguments: argparse.Namespace) -> None:
    """Play and record; every process that is started here is ended here."""
    logs = arguments.out / "log"
    logs.mkdir(parents=True, exist_ok=True)
    nodes_log, recorder_log = logs / "nodes.txt", logs / "recorder.txt"
    # The player is reliable; nodes that know it need not subscribe anew when it appears, which takes seconds to settle.
    settings = {"input.reliability": "reliable"}
    settings |= {f"forecast.{name}": getattr(arguments, name) for name in ("checkpoint", "num_hypotheses", "device")}
    parameters = [part for name, value in settings.items() for part in ("-p", f"{name}:={value}")]
    topics = [f"{name}:{type_name}" for name, type_name in RECORDED.items()]
    results = [name for name in RECORDED if name != PROMPT_TOPIC]  # that one is the player's, which is yet to start
    recorded = logs / "recorded_bag"
    with ExitStack() as stack:
        nodes = stack.enter_context(
            _program("momap_ros.ros.single_process", ["--ros-args", *parameters], log=nodes_log)
        )
        say("loading the model in the forecast node ...")
        _wait_for(nodes, nodes_log, READY, times=2)
        recorder = stack.enter_context(
            _program("momap_ros.ros.bag_recorder", [str(recorded), *topics, "--wait-for", *results], log=recorder_log)
        )
        # A recorder that the nodes have yet to discover misses their first forecast.
        _wait_for(recorder, recorder_log, "found", times=1)
        player = stack.enter_context(_program("momap_ros.ros.bag_player", _player_arguments(arguments), log=None))
        if player.wait() != 0:
            raise DemoError(f"demo: the player ended with exit code {player.returncode}; see above")
        _wait_until_quiet(nodes, nodes_log, recorder_log)
        _end(recorder)
        if recorder.returncode != 0:
            raise DemoError(f"demo: expected a recording, the recorder failed: {_tail(recorder_log)}")
    _merge(arguments.bag, recorded, arguments.out / _bag_name())


def _merge(source: Path, recorded: Path, out: Path) -> None:
    """One recording of what was played and what the nodes made of it, on the time line of the stamps."""
    from momap_ros.bag import BagReader
    from momap_ros.bag_write import BagWriter
    from momap_ros.images import stamp_ns_of

    with (
        BagReader(source) as played,
        BagReader(recorded) as results,
        BagWriter(out, compress=True, overwrite=True) as bag,
    ):
        names = [topic.name for topic in played.topics]
        for connection, log_ns, data in played.raw_messages(*names):
            bag.write_serialized(connection.topic, connection.msgtype, data, log_ns)
        made = [topic.name for topic in results.topics if topic.name not in names]
        for connection, _, data in results.raw_messages(*made):
            stamp_ns = stamp_ns_of(results.decode(connection, data))
            bag.write_serialized(connection.topic, connection.msgtype, data, stamp_ns)


def _player_arguments(arguments: argparse.Namespace) -> list[str]:
    """The first image must find every node listening: its forecast is the one that is shown."""
    options = {"--rate": arguments.rate, "--subscribers": LISTENERS, "--wait": LISTENERS_TIMEOUT_S}
    return [str(arguments.bag), *(str(part) for option in options.items() for part in option)]


@contextmanager
def _program(module: str, arguments: Sequence[str], *, log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this package in a process of its own, ended at the end of the block.

    Its output goes to the log, or to the terminal where None.
    """
    code = f"from {module} import main; raise SystemExit(main())"
    environment = os.environ | {
        # Only this machine, and a domain of this run: nodes of others must not take part.
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 101),
        "PYTHONUNBUFFERED": "1",
    }
    with ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL if log is None else output,
            stderr=None if log is None else subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end as Ctrl-C does, and insist when it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], log: Path, text: str, *, times: int) -> None:
    """Wait until a program has written a text so many times."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while _count(log, text) < times:
        if process.poll() is not None:
            raise DemoError(f"demo: a process ended with exit code {process.returncode}: {_tail(log)}")
        if time.monotonic() > deadline:
            raise DemoError(f"demo: a process was not ready after {START_TIMEOUT_S:.0f} s: {_tail(log)}")
        time.sleep(0.1)


def _wait_until_quiet(nodes: subprocess.Popen[bytes], nodes_log: Path, recorder_log: Path) -> None:
    """Wait until results have come and no more follow; the nodes may still work on the last frames."""
    deadline = time.monotonic() + FIRST_RESULT_TIMEOUT_S
    count, since = 0, time.monotonic()
    while count == 0 or time.monotonic() - since < QUIET_S:
        if _count(recorder_log, OBJECTS_TOPIC) != count:
            count, since = _count(recorder_log, OBJECTS_TOPIC), time.monotonic()
        if nodes.poll() is not None or (count == 0 and time.monotonic() > deadline):
            raise DemoError(f"demo: expected forecasts from the nodes, got {count}: {_tail(nodes_log)}")
        time.sleep(0.1)


def _count(log: Path, text: str) -> int:
    return log.read_text(encoding="utf-8", errors="replace").count(text)


def _tail(log: Path) -> str:
    """The line of a log that says most about what went wrong."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "failed: " in line or "error: " in line] or lines
    return f"{telling[-1] if telling else 'it wrote nothing'} (all of it in {log})"


def _bag_name() -> str:
    from momap_ros.forecast_files import BAG_NAME

    return BAG_NAME


def _show(out: Path) -> None:
    """Table, CSV and pictures of what was recorded."""
    from momap_ros.bag_forecasts import read_forecasts
    from momap_ros.forecast_files import OBJECTS_NAME, PicturedForecast, write_animation, write_stills
    from momap_ros.report import ForecastRecord, object_table, write_objects_csv

    records: list[ForecastRecord] = []
    for stored in read_forecasts(out / _bag_name()):
        if stored.source is None or stored.source.instances is None:
            continue
        prompt = stored.source.prompt
        if not records:
            say(f'\nfirst of the forecasts, "{prompt}"')
            say(object_table(stored.objects))
            pictured = PicturedForecast(
                stored.source.frame, stored.source.instances, stored.trajectories, stored.objects, prompt
            )
            write_stills(out, pictured)
            write_animation(out, pictured)
        records.append(ForecastRecord(stored.trajectories.stamp_ns, prompt, stored.objects))
    if not records:
        raise DemoError(
            f"demo: expected forecasts with their images in {out / _bag_name()}, got none; see {out / 'log'}"
        )
    write_objects_csv(out / OBJECTS_NAME, records)
    say(f"\n{len(records)} forecasts over DDS; table, recording and pictures in {out}; see it in 3D: momap view {out}")
