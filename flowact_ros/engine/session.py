# SPDX-License-Identifier: Apache-2.0
"""A live session: speech, instructions and a character in; paced frames with their sound out.

    with Session(pipeline, reference) as session:
        session.push_audio(pcm, 16000, utterance_id="hello", last=True)
        for frame in session.frames():          # 25 a second, for ever
            show(frame.rgb); play(frame.audio)

One thread makes frames, step by step: the session's own, or one that a host lends to several sessions in turn
(`engine.streams`). Frames that a GPU draws by itself are waited for in another one. `frames()` runs in the caller's
thread; all other methods may be called from any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

import numpy as np

from flowact_ros.engine.beside import FrameThread
from flowact_ros.engine.controls import Instruction
from flowact_ros.engine.figures import metrics_of
from flowact_ros.engine.intake import Intake
from flowact_ros.engine.interfaces import (
    ChunkRecord,
    EngineError,
    Frame,
    Pipeline,
    Reference,
)
from flowact_ros.engine.looking import Looking
from flowact_ros.engine.losses import REFUSED
from flowact_ros.engine.metrics import StreamMetrics
from flowact_ros.engine.references import load_reference
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.step import Step, resume
from flowact_ros.engine.stream import Stream
from flowact_ros.engine.worker import Host, Worker
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLE_RATE

_LOG = logging.getLogger(__name__)
_REFERENCE_TIMEOUT_S = 30.0


class Session:
    """One avatar, live (worker thread, content time on `clock`) or offline (`frames(realtime=False)`).

    reference: a Reference of the pipeline, or rgb uint8 [H, W, 3]; on_chunk: called with a ChunkRecord after every
    step, from the thread that made its frames; on_reference: with a Reference before the first record of it; looking:
    its policy (default: `look_at` is followed); host: who has its steps made (default: a thread of its own); saved:
    what `save` of another session gave, to go on with its memory; raises EngineError if it is of another model.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        reference: Reference | np.ndarray,
        *,
        seed: int = 0,
        config: SessionConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_chunk: Callable[[ChunkRecord], None] | None = None,
        on_reference: Callable[[Reference], None] | None = None,
        reference_id: str = "",
        looking: Looking | None = None,
        host: Host | None = None,
        saved: bytes = b"",
    ) -> None:
        self.config = config or SessionConfig()
        self._pipeline = pipeline
        loaded = self._load(reference, reference_id)
        state = pipeline.restore(saved, loaded, seed) if saved else pipeline.start(loaded, seed)
        self._stream = Stream(pipeline, state, self.config, clock, looking)
        self._stream.records.listener, self._stream.records.on_reference = on_chunk, on_reference
        self._cond = self._stream.cond
        self._intake = Intake(self.config)
        self._intake_lock = threading.Lock()  # taken before _cond, never after it
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="flowact-reference")
        self._frame_thread = FrameThread(self.fail)
        self._host = host or Worker()
        self._started = False
        self._iterating = False
        self._closed = False
        self._error: BaseException | None = None

    # ---- life

    def start(self) -> Session:
        """Starts the worker thread (frames() does it when needed); frames are made ahead from now on."""
        with self._cond:
            self._alive()
            if self._stream.offline:
                raise EngineError("this session is iterated offline: it has no worker")
            first, self._started = not self._started, True
            self._stream.lend = self._lend
        if first:
            self._stream.on_change = self._host.attach(self)
        return self

    def close(self) -> None:
        """Ends frames() and the worker. Returns within close_timeout_s whatever the networks do."""
        with self._cond:
            self._closed = True
            self._cond.notify_all()
        self._encoder.shutdown(wait=False, cancel_futures=True)
        ended = self._host.detach(self, self.config.close_timeout_s)
        if not (self._frame_thread.close(self.config.close_timeout_s) and ended):
            _LOG.warning("a step still runs after %g s: its thread is left behind", self.config.close_timeout_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _alive(self) -> None:
        if self._error is not None:
            raise EngineError(
                f"the engine failed: {type(self._error).__name__}: {self._error}"
            ) from self._error
        if self._closed:
            raise EngineError("the session is closed")

    # ---- input

    def push_audio(
        self,
        pcm: np.ndarray,
        sample_rate: int,
        *,
        utterance_id: str = "",
        first_sample: int | None = None,
        sequence: int | None = None,
        last: bool = False,
    ) -> bool:
        """Speech to be said: float (or int16) [n], mono, at any rate; faster than real time is fine.

        first_sample: place of pcm[0], counted at sample_rate; sequence: one more a chunk; last: the utterance ends
        here (without it, it ends when nothing came for a while, and its start waits for a buffer). Chunks of an
        interrupted utterance are ignored. True if something of it will be heard: it was not empty, known already or
        interrupted. Raises AudioError (nothing is taken), AudioQueueFull, EngineError.
        """
        if not isinstance(utterance_id, str):
            raise TypeError(f"utterance_id is {type(utterance_id).__name__}: a string is needed")
        with self._intake_lock:
            with self._cond:
                self._alive()
                now, queued = self._stream.now(), self._stream.timeline.queued
            dropped = sum(self._intake.counts.dropped.values())
            feeds = self._intake.push(
                pcm, sample_rate, utterance_id, first_sample, sequence, last, now=now, queued=queued
            )  # resampling runs outside the stream's lock
            with self._cond:
                self._stream.feed(feeds)
            return len(pcm) > sum(self._intake.counts.dropped.values()) - dropped

    def refuse_audio(self, samples: int, reason: str = REFUSED) -> None:
        """Counts speech that was not pushed, or for which there was no room and that is given up; by `losses`."""
        with self._intake_lock:
            self._intake.refuse(samples, reason)

    def set_instruction(
        self, text: str, *, behaviour: str = "", priority: int = 0, utterance_id: str = ""
    ) -> None:
        """What to do from now on; with the id of speech that waits behind other speech: from its first sample on.

        Raises ValueError on an unknown behaviour.
        """
        instruction = Instruction(text, behaviour, int(priority), utterance_id)
        with self._cond:
            self._alive()
            self._stream.instruct(instruction)

    def look_at(self, x: float, y: float) -> None:
        """A point in halves of the screen from its middle, to the right as the viewer sees it and up; for a while.

        Raises ValueError for what is no number, EngineError for a model that has no gaze.
        """
        with self._cond:
            self._alive()
            self._stream.look_at(x, y)

    def look_away(self) -> None:
        """From the point given last, before its time is over."""
        with self._cond:
            self._alive()
            self._stream.look_away()

    def set_reference(self, reference: Reference | np.ndarray, reference_id: str = "") -> str:
        """One clean cut to another character. Returns its id. Raises ReferenceError_ if the image cannot become one."""
        with self._cond:
            self._alive()
            live = self._started
        if live:  # beside the stream, which goes on meanwhile
            try:
                loaded = self._encoder.submit(self._load, reference, reference_id).result(_REFERENCE_TIMEOUT_S)
            except FutureTimeout:
                raise EngineError(
                    f"the reference was not encoded within {_REFERENCE_TIMEOUT_S:g} s"
                ) from None
            except (CancelledError, RuntimeError) as error:
                with self._cond:
                    self._alive()  # closed meanwhile: nothing is submitted any more
                raise error
        else:
            loaded = self._load(reference, reference_id)
        with self._cond:
            self._alive()
            self._stream.reset(loaded)
        return loaded.id

    def _load(self, reference: Reference | np.ndarray, reference_id: str) -> Reference:
        return load_reference(self._pipeline, reference, reference_id)

    def interrupt(self, utterance_id: str | None = None) -> bool:
        """Cuts speech: that of one utterance, or all that sounds or waits. True if there was any."""
        with self._cond:
            self._alive()
            return self._stream.interrupt(utterance_id)

    def reset_memory(self) -> None:
        """The avatar forgets what it has shown and goes on from its reference."""
        with self._cond:
            self._alive()
            self._stream.reset()

    def save(self) -> bytes:
        """What the avatar remembers now, for a session elsewhere to go on with (`Pipeline.save`). From any thread."""
        with self._cond:
            self._alive()
            now = self._stream.snapshot
        return self._pipeline.save(resume(self._pipeline, now) if now.done else now.state)

    # ---- output

    def frames(self, realtime: bool = True) -> Iterator[Frame]:
        """Frames in order, one for every 40 ms of content, until close().

        realtime: each leaves 80 ms before its stamp; a late picture is replaced by the previous one, sound goes on.
        Not realtime: as fast as they can be made, in this thread; the same input gives the same frames, bit by bit.
        Raises EngineError when the engine fails, and if somebody iterates already.
        """
        with self._cond:
            self._alive()
            if self._iterating:
                raise EngineError("frames() is iterated already: one consumer per session")
            if not realtime and self._started:
                raise EngineError(
                    "the worker runs already: offline frames need a session that was not started"
                )
            if realtime and self._stream.offline:
                raise EngineError("this session was iterated offline: make another one for live frames")
            self._stream.offline = not realtime
        if realtime:
            self.start()
        return self._iterate(self._live if realtime else self._offline)

    def _iterate(self, following: Callable[[], Frame | None]) -> Iterator[Frame]:
        with self._cond:
            if self._iterating:
                raise EngineError("frames() is iterated already: one consumer per session")
            self._iterating = True
        try:
            while (frame := following()) is not None:
                yield frame
        finally:
            self._iterating = False

    def _live(self) -> Frame | None:
        with self._cond:
            while True:
                if self._closed:
                    return None
                self._alive()
                out = self._stream.release()
                if isinstance(out, Frame):
                    return out
                self._cond.wait(out)

    def _offline(self) -> Frame | None:
        while True:
            with self._intake_lock:
                held = self._intake.poll(self._stream.now(), everything=True)
                with self._cond:
                    if self._closed:
                        return None
                    self._alive()
                    self._stream.feed(held)
                    plan = None if self._stream.due else self._stream.plan()
                    if plan is None:
                        out = self._stream.release()
                        assert isinstance(out, Frame)  # offline, a frame that is there is due
                        return out
            if isinstance(plan, Step):
                try:
                    self._stream.run(plan)
                except Exception as error:
                    self._error = error

    # ---- figures

    def recover(self, wanted: bool) -> None:
        """Whether memory is refined when motion drifts, and starts anew when the face has frozen (default: yes)."""
        with self._cond:
            if self._stream.watch is not None:
                self._stream.watch.recover = wanted

    @property
    def queued_s(self) -> float:
        """Seconds of speech that wait to be said: push more when it is small."""
        with self._cond:
            return self._stream.timeline.queued / SAMPLE_RATE

    @property
    def waiting(self) -> str | None:
        """The utterance whose speech comes next; None if no speech is there."""
        with self._cond:
            return self._stream.waiting

    @property
    def reference_id(self) -> str:
        """The character that the next step shows."""
        return self._stream.reference.id

    def metrics(self) -> StreamMetrics:
        """Figures since the start. Works after an error and after close()."""
        with self._cond:
            return metrics_of(self._stream, self._intake.counts, self._pipeline.waits_ms, self._error)

    # ---- steps, of the worker or of a host

    def outlook(self) -> tuple[float, float]:
        """(seconds until it may want a step, 0: it wants one now; clock time at which its pictures run out).

        Raises EngineError once it has failed or was closed.
        """
        self._poll()
        with self._cond:
            self._alive()
            return self._stream.outlook()

    @property
    def lost_s(self) -> float:
        """Seconds of media of which no picture was made in time, since it began."""
        meter = self._stream.meter
        return (meter.skipped * FRAMES_PER_LATENT + meter.dropped) / FRAME_RATE

    def await_step(self) -> Step | None:
        """The step that it wants, which must be made then, once it wants one; None when it has failed or was closed."""
        while not self._closed and self._error is None:
            self._poll()
            with self._cond:
                if self._closed:
                    return None
                plan = self._stream.plan()
                if isinstance(plan, Step):
                    return plan
                self._cond.wait(plan)
        return None

    def next_step(self) -> Step | float:
        """The step that it wants, which must be made then, or how many seconds to wait at most. Raises EngineError."""
        with self._cond:
            self._alive()
            return self._stream.plan()

    def make(self, step: Step, waited: float | None = None) -> None:
        """Makes a step. waited: seconds for which other sessions kept the device from it, where they share one."""
        self._stream.run(step, waited)

    def fail(self, error: BaseException, told: bool = False) -> None:
        """Ends it with an error, which `frames()` raises. told: the log has it already, for several sessions."""
        if not told:
            _LOG.error("the engine failed", exc_info=error)
        with self._cond:
            self._error = self._error or error
            self._cond.notify_all()
            self._stream.on_change()

    def _lend(self, draw: Callable[[], None]) -> None:
        with self._cond:  # or it might be closed in between
            if not self._closed:
                self._frame_thread(draw)

    def _poll(self) -> None:
        """Passes on speech that has waited for earlier speech long enough; not while somebody pushes some."""
        if self._intake_lock.acquire(blocking=False):
            try:
                late = self._intake.poll(self._stream.now())
                if late:
                    with self._cond:
                        self._stream.feed(late)
            finally:
                self._intake_lock.release()
