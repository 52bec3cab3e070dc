# SPDX-License-Identifier: Apache-2.0
"""Frames as they come from the fleet: numbered through whichever server made them, and timed by the robot's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowact_ros.fleet.wire import Message, WireError
from flowact_ros.media.jpeg import decode_jpeg
from flowact_ros.timebase import FRAME_RATE, SAMPLES_PER_FRAME

LATE_S = 1.0  # a link that became so slow moves the frames' time; less is the receivers' jitter


@dataclass(frozen=True, eq=False)
class RemoteFrame:
    """What `engine.interfaces.Frame` has, with a JPEG for its picture. pts: in this machine's clock."""

    index: int
    pts: float
    jpeg: bytes
    motion: np.ndarray
    audio: np.ndarray
    utterance_id: str
    behaviour: str
    speaking: bool
    repeated: bool

    @property
    def rgb(self) -> np.ndarray:
        """uint8 [H, W, 3], decoded when it is asked for."""
        return decode_jpeg(self.jpeg)


class Arrivals:
    """From messages of the kind `frame` to frames, 1/25 s apart.

    lead_s: a frame's stamp lies so long after the first one of its server came
    """

    def __init__(self, lead_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lead_s, self._clock = lead_s, clock
        self._t0 = 0.0  # time of frame 0
        self._anchored = False  # does t0 hold for the server that makes the frames now?
        self._jpeg = b""  # the last one that came
        self.count = 0
        self.late = 0  # frames that came after their stamp

    def server_gone(self) -> None:
        """The next frame comes from another one, after a pause."""
        self._anchored = False

    def take(self, message: Message, controls: int) -> RemoteFrame:
        """controls: numbers in its motion. Raises WireError for a message that is no frame."""
        sound, motion, jpeg = (message.part(i) for i in range(3))
        if len(sound) != 2 * SAMPLES_PER_FRAME or len(motion) != 4 * controls:
            raise WireError(f"a frame has {len(sound)} bytes of sound and {len(motion)} of motion")
        self._jpeg = jpeg or self._jpeg  # a slow link goes without some pictures
        if not self._jpeg:
            raise WireError("the first frame has no picture")
        frame = RemoteFrame(
            index=self.count,
            pts=self._due(),
            jpeg=self._jpeg,
            motion=np.frombuffer(motion, "<f4"),
            audio=np.frombuffer(sound, "<i2").astype(np.float32) / 32768.0,
            utterance_id=message.get("utterance_id", str, ""),
            behaviour=message.get("behaviour", str, ""),
            speaking=message.get("speaking", bool, False),
            repeated=message.get("repeated", bool, False) or not jpeg,
        )
        self.count += 1
        return frame

    def _due(self) -> float:
        """The stamp of the frame that came now."""
        now, media = self._clock(), self.count / FRAME_RATE
        if not self._anchored or now > self._t0 + media + LATE_S:  # a new server, or a link that became slower
            self._t0, self._anchored = max(self._t0, now + self._lead_s - media), True
        else:
            self.late += now > self._t0 + media
        return self._t0 + media
