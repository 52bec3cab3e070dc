# SPDX-License-Identifier: Apache-2.0
"""How much to make next, or how long to wait: a pure function of where the stream stands.

Large steps are cheap, small ones are quick. While idle the stream keeps little ahead, since speech that starts throws
it away; while speech gathers the worker stays free so that it can answer at once; while speaking the ring is filled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLE_RATE, SAMPLES_PER_LATENT

_KEEPS_UP = 0.9  # share of content time that a step may take to count as keeping up
_LEAD_S = (0.08, 0.8)  # least and greatest lead of a rewind
_LATENT_S = SAMPLES_PER_LATENT / SAMPLE_RATE
_COMFORT_S = 0.08  # slack beyond a step with which it is better to wait for a larger one


@dataclass(frozen=True)
class Situation:
    """slack: seconds until the first frame of the next step must leave (inf before the clock starts); ahead: frames
    made and unshown; flowing: speech is being laid or can start; gathering: speech arrives but cannot start yet;
    supply: samples that can be laid without a break, and, if not `bounded`, only those; small: the first step after
    a start, an onset or a rewind, which something waits for; lookahead: samples the encoder wants beyond a step;
    offline: time does not matter.
    """

    slack: float
    ahead: int
    flowing: bool
    gathering: bool
    supply: int
    bounded: bool
    small: bool
    lookahead: int
    offline: bool = False


class Cost(Protocol):
    """Expected seconds of a step by its size (`metrics.StepCost`)."""

    def __call__(self, latents: int) -> float:
        """All of it: until the next one can begin."""
        ...

    def first(self, latents: int) -> float:
        """From its start until its first frame must leave, so that all of its latents are in time."""
        ...


def sustained(cost: Cost, most: int) -> int:
    """The smallest step that keeps up with content time when only such steps are made; `most` if none does."""
    budget = _KEEPS_UP * _LATENT_S
    return next((n for n in range(1, most + 1) if cost(n) <= budget * n), most)


def overloaded(cost: Cost, most: int) -> bool:
    """No step keeps up with content time: the machine is too slow, or busy with something else."""
    return cost(most) > most * _LATENT_S  # larger ones are cheaper a latent


def gathered(cost: Cost, config: SessionConfig) -> int:
    """Latents of speech that must be buffered before an utterance that comes in real time starts.

    Less would starve it: steps that keep up want as much at once. Those of an overloaded engine are for frames that
    leave when they are done, and until then sound must last, too.
    """
    most = config.step_latents
    waits = math.ceil(cost(most) * SAMPLE_RATE / SAMPLES_PER_LATENT) if overloaded(cost, most) else 0
    return max(config.start_latents, sustained(cost, most) + waits)


def in_time_from(frame: int, cost: Cost, most: int) -> int:
    """The first latent that can be made in time when `frame` is the next to leave."""
    seconds = cost.first(sustained(cost, most))
    return -(-(frame + math.ceil(seconds * FRAME_RATE)) // FRAMES_PER_LATENT)


def shortest_lead(cost: Cost, config: SessionConfig) -> float:
    """Seconds from now to the first frame that a rewind may still change so that nothing is late.

    One latent is made first, and the first picture of the step that follows must be there when it has been shown.
    """
    second = cost(1) + cost.first(sustained(cost, config.step_latents)) - _LATENT_S
    return min(_LEAD_S[1], max(_LEAD_S[0], 1.25 * max(cost.first(1), second) + config.margin_s))


def choose(s: Situation, cost: Cost, config: SessionConfig) -> tuple[int, float]:
    """-> (latents, 0) to make them now, or (0, seconds) to look again then at the latest."""
    most = config.step_latents
    buffered = (s.supply - s.lookahead) // SAMPLES_PER_LATENT if s.flowing and not s.bounded else most
    if s.offline:
        return max(1, min(most, buffered)), 0.0

    slow = overloaded(cost, most)
    limit = config.ring_frames if s.flowing or slow else config.idle_frames
    room = (limit - s.ahead) // FRAMES_PER_LATENT
    if room < 1:
        return 0, 1.0 / FRAME_RATE
    least = sustained(cost, most)  # smaller ones would only make it later
    if s.gathering or buffered < 1:
        n = least if s.gathering and not slow else 1
        deadline = s.slack - cost.first(n) - config.margin_s  # such a step must start before this has passed
        unstarted = math.isinf(s.slack)  # the first pictures wait for nothing
        return (n, 0.0) if deadline <= 0 or unstarted else (0, deadline)  # at the deadline with what there is
    if s.small and not slow and s.slack - cost(1) + _LATENT_S >= cost.first(least):
        # one, and the step that follows is there when it has been shown; more where its first picture is surely in time
        sizes = range(2, min(most, room, buffered) + 1) if math.isfinite(s.slack) else ()  # costs are not known yet
        return max((n for n in sizes if cost.first(n) + 2 * config.margin_s <= s.slack), default=1), 0.0
    in_time = max(
        (n for n in range(least, most + 1) if cost.first(n) + config.margin_s <= s.slack), default=least
    )
    n = min(in_time, room, buffered)
    if n < in_time:  # room or speech is missing for a larger one: wait while that is safe
        wait = s.slack - cost.first(n) - config.margin_s - (2 * _COMFORT_S if buffered < room else _COMFORT_S)
        if wait > 0:
            return 0, wait
    return n, 0.0
