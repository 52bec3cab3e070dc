# SPDX-License-Identifier: Apache-2.0
"""A user in front of a microphone who says what a script has: `mic` without a gap, as quiet as a room in between."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from flowact_msgs.msg import AudioChunk, Transcript
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import NANOSECONDS, audio_message, to_time
from flowact_ros.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from rclpy.node import Node

CHUNK_S = SAMPLES_PER_FRAME / SAMPLE_RATE
ROOM = 1e-4  # of full scale: the noise of a quiet room
HANGOVER_S = 0.6  # after the voice, when a recogniser would have taken it for over


class UserVoice:
    """Publishes from construction until `close`; sound leaves when a microphone would have heard the last of it."""

    def __init__(self, node: Node, *, transcribes: bool) -> None:
        """transcribes: publishes what is said as `transcript`, in place of a recogniser."""
        self._node = node
        self._mic = node.create_publisher(AudioChunk, topics.MIC, topics.AUDIO_DEEP_QOS)
        name, qos = topics.TRANSCRIPT, topics.QOS[topics.TRANSCRIPT]
        self._transcripts = node.create_publisher(Transcript, name, qos) if transcribes else None
        self._lock = threading.Condition()
        self._voice = np.zeros(0, np.float32)  # still to be said
        self._began_s = 0.0  # when the first sample of it was heard
        self._number = 0
        self._stop = False
        self._thread = threading.Thread(target=self._speak, name="user", daemon=True)
        self._thread.start()

    @property
    def heard(self) -> bool:
        """Somebody listens to `mic`."""
        return self._mic.get_subscription_count() > 0

    def say(self, pcm: np.ndarray) -> tuple[float, float]:
        """Speaks float32 [T] at SAMPLE_RATE to its end. When it began and ended, in seconds of `time.monotonic`."""
        with self._lock:
            self._began_s = 0.0
            self._voice = pcm
            self._lock.wait_for(lambda: not len(self._voice) or self._stop)
            began_s = self._began_s
        return began_s, began_s + len(pcm) / SAMPLE_RATE

    def transcribe(self, words: str, began_s: float, ended_s: float) -> None:
        """What was just said as text, when a recogniser could have it; nothing where there is one."""
        if self._transcripts is None or not words:
            return
        time.sleep(max(0.0, ended_s + HANGOVER_S - time.monotonic()))
        now_ns, now_s = self._node.get_clock().now().nanoseconds, time.monotonic()
        began_ns, ended_ns = (now_ns - round((now_s - at) * NANOSECONDS) for at in (began_s, ended_s))
        self._number += 1
        message = Transcript(utterance_id=f"script-{self._number}", text=words, final=True, confidence=1.0)
        message.header.stamp = to_time(now_ns)
        message.start, message.end = to_time(began_ns), to_time(ended_ns)
        self._transcripts.publish(message)

    def close(self) -> None:
        with self._lock:
            self._stop = True
            self._lock.notify_all()
        self._thread.join(timeout=2.0)
        self._node.destroy_publisher(self._mic)
        if self._transcripts is not None:
            self._node.destroy_publisher(self._transcripts)

    def _speak(self) -> None:
        rng = np.random.default_rng(0)
        start_s = time.monotonic()
        start_ns = self._node.get_clock().now().nanoseconds
        number = 0
        while not self._stop:
            with self._lock:
                if len(self._voice) and not self._began_s:
                    self._began_s = start_s + number * CHUNK_S
                part, self._voice = self._voice[:SAMPLES_PER_FRAME], self._voice[SAMPLES_PER_FRAME:]
            pcm = (ROOM * rng.standard_normal(SAMPLES_PER_FRAME)).astype(np.float32)
            pcm[: len(part)] += part
            time.sleep(max(0.0, start_s + (number + 1) * CHUNK_S - time.monotonic()))
            stamp = to_time(start_ns + round(number * CHUNK_S * NANOSECONDS))
            first = number * SAMPLES_PER_FRAME
            self._mic.publish(audio_message(pcm, SAMPLE_RATE, stamp, first_sample=first, sequence=number))
            number += 1
            if len(part):
                with self._lock:
                    self._lock.notify_all()
