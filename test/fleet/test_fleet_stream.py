# SPDX-License-Identifier: Apache-2.0
"""A robot and a server of the fleet, on a real connection: what goes in and comes out, and a stream that moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra fleet is not installed")

from fakes import face  # noqa: E402
from fleet_server import FleetServer  # noqa: E402

from flowact_ros.engine.interfaces import AudioError, EngineError, ReferenceError_  # noqa: E402
from flowact_ros.fleet import serve  # noqa: E402
from flowact_ros.fleet.arrival import RemoteFrame  # noqa: E402
from flowact_ros.fleet.client import RemoteSession  # noqa: E402
from flowact_ros.fleet.replica import Unwell  # noqa: E402

PATIENCE_S = 60.0  # for things that must happen; nothing is asserted about speed
RATE = 24_000


def take(frames: Iterator[RemoteFrame], until: Callable[[list[RemoteFrame]], bool]) -> list[RemoteFrame]:
    began, taken = time.monotonic(), []
    while not until(taken):
        assert time.monotonic() - began < PATIENCE_S, f"{len(taken)} frames came, and not what was waited for"
        taken.append(next(frames))
    return taken


def spoken(frames: list[RemoteFrame]) -> np.ndarray:
    sound = np.concatenate([frame.audio for frame in frames])
    return sound[sound != 0]


def tone(seconds: float) -> np.ndarray:
    """No sample of it is 0, and each is one of 16 bits."""
    return ((1 + np.arange(round(seconds * RATE)) % 20_000) / 32768).astype(np.float32)


@pytest.fixture
def server() -> Iterator[FleetServer]:
    made = FleetServer()
    yield made
    made.stop()


def test_speech_goes_in_and_comes_out_with_its_frames(server: FleetServer) -> None:
    pcm = tone(0.6)
    with RemoteSession(server.url, reference=face(100), character="somebody") as robot:
        robot.set_instruction("look cheerful", behaviour="reacting")
        robot.push_audio(pcm, RATE, utterance_id="hello", first_sample=0, sequence=0, last=True)
        assert robot.queued_s == pytest.approx(0.6)
        frames = robot.frames()
        taken = take(frames, lambda f: len(f) > 25 and robot.queued_s == 0)
        np.testing.assert_array_equal(spoken(taken), pcm)
        assert [f.index for f in taken] == list(range(len(taken)))
        steps = np.diff([f.pts for f in taken])
        assert steps.min() > 0.0399  # 40 ms; more where the machine was late
        assert {f.utterance_id for f in taken if f.speaking} == {"hello"}
        assert taken[-1].behaviour == "reacting" and taken[-1].rgb.shape == (8, 8, 3)
        assert robot.control_names == server.pipeline.control_names and len(taken[0].motion) == len(robot.control_names)
        assert robot.reference_id == "somebody"


def test_characters_are_changed_and_refused(server: FleetServer) -> None:
    with RemoteSession(server.url, reference=face(100)) as robot:
        next(robot.frames())
        assert robot.set_reference(face(30), "another") == "another" == robot.reference_id
        with pytest.raises(ReferenceError_, match="nobody.*does not exist"):
            robot.set_reference(None, "nobody")
        with pytest.raises(AudioError, match=r"float64 \[2, 3\]"):
            robot.push_audio(np.zeros((2, 3)), RATE)


def test_a_stream_moves_when_its_server_dies() -> None:
    """The second one goes on with the memory, the character, the instruction and the rest of the sentence."""
    told: list[str] = []
    first, pcm = FleetServer(), tone(3.0)
    with RemoteSession(first.url, reference=face(100), character="somebody", warn=told.append) as robot:
        robot.set_instruction("listen", behaviour="listening")
        robot.push_audio(pcm, RATE, utterance_id="long", last=True)
        frames = robot.frames()
        before = take(frames, lambda f: robot._memory != b"" and len(spoken(f)) > RATE // 4)
        first.stop()
        second = FleetServer(first.port)
        restored = []
        restore = second.pipeline.restore
        second.pipeline.restore = lambda *given: restored.append(given[0]) or restore(*given)
        try:
            after = take(frames, lambda f: bool(f) and robot.queued_s == 0)
            assert robot.moves == 1 and robot.reference_id == "somebody"
            assert len(restored) == 1  # the server took what the one before had sent
            every = before + after
            assert [f.index for f in every] == list(range(len(every)))
            assert np.all(np.diff([f.pts for f in every]) > 0.0399)
            said = spoken(every)
            # What was on its way when the server died may be heard twice, and nothing is lost.
            assert len(pcm) <= len(said) <= len(pcm) + RATE
            np.testing.assert_array_equal(said[-RATE:], pcm[-RATE:])
            assert after[-1].behaviour in ("listening", "speaking")
            assert any("another one goes on" in line for line in told)
        finally:
            second.stop()


def test_who_is_refused(server: FleetServer) -> None:
    with pytest.raises(ValueError, match="ws://HOST:PORT"):
        RemoteSession("http://127.0.0.1:1")
    with RemoteSession(server.url, character="nobody") as robot, pytest.raises(EngineError, match="nobody.*not exist"):
        next(robot.frames())
    guarded = FleetServer(token="0123456789abcdef")
    try:
        with RemoteSession(guarded.url, reference=face()) as robot:
            with pytest.raises(EngineError, match="is its token set"):
                next(robot.frames())
        with RemoteSession(guarded.url, reference=face(), token="0123456789abcdef") as robot:
            assert next(robot.frames()).index == 0
    finally:
        guarded.stop()


def test_a_full_server_is_tried_on() -> None:
    told: list[str] = []
    server = FleetServer(most=1)
    try:
        with RemoteSession(server.url, reference=face()) as first:
            next(first.frames())
            second = RemoteSession(server.url, reference=face(), warn=told.append).start()
            while not told:
                time.sleep(0.02)
            assert "1 stream fits" in told[0] and not second.connected
        with second:  # the first one is gone: there is room now
            assert next(second.frames()).index == 0
    finally:
        server.stop()


def test_a_server_whose_engine_fails_is_tried_on(server: FleetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is this server's trouble and no refusal: the robot's face must not be gone for good."""
    opens, told, calls = server.replica._streams.open, [], []

    def fails_at_first(*arguments: object, **options: object) -> object:
        calls.append(None)
        if len(calls) == 1:
            raise EngineError("the engine failed: the device is lost")
        return opens(*arguments, **options)

    monkeypatch.setattr(server.replica._streams, "open", fails_at_first)
    with RemoteSession(server.url, reference=face(), warn=told.append) as robot:
        assert next(robot.frames()).index == 0
    assert "the device is lost" in told[0]


def test_a_replica_whose_engine_fails_is_unwell() -> None:
    failing = False

    def hook(stage: str, *rest: object) -> None:
        if failing:
            raise RuntimeError("the device is lost")

    server = FleetServer(hook=hook)
    try:
        server.replica.check()
        with RemoteSession(server.url, reference=face()) as robot:
            next(robot.frames())
            server.replica.check()
            failing = True
            began = time.monotonic()
            while time.monotonic() - began < PATIENCE_S:
                try:
                    server.replica.check()
                except Unwell as error:
                    assert "the device is lost" in str(error)
                    return
                time.sleep(0.02)
            pytest.fail("the replica is well, though its engine has failed")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--replicas", "0"], "--replicas: 0 is less than 1"),
        (["--replicas", "3", "--max-replicas", "2"], "--max-replicas 2 is less than --replicas 3"),
        (["--preset", "nobody"], "--preset: preset 'nobody' does not exist"),
        (["--device", "moon"], "device 'moon' cannot be used"),
        (["--port", "0"], "--port: 0 is not 1"),
        (["--batch", "65"], "batch is 65"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(arguments) == 2
    complaint = capsys.readouterr().err
    assert reason in complaint and complaint.count("\n") == 1
