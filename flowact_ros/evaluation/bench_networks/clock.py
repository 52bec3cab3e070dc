# SPDX-License-Identifier: Apache-2.0
"""Times of calls on a device: by the device's own events on CUDA, by the clock elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

LEAST, MOST = 5, 200  # calls that a time is taken of
WARM = 2  # calls before the first that is timed: kernels are chosen, caches and the allocator's blocks made
FEWEST = 2  # calls, after one that does not count, where no time is given


@dataclass(frozen=True)
class Times:
    """Seconds of n calls."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.seconds, 95))

    def record(self) -> dict[str, float]:
        """In milliseconds, as it is printed."""
        return {"median": round(1e3 * self.median, 4), "p95": round(1e3 * self.p95, 4), "n": len(self.seconds)}


class Clock:
    """Takes times on one device.

    seconds: about how long each figure is measured; the calls are between `LEAST` and `MOST`. 0 sees that a call works,
    and says little about its time. A CUDA device is given work ahead, as it is live: a time is from one event on its
    stream to the next, so what the host is late with counts.
    """

    def __init__(self, device: torch.device | str, seconds: float = 2.0) -> None:
        self.device, self.seconds = torch.device(device), seconds

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def once(self, call: Callable[[], Any]) -> float:
        """Seconds of one call, all work done before and after it."""
        self.wait()
        began = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - began

    def times(self, call: Callable[[], Any]) -> Times:
        """Times of many calls, after some that do not count."""
        call()
        if self.seconds > 0:
            for _ in range(WARM - 1):
                call()
            count = int(min(MOST, max(LEAST, self.seconds / max(self.once(call), 1e-9))))
        else:
            count = FEWEST
        if self.device.type != "cuda":
            return Times(tuple(self.once(call) for _ in range(count)))
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            call()
            event.record()
        self.wait()
        return Times(tuple(a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:])))
