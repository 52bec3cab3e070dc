# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the avatar: frames and sound that can be told apart, pushed on the clock like the real ones."""

from __future__ import annotations

import threading
import time

import numpy as np

from flowact_ros.kiosk.server import KioskServer
from flowact_ros.media.jpeg import encode_jpeg
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

LEAD_S = 0.08  # as the real stream: a frame leaves 80 ms before it is due
FLASH_EVERY = 25  # frames: one bright frame with a beep a second


def frame_picture(index: int, size: int = 240) -> np.ndarray:
    """uint8 [size, size, 3]: a bar that walks 8 px a frame, on teal; every FLASH_EVERY-th frame is white all over."""
    if index % FLASH_EVERY == 0:
        return np.full((size, size, 3), 255, np.uint8)
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = (30, 70, 76)
    x = index * 8 % (size - 24)
    picture[size // 3 : 2 * size // 3, x : x + 24] = (236, 196, 120)
    return picture


def frame_sound(index: int) -> np.ndarray:
    """float32 [960]: a beep during flash frames, silence otherwise."""
    if index % FLASH_EVERY:
        return np.zeros(SAMPLES_PER_FRAME, np.float32)
    t = np.arange(SAMPLES_PER_FRAME, dtype=np.float32) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)


class SyntheticStream:
    """Pushes the pictures and sounds above into a server until `close`.

    `base` is the pts of frame 0, `pace` the server clock's error (1.01 = 1 % fast). `damage` is the share of sound
    pieces that are lost, and again of those sent twice, late and out of order. Without `flashes` every picture is teal
    with its bar, for screenshots, which nothing ties to a frame; with `noise` they are large. Without `states` that is
    left to the test. While `paused` is set nothing is pushed.
    """

    def __init__(
        self,
        server: KioskServer,
        *,
        sound: bool = True,
        pace: float = 1.0,
        jitter_s: float = 0.0,
        damage: float = 0.0,
        flashes: bool = True,
        states: bool = True,
        noise: bool = False,
    ) -> None:
        self.server, self.sound, self.pace, self.jitter_s, self.damage = server, sound, pace, jitter_s, damage
        self.states = states
        self.paused = threading.Event()
        self.base = 1000.0 + time.monotonic()  # any origin will do: the page compares pts only with pts
        # as many as it takes until both the bar and the flash begin again
        pictures = (i if flashes or i % FLASH_EVERY else i + 1 for i in range(27 * FLASH_EVERY))
        self._jpegs = [encode_jpeg(frame_picture(i)) for i in pictures]
        if noise:
            rng = np.random.default_rng(0)
            self._jpegs = [encode_jpeg(rng.integers(0, 255, (240, 240, 3), np.uint8)) for _ in range(25)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="synthetic", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        rng = np.random.default_rng(0)
        start = time.monotonic()
        held: list[tuple[bytes, float]] = []
        index = 0
        while not self._stop.is_set():
            due = start + (index / FRAME_RATE - LEAD_S) / self.pace + self.jitter_s * rng.random()
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            if not self.paused.is_set():
                pts = self.base + index / FRAME_RATE
                self.server.push_frame(self._jpegs[index % len(self._jpegs)], pts)
                if self.sound:
                    pcm = (frame_sound(index) * 32767).astype("<i2").tobytes()
                    fate = rng.random() / self.damage if self.damage else 9.0
                    late, held = held, []
                    if 0 <= fate < 1:
                        pass  # lost
                    elif 1 <= fate < 2:
                        held = [(pcm, pts)]  # late: behind the next one, so out of order too
                    else:
                        self.server.push_audio(pcm, SAMPLE_RATE, pts)
                    for item in [*late, *([(pcm, pts)] if 2 <= fate < 3 else [])]:
                        self.server.push_audio(item[0], SAMPLE_RATE, item[1])
                if self.states and index % FRAME_RATE == 0:
                    self.server.set_state({"behaviour": "speaking" if index % 2 else "idle", "fps": 25.0})
            index += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def __enter__(self) -> SyntheticStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
