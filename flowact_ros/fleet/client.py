# SPDX-License-Identifier: Apache-2.0
"""A stream that is computed by a fleet, with the methods of `engine.session.Session`: what a robot runs.

    with RemoteSession("ws://gpu.local:8630", character="mia") as session:
        session.push_audio(pcm, 16000, utterance_id="hello", last=True)
        for frame in session.frames():
            show(frame.jpeg); play(frame.audio)

A thread has the connection. When it breaks, or nothing comes for a while, it is made anew, and whichever server has
room goes on: with the memory that came last, the character, the instruction in force, and all speech that was not
heard. Frames are numbered through; their time moves by the pause.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import numpy as np

from flowact_ros.engine.interfaces import AudioQueueFull, EngineError, ReferenceError_
from flowact_ros.engine.losses import REFUSED
from flowact_ros.fleet.arrival import Arrivals, RemoteFrame
from flowact_ros.fleet.backlog import Backlog
from flowact_ros.fleet.link import Link, Stream
from flowact_ros.fleet.speech import as_sound, speech_messages
from flowact_ros.fleet.wire import PROTOCOL, Message, WireError, pack
from flowact_ros.media.image import encode_png
from flowact_ros.timebase import FRAME_RATE

QUEUE_S = 120.0  # of speech that may wait
ANSWER_S = 30.0

_LOG = logging.getLogger(__name__)


class RemoteSession:
    """See the module docstring. All methods may be called from any thread; `frames()` by one.

    url: ws://HOST:PORT or wss://; token: of the fleet, "" on loopback; reference: a picture uint8 [H, W, 3], or None
    for the shipped `character`; lead_s: a frame's stamp lies so long after the first one came, with those of later ones
    1/25 s apart: what the link's jitter may take; warn: gets a line about what the fleet could not use.

    Raises ValueError, one line, for another url.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        character: str = "",
        reference: np.ndarray | None = None,
        seed: int = 0,
        gaze: str = "follow",
        look_at_timeout_s: float = 3.0,
        lead_s: float = 0.2,
        warn: Callable[[str], None] = _LOG.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._warn = warn
        self._gaze, self._look_at_timeout_s = gaze, look_at_timeout_s
        self._seed, self._recover = seed, True
        self._character, self._png = character, b"" if reference is None else encode_png(reference)
        self._lock = threading.Lock()
        self._arrivals = Arrivals(lead_s, clock)
        stream = Stream(
            self._opening, self._opened, self._take, lambda: self._arrivals.count, self._lost, self._ended
        )
        self._link = Link(url, token, stream, self._lock, warn)
        self._backlog = Backlog()
        self._instruction: dict[str, Any] | None = None  # in force
        self._instructions: dict[str, dict[str, Any]] = {}  # of speech that waits
        self._memory = b""
        self._answers: dict[int, Future[str]] = {}
        self._numbers = itertools.count(1)
        self._frames: queue.Queue[RemoteFrame | None] = queue.Queue(10 * FRAME_RATE)
        self._error: Exception | None = None
        self._waiting: str | None = None
        self.reference_id = character
        self.control_names: tuple[str, ...] = ()
        self.server = ""  # HOST:PROCESS of the one that makes the frames, or made the last ones
        self.moves = 0  # connections after the first

    # ---- life

    def start(self) -> RemoteSession:
        self._link.start()
        return self

    def close(self) -> None:
        """Ends `frames()` and the connection."""
        self._end_frames()
        self._link.close()

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Does a server make frames now?"""
        return self._link.open

    @property
    def late(self) -> int:
        """Frames that came after their stamp."""
        return self._arrivals.late

    def _alive(self) -> None:
        if self._error is not None:
            raise EngineError(str(self._error)) from self._error
        if self._link.closed:
            raise EngineError("the session is closed")

    # ---- input

    def push_audio(
        self, pcm: np.ndarray, sample_rate: int, *, utterance_id: str = "", first_sample: int | None = None,
        sequence: int | None = None, last: bool = False,
    ) -> bool:  # fmt: skip
        """As `Session.push_audio`; what is wrong with numbers or order is told by the fleet, as a warning."""
        sound = as_sound(pcm, sample_rate)
        with self._lock:
            self._alive()
            if self._backlog.queued_s + len(sound) / sample_rate > QUEUE_S:
                raise AudioQueueFull(f"{self._backlog.queued_s:.0f} s of speech wait: at most {QUEUE_S:.0f} s may")
            utterance = self._backlog.push(utterance_id, sound, int(sample_rate), last)
            numbers = (None, None) if utterance.moved else (first_sample, sequence)
            for piece in speech_messages(sound, int(sample_rate), utterance_id, *numbers, last):
                self._link.send(piece)
        return bool(len(sound))

    def refuse_audio(self, samples: int, reason: str = REFUSED) -> None:
        with self._lock:
            self._link.send(pack("refused", samples=int(samples), reason=reason))

    def set_instruction(
        self, text: str, *, behaviour: str = "", priority: int = 0, utterance_id: str = ""
    ) -> None:
        told = {"text": text, "behaviour": behaviour, "priority": int(priority), "utterance_id": utterance_id}
        with self._lock:
            self._alive()
            if utterance_id:
                self._instructions[utterance_id] = told
            else:
                self._instruction = told
            self._link.send(pack("instruction", **told))

    def look_at(self, x: float, y: float) -> None:
        with self._lock:
            self._alive()
            self._link.send(pack("look_at", x=float(x), y=float(y)))

    def look_away(self) -> None:
        with self._lock:
            self._alive()
            self._link.send(pack("look_away"))

    def interrupt(self, utterance_id: str | None = None) -> bool:
        with self._lock:
            self._alive()
            there = self._backlog.drop(utterance_id)
            self._link.send(pack("interrupt", utterance_id=utterance_id))
        return there

    def reset_memory(self) -> None:
        with self._lock:
            self._alive()
            self._memory = b""
            self._link.send(pack("reset"))

    def set_reference(self, reference: np.ndarray | None, reference_id: str = "") -> str:
        """As `Session.set_reference`; None: the shipped character of that name. Raises ReferenceError_, EngineError."""
        png = b"" if reference is None else encode_png(reference)
        answer: Future[str] = Future()
        number = next(self._numbers)
        with self._lock:
            self._alive()
            if not self._link.open:
                raise EngineError("no server is connected: try again when frames come")
            self._answers[number] = answer
            self._link.send(pack("reference", png, id=number, character=reference_id))
        try:
            name = answer.result(ANSWER_S)
        except FutureTimeout:
            raise EngineError(f"the fleet did not answer within {ANSWER_S:g} s") from None
        finally:
            self._answers.pop(number, None)
        with self._lock:
            self._png, self._character, self._memory, self.reference_id = png, reference_id, b"", name
        return name

    def recover(self, wanted: bool) -> None:
        """As `Session.recover`, from the next connection on."""
        self._recover = wanted

    # ---- output

    def frames(self) -> Iterator[RemoteFrame]:
        """As they come, until `close`. While no server is there, none come. Raises EngineError for a refusal."""
        self.start()
        while (frame := self._frames.get()) is not None:
            yield frame
        if not self._link.closed:
            self._alive()

    @property
    def queued_s(self) -> float:
        with self._lock:
            return self._backlog.queued_s

    @property
    def waiting(self) -> str | None:
        return self._waiting

    # ---- the link's thread

    def _opening(self) -> bytes:
        with self._lock:
            return pack(
                "open", self._png, self._memory, protocol=PROTOCOL, character=self._character,
                seed=self._seed + self.moves, gaze=self._gaze, look_at_timeout=self._look_at_timeout_s,
                recover=self._recover,
            )  # fmt: skip

    def _opened(self, message: Message) -> list[bytes]:
        """The instruction in force, and all speech that was not heard, with the instructions that belong to it."""
        self.control_names = tuple(map(str, message.get("controls", list, [])))
        self.reference_id, self.server = message.get("reference_id", str, ""), message.get("server", str, "")
        first = [] if self._instruction is None else [pack("instruction", **self._instruction)]
        for utterance in self._backlog:
            if utterance.name in self._instructions:
                first.append(pack("instruction", **self._instructions[utterance.name]))
            first += speech_messages(utterance.rest(), utterance.rate, utterance.name, None, None, utterance.closed)
        self._backlog.move()
        self.moves += self._arrivals.count > 0
        return first

    def _take(self, message: Message) -> None:
        if message.kind == "frame":
            self._frame(message)
        elif message.kind == "memory":
            with self._lock:
                self._memory = message.part(0)
        elif message.kind == "warning":
            self._warn(message.get("text", str, ""))
        elif message.kind == "answer":
            answer, error = self._answers.get(message.get("id", int, 0)), message.get("error", str, "")
            if answer is not None and not answer.done():
                if error:
                    answer.set_exception(ReferenceError_(error))
                else:
                    answer.set_result(message.get("reference_id", str, ""))

    def _frame(self, message: Message) -> None:
        frame = self._arrivals.take(message, len(self.control_names))
        with self._lock:
            queued_s = float(message.get("queued_s", (int, float), 0.0))
            self._backlog.frame(frame.utterance_id, frame.speaking, queued_s)
            left = {utterance.name for utterance in self._backlog}
            self._instructions = {key: told for key, told in self._instructions.items() if key in left}
        self._waiting = message.get("waiting", str)
        try:
            self._frames.put_nowait(frame)
        except queue.Full:
            raise WireError("nobody takes the frames") from None

    def _lost(self) -> None:
        self._arrivals.server_gone()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.set_exception(EngineError("the server is gone: try again when frames come"))

    def _ended(self, error: Exception | None) -> None:
        self._error = error
        self._end_frames()

    def _end_frames(self) -> None:
        while True:
            try:
                self._frames.put_nowait(None)
                return
            except queue.Full:
                try:
                    self._frames.get_nowait()
                except queue.Empty:
                    continue
