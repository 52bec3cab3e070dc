# SPDX-License-Identifier: Apache-2.0
"""Speech that the robot has sent and nobody has heard yet: what another server is sent when a stream moves there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from flowact_ros.timebase import FRAME_RATE

MISSED = 2 * FRAME_RATE  # frames after which speech that the server does not have never comes: it was refused


@dataclass
class Utterance:
    """rate: [Hz]; moved: its numbers count from the beginning of its remainder, so the sender's own do not hold."""

    name: str
    rate: int
    pieces: list[np.ndarray] = field(default_factory=list)  # float32 [n]
    closed: bool = False
    sounded: bool = False
    heard_s: float = 0.0
    moved: bool = False
    missed: int = 0  # frames without it, though nothing else waits at the server

    @property
    def seconds(self) -> float:
        return sum(map(len, self.pieces)) / self.rate

    @property
    def left_s(self) -> float:
        return max(0.0, self.seconds - self.heard_s)

    def rest(self) -> np.ndarray:
        """What was not heard, float32 [n]."""
        pcm = np.concatenate([np.zeros(0, np.float32), *self.pieces])
        return pcm[round(self.heard_s * self.rate) :]


class Backlog:
    """Not thread-safe: its user has a lock."""

    def __init__(self) -> None:
        self._utterances: list[Utterance] = []

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._utterances)

    @property
    def queued_s(self) -> float:
        """[s] of speech that is still to be heard."""
        return sum(utterance.left_s for utterance in self._utterances)

    def push(self, name: str, pcm: np.ndarray, rate: int, last: bool) -> Utterance:
        """Adds a piece to its utterance, which it begins if need be."""
        found = next((u for u in self._utterances if u.name == name and not u.closed and u.rate == rate), None)
        if found is None:
            found = Utterance(name, rate)
            self._utterances.append(found)
        found.pieces.append(pcm)
        found.closed = last
        return found

    def frame(self, name: str, speaking: bool, queued_s: float) -> None:
        """A frame left: with speech of `name` or none; queued_s: what waits at the server."""
        sounding = next((u for u in self._utterances if u.name == name and u.left_s > 0), None) if speaking else None
        if sounding is not None:
            sounding.sounded = True
            sounding.heard_s += 1 / FRAME_RATE
        idle = not speaking and queued_s == 0.0
        for utterance in list(self._utterances):
            utterance.missed = utterance.missed + 1 if idle else 0
            over = utterance.sounded and utterance is not sounding and (speaking or idle)
            refused = utterance.closed and utterance.missed > MISSED
            if utterance.left_s == 0 and utterance.closed or over or refused:
                self._utterances.remove(utterance)

    def move(self) -> None:
        """Another server is sent what was not heard: none of it sounds there yet."""
        for utterance in self._utterances:
            utterance.moved, utterance.sounded, utterance.missed = True, False, 0

    def drop(self, name: str | None) -> bool:
        """Forgets one utterance, or all. True if there was any."""
        before = len(self._utterances)
        self._utterances = [u for u in self._utterances if name is not None and u.name != name]
        return len(self._utterances) < before
