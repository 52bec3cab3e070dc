# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/recipes.md, as they stand there, against topics and a service of this process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from ros_harness import Watcher

from flowact_msgs.msg import AudioChunk, Transcript
from flowact_msgs.srv import Synthesize
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_array

pytestmark = pytest.mark.ros
RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"
RATE = 22_050


def program(name: str) -> str:
    """The code that the page shows as the file `name`."""
    found = re.search(
        rf"[Aa]s\s+`{name}`:\n\n```python\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found, f"{name} is not in {RECIPES}"
    return found.group(1)


@pytest.fixture
def watcher(domain: None) -> Iterator[Watcher]:
    watcher = Watcher("/avatar", ())
    yield watcher
    watcher.close()


@pytest.fixture
def start(python_path: str) -> Iterator[Callable[..., subprocess.Popen]]:
    running: list[subprocess.Popen] = []

    def start(code: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *arguments]
        environ = {**os.environ, "PYTHONPATH": python_path}
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen, given: str = "") -> None:
    _, errors = process.communicate(given, timeout=150)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of a tone."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    tone = np.sin(np.arange(RATE // 2 + 123) * 0.1) * 9000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(tone.astype("<i2").tobytes())
    return path


def samples(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes())


def test_a_recogniser_and_a_tts_of_ones_own(
    watcher: Watcher, start: Callable[..., subprocess.Popen], wav: Path
) -> None:
    heard: list[Transcript] = []
    spoken: list[AudioChunk] = []
    texts: list[Transcript] = []
    recognizer = start(program("recognizer.py"))
    tts = start(program("tts.py"), str(wav), "Hello, everybody.")
    watcher.node.create_subscription(Transcript, topics.TRANSCRIPT, heard.append, topics.EVENT_QOS)
    watcher.node.create_subscription(AudioChunk, topics.SPEECH, spoken.append, topics.AUDIO_DEEP_QOS)
    watcher.node.create_subscription(Transcript, topics.SPEECH_TEXT, texts.append, topics.EVENT_QOS)
    ended(recognizer, "Hello.\nWho are you?\n")
    ended(tts)
    watcher.until(lambda: len(heard) == 2 and texts and spoken and spoken[-1].last, "texts and sound")
    assert [(text.text, text.final) for text in heard] == [("Hello.", True), ("Who are you?", True)]
    assert len({text.utterance_id for text in heard}) == 2 and heard[0].header.stamp.sec
    assert b"".join(chunk.data.tobytes() for chunk in spoken) == samples(wav)
    assert [chunk.last for chunk in spoken] == [False] * (len(spoken) - 1) + [True]
    assert [chunk.sequence for chunk in spoken] == list(range(len(spoken)))
    assert {chunk.utterance_id for chunk in spoken} == {texts[0].utterance_id}
    assert texts[0].text == "Hello, everybody." and audio_array(spoken[0])[1] == RATE


def test_piper_behind_the_service(
    watcher: Watcher, start: Callable[..., subprocess.Popen], wav: Path
) -> None:
    """An HTTP server of this process answers as piper's does."""
    asked: list[tuple[str, str]] = []

    class Piper(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
            asked.append((self.path, text))
            self.send_response(500 if text == "fail" else 200)
            self.end_headers()
            self.wfile.write(wav.read_bytes())

        def log_message(self, *_: object) -> None:
            """Not onto the console of the tests."""

    server = HTTPServer(("127.0.0.1", 0), Piper)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        code = program("piper_voice.py")
        assert code.count("127.0.0.1:5000") == 1
        start(code.replace("127.0.0.1:5000", f"127.0.0.1:{server.server_port}"))
        answer = watcher.call(Synthesize, topics.SYNTHESIZE, Synthesize.Request(text="Hello."))
        assert asked == [("/synthesize", "Hello.")]
        assert (answer.error_code, answer.error_msg) == (Synthesize.Response.NONE, "")
        assert answer.audio.data.tobytes() == samples(wav) and audio_array(answer.audio)[1] == RATE
        answer = watcher.call(Synthesize, topics.SYNTHESIZE, Synthesize.Request(text="fail"))
        assert answer.error_code == Synthesize.Response.SYNTHESIZER_ERROR and "500" in answer.error_msg
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
