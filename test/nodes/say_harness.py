# SPDX-License-Identifier: Apache-2.0
"""For tests of `say`: a node that serves it with an engine of integers behind it, and a program that sends goals."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from flowact_msgs.action import Say
from flowact_msgs.msg import WordTime
from flowact_msgs.srv import Synthesize
from flowact_ros.engine.interfaces import AudioQueueFull
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode
from flowact_ros.nodes.convert import audio_message, to_duration, to_time
from flowact_ros.nodes.say_server import SayServer

PATIENCE_S = 90.0  # for things that must happen; nothing is asserted about speed


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

    def change(self, label: str = "", number: int = 0, node: str = "mouth") -> bool:
        client = self.node.create_client(ChangeState, f"{node}/change_state")
        self.until(client.service_is_ready)
        request = ChangeState.Request()
        request.transition.id, request.transition.label = number, label
        future = client.call_async(request)
        self.until(future.done)
        return future.result().success


VOICE_RATE = 16000  # of the stand-in: not ours, as a robot's own may be


class Voice(Node):
    """A robot's own synthesizer: half a second a word, each as loud as its number; it does as `answer` says."""

    def __init__(self, context: Any) -> None:
        super().__init__("voice", context=context)
        self.asked: list[str] = []
        self.answer: Callable[[Synthesize.Request, Synthesize.Response], Any] = self.speak
        self.create_service(Synthesize, topics.SYNTHESIZE, self._serve)

    def _serve(self, request: Synthesize.Request, response: Synthesize.Response) -> Synthesize.Response:
        self.asked.append(request.text)
        self.answer(request, response)
        return response

    def speak(self, request: Synthesize.Request, response: Synthesize.Response) -> None:
        words = request.text.split()
        levels = np.repeat(np.arange(1, len(words) + 1) / 100, VOICE_RATE // 2).astype(np.float32)
        response.audio = audio_message(levels, VOICE_RATE, to_time(0))
        spans = [
            (word.strip(".,!?"), to_duration(i / 2), to_duration((i + 1) / 2)) for i, word in enumerate(words)
        ]
        response.words = [WordTime(text=text, start=start, end=end) for text, start, end in spans]


@contextmanager
def say_program(*others: Callable[[Any], Any], mouth_kind: type[Mouth] = Mouth) -> Iterator[Caller]:
    """Mouth and `others` (made with the context) are spun by a thread of their own, the program by the test."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    mouth, node = mouth_kind("mouth", context=context), rclpy.create_node("program", context=context)
    beside = [other(context) for other in others]
    spinning, executor = (SingleThreadedExecutor(context=context) for _ in range(2))
    for served in (mouth, *beside):
        spinning.add_node(served)
    executor.add_node(node)
    for served in (mouth, *(n for n in beside if isinstance(n, FlowactNode))):
        served.trigger_configure()
        served.trigger_activate()
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
        for served in (mouth, *(n for n in beside if isinstance(n, FlowactNode))):
            served.stop()
        for part in (executor, spinning):
            part.shutdown(timeout_sec=1.0)
        for each in (node, mouth, *beside):
            each.destroy_node()
        context.try_shutdown()
