# SPDX-License-Identifier: Apache-2.0
"""Functions that run beside each other and meet wherever they ask for the same computation, which is then done at once.

A step is written for one stream. Run as tasks of one `Lockstep`, the steps of several streams wait for each other at
each call of a shared kernel (`call`); calls that fit together become one. Nothing waits for a time: a kernel is
computed when every task has either asked for one or ended, so what is computed together does not depend on how fast
threads are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

Call = tuple[Any, ...]  # the arguments of one call


class Kernel(Protocol):
    """A computation that can be done for several calls at once."""

    size: int  # most calls that are computed together

    def key(self, call: Call) -> Hashable:
        """Calls with equal keys can be computed together."""
        ...

    def compute(self, calls: Sequence[Call]) -> list[Any]:
        """The result of each of 1 .. size calls with equal keys."""
        ...


class _Asked:
    """A call that a task waits for."""

    def __init__(self, lane: int, kernel: Kernel, call: Call) -> None:
        self.lane, self.kernel, self.call = lane, kernel, call
        self.result: Any = None
        self.error: BaseException | None = None
        self.settled = False  # it has a result, or an error
        self.done = False  # and its task may go on


class _Round:
    """One run of tasks."""

    def __init__(self, tasks: int) -> None:
        self._cond = threading.Condition()
        self._working = tasks  # tasks that neither wait for a call nor have ended
        self._asked: list[_Asked] = []

    def carry_out(self, lane: int, task: Callable[[], Any]) -> Any:
        _OWN.round, _OWN.lane = self, lane
        try:
            return task()
        finally:
            _OWN.round = None
            with self._cond:
                self._working -= 1
                self._cond.notify_all()

    def ask(self, kernel: Kernel, call: Call) -> Any:
        asked = _Asked(_OWN.lane, kernel, call)
        with self._cond:
            self._asked.append(asked)
            self._working -= 1
            self._cond.notify_all()
            self._cond.wait_for(lambda: asked.done)
        if asked.error is not None:
            raise asked.error
        return asked.result

    def serve(self) -> None:
        """Computes what is asked for until all tasks have ended."""
        while True:
            with self._cond:
                self._cond.wait_for(lambda: self._working == 0)
                asked, self._asked = sorted(self._asked, key=lambda a: a.lane), []
            if not asked:
                return
            try:
                for group in _groups(asked):
                    _compute(group)
            finally:  # whatever happens here, no task waits for ever
                with self._cond:
                    for one in asked:
                        if not one.settled:
                            one.error = RuntimeError("the computation was given up")
                        one.done = True
                    self._working += len(asked)
                    self._cond.notify_all()


class _Own(threading.local):
    round: _Round | None = None
    lane: int = 0


_OWN = _Own()  # of the thread that runs a task


def call(kernel: Kernel, *arguments: Any) -> Any:
    """The kernel's result for these arguments: together with the calls of other tasks, inside of one."""
    if _OWN.round is None:
        return kernel.compute([arguments])[0]
    return _OWN.round.ask(kernel, arguments)


def filled(calls: Sequence[Call], size: int) -> list[Call]:
    """`size` calls: those that are needed, and the first one again for each that lacks."""
    return [*calls, *[calls[0]] * (size - len(calls))]


def _groups(asked: Sequence[_Asked]) -> list[list[_Asked]]:
    """Those that are computed together, in the order of their lanes."""
    found: dict[tuple[int, Hashable], list[list[_Asked]]] = {}
    for one in asked:
        groups = found.setdefault((id(one.kernel), one.kernel.key(one.call)), [[]])
        if len(groups[-1]) == one.kernel.size:
            groups.append([])
        groups[-1].append(one)
    return [group for groups in found.values() for group in groups]


def _compute(group: Sequence[_Asked]) -> None:
    """Gives each its result. Where that fails for several at once, each by itself: one must not stop the others."""
    results = None
    try:
        results = group[0].kernel.compute([one.call for one in group])
    except Exception as error:
        if len(group) == 1:
            group[0].error, group[0].settled = error, True
            return
    if results is None:  # not above: there the error holds what the batch had taken of the device's memory
        for one in group:
            _compute([one])
        return
    for one, result in zip(group, results, strict=True):
        one.result, one.settled = result, True


class Lockstep:
    """Runs up to `size` tasks at a time. See the module docstring."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="flowact-lane")

    def run(self, tasks: Sequence[Callable[[], Any]]) -> list[Any | BaseException]:
        """What each task returned or raised, in order. The kernels are computed in the thread that calls this."""
        round = _Round(len(tasks))
        futures = [self._pool.submit(round.carry_out, lane, task) for lane, task in enumerate(tasks)]
        round.serve()
        return [future.exception() or future.result() for future in futures]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
