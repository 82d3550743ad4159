"""The base of the lifecycle nodes, and the main function they share.

rclpy swallows an exception in a transition without a word; here it is logged with its traceback, what was half done is
undone, and the transition fails.
"""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from momap_ros.config import NodeConfig, Settings
from momap_ros.ros.diagnostics import Statistics, diagnostic_array
from momap_ros.ros.parameters import Parameters
from momap_ros.ros.transport import allow_large_messages

DIAGNOSTICS_PERIOD_S = 1.0


class ManagedNode(LifecycleNode):
    """A lifecycle node that starts itself unless told otherwise, and says what it does on /diagnostics.

    Subclasses give `configure`, `activate`, `deactivate` and `cleanup`; they raise where something is wrong. The last
    two also undo a half-done transition, so they accept that anything may not exist yet.

    Attributes:
        parameters: declared from the settings groups.
        statistics: counts and durations, published once a second.
    """

    def __init__(self, name: str, groups: Sequence[type[Settings]], **node_arguments: Any) -> None:  # noqa: ANN401
        """Declare parameters; connections are made by the transitions.

        Args:
            name: of the node.
            groups: settings that become parameters; one of them a NodeConfig.
            **node_arguments: passed to rclpy's node: context, cli_args, parameter_overrides, namespace.
        """
        super().__init__(name, **node_arguments)
        self.parameters = Parameters(self, groups)
        self.statistics = Statistics()
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self._is_active = False

    @abstractmethod
    def configure(self) -> None:
        """Load what takes long and create publishers."""

    @abstractmethod
    def activate(self) -> None:
        """Subscribe and start working."""

    @abstractmethod
    def deactivate(self) -> None:
        """Stop working and unsubscribe."""

    @abstractmethod
    def cleanup(self) -> None:
        """Free what `configure` made."""

    @abstractmethod
    def silent_inputs(self) -> list[str]:
        """Topics from which nothing comes although the node is active."""

    def more_statuses(self) -> list[DiagnosticStatus]:
        """What /diagnostics says beside the node's own status."""
        return []

    @property
    def is_active(self) -> bool:
        """Whether the node is in the state active."""
        return self._is_active

    def create_output(self, message_type: type[Any], topic: str) -> LifecyclePublisher:
        """A publisher of results: reliable, volatile and only the newest; a late joiner must not act on old results."""
        profile = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        overridable = QoSOverridingOptions.with_default_policies()
        publisher: LifecyclePublisher = self.create_lifecycle_publisher(
            message_type, topic, profile, qos_overriding_options=overridable
        )
        self.get_logger().info(f"output {topic} is {publisher.topic_name}")
        return publisher

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `configure`; after a failure the node stays unconfigured."""

        def action() -> None:
            self.configure()
            super(ManagedNode, self).on_configure(state)

        return self._attempt("configure", action, self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let publishers speak and run `activate`; after a failure the node stays inactive."""

        def action() -> None:
            super(ManagedNode, self).on_activate(state)
            self.activate()
            self._is_active = True

        return self._attempt("activate", action, lambda: self._stop_working(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Mute publishers and run `deactivate`."""
        return self._attempt("deactivate", lambda: self._stop_working(state), lambda: None)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `cleanup`."""
        del state
        gc.unfreeze()  # see run_nodes: what is now given up may be garbage
        return self._attempt("clean up", self.cleanup, lambda: None)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working, wherever the node stands, and free everything."""

        def action() -> None:
            self._stop_working(state)
            self.cleanup()

        return self._attempt("shut down", action, lambda: None)

    def start_configured(self) -> bool:
        """Configure, unless the parameter `autostart` leaves that to others; False after a failure."""
        return not self._starts_itself or bool(self.trigger_configure() == TransitionCallbackReturn.SUCCESS)

    def start_active(self) -> bool:
        """Activate, unless the parameter `autostart` leaves that to others; False after a failure."""
        return not self._starts_itself or bool(self.trigger_activate() == TransitionCallbackReturn.SUCCESS)

    @property
    def _starts_itself(self) -> bool:
        return self.parameters.read(NodeConfig).autostart

    def finish(self) -> None:
        """Stop working and destroy the node, for the end of the process."""
        self._is_active = False
        self.deactivate()
        self.cleanup()
        self.destroy_node()

    def _stop_working(self, state: LifecycleState) -> None:
        self._is_active = False
        super().on_deactivate(state)
        self.deactivate()

    def _attempt(self, name: str, action: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:  # noqa: BLE001  (whatever goes wrong, the lifecycle must learn of it)
            self.statistics.set_error(f"{name}: {error}")
            if self.context.ok():  # otherwise the process was told to end, which is no failure
                # The message last: it is the line people read.
                self.get_logger().error(f"{traceback.format_exc()}{name} failed: {error}")
            undo()
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"{name}: done")
        return TransitionCallbackReturn.SUCCESS

    def _publish_diagnostics(self) -> None:
        silent = self.silent_inputs() if self._is_active else []
        status = self.statistics.status(self.get_fully_qualified_name(), active=self._is_active, silent=silent)
        self._diagnostics_publisher.publish(
            diagnostic_array(self.get_clock().now().to_msg(), status, *self.more_statuses())
        )


def run_nodes(build: Callable[[], Sequence[ManagedNode]], args: list[str] | None) -> int:
    """Start nodes, spin them in one thread, and take them down again.

    Args:
        build: makes the nodes; called after ROS was initialised.
        args: command line with the program's name first, as in sys.argv; None = sys.argv.

    Returns:
        Exit code: 0 after an orderly end, 1 where a node could not start.
    """
    allow_large_messages()
    rclpy.init(args=args)
    nodes: Sequence[ManagedNode] = []
    executor = SingleThreadedExecutor()
    try:
        nodes = build()
        # All are configured before the first one takes messages, because loading a model keeps the executor waiting.
        for step in (ManagedNode.start_configured, ManagedNode.start_active):
            for node in nodes:
                if not step(node):
                    return _failed_start(node)
        for node in nodes:
            executor.add_node(node)
        # What was loaded stays: looking through torch for garbage would hold a frame up by a quarter of a second.
        gc.collect()
        gc.freeze()
        executor.spin()
    except ParameterException as error:
        print(f"parameter refused: {error}", file=sys.stderr)  # noqa: T201  (there is no node to log with)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # rclpy raises its own kind of it where the process was told to end while something was under way.
        if rclpy.ok():
            raise
    finally:
        # A launch system passes Ctrl-C on to its children, who then get it twice: the second must not break the end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for node in nodes:
            node.finish()
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


def _failed_start(node: ManagedNode) -> int:
    """The exit code where a node did not start: 0 where the process was told to end meanwhile."""
    if not rclpy.ok():
        return 0
    print(f"{node.get_name()}: could not start, see the error above", file=sys.stderr)  # noqa: T201
    return 1
