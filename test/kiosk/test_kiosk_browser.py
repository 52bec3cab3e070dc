# SPDX-License-Identifier: Apache-2.0
"""The launcher: the right command in a clean environment, and never a crash where there is no browser or screen."""

from __future__ import annotations

import os
import sys
import time
import webbrowser

import pytest

from flowact_ros.kiosk import browser

URL = "http://127.0.0.1:8620/"


@pytest.fixture
def no_browser(monkeypatch, tmp_path):
    """A machine with a screen but with an empty PATH and no desktop browser."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    return tmp_path


def fake_browser(directory, body):
    """An executable called chromium; `$out` in the body is a file its test may read."""
    path = directory / "chromium"
    path.write_text(f"#!/bin/sh\nout={directory}/out\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_environment_loses_what_breaks_a_browser():
    before = {
        "PATH": "/bin", "HOME": "/home/robot", "DISPLAY": ":0", "XDG_RUNTIME_DIR": "/run/user/1", "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/ros/lib", "LD_PRELOAD": "x", "PYTHONPATH": "/ros", "PYTHONHOME": "/p", "VIRTUAL_ENV": "/v",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "AMENT_PREFIX_PATH": "/ros", "ROS_DOMAIN_ID": "3", "OMP_NUM_THREADS": "",
        "FLOWACT_KIOSK_TOKEN": "a-secret-token-here",
    }  # fmt: skip
    kept = browser.clean_environment(before)
    assert set(kept) == {"PATH", "HOME", "DISPLAY", "XDG_RUNTIME_DIR", "LANG"} and kept["PATH"] == "/bin"


def test_the_command_allows_sound_and_keeps_to_itself(monkeypatch):
    command = browser.browser_command("/usr/bin/chromium", URL, "/tmp/p")
    for flag in (
        "--autoplay-policy=no-user-gesture-required", "--kiosk", f"--app={URL}", "--user-data-dir=/tmp/p",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ):  # fmt: skip
        assert flag in command
    assert not any(flag.startswith("--headless") for flag in command)
    headless = browser.browser_command("/usr/bin/chromium", URL, "/tmp/p", headless=True, allow_sound=False)
    assert "--headless=new" in headless and headless[-1] == URL
    assert not any("autoplay" in flag or flag == "--kiosk" for flag in headless)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--no-sandbox" not in browser.browser_command("c", URL, "/tmp/p")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--no-sandbox" in browser.browser_command("c", URL, "/tmp/p")


def test_browsers_are_found_by_name(no_browser):
    assert browser.find_browser() is None
    chromium = fake_browser(no_browser, "exit 0")
    assert browser.find_browser() == str(chromium)


def test_without_any_browser_the_address_is_printed(no_browser, capsys):
    assert browser.open_page(URL) is None
    assert URL in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="chromium"):
        browser.launch(URL)


def test_without_a_screen_nothing_is_started(no_browser, monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    fake_browser(no_browser, "touch $out")
    assert browser.open_page(URL) is None
    assert f"Open {URL}" in capsys.readouterr().out and not (no_browser / "out").exists()


def test_the_desktops_browser_is_the_second_choice(no_browser, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert browser.open_page(URL) is None
    assert opened == [URL] and "tap" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError("no display"), webbrowser.Error("none")])
def test_a_failing_desktop_browser_is_no_crash(no_browser, monkeypatch, capsys, error):
    def fail(url):
        raise error

    monkeypatch.setattr(webbrowser, "open", fail)
    assert browser.open_page(URL) is None
    assert str(error) in capsys.readouterr().out


def test_a_browser_that_dies_at_once_is_told(no_browser, capsys):
    fake_browser(no_browser, "exit 7")
    assert browser.open_page(URL) is None
    out = capsys.readouterr().out
    assert "code 7" in out and URL in out


def test_what_is_started_is_ended_with_its_children_and_its_profile(no_browser, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    fake_browser(
        no_browser,
        'PATH=/usr/bin:/bin\n(sleep 300) &\necho "$! lib=$LD_LIBRARY_PATH $*" > $out.new\nmv $out.new $out\nwait',
    )
    process = browser.open_page(URL)
    assert process is not None and process.alive and process.profile.is_dir()
    end = time.monotonic() + 60
    while not (no_browser / "out").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    child, library, *arguments = (no_browser / "out").read_text().split()
    assert library == "lib=" and f"--app={URL}" in arguments
    process.close()
    process.close()
    assert not process.alive and not process.profile.exists()
    end = time.monotonic() + 60
    while _is_running(int(child)):
        assert time.monotonic() < end, "the browser's child is still there"
        time.sleep(0.02)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
