# SPDX-License-Identifier: Apache-2.0
"""Who watches and who speaks while `flowact soak` runs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, StreamMetrics
from flowact_ros.nodes import topics
from flowact_ros.nodes.bench_page import Page
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

PIECE_S = SAMPLES_PER_FRAME / SAMPLE_RATE
SENTENCES_S = (1.5, 2.5, 4.0)
PAUSE_S = 0.6  # between two sentences
LOOK_S = 0.03
GENERATOR = "avatar_generator"


class Watch:
    """Frames by their sound (one message a frame), and the generator's own figures."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.frames: list[tuple[float, int]] = []  # ([s] monotonic, index in its stream)
        self.heard: dict[str, tuple[float, float]] = {}  # utterance -> when it was heard first and last
        self.sounding = ""
        self.skew_s: float | None = None
        self.first = threading.Event()
        self._counted: dict[str, tuple[int, int]] = {}  # figure -> (of earlier streams, of this one)
        node.create_subscription(AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS)
        node.create_subscription(StreamMetrics, topics.METRICS, self._on_metrics, topics.EVENT_QOS)
        self.speech = node.create_publisher(AudioChunk, topics.SPEECH, topics.AUDIO_DEEP_QOS)
        self._stop = node.create_client(Trigger, topics.INTERRUPT)

    def _on_audio(self, message: AudioChunk) -> None:
        now, name = time.monotonic(), message.utterance_id
        self.frames.append((now, int(message.sequence)))
        self.sounding = name
        if name:
            self.heard[name] = (self.heard.get(name, (now, now))[0], now)
        self.first.set()

    def _on_metrics(self, message: StreamMetrics) -> None:
        if message.header.frame_id:
            return  # the page's, in place of a generator that is silent
        self.skew_s = None if math.isnan(message.av_skew) else float(message.av_skew)
        for name in ("repeated_frames", "underruns"):
            before, last = self._counted.get(name, (0, 0))
            value = int(getattr(message, name))
            self._counted[name] = (before + last, value) if value < last else (before, value)

    @property
    def repeated(self) -> int:
        return sum(self._counted.get("repeated_frames", (0, 0)))

    @property
    def underruns(self) -> int:
        return sum(self._counted.get("underruns", (0, 0)))

    def piece(self, pcm: np.ndarray, name: str, number: int, last: bool, off_s: float = 0.0) -> AudioChunk:
        """Piece `number` of an utterance, by a clock that is `off_s` off."""
        stamp = self.node.get_clock().now().nanoseconds + round(off_s * 1e9)
        first = number * SAMPLES_PER_FRAME
        return audio_message(
            pcm, SAMPLE_RATE, to_time(stamp), first_sample=first, sequence=number, utterance_id=name, last=last
        )

    def interrupt(self) -> None:
        self._stop.call_async(Trigger.Request())


def until(condition: Callable[[], Any], timeout_s: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


class Pages:
    """A page that comes back by itself, as the real one does: when its connection ends it makes another one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._page = Page(url)
        self._page.start()
        self._frames = 0
        self.newest = 0.0  # when the last frame came [s]
        self._cut = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pages", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._ended.wait(LOOK_S):
            page = self._page
            if page.frames > self._frames:
                self._frames, self.newest = page.frames, time.monotonic()
            if self._cut.is_set() or not page.is_alive():
                page.end()
                self._cut.clear()
                if self._ended.wait(0.0 if page.frames else 0.25):  # the page's own first pause between tries
                    return
                self._frames, self._page = 0, Page(self._url)
                self._page.start()

    def cut(self) -> None:
        """The connection ends, as far as the server knows without a word."""
        before = self._page
        self._cut.set()
        until(lambda: self._page is not before, 10.0)

    def end(self) -> None:
        self._ended.set()
        self._thread.join(5.0)
        self._page.end()


class Speaker(threading.Thread):
    """Says one sentence after the other, at the pace of a live voice."""

    def __init__(self, watch: Watch, pcm: np.ndarray) -> None:
        super().__init__(name="speaker", daemon=True)
        self.said: list[str] = []
        self._watch, self._pcm = watch, pcm
        self._ended = threading.Event()
        self._free = threading.Lock()  # held while a sentence is said
        self.start()

    def run(self) -> None:
        number = 0
        while not self._ended.wait(PAUSE_S):
            with self._free:
                name = f"soak-{number}"
                self.say(name, SENTENCES_S[number % len(SENTENCES_S)])
                self.said.append(name)
            number += 1

    def pieces(self, seconds: float) -> list[np.ndarray]:
        pcm = np.resize(self._pcm, int(seconds / PIECE_S) * SAMPLES_PER_FRAME)
        return list(pcm.reshape(-1, SAMPLES_PER_FRAME))

    def say(self, name: str, seconds: float, *, off_s: float = 0.0) -> None:
        pieces = self.pieces(seconds)
        began = time.monotonic()
        for n, pcm in enumerate(pieces):
            if self._ended.wait(max(0.0, began + n * PIECE_S - time.monotonic())):
                return
            self._watch.speech.publish(self._watch.piece(pcm, name, n, n == len(pieces) - 1, off_s))

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Meanwhile somebody else has the topic, and what was said has been heard."""
        with self._free:
            until(lambda: not self._watch.sounding, 5.0)
            yield

    def end(self) -> None:
        self._ended.set()
        self.join(5.0)
