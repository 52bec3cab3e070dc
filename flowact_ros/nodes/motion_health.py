# SPDX-License-Identifier: Apache-2.0
"""What the live watch says of the motion, for `/diagnostics`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowact_ros.engine.metrics import StreamMetrics

OK, WARN, ERROR = 0, 1, 2
LASTING_S = 60.0  # an alarm that is older has outlived what was done against it


def motion_health(figures: StreamMetrics | None) -> tuple[int, str, dict[str, object]]:
    """(level, message, values): WARN with an alarm, ERROR once one has lasted. What is not known is left out."""
    if figures is None:
        return OK, "", {}
    motion = figures.motion
    known = {
        "motion_drift": motion.drift,
        "motion_jitter": motion.jitter,
        "without_blink_s": motion.without_blink_s,
        "lip_movement": motion.lip_movement,
        "lip_sound": motion.lip_sound,
    }
    values: dict[str, object] = {name: round(x, 2) for name, x in known.items() if not math.isnan(x)}
    values |= {
        "motion_alarms_raised": figures.alarms_raised,
        "memory_refinements": figures.refinements,
        "memory_resets": figures.recoveries,
    }
    if not motion.alarms:
        return OK, "", values
    lasting = max(motion.alarms.values())
    level = ERROR if lasting >= LASTING_S else WARN
    return level, f"motion: {', '.join(motion.alarms)} for {lasting:.0f} s", values
