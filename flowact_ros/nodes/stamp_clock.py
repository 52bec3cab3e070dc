# SPDX-License-Identifier: Apache-2.0
"""Stamps as times of this machine's monotonic clock, whatever becomes of the clock that they were made with."""

from __future__ import annotations

from flowact_ros.nodes.convert import NANOSECONDS
from flowact_ros.nodes.stamps import SteadyOffset

LEAD_NS = 80_000_000  # [ns] by which sound leaves before its stamp
FOREIGN_NS = 2 * NANOSECONDS  # stamps farther from our clock than this are of another one
ARRIVAL_NS = 350_000_000  # the same where arrivals are all that is known: they are late by what the machine is busy


class StampClock:
    """[s] of the monotonic clock by stamp, without jitter: what lies between the two clocks is kept until it changes.

    Stamps of a clock that is not ours (a machine an hour off, simulated time) are placed by their arrival, `LEAD_NS`
    before they are to be heard. `foreign_ns`: by how much they are off; 0 as long as the clocks agree.
    """

    def __init__(self) -> None:
        self._offset = SteadyOffset()
        self.foreign_ns = 0

    def place(self, stamp_ns: int, *, clock_ns: int, monotonic_ns: int, simulated: bool = False) -> float:
        """When a stamp is, [s]; clock_ns and monotonic_ns: the node's and the monotonic clock at its arrival."""
        ahead_ns = stamp_ns - clock_ns
        if simulated or abs(ahead_ns) > FOREIGN_NS:
            self.foreign_ns = 0 if simulated else ahead_ns
            offset_ns = self._offset.take(stamp_ns - LEAD_NS, monotonic_ns, ARRIVAL_NS)
        else:
            self.foreign_ns = 0
            offset_ns = self._offset.take(clock_ns, monotonic_ns)
        return (stamp_ns - offset_ns) / NANOSECONDS
