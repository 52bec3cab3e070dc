# SPDX-License-Identifier: Apache-2.0
"""Whether the processor draws in time, and what to turn if it does not, for `/diagnostics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowact_ros.vocabulary import DRAW_EVERY

if TYPE_CHECKING:
    from flowact_ros.engine.metrics import StreamMetrics

SLOW_FPS = 20.0  # fewer new pictures a second are seen as stutter
_SETTLED = 100  # frames; before, the machine is still busy with the start


def too_slow(figures: StreamMetrics | None, draw_every: int, draws: bool) -> str:
    """One line that says so, empty if all is well. draws: the preset has a renderer, which may draw fewer frames."""
    if figures is None or figures.frames < _SETTLED or figures.fps >= SLOW_FPS:
        return ""
    more = draws and draw_every < max(DRAW_EVERY)
    advice = f": draw_every {2 * draw_every} (now {draw_every}) halves the work" if more else ""
    return f"{figures.fps:.0f} frames a second in time, the processor is too slow or too busy{advice}"
