# SPDX-License-Identifier: Apache-2.0
"""Shared memory of dead processes is found by its lock and removed; that of living ones is not touched."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from flowact_ros.launcher import shared_memory


def segment(folder: Path, number: int, age_s: float = 60.0, size: int = 1000) -> Path:
    memory = folder / f"fastrtps_{number:016x}"
    memory.write_bytes(bytes(size))
    lock = folder / f"{memory.name}_el"
    lock.touch()
    made = lock.stat().st_mtime - age_s
    os.utime(lock, (made, made))
    return memory


def test_only_what_nobody_uses_is_removed(tmp_path: Path) -> None:
    dead, alive, young = segment(tmp_path, 1), segment(tmp_path, 2), segment(tmp_path, 3, age_s=0.0)
    for name in ("fastrtps_port7400", "fastrtps_port7400_el", "sem.fastrtps_port7400_mutex", "somebody's"):
        (tmp_path / name).touch()
    with open(tmp_path / f"{alive.name}_el") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shared_memory.leftovers(tmp_path) == 1000
        assert shared_memory.sweep(tmp_path) == 1000
        assert not dead.exists() and not (tmp_path / f"{dead.name}_el").exists()
        assert alive.exists() and young.exists() and len(os.listdir(tmp_path)) == 8
        assert shared_memory.sweep(tmp_path) == 0
    assert shared_memory.sweep(tmp_path) == 1000  # its process has ended


def test_a_port_that_was_never_finished_is_removed(tmp_path: Path) -> None:
    """Every node after it would wait for it for ever."""
    for name, data, age in (
        ("fastrtps_port7000", b"", 60.0),
        ("fastrtps_port7001", bytes(100), 60.0),
        ("fastrtps_port7002", b"\x01" + bytes(99), 60.0),
        ("fastrtps_port7003", b"\x02" + bytes(99), 60.0),  # in use, or left whole
        ("fastrtps_port7004", b"", 0.0),  # being made
        ("fastrtps_port7005_el", b"", 60.0),
    ):
        (tmp_path / name).write_bytes(data)
        made = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (made, made))
    shared_memory.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["fastrtps_port7003", "fastrtps_port7004", "fastrtps_port7005_el"]


def test_files_of_others_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = segment(tmp_path, 1)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert shared_memory.sweep(tmp_path) == 0 and memory.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert shared_memory.sweep(tmp_path / "none") == 0 == shared_memory.leftovers(tmp_path / "none")
