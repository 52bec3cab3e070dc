# SPDX-License-Identifier: Apache-2.0
"""`/skill/look_at` as an action that follows a point. Its package is not installed here: an action of ours stands in
for it, with the fields of plain objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from ros4hri_stand_ins import install
from ros_harness import ABORTED, CANCELED, PATIENCE_S, SUCCEEDED, spun_generator
from say_harness import Caller, Mouth, say_program

from flowact_msgs.action import Say
from flowact_ros.engine.looking import FOLLOW, POLICIES, VIEWER, WANDER
from flowact_ros.nodes import skill_look_at, skills
from flowact_ros.nodes.look_point import NORMALIZED, Screen
from flowact_ros.nodes.params import Param
from flowact_ros.nodes.skill_look_at import (
    GAZE,
    SKILL_LOOK_AT,
    LookAtServer,
    LookSkill,
    Wanted,
    look_skill_of,
    ros4hri_look_at,
)

pytestmark = pytest.mark.usefixtures("within")
OURS = LookSkill(
    Say,  # its text is the policy, its utterance_id the frame of a point at the right edge
    wanted=lambda goal: Wanted(goal.text, point(goal.utterance_id), goal.priority),
    result=lambda code, reason: Say.Result(error_msg=f"{code} {reason}".strip()),
)


def point(frame: str) -> PointStamped:
    message = PointStamped()
    message.header.frame_id, message.point.x = frame, 1.0
    return message


def test_the_fields_of_ros4hri(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ros4hri_look_at() is None

    class LookAt:
        class Result:
            def __init__(self) -> None:
                self.result = SimpleNamespace(error_code=0, error_msg="")

    codes = SimpleNamespace(ROS_ENOERR=0, ROS_EINTR=4, ROS_ECANCELED=125, ROS_ENOTSUP=134, ROS_EOTHER=255)
    install(monkeypatch, "interaction_skills", "action", LookAt=LookAt)
    install(monkeypatch, "std_skills", "msg", Result=codes)
    skill = ros4hri_look_at()
    assert skill is not None and skill.kind is LookAt
    goal = SimpleNamespace(meta=SimpleNamespace(priority=128), policy="glance", target=point("screen"))
    assert look_skill_of(LookAt, codes).wanted(goal) == Wanted("glance", point("screen"), 128)
    told = skill.result("ROS_ENOTSUP", "why").result
    assert (told.error_code, told.error_msg) == (134, "why")


class Head(Mouth):
    """Looks, too, as the generator does."""

    PARAMETERS = (Param(GAZE, FOLLOW, "", choices=POLICIES, live=True),)

    def load(self) -> None:
        super().load()
        self.look_at = LookAtServer(self, OURS)
        self.looks: list[tuple[float, float]] = []
        self.away = 0

    def begin(self) -> None:
        super().begin()
        screen = Screen(0.5, 0.3, 0.5)
        self.look_at.attach(lambda target: self.looks.append(screen.place(target)), self._look_away)

    def _look_away(self) -> None:
        self.away += 1

    def end(self) -> None:
        self.look_at.detach()
        super().end()


@pytest.fixture
def caller() -> Iterator[Caller]:
    with say_program(mouth_kind=Head) as caller:
        caller.client = ActionClient(caller.node, Say, SKILL_LOOK_AT)
        caller.until(caller.client.server_is_ready)
        yield caller


def ask(caller: Caller, policy: str, frame: str = NORMALIZED, priority: int = 128) -> Callable[[], Any]:
    """Returns what waits for the end of it: its status and its code with the reason."""
    (handle,) = caller.send([Say.Goal(text=policy, utterance_id=frame, priority=priority)])
    asked = handle.get_result_async()

    def ended() -> tuple[int, str]:
        caller.until(asked.done)
        return asked.result().status, asked.result().result.error_msg

    ended.handle = handle  # type: ignore[attr-defined]
    return ended


def test_a_target_is_followed_until_the_goal_is_cancelled(caller: Caller) -> None:
    head = caller.mouth
    tracking = ask(caller, "")
    caller.until(lambda: len(head.looks) > 3)  # again and again: a point grows old
    assert set(head.looks) == {(1.0, 0.0)} and not head.away
    caller.until(tracking.handle.cancel_goal_async().done)
    assert tracking() == (CANCELED, "ROS_ECANCELED cancelled")
    assert head.away == 1
    count = len(head.looks)
    assert ask(caller, "reset")() == (SUCCEEDED, "ROS_ENOERR")
    assert len(head.looks) == count


def test_a_glance_ends_by_itself_and_changes_nothing(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    head = caller.mouth
    monkeypatch.setattr(skill_look_at, "GLANCE_S", 600.0)  # until it was seen
    assert ask(caller, "reset")() == (SUCCEEDED, "ROS_ENOERR")
    assert head.params[GAZE] == VIEWER
    glance = ask(caller, "Glance")
    assert head.params[GAZE] == FOLLOW  # what looks at the viewer alone looks at no point
    caller.until(lambda: head.looks)
    assert head.look_at._now.until > time.monotonic()
    head.look_at._now.until = time.monotonic() + 0.2
    assert glance() == (SUCCEEDED, "ROS_ENOERR")
    assert head.looks and head.params[GAZE] == VIEWER and head.away == 2


def test_policies_are_the_parameter(caller: Caller) -> None:
    head = caller.mouth
    for policy, gaze in {"random": WANDER, "social": FOLLOW, "reset": VIEWER, "auto": FOLLOW}.items():
        assert ask(caller, policy)() == (SUCCEEDED, "ROS_ENOERR")
        assert head.params[GAZE] == gaze
    assert not head.looks


def test_one_looks_at_a_time(caller: Caller) -> None:
    first = ask(caller, "tracking", priority=10)
    assert ask(caller, "tracking", priority=9)() == (
        ABORTED,
        "ROS_EOTHER a goal of priority 10 is looking, this one has 9",
    )
    assert ask(caller, "tracking", frame="map", priority=11)()[0] == ABORTED  # takes nobody's place
    second = ask(caller, "tracking", priority=10)
    assert first() == (ABORTED, "ROS_EINTR another goal took its place")
    assert ask(caller, "social", priority=200)() == (SUCCEEDED, "ROS_ENOERR")
    assert second() == (ABORTED, "ROS_EINTR another goal took its place")


@pytest.mark.parametrize(
    ("policy", "frame", "says"),
    [
        (
            "stare",
            NORMALIZED,
            "ROS_ENOTSUP policy is 'stare': must be empty or one of tracking, glance, random",
        ),
        ("glance", "", "ROS_EOTHER policy glance needs a target"),
        ("", "map", "ROS_EOTHER the point is in the frame 'map': must be 'screen'"),
    ],
)
def test_what_cannot_be_is_told(caller: Caller, policy: str, frame: str, says: str) -> None:
    status, told = ask(caller, policy, frame)()
    assert status == ABORTED and told.startswith(says)
    assert not caller.mouth.looks


def test_an_avatar_that_is_not_active_says_so(caller: Caller) -> None:
    tracking = ask(caller, "tracking")
    assert caller.change("deactivate")
    assert tracking() == (ABORTED, "ROS_EOTHER the avatar was deactivated")
    assert ask(caller, "tracking")() == (ABORTED, "ROS_EOTHER the avatar is not active")


def test_the_generator_looks(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skills, "ros4hri_look_at", lambda: OURS)
    with spun_generator(reference) as generator:
        assert generator.trigger_activate() == TransitionCallbackReturn.SUCCESS
        node = rclpy.create_node("program", context=generator.context)
        executor = SingleThreadedExecutor(context=generator.context)
        executor.add_node(node)
        client = ActionClient(node, Say, SKILL_LOOK_AT)

        def until(condition: Callable[[], Any]) -> None:
            end = time.monotonic() + PATIENCE_S
            while not condition():
                assert time.monotonic() < end
                executor.spin_once(timeout_sec=0.05)

        until(client.server_is_ready)
        sent = client.send_goal_async(Say.Goal(text="tracking", utterance_id=NORMALIZED))
        until(lambda: generator._looking._used == (1.0, 0.0))
        until(sent.done)
        until(sent.result().cancel_goal_async().done)
        until(lambda: generator._looking._used is None)
        ended = sent.result().get_result_async()
        until(ended.done)
        assert ended.result().status == CANCELED
        executor.shutdown()
        node.destroy_node()
