# SPDX-License-Identifier: Apache-2.0
"""What was waited for, in figures that stay bounded however long a stream runs."""

from __future__ import annotations

import statistics
import threading
from collections import deque

KEPT = 256  # calls that the medians are of


class Waits:
    """Milliseconds by name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, deque[float]] = {}

    def note(self, **ms: float) -> None:
        """Of one call."""
        with self._lock:
            for name, value in ms.items():
                self._kept.setdefault(name, deque(maxlen=KEPT)).append(value)

    @property
    def medians(self) -> dict[str, float]:
        """Of the last calls."""
        with self._lock:
            return {name: statistics.median(values) for name, values in self._kept.items()}
