"""Direction hints of a running node: where they come from, how long they hold, and what was made of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.subscription import Subscription
from std_msgs.msg import String

from momap_ros.config import HintsConfig, VlmConfig
from momap_ros.hints import HintError, Hints, describe_hints, in_view, parse_hints
from momap_ros.instances import InstanceMap
from momap_ros.msg import MotionHints
from momap_ros.rgbd import RGBDFrame
from momap_ros.ros.conversions import header_to_msg, hints_from_msg, hints_to_msg
from momap_ros.ros.managed_node import ManagedNode
from momap_ros.vlm_hints import VlmError, annotated_picture, ask_for_hints

NOTE = "motion hints"
_TOPIC, _MODEL = "topic", "model"


@dataclass(frozen=True)
class _Given:
    """Hints of one source; their age counts from the image that they speak of, or else from when they arrived."""

    hints: Hints
    since_ns: int
    of_image: bool


class MotionHintBoard:
    """The hints that hold now, by source; every method may be called from any thread. What a topic says goes first."""

    def __init__(self) -> None:
        """Start without hints."""
        self._lock = threading.Lock()
        self._given: dict[str, _Given] = {}

    def put(self, source: str, hints: Hints, since_ns: int, *, of_image: bool) -> None:
        """Replace all hints of a source; none takes them back."""
        with self._lock:
            self._given[source] = _Given(hints, since_ns, of_image)

    def clear(self, *sources: str) -> None:
        """Forget the hints of some sources, or of all where none is named."""
        with self._lock:
            for source in sources or tuple(self._given):
                self._given.pop(source, None)

    def holding(self, *, frame_ns: int, now_ns: int, max_age_s: float) -> Hints:
        """The hints that are not too old for an image; ages are in nanoseconds of the image's or the node's clock."""
        hints: Hints = {}
        with self._lock:
            for source in (_MODEL, _TOPIC):
                given = self._given.get(source)
                if given is None:
                    continue
                age_ns = (frame_ns if given.of_image else now_ns) - given.since_ns
                if not max_age_s or age_ns <= max_age_s * 1e9:
                    hints |= given.hints
        return hints


class MotionHintInputs:
    """Subscribes to ~/motion_hints and ~/motion_hints/typed, and publishes ~/applied_hints."""

    def __init__(self, node: ManagedNode) -> None:
        """Advertise.

        Args:
            node: the owner, being configured; it has the parameters of HintsConfig.
        """
        self.board = MotionHintBoard()
        self._node = node
        self._applied: LifecyclePublisher = node.create_output(MotionHints, "~/applied_hints")
        self._subscriptions: list[Subscription] = []
        self._absent: tuple[int, ...] = ()

    def open(self) -> None:
        """Take hints."""
        self._subscriptions = [
            self._node.create_subscription(String, "~/motion_hints", self._receive_json, 1),
            self._node.create_subscription(MotionHints, "~/motion_hints/typed", self._receive_typed, 1),
        ]

    def close(self) -> None:
        """Take none any more, and forget those that were given: ids may mean something else later."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.board.clear()

    def destroy(self) -> None:
        """Take the advertisement back."""
        self._node.destroy_lifecycle_publisher(self._applied)

    def for_frame(self, stamp_ns: int, present_ids: Collection[int]) -> Hints:
        """The hints to use for an image with these instances; those for other instances are reported, once."""
        max_age_s = self._node.parameters.read(HintsConfig).max_age_s
        now_ns = self._node.get_clock().now().nanoseconds
        holding = self.board.holding(frame_ns=stamp_ns, now_ns=now_ns, max_age_s=max_age_s)
        hints, absent = in_view(holding, present_ids)
        if absent and absent != self._absent:
            self._node.get_logger().warning(
                f"hints for instances that are not in view are not used: {_listed(absent)}; in view are "
                f"{_listed(sorted(present_ids)) or 'none'}"
            )
        self._absent = absent
        return hints

    def echo(self, given: Hints, applied: Mapping[int, Sequence[int]], *, stamp_ns: int, frame_id: str) -> None:
        """Say with which hints an image was forecast: as a message, and on /diagnostics with those that were not used.

        Args:
            given: what `for_frame` returned.
            applied: what the forecaster used of it.
            stamp_ns: of the image.
            frame_id: the camera's optical frame.
        """
        too_small = [instance_id for instance_id in given if instance_id not in applied]
        note = describe_hints(applied)
        for reason, ids in (("not in view", self._absent), ("too small for the model", too_small)):
            note += f"; {reason}: {_listed(ids)}" if ids else ""
        self._node.statistics.set_note(NOTE, note)
        self._applied.publish(hints_to_msg(applied, header_to_msg(stamp_ns, frame_id)))

    def _receive_json(self, message: String) -> None:
        self._receive(lambda: parse_hints(message.data), 0)

    def _receive_typed(self, message: MotionHints) -> None:
        stamp = message.header.stamp
        self._receive(lambda: hints_from_msg(message), stamp.sec * 1_000_000_000 + stamp.nanosec)

    def _receive(self, read: Callable[[], Hints], stamp_ns: int) -> None:
        try:
            hints = read()
        except HintError as error:
            # Those that were given before still hold.
            self._node.statistics.count_skipped("motion hints that cannot be understood")
            self._node.statistics.set_error(str(error))
            self._node.get_logger().warning(f"motion hints refused: {error}")
            return
        since_ns = stamp_ns or self._node.get_clock().now().nanoseconds
        self.board.put(_TOPIC, hints, since_ns, of_image=stamp_ns != 0)
        self._node.get_logger().info(f"motion hints: {describe_hints(hints)}")


class HintRequests:
    """Asks a vision-language model for hints: in a thread of its own, one question at a time, none while it is off."""

    def __init__(self, node: ManagedNode, board: MotionHintBoard) -> None:
        """Ask nothing yet.

        Args:
            node: the owner; it has the parameters of VlmConfig.
            board: gets the answers.
        """
        self._node = node
        self._board = board
        self._thread: threading.Thread | None = None
        self._asked: str | None = None
        self._asked_at = float("-inf")
        # Counts up with every stop: an answer to a question from before is not used.
        self._round = 0

    def consider(self, frame: RGBDFrame, instances: InstanceMap, prompt: str) -> None:
        """Ask about an image, unless an answer is awaited or the last question was a short time ago; never waits."""
        config = self._node.parameters.read(VlmConfig)
        if not config.base_url:
            return
        if prompt != self._asked:
            self._board.clear(_MODEL)  # they were about another sentence
        if not prompt or not instances.areas_px or (self._thread is not None and self._thread.is_alive()):
            return
        now = time.monotonic()
        if prompt == self._asked and now - self._asked_at < config.period_s:
            return
        self._asked, self._asked_at = prompt, now
        ask = partial(self._ask, frame, instances, prompt, config=config, asked_in_round=self._round)
        self._thread = threading.Thread(target=ask, name="vlm hints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give up an answer that is awaited; the thread ends by itself, at the latest when its time is over."""
        self._round += 1
        self._asked = None

    def _ask(
        self, frame: RGBDFrame, instances: InstanceMap, prompt: str, *, config: VlmConfig, asked_in_round: int
    ) -> None:
        started = time.monotonic()
        try:
            hints = ask_for_hints(annotated_picture(frame, instances), prompt, list(instances.areas_px), config)
        except (VlmError, ValueError) as error:
            if asked_in_round == self._round:
                self._node.statistics.count_skipped("questions to the vision-language model without an answer")
                self._node.statistics.set_error(str(error))
                self._node.get_logger().warning(str(error))
            return
        self._node.statistics.set_stages({"vlm": time.monotonic() - started})
        if asked_in_round == self._round and prompt == self._asked:
            self._board.put(_MODEL, hints, frame.stamp_ns, of_image=True)
            self._node.get_logger().info(f"{config.model} hints: {describe_hints(hints)}")


def _listed(ids: Collection[int]) -> str:
    return ", ".join(str(instance_id) for instance_id in ids)
