# SPDX-License-Identifier: Apache-2.0
"""Services and the `say` action of a running generator, from a program and from the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ros_harness import (
    ABORTED,
    CANCELED,
    LONG_S,
    SUCCEEDED,
    Watcher,
    goal,
    loud,
    over,
    speech_messages,
    spoken,
)
from std_srvs.srv import Trigger

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, Transcript
from flowact_msgs.srv import SetReference
from flowact_ros.media.wav import write_wav
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import image_message, to_time

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]


def test_interrupt(watcher: Watcher) -> None:
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    pcm = loud(LONG_S, seed=4)
    for message in speech_messages(pcm, "long one", each_s=1.0):
        publisher.publish(message)
    watcher.until(lambda: watcher.seen[topics.STATE][-1].robot_speaking, "speech")
    answer = watcher.call(Trigger, topics.INTERRUPT, Trigger.Request())
    assert answer.success
    watcher.until(lambda: not watcher.seen[topics.STATE][-1].robot_speaking, "rest")
    watcher.until(lambda: over(watcher, "long one"), "silence that lasts")
    heard = spoken(watcher.seen[topics.AUDIO], "long one")
    assert 0 < len(heard) < len(pcm) // 2
    np.testing.assert_array_equal(heard[:-960], pcm[: len(heard) - 960])  # but for the fade at its end


def test_reset_memory(watcher: Watcher) -> None:
    assert watcher.call(Trigger, topics.RESET_MEMORY, Trigger.Request()).success
    count = len(watcher.seen[topics.IMAGE])
    watcher.until(lambda: len(watcher.seen[topics.IMAGE]) > count + 25, "frames after it")


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (SetReference.Request(source=1, name="Nobody"), SetReference.Response.UNKNOWN_CHARACTER, "Nobody"),
        (SetReference.Request(source=2, seed=-123), SetReference.Response.UNKNOWN_CHARACTER, "-123"),
        (SetReference.Request(source=9), SetReference.Response.INVALID_IMAGE, "9"),
        (SetReference.Request(source=0), SetReference.Response.INVALID_IMAGE, "0×0"),
        (
            SetReference.Request(
                source=0, image=image_message(np.zeros((8, 8, 3), np.uint8), to_time(0), "")
            ),
            SetReference.Response.NOT_REPRESENTABLE,
            "8 x 8",
        ),
    ],
)
def test_references_that_cannot_be(
    watcher: Watcher, request_: SetReference.Request, code: int, says: str
) -> None:
    answer = watcher.call(SetReference, topics.SET_REFERENCE, request_)
    assert answer.error_code == code
    assert says in answer.error_msg and "\n" not in answer.error_msg
    count = len(watcher.seen[topics.IMAGE])
    watcher.until(lambda: len(watcher.seen[topics.IMAGE]) > count + 10, "frames after it")


RED = np.full((64, 64, 3), (200, 30, 30), np.uint8)


@pytest.mark.parametrize(
    "request_",
    [
        SetReference.Request(source=0, image=image_message(RED, to_time(0), "")),
        SetReference.Request(source=2, seed=123),
    ],
)
def test_a_new_reference_cuts_to_it(watcher: Watcher, request_: SetReference.Request) -> None:
    answer = watcher.call(SetReference, topics.SET_REFERENCE, request_)
    assert (answer.error_code, answer.error_msg) == (0, "")
    assert answer.reference_id
    watcher.until(
        lambda: watcher.seen[topics.CHUNKS][-1].reference_id == answer.reference_id, "records of it"
    )


def test_say(watcher: Watcher) -> None:
    pcm = loud(1.5, seed=5)
    texts: list[Transcript] = []
    watcher.node.create_subscription(
        Transcript, topics.SPEECH_TEXT, texts.append, topics.QOS[topics.SPEECH_TEXT]
    )
    # Only what is heard shows that the generator has found this subscription; what it sent before is lost.
    watcher.until(
        lambda: watcher.say(goal(loud(0.1), text="is anybody there", utterance_id="probe")).result() and texts,
        "a text",
    )
    watcher.say(goal(loud(0.1), utterance_id="wordless")).result()
    said = watcher.say(goal(pcm, text="one two three", utterance_id="said"))
    status, result = said.result()
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, Say.Result.NONE, "")
    assert result.spoken_text == "one two three"
    assert (result.spoken.sec, result.spoken.nanosec) == (1, 500_000_000)

    def told() -> list[tuple[str, str, bool]]:
        return [(m.utterance_id, m.text, m.final) for m in texts if m.utterance_id != "probe"]

    watcher.until(told, "its text")
    assert told() == [("said", "one two three", True)]
    phases = [feedback.phase for feedback in said.feedback]
    assert Say.Feedback.SPEAKING in phases and phases == sorted(phases)
    watcher.until(lambda: over(watcher, "said"), "silence after it")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "said"), pcm)


def test_say_cancelled_is_a_barge_in(watcher: Watcher) -> None:
    pcm = loud(LONG_S, seed=6)
    said = watcher.say(goal(pcm, utterance_id="cut short", text="a b c d"))
    watcher.until(lambda: any(f.phase == Say.Feedback.SPEAKING for f in said.feedback), "speech")
    assert said.cancel()
    status, result = said.result()
    assert (status, result.error_code) == (CANCELED, Say.Result.INTERRUPTED)
    assert result.spoken.sec < LONG_S / 2 and len(result.spoken_text.split()) < 4
    watcher.until(lambda: over(watcher, "cut short"), "silence that lasts")
    assert 0 < len(spoken(watcher.seen[topics.AUDIO], "cut short")) < len(pcm) // 2


def test_say_policies(watcher: Watcher) -> None:
    first = watcher.say(goal(loud(LONG_S, seed=7), utterance_id="first", priority=50))
    watcher.until(lambda: watcher.seen[topics.STATE][-1].utterance_id == "first", "the first")
    rejected = watcher.say(goal(loud(0.5), policy=Say.Goal.REJECT))
    assert rejected.result()[1].error_code == Say.Result.REJECTED
    weak = watcher.say(goal(loud(0.5), policy=Say.Goal.INTERRUPT, priority=10))
    assert weak.result()[1].error_code == Say.Result.REJECTED
    assert not first.done()
    queued = watcher.say(goal(loud(LONG_S, seed=8), utterance_id="queued", priority=50))
    strong = watcher.say(
        goal(loud(0.6, seed=9), policy=Say.Goal.INTERRUPT, priority=50, utterance_id="strong")
    )
    assert first.result()[1].error_code == Say.Result.INTERRUPTED
    assert queued.result()[1].error_code == Say.Result.INTERRUPTED
    assert strong.result()[:1] == (SUCCEEDED,)
    watcher.until(lambda: over(watcher, "strong"), "silence after it")
    heard = spoken(watcher.seen[topics.AUDIO], "strong")
    np.testing.assert_array_equal(heard[-14400:], loud(0.6, seed=9))
    assert len(heard) - 14400 <= 480  # what may sound with its first frame: 20 ms in which the other fades
    assert not len(spoken(watcher.seen[topics.AUDIO], "queued"))


def test_say_one_after_the_other(watcher: Watcher) -> None:
    goals = [watcher.say(goal(loud(0.6, seed=20 + i), utterance_id=f"part {i}")) for i in range(3)]
    assert [g.result()[0] for g in goals] == [SUCCEEDED] * 3
    watcher.until(lambda: over(watcher, "part 2"), "the last")
    names = [m.utterance_id for m in watcher.seen[topics.AUDIO] if m.utterance_id.startswith("part")]
    assert names == sorted(names)


def flowact(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flowact_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_say_from_the_command_line(watcher: Watcher, tmp_path: Path) -> None:
    pcm = loud(1.0, seed=30)
    write_wav(tmp_path / "words.wav", pcm, 24000)
    done = flowact("say", "--wav", tmp_path / "words.wav", "--text", "some words")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[-2] == "spoken: 1.00 s" and "speaking" in done.stdout
    names = [m.utterance_id for m in watcher.seen[topics.AUDIO] if m.utterance_id.startswith("say-")]
    watcher.until(lambda: over(watcher, names[-1]), "silence after it")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], names[-1]), pcm)
    nobody = flowact("say", "--wav", tmp_path / "words.wav", "--namespace", "nobody/avatar", "--timeout", "1")
    assert nobody.returncode == 1
    assert "no avatar answers at /nobody/avatar/say" in nobody.stderr


def test_ctrl_c_is_a_barge_in(watcher: Watcher, tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", loud(LONG_S, seed=31), 24000)
    command = [sys.executable, "-m", "flowact_ros.cli", "say", "--wav", str(tmp_path / "long.wav")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a shell that runs the tests in the background has its children ignore SIGINT, and they inherit that
    process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes)
    try:
        assert any("speaking" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "interrupted: cancelled" in err
    watcher.until(lambda: not watcher.seen[topics.STATE][-1].robot_speaking, "rest")


def bad_goal(**fields) -> Say.Goal:
    bad = goal(loud(0.2))
    for name, value in fields.items():
        setattr(bad.audio, name, value)
    return bad


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Say.Goal(), Say.Result.NOTHING_TO_SAY),
        (Say.Goal(text="  "), Say.Result.NOTHING_TO_SAY),
        (Say.Goal(text="hello"), Say.Result.NO_SYNTHESIZER),
        (bad_goal(sample_rate=100), Say.Result.INVALID_AUDIO),
        (bad_goal(encoding="MP3"), Say.Result.INVALID_AUDIO),
        (bad_goal(channels=0), Say.Result.INVALID_AUDIO),
    ],
)
def test_goals_that_cannot_be(watcher: Watcher, bad: Say.Goal, code: int) -> None:
    status, result = watcher.say(bad).result()
    assert (status, result.error_code) == (ABORTED, code)
    assert result.error_msg and "\n" not in result.error_msg
