# SPDX-License-Identifier: Apache-2.0
"""The benchmark's driver against an avatar made of a thread: it must see exactly the delays that are put in."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from flowact_ros.evaluation.load import (
    REST_S,
    Driver,
    Item,
    babble,
    cpu_seconds,
    percentiles,
    resident_mb,
    script,
    slope_mb_per_hour,
)


class Avatar:
    """Answers speech after `delay` and an interruption after `stop`; a frame each 5 ms."""

    def __init__(self, delay: float, stop: float) -> None:
        self.delay, self.stop = delay, stop
        self.driver: Driver | None = None
        self.lock = threading.Lock()
        self.plan: list[tuple[float, str]] = []
        self.pushed: dict[str, int] = {}
        self.closed: list[str] = []
        self.begun: dict[str, float] = {}
        self.asked = 0.0
        self.running = True
        self.thread = threading.Thread(target=self.frames, daemon=True)

    def push(self, pcm: np.ndarray, name: str, first: int, last: bool) -> None:
        with self.lock:
            if name not in self.pushed:
                self.begun[name] = time.monotonic()
                self.plan = [(time.monotonic() + self.delay, name)]
            assert first == self.pushed.get(name, 0)
            self.pushed[name] = first + len(pcm)
            if last:
                self.closed.append(name)
                if not name.endswith("-1"):
                    self.plan.append((time.monotonic() + self.delay + 0.1, ""))

    def interrupt(self) -> None:
        with self.lock:
            self.asked = time.monotonic()
            self.plan = [(self.asked + self.stop, "")]

    def frames(self) -> None:
        sounding = ""
        while self.running:
            with self.lock:
                while self.plan and self.plan[0][0] <= time.monotonic():
                    sounding = self.plan.pop(0)[1]
            assert self.driver is not None
            self.driver.saw(sounding)
            time.sleep(0.005)


def test_driver_times_first_frames_and_interruptions():
    avatar = Avatar(delay=0.1, stop=0.15)
    items = [Item("fast", 0.4, 0.02), Item("cut", 1.0, 0.02, cut_after=0.1), Item("fast", 0.2, 0.0)]
    driver = Driver(items, babble(1.0), avatar.push, avatar.interrupt)
    avatar.driver = driver
    avatar.thread.start()
    driver.start()
    deadline = time.monotonic() + 90
    while not driver.done and time.monotonic() < deadline:
        time.sleep(0.01)
    avatar.running = False
    assert driver.error is None and driver.done
    # lower bounds only: a busy machine may be late, never early
    assert len(driver.times.ttff) == 2 and min(driver.times.ttff) >= 0.1
    assert len(driver.times.barge_in) == 1 and driver.times.barge_in[0] >= 0.149
    assert avatar.pushed == {"bench-0": 9600, "bench-1": 24000, "bench-2": 4800}
    assert avatar.closed == ["bench-0", "bench-1", "bench-2"]
    # nothing is said while the pictures after an interruption are looked at
    assert avatar.begun["bench-2"] - avatar.asked >= REST_S


def test_an_error_of_the_script_is_kept_for_the_caller():
    def refuse(*_: object) -> None:
        raise RuntimeError("no")

    driver = Driver([Item("fast", 0.2, 0.0)], babble(0.2), refuse, lambda: None)
    driver.start()
    driver._thread.join(60)
    assert isinstance(driver.error, RuntimeError)


@pytest.mark.parametrize(("full", "least"), [(False, 24), (True, 50)])
def test_script_is_fixed_and_has_enough_onsets(full: bool, least: int):
    items = script(0, full)
    assert items == script(0, full) != script(1, full)
    assert sum(item.kind == "fast" for item in items) >= least
    length = sum(i.pause + (i.cut_after + REST_S if i.kind == "cut" else i.seconds) for i in items)
    assert length < (300 if full else 180)


def test_a_short_script_still_has_every_kind():
    assert {"fast", "live", "cut"} <= {item.kind for item in script(0, limit_s=5)}
    assert script(0, limit_s=600)[:51] == script(0)  # then the same kinds again, in another order
    assert 3.5 * 51 < len(script(0, limit_s=600)) < 4.5 * 51


def test_percentiles_take_the_high_value_of_few():
    assert percentiles([]) == {"p50": None, "p95": None}
    assert percentiles([0.3, 0.1, 0.2]) == {"p50": 0.2, "p95": 0.3}


def test_process_figures_are_of_this_process():
    assert 10 < resident_mb() < 100_000 and cpu_seconds() > 0
    assert resident_mb(2**30) == 0.0 == cpu_seconds(2**30)
    assert slope_mb_per_hour([(float(t), 100 + t / 3600) for t in range(100)]) == pytest.approx(1.0, abs=1e-6)
