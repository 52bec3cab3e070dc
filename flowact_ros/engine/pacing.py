# SPDX-License-Identifier: Apache-2.0
"""When does a frame leave? A pure function of content time and clock time.

Content time never waits for the engine: frame k leaves `output_lead` before its stamp t0 + k/25, with the new picture
if there is one, else with the previous one. Only a consumer (or a whole process) that stood still moves t0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flowact_ros.timebase import FRAME_RATE

_TICK = 1e-6  # [s] floats of a clock that runs for years differ by less


class Action(Enum):
    """What to do about frame k now."""

    WAIT = "wait"
    SHOW = "show"
    REPEAT = "repeat"
    REANCHOR = "reanchor"


@dataclass(frozen=True)
class Decision:
    """WAIT: look again after `seconds` at the latest; REANCHOR: add `seconds` to t0; else `seconds` is 0."""

    action: Action
    seconds: float = 0.0


def stamp(index: int, t0: float) -> float:
    """Presentation time [s] of frame `index`."""
    return t0 + index / FRAME_RATE


def decide(
    index: int,
    now: float,
    t0: float,
    ready: bool,
    *,
    lead: float = 0.08,
    grace: float = 0.02,
    reanchor: float = 1.0,
) -> Decision:
    """Decides about frame `index` at clock time `now` [s].

    ready: its picture exists. A picture that is late may still come within `grace`; after that the previous one
    leaves in its place. More than `reanchor` late means that nobody took frames, as much early that the clock was set
    back: t0 is moved.
    """
    late = now - (stamp(index, t0) - lead)
    if abs(late) > reanchor:
        return Decision(Action.REANCHOR, late)
    if late < -_TICK:
        return Decision(Action.WAIT, -late)
    if ready:
        return Decision(Action.SHOW)
    if late < grace - _TICK:
        return Decision(Action.WAIT, grace - late)
    return Decision(Action.REPEAT)
