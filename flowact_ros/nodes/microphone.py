# SPDX-License-Identifier: Apache-2.0
"""A live microphone through PortAudio, as blocks of float32 samples. No ROS in here.

PortAudio's own thread only copies a block into a queue; whoever reads the queue does the work.
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from flowact_ros.nodes.sound_device import DeviceError, choose_device, portaudio

QUEUE_BLOCKS = 100  # 2–4 s: a reader later than that loses blocks, which are counted


@dataclass(frozen=True)
class Block:
    """Samples float32 [T] mono; `captured` is the monotonic time [s] of the first one."""

    pcm: np.ndarray
    captured: float


class Microphone:
    """An open input stream. `rate` is the rate that the device gives: the wished one where it can."""

    def __init__(self, device: str, rate: int, block_s: float, *, rescan: bool = False) -> None:
        """Raises DeviceError."""
        library = portaudio(rescan)
        self.overflows = 0
        self._blocks: queue.Queue[Block] = queue.Queue(QUEUE_BLOCKS)
        try:
            index = choose_device(list(library.query_devices()), device)
            self.name = str(library.query_devices(index, "input")["name"])
            self.rate = self._usable_rate(library, index, rate)
            self._stream = library.InputStream(
                device=index,
                samplerate=self.rate,
                channels=1,
                dtype="float32",
                blocksize=int(round(self.rate * block_s)),
                callback=self._on_block,
            )
            self._stream.start()
        except (library.PortAudioError, ValueError) as error:
            raise DeviceError(f"the microphone {device or 'default'!r} cannot be opened: {error}") from None

    @staticmethod
    def _usable_rate(library: ModuleType, index: int | None, rate: int) -> int:
        try:
            library.check_input_settings(device=index, channels=1, dtype="float32", samplerate=rate)
        except (library.PortAudioError, ValueError):
            return int(library.query_devices(index, "input")["default_samplerate"])
        return rate

    def _on_block(self, data: np.ndarray, frames: int, _: object, status: Any) -> None:
        if status and status.input_overflow:
            self.overflows += 1
        block = Block(data[:, 0].copy(), time.monotonic() - frames / self.rate)
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            self.overflows += 1

    def read(self, timeout_s: float = 0.2) -> Block | None:
        """The next block, or None after `timeout_s`."""
        try:
            return self._blocks.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._stream.close(ignore_errors=True)
