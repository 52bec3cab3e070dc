# SPDX-License-Identifier: Apache-2.0
"""Sound at its time, on a device whose clock is not ours: what was pushed with times is pulled with times.

A device plays "48,000 samples a second" by its own crystal, which is off by up to 100 parts in a million: 0.36 s an
hour. So what is played is compared with what should be heard now, and the pace corrected by at most half a percent
(9 cents, not heard in speech). Both the device's rate and the correction are one interpolation, by a windowed sinc,
whose place is known exactly and which needs 0.7 ms of what follows; soxr's streams hold back up to 38 ms of the 80 by
which sound comes early.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE

MOST_CORRECTION = 0.005  # of the pace
CORRECTION_S = 4.0  # [s] in which an error would be corrected
SMOOTHING_S = 1.0  # [s] time constant: what drivers tell of their time jitters by milliseconds
SKIP_S = 0.04  # an error beyond this is cut, by the median of the last pulls: one that comes late alone is no error
JOIN_S = 0.001  # pieces whose times fit this well are continuous
GAP_S = 1.0  # silence is put in up to this; beyond, a new stretch of sound begins
FADE_S = 0.005  # from before a cut to behind it
LATE_PUSHES = 5  # pieces in a row that come too late: then all sound is delayed
DELAY_STEP_S = 0.02
MOST_DELAY_S = 0.5
TAPS = 32  # of the interpolation; half of them lie ahead: 0.7 ms
_PHASES = 512  # of its table, with straight lines in between
_PULLS = 5
_KEPT_S = 0.1  # of what was played: a correction may look back a little
_SKEWS = 1000  # of the last pulls: 10 s and more
_DRIFT_S = 30.0  # [s] time constant of what is told of the device's clock


@dataclass(frozen=True)
class PlayoutFigures:
    """skew_*: heard minus its time [s], of the last pulls; drift: how much faster the device's clock runs than ours.

    delay_s: later than its time all sound is played, because it comes too late for this device; missing_s: sound that
    was not there when it was to be heard; gaps: pieces missing in between; skips: cuts that kept the time.
    """

    skew_p50_s: float
    skew_p95_s: float
    drift_ppm: float
    delay_s: float
    missing_s: float
    gaps: int
    skips: int


def kernel(rate: int) -> np.ndarray:
    """float32 [_PHASES + 1, TAPS]: weights of the samples around a place between two of them, for a device's rate."""
    cutoff = min(1.0, rate / SAMPLE_RATE) * 0.95  # nothing above half of the lower rate
    offsets = np.arange(TAPS) - (TAPS // 2 - 1) - np.linspace(0, 1, _PHASES + 1)[:, None]
    window = np.i0(9.0 * np.sqrt(np.clip(1 - (offsets / (TAPS / 2)) ** 2, 0, 1))) / np.i0(9.0)  # Kaiser's
    weights = np.sinc(cutoff * offsets) * window
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


class Playout:
    """A line of sound at 24 kHz. Thread-safe: a topic pushes, the device's thread pulls."""

    def __init__(self, rate: int, *, delay_s: float = 0.0) -> None:
        """rate [Hz]: of the device, nominally; delay_s: how much later than its time sound is to be heard."""
        self.rate = rate
        self._step = SAMPLE_RATE / rate  # places of the line a sample of the device
        self._kernel = kernel(rate)
        self._wished_s = delay_s
        self._lock = threading.Lock()
        self._extra_s = 0.0
        self._skews: deque[float] = deque(maxlen=_SKEWS)
        self._drift = 0.0
        self._missing = self._gaps = self._skips = 0
        self._origin_s: float | None = None  # when sample 0 of the line is to be heard; None before any sound
        self._clear(0.0)
        self._origin_s = None

    def _clear(self, at_s: float) -> None:
        self._origin_s = at_s
        self._pushed = 0  # samples since the origin
        self._line = np.zeros(0, np.float32)
        self._first = 0  # place of _line[0], counted from the origin
        self._cursor: float | None = None  # place of the next sample to be played; None: nothing was
        self._errors: deque[float] = deque(maxlen=_PULLS)  # [s] of the last pulls; positive: we are late
        self._smoothed_s = 0.0
        self._starved = 0  # samples of the device that were not there since the last push
        self._late = 0

    # ---- in

    def push(self, pcm: np.ndarray, at_s: float) -> None:
        """float32 [n] at 24 kHz; at_s: when its first sample is to be heard, on the clock of `pull`."""
        with self._lock:
            origin_s = self._origin_s
            if origin_s is None:
                self._clear(at_s)
                origin_s = at_s
            off_s = at_s - (origin_s + self._pushed / SAMPLE_RATE)
            if abs(off_s) > GAP_S:
                self._clear(at_s)  # another stream, or a clock that was set
            elif off_s > JOIN_S:
                self._gaps += 1
                pcm = np.concatenate([np.zeros(round(off_s * SAMPLE_RATE), np.float32), pcm])
            elif off_s < -JOIN_S:
                pcm = pcm[round(-off_s * SAMPLE_RATE) :]  # its time belongs to what came before
            self._pushed += len(pcm)
            self._line = np.concatenate([self._line, np.asarray(pcm, np.float32)])
            if self._cursor is not None:
                self._forget(int(self._cursor) - round(_KEPT_S * SAMPLE_RATE))
                self._delay_if_late()

    def _forget(self, place: int) -> None:
        played = min(max(0, place - self._first), len(self._line))
        self._line, self._first = self._line[played:], self._first + played

    def _delay_if_late(self) -> None:
        """A device with a long queue asks for sound before it is there: heard late is better than never."""
        self._late = self._late + 1 if self._starved else 0
        if self._late >= LATE_PUSHES and self._extra_s < MOST_DELAY_S:
            self._extra_s = min(MOST_DELAY_S, self._extra_s + DELAY_STEP_S)
            self._late = 0
        self._starved = 0

    # ---- out

    def pull(self, count: int, at_s: float) -> np.ndarray:
        """float32 [count] for the device; at_s: when the first of them will be heard. Silence where there is none."""
        with self._lock:
            if self._origin_s is None:
                return np.zeros(count, np.float32)
            wanted = (at_s - self._wished_s - self._extra_s - self._origin_s) * SAMPLE_RATE
            if self._cursor is None:
                self._cursor = wanted
            self._errors.append((wanted - self._cursor) / SAMPLE_RATE)
            error_s = float(np.median(self._errors))
            ahead = np.arange(count) * self._step
            before: np.ndarray | None = None
            if len(self._errors) == _PULLS and abs(error_s) > SKIP_S:
                before = self._read(self._cursor + ahead)
                self._cursor += error_s * SAMPLE_RATE
                self._errors.clear()
                self._smoothed_s, error_s = 0.0, 0.0
                self._skips += 1
            pace = self._pace(error_s, count / self.rate)
            out = self._read(self._cursor + pace * ahead)
            if before is not None:
                fade = np.clip(np.arange(count, dtype=np.float32) / (FADE_S * self.rate), 0, 1)
                out = before * (1 - fade) + out * fade
            self._cursor += pace * count * self._step
            self._count_missing(count)
            self._skews.append(error_s + self._extra_s)
            return out

    def _pace(self, error_s: float, seconds: float) -> float:
        self._smoothed_s += (error_s - self._smoothed_s) * min(1.0, seconds / SMOOTHING_S)
        correction = max(-MOST_CORRECTION, min(MOST_CORRECTION, self._smoothed_s / CORRECTION_S))
        self._drift += (-correction - self._drift) * min(1.0, seconds / _DRIFT_S)
        return 1.0 + correction

    def _read(self, places: np.ndarray) -> np.ndarray:
        """The line between its samples; silence outside of it."""
        whole = np.floor(places)
        at = (whole - self._first).astype(np.int64) - (TAPS // 2 - 1)
        there = (at >= 0) & (at + TAPS <= len(self._line))
        out = np.zeros(len(places), np.float32)
        if there.any():
            phase, x = np.divmod((places - whole)[there] * _PHASES, 1.0)
            row, x = phase.astype(np.int64), x.astype(np.float32)[:, None]
            weights = self._kernel[row] * (1 - x) + self._kernel[row + 1] * x
            samples = self._line[at[there][:, None] + np.arange(TAPS)]
            out[there] = np.einsum("nt,nt->n", weights, samples)
        return out

    def _count_missing(self, count: int) -> None:
        """Sound that comes to its end is no loss: only what comes too late is."""
        behind = self._cursor - (self._first + len(self._line) - TAPS // 2)  # type: ignore[operator]
        if 0 < behind < GAP_S * SAMPLE_RATE:
            missing = min(count, round(behind / self._step))
            self._missing += missing
            self._starved += missing

    # ---- figures

    def figures(self) -> PlayoutFigures:
        """Since the start; skew of about the last ten seconds."""
        with self._lock:
            skews = np.array(self._skews) if self._skews else np.zeros(1)
            return PlayoutFigures(
                skew_p50_s=float(np.median(skews)),
                skew_p95_s=float(np.percentile(np.abs(skews), 95)),
                drift_ppm=self._drift * 1e6,
                delay_s=self._extra_s,
                missing_s=self._missing / self.rate,
                gaps=self._gaps,
                skips=self._skips,
            )
