# SPDX-License-Identifier: Apache-2.0
"""The faults of `flowact soak --chaos`: each is made, and waits until the avatar is well again."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flowact_msgs.msg import AudioChunk
from flowact_ros.evaluation.soak_plan import PAUSE_S
from flowact_ros.launcher import start_node
from flowact_ros.launcher.supervisor import Supervisor, SupervisorError
from flowact_ros.nodes import topics
from flowact_ros.nodes.soak_watch import GENERATOR, PIECE_S, Pages, Speaker, Watch, until

PATIENCE_S = 60.0  # after which a fault is taken for one that nothing recovers from
FLOOD = (8, 30.0)  # sentences, of so many seconds each: twice what the avatar keeps
BURST = 900  # pieces that a reader keeps
UNORDERED_S = 10.0
PARTS = 0.05  # of the pieces are lost, as many late, doubled, and in the wrong order
LATE_PIECES = 8
BROKEN = (
    {"sample_rate": 0},
    {"sample_rate": 4_000_000},
    {"encoding": "MP3"},
    {"channels": 0},
    {"channels": 300},
    {"encoding": "F32LE", "data": b"\x00\x00\xc0\x7f" * 960},  # not numbers
)
BROKEN_ROUNDS = 10


@dataclass
class Scene:
    """Everything that a fault may touch. `names`: of all nodes."""

    supervisor: Supervisor
    watch: Watch
    pages: Pages
    speaker: Speaker
    environ: dict[str, str]
    names: tuple[str, ...] = (GENERATOR, "kiosk_bridge", "instruction_planner", "speech_synthesizer")
    numbers: itertools.count = field(default_factory=itertools.count)

    def check(self) -> None:
        """Raises SupervisorError when a node is given up."""
        for name in self.supervisor.failed():
            raise self.supervisor.failure(name)

    def pid(self, name: str) -> int:
        pid = self.supervisor.pid(name)
        if pid is None:
            raise SupervisorError(f"{name} does not run: nothing can be done to it")
        return pid


@dataclass(frozen=True)
class Made:
    """recovered_s: how long it took; None if it did not. at: when it began [s], if that was not at once."""

    recovered_s: float | None
    at: float | None = None


def _since(at: float, condition: Callable[[], object]) -> Made:
    well = until(condition, PATIENCE_S)
    return Made(time.monotonic() - at if well else None, at)


def _stop_generator(scene: Scene, number: int) -> Made:
    """While it speaks: until a new stream's frames come."""
    until(lambda: scene.watch.sounding, 10.0)
    at, last = time.monotonic(), scene.watch.frames[-1][1]
    os.kill(scene.pid(GENERATOR), number)
    return _since(at, lambda: scene.watch.frames[-1][1] < last)


def kill_generator(scene: Scene) -> Made:
    return _stop_generator(scene, signal.SIGKILL)


def hang_generator(scene: Scene) -> Made:
    return _stop_generator(scene, signal.SIGSTOP)


def kill_page(scene: Scene) -> Made:
    at, pid = time.monotonic(), scene.pid("kiosk_bridge")
    os.kill(pid, signal.SIGKILL)
    return _since(at, lambda: scene.supervisor.pid("kiosk_bridge") not in (None, pid) and scene.pages.newest > at + 0.1)


def kill_helper(name: str) -> Callable[[Scene], Made]:
    def kill(scene: Scene) -> Made:
        at, pid = time.monotonic(), scene.pid(name)
        os.kill(pid, signal.SIGKILL)
        return _since(
            at, lambda: scene.supervisor.pid(name) not in (None, pid) and scene.supervisor.state(name) == "active"
        )

    return kill


def _pause(scene: Scene, name: str) -> tuple[float, float]:
    """When it was stopped, and when it went on."""
    at, pid = time.monotonic(), scene.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(PAUSE_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    return at, time.monotonic()


def pause_generator(scene: Scene) -> Made:
    at, on = _pause(scene, GENERATOR)
    return _since(at, lambda: scene.watch.frames[-1][0] > on)


def pause_page(scene: Scene) -> Made:
    at, on = _pause(scene, "kiosk_bridge")
    return _since(at, lambda: scene.pages.newest > on)


def cut_page(scene: Scene) -> Made:
    scene.pages.cut()
    at = time.monotonic()
    return _since(at, lambda: scene.pages.newest > at)


def lose_watcher(scene: Scene) -> Made:
    """A participant of DDS that goes without a word, with a reliable reader of the largest topic."""
    program = Path(start_node.__file__).resolve()
    process = subprocess.Popen(
        [sys.executable, str(program), "flowact_ros.nodes.soak_watcher", scene.watch.node.get_namespace()],
        env={**os.environ, **scene.environ},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "sees":
            raise SupervisorError("a subscriber of image_raw saw no picture")
        process.send_signal(signal.SIGSTOP)  # it takes nothing any more, and does not say so
        time.sleep(PAUSE_S)
    finally:
        process.kill()
        process.wait()
    at = time.monotonic()
    return _since(at, lambda: scene.watch.frames[-1][0] > at)


def _next_sentence(scene: Scene, off_s: float = 0.0) -> Made:
    name = f"after-{next(scene.numbers)}"
    at = time.monotonic()
    scene.speaker.say(name, 1.5, off_s=off_s)
    if not until(lambda: name in scene.watch.heard, PATIENCE_S):
        return Made(None)
    return Made(scene.watch.heard[name][0] - at)


def flood_speech(scene: Scene) -> Made:
    """A synthesizer that sends far more than can be said, all at once; it is interrupted, and speaks on."""
    with scene.speaker.silent():
        count, seconds = FLOOD
        pieces = scene.speaker.pieces(seconds)
        sent = 0
        for _ in range(count):
            name = f"flood-{next(scene.numbers)}"
            for n, pcm in enumerate(pieces):
                scene.watch.speech.publish(scene.watch.piece(pcm, name, n, n == len(pieces) - 1))
                sent += 1
                if sent % BURST == 0:
                    time.sleep(0.5)
        time.sleep(1.0)
        scene.watch.interrupt()
        time.sleep(0.5)
        return _next_sentence(scene)


def broken_speech(scene: Scene) -> Made:
    with scene.speaker.silent():
        pcm = scene.speaker.pieces(PIECE_S)[0]
        for _ in range(BROKEN_ROUNDS):
            for fields in BROKEN:
                message = scene.watch.piece(pcm, "broken", 0, False)
                for key, value in fields.items():
                    setattr(message, key, value)
                scene.watch.speech.publish(message)
                time.sleep(0.01)
        return _next_sentence(scene)


def unordered_speech(scene: Scene) -> Made:
    """A link that loses, delays, doubles and swaps: 5 % of the pieces each."""
    with scene.speaker.silent():
        name = f"unordered-{next(scene.numbers)}"
        pieces = scene.speaker.pieces(UNORDERED_S)
        messages = [scene.watch.piece(pcm, name, n, n == len(pieces) - 1) for n, pcm in enumerate(pieces)]
        at = time.monotonic()
        for n, message in enumerate(disturbed(messages, random.Random(next(scene.numbers)))):
            time.sleep(max(0.0, at + n * PIECE_S - time.monotonic()))
            scene.watch.speech.publish(message)
        if not until(lambda: name in scene.watch.heard, PATIENCE_S):
            return Made(None)
        until(lambda: time.monotonic() - scene.watch.heard[name][1] > 0.5, PATIENCE_S)
        first, last = scene.watch.heard[name]
        whole = last - first > 0.9 * UNORDERED_S
        return Made(last - at if whole else None)


def disturbed(messages: list[AudioChunk], rng: random.Random) -> list[AudioChunk]:
    """What arrives of a sentence over a bad link, in the order in which it does. Its first and last piece stay."""
    places: list[tuple[float, AudioChunk]] = []
    for n, message in enumerate(messages):
        what = rng.random() / PARTS if 0 < n < len(messages) - 1 else 4.0
        if what < 1:
            continue  # lost
        places.append((n + (LATE_PIECES if what < 2 else 1.5 if what < 3 else 0), message))
        if 3 <= what < 4 and 0 < n < len(messages) - 1:
            places.append((n + 0.1, message))
    return [message for _, message in sorted(places, key=lambda pair: pair[0])]


def clock_an_hour_off(scene: Scene) -> Made:
    """Stamps of a machine whose clock nobody set: what is said does not depend on them."""
    with scene.speaker.silent():
        return _next_sentence(scene, off_s=3600.0)


MAKERS: dict[str, Callable[[Scene], Made]] = {
    "kill generator": kill_generator,
    "kill page": kill_page,
    "kill planner": kill_helper("instruction_planner"),
    "kill synthesizer": kill_helper("speech_synthesizer"),
    "hang generator": hang_generator,
    "pause generator": pause_generator,
    "pause page": pause_page,
    "cut page": cut_page,
    "lose watcher": lose_watcher,
    "flood " + topics.SPEECH: flood_speech,
    "broken " + topics.SPEECH: broken_speech,
    "unordered " + topics.SPEECH: unordered_speech,
    "clock an hour off": clock_an_hour_off,
}
