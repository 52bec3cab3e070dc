# SPDX-License-Identifier: Apache-2.0
"""Two threads for one piece of work that falls into halves."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

First, Second = TypeVar("First"), TypeVar("Second")


class Pair:
    """The calling thread and one more, for inference. The other one starts with the first call."""

    def __init__(self) -> None:
        self._other = ThreadPoolExecutor(1, thread_name_prefix="flowact-pair")

    def __call__(self, first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
        """Results of both, `second` from the other thread, or from this one if the other was busy all the time.

        Raises what one of them raises, when both have ended.
        """

        def inferring() -> Second:
            with torch.inference_mode():  # which threads do not inherit
                return second()

        theirs = self._other.submit(inferring)
        try:
            mine = first()
        except BaseException as error:
            if theirs.cancel():
                raise
            raise error from theirs.exception()  # which waits for it
        return mine, inferring() if theirs.cancel() else theirs.result()


def pair_for(device: torch.device) -> Pair | None:
    """One where there are cores for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Pair() if device.type == "cpu" and cores > 1 else None
