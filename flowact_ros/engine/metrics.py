# SPDX-License-Identifier: Apache-2.0
"""Figures of a live stream, bounded however long it runs."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flowact_ros.engine.utterance import Utterance
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

STAGES = ("audio", "text", "denoise", "deepen", "commit", "decode", "output")
_COSTS_KEPT = 16  # steps of a size that its expected time comes from
_SET_UP = 4.0  # times the time that is expected before any step was seen
_FIXED_SHARE = 1 / 3  # of a step that does not depend on its size: a guess, until that size is seen
_KEPT = 2048  # steps remembered: a quarter of an hour of chunks


@dataclass(frozen=True)
class StreamMetrics:
    """A snapshot. Times in seconds unless named _ms; lists hold the latest values, oldest first.

    fps: new pictures a second over the last frames; real_time_factor_*: wall time of steps, from their
    start to their last frame, / media time they made; load_median: working time of the busier of denoiser and decoder /
    media time (below 1 the stream keeps up);
    ttff_s: first push of an utterance into silence -> release of the first frame with its sound; barge_in_s:
    interrupt -> release of the first frame without the speech it cut; step_ms: median milliseconds a step by stage;
    core_ms_per_chunk: processor time of the threads that make steps, per 480 ms; ring_fill: frames made and unshown;
    repeated: frames that left with the previous picture; dropped: pictures that came too late; skipped: latents never
    made because the engine was too late; remade: frames thrown away by rewinds; underruns: times speech ran dry;
    stalls: times lateness of the engine broke into speech; inserted_s: silence put inside speech; av_skew_s: p95 of
    |time of the picture shown - time of the sound beside it|; identity: cosine to the reference, if known.
    """

    frames: int = 0
    steps: int = 0
    latents: int = 0
    fps: float = 0.0
    real_time_factor_median: float = 0.0
    real_time_factor_p95: float = 0.0
    load_median: float = 0.0
    core_ms_per_chunk: float = 0.0
    step_ms: Mapping[str, float] = field(default_factory=dict)
    ttff_s: tuple[float, ...] = ()
    barge_in_s: tuple[float, ...] = ()
    first_frame_s: float | None = None
    ring_fill: int = 0
    queued_s: float = 0.0
    repeated: int = 0
    dropped: int = 0
    skipped: int = 0
    rewinds: int = 0
    remade: int = 0
    reanchors: int = 0
    underruns: int = 0
    stalls: int = 0
    inserted_s: float = 0.0
    repeats: int = 0
    lost_chunks: int = 0
    lost_samples: int = 0
    shortened_gaps: int = 0
    reordered: int = 0
    bad_samples: int = 0
    clipped: int = 0
    unterminated: int = 0
    av_skew_s: float = 0.0
    identity: float | None = None
    error: str = ""


def percentile(values: Iterable[float], q: float) -> float:
    """The smallest value that at least q (0..1) of them do not exceed; 0 for none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


class StepCost:
    """Expected wall time of a step by its size, from the ones seen."""

    def __init__(self, initial: float) -> None:
        self._initial = initial
        self._seen: dict[int, deque[float]] = {}

    def add(self, latents: int, wall: float) -> None:
        """A step of `latents` took `wall` seconds. A first one of its size that took long has set things up."""
        seen = self._seen.get(latents)
        if seen is None:
            seen = self._seen[latents] = deque(maxlen=_COSTS_KEPT)
            if wall > _SET_UP * self._initial * latents:
                return
        seen.append(wall)

    def __call__(self, latents: int) -> float:
        """The upper quartile of the latest: deadlines depend on it, one slow step must not spoil it."""
        sizes = [n for n, seen in self._seen.items() if seen]
        if not sizes:
            return self._initial * latents
        near = min(sizes, key=lambda n: abs(n - latents))
        seen = percentile(self._seen[near], 0.75)
        if latents >= near:
            return seen * latents / near
        return seen * (_FIXED_SHARE + (1.0 - _FIXED_SHARE) * latents / near)


class LaneCost:
    """Expected seconds of a step whose denoising and drawing may run beside each other, from what was seen.

    Called with a size: until all frames of such a step are there, when nothing is before it.
    """

    def __init__(self, initial: float) -> None:
        self._whole, self._thought, self._handed, self._drawn = (StepCost(initial) for _ in range(4))
        self._lanes = False

    def whole(self, latents: int, wall: float) -> None:
        """A step of `latents`, one half after the other, took `wall` seconds."""
        self._lanes = False
        self._whole.add(latents, wall)

    def thought(self, latents: int, wall: float, handed: float) -> None:
        """Denoising and committing `latents` took `wall` seconds; their drawing could begin after `handed`."""
        self._lanes = True
        self._thought.add(latents, wall)
        self._handed.add(latents, handed)

    def drew(self, wall: float) -> None:
        """Decoding one latent took `wall` seconds."""
        self._drawn.add(1, wall)

    def __call__(self, latents: int) -> float:
        return self._handed(latents) + latents * self._drawn(1) if self._lanes else self._whole(latents)

    def first(self, latents: int) -> float:
        """How long before its first frame leaves such a step must begin, so that all of its latents are in time."""
        if not self._lanes:
            return self._whole(latents)
        late = self._drawn(1) - FRAMES_PER_LATENT / FRAME_RATE  # more with each latent, where drawing is that slow
        return self._handed(latents) + self._drawn(1) + (latents - 1) * max(0.0, late)

    def period(self, latents: int) -> float:
        """Until the next step of this size could follow."""
        return max(self._thought(latents), latents * self._drawn(1)) if self._lanes else self._whole(latents)

    def queue(self, undrawn: int) -> float:
        """How much later the frames of a step are there because so many latents wait before it."""
        return max(0.0, undrawn * self._drawn(1) - self._handed(1)) if undrawn else 0.0


class Reactions:
    """How long the world waits: speech until it sounds, interruptions until it stops."""

    def __init__(self) -> None:
        self.ttff: deque[float] = deque(maxlen=_KEPT)
        self.barge_in: deque[float] = deque(maxlen=_KEPT)
        self._cut: tuple[float, list[Utterance]] | None = None

    def interrupted(self, now: float, cut: list[Utterance]) -> None:
        """These were sounding when they were cut."""
        self._cut = (now, cut)

    def sounding(self, now: float, owners: list[Utterance]) -> None:
        """A frame leaves in which these sound."""
        for owner in owners:
            if not owner.shown and owner.first_push is not None:
                self.ttff.append(now - owner.first_push)
            owner.shown = True
        if self._cut is not None and not any(owner in self._cut[1] for owner in owners):
            self.barge_in.append(now - self._cut[0])
            self._cut = None


class Meter:
    """Collects; `Stream.metrics` turns it into a StreamMetrics."""

    def __init__(self) -> None:
        self.frames = self.steps = self.latents = 0
        self.repeated = self.dropped = self.skipped = self.rewinds = self.remade = self.reanchors = (
            self.stalls
        ) = 0
        self.reactions = Reactions()
        self.first_frame_s: float | None = None
        self.identity: float | None = None
        self._stages: dict[str, deque[float]] = {stage: deque(maxlen=_KEPT) for stage in STAGES}
        self._factors: deque[float] = deque(maxlen=_KEPT)
        self._loads: deque[float] = deque(maxlen=_KEPT)
        self._core_ms: deque[float] = deque(maxlen=_KEPT)
        self._released: deque[tuple[float, bool]] = deque(maxlen=4 * FRAME_RATE)
        self._skews: deque[float] = deque(maxlen=_KEPT)

    def step(self, latents: int, wall: float, busy: float, core: float, stages: Mapping[str, float]) -> None:
        """One step: latents decoded, seconds of wall time, of its longer half, of processors, milliseconds by stage."""
        self.steps += 1
        self.latents += latents
        for stage, value in stages.items():
            self._stages.setdefault(stage, deque(maxlen=_KEPT)).append(value)
        if latents:
            media = latents * FRAMES_PER_LATENT / FRAME_RATE
            self._factors.append(wall / media)
            self._loads.append(busy / media)
            self._core_ms.append(1000.0 * core * 0.48 / media)

    def release(self, now: float, repeated: bool, skew: float) -> None:
        """One frame left."""
        self.frames += 1
        self.repeated += repeated
        self._released.append((now, repeated))
        self._skews.append(skew)

    def figures(self) -> dict[str, object]:
        """Fields of StreamMetrics that it knows."""
        span = self._released[-1][0] - self._released[0][0] if len(self._released) > 1 else 0.0
        fresh = sum(not repeated for _, repeated in list(self._released)[1:])
        return {
            "frames": self.frames,
            "steps": self.steps,
            "latents": self.latents,
            "fps": fresh / span if span > 0 else 0.0,
            "real_time_factor_median": statistics.median(self._factors) if self._factors else 0.0,
            "real_time_factor_p95": percentile(self._factors, 0.95),
            "load_median": statistics.median(self._loads) if self._loads else 0.0,
            "core_ms_per_chunk": statistics.median(self._core_ms) if self._core_ms else 0.0,
            "step_ms": {stage: statistics.median(v) for stage, v in self._stages.items() if v},
            "ttff_s": tuple(self.reactions.ttff),
            "barge_in_s": tuple(self.reactions.barge_in),
            "first_frame_s": self.first_frame_s,
            "repeated": self.repeated,
            "dropped": self.dropped,
            "skipped": self.skipped,
            "rewinds": self.rewinds,
            "remade": self.remade,
            "reanchors": self.reanchors,
            "stalls": self.stalls,
            "av_skew_s": percentile(self._skews, 0.95),
            "identity": self.identity,
        }
