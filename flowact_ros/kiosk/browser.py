# SPDX-License-Identifier: Apache-2.0
"""Opens the page on the robot's screen: a Chromium with sound allowed, a profile of its own and a clean environment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path

CHROMIUM_NAMES = (
    "chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "microsoft-edge", "brave-browser"
)  # fmt: skip

# Libraries and interpreters of our own process (pip-installed ROS, virtual environments) break a system browser.
_DROP_NAMES = {
    "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "QT_PLUGIN_PATH", "QT_QPA_PLATFORM_PLUGIN_PATH", "GTK_PATH",
    "FLOWACT_KIOSK_TOKEN",
}  # fmt: skip
_DROP_PREFIXES = ("PYTHON", "_ROS_", "ROS_", "RMW_", "AMENT_", "COLCON_", "OMP_", "KMP_", "MKL_")


def find_browser() -> str | None:
    """The full path of a Chromium-like browser, or None."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what would load our libraries (or show our token) in another program."""
    source = os.environ if environment is None else environment
    return {
        name: value
        for name, value in source.items()
        if name not in _DROP_NAMES and not name.startswith(_DROP_PREFIXES)
    }


def browser_command(
    browser: str,
    url: str,
    profile: str,
    *,
    headless: bool = False,
    kiosk: bool = True,
    allow_sound: bool = True,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command line; `kiosk` is full-screen without a way out by touch, otherwise it is a plain app window."""
    command = [
        browser,
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-default-apps",
        "--disable-breakpad",
        "--disable-session-crashed-bubble",
        "--disable-features=Translate,MediaRouter,OptimizationHints",
        "--password-store=basic",
    ]
    if allow_sound:
        command.append("--autoplay-policy=no-user-gesture-required")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to run as root with it
    if headless:
        command += ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", *extra, url]
    else:
        command += [*(["--kiosk"] if kiosk else []), *extra, f"--app={url}"]
    return command


class BrowserProcess:
    """A browser we started: ended with its children by `close`, its profile removed."""

    def __init__(self, process: subprocess.Popen, profile: str) -> None:
        self.process = process
        self.profile = Path(profile)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def devtools_port(self, timeout: float = 20.0) -> int:
        """The port behind `--remote-debugging-port=0`. Raises TimeoutError when the browser does not name one."""
        file = self.profile / "DevToolsActivePort"
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.alive:
            lines = file.read_text().splitlines() if file.exists() else []
            if lines and lines[0].isdigit():
                return int(lines[0])
            time.sleep(0.05)
        raise TimeoutError(
            f"the browser named no DevTools port within {timeout:.0f} s (exit code {self.process.poll()})"
        )

    def close(self) -> None:
        """Asks the browser to end, insists after 5 s. Harmless when called again."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            self.process.wait(timeout=5.0)
        for _ in range(20):  # helper processes may still write for a moment
            shutil.rmtree(self.profile, ignore_errors=True)
            if not self.profile.exists():
                return
            time.sleep(0.1)

    def __enter__(self) -> BrowserProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signal(self, number: int) -> None:
        if not self.alive:
            return
        try:
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, number)  # its own session, so its group is its pid
            else:
                self.process.terminate()
        except ProcessLookupError:
            return  # it ended in between


def launch(url: str, *, browser: str | None = None, **options: object) -> BrowserProcess:
    """Starts a Chromium on `url`; options as in `browser_command`. Raises OSError when it cannot be started."""
    browser = browser or find_browser()
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(CHROMIUM_NAMES)} is installed")
    profile = tempfile.mkdtemp(prefix="flowact-browser-")
    try:
        process = subprocess.Popen(
            browser_command(browser, url, profile, **options),  # type: ignore[arg-type]
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        shutil.rmtree(profile, ignore_errors=True)
        raise
    return BrowserProcess(process, profile)


def open_page(url: str, *, headless: bool = False, kiosk: bool = True) -> BrowserProcess | None:
    """Shows the page as well as this machine can, and says how; never raises.

    Returns the browser when it is ours to close. Without a Chromium the desktop's own browser is asked (sound then
    waits for a tap); without a screen the address is printed.
    """
    if not headless and not _has_screen():
        print(f"No screen here. Open {url} in a browser.", flush=True)
        return None
    try:
        process = launch(url, headless=headless, kiosk=kiosk)
        time.sleep(0.3)  # a browser that cannot run says so at once
        if process.alive or process.process.returncode == 0:
            return process
        print(f"The browser ended with code {process.process.returncode}.", flush=True)
        process.close()
    except (OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            print(f"The browser did not start ({error}).", flush=True)
    if not headless:
        try:
            if webbrowser.open(url):
                print(f"Opened {url} in the default browser; tap the page once for sound.", flush=True)
                return None
        except (OSError, webbrowser.Error) as error:
            print(f"No default browser ({error}).", flush=True)
    print(f"Open {url} in a browser (Chromium is the best choice for a robot's screen).", flush=True)
    return None


def _has_screen() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
