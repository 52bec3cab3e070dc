# SPDX-License-Identifier: Apache-2.0
"""A helper that loads leaves the processor to the face, and has its own priority again afterwards."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from flowact_ros.launcher.supervisor import SUPERVISED_VARIABLE
from flowact_ros.nodes import yielding as module
from flowact_ros.nodes.yielding import LOWER, LOWEST, yielding


def priority() -> int:
    """Of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Autogroup:
    """The kernel's file, which may be busy."""

    def __init__(self, busy: int = 0) -> None:
        self.written: list[str] = []
        self._busy = busy

    def write_text(self, text: str, encoding: str) -> None:
        if self._busy:
            self._busy -= 1
            raise BlockingIOError
        self.written.append(text)


@pytest.fixture
def autogroup(monkeypatch: pytest.MonkeyPatch) -> Autogroup:
    made = Autogroup(busy=2)
    monkeypatch.setattr(module, "AUTOGROUP", made)
    monkeypatch.setattr(module, "TRY_S", 0.0)
    monkeypatch.setenv(SUPERVISED_VARIABLE, "1")
    return made


def test_the_work_has_a_low_priority_and_nothing_else_has(autogroup: Autogroup) -> None:
    before = priority()
    assert yielding(lambda: (priority(), list(autogroup.written))) == (min(LOWEST, before + LOWER), [str(LOWER)])
    assert priority() == before and autogroup.written == [str(LOWER), "0"]


def test_what_fails_is_told_and_leaves_no_low_priority(autogroup: Autogroup) -> None:
    def fail() -> None:
        raise ValueError("no voice")

    with pytest.raises(ValueError, match="no voice"):
        yielding(fail)
    assert autogroup.written == [str(LOWER), "0"]


def test_a_session_that_others_share_keeps_its_priority(
    autogroup: Autogroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SUPERVISED_VARIABLE)
    assert yielding(priority) == min(LOWEST, priority() + LOWER)
    assert autogroup.written == []


def test_a_system_without_sessions_or_priorities_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError

    monkeypatch.setenv(SUPERVISED_VARIABLE, "1")
    monkeypatch.setattr(module, "AUTOGROUP", Path("/proc/no/such/file"))
    monkeypatch.setattr(os, "setpriority", refuse)
    assert yielding(lambda: 7) == 7
