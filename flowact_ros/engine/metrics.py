# SPDX-License-Identifier: Apache-2.0
"""Figures of a live stream, bounded however long it runs."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flowact_ros.engine.step import Made
from flowact_ros.engine.utterance import Utterance
from flowact_ros.engine.watch import MotionFigures
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

STAGES = ("wait", "denoise", "render", "commit")  # wait: for other streams of the same device
_COSTS_KEPT = 9  # steps of a size that its expected time comes from
_SET_UP = 4.0  # times the time that is expected before any step was seen
_FIXED_SHARE = 1 / 3  # of a step that does not depend on its size: a guess, until that size is seen
CHUNK_S = 0.48  # [s] of media in a full step
_KEPT = 2048  # steps remembered: a quarter of an hour of chunks


@dataclass(frozen=True)
class StreamMetrics:
    """A snapshot. Times in seconds unless named _ms; lists hold the latest values, oldest first.

    fps: new pictures a second over the last frames; real_time_factor_*: wall time of steps, from their start (where
    streams share a device: from when they were wanted) to their last frame, / media time they made; load_median: the
    same of whole steps, which end when memory is written (below 1 the stream keeps up); core_ms_per_chunk: processor
    time of this process while steps are made, per 480 ms; step_ms: median milliseconds a step by stage; waits_ms: what
    frames waited for, by name (`LatentPipeline.waits_ms`); ttff_s: first push of an utterance into silence -> release
    of the first frame with its sound; barge_in_s: interrupt -> release of the first frame without the speech it cut;
    ring_fill: frames made and unshown; repeated: frames that left with the previous picture; dropped: frames whose
    latent was ready too late to show them; skipped: latents never made because the engine was too late; remade: frames
    thrown away by rewinds; underruns: times speech ran dry; stalls: times lateness of the engine broke into speech;
    inserted_s: silence put inside speech; received_samples, heard_samples, dropped_samples (by reason: `losses`):
    speech pushed, in samples of its own rate, and what became of it; filled_samples: silence in place of lost ones;
    unterminated: utterances that ended without `last`; av_skew_s: p95 of |time of the picture shown - time of the sound
    beside it|; motion: how it looks now; alarms_raised: alarms of it so far; refinements: of memory, since motion
    drifted; recoveries: memory started anew, since the face had frozen.
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
    waits_ms: Mapping[str, float] = field(default_factory=dict)
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
    received_samples: int = 0
    heard_samples: int = 0
    filled_samples: int = 0
    dropped_samples: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 0
    lost_chunks: int = 0
    lost_samples: int = 0
    shortened_gaps: int = 0
    reordered: int = 0
    bad_samples: int = 0
    clipped: int = 0
    rescaled: int = 0
    unterminated: int = 0
    av_skew_s: float = 0.0
    motion: MotionFigures = field(default_factory=MotionFigures)
    alarms_raised: int = 0
    refinements: int = 0
    recoveries: int = 0
    error: str = ""


def percentile(values: Iterable[float], q: float) -> float:
    """The smallest value that at least q (0..1) of them do not exceed; 0 for none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]


class StepCost:
    """Expected seconds of a step by its size, from the latest ones: medians, which one slow step does not spoil.

    initial: of a latent, before any step was seen. Where pictures are drawn beside the next step, that one begins when
    this one is denoised, or when the pictures before it were drawn. No size is expected to take longer than newer steps
    of other sizes allow: one that seems too slow is not made, and after a busy moment would seem so for ever.
    """

    def __init__(self, initial: float) -> None:
        self._initial = initial
        # By latents: what does not grow with the pictures. The size that was made last comes last.
        self._denoised: dict[int, deque[float]] = {}
        self._rendered: deque[float] = deque(maxlen=_COSTS_KEPT)  # a latent
        self._beside = False

    def add(self, latents: int, seconds: float, render: float | None, beside: bool = False) -> None:
        """A step took `seconds` besides rendering, and `render` a latent (None: none was rendered); beside: the next
        one could begin meanwhile.

        A first one of its size that took long has set things up, and does not count.
        """
        self._beside = beside
        first = latents not in self._denoised
        seen = self._denoised.pop(latents, deque(maxlen=_COSTS_KEPT))
        self._denoised[latents] = seen
        if first and seconds + latents * (render or 0.0) > _SET_UP * self._initial * latents:
            return
        seen.append(seconds)
        if render is not None:
            self._rendered.append(render)

    def __call__(self, latents: int) -> float:
        """From the start of a step until the next one can begin."""
        denoising, rendering = self._denoising(latents), latents * self._rendering
        return max(denoising, rendering) if self._beside else denoising + rendering

    def first(self, latents: int) -> float:
        """From its start until its first frame must leave, so that all of its latents are in time."""
        late = max(0.0, self._rendering - FRAMES_PER_LATENT / FRAME_RATE)  # more with each, where drawing is so slow
        return self._denoising(latents) + self._rendering + (latents - 1) * late

    @property
    def _rendering(self) -> float:
        return statistics.median(self._rendered) if self._rendered else 0.0

    def _denoising(self, latents: int) -> float:
        sizes = [n for n, seen in self._denoised.items() if seen]
        if not sizes:
            return self._initial * latents
        near = min(sorted(sizes), key=lambda n: abs(n - latents))
        medians = {n: statistics.median(self._denoised[n]) for n in sizes}
        share = latents / near if latents >= near else _FIXED_SHARE + (1.0 - _FIXED_SHARE) * latents / near
        newer = sizes[sizes.index(near) + 1 :]
        # A smaller step takes no longer than a larger one, and a larger one no longer for each latent.
        return min([medians[near] * share, *(medians[n] * max(1.0, latents / n) for n in newer)])


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
        self.refinements = self.recoveries = 0
        self.reactions = Reactions()
        self.first_frame_s: float | None = None
        self._stages: dict[str, deque[float]] = {stage: deque(maxlen=_KEPT) for stage in STAGES}
        self._factors: deque[float] = deque(maxlen=_KEPT)
        self._loads: deque[float] = deque(maxlen=_KEPT)
        self._core_ms: deque[float] = deque(maxlen=_KEPT)
        self._released: deque[tuple[float, bool]] = deque(maxlen=4 * FRAME_RATE)
        self._skews: deque[float] = deque(maxlen=_KEPT)

    def step(self, made: Made) -> None:
        """One step."""
        self.steps += 1
        self.latents += made.done
        for stage, value in made.stages.items():
            self._stages[stage].append(value)
        if made.done:
            media = made.done * FRAMES_PER_LATENT / FRAME_RATE
            self._factors.append(made.seconds / media)
            self._loads.append(made.period_s / media)
            self._core_ms.append(1000.0 * made.core * CHUNK_S / media)

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
            "refinements": self.refinements,
            "recoveries": self.recoveries,
            "av_skew_s": percentile(self._skews, 0.95),
        }
