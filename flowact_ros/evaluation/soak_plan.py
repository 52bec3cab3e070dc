# SPDX-License-Identifier: Apache-2.0
"""Which faults a soak test makes, when, and what is asked of the avatar afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KILLED_S = 5.0  # a killed generator or page is back within this
HELPER_S = 10.0  # a planner or a synthesizer: nobody sees that it is away
HANG_S = 8.0  # `launcher.supervisor.HUNG_S`, which this room does not know: what does not answer is killed then
PAUSE_S = 1.5  # shorter than anybody takes for a hang
SETTLE_S = 6.0  # after a fault, before its effects are counted and the next one is made
LONG_S = 900.0  # [s] of a run, from which on processes are left alone for most of it, so that memory can be judged
CALM = 0.25  # the part of such a run after which no process is killed any more


@dataclass(frozen=True)
class Kind:
    """A kind of fault. target: the node, or what is disturbed; recovered: what the time is taken of, for the table;
    most_s: it must not take longer [s], from the beginning of the fault; lasts_s: about how long all of it takes.

    frames: whether all frames must come meanwhile; restarts: whether `target` is started again by it; input: whether
    it sends what the avatar must refuse, and say so in few lines.
    """

    name: str
    target: str
    recovered: str
    most_s: float
    lasts_s: float
    frames: bool = True
    restarts: bool = False
    input: bool = False


_GENERATOR, _PAGE = "avatar_generator", "kiosk_bridge"

KINDS = (
    Kind("kill generator", _GENERATOR, "frames", KILLED_S, 6, frames=False, restarts=True),
    Kind("kill page", _PAGE, "frames at the page", KILLED_S, 5, restarts=True),
    Kind("kill planner", "instruction_planner", "node active", HELPER_S, 4, restarts=True),
    Kind("kill synthesizer", "speech_synthesizer", "node active", HELPER_S, 8, restarts=True),
    Kind("hang generator", _GENERATOR, "frames", HANG_S + KILLED_S + 0.5, 14, frames=False, restarts=True),
    Kind("pause generator", _GENERATOR, "frames", PAUSE_S + 1.0, 3, frames=False),
    Kind("pause page", _PAGE, "frames at the page", PAUSE_S + 1.0, 3),
    Kind("cut page", _PAGE, "frames at the page", 2.0, 2),
    Kind("lose watcher", "a subscriber of image_raw", "frames", 1.0, 5),
    Kind("flood speech", "speech", "next sentence heard", 5.0, 8, input=True),
    Kind("broken speech", "speech", "next sentence heard", 5.0, 5, input=True),
    Kind("unordered speech", "speech", "its last word heard", 14.0, 12),
    Kind("clock an hour off", "speech", "sentence heard", 3.0, 3),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Fault:
    """at_s: seconds after the start of the run, at which it is made at the earliest."""

    at_s: float
    kind: str


def plan(seconds: float, seed: int, only: Sequence[str] = ()) -> list[Fault]:
    """Every kind once a round, each round in another order (the first one begins with the first kind); the same for
    the same seed. only: of these kinds."""
    kinds = [kind for kind in KINDS if not only or kind.name in only]
    rng = np.random.default_rng([seed, 0x50AC])
    faults: list[Fault] = []
    long, now = seconds >= LONG_S, 5.0
    while True:
        before = len(faults)
        first_round = not faults
        shuffled = list(rng.permutation(len(kinds)))
        if first_round:  # what matters most is in the shortest run
            shuffled.remove(0)
            shuffled.insert(0, 0)
        for i in shuffled:
            kind = kinds[i]
            if long and not first_round and now > CALM * seconds and kind.restarts:
                continue
            if now + kind.lasts_s > seconds:
                return faults
            faults.append(Fault(round(now, 2), kind.name))
            pause = rng.uniform(10.0, 40.0) if long else rng.uniform(0.0, 1.0)
            now += kind.lasts_s + SETTLE_S + pause
        if len(faults) == before:  # only kinds that are not made any more
            return faults
    return faults
