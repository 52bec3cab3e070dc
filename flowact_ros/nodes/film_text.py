# SPDX-License-Identifier: Apache-2.0
"""The captions of a recording: which words are to be seen in a frame, and all that was said as a text."""

from __future__ import annotations

from dataclasses import dataclass

from flowact_msgs.msg import Transcript
from flowact_ros.nodes.captions import USER
from flowact_ros.nodes.convert import NANOSECONDS, from_time

LINGERS_NS = 2 * NANOSECONDS  # a caption after its last word


@dataclass(frozen=True)
class Line:
    """What one side said, from when to when [ns]."""

    start_ns: int
    end_ns: int
    side: str
    text: str


class FilmText:
    """`add` in the executor, the rest in the recording's thread."""

    def __init__(self) -> None:
        self._shown: list[tuple[int, str, str]] = []  # (from when, side, text), in order
        self._lines: list[Line] = []

    def add(self, message: Transcript) -> None:
        side, text = message.header.frame_id, " ".join(message.text.split())
        if not text:
            return
        stamp_ns = from_time(message.header.stamp)
        self._shown.append((stamp_ns, side, text))
        if message.final:
            start_ns, end_ns = from_time(message.start) or stamp_ns, from_time(message.end) or stamp_ns
            self._lines.append(Line(start_ns, end_ns, side, text))

    def at(self, time_ns: int) -> tuple[str, str]:
        """(text, side) to be seen at that time; times never run backwards."""
        while len(self._shown) > 1 and self._shown[1][0] <= time_ns:
            self._shown.pop(0)
        if not self._shown or not self._shown[0][0] <= time_ns < self._shown[0][0] + LINGERS_NS:
            return "", USER
        return self._shown[0][2], self._shown[0][1]

    def transcript(self, start_ns: int) -> str:
        """A line a sentence, with seconds since `start_ns`."""
        return "".join(
            f"{(line.start_ns - start_ns) / NANOSECONDS:8.2f} {(line.end_ns - start_ns) / NANOSECONDS:8.2f}  "
            f"{line.side:6}  {line.text}\n"
            for line in sorted(self._lines, key=lambda line: line.start_ns)
            if line.end_ns >= start_ns
        )
