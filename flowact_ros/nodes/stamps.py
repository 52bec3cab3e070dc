# SPDX-License-Identifier: Apache-2.0
"""When frames are to be seen, in the node's clock: steady in system time, beside `/clock` in simulated time."""

from __future__ import annotations

from rclpy.clock import Clock, ROSClock

from flowact_ros.nodes.convert import NANOSECONDS
from flowact_ros.timebase import FRAME_RATE

FRAME_NS = NANOSECONDS // FRAME_RATE
# [ns] a stamp's distance from the simulated clock that is left alone, so that stamps stay 40 ms apart: wide enough for
# a /clock that comes 10 times a second, and less than the 80 ms by which frames leave early, so none leaves too late.
TOLERANCE_NS = 60_000_000
SET_FRAMES = FRAME_RATE  # a clock that is beside itself for so long was set; less was a delay between two readings
STEADY_NS = 20_000_000  # [ns] the same where readings are a block or a chunk apart
JUMP_NS = NANOSECONDS  # [ns] farther away than this the clock was set, it did not just run faster


def is_simulated(clock: Clock) -> bool:
    """Does a node's clock follow `/clock` (use_sim_time)?"""
    return isinstance(clock, ROSClock) and clock.ros_time_is_active


def followed(predicted_ns: int, expected_ns: int, last_ns: int) -> int:
    """The stamp of the next frame in simulated time [ns].

    predicted: 40 ms a frame since the stamp before, which was `last`; expected: from the clock's time now. Within
    TOLERANCE_NS of `expected` it is `predicted`, else the nearest end of that range, and `expected` itself after a
    jump. Always later than `last`, by 1 ns at least: while the clock stands still, by just that.
    """
    if abs(predicted_ns - expected_ns) > JUMP_NS:
        stamp_ns = expected_ns
    else:
        stamp_ns = min(max(predicted_ns, expected_ns - TOLERANCE_NS), expected_ns + TOLERANCE_NS)
    return max(stamp_ns, last_ns + 1)


class SteadyOffset:
    """[ns] from the monotonic clock to a node's: without the jitter of reading both, until that clock is set."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def take(self, clock_ns: int, monotonic_ns: int, most_ns: int = STEADY_NS) -> int:
        """Of two readings of the same moment; within `most_ns` of the offset before, that one holds."""
        offset_ns = clock_ns - monotonic_ns
        if self._offset_ns is None or abs(offset_ns - self._offset_ns) > most_ns:
            self._offset_ns = offset_ns
        return self._offset_ns


class Stamps:
    """Frame k is stamped t0 + k/25, exactly, with t0 of the first frame.

    In system time t0 moves only when the session's own does (a machine that slept), and never back, and when that
    clock is set (by a time server, after the start of a board without a clock of its own): then stamps follow it within
    a second, forwards or back. `set_by_ns`: by how much they did with the last frame; else 0.

    In simulated time frames still leave 25 times a second of real time, but t0 moves with `/clock`, so that stamps
    run as fast as it does and stay within TOLERANCE_NS of when the frame is seen (`followed`). Before its first
    message that clock shows 0, and so do stamps, nearly. When it is set back (a bag that is played again, a
    simulation that was reset), stamps go back once with it, as those of every other node do and as tf2 and message
    filters expect; otherwise they strictly increase.
    """

    def __init__(self) -> None:
        self._t0_ns: int | None = None
        self._t0_s = 0.0
        self._simulated = False
        self._clock_ns = 0  # the simulated clock's time at the last frame
        self._last_ns = -1
        self._offset_ns = 0  # from the monotonic clock to the system's, as stamps have it
        self._beside = 0  # frames in a row at which it was another one
        self.set_by_ns = 0

    def __getitem__(self, index: int) -> int:
        """[ns] in the node's clock: when frame `index` is to be seen, as far as is known now. 0 before the first."""
        return 0 if self._t0_ns is None else self._t0_ns + index * FRAME_NS

    def take(self, index: int, pts_s: float, *, clock_ns: int, monotonic_ns: int, simulated: bool) -> int:
        """The stamp [ns] of frame `index`, which is to be seen at `pts_s` [s] of this machine's monotonic clock.

        clock_ns and monotonic_ns: the node's and the monotonic clock at the same moment.
        """
        t0_s = pts_s - index / FRAME_RATE
        t0_ns = round(t0_s * NANOSECONDS) + clock_ns - monotonic_ns
        self.set_by_ns = 0
        if self._t0_ns is None or simulated != self._simulated:
            self._t0_ns, self._t0_s, self._offset_ns = t0_ns, t0_s, clock_ns - monotonic_ns
        elif simulated:
            expected_ns = t0_ns + index * FRAME_NS
            set_back = clock_ns < self._clock_ns
            stamp_ns = max(expected_ns, 0) if set_back else followed(self[index], expected_ns, self._last_ns)
            self._t0_ns = stamp_ns - index * FRAME_NS
        else:
            if abs(t0_s - self._t0_s) > 1e-3:
                # Never backwards: stamps stay strictly increasing.
                self._t0_ns += max(0, round((t0_s - self._t0_s) * NANOSECONDS))
                self._t0_s = t0_s
            set_by_ns = clock_ns - monotonic_ns - self._offset_ns
            self._beside = self._beside + 1 if abs(set_by_ns) > TOLERANCE_NS else 0
            if self._beside >= SET_FRAMES:
                self._t0_ns, self._offset_ns = self._t0_ns + set_by_ns, self._offset_ns + set_by_ns
                self.set_by_ns, self._beside = set_by_ns, 0
        self._simulated, self._clock_ns, self._last_ns = simulated, clock_ns, self[index]
        return self._last_ns
