# SPDX-License-Identifier: Apache-2.0
"""Drawing and copying beside denoising: three streams of one GPU, and what was still waited for.

Denoising runs on the stream that is current, so that nothing in `models` and `diffusion` needs to know of streams.
Drawing runs on a second one once the latents are there; frames go to pinned memory on a third. While a latent is drawn
and the one before it is copied, memory is written, or another session denoises. Nothing here waits for the whole
device: events order the streams, and the host waits for the copy that it needs.

On a CPU, work is done in order when it begins, with the same results.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowact_ros.engine.runtime.waits import Waits


class Pinned:
    """Host buffers that a GPU copies into without a detour, used in turn. More are made when all are in use."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._free: dict[tuple[object, ...], list[Tensor]] = {}
        self.made = 0

    def take(self, like: Tensor) -> Tensor:
        with self._lock:
            free = self._free.setdefault((tuple(like.shape), like.dtype), [])
            if free:
                return free.pop()
            self.made += 1
        return self._make(like)

    def give_back(self, buffers: list[Tensor]) -> None:
        """Later copies into them come after earlier ones, in the order of the stream that copies."""
        with self._lock:
            for buffer in buffers:
                self._free[tuple(buffer.shape), buffer.dtype].append(buffer)


class Lanes:
    """See the module docstring.

    cuda: `torch.cuda`, or what has its streams and events
    """

    def __init__(
        self, device: torch.device, cuda: Any = torch.cuda, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device = device
        self._cuda, self._clock = cuda, clock
        self._ordered = device.type == "cpu"
        if not self._ordered:
            self._drawing, self._copying = cuda.Stream(device), cuda.Stream(device)
        self._pinned = Pinned(self._host_buffer)
        self._lock = threading.Lock()
        self._waits = Waits()

    def begin(
        self, compute: Callable[..., tuple[Tensor, ...]], *inputs: Tensor
    ) -> Callable[[], tuple[np.ndarray, ...]]:
        """Begins to compute, and to copy to the host; what it returns waits for the outputs, for one thread.

        Outputs may be overwritten by the next call of `compute`: they are copied in order with it.
        """
        if self._ordered:
            return self._in_order(compute, inputs)
        cuda, timed = self._cuda, lambda: self._cuda.Event(enable_timing=True)
        asked, started, drawn, copied = timed(), timed(), timed(), timed()
        with self._lock:  # calls of two threads do not mix their work
            asked.record(cuda.current_stream(self.device))
            self._drawing.wait_event(asked)
            with cuda.stream(self._drawing):
                started.record(self._drawing)
                outputs = tuple(x.clone() for x in compute(*inputs))
                drawn.record(self._drawing)
            for x in inputs:
                if x.is_cuda:  # its memory is not given to others before it was read
                    x.record_stream(self._drawing)
            buffers = [self._pinned.take(x) for x in outputs]
            self._copying.wait_event(drawn)
            with cuda.stream(self._copying):
                for buffer, x in zip(buffers, outputs):
                    buffer.copy_(x, non_blocking=True)
                    if x.is_cuda:
                        x.record_stream(self._copying)
                copied.record(self._copying)

        read: list[tuple[np.ndarray, ...]] = []

        def wait() -> tuple[np.ndarray, ...]:
            if not read:
                began = self._clock()
                drawn.synchronize()
                seen = self._clock()
                copied.synchronize()
                there = self._clock()
                read.append(tuple(buffer.numpy().copy() for buffer in buffers))
                given_back()
                self._waits.note(
                    queue=asked.elapsed_time(started),
                    draw=started.elapsed_time(drawn),
                    copy=drawn.elapsed_time(copied),
                    exposed_draw=1e3 * (seen - began),
                    exposed_copy=1e3 * (there - seen),
                )
            return read[0]

        given_back = weakref.finalize(wait, self._pinned.give_back, buffers)  # also where nobody waits any more
        return wait

    def _host_buffer(self, like: Tensor) -> Tensor:
        with torch.inference_mode(False):  # it is written again and again, also outside of that mode
            return torch.empty(like.shape, dtype=like.dtype, pin_memory=self.device.type == "cuda")

    def _in_order(
        self, compute: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
    ) -> Callable[[], tuple[np.ndarray, ...]]:
        began = self._clock()
        arrays = tuple(x.numpy().copy() for x in compute(*inputs))
        spent = 1e3 * (self._clock() - began)
        self._waits.note(queue=0.0, draw=spent, copy=0.0, exposed_draw=spent, exposed_copy=0.0)  # nothing is hidden
        return lambda: arrays

    @property
    def waits_ms(self) -> dict[str, float]:
        """Medians of the last calls. Of the GPU: from being asked until it began to draw (`queue`), `draw`, from then
        until the frames were on the host (`copy`). Of the host, which asked for frames: how long it stood still until
        they were drawn (`exposed_draw`), and from then until they were copied (`exposed_copy`).
        """
        return self._waits.medians
