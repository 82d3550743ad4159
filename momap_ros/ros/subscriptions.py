"""A subscription that takes the reliability its publishers offer, and can say why nothing arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from momap_ros.ros import transport

# Two image streams are answered in turn by one thread: a few messages must fit while the other stream has it.
QUEUE_DEPTH = 5


class WatchedSubscription:
    """One input topic of a node.

    Attributes:
        input_name: the topic as the node names it, for remapping.
        topic: the topic after remapping.
    """

    def __init__(
        self,
        node: Node,
        message_type: type[Any],
        input_name: str,
        callback: Callable[[Any], None],
        *,
        reliability: str,
    ) -> None:
        """Subscribe.

        Args:
            node: the owner.
            message_type: of the topic.
            input_name: relative topic name.
            callback: called with every message.
            reliability: reliable, best_effort, or auto: reliable where every publisher offers it, else best effort,
                which connects to any publisher but may lose large messages.
        """
        self.input_name = input_name
        self.topic = node.resolve_topic_name(input_name)
        self._node = node
        self._message_type = message_type
        self._callback = callback
        self._reliability = reliability
        # Best effort connects to any publisher that is not known yet.
        self._requested = self._choose(ReliabilityPolicy.BEST_EFFORT)
        self._subscription = self._subscribe()
        self._opened_at = time.monotonic()
        self._last_arrival: float | None = None

    @property
    def silent_s(self) -> float:
        """Seconds since the last message, or since the subscription where none came."""
        return time.monotonic() - (self._opened_at if self._last_arrival is None else self._last_arrival)

    @property
    def ever_received(self) -> bool:
        """Whether any message came."""
        return self._last_arrival is not None

    @property
    def requested(self) -> ReliabilityPolicy:
        """The reliability that was requested last."""
        return self._requested

    def refresh(self) -> None:
        """Subscribe anew when the publishers that appeared or left call for another reliability."""
        choice = self._choose(self._requested)
        if choice == self._requested:
            return
        self._node.get_logger().info(f"{self.topic}: subscribing {_words(choice)}, as its publishers offer")
        self._requested = choice
        self._node.destroy_subscription(self._subscription)
        self._subscription = self._subscribe()

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def silence_text(self) -> str:
        """Why nothing may arrive: publishers, their types and QoS, and what to do."""
        expected = f"{self._message_type.__module__.split('.')[0]}/msg/{self._message_type.__name__}"
        return silence_text(self, expected, self._publishers())

    def _choose(self, without_publishers: ReliabilityPolicy) -> ReliabilityPolicy:
        if self._reliability != "auto":
            return ReliabilityPolicy[self._reliability.upper()]
        publishers = self._publishers()
        return reliability_on_offer(publishers) if publishers else without_publishers

    def _publishers(self) -> list[TopicEndpointInfo]:
        return list(self._node.get_publishers_info_by_topic(self.topic))

    def _subscribe(self) -> Subscription:
        profile = QoSProfile(depth=QUEUE_DEPTH, reliability=self._requested)
        # An override of reliability would be declared once, with the first choice: `input.reliability` sets it instead.
        overridable = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))
        return self._node.create_subscription(
            self._message_type, self.input_name, self._receive, profile, qos_overriding_options=overridable
        )

    def _receive(self, message: Any) -> None:  # noqa: ANN401  (a message of the type given at construction)
        self._last_arrival = time.monotonic()
        self._callback(message)


def reliability_on_offer(publishers: Sequence[TopicEndpointInfo]) -> ReliabilityPolicy:
    """Reliable where all publishers offer it, else best effort."""
    reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
    return ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT


def silence_text(subscription: WatchedSubscription, expected_type: str, publishers: Sequence[TopicEndpointInfo]) -> str:
    """What a user needs to know about an input from which nothing comes."""
    topic, input_name, requested = subscription.topic, subscription.input_name, subscription.requested
    count = f"{len(publishers)} publisher{'s' * (len(publishers) != 1)}"
    start = f"no message on {topic} for {subscription.silent_s:.0f} s: {count}"
    if not publishers:
        return f"{start}; is the camera running, and is {input_name} remapped to its topic of type {expected_type}?"
    described = ", ".join(
        f"{p.node_namespace.rstrip('/')}/{p.node_name} ({p.topic_type}, {_words(p.qos_profile.reliability)})"
        for p in publishers
    )
    text = f"{start}: {described}; subscribed {_words(requested)}"
    others = sorted({p.topic_type for p in publishers} - {expected_type})
    if others:
        return f"{text}; expected type {expected_type}, got {', '.join(others)}: remap {input_name} to the raw topic"
    if requested == ReliabilityPolicy.RELIABLE and reliability_on_offer(publishers) != requested:
        return f"{text}; reliable never connects to best effort: set the parameter input.reliability to auto"
    if requested == ReliabilityPolicy.BEST_EFFORT:
        return f"{text}; {transport.ADVICE}"
    return f"{text}; the publisher is connected but sends nothing"


def _words(reliability: ReliabilityPolicy) -> str:
    return str(reliability.name).lower().replace("_", " ")
