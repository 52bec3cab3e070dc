# SPDX-License-Identifier: Apache-2.0
"""Messages that nobody should send: each is understood, or refused in one clear line; the stream goes on."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("flowact_msgs")

from domains import own_domain
from geometry_msgs.msg import PointStamped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from rclpy.lifecycle import TransitionCallbackReturn
from ros_harness import Watcher, goal, loud, spun_generator
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, Instruction, Transcript
from flowact_msgs.srv import SetReference
from flowact_ros.engine.looking import Looking
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.convert import ConversionError, behaviour_name, image_array, to_bytes_field
from flowact_ros.nodes.look_point import Screen
from flowact_ros.nodes.reference_request import Refused, picture_of

pytestmark = pytest.mark.ros
# A third of the profile's cases; 1000 in `make fuzz`.
SOME = settings(
    deadline=None, suppress_health_check=list(HealthCheck), max_examples=max(20, settings().max_examples // 3)
)
BYTES = st.one_of(st.binary(max_size=64), st.sampled_from([b"", b"\xff" * 4096, b"\x00\x00\xc0\x7f" * 7]))
WORDS = st.one_of(st.text(max_size=20), st.sampled_from(["S16LE", "F32LE", "s16le", "rgb8", "bgr8", "16UC1", "rgba8"]))
SIDES = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1), st.just(8193))


def audio(chunk: Any) -> AudioChunk:
    rate, channels, encoding, data, first, sequence, name, last = chunk
    message = AudioChunk(sample_rate=rate, channels=channels, encoding=encoding, utterance_id=name, last=last)
    message.first_sample, message.sequence, message.data = first, sequence, to_bytes_field(data)
    return message


CHUNKS = st.tuples(
    st.one_of(st.sampled_from([8000, 16_000, 24_000, 48_000]), st.integers(0, 2**32 - 1)),
    st.one_of(st.integers(1, 2), st.integers(0, 255)),
    WORDS,
    BYTES,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.text(max_size=3),
    st.booleans(),
).map(audio)


@given(messages=st.lists(CHUNKS, min_size=1, max_size=4))
@SOME
def test_audio(tally: Any, messages: list[AudioChunk]) -> None:
    decode = AudioDecoder(lambda line: None)
    for message in messages:
        try:
            pcm, rate = decode(message)
        except ConversionError as error:
            tally("messages: AudioChunk").refused(error)
        else:
            assert rate == message.sample_rate and pcm.ndim == 1 and np.isfinite(pcm).all()
            tally("messages: AudioChunk").understood()


def image(height: int, width: int, step: int, encoding: str, data: bytes) -> Image:
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.data = to_bytes_field(data)
    return message


IMAGES = st.one_of(
    st.builds(image, SIDES, SIDES, SIDES, WORDS, BYTES),
    st.builds(
        lambda height, width, encoding: image(height, width, width * 3, encoding, bytes(height * width * 3)),
        st.integers(0, 9),
        st.integers(0, 9),
        st.sampled_from(["rgb8", "bgr8", "mono8"]),
    ),
)


@given(message=IMAGES)
@SOME
def test_images(tally: Any, message: Image) -> None:
    try:
        rgb = image_array(message)
    except ConversionError as error:
        return tally("messages: Image").refused(error)
    assert rgb.dtype == np.uint8 and rgb.shape == (message.height, message.width, 3)
    return tally("messages: Image").understood()


@given(source=st.integers(0, 255), name=st.text(max_size=20), seed=st.integers(-(2**63), -1), picture=IMAGES)
@SOME
def test_references(tally: Any, source: int, name: str, seed: int, picture: Image) -> None:
    request = SimpleNamespace(source=source, name=name, seed=seed, image=picture)
    try:
        picture_of(request)  # type: ignore[arg-type] - any request's fields
    except Refused as refusal:
        assert refusal.code != SetReference.Response.NONE
        return tally("requests: set_reference").refused(refusal)
    return tally("requests: set_reference").understood()


FRAMES = st.sampled_from(["", "screen", "screen_normalized", "map", "\0"])


@given(x=st.floats(), y=st.floats(), z=st.floats(), frame=FRAMES)
@SOME
def test_points(tally: Any, x: float, y: float, z: float, frame: str) -> None:
    point = PointStamped()
    point.header.frame_id, point.point.x, point.point.y, point.point.z = frame, x, y, z
    try:
        Looking().give(*Screen(0.5, 0.3, 0.5).place(point), 1.0)
    except ValueError as error:
        return tally("messages: look_at").refused(error)
    return tally("messages: look_at").understood()


@given(number=st.integers(0, 255))
@SOME
def test_behaviours(tally: Any, number: int) -> None:
    try:
        behaviour_name(number)
    except ConversionError as error:
        return tally("messages: behaviours").refused(error)
    return tally("messages: behaviours").understood()


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    y, x = np.mgrid[0:256, 0:256]
    path = tmp_path / "gradient.png"
    Picture.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ROS_DOMAIN_ID", own_domain())
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert os.environ["ROS_DOMAIN_ID"]
    yield


def test_a_flood_of_them_does_not_stop_the_stream(tally: Any, domain: None, reference: Path) -> None:
    """Two hundred at once, on every topic, then goals and requests: all are answered, and it still speaks."""
    rng = random.Random(0)
    with spun_generator(reference, "/avatar") as generator:
        assert generator.trigger_activate() == TransitionCallbackReturn.SUCCESS
        watcher = Watcher("/avatar", (topics.AUDIO, topics.METRICS))
        try:
            speech = watcher.publisher(AudioChunk, topics.SPEECH)
            instructions = watcher.publisher(Instruction, topics.INSTRUCTION)
            points = watcher.publisher(PointStamped, topics.LOOK_AT)
            texts = watcher.publisher(Transcript, topics.SPEECH_TEXT)
            for _ in range(50):
                speech.publish(_hostile_audio(rng))
                instructions.publish(Instruction(behaviour=rng.randrange(256), text=_hostile_text(rng), priority=255))
                point = PointStamped()
                point.header.frame_id, point.point.x = rng.choice(["", "map"]), rng.choice([float("nan"), 1e308, 0.1])
                points.publish(point)
                texts.publish(Transcript(utterance_id=_hostile_text(rng)[:50], text=_hostile_text(rng)))
            for request in (SetReference.Request(source=9), SetReference.Request(source=1, name="\x1b[2J")):
                answer = watcher.call(SetReference, topics.SET_REFERENCE, request)
                assert answer.error_code != SetReference.Response.NONE
                tally("a running generator").refused(answer.error_msg)
            unheard = AudioChunk(encoding="MP3", data=b"ab")
            for wrong in (Say.Goal(), Say.Goal(audio=unheard), Say.Goal(text="x" * 20_001)):
                _, result = watcher.say(wrong).result()
                assert result.error_code != Say.Result.NONE
                tally("a running generator").refused(result.error_msg)
            watcher.until(lambda: generator.last_error, "a refusal")
            for line in generator._error_counts:  # what was logged, each kind once
                tally("a running generator").refused(line)
            frames = len(watcher.seen[topics.AUDIO])
            watcher.until(lambda: len(watcher.seen[topics.AUDIO]) > frames + 25, "a second more of the stream")
            watcher.call(Trigger, topics.INTERRUPT, Trigger.Request())
            _, result = watcher.say(goal(loud(0.4), policy=Say.Goal.INTERRUPT, priority=255)).result()
            assert (result.error_code, result.error_msg) == (Say.Result.NONE, "")
        finally:
            watcher.close()


def _hostile_audio(rng: random.Random) -> AudioChunk:
    """Rates, encodings, NaN and byte counts that cannot be, and a little that can."""
    data = rng.choice([b"", b"abc", b"\x00\x00\xc0\x7f" * 40, rng.randbytes(960)])
    encoding = rng.choice(["S16LE", "F32LE", "opus", ""])
    channels = rng.choice([0, 1, 2, 255])
    chunk = AudioChunk(sample_rate=rng.choice([0, 24_000, 2**32 - 1]), channels=channels, encoding=encoding)
    chunk.utterance_id, chunk.first_sample = _hostile_text(rng)[:50], rng.getrandbits(64)
    chunk.sequence = rng.getrandbits(32)
    chunk.data = to_bytes_field(data)
    return chunk


def _hostile_text(rng: random.Random) -> str:
    return rng.choice(["", "\x1b[2J", "a" * 50_000, "<|im_end|>", "\u202e\ufeff", "{0.__class__}", "; ls", "\n\r\t"])
