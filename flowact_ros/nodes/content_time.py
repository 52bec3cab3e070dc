# SPDX-License-Identifier: Apache-2.0
"""Times of frames and sound for the page and recordings: at the pace of the sound, whatever the node's clock does."""

from __future__ import annotations

from flowact_ros.nodes.convert import NANOSECONDS

_KNOWN = 250  # stamps of sound that are remembered: 10 s


class ContentTime:
    """[ns] by stamp. In system time a stamp is that time; in simulated time, whose stamps may be nearer to or farther
    from each other than the sound is long (`stamps.Stamps`), samples are counted, and a picture has the time of the
    sound with its stamp. It never runs backwards.
    """

    def __init__(self) -> None:
        self._by_stamp: dict[int, int] = {}
        self._origin_ns = self._last_ns = 0  # of sample 0; of the last piece of sound

    def sound(self, stamp_ns: int, first_sample: int, rate: int, *, simulated: bool) -> int:
        """When a piece of the stream is to be heard; first_sample: its place in the stream at `rate` [Hz]."""
        if not simulated:
            self._by_stamp.clear()
            return stamp_ns
        place_ns = first_sample * NANOSECONDS // rate
        if not self._by_stamp or self._origin_ns + place_ns < self._last_ns:
            # The first piece, or one of a stream that began anew.
            self._origin_ns = max(stamp_ns, self._last_ns) - place_ns
        time_ns = self._last_ns = self._origin_ns + place_ns
        self._by_stamp[stamp_ns] = time_ns
        if len(self._by_stamp) > _KNOWN:
            self._by_stamp.pop(next(iter(self._by_stamp)))
        return time_ns

    def picture(self, stamp_ns: int) -> int:
        """When a picture is to be seen: with the sound that has its stamp; its stamp where no such sound came."""
        return self._by_stamp.get(stamp_ns, stamp_ns)
