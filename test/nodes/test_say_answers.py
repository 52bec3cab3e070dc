# SPDX-License-Identifier: Apache-2.0
"""Every goal of `say` and every lifecycle request is answered exactly once, however many there are; no goal is too
long. The engine is a fake: what is asked here is who hears of the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.srv import GetState
from ros_harness import ABORTED, CANCELED, SUCCEEDED, goal, loud
from say_harness import Caller, say_program

from flowact_msgs.action import Say
from flowact_ros.nodes import deferred_server, say_server
from flowact_ros.nodes.deferred_server import Pace

pytestmark = pytest.mark.usefixtures("within")

@pytest.fixture
def caller() -> Iterator[Caller]:
    with say_program() as caller:
        yield caller


@pytest.mark.slow
def test_a_hundred_goals_that_end_at_once_reach_a_busy_client(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client keeps ten answers that it has not read: more of them at once would be lost without a word."""
    monkeypatch.setattr(say_server, "START_TIMEOUT_S", 600.0)  # nothing of them leaves, however long they are sent
    handles = caller.send([goal(loud(0.2), utterance_id="same") for _ in range(100)])
    caller.nap_s = 0.4
    caller.mouth.say.interrupted("by the interrupt service")
    answers = caller.results(handles)
    assert Counter((status, result.error_code) for status, result in answers) == {
        (ABORTED, Say.Result.INTERRUPTED): 100
    }


@pytest.mark.slow
def test_hundreds_of_goals_one_after_the_other(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller.mouth.say._server, "_answers", Pace(5, 30.0))  # this client is not busy
    handles = caller.send([goal(loud(0.2, seed=i), utterance_id=f"{i}") for i in range(200)])
    asked = [handle.get_result_async() for handle in handles]
    for _ in range(50):  # while they are being spoken
        caller.mouth.engine.speak(1.0, caller.mouth.say.frame_left)
        caller.executor.spin_once(timeout_sec=0.02)
    caller.until(lambda: all(future.done() for future in asked))
    assert {(future.result().status, future.result().result.error_code) for future in asked} == {
        (SUCCEEDED, Say.Result.NONE)
    }
    assert caller.mouth.engine.ended == [f"{i}" for i in range(200)]


def test_cancelled_refused_and_deactivated_goals_are_answered(caller: Caller) -> None:
    queued = caller.send([goal(loud(0.2)) for _ in range(12)])
    refused = caller.send([goal(loud(0.2), policy=Say.Goal.REJECT) for _ in range(8)])
    assert {result.error_code for _, result in caller.results(refused)} == {Say.Result.REJECTED}
    cancels = [handle.cancel_goal_async() for handle in queued[:6]]
    caller.until(lambda: all(future.done() for future in cancels))
    assert caller.change("deactivate")
    answers = caller.results(queued)
    assert {status for status, _ in answers[:6]} == {CANCELED}
    assert {(status, result.error_code) for status, result in answers[6:]} == {(ABORTED, Say.Result.NOT_ACTIVE)}
    late = caller.send([goal(loud(0.2))])
    assert caller.results(late)[0][1].error_code == Say.Result.NOT_ACTIVE


def test_long_goals_are_taken_in_pieces(caller: Caller) -> None:
    """200 s, and another behind it: nothing is refused, nothing is lost, the order stays."""
    long, short = loud(200.0, seed=1), loud(1.0, seed=2)
    handles = caller.send([goal(long, utterance_id="long"), goal(short, utterance_id="short")])
    engine, say = caller.mouth.engine, caller.mouth.say
    assert 50.0 < engine.queued_s <= say_server.AHEAD_S
    asked = [handle.get_result_async() for handle in handles]
    while not engine.ended[-1:] == ["short"]:
        engine.speak(2.0, say.frame_left)
        # It gives more at its own time, and before all of what it gave has left.
        caller.until(lambda: engine.queued_s > 5.0 or engine.ended or len(say._utterances[0].rest) == 0)
        caller.executor.spin_once(timeout_sec=say_server.TEND_S)
    engine.speak(1.0, say.frame_left)
    caller.until(lambda: all(future.done() for future in asked))
    assert [future.result().status for future in asked] == [SUCCEEDED] * 2
    assert asked[0].result().result.spoken.sec == 200
    np.testing.assert_array_equal(np.concatenate(engine.heard["long"]), long)
    np.testing.assert_array_equal(np.concatenate(engine.heard["short"]), short)
    assert engine.ended == ["long", "short"]


@pytest.mark.parametrize("how", ["sounds", "waits"])
def test_speech_of_the_topic_counts(caller: Caller, how: str) -> None:
    """REJECT and INTERRUPT mean whatever is being said, also what only waits to be."""
    caller.mouth.speaking = how == "sounds"
    if how == "waits":
        caller.mouth.engine.push_audio(loud(1.0), 24000, utterance_id="of the topic", last=True)
    ((_, result),) = caller.results(caller.send([goal(loud(0.2), policy=Say.Goal.REJECT)]))
    assert result.error_code == Say.Result.REJECTED
    caller.send([goal(loud(0.2), policy=Say.Goal.INTERRUPT, utterance_id="instead")])
    caller.until(lambda: [name for name, *_ in caller.mouth.engine.queued] == ["instead"])


@pytest.mark.parametrize("wrong", [{"label": "configure"}, {"number": 1}, {"number": 77}, {"label": "fly"}])
def test_lifecycle_requests_that_cannot_be_are_answered(caller: Caller, wrong: dict[str, Any]) -> None:
    """Configure while active, and what is no transition at all: no, instead of silence."""
    assert caller.change(**wrong) is False
    client = caller.node.create_client(GetState, "mouth/get_state")
    future = client.call_async(GetState.Request())
    caller.until(future.done)
    assert future.result().current_state.label == "active"
    assert caller.change("deactivate") and caller.change("activate")


def test_the_pace() -> None:
    now = [0.0]
    pace = Pace(5, 10.0, lambda: now[0])
    assert [pace.allows() for _ in range(7)] == [True] * 5 + [False] * 2
    now[0] = 0.25
    assert [pace.allows() for _ in range(3)] == [True, True, False]
    now[0] = 100.0
    assert sum(pace.allows() for _ in range(20)) == 5
    for _ in range(50):  # requests one after the other, for two seconds: who sends does not read
        now[0] += 0.04
        pace.requested()
    assert not pace.allows()
    for _ in range(4):  # but one now and then
        now[0] += 0.5
        pace.requested()
        assert pace.allows()
    # What a client has not read after half a second fits into what it keeps.
    assert deferred_server.AT_ONCE + 0.5 * deferred_server.RESULTS_S <= 10
