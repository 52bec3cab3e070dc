# SPDX-License-Identifier: Apache-2.0
"""`/skill/say` of ROS4HRI (`communication_skills/action/Say`), passed on to this avatar's own `say`.

Served where that package is installed. Goals wait their turn; a higher priority does not cut what is being said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionClient, CancelResponse
from rclpy.action.server import ServerGoalHandle

from flowact_msgs.action import Say
from flowact_ros.nodes import topics
from flowact_ros.nodes.deferred_server import DeferredServer

if TYPE_CHECKING:
    from flowact_ros.nodes.base import FlowactNode

SKILL_SAY = "/skill/say"  # a global convention: one robot, one mouth
TEND_S = 0.1


@dataclass(frozen=True)
class Skill:
    """An action that says something, and how its messages are those of `say`."""

    kind: Any
    goal: Callable[[Any], Say.Goal]
    feedback: Callable[[Say.Feedback], Any]
    result: Callable[[int, str], Any]


def ros4hri_say() -> Skill | None:
    """None where the package is not installed."""
    try:
        from communication_skills.action import Say as SaySkill
        from std_skills.msg import Result as SkillResult
    except ImportError:
        return None
    return skill_of(SaySkill, SkillResult)


def skill_of(kind: Any, result_kind: Any) -> Skill:
    """Of `communication_skills/action/Say` and `std_skills/msg/Result`."""
    codes = {Say.Result.NONE: result_kind.ROS_ENOERR, Say.Result.INTERRUPTED: result_kind.ROS_ECANCELED}

    def feedback(message: Say.Feedback) -> Any:
        told = kind.Feedback()
        told.feedback.data_str, told.feedback.data_float = message.word, float(message.frames)
        return told

    def result(code: int, reason: str) -> Any:
        return skill_result(kind, codes.get(code, result_kind.ROS_EOTHER), reason)

    return Skill(kind, lambda goal: Say.Goal(text=goal.input, priority=goal.meta.priority), feedback, result)


def skill_result(kind: Any, code: int, reason: str) -> Any:
    """The result of an action of ROS4HRI: a `std_skills/msg/Result` is in each of them."""
    answer = kind.Result()
    answer.result.error_code, answer.result.error_msg = code, reason
    return answer


class SkillServer:
    """All in the executor. To be made while the node loads: it is served in the inactive state as well."""

    def __init__(self, node: FlowactNode, skill: Skill) -> None:
        self._node, self._skill = node, skill
        self._inner: dict[bytes, Any] = {}  # by goal id: the goal of `say`, once it is accepted; None before
        self._timer = node.add_timer(TEND_S, self._tend)
        self._timer.cancel()
        self._client = ActionClient(node, Say, topics.SAY)
        self._server = DeferredServer(
            node,
            skill.kind,
            SKILL_SAY,
            on_waiting=self._timer.reset,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )
        node.add_entity(self._client.destroy)

    def _tend(self) -> None:
        self._server.tend()
        if not self._server.waiting:
            self._timer.cancel()

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        handle.execute()
        self._inner[_key(handle)] = None

        def told(message: Any) -> None:
            handle.publish_feedback(self._skill.feedback(message.feedback))

        sent = self._client.send_goal_async(self._skill.goal(handle.request), told)
        sent.add_done_callback(
            self._node.guard(lambda future: self._sent(handle, future.result()), SKILL_SAY)
        )

    def _sent(self, handle: ServerGoalHandle, inner: Any) -> None:
        self._inner[_key(handle)] = inner
        if handle.is_cancel_requested:
            inner.cancel_goal_async()
        asked = inner.get_result_async()
        asked.add_done_callback(
            self._node.guard(lambda future: self._ended(handle, future.result().result), SKILL_SAY)
        )

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        inner = self._inner.get(_key(handle))
        if inner is not None:
            inner.cancel_goal_async()
        return CancelResponse.ACCEPT

    def _ended(self, handle: ServerGoalHandle, result: Say.Result) -> None:
        self._inner.pop(_key(handle), None)

        def respond(handle: ServerGoalHandle) -> Any:
            if handle.is_cancel_requested:
                handle.canceled()
            elif result.error_code == Say.Result.NONE:
                handle.succeed()
            else:
                handle.abort()
            return self._skill.result(result.error_code, result.error_msg)

        self._server.finish(handle, respond)


def _key(handle: ServerGoalHandle) -> bytes:
    return bytes(handle.goal_id.uuid)
