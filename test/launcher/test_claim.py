# SPDX-License-Identifier: Apache-2.0
"""The second avatar of a namespace is warned, by the process that was first; another namespace or domain is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowact_ros.launcher import bringup
from flowact_ros.launcher.claim import Claim


def test_only_the_second_is_told(tmp_path: Path) -> None:
    first = Claim("robot1/avatar", "", tmp_path)
    assert first.holder == ""
    assert Claim("/robot1/avatar/", "0", tmp_path).holder == str(os.getpid())
    for namespace, domain in (("robot2/avatar", ""), ("robot1/avatar", "7")):
        assert Claim(namespace, domain, tmp_path).holder == ""
    first.close()
    first.close()
    assert Claim("robot1/avatar", "", tmp_path).holder == ""


def test_a_folder_without_room_for_locks(tmp_path: Path) -> None:
    assert Claim("avatar", "", tmp_path / "none").holder == ""


def test_what_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    first = bringup._claim("avatar", "3")
    assert capsys.readouterr().out == ""
    bringup._claim("avatar", "3").close()
    (line,) = capsys.readouterr().out.splitlines()
    assert f"warning: process {os.getpid()} has an avatar in /avatar, domain 3" in line and "--namespace" in line
    first.close()
