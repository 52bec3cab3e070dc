# SPDX-License-Identifier: Apache-2.0
"""A boot to the face: the units, what installs them, and the program that becomes the browser."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from page_client import wait_for

from flowact_ros.kiosk import screen
from flowact_ros.kiosk.server import KioskServer

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "kiosk"
UNITS = ("flowact-avatar.service", "flowact-screen.service")


def install(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(DEPLOY / "install"), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of an image into which everything was installed."""
    root = tmp_path_factory.mktemp("image")
    done = install(root, "--home", "/opt/flowact_ros")
    assert done.returncode == 0, done.stderr
    return root


def unit(image: Path, name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(image / "etc/systemd/system" / name)
    return parser


def test_the_units_start_what_there_is(image: Path) -> None:
    avatar, face = (unit(image, name) for name in UNITS)
    start = avatar["Service"]["ExecStart"]
    assert start.startswith("/opt/flowact_ros/.venv/bin/flowact up --params-file /etc/flowact/flowact.yaml ")
    assert avatar["Service"]["RestartPreventExitStatus"] == str(screen.BAD_SETUP)  # as the supervisor's
    command = face["Service"]["ExecStart"].split(" -- ")[1].split()
    assert command[:3] == ["/opt/flowact_ros/.venv/bin/python", "-m", "flowact_ros.kiosk.screen"]
    known = subprocess.run([sys.executable, "-m", "flowact_ros.kiosk.screen", "--help"], capture_output=True, text=True)
    assert all(word in known.stdout for word in command if word.startswith("--"))
    given = [*face["Service"].get("Environment", "").split(), *(DEPLOY / "kiosk.env").read_text().split()]
    for name in ("FLOWACT_SCREEN_URL", "FLOWACT_SCREEN_SETUP"):
        assert f"${{{name}}}" in command and any(word.lstrip("#").startswith(f"{name}=") for word in given)
    for each in (avatar, face):
        assert each["Service"]["Restart"] == "always" and each["Unit"]["StartLimitIntervalSec"] == "0"
        assert "@HOME@" not in str({name: dict(each[name]) for name in each.sections()})
    assert yaml.safe_load((image / "etc/flowact/flowact.yaml").read_text())
    assert json.loads((image / "etc/chromium/policies/managed/flowact.json").read_text())["AudioCaptureAllowedUrls"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """With a home in which there is a program, and a compositor that stands in for one that is not installed."""
    for name in ("flowact", "python"):
        program = tmp_path / "home/.venv/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    assert install(tmp_path, "--home", str(tmp_path / "home")).returncode == 0
    units = [tmp_path / "etc/systemd/system" / name for name in UNITS]
    for path in units:
        path.write_text(path.read_text().replace("/usr/bin/cage", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "flowact-" in line]
    assert not ours, ours


def test_an_installation_leaves_what_somebody_has_set(image: Path) -> None:
    settings = image / "etc/flowact/kiosk.env"
    settings.write_text("FLOWACT_UP=--character bolt\n")
    assert install(image, "--home", "/srv/flowact_ros").returncode == 0
    assert settings.read_text() == "FLOWACT_UP=--character bolt\n"
    assert "/srv/flowact_ros/" in (image / "etc/systemd/system" / UNITS[0]).read_text()
    done = install(image, "--house", "x")
    assert done.returncode == 2 and "unknown argument --house" in done.stderr


@pytest.fixture
def chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that notes how it was started; where it writes."""
    program, out = tmp_path / "bin/chromium", tmp_path / "out"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {out}\nenv >> {out}\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return out


def run_screen(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flowact_ros.kiosk.screen", "--profile", str(tmp_path / "profile"), *arguments]
    added = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=added, stderr=subprocess.PIPE, text=True)


def test_it_waits_for_the_page_and_becomes_the_browser(chromium: Path, tmp_path: Path) -> None:
    with KioskServer(port=0) as free:
        port = free.port
    url = f"http://127.0.0.1:{port}/"
    token = "a-token-of-the-installation"
    process = run_screen(tmp_path, "--url", url, "--setup", "no-such-program 90", FLOWACT_KIOSK_TOKEN=token)
    time.sleep(1.0)
    assert process.poll() is None and not chromium.exists()  # nothing is served yet
    with KioskServer(port=port) as server:
        server.set_health("waiting for the avatar")
        wait_for(chromium.exists, 20)
        assert process.wait(20) == 7
    said = process.stderr.read() if process.stderr else ""
    assert "no-such-program" in said and "was not done" in said
    words = chromium.read_text().splitlines()
    assert f"--app={url}?token={token}" in words and "--kiosk" in words
    assert f"--user-data-dir={tmp_path}/profile" in words and "--autoplay-policy=no-user-gesture-required" in words
    assert not [word for word in words if word.startswith(("FLOWACT_KIOSK_TOKEN", "PYTHONPATH"))]


@pytest.mark.parametrize("host", ["as-it-was-called-before", socket.gethostname()])
def test_a_lock_of_another_host_name_keeps_the_screen_from_nothing(host: str, chromium: Path, tmp_path: Path) -> None:
    """Chromium ends with `in use by another computer` there; a lock of its own name it judges itself."""
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "SingletonLock").symlink_to(f"{host}-4242")
    (profile / "SingletonSocket").symlink_to("/tmp/no-such/SingletonSocket")
    with KioskServer(port=0) as server:
        process = run_screen(tmp_path, "--url", server.url)
        assert process.wait(20) == 7
    left = {path.name for path in profile.iterdir()}
    assert left == (set() if host != socket.gethostname() else {"SingletonLock", "SingletonSocket"})


def test_what_cannot_be_shown_is_one_line(chromium: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, says in (
        (("--url", "http://127.0.0.1:1/", "--wait", "0.3"), "nothing answers at http://127.0.0.1:1/healthz"),
        (("--url", "robot"), "--url 'robot' is no address"),
    ):
        process = run_screen(tmp_path, *arguments)
        assert process.wait(20) == 2
        assert process.stderr and says in (said := process.stderr.read()) and said.count("\n") == 1
    monkeypatch.setattr(screen, "find_browser", lambda: None)
    assert screen.main(["--profile", str(tmp_path)]) == 2


def test_a_setup_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    screen.run_setup("sh -c 'echo no such output >&2; exit 3'")
    screen.run_setup("'unbalanced")
    screen.run_setup("")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "ended with status 3: no such output" in said[0] and "was not done" in said[1]
