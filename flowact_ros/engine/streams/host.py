# SPDX-License-Identifier: Apache-2.0
"""Several live streams on one device: whose step is made next, and whether one more fits.

    streams = Streams(pipeline, batch=8)
    streams.measure(reference)
    with streams.open(reference) as first, streams.open(another) as second:
        ...                                  # each is a Session, with a clock and a memory of its own

Every stream's step has a deadline, when the pictures that are there run out. Of the steps that are wanted the one with
the earliest deadline is made first, with as many others as a batch holds. A deadline is kept from when a step was first
wanted until it is made: a stream that waits grows more urgent than all that came later, so none starves. What a stream
lost in the last seconds counts as if its deadline had been so much earlier: where there is more work than time, all
lose alike.

A step that fails ends its own stream. When it failed since the GPU is lost, all streams end with that error at once:
whoever has one of them can go on elsewhere, and need not wait until a step of its own fails. Running out of memory
loses no GPU.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowact_ros.engine.interfaces import EngineError, Pipeline, Reference
from flowact_ros.engine.runtime.lost import lost_gpu
from flowact_ros.engine.session import Session
from flowact_ros.engine.session_config import MAX_STEP_LATENTS
from flowact_ros.engine.step import Step
from flowact_ros.engine.streams.budget import SHARE, Budget, round_seconds
from flowact_ros.engine.streams.lockstep import Lockstep

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_S = 0.1
_TOLD_EVERY_S = 60.0  # that the device is overloaded
_FORGIVEN_S = 10.0  # time in which what a stream lost counts for a third of it
_MOST_OWED_S = 1.0  # of it, or one that has just come would wait until it lost as much


class TooManyStreams(EngineError):
    """One more stream than fits on this device: one line with how many do."""


@dataclass(frozen=True)
class StreamsFigures:
    """streams: that are open; fits: how many keep up, by what was measured (None: nothing was); load: device time that
    the open ones need / device time that there is.
    """

    streams: int
    fits: int | None
    load: float


class _Seat:
    """A session's place at the device."""

    def __init__(self) -> None:
        self.session: Session | None = None  # None: it is reserved, or its session has not started
        self.changed = True  # its outlook has to be asked for
        self.look_at = 0.0  # clock time at which to ask for it again
        self.wanted: float | None = None  # clock time since when it has wanted a step; None: it wants none
        self.deadline = 0.0
        self._owed = self._lost = self._at = 0.0  # [s] of media, as `owed` tells; of media, in all; of the clock, then
        self.runner: threading.Thread | None = None  # that makes a step of it


    def owed(self, lost: float, now: float) -> float:
        """Seconds of media that it lost lately. lost: since it began."""
        kept = self._owed * math.exp((self._at - now) / _FORGIVEN_S)
        self._owed, self._lost, self._at = min(_MOST_OWED_S, kept + lost - self._lost), lost, now
        return self._owed


class Streams:
    """See the module docstring. Thread-safe.

    batch: most steps that are computed together, for which the pipeline must be `batched` in that size; workers:
    threads that make steps; limit: most streams, whatever was measured (0: what was measured decides); name: of the
    device; threads: False where somebody else calls `turn` (tests do, on a clock of their own).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        batch: int = 1,
        workers: int = 1,
        limit: int = 0,
        name: str = "this device",
        clock: Callable[[], float] = time.monotonic,
        threads: bool = True,
    ) -> None:
        if min(batch, workers) < 1 or limit < 0:
            raise ValueError(f"batch {batch} and workers {workers} must be at least 1, and limit {limit} at least 0")
        self.pipeline, self.batch, self.workers = pipeline, batch, workers
        self.budget = Budget(workers, batch)
        self._limit, self._name, self._clock = limit, name, clock
        self._seats: list[_Seat] = []
        self._lock = threading.Lock()
        self._made = threading.Condition(self._lock)  # a step of somebody ended
        self._changed = threading.Event()
        self._locksteps = threading.local()
        self._threads = threads
        self._workers: list[threading.Thread] = []
        self._closed = False
        self._lost = ""  # what CUDA said when the GPU was lost
        self._told = -_TOLD_EVERY_S
        self.stepped = clock()  # clock time at which a step was made last

    # ---- who is there

    def measure(self, reference: Reference) -> None:
        """Has a few steps made, thrown away, to know what they cost; all streams' first ones are then quick, too.

        Nothing else should be made meanwhile: before the first stream is opened.
        """
        alone = round_seconds(self.pipeline, reference, 1, self.workers, self._beside, self._clock)
        full = alone
        if self.batch > 1:
            full = round_seconds(self.pipeline, reference, self.batch, self.workers, self._beside, self._clock)
        self.budget.told(alone, full)

    @property
    def most(self) -> int | None:
        """Streams that are let in; None: as many as come, since nothing was measured and nothing said.

        One always is: a device too slow for it shows it with pictures left out, as it does without others.
        """
        if self._limit:
            return self._limit
        return max(1, self.budget.fits) if self.budget.known else None

    def open(self, reference: Reference | np.ndarray, **options: Any) -> Session:
        """A session whose steps are made here until it is closed; options: of `Session`.

        Raises TooManyStreams, and what `Session` raises.
        """
        seat = _Seat()
        with self._lock:
            most = self.most
            if self._closed:
                raise EngineError("the streams of this device were closed")
            if self._lost:
                raise EngineError(f"{self._name} was lost ({self._lost}): no stream begins on it any more")
            if most is not None and len(self._seats) >= most:
                raise TooManyStreams(self._refusal(most))
            self._seats.append(seat)
        try:
            return Session(self.pipeline, reference, host=_Place(self, seat), clock=self._clock, **options)
        except BaseException:
            self._leave(seat, 0.0)
            raise

    def _refusal(self, most: int) -> str:
        there = "1 stream fits" if most == 1 else f"{most} streams fit"
        if self._limit:
            return f"{there} on {self._name}, by its limit: end one, or raise the limit"
        together = f" for {self.batch} streams together" if self.batch > 1 else ""
        beside = f", {self.workers} beside each other" if self.workers > 1 else ""
        return (
            f"{there} on {self._name}: a step of 0.48 s takes {self.budget.round_s(self.batch):.2f} s{together}{beside}"
            f", and {SHARE:.0%} of the time may be used; end one, or set a limit that allows more"
        )

    def figures(self) -> StreamsFigures:
        with self._lock:
            known, count = self.budget.known, len(self._seats)
            return StreamsFigures(count, self.budget.fits if known else None, self.budget.load(count) if known else 0.0)

    def close(self) -> None:
        """Ends the workers. Sessions are to be closed before; those that are not get no frames any more."""
        with self._lock:
            self._closed = True
        self._changed.set()
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join(5.0)

    def _enter(self, seat: _Seat, session: Session) -> Callable[[], None]:
        with self._lock:
            seat.session = session
            if self._threads and not self._workers:
                self._workers = [
                    threading.Thread(target=self._work, name=f"flowact-streams-{i}", daemon=True)
                    for i in range(self.workers)
                ]
                for worker in self._workers:
                    worker.start()

        def changed() -> None:  # called with the stream's lock held: takes none
            seat.changed = True
            self._changed.set()

        changed()
        return changed

    def _leave(self, seat: _Seat, timeout_s: float) -> bool:
        with self._lock:
            if seat in self._seats:
                self._seats.remove(seat)
            own = seat.runner is threading.current_thread()  # a step's own callback closes its session
            return own or self._made.wait_for(lambda: seat.runner is None, timeout_s)

    # ---- whose turn it is

    def turn(self) -> float:
        """Makes the most urgent steps, if any is wanted; seconds to wait before the next turn at most."""
        with self._lock:
            now = self._clock()
            wait = self._ask(now)
            wanting = [seat for seat in self._seats if seat.wanted is not None and seat.runner is None]
            wanting.sort(key=lambda seat: seat.deadline)
            chosen = wanting[: self.batch]
            for seat in chosen:
                seat.runner = threading.current_thread()
        if not chosen:
            return wait
        if len(wanting) > len(chosen):
            self._changed.set()  # for another worker
        self._round(chosen, now)
        return 0.0

    def _ask(self, now: float) -> float:
        """Asks those of whom something new may be known what they want; seconds until somebody is to be asked again."""
        soonest = now + _LONGEST_WAIT_S
        for seat in self._seats:
            if seat.session is None or seat.runner is not None:
                continue
            if seat.changed or now >= seat.look_at:
                seat.changed = False
                try:
                    wait, deadline = seat.session.outlook()
                    deadline -= seat.owed(seat.session.lost_s, now)
                except EngineError as error:  # it has failed or was closed, and leaves
                    self._end_if_lost(error)
                    wait, deadline = _LONGEST_WAIT_S, 0.0
                except Exception as error:  # a fault of one stream is its own
                    seat.session.fail(error)
                    wait, deadline = _LONGEST_WAIT_S, 0.0
                seat.look_at = now + (wait or _LONGEST_WAIT_S)
                if wait > 0:
                    seat.wanted = None
                elif seat.wanted is None:
                    seat.wanted, seat.deadline = now, deadline
                else:
                    seat.deadline = min(seat.deadline, deadline)
            soonest = min(soonest, seat.look_at)
        return max(0.0, soonest - now)

    def _end_if_lost(self, error: EngineError) -> None:
        """Ends all streams if the one that failed with `error` has lost the GPU."""
        line = "" if self._lost else lost_gpu(error)
        if line:
            self._lost = line
            _LOG.error("%s was lost (%s): its %d streams end", self._name, line, len(self._seats))
            for seat in self._seats:
                if seat.session is not None:
                    seat.session.fail(error.__cause__ or error, told=True)

    def _round(self, chosen: list[_Seat], now: float) -> None:
        began = self._clock()
        made: list[Step] = []
        try:
            tasks = []
            for seat in chosen:
                step = self._step_of(seat)
                if step is not None:
                    made.append(step)
                    tasks.append(self._task(seat, step, began - (now if seat.wanted is None else seat.wanted)))
            self._beside(tasks)
        finally:
            with self._lock:
                full = made and all(step.record.latents == MAX_STEP_LATENTS for step in made)
                if full:
                    self.budget.took(len(made), self._clock() - began)
                for seat in chosen:
                    seat.runner, seat.wanted, seat.changed = None, None, True
                self.stepped = self._clock()
                self._made.notify_all()
                self._tell_overload()

    def _step_of(self, seat: _Seat) -> Step | None:
        """What it wants, if it still does."""
        assert seat.session is not None
        try:
            step = seat.session.next_step()
        except EngineError:
            return None
        except Exception as error:
            seat.session.fail(error)
            return None
        return step if isinstance(step, Step) else None

    @staticmethod
    def _task(seat: _Seat, step: Step, waited: float) -> Callable[[], None]:
        session = seat.session
        assert session is not None

        def task() -> None:
            seat.runner = threading.current_thread()
            try:
                session.make(step, waited)
            except Exception as error:  # a fault of one stream is its own
                session.fail(error)

        return task

    def _beside(self, tasks: Any) -> None:
        """Runs the steps of a round, whose networks compute them together."""
        if len(tasks) == 1:
            tasks[0]()
        elif tasks:
            lockstep = getattr(self._locksteps, "own", None)
            if lockstep is None:
                lockstep = self._locksteps.own = Lockstep(self.batch)
            for result in lockstep.run(tasks):
                if isinstance(result, BaseException):
                    raise result

    def _tell_overload(self) -> None:
        count = len(self._seats)
        load = self.budget.load(count) if self.budget.known else 0.0
        if load > 1 and self._clock() - self._told > _TOLD_EVERY_S:
            self._told = self._clock()
            _LOG.warning(
                "%d streams need %.2f times the time that %s has: pictures are left out, of all alike; %d fit",
                count, load, self._name, max(1, self.budget.fits),
            )  # fmt: skip

    def _work(self) -> None:
        while not self._closed:
            try:
                wait = self.turn()
            except Exception:  # what a round could not do for one stream must not end the others
                _LOG.exception("a round failed")
                wait = _LONGEST_WAIT_S
            if wait > 0:
                self._changed.wait(wait)
                self._changed.clear()


class _Place:
    """`session.Host` of one session."""

    def __init__(self, streams: Streams, seat: _Seat) -> None:
        self._streams, self._seat = streams, seat

    def attach(self, session: Session) -> Callable[[], None]:
        return self._streams._enter(self._seat, session)

    def detach(self, session: Session, timeout_s: float) -> bool:
        return self._streams._leave(self._seat, timeout_s)
