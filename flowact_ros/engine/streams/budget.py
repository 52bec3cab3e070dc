# SPDX-License-Identifier: Apache-2.0
"""How many streams fit on a device: the measured time of their steps against the media time that these make."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from flowact_ros.engine.interfaces import ChunkRecord, Pipeline, Reference
from flowact_ros.engine.metrics import CHUNK_S
from flowact_ros.engine.ring import Snapshot
from flowact_ros.engine.session_config import MAX_STEP_LATENTS
from flowact_ros.engine.step import Step, make
from flowact_ros.timebase import FRAMES_PER_LATENT, SAMPLES_PER_FRAME, SAMPLES_PER_LATENT

SHARE = 0.9  # of media time that steps may take: onsets and interruptions have some of them made again
MOST = 256  # streams on one device, however fast it is
WARM_STEPS = 4  # of a trial: memory fills, kernels are chosen
TIMED_STEPS = 3  # of which the fastest counts: while a robot starts, everything else starts as well
_KEPT = 32  # rounds that tell how fast the device is now
_ENOUGH = 8  # and as many before they do

Run = Callable[[Sequence[Callable[[], object]]], object]  # steps of several streams, beside each other


class Budget:
    """Streams that fit where `workers` rounds of up to `batch` steps run beside each other.

    A round of k full steps is expected to take what a trial told of 1 and of `batch` of them, with a straight line
    between; times the factor by which the last rounds took longer, or shorter, than that.
    """

    def __init__(self, workers: int, batch: int) -> None:
        self.workers, self.batch = workers, batch
        self._alone = self._full = 0.0  # [s] of a round of 1 and of `batch` steps; 0: not known
        self._factors: deque[float] = deque(maxlen=_KEPT)

    def told(self, alone: float, full: float) -> None:
        """Seconds of a round of 1 and of `batch` full steps, with all workers at work."""
        self._alone, self._full = alone, max(alone, full)

    def took(self, steps: int, seconds: float) -> None:
        """A round of so many full steps."""
        if self._alone:
            self._factors.append(seconds / self._expected(steps))

    def _expected(self, steps: int) -> float:
        if self.batch == 1:
            return self._alone
        return self._alone + (self._full - self._alone) * (steps - 1) / (self.batch - 1)

    @property
    def known(self) -> bool:
        return self._alone > 0

    @property
    def factor(self) -> float:
        """Time of rounds now / in the trial. Where workers share cores and caches, rounds are short while few of them
        have work, which says nothing of more streams: there it is at least 1.
        """
        factor = statistics.median(self._factors) if len(self._factors) >= _ENOUGH else 1.0
        return factor if self.workers == 1 else max(1.0, factor)

    def round_s(self, steps: int) -> float:
        """Seconds of a round of so many full steps now; 0 if nothing was measured."""
        return self.factor * self._expected(steps)

    def load(self, streams: int) -> float:
        """Device time that so many streams need / device time that there is; above 1 they cannot all keep up."""
        return self._load(streams) * self.factor

    @property
    def fits(self) -> int:
        """Streams that keep up, up to MOST; 0 where not even one does."""
        share = SHARE / self.factor
        return next((n for n in range(MOST) if self._load(n + 1) > share), MOST)

    def _load(self, streams: int) -> float:
        full, rest = divmod(streams, self.batch)
        seconds = full * self._expected(self.batch) + (self._expected(rest) if rest else 0.0)
        return seconds / (CHUNK_S * self.workers)


class Trial:
    """One silent stream, step after step, of which nothing is kept but its memory."""

    def __init__(self, pipeline: Pipeline, reference: Reference, seed: int) -> None:
        self._pipeline, self._reference, self._seed = pipeline, reference, seed
        self._now = Snapshot(pipeline.start(reference, seed), None, 0, 0)
        self._latent = 0

    def __call__(self) -> None:
        """A full step."""
        p, n = self._pipeline, MAX_STEP_LATENTS
        pcm = np.zeros(p.context_samples + n * SAMPLES_PER_LATENT + p.lookahead_samples, np.float32)
        record = ChunkRecord(
            step=0, first_frame=self._latent * FRAMES_PER_LATENT, latents=n,
            first_sample=self._latent * FRAMES_PER_LATENT * SAMPLES_PER_FRAME, instruction="", behaviour="",
            utterance_id="", reference_id=self._reference.id, seed=self._seed, rewinds=0, resets=0, pcm=pcm,
        )  # fmt: skip
        self._now = make(p, Step(self._now, pcm, record, self._reference), lambda entry: None).after
        self._latent += n


def round_seconds(
    pipeline: Pipeline,
    reference: Reference,
    steps: int,
    workers: int,
    run: Run,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Seconds of a round of `steps` full steps while `workers` such rounds run beside each other: the fastest round of
    each worker, and of these the median.
    """
    seconds: list[float] = []
    errors: list[BaseException] = []

    def work(first: int) -> None:
        try:
            trials = [Trial(pipeline, reference, first + i) for i in range(steps)]
            for _ in range(WARM_STEPS):
                run(trials)
            timed = []
            for _ in range(TIMED_STEPS):
                began = clock()
                run(trials)
                timed.append(clock() - began)
            seconds.append(min(timed))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(steps * i,), name="flowact-trial") for i in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return statistics.median(seconds)
