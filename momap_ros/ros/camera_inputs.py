"""The camera topics of a node: subscribed, paired, watched; complete frames are handed on as messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from sensor_msgs.msg import CameraInfo, Image

from momap_ros.config import InputConfig
from momap_ros.images import distortion_note, stamp_ns_of
from momap_ros.ros.pairing import Pair, StampPairer
from momap_ros.ros.subscriptions import WatchedSubscription

if TYPE_CHECKING:
    from momap_ros.ros.managed_node import ManagedNode

# How often publishers are looked at and silence is noticed.
HOUSEKEEPING_S = 0.25
# How long a nearest partner waits for a nearer one when nothing else arrives: a few frames of a slow camera.
SETTLE_S = 0.1
# A warning that still holds is said again this often.
REPEAT_S = 30.0
# Frames that wait for their label image: two seconds of a 30 Hz camera.
FRAMES_WAITING = 60


@dataclass(frozen=True)
class CameraMessages:
    """The messages of one RGB-D frame.

    Attributes:
        color: colour image; its stamp and frame are the frame's.
        depth: depth image.
        info: newest camera_info.
        instances: label image of this very colour image, where the node asked for one.
    """

    color: Image
    depth: Image
    info: CameraInfo
    instances: Image | None = None


class CameraInputs:
    """Subscriptions to color/image_raw, depth/image_raw, color/camera_info and, where wanted, instances.

    Everything runs in the executor's thread. Messages with stamp zero are refused, and when time goes back (a bag that
    starts again) all that waits is forgotten.
    """

    def __init__(
        self,
        node: ManagedNode,
        *,
        with_instances: bool,
        on_frame: Callable[[CameraMessages], None],
        on_rewind: Callable[[], None],
    ) -> None:
        """Subscribe.

        Args:
            node: the owner; its parameters have the group InputConfig.
            with_instances: whether a frame is complete only with its label image.
            on_frame: called with every complete frame.
            on_rewind: called when time went back.
        """
        settings = node.parameters.read(InputConfig)
        self._node = node
        self._on_frame = on_frame
        self._on_rewind = on_rewind
        self._info: CameraInfo | None = None
        self._pair_without_info: Pair[Image, Image] | None = None
        self._warned_at: dict[str, float] = {}
        self._last_pair_at = time.monotonic()
        self._last_frame_at = time.monotonic()
        tolerance_ns = int(settings.sync_tolerance_s * 1e9)
        self._pairer = StampPairer[Image, Image](tolerance_ns=tolerance_ns, on_rewind=self._rewound)
        # Label images carry the colour image's stamp, so they match exactly or not at all.
        self._labeller = StampPairer[CameraMessages, Image](
            tolerance_ns=0, queue_length=FRAMES_WAITING, on_rewind=self._rewound
        )
        self._subscriptions = self._subscribe(settings.reliability, with_instances=with_instances)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._housekeeping = node.create_timer(HOUSEKEEPING_S, self._keep_house, clock=steady)
        self._settle_timer = node.create_timer(SETTLE_S, self._settle, clock=steady)
        self._settle_timer.cancel()
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump = node.get_clock().create_jump_callback(back, post_callback=lambda _: self._rewound())

    def close(self) -> None:
        """Unsubscribe."""
        self._jump.unregister()
        self._node.destroy_timer(self._housekeeping)
        self._node.destroy_timer(self._settle_timer)
        for subscription in self._subscriptions.values():
            subscription.close()

    def silent(self) -> list[str]:
        """Topics from which nothing came for as long as the watchdog allows."""
        return [subscription.topic for subscription in self._silent_subscriptions()]

    def _subscribe(self, reliability: str, *, with_instances: bool) -> dict[str, WatchedSubscription]:
        callbacks = {
            "color/image_raw": (Image, self._receive_color),
            "depth/image_raw": (Image, self._receive_depth),
            "color/camera_info": (CameraInfo, self._receive_info),
        }
        if with_instances:
            callbacks["instances"] = (Image, self._receive_instances)
        subscriptions = {}
        with ExitStack() as undo:  # a QoS override may be refused
            for name, (kind, callback) in callbacks.items():
                subscription = WatchedSubscription(self._node, kind, name, callback, reliability=reliability)
                undo.callback(subscription.close)
                subscriptions[name] = subscription
                self._node.get_logger().info(f"input {name} is {subscription.topic}")
            undo.pop_all()
        return subscriptions

    def _receive_color(self, message: Image) -> None:
        stamp_ns = self._accepted("color/image_raw", message)
        if stamp_ns:
            self._handle_pair(self._pairer.add_first(stamp_ns, message))

    def _receive_depth(self, message: Image) -> None:
        stamp_ns = self._accepted("depth/image_raw", message)
        if stamp_ns:
            self._handle_pair(self._pairer.add_second(stamp_ns, message))

    def _receive_info(self, message: CameraInfo) -> None:
        self._node.statistics.count_arrival("color/camera_info")
        if self._info is None and not self._node.parameters.read(InputConfig).rectified:
            note = distortion_note(message)
            if note:
                self._node.get_logger().warning(note)
        self._info = message
        pair, self._pair_without_info = self._pair_without_info, None
        if pair is not None:
            self._handle_complete_pair(pair, message)

    def _receive_instances(self, message: Image) -> None:
        stamp_ns = self._accepted("instances", message)
        if stamp_ns:
            self._handle_labelled(self._labeller.add_second(stamp_ns, message))

    def _accepted(self, name: str, message: Image) -> int:
        """The stamp of an image, 0 where it cannot be used."""
        self._node.statistics.count_arrival(name)
        stamp_ns = stamp_ns_of(message)
        if stamp_ns == 0:
            self._node.statistics.count_skipped(f"{name} without a stamp")
            self._warn(
                f"{name} stamp",
                f"image on {self._subscriptions[name].topic}: expected a time in header.stamp, got 0; a frame without "
                "a stamp cannot be paired: let the driver fill it",
            )
        return stamp_ns

    def _handle_pair(self, pair: Pair[Image, Image] | None) -> None:
        self._count_unpaired()
        if pair is None:
            if self._pairer.waits:
                self._settle_timer.reset()
            return
        self._settle_timer.cancel()
        self._last_pair_at = time.monotonic()
        self._node.statistics.count_arrival("colour and depth pairs")
        if self._info is None:
            self._pair_without_info = pair
        else:
            self._handle_complete_pair(pair, self._info)

    def _handle_complete_pair(self, pair: Pair[Image, Image], info: CameraInfo) -> None:
        messages = CameraMessages(pair.first, pair.second, info)
        if "instances" in self._subscriptions:
            self._handle_labelled(self._labeller.add_first(pair.first_stamp_ns, messages))
        else:
            self._on_frame(messages)

    def _handle_labelled(self, pair: Pair[CameraMessages, Image] | None) -> None:
        if pair is not None:
            self._last_frame_at = time.monotonic()
            self._on_frame(replace(pair.first, instances=pair.second))

    def _settle(self) -> None:
        self._settle_timer.cancel()
        self._handle_pair(self._pairer.settle())

    def _rewound(self) -> None:
        self._node.get_logger().info("time went back: starting afresh")
        self._node.statistics.count_skipped("time went back")
        self._pair_without_info = None
        self._pairer.reset()
        self._labeller.reset()
        self._on_rewind()

    def _count_unpaired(self) -> None:
        self._node.statistics.set_skipped("colour without depth", self._pairer.dropped_first)
        self._node.statistics.set_skipped("depth without colour", self._pairer.dropped_second)

    def _keep_house(self) -> None:
        settings = self._node.parameters.read(InputConfig)
        self._pairer.tolerance_ns = int(settings.sync_tolerance_s * 1e9)
        for subscription in self._subscriptions.values():
            subscription.refresh()
        silent = self._silent_subscriptions()
        for subscription in silent:
            self._warn(subscription.input_name, subscription.silence_text())
        if not silent:
            self._watch_pairs(settings)

    def _silent_subscriptions(self) -> list[WatchedSubscription]:
        limit_s = self._node.parameters.read(InputConfig).watchdog_s
        return [
            subscription
            for name, subscription in self._subscriptions.items()
            # One camera_info is enough: it is kept.
            if subscription.silent_s > limit_s and not (name == "color/camera_info" and subscription.ever_received)
        ]

    def _watch_pairs(self, settings: InputConfig) -> None:
        """All inputs arrive: say so when they do not belong together."""
        now = time.monotonic()
        if now - self._last_pair_at > settings.watchdog_s:
            offset_ns = self._pairer.offset_ns
            offset = "unknown" if offset_ns is None else f"{abs(offset_ns) * 1e-6:.0f} ms"
            self._warn(
                "pairs",
                f"no colour and depth pair for {now - self._last_pair_at:.0f} s: the nearest stamps are {offset} "
                f"apart, the tolerance is {settings.sync_tolerance_s * 1e3:.0f} ms; synchronise them in the driver "
                "(RealSense enable_sync:=true) or raise input.sync_tolerance_s",
            )
        elif "instances" in self._subscriptions and now - self._last_frame_at > settings.watchdog_s:
            self._warn(
                "labels",
                f"no label image with the stamp of a frame for {now - self._last_frame_at:.0f} s: "
                f"{self._subscriptions['instances'].topic} must carry the colour image's stamp and come within "
                f"{FRAMES_WAITING} frames; or set instances_source to internal",
            )

    def _warn(self, about: str, text: str) -> None:
        """Log a warning, at most every REPEAT_S about the same thing."""
        now = time.monotonic()
        if now - self._warned_at.get(about, float("-inf")) > REPEAT_S:
            self._warned_at[about] = now
            self._node.get_logger().warning(text)
