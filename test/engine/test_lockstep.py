# SPDX-License-Identifier: Apache-2.0
"""Tasks beside each other: what they ask for is computed together, and a fault is that of the one who has it."""

from __future__ import annotations

import weakref

import pytest

from flowact_ros.engine.streams.lockstep import Lockstep, call


class Doubling:
    """Doubles numbers; negative ones cannot be."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.computed: list[list[int]] = []

    def key(self, given: tuple) -> bool:
        return given[0] < 1000  # large ones are computed by themselves

    def compute(self, calls: list[tuple]) -> list[int]:
        self.computed.append([number for (number,) in calls])
        if any(number < 0 for (number,) in calls):
            raise ValueError("negative")
        return [2 * number for (number,) in calls]


def chain(kernel: Doubling, number: int, times: int) -> int:
    for _ in range(times):
        number = call(kernel, number)
    return number


def test_calls_are_joined_where_they_fit() -> None:
    kernel = Doubling(3)
    lockstep = Lockstep(5)
    starts = [(1, 3), (2, 3), (3, 1), (4, 2), (1000, 3)]  # some end sooner
    results = lockstep.run([lambda n=n, t=t: chain(kernel, n, t) for n, t in starts])
    assert results == [8, 16, 6, 16, 8000]
    assert kernel.computed == [[1, 2, 3], [4], [1000], [2, 4, 8], [2000], [4, 8], [4000]]
    assert chain(kernel, 5, 1) == 10  # in no task: by itself
    assert lockstep.run([]) == []
    lockstep.close()


def test_a_fault_is_that_of_its_task() -> None:
    kernel = Doubling(4)
    lockstep = Lockstep(4)

    def broken() -> int:
        raise KeyError("mine")

    good, bad, other, raised = lockstep.run(
        [lambda: chain(kernel, 1, 3), lambda: chain(kernel, -1, 3), lambda: chain(kernel, 2, 1), broken]
    )
    assert (good, other) == (8, 4)
    assert isinstance(bad, ValueError) and isinstance(raised, KeyError)
    lockstep.close()


def test_what_a_batch_that_failed_had_taken_is_free_before_its_calls_are_tried_alone() -> None:
    class Memory:
        pass

    held: list[bool] = []

    class Large(Doubling):
        def compute(self, calls: list[tuple]) -> list[int]:
            if len(calls) > 1:
                taken = Memory()
                self.taken = weakref.ref(taken)
                raise RuntimeError("CUDA out of memory")
            held.append(self.taken() is not None)
            return super().compute(calls)

    kernel, lockstep = Large(2), Lockstep(2)
    assert lockstep.run([lambda: call(kernel, 1), lambda: call(kernel, 2)]) == [2, 4]
    assert held == [False, False]
    lockstep.close()


def test_an_interruption_of_the_thread_that_computes_leaves_nobody_waiting() -> None:
    class Interrupted(Doubling):
        def compute(self, calls: list[tuple]) -> list[int]:
            raise KeyboardInterrupt

    lockstep = Lockstep(2)
    ended: list[str] = []

    def task() -> None:
        with pytest.raises(RuntimeError, match="given up"):
            call(Interrupted(2), 1)
        ended.append("ended")

    with pytest.raises(KeyboardInterrupt):
        lockstep.run([task, task])
    lockstep._pool.shutdown(wait=True)
    assert ended == ["ended", "ended"]
