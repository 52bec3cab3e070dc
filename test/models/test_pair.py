# SPDX-License-Identifier: Apache-2.0
"""Two threads for two halves."""

from __future__ import annotations

import threading

import pytest
import torch

from flowact_ros.models.pair import Pair


def name() -> str:
    return threading.current_thread().name


def test_the_second_half_runs_in_another_thread() -> None:
    pair, met = Pair(), threading.Barrier(2)
    mine, theirs = pair(lambda: (met.wait(10), name())[1], lambda: (met.wait(10), name())[1])
    assert mine == name() and theirs.startswith("flowact-pair")


def test_an_error_is_raised_when_both_have_ended() -> None:
    pair, begun, ended = Pair(), threading.Event(), threading.Event()

    def slowly() -> int:
        begun.set()
        threading.Event().wait(0.05)
        ended.set()
        return 2

    def fail() -> int:
        assert begun.wait(10)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        pair(fail, slowly)
    assert ended.is_set()
    with pytest.raises(ValueError, match="first"):
        pair(slowly, fail)
    assert pair(lambda: 1, slowly) == (1, 2)
    assert pair(lambda: 0, torch.is_inference_mode_enabled)[1]


def test_what_a_busy_thread_has_not_begun_is_done_by_the_caller() -> None:
    pair, go = Pair(), threading.Event()
    holder = threading.Thread(target=lambda: pair(lambda: None, lambda: go.wait(10)))
    holder.start()
    try:
        busy = threading.Event()
        pair._other.submit(busy.set)  # behind the one that waits
        assert pair(lambda: "mine", name) == ("mine", name()) and not busy.is_set()
        with pytest.raises(ZeroDivisionError):
            pair(lambda: 1 // 0, name)
    finally:
        go.set()
        holder.join(10)
    assert busy.wait(10)
