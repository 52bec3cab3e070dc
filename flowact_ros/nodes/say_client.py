# SPDX-License-Identifier: Apache-2.0
"""Has a running avatar say a text or an audio file, through the `say` action; what `flowact say` does."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from flowact_msgs.action import Say
from flowact_ros.launcher.resources import PROFILE_VARIABLES
from flowact_ros.launcher.shared_memory import sweep
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.nodes.process import close_participant

POLICIES = {"queue": Say.Goal.QUEUE, "interrupt": Say.Goal.INTERRUPT, "reject": Say.Goal.REJECT}
_PHASES = {
    Say.Feedback.QUEUED: "queued",
    Say.Feedback.PREPARING: "preparing",
    Say.Feedback.SPEAKING: "speaking",
}
_CODES = {getattr(Say.Result, name): name.lower() for name in dir(type(Say.Result)) if name.isupper()}


def say(
    pcm: np.ndarray | None,
    rate: int,
    *,
    text: str = "",
    namespace: str = topics.NAMESPACE,
    policy: str = "queue",
    priority: int = 0,
    utterance_id: str = "",
    timeout_s: float = 10.0,
) -> int:
    """Speaks float32 mono [T], or a text; prints progress; returns the exit status. Ctrl-C cancels: a barge-in.

    timeout_s: how long the avatar may say nothing at all, before and while it speaks.
    """
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        # Shared memory belongs to a user; by UDP an avatar of another one hears us as well.
        os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    sweep()
    # Not rclpy's handler: it would shut down what the cancel request has to go through.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("flowact_say", namespace=namespace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    client = ActionClient(node, Say, topics.SAY)
    try:
        goal = Say.Goal(text=text, policy=POLICIES[policy], priority=priority, utterance_id=utterance_id)
        if pcm is not None:
            goal.audio = audio_message(pcm, rate, to_time(node.get_clock().now().nanoseconds), last=True)
        name = node.resolve_service_name(topics.SAY)
        if not _wait_for_server(executor, client, timeout_s):
            print(
                f"error: no avatar answers at {name} within {timeout_s:g} s: is one running there "
                f"(flowact up, flowact demo), and is ROS_DOMAIN_ID the same?",
                file=sys.stderr,
            )
            return 1
        return _speak(executor, client, goal, Silence(timeout_s, name))
    finally:
        client.destroy()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        close_participant()


class Silence:
    """How long nothing was heard of an avatar that is there."""

    def __init__(self, most_s: float, name: str) -> None:
        self._most_s, self._name, self._heard = most_s, name, time.monotonic()

    def broken(self) -> None:
        """Something was heard."""
        self._heard = time.monotonic()

    def complaint(self) -> str:
        """Too long: what to look at. Else an empty text."""
        if time.monotonic() - self._heard < self._most_s:
            return ""
        return (
            f"there is an avatar at {self._name}, but nothing was heard of it for {self._most_s:g} s: it hangs (see "
            f"its log, flowact doctor), or belongs to another user or container and cannot share memory with this one: "
            f"run both as the same user, or both with FASTDDS_BUILTIN_TRANSPORTS=UDPv4"
        )


class Progress:
    """A line a phase, and behind "speaking" the words as they are spoken."""

    def __init__(self) -> None:
        self._phase: int | None = None
        self._word = ""
        self._open = False  # the line goes on

    def show(self, feedback: Say.Feedback) -> None:
        if feedback.phase != self._phase:
            self.end()
            self._phase = feedback.phase
            print(_PHASES.get(feedback.phase, str(feedback.phase)), flush=True)
        if feedback.word and feedback.word != self._word:
            print(f" {feedback.word}" if self._open else feedback.word, end="", flush=True)
            self._open = True
        self._word = feedback.word

    def end(self) -> None:
        """What is printed next begins a line."""
        if self._open:
            print(flush=True)
        self._open = False


def _wait_for_server(executor: SingleThreadedExecutor, client: ActionClient, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if client.server_is_ready():
            return True
        executor.spin_once(timeout_sec=0.1)
    return client.server_is_ready()


def _speak(executor: SingleThreadedExecutor, client: ActionClient, goal: Any, silence: Silence) -> int:
    progress = Progress()

    def on_feedback(message: Any) -> None:
        silence.broken()
        progress.show(message.feedback)

    sent = client.send_goal_async(goal, feedback_callback=on_feedback)
    handle: Any = None
    cancelled = threading.Event()
    result = None
    while result is None or not result.done():
        try:
            executor.spin_once(timeout_sec=0.1)
        except KeyboardInterrupt:
            if handle is None or cancelled.is_set():
                return 130
            cancelled.set()
            handle.cancel_goal_async()
        complaint = silence.complaint()
        if complaint:
            progress.end()
            print(f"error: {complaint}", file=sys.stderr)
            return 1
        if handle is None and sent.done():
            handle = sent.result()
            silence.broken()
            if not handle.accepted:
                print("error: the goal was not accepted", file=sys.stderr)
                return 1
            result = handle.get_result_async()
    progress.end()
    answer = result.result().result
    spoken = answer.spoken.sec + answer.spoken.nanosec / 1e9
    if answer.error_code != Say.Result.NONE:
        reason = f"{_CODES.get(answer.error_code, answer.error_code)}: {answer.error_msg}"
        print(f"error: {reason} ({spoken:.2f} s spoken)", file=sys.stderr)
        return 1
    print(f"spoken: {spoken:.2f} s", flush=True)
    return 0
