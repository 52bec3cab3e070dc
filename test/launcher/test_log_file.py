# SPDX-License-Identifier: Apache-2.0
"""The log of all nodes: its lines, its largest size, and which of the earlier ones stay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowact_ros.launcher import bringup, log_file


def test_lines_have_a_time_and_are_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    log, file = log_file.file_log(tmp_path / "new" / "a.log", shown.append)
    log("avatar_generator | ready: 100 %")
    log("page | größer")
    file.close()
    lines = (tmp_path / "new" / "a.log").read_text(encoding="utf-8").splitlines()
    assert shown == ["avatar_generator | ready: 100 %", "page | größer"]
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in lines] == shown


def test_months_of_lines_take_no_more_than_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "LARGEST", 2000)
    log, file = log_file.file_log(tmp_path / "a.log", None)
    for number in range(500):
        log(f"line {number}")
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4000
    assert (tmp_path / "a.log").read_text().endswith("line 499\n")


def test_logs_of_the_last_starts_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"flowact-202611{day:02}-120000.log" for day in range(1, 26)]
    for name in (*names, f"{names[0]}.1", "flowact-soak-20261101-120000.log", "python3_12_345.log"):
        (tmp_path / name).touch()
    monkeypatch.setattr(bringup, "log_folder", lambda environ: tmp_path)
    _, path = bringup._log(bringup.Options())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names[-log_file.KEPT :], path.name, "flowact-soak-20261101-120000.log", "python3_12_345.log"}
