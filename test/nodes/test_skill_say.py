# SPDX-License-Identifier: Apache-2.0
"""`/skill/say` is our own `say` under another name. Its package is not installed here: an action of ours stands in for
it, and its fields are those of plain objects."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.action import ActionClient
from ros_harness import ABORTED, CANCELED, SUCCEEDED
from say_harness import Caller, Mouth, Voice, say_program

from flowact_msgs.action import Say
from flowact_ros.nodes import sentence_maker
from flowact_ros.nodes.skill_say import SKILL_SAY, Skill, SkillServer, ros4hri_say, skill_of

pytestmark = pytest.mark.usefixtures("within")
OURS = Skill(
    Say,
    goal=lambda goal: Say.Goal(text=goal.text, priority=goal.priority),
    feedback=lambda feedback: feedback,
    result=lambda code, reason: Say.Result(error_code=code, error_msg=reason),
)


def test_the_fields_of_ros4hri() -> None:
    assert ros4hri_say() is None

    class Kind:
        class Feedback:
            def __init__(self) -> None:
                self.feedback = SimpleNamespace(data_str="", data_float=0.0)

        class Result:
            def __init__(self) -> None:
                self.result = SimpleNamespace(error_code=0, error_msg="")

    skill = skill_of(Kind, SimpleNamespace(ROS_ENOERR=0, ROS_ECANCELED=125, ROS_EOTHER=999))
    asked = skill.goal(SimpleNamespace(input="Hello.", meta=SimpleNamespace(priority=128), person_id=""))
    assert (asked.text, asked.priority, asked.policy) == ("Hello.", 128, Say.Goal.QUEUE)
    told = skill.feedback(Say.Feedback(word="Hello", frames=7)).feedback
    assert (told.data_str, told.data_float) == ("Hello", 7.0)
    codes = [Say.Result.NONE, Say.Result.INTERRUPTED, Say.Result.NO_SYNTHESIZER]
    assert [skill.result(code, "why").result.error_code for code in codes] == [0, 125, 999]
    assert skill.result(Say.Result.NONE, "why").result.error_msg == "why"


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    monkeypatch.setattr(sentence_maker, "SERVICE_WAIT_S", 0.3)
    load = Mouth.load

    def load_both(mouth: Mouth) -> None:
        load(mouth)
        SkillServer(mouth, OURS)

    monkeypatch.setattr(Mouth, "load", load_both)
    with say_program(Voice) as caller:
        caller.client = ActionClient(caller.node, Say, SKILL_SAY)
        caller.until(caller.client.server_is_ready)
        yield caller


def result(caller: Caller, handle: Any) -> tuple[int, int]:
    asked = handle.get_result_async()
    caller.until(lambda: caller.mouth.engine.speak(0.2, caller.mouth.say.frame_left) or asked.done())
    return asked.result().status, asked.result().result.error_code


def test_it_is_said(caller: Caller) -> None:
    words: list[str] = []
    future = caller.client.send_goal_async(
        Say.Goal(text="One two. Three."), lambda message: words.append(message.feedback.word)
    )
    caller.until(future.done)
    assert result(caller, future.result()) == (SUCCEEDED, Say.Result.NONE)
    caller.until(lambda: {"One", "two", "Three"} <= set(words))  # the last ones may come behind the result


def test_it_is_cancelled_and_refused(caller: Caller) -> None:
    (handle,) = caller.send([Say.Goal(text="One two three four five six seven eight.")])
    caller.until(lambda: caller.mouth.engine.queued)
    cancel = handle.cancel_goal_async()
    caller.until(cancel.done)
    assert result(caller, handle) == (CANCELED, Say.Result.INTERRUPTED)
    (handle,) = caller.send([Say.Goal(text="  ")])
    assert result(caller, handle) == (ABORTED, Say.Result.NOTHING_TO_SAY)
    assert not caller.mouth.engine.queued
