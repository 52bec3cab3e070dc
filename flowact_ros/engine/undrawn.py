# SPDX-License-Identifier: Apache-2.0
"""Latents that were denoised and have no pictures yet: what the thread that denoises hands to the one that draws."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from flowact_ros.engine.ring import Snapshot
from flowact_ros.engine.step import Step, Stopwatch


class Carry:
    """A decoder's state that may not exist yet: `value` is set when the latent before it has been drawn."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


@dataclass(eq=False)
class Work:
    """What a step whose halves run side by side has cost so far. thought, drawn: seconds; core: of both threads."""

    step: Step
    timed: Stopwatch
    began: float
    left: int  # latents to draw or to take back
    done: int = 0  # latents drawn
    thought: float = 0.0
    drawn: float = 0.0
    core: float = 0.0

    @property
    def over(self) -> bool:
        """Both of its halves are."""
        return self.left == 0 and self.thought > 0


@dataclass(eq=False)
class Undrawn:
    """One of them. before.decoder: a Carry, as is `after`.

    taken: a thread is at it, or was; painting: what `Pipeline.paint` made of it, in `painted` seconds
    """

    before: Snapshot
    after: Carry
    work: Work
    taken: bool = False
    painting: Any = None
    painted: float = 0.0

    @property
    def in_work(self) -> bool:
        """It is being painted, by a thread that is not the one that draws."""
        return self.taken and self.painting is None

    @property
    def latent(self) -> int:
        return self.work.step.latent + self.before.done


class UndrawnQueue:
    """They in order. Its user holds the stream's lock."""

    def __init__(self) -> None:
        self._items: deque[Undrawn] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Undrawn]:
        return iter(self._items)

    @property
    def first(self) -> Undrawn | None:
        """The next one to draw, which may be in work."""
        return self._items[0] if self._items else None

    def add(self, before: Snapshot, work: Work) -> Carry:
        """All latents of a step, which `before` holds. Returns where the decoder's state after them will be."""
        decoder = before.decoder if isinstance(before.decoder, Carry) else Carry(before.decoder)
        for done in range(work.left):
            here, decoder = replace(before, done=done, decoder=decoder), Carry()
            self._items.append(Undrawn(here, decoder, work))
        return decoder

    def spare(self) -> Undrawn | None:
        """One that may be painted beside the drawing: rather not the very next, which that may begin with at once."""
        waiting = list(self._items)
        return next((item for item in (*waiting[2:], *waiting[1:2]) if not item.taken), None)

    def drawn(self, item: Undrawn) -> bool:
        """Its pictures are there. False if it was taken back meanwhile: nobody wants them."""
        if self.first is not item:
            return False
        self._items.popleft()
        item.work.left -= 1
        item.work.done += 1
        return True

    def take_back(self, latent: int) -> list[Undrawn]:
        """Forgets `latent` and all after it; returns them, in order."""
        back: list[Undrawn] = []
        while self._items and self._items[-1].latent >= latent:
            back.insert(0, self._items.pop())
            back[0].work.left -= 1
        return back
