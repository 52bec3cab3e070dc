# SPDX-License-Identifier: Apache-2.0
"""Frames that are waited for while the next step is denoised, on a device that draws by itself.

Of a stream two such steps may be on their way: one whose frames come, and the one denoised meanwhile. Frames are taken
in the order of their steps, in a thread of their own, so that no order of anything that is recorded changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flowact_ros.engine.step import Making

MOST = 2  # steps on their way; more would only be made ahead of a decoder that cannot follow


class Drawing:
    """A denoised step whose frames are on their way.

    left: its latents that were not drawn; void: none of them will be, since the stream went back before they were due.
    """

    def __init__(self, making: Making, waited: float | None) -> None:
        self.making, self.step, self.waited = making, making.step, waited
        self.left, self.void = making.count, False

    def reaches(self, latent: int) -> None:
        """This one is drawn now."""
        self.left = self.step.latent + self.making.count - latent


class FrameThread:
    """Calls what it is given, one after the other. fail: is told what one of them raises."""

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail, self._pool = fail, ThreadPoolExecutor(1, thread_name_prefix="flowact-frames")
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, draw: Callable[[], None]) -> None:
        self._pool.submit(self._work, draw)

    def _work(self, draw: Callable[[], None]) -> None:
        self._thread = threading.current_thread()
        with self._working:
            try:
                draw()
            except BaseException as error:
                self._fail(error)

    def close(self, timeout_s: float) -> bool:
        """Nothing is called any more. False if one still runs after `timeout_s`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._thread is threading.current_thread():  # what is called closes it
            return True
        ended = self._working.acquire(timeout=timeout_s)
        if ended:
            self._working.release()
            self._pool.shutdown()  # it has nothing to do any more, and ends at once
        return ended
