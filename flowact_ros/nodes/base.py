# SPDX-License-Identifier: Apache-2.0
"""What every node shares: lifecycle with auto-activation, diagnostics, guarded callbacks. Its process: process.py.

A node loads in configure, has its topics in active only, and frees its memory in cleanup. An exception in a
transition is logged and becomes FAILURE (rclpy would swallow it); one in a callback is logged, shown in
`/diagnostics` and does not end the node.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSPolicyKind

from flowact_ros.nodes import topics
from flowact_ros.nodes.params import Param, Params
from flowact_ros.nodes.process import one_line, run, tell_supervisor

__all__ = ["BURST", "STUCK_S", "FlowactNode", "NotYet", "one_line", "run", "tell_supervisor"]

BURST = 64  # messages of a topic that are taken at once: a sentence may come as hundreds
STUCK_S = 20.0  # a node whose executor did nothing for so long, outside of transitions, does not live any more
RETRY_S = 2.0  # between tries to configure when what is missing may come by itself
RECENT_ERROR_S = 10.0  # an error is shown as WARN for so long after it happened

_AUTOSTART = Param("autostart", True, "Configure and activate at start; false: wait for lifecycle requests")


class NotYet(RuntimeError):
    """Configuring fails for a reason that may pass by itself, such as a port that is taken: it is tried again."""


class FlowactNode(LifecycleNode):
    """Base of all nodes. A subclass gives `PARAMETERS` and overrides `load`, `begin`, `end`, `unload`, `health`."""

    PARAMETERS: Sequence[Param] = ()

    def __init__(self, name: str, **options: Any) -> None:
        """Raises ParameterError for a parameter that must not be."""
        super().__init__(name, **options)
        self._loaded = False
        self._stopped = False
        self._in_transition = False
        self._ticked = time.monotonic()
        self._not_yet = False
        self._entities: list[Callable[[], object]] = []  # destroyed at deactivation
        self._loaded_entities: list[Callable[[], object]] = []  # made in `load`: destroyed at cleanup
        self._scope = self._entities
        self._fault = ""
        self._last_error = ""
        self._last_error_time = float("-inf")
        self._error_counts: dict[str, int] = {}
        self.params = Params(self, [_AUTOSTART, *self.PARAMETERS], lambda: self._loaded)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, topics.DIAGNOSTICS, topics.QOS[topics.DIAGNOSTICS]
        )
        # Steady, not ROS time: diagnostics must not stop when a simulation is paused.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._service_change_state.callback = self._answered(self._service_change_state.callback)
        self.create_timer(1.0, self.guard(self._publish_diagnostics), clock=self._steady)

    # ------------------------------------------------------------ what a node overrides

    def load(self) -> None:
        """Configure: read parameters, load weights. An exception makes the transition fail."""

    def begin(self) -> None:
        """Activate: create topics and services with `add_*`, start threads."""

    def end(self) -> None:
        """Deactivate: stop and join threads. Topics made with `add_*` are destroyed after it."""

    def unload(self) -> None:
        """Cleanup: free what `load` made."""

    def health(self) -> tuple[int, str, dict[str, object]]:
        """(level, message, values) for diagnostics; called once a second in every state."""
        return 0, "", {}

    # ------------------------------------------------------------ what a node calls

    @property
    def state(self) -> str:
        """Lifecycle state: unconfigured, inactive, active, finalized, or a transition's name."""
        return self._state_machine.current_state[1]

    @property
    def last_error(self) -> str:
        """The last error reported, as in diagnostics; empty if there was none."""
        return self._last_error

    def now_ns(self) -> int:
        """[ns] of the node's clock: ROS time, simulated where `use_sim_time` says so."""
        return self.get_clock().now().nanoseconds

    def add_publisher(self, kind: type, name: str, qos: Any = None) -> Any:
        publisher = self.create_publisher(kind, name, qos or topics.QOS[name])
        self._scope.append(lambda: self.destroy_publisher(publisher))
        return publisher

    def add_subscription(
        self, kind: type, name: str, callback: Callable[[Any], None], qos: Any = None
    ) -> Any:
        handler = self.guard(callback, f"a message on '{name}'")

        def take_burst(message: Any) -> None:
            """This message and those that wait behind it: for each the executor would ask all entities again."""
            handler(message)
            for _ in range(BURST - 1):
                with subscription.handle:
                    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is None:
                    return
                handler(taken[0])

        subscription = self.create_subscription(
            kind,
            name,
            take_burst,
            qos or topics.QOS[name],
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=lambda event: self._unheard(name, event)),
        )
        self._scope.append(lambda: self.destroy_subscription(subscription))
        return subscription

    def _unheard(self, name: str, event: Any) -> None:
        """A publisher appeared that DDS does not connect."""
        wanted = {
            QoSPolicyKind.RELIABILITY: "is best effort: make it RELIABLE, with a depth of 50 or more",
            QoSPolicyKind.DURABILITY: "is volatile: make it TRANSIENT_LOCAL",
        }.get(event.last_policy_kind, "has a quality of service that does not fit: compare `flowact_ros.nodes.topics`")
        self.report(f"a publisher of '{self.resolve_topic_name(name)}' is not heard, since it {wanted}")

    def add_service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> Any:
        service = self.create_service(kind, name, callback)
        self._scope.append(lambda: self.destroy_service(service))
        return service

    def add_slow_service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> Any:
        """A service whose callback takes seconds: it runs in a thread of its own, one request after the other, and
        everything else of the node is served meanwhile."""
        worker = ThreadPoolExecutor(1, thread_name_prefix=name)
        service = self.add_service(kind, name, lambda request, response: (request, response))
        send = service.send_response

        def answer(pair: tuple[Any, Any], header: Any) -> None:
            send(callback(*pair), header)

        # rclpy sends what the callback has returned; here that is what the thread is to work on.
        service.send_response = lambda pair, header: worker.submit(
            self.guard(answer, f"an answer of '{name}'"), pair, header
        )
        # Those that wait are answered before the service goes: quickly, since nothing is active any more.
        self._scope.append(lambda: worker.shutdown(wait=True))
        return service

    def add_timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """On the steady clock."""
        timer = self.create_timer(period_s, self.guard(callback), clock=self._steady)
        self._scope.append(lambda: self.destroy_timer(timer))
        return timer

    def add_entity(self, destroy: Callable[[], object]) -> None:
        """Has `destroy` called at deactivation, after `end`; if added in `load`, at cleanup, after `unload`."""
        self._scope.append(destroy)

    def report(self, error: BaseException | str, context: str = "") -> None:
        """Logs an error once (repeats are counted, logged at 10, 100, …) and shows it in diagnostics."""
        # Errors of our own rooms are written for people; a traceback is for what nobody thought of.
        expected = isinstance(error, (str, ValueError, OSError)) or type(error).__module__.startswith(
            "flowact_ros"
        )
        text = f"{context}: {one_line(error)}" if context else one_line(error)
        self._last_error, self._last_error_time = text, time.monotonic()
        count = self._error_counts[text] = self._error_counts.get(text, 0) + 1
        if len(self._error_counts) > 200:
            self._error_counts = {text: count}
        if count in (1, 10, 100) or count % 1000 == 0:
            self.get_logger().error(text if count == 1 else f"{text} ({count} times)")
            if isinstance(error, BaseException) and not expected and count == 1:
                self.get_logger().error("".join(traceback.format_exception(error)))

    def set_fault(self, text: str) -> None:
        """A lasting fault: diagnostics say ERROR until `set_fault("")`. Logged when it changes."""
        if text and text != self._fault:
            self.report(text)
        elif not text and self._fault:
            self.get_logger().info(f"recovered from: {self._fault}")
        self._fault = text

    def guard(self, callback: Callable[..., Any], context: str = "") -> Callable[..., Any]:
        """The callback, with exceptions reported instead of ending the node."""

        @functools.wraps(callback)
        def guarded(*args: Any) -> Any:
            try:
                return callback(*args)
            except Exception as error:  # the boundary between a message and the node: nothing may pass
                self.report(error, context)
                return None

        return guarded

    # ------------------------------------------------------------ lifecycle

    def _answered(self, change_state: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """rclpy raises on a transition that the state does not have, and its caller would wait for ever."""

        def answer(request: Any, response: Any) -> Any:
            before = self.state
            try:
                return change_state(request, response)
            except RuntimeError as error:  # rcl's
                wanted = request.transition.label or request.transition.id
                self.report(f"no transition {wanted!r} from the state {before!r}: {one_line(error)}")
                response.success = False
                return response

        return answer

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._scope = self._loaded_entities
        result = self._transition("configure", self.load)
        self._scope = self._entities
        if result == TransitionCallbackReturn.SUCCESS:
            self._loaded = True
        else:
            self._release("clean up")
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._transition("activate", self.begin)
        if result != TransitionCallbackReturn.SUCCESS:
            self._halt()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._halt()

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._release("clean up")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.label == "active":
            self._halt()
        return self._release("shut down")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt()
        return self._release("recover")

    def _transition(self, verb: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        self._in_transition = True
        try:
            action()
        except Exception as error:  # a failed transition is an answer, not the end of the process
            self._not_yet = isinstance(error, NotYet)
            self.report(error, f"cannot {verb}")
            name = self.get_fully_qualified_name()
            tell_supervisor(event="failed", node=name, transition=verb, error=one_line(error))
            return TransitionCallbackReturn.FAILURE
        finally:
            self._in_transition, self._ticked = False, time.monotonic()
        done = {"configure": "inactive", "activate": "active", "clean up": "unconfigured"}.get(verb)
        if done is not None:
            self.get_logger().info(done)
            tell_supervisor(event=done, node=self.get_fully_qualified_name())
        return TransitionCallbackReturn.SUCCESS

    def _halt(self) -> TransitionCallbackReturn:
        result = self._transition("deactivate", self.end)
        self._destroy(self._entities)
        self._fault = ""
        if result == TransitionCallbackReturn.SUCCESS:
            tell_supervisor(event="inactive", node=self.get_fully_qualified_name())
        return result

    def _release(self, verb: str) -> TransitionCallbackReturn:
        self._loaded = False
        result = self._transition(verb, self.unload)
        self._destroy(self._loaded_entities)
        return result

    def _destroy(self, entities: list[Callable[[], object]]) -> None:
        while entities:
            self.guard(entities.pop(), "destroying a topic")()

    def autostart(self) -> bool:
        """Configures and activates if the parameter says so. False if that failed: the node stays, and says why."""
        if not self.params["autostart"]:
            self.get_logger().info("waits for lifecycle requests (autostart is false)")
            return True
        self._not_yet = False
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            return self.trigger_activate() == TransitionCallbackReturn.SUCCESS
        if self._not_yet:
            self._retry = self.create_timer(RETRY_S, self.guard(self._try_again), clock=self._steady)
        return False

    def _try_again(self) -> None:
        """Until it is configured, by this or by somebody else."""
        self.destroy_timer(self._retry)
        if self.state == "unconfigured" and not self._stopped:
            self.autostart()

    def hang(self) -> str:
        """What hangs, and for how long; "" if nothing does. Asked by a thread, which ends the process (process.py)."""
        idle = time.monotonic() - self._ticked
        return "" if self._in_transition or idle < STUCK_S else f"its executor did nothing for {idle:.0f} s"

    @property
    def lives(self) -> bool:
        """Is something still done here?"""
        return not self.hang()

    def stop(self) -> None:
        """Ends threads, topics and memory, from any state. Harmless when called again."""
        if not self._stopped:
            self._stopped = True
            if self.state in ("unconfigured", "inactive", "active"):
                self.trigger_shutdown()

    # ------------------------------------------------------------ diagnostics

    def _publish_diagnostics(self) -> None:
        self._ticked = time.monotonic()
        try:
            level, message, values = self.health()
        except Exception as error:  # diagnostics are most wanted when something is wrong
            level, message, values = 2, f"health check failed: {one_line(error)}", {}
        recent = time.monotonic() - self._last_error_time < RECENT_ERROR_S
        if self._fault:
            level, message = 2, self._fault
        elif self.state not in ("active", "inactive") and self._last_error:
            level, message = max(level, 2), self._last_error
        elif recent and level < 1:
            level, message = 1, self._last_error
        values = {"state": self.state, "last_error": self._last_error, **values}
        status = DiagnosticStatus(
            level=bytes([level]),
            name=f"{self.get_namespace().strip('/')}/{self.get_name()}".lstrip("/"),
            message=message or self.state,
            hardware_id="flowact",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
