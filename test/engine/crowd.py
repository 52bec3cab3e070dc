# SPDX-License-Identifier: Apache-2.0
"""Several sessions on one simulated device and clock: what is computed together costs its time once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from fakes import EVALUATIONS, FakePipeline, face
from simulation import COSTS, Simulation

from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Frame
from flowact_ros.engine.session import Session
from flowact_ros.engine.streams.host import Streams
from flowact_ros.engine.streams.lockstep import call


class Viewer(Simulation):
    """What came out of one session; its checks are those of a session alone."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.frames: list[Frame] = []
        self.left: list[float] = []
        self.records: list[ChunkRecord] = []
        self.error: EngineError | None = None
        self.session: Session = crowd.streams.open(
            face(), seed=number, on_chunk=self.records.append, reference_id="first"
        )
        self.stream = self.session._stream
        self.session.start()

    @property
    def fresh(self) -> list[int]:
        """Indices of frames that were new pictures."""
        return [frame.index for frame in self.frames if not frame.repeated]


class Crowd:
    """`costs` are seconds (fixed, per latent) of a call by its stage, however many streams are computed together."""

    size: int  # of a batch: a kernel of `lockstep`

    def __init__(self, count: int, *, batch: int = 1, costs: dict | None = None, **options: Any) -> None:
        self.time, self.costs, self.size = 1000.0, costs or COSTS, batch
        self.computed: list[int] = []  # calls that were computed together
        self.viewers: list[Viewer] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self.pipeline = FakePipeline(hook=lambda stage, amount: call(self, stage, amount))
        self.streams = Streams(
            self.pipeline, batch=batch, clock=lambda: self.time, threads=False, **({"limit": count} | options)
        )
        for number in range(count):
            self.join(number)

    def join(self, number: int) -> Viewer:
        self.viewers.append(Viewer(self, number))
        return self.viewers[-1]

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (1000.0 + seconds, len(self._events), action))

    def run(self, seconds: float) -> Crowd:
        end = self.time + seconds
        while self.time < end:
            self._pass(min(self.streams.turn(), 0.005))
        return self

    def key(self, given: tuple) -> tuple:
        return given

    def compute(self, calls: Sequence[tuple]) -> list[bool]:
        stage, amount = calls[0]
        fixed, each = self.costs.get(stage, (0.0, 0.0))
        share = EVALUATIONS if stage == "denoise" else 1
        self.computed.append(len(calls))
        self._pass((fixed + each * amount) / share)
        return [True] * len(calls)

    def _pass(self, seconds: float) -> None:
        end = self.time + seconds
        while True:
            while self._events and self._events[0][0] <= self.time + 1e-9:
                heapq.heappop(self._events)[2]()
            wait = min((self._release(viewer) for viewer in self.viewers), default=1.0)
            if self.time >= end:
                return
            until = self._events[0][0] if self._events else end
            self.time = min(end, max(self.time + 1e-6, min(self.time + wait, until)))

    def _release(self, viewer: Viewer) -> float:
        """Has the frames leave that are due; seconds until the next one may."""
        while viewer.error is None:
            with viewer.stream.cond:
                try:
                    viewer.session._alive()
                except EngineError as error:
                    viewer.error = error
                    break
                out = viewer.stream.release()
            if not isinstance(out, Frame):
                return out
            viewer.frames.append(out)
            viewer.left.append(self.time)
        return 1.0
