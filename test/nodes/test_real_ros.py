# SPDX-License-Identifier: Apache-2.0
"""The generator as a process on real ROS 2, in a random domain: content by stamps and samples, never speed.

The `debug` preset has random weights: what is drawn means nothing here, when and with which sound it leaves does.
"""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from ros_harness import (
    ABORTED,
    FRAME_NS,
    LONG_S,
    Watcher,
    goal,
    loud,
    over,
    speak,
    speech_messages,
    spoken,
    stamps,
    whole,
)
from std_srvs.srv import Trigger

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, AvatarState, Instruction
from flowact_msgs.srv import SetReference
from flowact_ros.launcher.supervisor import Supervisor
from flowact_ros.media.jpeg import decode_jpeg
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.nodes.uninstructed import wording_of

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]


def test_frames_and_samples(watcher: Watcher) -> None:
    """A sentence goes in faster than real time; frames 40 ms apart and exactly its samples come out."""
    pcm = loud(2.0, seed=1)
    speak(watcher, pcm, "sentence")
    images, audio = list(watcher.seen[topics.IMAGE]), list(watcher.seen[topics.AUDIO])
    np.testing.assert_array_equal(spoken(audio, "sentence"), pcm)

    assert {b - a for a, b in pairwise(stamps(audio))} == {FRAME_NS}
    assert {b - a for a, b in pairwise(stamps(images))} == {FRAME_NS}
    assert [b.first_sample - a.first_sample for a, b in pairwise(audio)] == [960] * (len(audio) - 1)
    assert {(m.sample_rate, m.channels, m.encoding, len(m.data)) for m in audio} == {
        (24000, 1, "S16LE", 1920)
    }
    assert {(m.width, m.height, m.encoding, m.step, len(m.data)) for m in images} == {
        (128, 128, "rgb8", 384, 49152)
    }
    # One clock: sample s is stamped t0 + s/24000, with the same t0 as the frames.
    epochs = {stamp - message.first_sample * 125_000 // 3 for stamp, message in zip(stamps(audio), audio)}
    assert len(epochs) == 1
    assert (stamps(images)[0] - epochs.pop()) % FRAME_NS == 0
    assert set(stamps(images)) & set(stamps(audio))


def test_a_frame_is_published_before_it_is_seen(watcher: Watcher) -> None:
    """Stamps are presentation times in the node's clock: near now, not at the epoch's beginning."""
    now = watcher.node.get_clock().now().nanoseconds
    assert abs(stamps(watcher.seen[topics.IMAGE])[-1] - now) < 5_000_000_000


def test_state_follows_the_sound(watcher: Watcher) -> None:
    speak(watcher, loud(1.0, seed=2), "short one")
    watcher.until(lambda: not watcher.seen[topics.STATE][-1].robot_speaking, "rest")
    states = watcher.seen[topics.STATE]
    during = [m for m in states if m.utterance_id == "short one"]
    assert during and all(m.robot_speaking and m.behaviour == AvatarState.SPEAKING for m in during)
    assert not states[-1].robot_speaking and states[-1].utterance_id == ""
    speaking = [m.data for m in watcher.seen[topics.ROBOT_SPEAKING]]
    assert True in speaking and speaking[-1] is False
    audible = stamps([m for m in watcher.seen[topics.AUDIO] if m.utterance_id == "short one"])
    assert stamps(during)[0] == audible[0]


def test_sixteen_kilohertz_stereo_floats_are_converted(watcher: Watcher) -> None:
    t = np.arange(16000) / 16000
    tone = (0.25 * np.sin(2 * np.pi * 440 * t)).astype("<f4")
    message = AudioChunk(sample_rate=16000, channels=2, encoding="F32LE", utterance_id="tone", last=True)
    message.data.frombytes(np.repeat(tone, 2).tobytes())
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    publisher.publish(message)
    watcher.until(lambda: over(watcher, "tone"), "the tone")
    heard = spoken(watcher.seen[topics.AUDIO], "tone")
    assert abs(len(heard) - 24000) < 300
    spectrum = np.abs(np.fft.rfft(heard[: 24000 // 2] * np.hanning(12000)))
    assert spectrum.argmax() * 2 == pytest.approx(440, abs=4)
    assert np.abs(heard).max() == pytest.approx(0.25, abs=0.03)


def test_records_and_metrics(watcher: Watcher) -> None:
    names = [f"recorded {number}" for number in range(20)]

    def recorded() -> bool:
        """A machine that is late leaves out steps, and with them perhaps all of so short a sentence."""
        speak(watcher, loud(1.0, seed=3), names.pop())
        return any(m.utterance_id.startswith("recorded") for m in list(watcher.seen[topics.CHUNKS]))

    watcher.until(recorded, "its record")
    records = list(watcher.seen[topics.CHUNKS])
    assert all(1 <= m.latents <= 3 and m.first_frame % 4 == 0 for m in records)
    # A record holds the sound since the record before it, up to the end of its own frames.
    assert all(m.first_sample < (m.first_frame + 4 * m.latents) * 960 for m in records)
    assert [b.step > a.step for a, b in pairwise(records)] == [True] * (len(records) - 1)
    assert {m.reference_id for m in records} and {m.seed for m in records} == {0}
    watcher.until(lambda: watcher.seen[topics.METRICS], "metrics")
    metrics = watcher.seen[topics.METRICS][-1]
    assert metrics.frames > 0 and metrics.ttff > 0
    assert len(metrics.stage_names) == len(metrics.stage_ms) > 0


def test_jpegs_come_when_asked_for(watcher: Watcher) -> None:
    jpegs = watcher.watch_jpegs()
    watcher.until(lambda: len(jpegs) > 5, "jpegs")
    assert {m.format for m in jpegs} == {"rgb8; jpeg compressed bgr8"}
    images = dict(zip(stamps(watcher.seen[topics.IMAGE]), watcher.seen[topics.IMAGE]))
    pairs = [(images[s], m) for s, m in zip(stamps(jpegs), jpegs) if s in images]
    assert pairs
    raw, jpeg = pairs[-1]
    drawn = np.frombuffer(raw.data, np.uint8).reshape(128, 128, 3).astype(int)
    assert np.abs(decode_jpeg(bytes(jpeg.data)).astype(int) - drawn).mean() < 12


def test_an_instruction_without_a_text_has_its_behaviours_own(watcher: Watcher) -> None:
    assert all(
        record.instruction for record in watcher.seen[topics.CHUNKS]
    )  # nobody has instructed it yet, perhaps
    publisher = watcher.publisher(Instruction, topics.INSTRUCTION)
    publisher.publish(Instruction(behaviour=Instruction.THINKING, priority=200))
    wording = wording_of("thinking")
    watcher.until(lambda: watcher.seen[topics.CHUNKS][-1].instruction == wording, "its wording")
    publisher.publish(Instruction(behaviour=Instruction.IDLE))
    watcher.until(lambda: watcher.seen[topics.CHUNKS][-1].instruction == wording_of("idle"), "idle again")


def test_instructions_change_the_behaviour(watcher: Watcher) -> None:
    publisher = watcher.publisher(Instruction, topics.INSTRUCTION)
    publisher.publish(Instruction(behaviour=Instruction.LISTENING, text="listening closely", priority=200))
    watcher.until(lambda: watcher.seen[topics.STATE][-1].behaviour == AvatarState.LISTENING, "listening")
    watcher.until(
        lambda: any(m.instruction == "listening closely" for m in watcher.seen[topics.CHUNKS]), "its text"
    )
    publisher.publish(Instruction(behaviour=Instruction.IDLE, text="idle"))
    watcher.until(lambda: watcher.seen[topics.STATE][-1].behaviour == AvatarState.IDLE, "idle again")


def test_malformed_messages_do_not_stop_the_stream(
    watcher: Watcher, avatar: tuple[Supervisor, list[str]]
) -> None:
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    good = audio_message(loud(0.1), 24000, to_time(0), utterance_id="bad one")
    cases = [
        ("sample_rate", 0),
        ("sample_rate", 2**32 - 1),
        ("encoding", "OPUS"),
        ("channels", 0),
        ("channels", 255),
        ("data", [1, 2, 3]),
    ]
    for name, value in cases:
        bad = audio_message(loud(0.1), 24000, to_time(0), utterance_id="bad one")
        setattr(bad, name, value)
        publisher.publish(bad)
        time.sleep(0.05)
    nan = audio_message(
        np.full(100, np.nan, np.float32), 24000, to_time(0), encoding="F32LE", utterance_id="bad one"
    )
    publisher.publish(nan)
    instructions = watcher.publisher(Instruction, topics.INSTRUCTION)
    instructions.publish(Instruction(behaviour=77, text="?"))
    instructions.publish(Instruction(text="x" * 20_000))
    count = len(watcher.seen[topics.IMAGE])
    watcher.until(lambda: len(watcher.seen[topics.IMAGE]) > count + 25, "frames after them")
    _, lines = avatar
    for text in (
        "sample_rate is 0 Hz",
        "'OPUS'",
        "0 channels",
        "255 channels",
        "3 bytes",
        "NaN",
        "behaviour is 77",
    ):
        watcher.until(lambda text=text: any(text in line for line in list(lines)), f"{text} in the log")
    assert not any("Traceback" in line for line in list(lines))
    watcher.until(lambda: "20000 characters" in last_error(watcher), "the last one in diagnostics")
    assert good.sample_rate == 24000
    speak(watcher, loud(0.8, seed=11), "good one")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "good one"), loud(0.8, seed=11))


def last_error(watcher: Watcher) -> str:
    found = [
        s for array in list(watcher.seen[topics.DIAGNOSTICS]) for s in array.status if "generator" in s.name
    ]
    return next((v.value for v in found[-1].values if v.key == "last_error"), "") if found else ""


def test_lost_and_repeated_chunks(watcher: Watcher) -> None:
    """A gap of 40 ms becomes silence, a repeat is dropped, a swap is put in order."""
    pcm = loud(1.2, seed=12)
    messages = speech_messages(pcm, "torn")
    order = [0, 1, 2, 2, 3, 5, 4, 6, 7, *range(9, len(messages))]  # 2 twice, 4 and 5 swapped, 8 lost
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    # All at once: what is early waits 100 ms for the one before it, which may be less than a pause of this process.
    for index in order:
        publisher.publish(messages[index])
    expected = np.concatenate([pcm[: 8 * 960], pcm[9 * 960 :]])
    watcher.until(lambda: whole(watcher, "torn", len(expected)), "the end")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "torn"), expected)


def test_lifecycle(watcher: Watcher) -> None:
    node = "avatar_generator"
    assert watcher.state(node) == "active"
    running = watcher.say(goal(loud(LONG_S, seed=13), utterance_id="when it stops"))
    watcher.until(lambda: watcher.seen[topics.STATE][-1].utterance_id == "when it stops", "speech")
    for _ in range(2):
        assert watcher.transition(node, Transition.TRANSITION_DEACTIVATE)
        assert watcher.state(node) == "inactive"
        status, result = running.result()
        assert (status, result.error_code) == (ABORTED, Say.Result.NOT_ACTIVE)
        assert watcher.say(goal(loud(0.1))).result()[1].error_code == Say.Result.NOT_ACTIVE
        answer = watcher.call(SetReference, topics.SET_REFERENCE, SetReference.Request(source=1, name="nova"))
        assert answer.error_code == SetReference.Response.NOT_ACTIVE
        assert not watcher.call(Trigger, topics.INTERRUPT, Trigger.Request()).success
        watcher.until(lambda: watcher.node.count_publishers(topics.IMAGE) == 0, "no topic")
        assert watcher.transition(node, Transition.TRANSITION_ACTIVATE)
        watcher.until(lambda: watcher.node.count_publishers(topics.IMAGE) == 1, "the topic again")
    assert watcher.transition(node, Transition.TRANSITION_DEACTIVATE)
    assert watcher.transition(node, Transition.TRANSITION_CLEANUP)
    assert watcher.state(node) == "unconfigured"
    assert watcher.transition(node, Transition.TRANSITION_CONFIGURE)
    assert watcher.transition(node, Transition.TRANSITION_ACTIVATE)
    assert watcher.state(node) == "active"
    before = len(watcher.seen[topics.AUDIO])
    speak(watcher, loud(0.8, seed=14), "after it")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO][before:], "after it"), loud(0.8, seed=14))


def test_a_killed_generator_comes_back(watcher: Watcher, avatar: tuple[Supervisor, list[str]]) -> None:
    supervisor, _ = avatar
    pid = supervisor.pid("avatar_generator")
    os.kill(pid, signal.SIGKILL)
    watcher.until(lambda: supervisor.pid("avatar_generator") not in (None, pid), "a new process")
    count = len(watcher.seen[topics.IMAGE])
    watcher.until(lambda: len(watcher.seen[topics.IMAGE]) > count + 10, "frames again")
    assert supervisor.restarts("avatar_generator") == 1


@pytest.mark.slow
def test_a_long_text_at_once(watcher: Watcher) -> None:
    """What a fast TTS does: 500 chunks without a pause; not one is lost on the way in."""
    pcm = loud(20.0, seed=40)
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    for message in speech_messages(pcm, "burst"):
        publisher.publish(message)
    watcher.until(lambda: whole(watcher, "burst", len(pcm)), "its end")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "burst"), pcm)


def test_a_synthesizer_that_numbers_every_sentence_from_zero(watcher: Watcher) -> None:
    """One name for all sentences, each counted anew: all of it is heard, and `metrics` says so."""
    sentences = [loud(0.6, seed=seed) for seed in (60, 61, 61)]
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    before = watcher.until(lambda: watcher.seen[topics.METRICS], "metrics")[-1]
    for pcm in sentences:
        for message in speech_messages(pcm, "tts"):
            publisher.publish(message)
            time.sleep(0.002)
    publisher.publish(AudioChunk(sample_rate=4000, channels=1, encoding="S16LE", data=bytes(200)))  # refused
    watcher.until(lambda: whole(watcher, "tts", 3 * 14400), "the end")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "tts"), np.concatenate(sentences))
    metrics = watcher.seen[topics.METRICS]
    watcher.until(lambda: metrics[-1].heard_samples - before.heard_samples >= 3 * 14400, "metrics of all of it")
    after = metrics[-1]
    assert after.heard_samples - before.heard_samples == 3 * 14400
    assert after.received_samples - before.received_samples == 3 * 14400 + 100
    dropped = [dict(zip(m.dropped_reasons, m.dropped_samples)).get("refused", 0) for m in (before, after)]
    assert dropped[1] - dropped[0] == 100
