# SPDX-License-Identifier: Apache-2.0
"""What a benchmark has the avatar say: a fixed script of speech, and the clocks that watch how it answers.

No torch and no ROS in here: the same driver speaks to a `Session` in this process or to nodes through topics.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE

PIECE_S = 0.04  # [s] of a chunk of speech
REST_S = 1.5  # [s] of silence after an interruption: whether the lips come to rest is read from its pictures
PAUSE_S = 0.4  # [s] without its sound end an utterance: an engine that is late may tear a word for a moment
ANSWER_S = 10.0  # an utterance that is not seen after this long is lost


class BenchError(RuntimeError):
    """The benchmark cannot be carried out: one line."""


@dataclass(frozen=True)
class Item:
    """kind: "fast" (all at once, as a synthesiser gives it), "live" (paced), "cut" (fast, then interrupted), "long"."""

    kind: str
    seconds: float
    pause: float  # of silence before it: onsets fall at any phase of a step
    cut_after: float = 0.0


def script(seed: int = 0, full: bool = False, limit_s: float | None = None) -> list[Item]:
    """About 2.4 minutes, or 4.8 with `full` (then more than 50 fast onsets); about `limit_s` where that is given, in
    another order again and again if that is longer."""
    rng = np.random.default_rng([seed, 0xBE7C])
    times = 2 if full else 1
    items = [Item("long", 20.0, 1.0)] * times
    items += [
        Item("fast", float(rng.uniform(0.9, 1.5)), float(rng.uniform(0.3, 1.0))) for _ in range(30 * times)
    ]
    items += [
        Item("live", float(rng.uniform(1.2, 2.0)), float(rng.uniform(0.3, 1.0))) for _ in range(8 * times)
    ]
    items += [
        Item("cut", 4.0, float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.6, 1.4)))
        for _ in range(12 * times)
    ]
    if limit_s is None:
        return [items[i] for i in rng.permutation(len(items))]
    out, total = [], 0.0
    while True:
        for i in rng.permutation(len(items)):
            item = items[i]
            total += item.pause + 0.5 + (item.cut_after + REST_S if item.kind == "cut" else item.seconds)
            if total > limit_s:
                # the kinds must all be there, however short the run is
                missing = [k for k in ("fast", "live", "cut") if k not in {o.kind for o in out}]
                return out + [next(x for x in items if x.kind == k) for k in missing]
            out.append(item)


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Something between vowels and noise with four syllables a second, float32 at 24 kHz: speed needs no words."""
    rng = np.random.default_rng([seed, 0xBAB])
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / SAMPLE_RATE
    voice = sum(np.sin(n * pitch) / n for n in range(1, 24))
    envelope = np.clip(np.sin(2 * np.pi * 2.0 * t) ** 2 * 1.3 - 0.15, 0, 1)
    return (0.12 * envelope * (voice + 0.2 * rng.standard_normal(len(t)))).astype(np.float32)


@dataclass
class Times:
    """What was seen. Lists in seconds, in the order of the script."""

    ttff: list[float] = field(default_factory=list)
    ttff_live: list[float] = field(default_factory=list)
    barge_in: list[float] = field(default_factory=list)
    lost: int = 0  # utterances that were never heard


class Driver:
    """Plays a script. `push(pcm, utterance_id, first_sample, last)` and `interrupt()` reach the avatar; whoever sees
    frames calls `saw(utterance_id)` for each, as it leaves or arrives."""

    def __init__(
        self,
        items: list[Item],
        speech: np.ndarray,
        push: Callable[[np.ndarray, str, int, bool], None],
        interrupt: Callable[[], None],
        tell: Callable[[float], None] = lambda done: None,
    ) -> None:
        self.items, self.speech, self.push, self.interrupt, self.tell = items, speech, push, interrupt, tell
        self.times = Times()
        self.error: BaseException | None = None
        self._cond = threading.Condition()
        self._sounding = ""  # utterance of the newest frame
        self._newest = 0.0  # when it came
        self._first: dict[str, float] = {}  # when an utterance sounded first, and last
        self._last: dict[str, float] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._guarded, name="benchmark-speech", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        with self._cond:
            self._stop = True
            self._cond.notify_all()
        self._thread.join(5.0)

    def saw(self, utterance_id: str) -> None:
        """A frame with the sound of this utterance ("" for silence) is there."""
        with self._cond:
            self._newest = time.monotonic()
            self._sounding = utterance_id
            if utterance_id:
                self._first.setdefault(utterance_id, self._newest)
                self._last[utterance_id] = self._newest
            self._cond.notify_all()

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # told by whoever joins: a benchmark must not hang
            self.error = error

    def _run(self) -> None:
        for number, item in enumerate(self.items):
            if not self._sleep(item.pause):
                return
            self._play(f"bench-{number}", item)
            self.tell((number + 1) / len(self.items))

    def _play(self, name: str, item: Item) -> None:
        count = round(item.seconds * SAMPLE_RATE)
        pcm = np.resize(self.speech, count)  # from the start, again and again if it is short
        size = round(PIECE_S * SAMPLE_RATE)
        began = time.monotonic()
        for i, first in enumerate(range(0, count, size)):
            if item.kind == "live" and not self._sleep(began + i * PIECE_S - time.monotonic()):
                return
            self.push(np.ascontiguousarray(pcm[first : first + size]), name, first, first + size >= count)
        with self._cond:
            if not self._cond.wait_for(lambda: name in self._first or self._stop, ANSWER_S) or self._stop:
                self.times.lost += not self._stop
                return
            heard = self._first[name] - began
        if item.kind in ("fast", "live"):
            (self.times.ttff if item.kind == "fast" else self.times.ttff_live).append(heard)
        if item.kind == "cut":
            if not self._sleep(item.cut_after):
                return
            with self._cond:
                if self._sounding != name:  # it ran dry just now: nothing to interrupt
                    return
            asked = time.monotonic()
            self.interrupt()
            stopped = self._silent(name, asked, ANSWER_S)
            if stopped is not None:
                self.times.barge_in.append(stopped - asked)
            self._sleep(asked + REST_S - time.monotonic())
            return
        self._over(name, item.seconds + ANSWER_S)

    def _over(self, name: str, timeout: float) -> None:
        """Waits until this speech has not sounded for a while."""
        until = time.monotonic() + timeout
        with self._cond:
            while not self._stop and (now := time.monotonic()) < min(until, self._last[name] + PAUSE_S):
                self._cond.wait(min(until, self._last[name] + PAUSE_S) - now)

    def _silent(self, name: str, since: float, timeout: float) -> float | None:
        """When the first frame after `since` without this speech came; None if none did."""
        with self._cond:
            done = self._cond.wait_for(
                lambda: (self._sounding != name and self._newest > since) or self._stop, timeout
            )
            return self._newest if done and not self._stop else None

    def _sleep(self, seconds: float) -> bool:
        """False when the run is to end."""
        with self._cond:
            self._cond.wait_for(lambda: self._stop, max(0.0, seconds))
            return not self._stop


def percentiles(values: list[float]) -> dict[str, float | None]:
    """{"p50", "p95"} to the millisecond; None without values."""
    if not values:
        return {"p50": None, "p95": None}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "p50": round(ordered[round(0.5 * last)], 3),
        "p95": round(ordered[min(last, int(np.ceil(0.95 * last)))], 3),
    }


def gaps(arrivals: list[float]) -> dict[str, float]:
    """How regularly frames arrived: seconds between them, 95 % of them and the longest."""
    if len(arrivals) < 2:
        return {"p95": 0.0, "max": 0.0}
    steps = np.diff(np.asarray(arrivals))
    return {"p95": round(float(np.percentile(steps, 95)), 4), "max": round(float(steps.max()), 4)}


def resident_mb(pid: int | str = "self") -> float:
    """Memory of a process [MB], 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) / 1024
    except OSError:
        return 0.0
    return 0.0


def cpu_seconds(pid: int | str = "self") -> float:
    """Processor time a process has used, 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def slope_mb_per_hour(samples: list[tuple[float, float]]) -> float:
    """Least-squares slope of (seconds, MB) over the second half of the run."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return 0.0
    t, y = np.array(half).T
    return float(np.polyfit((t - t[0]) / 3600.0, y, 1)[0])


def process_age() -> float:
    """Seconds since this process was started."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, up - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


class progress:
    """A bar on stderr where that is a terminal. Gives `tell(done)`, `done` in 0 .. 1."""

    def __enter__(self) -> Callable[[float], None]:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self.bar.start()
        task = self.bar.add_task("speaking and being interrupted", total=1.0)
        return lambda done: self.bar.update(task, completed=done)

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()
