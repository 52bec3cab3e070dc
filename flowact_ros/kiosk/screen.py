# SPDX-License-Identifier: Apache-2.0
"""The page on a robot's own screen, from boot on: waits until it is served, then is the browser that shows it.

    python -m flowact_ros.kiosk.screen --profile /var/lib/flowact-screen
    python -m flowact_ros.kiosk.screen --url http://127.0.0.1:8620/ --setup "wlr-randr --output HDMI-A-1 --transform 90"

Ends when the browser ends, with its status: systemd (deploy/kiosk/) starts it again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from flowact_ros.kiosk.access import TOKEN_VARIABLE
from flowact_ros.kiosk.browser import CHROMIUM_NAMES, browser_command, clean_environment, find_browser

ASK_S = 0.25
TELL_S = 30.0  # how often it is said what is waited for
SETUP_S = 10.0
BAD_SETUP = 2
# The compositor of a kiosk speaks Wayland; what a face needs is drawn in any case.
_FLAGS = ("--ozone-platform-hint=auto", "--disable-pinch", "--overscroll-history-navigation=0", "--noerrdialogs")


class ScreenError(RuntimeError):
    """The page cannot be shown here: one line."""


def wait_for_page(url: str, limit_s: float) -> None:
    """Until the page's server answers, whatever it answers of the avatar. Raises ScreenError after `limit_s` [s]."""
    address = f"{url.partition('?')[0].rstrip('/')}/healthz"
    began = told = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2.0):
                return
        except urllib.error.HTTPError:
            return  # 503: the avatar is not there yet, which the page shows; 401: it asks for its token
        except (OSError, ValueError) as error:
            reason = error
        now = time.monotonic()
        if isinstance(reason, ValueError):
            raise ScreenError(f"--url {url!r} is no address: expected one like http://127.0.0.1:8620/")
        if now - began > limit_s:
            raise ScreenError(f"nothing answers at {address} ({reason}); is kiosk_bridge running?")
        if now - told > TELL_S:
            told = now
            print(f"waiting for {address}", file=sys.stderr, flush=True)
        time.sleep(ASK_S)


def unlock(profile: Path) -> None:
    """Removes the lock of a browser that ran here under another host name: Chromium takes that for another computer,
    and does not start. A robot that was switched off leaves its lock, and gets its name from an image or the network.
    """
    lock = profile / "SingletonLock"
    try:
        host = os.readlink(lock).rpartition("-")[0]
    except OSError:
        return  # there is none, or no link
    if host != socket.gethostname():
        print(f"{lock} is of {host}, as this computer was called before: removed", file=sys.stderr, flush=True)
        for name in ("SingletonLock", "SingletonSocket", "SingletonCookie"):
            (profile / name).unlink(missing_ok=True)


def run_setup(command: str) -> None:
    """What is to be done to the screen before: to turn it, say. The page is shown whatever becomes of that."""
    if not command.strip():
        return
    try:
        done = subprocess.run(shlex.split(command), timeout=SETUP_S, capture_output=True, text=True)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"--setup {command!r} was not done: {error}", file=sys.stderr, flush=True)
        return
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        print(f"--setup {command!r} ended with status {done.returncode}: {said}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The browser's exit status, or 2 where it cannot be started."""
    parser = argparse.ArgumentParser(
        prog="python -m flowact_ros.kiosk.screen", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--url", default="http://127.0.0.1:8620/", help="of the page (default: %(default)s)")
    parser.add_argument("--profile", default="", help="folder in which the page's settings are kept")
    parser.add_argument("--setup", default="", metavar="COMMAND", help="run before the browser, to turn the screen")
    parser.add_argument("--wait", type=float, default=600.0, metavar="S", help="for the page (default: %(default)g)")
    options = parser.parse_args(argv)
    try:
        browser = find_browser()
        if browser is None:
            raise ScreenError(f"none of {', '.join(CHROMIUM_NAMES)} is installed (apt-get install chromium)")
        profile = Path(options.profile or Path.home() / ".local/share/flowact-screen").expanduser()
        try:
            profile.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScreenError(f"--profile {profile} cannot be made ({error.strerror})") from error
        try:
            unlock(profile)
        except OSError as error:
            raise ScreenError(f"--profile {profile} is locked ({error.strerror}): remove its Singleton*") from error
        run_setup(options.setup)
        wait_for_page(options.url, options.wait)
    except ScreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_SETUP
    token = os.environ.get(TOKEN_VARIABLE, "")
    url = f"{options.url}?token={token}" if token and "?" not in options.url else options.url
    command = browser_command(browser, url, str(profile), extra=_FLAGS)
    os.execve(browser, command, clean_environment())


if __name__ == "__main__":
    sys.exit(main())
