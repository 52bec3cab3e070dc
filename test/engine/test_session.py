# SPDX-License-Identifier: Apache-2.0
"""The session as its users see it: offline, with its real thread, closing, failing, refusing."""

from __future__ import annotations

import hashlib
import threading
import time
from itertools import islice

import numpy as np
import pytest
from fakes import FakePipeline, crc, face, read_picture

from flowact_ros.engine.interfaces import AudioError, EngineError, Frame, Pipeline, Reference, ReferenceError_
from flowact_ros.engine.session import Session
from flowact_ros.engine.session_config import SessionConfig


def ramp(count: int, start: int = 1) -> np.ndarray:
    return (np.arange(start, start + count) / 2**23).astype(np.float32)


def offline(count: int, *, seed: int = 0, speech: tuple[np.ndarray, ...] = (), **options: int) -> list[Frame]:
    with Session(FakePipeline(**options), face(), seed=seed) as session:
        for number, pcm in enumerate(speech):
            session.push_audio(pcm, 24000, utterance_id=str(number), last=True)
        return list(islice(session.frames(realtime=False), count))


def equal(a: Frame, b: Frame) -> bool:
    same = np.array_equal(a.rgb, b.rgb) and np.array_equal(a.audio, b.audio)
    return same and (a.index, a.pts, a.utterance_id, a.behaviour, a.speaking) == (
        b.index, b.pts, b.utterance_id, b.behaviour, b.speaking
    )  # fmt: skip


def test_fake_implements_the_protocol():
    assert isinstance(FakePipeline(), Pipeline)


def test_offline_frames_are_complete_and_aligned():
    speech = ramp(50_000)
    frames = offline(80, speech=(speech,))
    assert [f.index for f in frames] == list(range(80))
    np.testing.assert_allclose([f.pts for f in frames], np.arange(80) / 25, atol=1e-9)
    sound = np.concatenate([f.audio for f in frames])
    assert sound.dtype == np.float32 and sound.shape == (80 * 960,)
    np.testing.assert_array_equal(sound[:50_000], speech)
    assert not sound[50_000:].any()
    for frame in frames:
        seen = read_picture(frame.rgb)
        assert seen.frame == frame.index and not frame.repeated
        assert seen.loudest == round(float(np.abs(frame.audio).max()) * 255)
        assert frame.speaking == (frame.index < 53) and frame.rgb.shape == (8, 8, 3)
        assert frame.utterance_id == ("0" if frame.speaking else "")


def test_an_impulse_leaves_with_its_frame():
    """One loud sample at the very first and last place of a frame's interval."""
    for place, frame in ((960 * 17, 17), (960 * 18 - 1, 17), (960 * 18, 18)):
        speech = np.full(30_000, 1e-4, np.float32)
        speech[place] = 1.0
        loud = [f.index for f in offline(40, speech=(speech,)) if read_picture(f.rgb).loudest == 255]
        assert loud == [frame]


def test_same_seed_same_frames_other_seed_others():
    speech = (ramp(30_000), ramp(10_000, 50_000))
    first, again, other = (
        offline(60, speech=speech),
        offline(60, speech=speech),
        offline(60, seed=1, speech=speech),
    )
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.rgb, b.rgb) for a, b in zip(first, other, strict=True))


def test_offline_takes_input_between_frames():
    with Session(FakePipeline(), face()) as session:
        frames = []
        for frame in islice(session.frames(realtime=False), 100):
            frames.append(frame)
            if frame.index == 10:
                session.push_audio(ramp(24_000), 24000, utterance_id="x", last=True)
            if frame.index == 21:
                session.interrupt()
            if frame.index == 50:
                session.set_instruction("waves", behaviour="reacting", priority=200)
            if frame.index == 70:
                session.set_reference(face(3), "other")
    assert [f.index for f in frames if f.speaking] == list(range(12, 24))  # boundaries: 12 and 24
    assert frames[24].audio[:480].any() and not frames[24].audio[480:].any()
    assert [f.index for f in frames if f.behaviour == "reacting"] == list(range(52, 100))
    references = [read_picture(f.rgb).reference for f in frames]
    assert references[71] == references[0] != references[72] == references[99]
    assert [read_picture(f.rgb).frame for f in frames] == list(range(100))


def test_offline_speech_that_is_not_whole_is_silence_until_it_is():
    with Session(FakePipeline(), face()) as session:
        frames = session.frames(realtime=False)
        session.push_audio(ramp(3000), 24000, last=False)
        assert not any(f.speaking for f in islice(frames, 20))
        session.push_audio(ramp(3000, 3001), 24000, last=True)
        rest = np.concatenate([f.audio for f in islice(frames, 20)])
    np.testing.assert_array_equal(rest[rest != 0], ramp(6000))


def test_offline_waits_for_no_missing_chunk():
    with Session(FakePipeline(), face()) as session:
        session.push_audio(ramp(9600), 24000, first_sample=500, last=True)
        frames = list(islice(session.frames(realtime=False), 20))
    assert [f.index for f in frames if f.speaking] == list(range(10))


def test_the_encoder_gets_context_and_lookahead():
    pipeline = FakePipeline(context_samples=5000, lookahead_samples=700)
    with Session(pipeline, face()) as session:
        session.push_audio(ramp(60_000), 24000, last=True)
        list(islice(session.frames(realtime=False), 36))
    whole = np.concatenate([np.zeros(5000, np.float32), ramp(60_000), np.zeros(9000, np.float32)])
    at = 0
    for window in pipeline.windows:
        np.testing.assert_array_equal(window, whole[at : at + len(window)])
        at += len(window) - 5700


def test_live_with_its_own_thread():
    with Session(FakePipeline(), face()) as session:
        frames = session.frames()
        got = [next(frames)]
        session.push_audio(ramp(12_000), 24000, utterance_id="hi", last=True)
        got += list(islice(frames, 60))
        metrics = session.metrics()
    assert [f.index for f in got] == list(range(61))
    np.testing.assert_allclose(np.diff([f.pts for f in got]), 0.04, atol=1e-9)
    sound = np.concatenate([f.audio for f in got])
    np.testing.assert_array_equal(sound[sound != 0], ramp(12_000))
    assert {f.utterance_id for f in got if f.speaking} == {"hi"}
    assert metrics.frames == 61 and metrics.error == "" and len(metrics.ttff_s) == 1
    assert set(metrics.step_ms) >= {"denoise", "render", "commit"}
    assert next(frames, None) is None  # closed: the iterator has ended
    assert session.metrics().frames == 61


def test_many_threads_may_push():
    with Session(FakePipeline(), face(), config=SessionConfig(queue_s=600)) as session:
        frames = session.frames()
        next(frames)

        def push(number: int) -> None:
            for i in range(20):
                session.push_audio(ramp(480, 1 + i * 480), 24000, utterance_id=str(number), last=i == 19)
                session.set_instruction(f"{number} {i}", priority=200 * (i % 2))
                session.metrics()

        threads = [threading.Thread(target=push, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        got, quiet = [], 0
        for frame in frames:
            got.append(frame)
            busy = frame.speaking or session.queued_s > 0 or any(thread.is_alive() for thread in threads)
            quiet = 0 if busy else quiet + 1
            if quiet == 25:
                break
        for thread in threads:
            thread.join()
    for number in range(4):
        sound = np.concatenate([f.audio for f in got if f.speaking])
        assert sum(np.isin(ramp(9600), sound)) == 9600, number


@pytest.mark.parametrize("stage", ["denoise", "render", "advance"])
def test_a_failure_in_the_engine_surfaces(stage):
    calls = []

    def fail(at: str, count: int) -> None:
        calls.append(at)
        if at == stage and len(calls) > 10:
            raise RuntimeError("out of memory")

    for realtime in (True, False):
        calls.clear()
        with Session(FakePipeline(hook=fail), face()) as session:
            with pytest.raises(EngineError, match="engine failed: RuntimeError: out of memory"):
                for _ in session.frames(realtime=realtime):
                    pass
            assert "out of memory" in session.metrics().error
            with pytest.raises(EngineError, match="out of memory"):
                session.push_audio(ramp(10), 24000)


def test_a_renderer_that_gives_the_wrong_shape_is_named():
    pipeline = FakePipeline()
    pipeline.height = 9
    with (
        Session(pipeline, face()) as session,
        pytest.raises(EngineError, match=r"\[4, 8, 8, 3\].*\[4, 9, 8, 3\]"),
    ):
        next(session.frames(realtime=False))


def test_close_does_not_hang_while_a_step_hangs():
    release = threading.Event()
    pipeline = FakePipeline(hook=lambda stage, count: release.wait(60) if stage == "denoise" else None)
    session = Session(pipeline, face(), config=SessionConfig(close_timeout_s=0.1))
    ended = []
    reader = threading.Thread(target=lambda: ended.extend(session.frames()))
    reader.start()
    waiting = threading.Thread(target=lambda: pytest.raises(EngineError, session.set_reference, face(5)))
    while session._host._thread is None:
        time.sleep(0.001)
    waiting.start()
    session.close()
    reader.join(30)
    assert not reader.is_alive() and ended == []
    session.close()
    release.set()
    waiting.join(30)
    assert not waiting.is_alive()


def test_after_close_everything_says_so():
    session = Session(FakePipeline(), face())
    session.close()
    for call in (
        lambda: session.push_audio(ramp(10), 24000),
        lambda: session.set_instruction("x"),
        lambda: session.set_reference(face()),
        session.interrupt,
        session.reset_memory,
        session.start,
        lambda: next(session.frames()),
    ):
        with pytest.raises(EngineError, match="the session is closed"):
            call()
    assert session.metrics().frames == 0


def test_one_consumer_and_one_kind():
    with Session(FakePipeline(), face()) as session:
        frames = session.frames()
        next(frames)
        with pytest.raises(EngineError, match="one consumer"):
            session.frames()
        with pytest.raises(EngineError, match="worker runs already|one consumer"):
            session.frames(realtime=False)
        frames.close()
        assert next(session.frames()).index == 1
    with Session(FakePipeline(), face()) as session:
        next(session.frames(realtime=False))
        with pytest.raises(EngineError, match="offline"):
            session.start()


def test_a_listener_that_fails_does_not_stop_the_stream(caplog):
    def listener(record):
        raise KeyError("oops")

    with Session(FakePipeline(), face(), on_chunk=listener) as session:
        assert len(list(islice(session.frames(realtime=False), 30))) == 30
    assert "on_chunk failed" in caplog.text


@pytest.mark.parametrize("live", [True, False])
def test_references(live):
    with Session(FakePipeline(), face(1)) as session:
        frames = session.frames(realtime=live)
        next(frames)
        first = session.reference_id
        assert first == f"picture-{hashlib.sha256(face(1).tobytes()).hexdigest()[:16]}"
        assert first != session.set_reference(face(2))
        assert session.set_reference(face(1)) == first
        assert session.set_reference(Reference(rgb=face(9), appearance=4, id="nine")) == "nine"
        for bad, message in (
            (np.zeros((8, 8, 3), np.uint8), "black"),
            (np.zeros((8, 8), np.uint8), r"\[8, 8\]: uint8 \[H, W, 3\]"),
            (np.zeros((8, 8, 4), np.uint8), r"\[8, 8, 4\]"),
            (np.zeros((8, 8, 3), np.float32), "type float32"),
            (np.zeros((0, 8, 3), np.uint8), "no pixel"),
            ("face.png", "str"),
        ):
            with pytest.raises(ReferenceError_, match=message):
                session.set_reference(bad)
        assert session.reference_id == "nine"
        assert next(frames) is not None
    with pytest.raises(ReferenceError_):
        Session(FakePipeline(), face(0))


def test_bad_input_is_refused_and_the_stream_goes_on():
    with Session(FakePipeline(), face(), config=SessionConfig(queue_s=1.0)) as session:
        frames = session.frames(realtime=False)
        with pytest.raises(AudioError):
            session.push_audio(np.zeros((10, 2), np.float32), 24000)
        with pytest.raises(AudioError, match="limit is 1 s"):
            session.push_audio(np.zeros(24001, np.float32), 24000)
        with pytest.raises(TypeError):
            session.push_audio(ramp(10), 24000, utterance_id=7)
        with pytest.raises(ValueError, match="behaviour is 'dancing': one of idle, listening"):
            session.set_instruction("x", behaviour="dancing")
        with pytest.raises(ValueError, match="4001 characters"):
            session.set_instruction("x" * 4001)
        with pytest.raises(ValueError, match="NoneType"):
            session.set_instruction(None)
        assert session.queued_s == 0
        session.push_audio(ramp(24000), 24000, last=True)
        assert session.queued_s == 1.0
        assert sum(f.speaking for f in islice(frames, 40)) == 25


def test_text_reaches_the_pipeline():
    with Session(FakePipeline(), face()) as session:
        session.set_instruction("", behaviour="listening")
        frames = session.frames(realtime=False)
        assert read_picture(next(frames).rgb).text == crc("listening")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_latents": 4}, r"step_latents is 4: it must lie in \[1, 3\]"),
        ({"step_latents": 2.0}, "whole number"),
        ({"ring_frames": 4}, r"ring_frames is 4: it must lie in \[12, 250\]"),
        ({"ring_frames": 12, "idle_frames": 20}, r"idle_frames is 20: .*ring_frames \(12\)"),
        ({"lead_s": -0.1}, "lead_s is -0.1"),
        ({"queue_s": float("nan")}, "queue_s is nan"),
        ({"queue_s": "1"}, "queue_s is '1'"),
        ({"grace_s": 0.05, "output_lead_s": 0.03}, r"grace_s is 0.05: .*output_lead_s \(0.03\)"),
        ({"fade_s": 0.03}, "fade_s is 0.03"),
        ({"gap_s": True}, "gap_s is True"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        SessionConfig(**change)


def test_live_speech_arrives_whole_beside_interruptions_of_others():
    """Real threads, real clock: what must hold is the content."""
    speech = ramp(28_800)
    with Session(FakePipeline(hook=lambda stage, count: time.sleep(0.003)), face()) as session:
        frames = session.frames()
        seen = [next(frames) for _ in range(10)]
        session.push_audio(np.full(24000, 0.5, np.float32), 24000, utterance_id="cut", last=True)
        seen += [next(frames) for _ in range(15)]
        assert session.interrupt("cut")
        session.push_audio(speech, 24000, utterance_id="whole", last=True)
        while not (whole := [f.index for f in seen if f.utterance_id == "whole"]) or seen[-1].index < whole[-1] + 25:
            seen.append(next(frames))  # until it has been silent for a second
    assert [f.index for f in seen] == list(range(len(seen)))
    said = np.concatenate([f.audio for f in seen if f.utterance_id == "whole"])
    np.testing.assert_array_equal(said[said != 0][-len(speech) :], speech)


def test_only_one_thread_uses_the_networks_of_a_step():
    threads = set()

    def hook(stage: str, count: int) -> None:
        if stage != "load_reference":
            threads.add(threading.current_thread())

    with Session(FakePipeline(hook=hook), face()) as session:
        frames = session.frames()
        for _ in range(30):
            next(frames)
        session.set_reference(face(3))
        for _ in range(30):
            next(frames)
    assert len(threads) == 1
