# SPDX-License-Identifier: Apache-2.0
"""An action server whose goals end later, and whose every request is answered exactly once, however many come at once.

Requests wait in deep queues here. Answers leave at a pace: a client keeps ten of them that it has not read yet (ROS's
default for services) and DDS drops the older ones of more without a word, so that goals that all end at once would
leave a client waiting for ever. At this pace one that reads every half second gets all. While it sends one request
after the other it does not read, and that time does not count.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from rclpy.action import ActionServer, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.qos import QoSProfile

DEPTH = 1000  # requests that wait while the node is busy
KEPT_S = 60  # results for which nobody has asked yet
AT_ONCE = 5  # answers of a kind that may leave together
RESULTS_S = 10.0  # and then so many a second
ACCEPTANCES_S = 20.0
BURST_S = 0.1  # requests that follow each other sooner are sent by a program that does nothing else


class Pace:
    """Lets `at_once` through, and from then on `per_second`."""

    def __init__(self, at_once: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = float(at_once), per_second, clock
        self._left, self._asked, self._requested = self._most, clock(), float("-inf")

    def requested(self) -> None:
        """A request came."""
        now = self._clock()
        if now - self._requested < BURST_S:
            self._asked = now
        self._requested = now

    def allows(self) -> bool:
        """May one more go now? It is counted if so."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._asked) * self._rate)
        self._asked = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class DeferredServer(ActionServer):
    """Every goal is accepted, a refusal is a result that says why, and ends when `finish` is called. `tend` is to be
    called often while `waiting`, as is `on_waiting` when it begins; all in the executor. The node destroys it."""

    def __init__(self, node: Any, kind: type, name: str, *, on_waiting: Callable[[], None], **options: Any) -> None:
        deep = QoSProfile(depth=DEPTH)
        self._on_waiting = on_waiting
        self._requests: deque[Any] = deque()
        self._due: deque[tuple[ServerGoalHandle, Callable[[ServerGoalHandle], Any]]] = deque()
        self._accepts, self._answers = Pace(AT_ONCE, ACCEPTANCES_S), Pace(AT_ONCE, RESULTS_S)
        super().__init__(
            node,
            kind,
            name,
            execute_callback=lambda handle: kind.Result(),  # never called: see notify_execute
            goal_callback=lambda request: GoalResponse.ACCEPT,
            result_timeout=KEPT_S,
            goal_service_qos_profile=deep,
            result_service_qos_profile=deep,
            cancel_service_qos_profile=deep,
            **options,
        )
        node.add_entity(self.destroy)

    @property
    def waiting(self) -> bool:
        """Something is still to be answered."""
        return bool(self._requests or self._due)

    def notify_execute(self, goal_handle: ServerGoalHandle, execute_callback: Any) -> None:
        """Called by `ServerGoalHandle.execute` once the goal's state is EXECUTING: no task is made of it."""

    def finish(self, goal_handle: ServerGoalHandle, respond: Callable[[ServerGoalHandle], Any]) -> None:
        """Has `respond` set the goal's last state and return its result, soon."""
        self._due.append((goal_handle, respond))
        self._on_waiting()

    async def _execute_goal_request(self, request_header_and_message: Any) -> None:
        self._requests.append(request_header_and_message)
        self._accepts.requested()
        self.tend()
        if self.waiting:
            self._on_waiting()

    async def _execute_get_result_request(self, request_header_and_message: Any) -> None:
        self._answers.requested()
        await super()._execute_get_result_request(request_header_and_message)

    def tend(self) -> None:
        """Answers what may be answered now."""
        while self._requests and self._accepts.allows():
            self._accept(self._requests.popleft())
        while self._due and self._answers.allows():
            self._answer(*self._due.popleft())

    def destroy(self) -> None:
        """Answers everything before it."""
        while self._requests:
            self._accept(self._requests.popleft())
        while self._due:
            self._answer(*self._due.popleft())
        super().destroy()

    def _accept(self, request: Any) -> None:
        _run(super()._execute_goal_request(request))

    def _answer(self, goal_handle: ServerGoalHandle, respond: Callable[[ServerGoalHandle], Any]) -> None:
        _run(self._execute_goal(respond, goal_handle))


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """To its end, at once: what rclpy awaits in these are plain functions."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("a callback of an action server waits for something")
