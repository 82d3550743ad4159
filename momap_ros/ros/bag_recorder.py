"""Records live topics into a rosbag2 folder; rosbag2 itself is not needed."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args

from momap_ros.bag_types import BagError
from momap_ros.bag_write import BagWriter
from momap_ros.ros.bag_player import message_class
from momap_ros.ros.transport import allow_large_messages

QUEUE_DEPTH = 100
AWAITED_S = 0.05  # between two looks for publishers that are waited for

DESCRIPTION = """Records topics into a rosbag2 folder (mcap) until Ctrl-C; the folder appears when the recording ends.

Prints "recording" when it listens, "found" when all that it was to wait for is published (--wait-for), and the topic's
name for every message."""

EPILOG = """example:
  python -m momap_ros.ros.bag_recorder out_bag /prompt:std_msgs/msg/String /color/image_raw:sensor_msgs/msg/Image"""


class BagRecorder:
    """Writes what arrives on some topics, as it arrives.

    Attributes:
        counts: topic -> messages written.
    """

    def __init__(self, node: Node, writer: BagWriter, topics: dict[str, str]) -> None:
        """Subscribe, reliably: nothing may be lost on the way.

        Args:
            node: subscribes; must spin.
            writer: open bag.
            topics: name -> type.

        Raises:
            BagError: a type is not installed here.
        """
        self.counts: Counter[str] = Counter()
        self._writer = writer
        profile = QoSProfile(depth=QUEUE_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        for name, type_name in topics.items():
            message_type = message_class(type_name)
            if message_type is None:
                raise BagError(f"{name}: expected a message type that is installed here, got {type_name}")
            callback = partial(self._write, name, type_name)
            node.create_subscription(message_type, name, callback, profile, raw=True)

    def _write(self, name: str, type_name: str, data: bytes) -> None:
        self._writer.write_serialized(name, type_name, data, time.time_ns())
        self.counts[name] += 1
        print(name, flush=True)  # noqa: T201  (the program's own output)


def main(args: list[str] | None = None) -> int:
    """Command line; args as in sys.argv. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="bag_recorder",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bag", type=Path, help="rosbag2 folder to make; one that exists is replaced")
    parser.add_argument("topics", nargs="+", type=_topic, metavar="TOPIC:TYPE", help="what to record")
    parser.add_argument("--wait-for", nargs="*", default=[], metavar="TOPIC", help="say when all these are published")
    arguments = parser.parse_args(remove_ros_args(sys.argv if args is None else args)[1:])
    # Also an orderly end: whoever started this program may not be able to send Ctrl-C.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    allow_large_messages()
    rclpy.init(args=args)
    executor = SingleThreadedExecutor()
    try:
        with BagWriter(arguments.bag, compress=True, overwrite=True) as writer:
            node = Node("bag_recorder")
            BagRecorder(node, writer, dict(arguments.topics))
            executor.add_node(node)
            print("recording", flush=True)  # noqa: T201
            awaited = set(arguments.wait_for)
            # Being told to end is how every recording ends, not an error.
            with suppress(KeyboardInterrupt, ExternalShutdownException):
                while rclpy.ok():
                    if awaited and not (awaited := {name for name in awaited if not node.count_publishers(name)}):
                        print("found", flush=True)  # noqa: T201
                    # A signal that comes just before the wait begins does not wake it: look again every second.
                    executor.spin_once(timeout_sec=AWAITED_S if awaited else 1.0)
    except BagError as error:
        print(f"bag_recorder: error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


def _topic(text: str) -> tuple[str, str]:
    name, separator, type_name = text.partition(":")
    if not separator or not name.startswith("/"):
        raise argparse.ArgumentTypeError(f"expected /topic:package/msg/Type, got {text!r}")
    return name, type_name


if __name__ == "__main__":
    raise SystemExit(main())
