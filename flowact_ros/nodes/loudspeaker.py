# SPDX-License-Identifier: Apache-2.0
"""A loudspeaker through PortAudio, which asks for samples with the time at which they will be heard. No ROS in here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from flowact_ros.nodes.sound_device import SILENT_S, DeviceError, choose_device, portaudio

BLOCK_S = 0.01
LONGEST_QUEUE_S = 2.0  # a driver that tells of more does not know


class Loudspeaker:
    """An open output stream. `fill(count, heard_at)` gives float32 [count] at `rate`, in PortAudio's own thread;
    heard_at [s] of the monotonic clock: when the first of them leaves the loudspeaker, as far as its driver knows.
    """

    def __init__(self, device: str, *, rescan: bool = False) -> None:
        """Raises DeviceError. Nothing is played before `start`."""
        self._library = portaudio(rescan)
        self.underflows = 0
        self._asked_device = device
        self._called = time.monotonic()
        self._stream: Any = None
        try:
            self._index = choose_device(list(self._library.query_devices()), device, "output")
            found = self._library.query_devices(self._index, "output")
            self.name = str(found["name"])
            self.rate = int(found["default_samplerate"])
            self._channels = min(2, int(found["max_output_channels"]))
        except (self._library.PortAudioError, ValueError) as error:
            raise self._cannot_be_opened(error) from None

    def _cannot_be_opened(self, error: Exception) -> DeviceError:
        return DeviceError(f"the loudspeaker {self._asked_device or 'default'!r} cannot be opened: {error}")

    def start(self, fill: Callable[[int, float], np.ndarray]) -> None:
        """Raises DeviceError."""
        self._fill = fill
        try:
            self._stream = self._library.OutputStream(
                device=self._index,
                samplerate=self.rate,
                channels=self._channels,
                dtype="float32",
                blocksize=round(self.rate * BLOCK_S),
                latency="low",
                callback=self._on_block,
            )
            self._stream.start()
        except (self._library.PortAudioError, ValueError) as error:
            raise self._cannot_be_opened(error) from None
        self._called = time.monotonic()

    def _on_block(self, data: np.ndarray, frames: int, times: Any, status: Any) -> None:
        self._called = now = time.monotonic()
        if status and status.output_underflow:
            self.underflows += 1
        queue_s = times.outputBufferDacTime - times.currentTime
        if not 0.0 < queue_s < LONGEST_QUEUE_S:  # some drivers leave it out
            queue_s = float(self._stream.latency)
        data[:] = self._fill(frames, now + queue_s)[:, None]

    @property
    def plays(self) -> bool:
        """Does the device still ask for samples? One that was unplugged does not."""
        return time.monotonic() - self._called < SILENT_S

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close(ignore_errors=True)
