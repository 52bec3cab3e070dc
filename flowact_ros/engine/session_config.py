# SPDX-License-Identifier: Apache-2.0
"""Settings of a live session, checked where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.vocabulary import PRIORITY_URGENT

MAX_STEP_LATENTS = 3  # the model's chunk: three latents are denoised together (paper: 3 latents a chunk)

# name -> (least, greatest)
_RANGES: dict[str, tuple[float, float]] = {
    "step_latents": (1, MAX_STEP_LATENTS),
    "start_latents": (1, MAX_STEP_LATENTS),
    "ring_frames": (FRAMES_PER_LATENT * MAX_STEP_LATENTS, 250),
    "idle_frames": (FRAMES_PER_LATENT * MAX_STEP_LATENTS, 250),
    "output_lead_s": (0.0, 1.0),
    "grace_s": (0.0, 0.08),
    "reanchor_s": (0.1, 60.0),
    "lead_s": (0.0, 2.0),
    "margin_s": (0.0, 0.5),
    "queue_s": (1.0, 3600.0),
    "gap_s": (0.0, 2.0),
    "reorder_window": (0, 16),
    "hold_s": (0.0, 2.0),
    "orphan_s": (0.1, 60.0),
    "fade_s": (0.0, 0.02),
    "urgent_from": (0, 256),
    "close_timeout_s": (0.1, 60.0),
}


@dataclass(frozen=True)
class SessionConfig:
    """How a session spends time and memory. Times in seconds, sizes in frames or latents.

    Raises ValueError naming the value and its range.
    """

    step_latents: int = MAX_STEP_LATENTS  # latents a step in steady state
    start_latents: int = 1  # latents that must be buffered (plus look-ahead) before an utterance starts
    ring_frames: int = 24  # most unshown frames while speaking: two chunks
    idle_frames: int = 24  # most unshown frames while silent: what onset would throw away
    output_lead_s: float = 0.08  # frame k leaves this long before its stamp
    grace_s: float = 0.02  # how much later than that a late frame may still leave
    reanchor_s: float = 1.0  # the consumer stood still for longer: move t0 instead of bursting
    lead_s: float | None = None  # rewind no closer to now than this; None: from measured step times
    margin_s: float = 0.05  # safety of deadlines
    queue_s: float = 120.0  # most speech that may wait
    gap_s: float = 0.2  # lost audio is zero-filled up to this
    reorder_window: int = 3  # chunks that may arrive early before a gap counts as loss
    hold_s: float = 0.1  # and the longest that they wait
    orphan_s: float = 1.0  # an utterance without its end is taken as ended when nothing came for so long
    fade_s: float = 0.02  # fade of the sound cut off by an interruption
    urgent_from: int = PRIORITY_URGENT  # instructions of this priority or a greater one rewind
    close_timeout_s: float = 5.0  # close() waits this long for a step to end

    def __post_init__(self) -> None:
        for name, (least, greatest) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name == "lead_s":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}: a number in [{least}, {greatest}] is needed")
            if not least <= value <= greatest:
                raise ValueError(f"{name} is {value}: it must lie in [{least}, {greatest}]")
        for name in (
            "step_latents",
            "start_latents",
            "ring_frames",
            "idle_frames",
            "reorder_window",
            "urgent_from",
        ):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} is {getattr(self, name)!r}: a whole number is needed")
        if self.idle_frames > self.ring_frames:
            raise ValueError(
                f"idle_frames is {self.idle_frames}: it must not exceed ring_frames ({self.ring_frames})"
            )
        if self.output_lead_s < self.grace_s:
            raise ValueError(
                f"grace_s is {self.grace_s}: it must not exceed output_lead_s ({self.output_lead_s})"
            )
