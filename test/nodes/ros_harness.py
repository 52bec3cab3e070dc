# SPDX-License-Identifier: Apache-2.0
"""For tests with real nodes: starts them as processes in a domain of their own, and listens to what they publish."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from flowact_msgs.action import Say
from flowact_msgs.msg import (
    AudioChunk,
    AvatarState,
    ChunkRecord,
    Instruction,
    Motion,
    StreamMetrics,
    Transcript,
)
from flowact_ros.launcher.bringup import environment
from flowact_ros.launcher.supervisor import NodeSpec, Supervisor
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_array, audio_message, from_time, to_time

if TYPE_CHECKING:
    from flowact_ros.nodes.avatar_generator import AvatarGenerator

PATIENCE_S = 90.0  # for things that must happen; nothing is asserted about speed
BOTH_ENDS_S = 0.3  # this one has found the other; until the other has found this one, too
LONG_S = 60.0  # of speech that is to be cut short: a busy machine may need half of it
FRAME_NS = 40_000_000
SUCCEEDED, CANCELED, ABORTED = 4, 5, 6  # action_msgs/GoalStatus
# Of what is latched with a depth of one, a watcher that is late would see the last change only.
EVERY_CHANGE_QOS = QoSProfile(depth=200, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WATCH_QOS = {
    topics.IMAGE: topics.IMAGE_WATCH_QOS,
    topics.AUDIO: topics.AUDIO_DEEP_QOS,
    topics.STATE: EVERY_CHANGE_QOS,
    topics.ROBOT_SPEAKING: EVERY_CHANGE_QOS,
}
OUTPUTS = {
    topics.IMAGE: Image,
    topics.AUDIO: AudioChunk,
    topics.STATE: AvatarState,
    topics.ROBOT_SPEAKING: Bool,
    topics.MOTION: Motion,
    topics.CAPTIONS: Transcript,
    topics.CHUNKS: ChunkRecord,
    topics.METRICS: StreamMetrics,
    topics.INSTRUCTION: Instruction,
    topics.DIAGNOSTICS: DiagnosticArray,
}


class Watcher:
    """A node of this process that keeps what arrives, spun by a thread. Topics are subscribed to when asked for."""

    def __init__(self, namespace: str, names: tuple[str, ...]) -> None:
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node("watcher", namespace=namespace, context=self._context)
        self.seen: dict[str, list[Any]] = {name: [] for name in names}
        for name in names:
            qos = WATCH_QOS.get(name, topics.QOS[name])
            self.node.create_subscription(OUTPUTS[name], name, self.seen[name].append, qos)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def do(self, action: Callable[[], Any]) -> Any:
        """Runs `action` in the spinning thread: an answer must not be read before its request is noted down."""
        task = self._executor.create_task(action)
        self.until(task.done, "a request")
        return task.result()

    def watch_jpegs(self) -> list[CompressedImage]:
        jpegs: list[CompressedImage] = []
        self.node.create_subscription(
            CompressedImage, topics.COMPRESSED, jpegs.append, topics.IMAGE_WATCH_QOS
        )
        return jpegs

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {what}"
            time.sleep(0.02)
        return value

    def publisher(self, kind: type, name: str) -> Any:
        """A publisher that somebody listens to; of audio as deep as a program needs that sends all at once."""
        qos = topics.AUDIO_DEEP_QOS if kind is AudioChunk else topics.QOS[name]
        publisher = self.node.create_publisher(kind, name, qos)
        self.until(publisher.get_subscription_count, f"a listener on {name}")
        time.sleep(BOTH_ENDS_S)
        return publisher

    def call(self, kind: type, name: str, request: Any, again_s: float = 15.0) -> Any:
        """The answer. Without one for `again_s` it is asked again, unless that is 0: where it matters how often.

        rmw_fastrtps drops an answer when its server has not found the client within 0.1 s.
        """
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_S), f"no service {name}"
        time.sleep(BOTH_ENDS_S)
        asked = [self.do(lambda: client.call_async(request))]
        since = time.monotonic()

        def answer() -> Any:
            nonlocal since
            if again_s and time.monotonic() - since > again_s:
                asked.append(self.do(lambda: client.call_async(request)))
                since = time.monotonic()
            return next((future for future in asked if future.done()), None)

        future = self.until(answer, f"an answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def transition(self, node: str, number: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = number
        return self.call(ChangeState, f"{node}/change_state", request, again_s=0.0).success

    def state(self, node: str) -> str:
        return self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label

    def say(self, goal: Say.Goal) -> Goal:
        return Goal(self, goal)

    @cached_property
    def say_client(self) -> ActionClient:
        """One for all goals: the server finds it once. Each word is a message, and those of a sentence wait here."""
        client = ActionClient(self.node, Say, topics.SAY, feedback_sub_qos_profile=QoSProfile(depth=200))
        assert client.wait_for_server(PATIENCE_S), "no action server"
        time.sleep(BOTH_ENDS_S)
        return client

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self._context.try_shutdown()


class Goal:
    """A `say` goal on its way."""

    def __init__(self, watcher: Watcher, goal: Say.Goal) -> None:
        self._watcher = watcher
        self.feedback: list[Any] = []
        client = watcher.say_client
        assert client.wait_for_server(PATIENCE_S), "no action server"
        sent = watcher.do(lambda: client.send_goal_async(goal, self._on_feedback))
        watcher.until(sent.done, "an answer to the goal")
        self.handle = sent.result()
        assert self.handle.accepted
        self._result = watcher.do(self.handle.get_result_async)

    def _on_feedback(self, message: Any) -> None:
        self.feedback.append(message.feedback)

    def cancel(self) -> bool:
        future = self._watcher.do(self.handle.cancel_goal_async)
        self._watcher.until(future.done, "an answer to the cancel request")
        return bool(future.result().goals_canceling)

    def done(self) -> bool:
        return self._result.done()

    def result(self) -> tuple[int, Any]:
        """(goal status, result)"""
        self._watcher.until(self._result.done, "the goal's result")
        answer = self._result.result()
        return answer.status, answer.result


def generator_spec(reference: Path, **parameters: Any) -> NodeSpec:
    given = {"preset": "debug", "reference_image": str(reference), "threads": 1, **parameters}
    return NodeSpec("avatar_generator", "flowact_ros.nodes.avatar_generator", parameters=given)


def supervise(specs: list[NodeSpec], python_path: str, lines: list[str]) -> Supervisor:
    added = {**environment(private=True), "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    added["ROS_DOMAIN_ID"] = os.environ["ROS_DOMAIN_ID"]
    return Supervisor(specs, environment=added, log=lines.append)


@contextmanager
def spun_generator(
    reference: Path, namespace: str = "", make: Callable[..., AvatarGenerator] | None = None
) -> Iterator[AvatarGenerator]:
    """A configured generator in this process, in the domain of ROS_DOMAIN_ID, spun by a thread; make: its class."""
    from flowact_ros.nodes.avatar_generator import AvatarGenerator

    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    values = {"preset": "debug", "threads": 1, "reference_image": str(reference)}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = (make or AvatarGenerator)(context=context, namespace=namespace, parameter_overrides=overrides)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    stop.set()
    thread.join()
    node.stop()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def loud(seconds: float, rate: int = 24000, seed: int = 0) -> np.ndarray:
    """Sound without a single zero sample, exact in 16 bits: what is inserted between its samples can be told."""
    rng = np.random.default_rng(seed)
    size = int(seconds * rate)
    return (rng.integers(1, 12000, size) * rng.choice([-1, 1], size) / 32768).astype(np.float32)


def speech_messages(pcm: np.ndarray, utterance_id: str, rate: int = 24000, each_s: float = 0.04) -> list[AudioChunk]:
    step = round(rate * each_s)
    starts = range(0, len(pcm), step)
    return [
        audio_message(
            pcm[at : at + step],
            rate,
            to_time(0),
            first_sample=at,
            sequence=i,
            utterance_id=utterance_id,
            last=at + step >= len(pcm),
        )
        for i, at in enumerate(starts)
    ]


def spoken(audio: list[AudioChunk], utterance_id: str) -> np.ndarray:
    """All non-zero samples that left under an utterance's name."""
    parts = [audio_array(message)[0] for message in audio if message.utterance_id == utterance_id]
    pcm = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return pcm[pcm != 0]


def stamps(messages: list[Any]) -> list[int]:
    return [from_time(message.header.stamp) for message in messages]


def speak(watcher: Watcher, pcm: np.ndarray, name: str, rate: int = 24000) -> None:
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    for message in speech_messages(pcm, name, rate):
        publisher.publish(message)
        time.sleep(0.002)
    # Converted, it may lack what a resampler's edges are.
    samples = len(pcm) if rate == 24000 else len(pcm) * 24000 // rate - 400
    watcher.until(lambda: whole(watcher, name, samples), f"the end of {name}")
    watcher.node.destroy_publisher(publisher)


def over(watcher: Watcher, name: str) -> bool:
    audio = watcher.seen[topics.AUDIO]
    heard = [i for i, message in enumerate(audio) if message.utterance_id == name]
    return bool(heard) and len(audio) > heard[-1] + 30


def whole(watcher: Watcher, name: str, samples: int) -> bool:
    """It is over, and so much of it was heard: a generator that is kept from its messages makes a pause before."""
    return over(watcher, name) and len(spoken(list(watcher.seen[topics.AUDIO]), name)) >= samples


def goal(pcm: np.ndarray, **fields: Any) -> Say.Goal:
    """A goal that speaks 24 kHz samples."""
    return Say.Goal(audio=audio_message(pcm, 24000, to_time(0), last=True), **fields)
