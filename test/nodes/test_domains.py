# SPDX-License-Identifier: Apache-2.0
"""Workers of a test run that are beside each other never meet in a ROS domain."""

from __future__ import annotations

import domains
import pytest


def drawn(monkeypatch: pytest.MonkeyPatch, worker: str, count: int) -> list[int]:
    monkeypatch.setattr(domains, "_left", [])
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    return [int(domains.own_domain()) for _ in range(count)]


def test_no_domain_is_given_to_two_workers_nor_twice_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (drawn(monkeypatch, worker, 50) for worker in ("gw0", "gw1"))
    assert len(set(first)) == len(set(second)) == 50 and not set(first) & set(second)
    assert 1 <= min(first + second) and max(first + second) <= domains.HIGHEST


def test_they_do_not_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(drawn(monkeypatch, "gw1", 120)) == 120
