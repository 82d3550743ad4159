"""Plays a rosbag2 recording on live topics at its recorded rate, with /clock; rosbag2 itself is not needed."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import Connection, QosDurability
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from momap_ros.bag import BagReader
from momap_ros.bag_types import BagError
from momap_ros.ros.conversions import stamp_to_msg
from momap_ros.ros.transport import allow_large_messages

CLOCK_PERIOD_S = 0.01
# After the first subscriber the others get this long to appear.
OTHER_SUBSCRIBERS_S = 2.0
# All topics are heard; a second subscriber of a topic is usually found within this time.
SETTLE_S = 0.5
# Sleeps are cut into pieces so that a shutdown is noticed.
LONGEST_SLEEP_S = 0.1
ACKNOWLEDGE_S = 5.0

DESCRIPTION = """Plays a rosbag2 recording (folder or bare .mcap) on live topics, with /clock.

Messages keep their recorded stamps: set use_sim_time on the nodes that compare them with the time of day. Reliable
publishers reach every subscriber; recorded transient-local topics stay transient local."""

EPILOG = """example:
  bag_player kitchen_bag --rate 0.5 --topics /camera/color/image_raw /camera/depth/image_raw /camera/color/camera_info
  bag_player kitchen_bag --loop --ros-args -r /camera/color/image_raw:=/color/image_raw"""


@dataclass(frozen=True)
class PlayReport:
    """What was played.

    Attributes:
        published: topic -> number of messages.
        late_s: for each message, seconds between when it was due and when it left.
        unheard: topics without a subscriber when playing began.
    """

    published: dict[str, int] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)


class BagPlayer:
    """Publishes the messages of an open bag; a thread of its own publishes /clock."""

    def __init__(self, node: Node, bag: BagReader, topics: Sequence[str], *, rate: float) -> None:
        """Create the publishers.

        Args:
            node: publishes; need not spin.
            bag: open recording.
            topics: to be played; empty = all.
            rate: bag seconds per second.

        Raises:
            BagError: a topic is not in the bag, or no message type is known here.
        """
        self._node, self._bag, self._rate = node, bag, rate
        known = {topic.name for topic in bag.topics}
        missing = sorted(set(topics) - known)
        if missing:
            raise BagError(f"{bag.path}: expected topics {', '.join(missing)}, got {', '.join(sorted(known))}")
        self.publishers: dict[str, Publisher] = {}
        for connection in bag.reader.connections:
            if connection.topic != "/clock" and (not topics or connection.topic in topics):
                self._add_publisher(connection)
        if not self.publishers:
            raise BagError(f"{bag.path}: expected a message type that is installed here, got none")
        self._clock_publisher = node.create_publisher(Clock, "/clock", 10)
        self._start_ns = int(bag.reader.start_time)
        # Bag time: standing at the start until playing begins.
        self._playing_since: float | None = None
        self._stop_clock = threading.Event()
        self._clock_thread = threading.Thread(target=self._publish_clock, name="clock", daemon=True)
        self._clock_thread.start()

    def close(self) -> None:
        """Stop /clock."""
        self._stop_clock.set()
        self._clock_thread.join()

    def wait_for_subscribers(self, timeout_s: float, *, at_least: int = 1) -> list[str]:
        """Wait at most timeout_s until somebody has subscribed, then a little for the others.

        Args:
            timeout_s: seconds.
            at_least: subscribers that every topic must have; where 1, a first one of any topic suffices.

        Returns:
            Topics that nobody has subscribed to.
        """
        deadline = time.monotonic() + timeout_s
        counts: dict[str, int] = {}
        while True:
            before, counts = counts, {name: pub.get_subscription_count() for name, pub in self.publishers.items()}
            unheard = [topic for topic, count in counts.items() if not count]
            counts["/clock"] = self._clock_publisher.get_subscription_count()
            now = time.monotonic()
            enough = at_least == 1 or all(counts[topic] >= at_least for topic in self.publishers)
            if enough and len(unheard) < len(self.publishers) and counts != before:
                # Whoever is still being discovered, a recorder for instance, must not miss the beginning.
                deadline = now + (OTHER_SUBSCRIBERS_S if unheard else SETTLE_S)
            if now >= deadline:
                return unheard
            time.sleep(0.05)
            self._check_running()

    def play(self, report: PlayReport) -> None:
        """Publish every message once, at its time."""
        self._playing_since = time.monotonic()
        messages = self._bag.raw_messages(*self.publishers)
        total = sum(topic.count for topic in self._bag.topics if topic.name in self.publishers)
        for connection, log_ns, data in tqdm(messages, total=total, unit="message", desc=self._bag.path.name):
            due = self._playing_since + (log_ns - self._start_ns) * 1e-9 / self._rate
            self._sleep_until(due)
            self.publishers[connection.topic].publish(bytes(data))
            report.late_s.append(time.monotonic() - due)
            report.published[connection.topic] = report.published.get(connection.topic, 0) + 1
        for publisher in self.publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S))

    def _add_publisher(self, connection: Connection) -> None:
        message_type = message_class(connection.msgtype)
        if message_type is None:
            self._node.get_logger().warning(
                f"{connection.topic} is left out: its type {connection.msgtype} is not installed here"
            )
            return
        recorded = getattr(connection.ext, "offered_qos_profiles", [])
        latched = any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in recorded)
        profile = QoSProfile(
            depth=10,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self.publishers[connection.topic] = self._node.create_publisher(message_type, connection.topic, profile)

    def _publish_clock(self) -> None:
        while not self._stop_clock.wait(CLOCK_PERIOD_S) and self._node.context.ok():
            elapsed_s = 0.0 if self._playing_since is None else time.monotonic() - self._playing_since
            bag_ns = self._start_ns + int(elapsed_s * 1e9 * self._rate)
            try:
                self._clock_publisher.publish(Clock(clock=stamp_to_msg(bag_ns)))
            except RuntimeError:
                # The process was told to end between the question above and here.
                if self._node.context.ok():
                    raise

    def _sleep_until(self, due: float) -> None:
        while (left_s := due - time.monotonic()) > 0:
            time.sleep(min(left_s, LONGEST_SLEEP_S))
            self._check_running()

    def _check_running(self) -> None:
        if not self._node.context.ok():
            raise ExternalShutdownException


def message_class(type_name: str) -> type[Any] | None:
    """The class of a message type such as sensor_msgs/msg/Image; None where it is not installed."""
    package, kind, name = type_name.split("/")
    try:
        module = importlib.import_module(f"{package}.{kind}")
    except ModuleNotFoundError:
        return None
    found: type[Any] | None = getattr(module, name, None)
    return found


def main(args: list[str] | None = None) -> int:
    """Command line; args as in sys.argv. Returns the exit code."""
    arguments = _parser().parse_args(remove_ros_args(sys.argv if args is None else args)[1:])
    allow_large_messages()
    rclpy.init(args=args)
    report = PlayReport()
    try:
        node = Node("bag_player")
        with BagReader(arguments.bag) as bag:
            player = BagPlayer(node, bag, arguments.topics, rate=arguments.rate)
            try:
                report.unheard.extend(player.wait_for_subscribers(arguments.wait, at_least=arguments.subscribers))
                for topic in report.unheard:
                    node.get_logger().warning(f"nobody has subscribed to {topic}; playing all the same")
                player.play(report)
                while arguments.loop:
                    player.play(report)
            finally:
                # Under launch Ctrl-C comes twice: the second must not break the end.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                player.close()
    except BagError as error:
        print(f"bag_player: error: {error}", file=sys.stderr)  # noqa: T201  (the program's own output)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
        print(report_text(report))  # noqa: T201
    return 0


def report_text(report: PlayReport) -> str:
    """One line a topic, and how punctual the messages were."""
    lines = [f"{topic}: {count} messages" for topic, count in sorted(report.published.items())]
    if report.late_s:
        median_ms, worst_ms = np.median(report.late_s) * 1e3, max(report.late_s) * 1e3
        lines.append(f"late by {median_ms:.1f} ms in the median, {worst_ms:.1f} ms at most")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bag_player",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bag", type=Path, help="rosbag2 folder or .mcap file")
    parser.add_argument("--rate", type=_positive, default=1.0, help="bag seconds per second (default: %(default)s)")
    parser.add_argument("--loop", action="store_true", help="start again at the end, until Ctrl-C")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="play these only (default: all)")
    parser.add_argument(
        "--wait",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="wait this long for subscribers, then play all the same (default: %(default)s)",
    )
    parser.add_argument(
        "--subscribers",
        type=int,
        default=1,
        metavar="N",
        help="begin when every topic has this many; 1: when any topic has a first one (default: %(default)s)",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value
