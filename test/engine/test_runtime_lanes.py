# SPDX-License-Identifier: Apache-2.0
"""Drawing and copying beside denoising: what waits for what, with streams that only note it; and in order on a CPU."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from flowact_ros.engine.runtime.lanes import Lanes

CPU = torch.device("cpu")


class Notes:
    """Has the streams and events of `torch.cuda`. Work is done at once; what is noted is the order that is asked for.
    An event's time is when it was recorded, by a clock that goes on by one with every note.
    """

    def __init__(self) -> None:
        self.log: list[tuple] = []
        self.time = 0.0
        self.now = _Stream(self, "denoise")

    def note(self, *what: object) -> None:
        self.time += 1.0
        self.log.append(what)

    def Stream(self, device: object) -> _Stream:  # noqa: N802
        return _Stream(self, "copy" if any(x[:2] == ("made", "draw") for x in self.log) else "draw", made=True)

    def Event(self, enable_timing: bool) -> _Event:  # noqa: N802
        assert enable_timing
        return _Event(self)

    def current_stream(self, device: object) -> _Stream:
        return self.now

    @contextmanager
    def stream(self, stream: _Stream):
        before, self.now = self.now, stream
        yield
        self.now = before


class _Stream:
    def __init__(self, notes: Notes, name: str, made: bool = False) -> None:
        self.notes, self.name = notes, name
        if made:
            notes.note("made", name)

    def wait_event(self, event: _Event) -> None:
        self.notes.note(self.name, "waits for", event.by)


class _Event:
    def __init__(self, notes: Notes) -> None:
        self.notes, self.by, self.at = notes, "", 0.0

    def record(self, stream: _Stream) -> None:
        self.by, self.at = stream.name, self.notes.time

    def synchronize(self) -> None:
        self.notes.note("host", "waits for", self.by)

    def elapsed_time(self, other: _Event) -> float:
        return other.at - self.at


def lanes(notes: Notes) -> Lanes:
    return Lanes(torch.device("meta"), cuda=notes, clock=lambda: notes.time / 1e3)


def test_drawing_waits_for_the_latents_the_copy_for_the_drawing_and_the_host_for_the_copy() -> None:
    notes = Notes()
    made = lanes(notes)
    out = torch.zeros(2, 3, dtype=torch.uint8)

    def draw(x: Tensor) -> tuple[Tensor, ...]:
        notes.note(notes.now.name, "draws")
        return (out.copy_(x),)  # at the same place each time, as a captured graph

    first = made.begin(draw, torch.ones(2, 3))
    second = made.begin(draw, torch.full((2, 3), 2.0))
    one = [("draw", "waits for", "denoise"), ("draw", "draws"), ("copy", "waits for", "draw")]
    assert notes.log[2:] == one + one  # and the host has waited for nothing yet
    assert first()[0].tolist() == [[1] * 3] * 2 and second()[0].dtype == np.uint8
    assert notes.log[-4:] == [("host", "waits for", "draw"), ("host", "waits for", "copy")] * 2
    assert notes.now.name == "denoise"
    waits = {"queue": 1.0, "draw": 1.0, "copy": 1.0, "exposed_draw": 1.0, "exposed_copy": 1.0}
    assert made.waits_ms == pytest.approx(waits)


def test_pinned_buffers_are_used_again_once_they_were_read_or_nobody_waits_for_them() -> None:
    made = lanes(Notes())

    def draw(x: Tensor) -> tuple[Tensor, ...]:
        return (x + 1, x.sum())

    pending = [made.begin(draw, torch.full((4,), float(i))) for i in range(3)]
    assert made._pinned.made == 6
    kept = pending.pop(0)()
    pending.pop()  # a step that is given up
    gc.collect()
    for i in (7.0, 8.0):
        assert made.begin(draw, torch.full((4,), i))()[0].tolist() == [i + 1] * 4
    assert made._pinned.made == 6
    assert kept[0].tolist() == [1.0] * 4  # what was given out is the caller's own
    assert pending[0]()[0].tolist() == [2.0] * 4


def test_on_a_cpu_work_is_done_in_order_with_the_same_results() -> None:
    done: list[float] = []

    def draw(x: Tensor) -> tuple[Tensor, ...]:
        done.append(float(x[0]))
        return (2 * x, x.sum())

    ticks = iter(range(100))
    made = Lanes(CPU, clock=lambda: float(next(ticks)))
    waits = [made.begin(draw, torch.full((2,), i)) for i in (1.0, 2.0)]
    assert done == [1.0, 2.0]
    beside = lanes(Notes())
    for i, wait in zip((1.0, 2.0), waits):
        for mine, others in zip(wait(), beside.begin(draw, torch.full((2,), i))(), strict=True):
            np.testing.assert_array_equal(mine, others)
    exposed = {"exposed_draw": 1000.0, "exposed_copy": 0.0}
    assert made.waits_ms == {"queue": 0.0, "draw": 1000.0, "copy": 0.0, **exposed}
