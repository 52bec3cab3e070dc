# SPDX-License-Identifier: Apache-2.0
"""A session on a simulated clock: steps cost what they are told to, frames leave meanwhile, nothing sleeps."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import numpy as np
from fakes import EVALUATIONS, FakePipeline, crc, face, read_picture

from flowact_ros.engine.interfaces import ChunkRecord, Frame
from flowact_ros.engine.session import Session
from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.engine.step import Step
from flowact_ros.timebase import SAMPLE_RATE

COSTS = {"denoise": (0.02, 0.03), "render": (0.0, 0.02), "advance": (0.01, 0.0)}  # [s] fixed, per latent


def ramp(seconds: float, start: int = 1) -> np.ndarray:
    """Speech whose every sample has its own value: float32 [seconds * 24000], none of them 0."""
    count = round(seconds * SAMPLE_RATE)
    return (np.arange(start, start + count) / 2**23).astype(np.float32)


class Simulation:
    """`at` plans what happens when (seconds from the start), `run` lets time pass; `frames` is what came out."""

    def __init__(
        self,
        config: SessionConfig | None = None,
        costs: dict | None = None,
        seed: int = 0,
        **options: int,
    ):
        self.time = 1000.0
        self.costs = COSTS if costs is None else costs
        self.frames: list[Frame] = []
        self.left: list[float] = []  # clock time at which each frame left
        self.records: list[ChunkRecord] = []
        self.watching = True  # somebody takes frames
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self.pipeline = FakePipeline(hook=self._spend, **options)
        self.session = Session(
            self.pipeline,
            face(),
            seed=seed,
            config=config or SessionConfig(),
            clock=lambda: self.time,
            on_chunk=self.records.append,
            reference_id="first",
        )
        self.stream = self.session._stream
        self.began = self.time

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Calls `action` when that much time has passed since the start."""
        heapq.heappush(self._events, (self.began + seconds, len(self._events) + len(self.frames), action))

    def speak_live(self, seconds: float, pcm: np.ndarray, name: str, chunk_s: float = 0.02) -> None:
        """Plans pushes of `pcm` in chunks, each when its last sample would have been recorded."""
        size = round(chunk_s * SAMPLE_RATE)
        for i in range(0, len(pcm), size):
            part, last = pcm[i : i + size], i + size >= len(pcm)

            def push(part: np.ndarray = part, first: int = i, last: bool = last) -> None:
                self.session.push_audio(part, SAMPLE_RATE, utterance_id=name, first_sample=first, last=last)

            self.at(seconds + (i + len(part)) / SAMPLE_RATE, push)

    def run(self, seconds: float) -> Simulation:
        """Lets time pass: the worker works, frames leave, planned things happen."""
        end = self.time + seconds
        while self.time < end:
            self._pass(self._work())
        return self

    def _work(self) -> float:
        """What the session's worker does, over and over; seconds to wait then."""
        with self.stream.cond:
            self.stream.feed(self.session._intake.poll(self.time))
            plan = self.stream.plan()
        if not isinstance(plan, Step):
            return max(1e-4, min(plan, 0.005))
        self.stream.run(plan)
        return 0.0

    def _spend(self, stage: str, count: int) -> None:
        fixed, each = self.costs.get(stage, (0.0, 0.0))
        if stage == "denoise":  # once an evaluation
            fixed, each = fixed / EVALUATIONS, each / EVALUATIONS
        if fixed + each * count > 0:
            self._pass(fixed + each * count)

    def _pass(self, seconds: float) -> None:
        end = self.time + seconds
        while self.time < end:
            while self._events and self._events[0][0] <= self.time + 1e-9:
                heapq.heappop(self._events)[2]()
            with self.stream.cond:
                out = self.stream.release() if self.watching else seconds
            if isinstance(out, Frame):
                self.frames.append(out)
                self.left.append(self.time)
                continue
            until = self._events[0][0] if self._events else end
            self.time = min(end, max(self.time + 1e-6, min(self.time + out, until)))

    # ---- what must always hold

    def check(self) -> None:
        """Frames in order and on time; every picture is the one of its frame and heard the sound beside it."""
        assert [f.index for f in self.frames] == list(range(len(self.frames)))
        t0 = self.frames[0].pts
        for frame, left in zip(self.frames, self.left, strict=True):
            assert abs(frame.pts - (t0 + frame.index / 25)) < 1e-6
            assert -1e-6 < left - (frame.pts - 0.08) < 0.02 + 1e-5, (
                f"frame {frame.index} left at {left - frame.pts}"
            )
            seen = read_picture(frame.rgb)
            assert tuple(frame.motion[:2]) == (seen.frame, seen.loudest)  # of the picture, whatever sounds beside it
            assert seen.appearance == seen.reference
            if frame.repeated:
                assert seen.frame < frame.index
            else:
                assert seen.frame == frame.index
                assert seen.loudest == round(float(np.abs(frame.audio).max()) * 255)

    def check_history(self) -> None:
        """Every picture was made from exactly the ones before it that were shown, rewinds or not.

        Holds while nothing was skipped or dropped: then all latents can be read back from the pictures.
        """
        surviving: dict[int, ChunkRecord] = {}
        for record in self.records:
            surviving = {k: r for k, r in surviving.items() if k < record.first_frame}
            surviving[record.first_frame] = record
        record, chain, before = self.records[0], 0, None
        for k in range(0, len(self.frames) - 3, 4):
            seen = [read_picture(f.rgb) for f in self.frames[k : k + 4]]
            if k in surviving:
                record = surviving[k]
                if before is None or record.resets != before.resets:
                    chain = crc("start", seen[0].reference)
                before, start = record, chain
            s = seen[0]
            assert s.memory == crc(start, crc(record.seed, k // 4)), f"memory before frame {k}"
            assert s.text == crc(record.instruction)
            latent = [k // 4, s.heard, s.memory, s.text, s.reference, *(p.loudest for p in seen)]
            chain = crc(chain, np.array(latent, np.int64))

    def said(self) -> np.ndarray:
        """All samples that left and are not silence, in order."""
        sound = np.concatenate([f.audio for f in self.frames])
        return sound[sound != 0]


class BesideSimulation(Simulation):
    """On a device that draws by itself: a step's frames come at some time while later ones are denoised."""

    def __init__(self, config: SessionConfig | None = None, costs: dict | None = None, seed: int = 0) -> None:
        super().__init__(config, costs, seed)
        self.pipeline.draws_beside, self.pipeline.control_names = True, ("frame", "loudest")
        self.coming: list[Callable[[], None]] = []  # what the thread of the frames has to do
        self.stream.lend = self.coming.append
        self.most = 0  # steps on their way at a time
        self._chance = random.Random(seed)

    def _work(self) -> float:
        wait = super()._work()
        if wait and self.coming:
            self.coming.pop(0)()
            return 0.0
        return wait

    def _spend(self, stage: str, count: int) -> None:
        if stage == "denoise":
            self.most = max(self.most, len(self.coming) + 1)
            if self.coming and self._chance.random() < 0.3:
                self.coming.pop(0)()
        super()._spend(stage, count)
