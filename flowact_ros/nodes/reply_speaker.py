# SPDX-License-Identifier: Apache-2.0
"""Has the avatar say sentences one after the other, through `say`, and tells what was heard of each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionClient

from flowact_msgs.action import Say
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode

LONGEST_HOLD_S = 5.0  # of a sentence; a room that is never silent must not silence the avatar
NO_AVATAR_S = 2.0  # without a server for so long: the sentence is not said
# An avatar tells of its goals five times a second. One that was killed is still listed for up to 20 s, and by then
# another one may have its place, which knows nothing of them.
SILENT_S = 10.0
MOST_STEP_S = 1.0  # of that silence at once: between two looks this process may have stood still itself


class _Goal:
    """A sentence that was sent."""

    def __init__(self, utterance_id: str) -> None:
        self.utterance_id = utterance_id
        self.handle: Any = None
        self.cancelled = False  # by us


class ReplySpeaker:
    """All in the executor.

    may_begin: asked before the first sentence is sent, and while none was; somebody else may have the word.
    heard: called once a sentence with (utterance_id, what was spoken of it, was it broken off by somebody else).
    """

    def __init__(
        self, node: FlowactNode, may_begin: Callable[[], bool], heard: Callable[[str, str, bool], None]
    ) -> None:
        self._node, self._may_begin, self._heard = node, may_begin, heard
        self._waiting: deque[tuple[str, str, float]] = deque()  # (utterance_id, text, since)
        self._goals: list[_Goal] = []
        self._silent_s, self._looked_s = 0.0, time.monotonic()  # how long nothing was heard of them
        self._client = ActionClient(node, Say, topics.SAY)
        node.add_entity(self._client.destroy)

    @property
    def busy(self) -> bool:
        """Something is to be said, or being said."""
        return bool(self._waiting or self._goals)

    @property
    def _waits_s(self) -> float:
        """How long the oldest sentence was kept back."""
        return time.monotonic() - self._waiting[0][2] if self._waiting else 0.0

    def _held(self) -> bool:
        return not self._goals and self._waits_s < LONGEST_HOLD_S and not self._may_begin()

    def say(self, utterance_id: str, text: str) -> None:
        self._waiting.append((utterance_id, text, time.monotonic()))
        self.tend()

    def tend(self) -> None:
        """Sends what may be sent; called a few times a second."""
        now_s = time.monotonic()
        step_s, self._looked_s = min(now_s - self._looked_s, MOST_STEP_S), now_s
        self._silent_s = self._silent_s + step_s if self._goals else 0.0
        if not self._client.server_is_ready():
            if self._goals or self._waits_s > NO_AVATAR_S:
                name = self._node.resolve_service_name(topics.SAY)
                self._node.report(f"no avatar serves {name}: what was to be said is lost")
                self._lose_all()
            return
        if self._silent_s > SILENT_S:
            name = self._node.resolve_service_name(topics.SAY)
            self._node.report(f"nothing was heard of {name} for {SILENT_S:g} s: what was to be said is lost")
            self._lose_goals()
        while self._waiting and not self._held():
            utterance_id, text, _ = self._waiting.popleft()
            goal = _Goal(utterance_id)
            self._goals.append(goal)
            request = Say.Goal(text=text, policy=Say.Goal.QUEUE, utterance_id=utterance_id)
            sent = self._client.send_goal_async(request, feedback_callback=lambda message: self._news())
            sent.add_done_callback(lambda future, goal=goal: self._guarded(self._accepted, goal, future))

    def cancel(self) -> None:
        """Nothing more is said of it: a barge-in. What was heard is told when the avatar knows."""
        waiting, self._waiting = self._waiting, deque()
        for utterance_id, _, _ in waiting:
            self._heard(utterance_id, "", False)
        for goal in self._goals:
            if not goal.cancelled:
                goal.cancelled = True
                if goal.handle is not None:
                    goal.handle.cancel_goal_async()

    def _news(self) -> None:
        """Something was heard of a goal."""
        self._silent_s = 0.0

    def _lose_goals(self) -> None:
        """Should their avatar only have been slow, it is not to say them beside what comes next."""
        goals, self._goals, self._silent_s = self._goals, [], 0.0
        for goal in goals:
            if goal.handle is not None and not goal.cancelled:
                goal.handle.cancel_goal_async()
            self._heard(goal.utterance_id, "", False)

    def _lose_all(self) -> None:
        goals, self._goals = self._goals, []
        waiting, self._waiting = self._waiting, deque()
        for utterance_id in [*(goal.utterance_id for goal in goals), *(entry[0] for entry in waiting)]:
            self._heard(utterance_id, "", False)

    def _guarded(self, callback: Callable[[_Goal, Any], None], goal: _Goal, future: Any) -> None:
        """Futures swallow what their callbacks raise."""
        self._node.guard(callback, f"an answer of '{topics.SAY}'")(goal, future)

    def _accepted(self, goal: _Goal, future: Any) -> None:
        self._news()
        if goal not in self._goals:
            return  # lost, or the node is not active any more
        goal.handle = future.result()
        if goal.handle is None or not goal.handle.accepted:
            self._end(goal, "", broken=False)
            return
        result = goal.handle.get_result_async()
        result.add_done_callback(lambda future: self._guarded(self._ended, goal, future))
        if goal.cancelled:
            goal.handle.cancel_goal_async()

    def _ended(self, goal: _Goal, future: Any) -> None:
        self._news()
        if goal not in self._goals:
            return
        answer = future.result().result
        by_others = answer.error_code == Say.Result.INTERRUPTED and not goal.cancelled
        if answer.error_code not in (Say.Result.NONE, Say.Result.INTERRUPTED):
            self._node.report(f"the avatar did not say a sentence: {answer.error_msg}")
        self._end(goal, answer.spoken_text, broken=by_others)

    def _end(self, goal: _Goal, spoken: str, broken: bool) -> None:
        self._goals.remove(goal)
        self._heard(goal.utterance_id, spoken, broken)
