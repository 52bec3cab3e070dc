# SPDX-License-Identifier: Apache-2.0
"""`/skill/look_at` of ROS4HRI (`interaction_skills/action/LookAt`): gaze as an action, beside the topic `look_at`.

Served where that package is installed. A target is given again and again until the goal is cancelled or another one
takes its place; a policy becomes the parameter `gaze`, so that everybody sees which one holds. One goal looks at a
time: one of the same or a higher priority takes the place of the one before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PointStamped
from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.parameter import Parameter

from flowact_ros.engine.looking import FOLLOW, VIEWER, WANDER
from flowact_ros.nodes.deferred_server import DeferredServer
from flowact_ros.nodes.process import one_line
from flowact_ros.nodes.skill_say import skill_result

if TYPE_CHECKING:
    from flowact_ros.nodes.base import FlowactNode

SKILL_LOOK_AT = "/skill/look_at"  # a global convention, as /skill/say is
GAZE = "gaze"  # the parameter of the generator
TRACKING, GLANCE = "tracking", "glance"
POLICIES = {
    "random": WANDER,
    "social": FOLLOW,
    "auto": FOLLOW,
    "reset": VIEWER,
}  # and what `gaze` becomes by them
GLANCE_S = 1.0
# Names of std_skills/msg/Result.
DONE, FAILED, NOT_SUPPORTED = "ROS_ENOERR", "ROS_EOTHER", "ROS_ENOTSUP"
CANCELLED, REPLACED = "ROS_ECANCELED", "ROS_EINTR"
TEND_S = 0.1  # a target is given so often: sooner than any `look_at_timeout`


@dataclass(frozen=True)
class Wanted:
    """What a goal asks for; `policy` may be empty, and so may be the target's frame."""

    policy: str
    target: PointStamped
    priority: int


@dataclass(frozen=True)
class LookSkill:
    """An action that looks. wanted: of its goal; result: of a name of `std_skills/msg/Result` and a reason."""

    kind: Any
    wanted: Callable[[Any], Wanted]
    result: Callable[[str, str], Any]


def ros4hri_look_at() -> LookSkill | None:
    """None where the package is not installed."""
    try:
        from interaction_skills.action import LookAt
        from std_skills.msg import Result
    except ImportError:
        return None
    return look_skill_of(LookAt, Result)


def look_skill_of(kind: Any, result_kind: Any) -> LookSkill:
    """Of `interaction_skills/action/LookAt` and `std_skills/msg/Result`."""
    return LookSkill(
        kind,
        lambda goal: Wanted(goal.policy, goal.target, goal.meta.priority),
        lambda code, reason: skill_result(kind, getattr(result_kind, code), reason),
    )


@dataclass
class _Looker:
    """A goal that is looking. until: [s] when a glance ends; held: `gaze` was one that ignores points."""

    handle: ServerGoalHandle
    wanted: Wanted
    until: float
    held: bool


class LookAtServer:
    """All in the executor. To be made while the node loads: it is served in the inactive state as well."""

    def __init__(self, node: FlowactNode, skill: LookSkill) -> None:
        self._node, self._skill = node, skill
        self._look: Callable[[PointStamped], None] | None = None  # None: not active
        self._look_away: Callable[[], None] = lambda: None
        self._now: _Looker | None = None
        self._timer = node.add_timer(TEND_S, self._tend)
        self._timer.cancel()
        self._server = DeferredServer(
            node,
            skill.kind,
            SKILL_LOOK_AT,
            on_waiting=self._timer.reset,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def attach(self, look: Callable[[PointStamped], None], look_away: Callable[[], None]) -> None:
        """Activation. look: raises ValueError for a point that cannot be looked at; look_away: from that point."""
        self._look, self._look_away = look, look_away

    def detach(self) -> None:
        """Deactivation: the goal ends, new ones are refused."""
        self._look, self._look_away = None, lambda: None
        self._end(FAILED, "the avatar was deactivated")

    # ------------------------------------------------------------ requests

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        handle.execute()
        try:
            self._start(handle)
        except Exception as error:  # the goal must get its result, whatever it was
            if not isinstance(error, ValueError):  # which tells the caller what cannot be
                self._node.report(error, SKILL_LOOK_AT)
            self._finish(handle, FAILED, one_line(error))

    def _start(self, handle: ServerGoalHandle) -> None:
        wanted = self._skill.wanted(handle.request)
        policy = wanted.policy.strip().lower() or TRACKING
        if self._look is None:
            raise ValueError("the avatar is not active")
        if policy not in (TRACKING, GLANCE, *POLICIES):
            known = ", ".join((TRACKING, GLANCE, *POLICIES))
            reason = f"policy is {wanted.policy!r}: must be empty or one of {known}"
            self._finish(handle, NOT_SUPPORTED, reason)
            return
        if self._now is not None and wanted.priority < self._now.wanted.priority:
            above = self._now.wanted.priority
            raise ValueError(f"a goal of priority {above} is looking, this one has {wanted.priority}")
        if policy in POLICIES:
            self._end(REPLACED, "another goal took its place")
            self._release()
            self._set_gaze(POLICIES[policy])
            self._finish(handle, DONE)
            return
        if not wanted.target.header.frame_id:
            raise ValueError(
                f"policy {policy} needs a target, with the frame of its point in header.frame_id"
            )
        self._look(wanted.target)  # first: a point that cannot be looked at takes nobody's place
        self._end(REPLACED, "another goal took its place")
        held = self._node.params[GAZE] == VIEWER
        if held:
            self._set_gaze(FOLLOW)
        until = time.monotonic() + GLANCE_S if policy == GLANCE else float("inf")
        self._now = _Looker(handle, wanted, until, held)
        self._timer.reset()

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._now is not None and self._now.handle.goal_id == handle.goal_id:
            self._release()
            self._end(CANCELLED, "cancelled")
        return CancelResponse.ACCEPT

    # ------------------------------------------------------------ progress

    def _tend(self) -> None:
        self._server.tend()
        now = self._now
        if now is None:
            if not self._server.waiting:
                self._timer.cancel()
        elif time.monotonic() >= now.until:
            self._release()
            self._end(DONE)
        elif self._look is not None:
            self._look(now.wanted.target)

    def _release(self) -> None:
        """An engine that fails just now must not keep the goal from its end."""
        self._node.guard(self._look_away, SKILL_LOOK_AT)()

    def _set_gaze(self, policy: str) -> None:
        (set_,) = self._node.set_parameters([Parameter(GAZE, value=policy)])
        if not set_.successful:
            raise ValueError(set_.reason)

    def _end(self, code: str, reason: str = "") -> None:
        """Of the goal that is looking, if there is one; what it changed is changed back."""
        now, self._now = self._now, None
        if now is not None:
            try:
                if now.held:
                    self._set_gaze(VIEWER)  # first: whoever is told of the end finds the gaze that was before
            finally:
                self._finish(now.handle, code, reason)

    def _finish(self, handle: ServerGoalHandle, code: str, reason: str = "") -> None:
        if code in (FAILED, NOT_SUPPORTED):
            self._node.get_logger().warning(f"{SKILL_LOOK_AT}: {reason}")

        def respond(handle: ServerGoalHandle) -> Any:
            if handle.is_cancel_requested:
                handle.canceled()
            elif code == DONE:
                handle.succeed()
            else:
                handle.abort()
            return self._skill.result(code, reason)

        self._server.finish(handle, respond)
