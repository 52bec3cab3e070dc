# SPDX-License-Identifier: Apache-2.0
"""`flowact demo` as a process, and what a page in a real browser shows of it, frame by frame."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cdp import Page

from flowact_ros.media.jpeg import decode_jpeg

PATIENCE_S = 120.0  # for things that must happen; nothing is asserted about speed
APART_S = 0.4  # a frame this far from all sound is silent: lips open before their sound and close after it

# Notes, whenever the page has drawn a new frame: its pts, the page's clocks, how loud the loudspeaker is (samples that
# left the page's audio graph, not its book-keeping) and the square of the picture that holds the mouth.
PROBE = """((place, reach, side) => {
  const { audio, video } = window.flowact, { context } = audio;
  const analyser = context.createAnalyser(), wave = new Float32Array(1024);
  analyser.fftSize = wave.length;
  audio.output.connect(analyser);
  const small = document.createElement('canvas'), pen = small.getContext('2d', { willReadFrequently: true });
  small.width = small.height = side;
  const rows = window.shown = [], draw = video.draw.bind(video);
  video.draw = (now) => {
    if (!draw(now)) return false;
    const { width, height } = video.canvas, square = 2 * Math.round(reach * height / 2);
    const corner = (at, size) => Math.round(Math.min(Math.max(at * size, square / 2), size - square / 2) - square / 2);
    pen.drawImage(video.canvas, corner(place[0], width), corner(place[1], height), square, square, 0, 0, side, side);
    analyser.getFloatTimeDomainData(wave);
    const mouth = small.toDataURL('image/jpeg', 0.95);
    rows.push({
      pts: video.drawnPts, heard: audio.heardAt(performance.now()), played: context.currentTime,
      level: Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length),
      fresh: rows.length > 0 && mouth !== rows.at(-1).mouth, mouth,
    });
    return true;
  };
})"""


class Demo:
    """`flowact demo --headless` with the shipped weights; ended by SIGINT, as with Ctrl-C."""

    def __init__(self, python_path: str, log: Path, *arguments: str) -> None:
        self._environment = {**os.environ, "PYTHONPATH": python_path}
        self._log = log
        self.lines: list[str] = []
        self._process = self._start(
            "demo", "--headless", "--port", "0", "--log-file", str(log), *arguments, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _start(self, *arguments: str, **options: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flowact_ros.cli", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            # tests that a shell runs in the background inherit that SIGINT is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **options,
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(line.rstrip() for line in self._process.stdout)

    def told(self, pattern: str) -> str:
        """Waits for a line of its output; the first group of the match."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for line in self.lines:
                if match := re.search(pattern, line):
                    return match[1]
            text = "\n".join(self.lines)
            assert self._process.poll() is None, f"the demo ended with {self._process.returncode}:\n{text}"
            assert time.monotonic() < deadline, f"the demo did not tell {pattern!r}:\n{text}"
            time.sleep(0.05)

    def say(self, wav: Path) -> str:
        """`flowact say` from another terminal, in the domain that the demo names; what it prints."""
        self._environment["ROS_DOMAIN_ID"] = self.told(r"ROS_DOMAIN_ID=(\d+) ")
        speaker = self._start("say", "--wav", str(wav), "--timeout", "60")
        out, _ = speaker.communicate(timeout=PATIENCE_S)
        assert speaker.returncode == 0, out
        return out

    def close(self) -> int:
        """Ends it; the exit status. Fails when a node broke."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()  # without effect on one that has ended
            self._reader.join(PATIENCE_S)
        log = self._log.read_text() if self._log.exists() else ""
        assert "Traceback" not in log and "started again" not in log, log[-3000:]
        return status

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            assert self.close() == 0
        elif self._process.poll() is None:  # the test has failed: its own error is the one to read
            self._process.terminate()
            self._process.wait(PATIENCE_S)


class Shown:
    """Frames that a page has drawn since `watch`: N of them, in columns."""

    def __init__(self, rows: list[dict]) -> None:
        def column(name: str) -> np.ndarray:
            return np.array([row[name] for row in rows], float)

        self.pts, self.level = column("pts"), column("level")  # [s], RMS
        self.heard = column("heard")  # [s] pts at the loudspeaker, NaN while nothing is
        self.played = column("played")  # [s] of the audio context
        # Another picture than the one before? An engine that is late has the previous one sent again.
        self.fresh = column("fresh").astype(bool)
        self._mouths = [row.get("mouth", "") for row in rows]

    def mouths(self, part: np.ndarray) -> np.ndarray:
        """uint8 [n, side, side, 3]: the squares of some frames."""
        return np.stack(
            [decode_jpeg(base64.b64decode(self._mouths[i].split(",")[1])) for i in np.flatnonzero(part)]
        )

    def sounding(self, loud: float) -> np.ndarray:
        """bool [N]: new pictures while the loudspeaker is louder than `loud`."""
        return self.fresh & (self.level > loud)

    def rest(self, quiet: float) -> float:
        """Seconds since the loudspeaker was louder than `quiet`."""
        return (
            float(self.pts[-1] - self.pts[self.level > quiet].max(initial=self.pts[0]))
            if len(self.pts)
            else 0.0
        )

    def silent(self, quiet: float) -> np.ndarray:
        """bool [N]: new pictures with nothing louder than `quiet` around them."""
        noisy = self.pts[self.level > quiet]
        apart = np.abs(self.pts[:, None] - noisy[None]).min(1, initial=np.inf) > APART_S
        return self.fresh & apart & (np.abs(self.pts - self.pts[-1:]) > APART_S)


def watch(page: Page, place: tuple[float, float], reach: float, side: int) -> None:
    """Has the page note what it draws from now on; of every picture a square around `place`."""
    page.wait_for("window.flowact && window.flowact.audio.context !== null", PATIENCE_S)
    page.evaluate(f"{PROBE}([{place[0]}, {place[1]}], {reach}, {side})")


def shown(page: Page, *, mouths: bool = True) -> Shown:
    """What the page has noted so far; without the pictures it costs next to nothing."""
    rows = "window.shown" if mouths else "window.shown.map(({ mouth, ...rest }) => rest)"
    return Shown(page.evaluate(rows))


def wait_for_frames(page: Page, enough: Callable[[Shown], bool], what: str) -> Shown:
    """Looks twice a second until `enough`; then all that was noted."""
    deadline = time.monotonic() + PATIENCE_S
    while not enough(shown(page, mouths=False)):
        assert time.monotonic() < deadline, f"not seen within {PATIENCE_S:g} s: {what}; {page.stats()}"
        time.sleep(0.5)  # seldom: the page draws, plays and answers in one thread
    return shown(page)


def picture(page: Page) -> np.ndarray:
    """uint8 [H, W, 3]: what is on the page's canvas."""
    url = page.evaluate("document.getElementById('picture').toDataURL('image/jpeg', 0.9)")
    return decode_jpeg(base64.b64decode(str(url).split(",")[1]))
