# SPDX-License-Identifier: Apache-2.0
"""Every goal of `say` and every lifecycle request is answered exactly once, however many there are; no goal is too
long. The engine is a fake: what is asked here is who hears of the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from ros_harness import ABORTED, CANCELED, SUCCEEDED, goal, loud

from flowact_msgs.action import Say
from flowact_ros.engine.interfaces import AudioQueueFull
from flowact_ros.nodes import deferred_server, say_server, topics
from flowact_ros.nodes.base import FlowactNode
from flowact_ros.nodes.deferred_server import Pace
from flowact_ros.nodes.say_server import SayServer

pytestmark = pytest.mark.usefixtures("within")
PATIENCE_S = 30.0


class Engine:
    """What `SayServer` needs of a session: takes 120 s of speech, forgets what is interrupted."""

    def __init__(self) -> None:
        self.queued: list[tuple[str, np.ndarray, bool]] = []
        self.heard: dict[str, list[np.ndarray]] = {}
        self.ended: list[str] = []

    @property
    def queued_s(self) -> float:
        return sum(len(pcm) for _, pcm, _ in self.queued) / 24000

    def push_audio(self, pcm: np.ndarray, rate: int, *, utterance_id: str, last: bool) -> None:
        if self.queued_s + len(pcm) / 24000 > 120.0:
            raise AudioQueueFull("push it later")
        assert rate == 24000
        self.queued.append((utterance_id, pcm, last))

    def interrupt(self, utterance_id: str | None = None) -> bool:
        self.queued = [item for item in self.queued if utterance_id not in (None, item[0])]
        return True

    def speak(self, seconds: float, frame_left: Callable[[Any], None]) -> None:
        """What waits leaves frame by frame, much faster than a mouth."""
        for _ in range(round(seconds * 25)):
            name = ""
            if self.queued:
                name, pcm, last = self.queued.pop(0)
                self.heard.setdefault(name, []).append(pcm[:960])
                if len(pcm) > 960:
                    self.queued.insert(0, (name, pcm[960:], last))
                elif last:
                    self.ended.append(name)
            frame_left(SimpleNamespace(utterance_id=name))


class Mouth(FlowactNode):
    def load(self) -> None:
        self.engine, self.speaking = Engine(), False
        self.say = SayServer(self)
        self.sent: Counter[int] = Counter()
        send = self.say._server._send_result_response

        def count(header: Any, future: Any) -> None:
            self.sent[id(future)] += 1  # one a goal, kept by the server
            send(header, future)

        self.say._server._send_result_response = count

    def begin(self) -> None:
        self.say.attach(self.engine, lambda: self.speaking, lambda name: None)

    def end(self) -> None:
        self.say.detach()


class Caller:
    """A program that sends goals; it reads its answers only every `nap_s`, and is asleep else."""

    def __init__(self, node: Any, executor: SingleThreadedExecutor, mouth: Mouth) -> None:
        self.node, self.executor, self.mouth = node, executor, mouth
        self.nap_s = 0.0
        self.client = ActionClient(node, Say, topics.SAY)
        self.until(self.client.server_is_ready)

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, self.where()
            if self.nap_s:
                time.sleep(self.nap_s)
                for _ in range(30):
                    self.executor.spin_once(timeout_sec=0.0)
            else:
                self.executor.spin_once(timeout_sec=0.02)

    def where(self) -> str:
        server, client = self.mouth.say._server, self.client
        there = f"to accept {len(server._requests)}, to answer {len(server._due)}"
        here = f"unanswered {len(client._pending_goal_requests)}, {len(client._pending_result_requests)}"
        return f"goals known {len(server._goal_handles)}, {there}; here {here}"

    def send(self, goals: list[Say.Goal]) -> list[Any]:
        """Their handles, once all are accepted."""
        sent = [self.client.send_goal_async(item) for item in goals]
        self.until(lambda: all(future.done() for future in sent))
        assert all(future.result().accepted for future in sent)
        return [future.result() for future in sent]

    def results(self, handles: list[Any]) -> list[tuple[int, Say.Result]]:
        asked = [handle.get_result_async() for handle in handles]
        self.until(lambda: all(future.done() for future in asked))
        assert set(self.mouth.sent.values()) == {1}
        return [(future.result().status, future.result().result) for future in asked]

    def change(self, label: str = "", number: int = 0) -> bool:
        client = self.node.create_client(ChangeState, "mouth/change_state")
        self.until(client.service_is_ready)
        request = ChangeState.Request()
        request.transition.id, request.transition.label = number, label
        future = client.call_async(request)
        self.until(future.done)
        return future.result().success


@pytest.fixture
def caller() -> Iterator[Caller]:
    """The node is spun by a thread of its own, the program by the test."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    mouth, node = Mouth("mouth", context=context), rclpy.create_node("program", context=context)
    spinning, executor = (SingleThreadedExecutor(context=context) for _ in range(2))
    spinning.add_node(mouth)
    executor.add_node(node)
    mouth.trigger_configure()
    mouth.trigger_activate()
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            spinning.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield Caller(node, executor, mouth)
    finally:
        stop.set()
        thread.join()
        mouth.stop()
        for part in (executor, spinning):
            part.shutdown(timeout_sec=1.0)
        node.destroy_node()
        mouth.destroy_node()
        context.try_shutdown()


def test_a_hundred_goals_that_end_at_once_reach_a_busy_client(caller: Caller) -> None:
    """A client keeps ten answers that it has not read: more of them at once would be lost without a word."""
    handles = caller.send([goal(loud(0.2), utterance_id="same") for _ in range(100)])
    caller.nap_s = 0.4
    caller.mouth.say.interrupted("by the interrupt service")
    answers = caller.results(handles)
    assert Counter((status, result.error_code) for status, result in answers) == {
        (ABORTED, Say.Result.INTERRUPTED): 100
    }


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
        engine.speak(0.2, say.frame_left)
        caller.executor.spin_once(timeout_sec=0.0)
        assert engine.queued_s > 5.0 or engine.ended or len(say._utterances[0].rest) == 0
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
