# SPDX-License-Identifier: Apache-2.0
"""The nodes as processes on real ROS 2, in a random domain: content by stamps and samples, never speed.

The `debug` preset has random weights: what is drawn means nothing here, when and with which sound it leaves does.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from PIL import Image as Picture
from ros_harness import Watcher, generator_spec, loud, speech_messages, spoken, stamps, supervise
from std_srvs.srv import Trigger

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, AvatarState, Instruction
from flowact_msgs.srv import SetReference
from flowact_ros.kiosk.protocol import AUDIO, FRAME, STATE, unpack
from flowact_ros.media.jpeg import decode_jpeg
from flowact_ros.media.mp4 import read_mp4
from flowact_ros.media.wav import write_wav
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_array, audio_message, image_message, to_time
from flowact_ros.nodes.supervisor import NodeSpec, Supervisor, SupervisorError
from flowact_ros.nodes.uninstructed import wording_of

pytestmark = pytest.mark.ros

FRAME_NS = 40_000_000
SUCCEEDED, CANCELED, ABORTED = 4, 5, 6  # action_msgs/GoalStatus


@pytest.fixture(scope="module", autouse=True)
def domain() -> Iterator[None]:
    """A domain of this module's own: nodes of other tests and robots are not heard."""
    before = {name: os.environ.get(name) for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")}
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    y, x = np.mgrid[0:256, 0:256]
    path = tmp_path_factory.mktemp("reference") / "gradient.png"
    Picture.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def avatar(reference: Path, python_path: str) -> Iterator[tuple[Supervisor, list[str]]]:
    lines: list[str] = []
    with supervise([generator_spec(reference)], python_path, lines) as supervisor:
        supervisor.wait_active(120)
        yield supervisor, lines


@pytest.fixture
def watcher(avatar) -> Iterator[Watcher]:
    names = (topics.IMAGE, topics.AUDIO, topics.STATE, topics.ROBOT_SPEAKING, topics.CHUNKS, topics.METRICS)
    watcher = Watcher("/avatar", (*names, topics.DIAGNOSTICS))
    for name in (topics.IMAGE, topics.AUDIO, topics.STATE, topics.CHUNKS):
        watcher.until(lambda name=name: watcher.seen[name], f"something on {name}")
    yield watcher
    watcher.close()


def speak(watcher: Watcher, pcm: np.ndarray, name: str, rate: int = 24000) -> None:
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    for message in speech_messages(pcm, name, rate):
        publisher.publish(message)
        time.sleep(0.002)
    watcher.until(lambda: over(watcher, name), f"the end of {name}")
    watcher.node.destroy_publisher(publisher)


def over(watcher: Watcher, name: str) -> bool:
    audio = watcher.seen[topics.AUDIO]
    heard = [i for i, message in enumerate(audio) if message.utterance_id == name]
    return bool(heard) and len(audio) > heard[-1] + 30


# ---------------------------------------------------------------- the stream


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
        (120, 120, "rgb8", 360, 43200)
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
    speak(watcher, loud(1.0, seed=3), "recorded")
    records = list(watcher.seen[topics.CHUNKS])
    assert any(m.utterance_id == "recorded" for m in records)
    assert all(1 <= m.latents <= 3 and m.first_frame % 4 == 0 for m in records)
    # A step lays the sound of its own frames, from where the step before it had looked ahead to.
    assert all(abs(m.first_sample - m.first_frame * 960) <= 12 * 960 + 1920 for m in records)
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
    drawn = np.frombuffer(raw.data, np.uint8).reshape(120, 120, 3).astype(int)
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


# ---------------------------------------------------------------- services and the action


def test_interrupt(watcher: Watcher) -> None:
    publisher = watcher.publisher(AudioChunk, topics.SPEECH)
    pcm = loud(20.0, seed=4)
    for message in speech_messages(pcm, "long one"):
        publisher.publish(message)
        time.sleep(0.002)
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
        (SetReference.Request(source=2, seed=123), SetReference.Response.UNKNOWN_CHARACTER, "123"),
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


def test_a_new_reference_cuts_to_it(watcher: Watcher) -> None:
    rgb = np.full((64, 64, 3), (200, 30, 30), np.uint8)
    request = SetReference.Request(source=0, image=image_message(rgb, to_time(0), ""))
    answer = watcher.call(SetReference, topics.SET_REFERENCE, request)
    assert (answer.error_code, answer.error_msg) == (0, "")
    assert answer.reference_id
    watcher.until(
        lambda: watcher.seen[topics.CHUNKS][-1].reference_id == answer.reference_id, "records of it"
    )


def goal(pcm: np.ndarray, **fields) -> Say.Goal:
    return Say.Goal(audio=audio_message(pcm, 24000, to_time(0), last=True), **fields)


def test_say(watcher: Watcher) -> None:
    pcm = loud(1.5, seed=5)
    said = watcher.say(goal(pcm, text="one two three", utterance_id="said"))
    status, result = said.result()
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, Say.Result.NONE, "")
    assert result.spoken_text == "one two three"
    assert (result.spoken.sec, result.spoken.nanosec) == (1, 500_000_000)
    phases = [feedback.phase for feedback in said.feedback]
    assert Say.Feedback.SPEAKING in phases and phases == sorted(phases)
    watcher.until(lambda: over(watcher, "said"), "silence after it")
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "said"), pcm)


def test_say_cancelled_is_a_barge_in(watcher: Watcher) -> None:
    pcm = loud(20.0, seed=6)
    said = watcher.say(goal(pcm, utterance_id="cut short", text="a b c d"))
    watcher.until(lambda: any(f.phase == Say.Feedback.SPEAKING for f in said.feedback), "speech")
    assert said.cancel()
    status, result = said.result()
    assert (status, result.error_code) == (CANCELED, Say.Result.INTERRUPTED)
    assert result.spoken.sec < 10 and len(result.spoken_text.split()) < 4
    watcher.until(lambda: over(watcher, "cut short"), "silence that lasts")
    assert 0 < len(spoken(watcher.seen[topics.AUDIO], "cut short")) < len(pcm) // 2


def test_say_policies(watcher: Watcher) -> None:
    first = watcher.say(goal(loud(20.0, seed=7), utterance_id="first", priority=50))
    watcher.until(lambda: watcher.seen[topics.STATE][-1].utterance_id == "first", "the first")
    rejected = watcher.say(goal(loud(0.5), policy=Say.Goal.REJECT))
    assert rejected.result()[1].error_code == Say.Result.REJECTED
    weak = watcher.say(goal(loud(0.5), policy=Say.Goal.INTERRUPT, priority=10))
    assert weak.result()[1].error_code == Say.Result.REJECTED
    assert not first.done()
    queued = watcher.say(goal(loud(20.0, seed=8), utterance_id="queued", priority=50))
    strong = watcher.say(
        goal(loud(0.6, seed=9), policy=Say.Goal.INTERRUPT, priority=50, utterance_id="strong")
    )
    assert first.result()[1].error_code == Say.Result.INTERRUPTED
    assert queued.result()[1].error_code == Say.Result.INTERRUPTED
    assert strong.result()[:1] == (SUCCEEDED,)
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
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], names[-1]), pcm)
    nobody = flowact("say", "--wav", tmp_path / "words.wav", "--namespace", "nobody/avatar", "--timeout", "1")
    assert nobody.returncode == 1
    assert "no avatar answers at /nobody/avatar/say" in nobody.stderr


def test_ctrl_c_is_a_barge_in(watcher: Watcher, tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", loud(20.0, seed=31), 24000)
    command = [sys.executable, "-m", "flowact_ros.cli", "say", "--wav", str(tmp_path / "long.wav")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes)
    try:
        assert any("speaking" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
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


# ---------------------------------------------------------------- bad messages


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
    log = "\n".join(lines)
    for text in (
        "sample_rate is 0 Hz",
        "'OPUS'",
        "0 channels",
        "255 channels",
        "3 bytes",
        "NaN",
        "behaviour is 77",
    ):
        assert text in log
    assert "Traceback" not in log
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
    for index in order:
        publisher.publish(messages[index])
        time.sleep(0.002)
    watcher.until(lambda: over(watcher, "torn"), "the end")
    expected = np.concatenate([pcm[: 8 * 960], pcm[9 * 960 :]])
    np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "torn"), expected)


# ---------------------------------------------------------------- life


def test_lifecycle(watcher: Watcher) -> None:
    node = "avatar_generator"
    assert watcher.state(node) == "active"
    running = watcher.say(goal(loud(20.0, seed=13), utterance_id="when it stops"))
    watcher.until(lambda: watcher.seen[topics.STATE][-1].utterance_id == "when it stops", "speech")
    for _ in range(2):
        assert watcher.transition(node, Transition.TRANSITION_DEACTIVATE)
        assert watcher.state(node) == "inactive"
        watcher.until(lambda: watcher.node.count_publishers(topics.IMAGE) == 0, "no topic")
        assert watcher.transition(node, Transition.TRANSITION_ACTIVATE)
        watcher.until(lambda: watcher.node.count_publishers(topics.IMAGE) == 1, "the topic again")
    assert running.done() is False or running.result()[1].error_code == Say.Result.NOT_ACTIVE
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


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"threads": 0}, "0 is out of range, 1 … 64"),  # known before anything is loaded: the process ends
        ({"weights_dir": "/nowhere", "preset": "avatar_cpu"}, "/nowhere"),  # found out at configure: it stays
    ],
)
def test_a_node_that_cannot_start_says_why(
    reference: Path, python_path: str, parameters: dict, says: str
) -> None:
    lines: list[str] = []
    spec = generator_spec(reference, **parameters)
    with supervise([spec], python_path, lines) as supervisor:
        with pytest.raises(SupervisorError, match=says):
            supervisor.wait_active(90)
        assert supervisor.restarts(spec.name) == 0
    log = "\n".join(lines)
    assert says in log and "Traceback" not in log


def test_the_whole_chain_into_a_file(reference: Path, python_path: str, tmp_path: Path) -> None:
    """A wav file through capture, planner, generator and recorder: the file has every frame and the sound in place."""
    pcm = loud(1.0, seed=15)
    write_wav(tmp_path / "in.wav", pcm, 24000)
    out = tmp_path / "out.mp4"
    speech = {"file": str(tmp_path / "in.wav"), "pace": 0.0}
    specs = [
        NodeSpec(s.name, s.module, namespace="robot2/avatar", parameters=s.parameters)
        for s in [
            generator_spec(reference),
            NodeSpec("instruction_planner", "flowact_ros.nodes.instruction_planner"),
            NodeSpec("recorder", "flowact_ros.nodes.recorder", parameters={"path": str(out)}),
            NodeSpec("speech_source", "flowact_ros.nodes.audio_capture", parameters=speech),
        ]
    ]
    watcher = Watcher("/robot2/avatar", (topics.AUDIO, topics.INSTRUCTION))
    lines: list[str] = []
    try:
        with supervise(specs[:3], python_path, lines) as supervisor:
            watcher.until(lambda: supervisor.fact("recorder", "first_frame"), "a recorded frame")
            with supervise(specs[3:], python_path, lines):
                watcher.until(lambda: over(watcher, "in"), "the sentence")
            assert supervisor.finish("recorder", 60) == 0
            assert supervisor.fact("recorder", "missing_pictures") == 0
        np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "in"), pcm)
        assert Instruction.SPEAKING in {m.behaviour for m in watcher.seen[topics.INSTRUCTION]}
    finally:
        watcher.close()
    clip = read_mp4(out)
    assert clip.frames.shape[1:] == (120, 120, 3)
    assert len(clip.pcm) == pytest.approx(len(clip.frames) * 960, abs=2)
    # The same course of loudness, frame by frame, in the file as on the topic.
    filed = [np.abs(clip.pcm[i * 960 : (i + 1) * 960]).mean() for i in range(len(clip.frames))]
    said = [np.abs(audio_array(message)[0]).mean() for message in watcher.seen[topics.AUDIO]]
    first_filed, first_said = np.argmax(np.array(filed) > 0.03), np.argmax(np.array(said) > 0.03)
    assert first_filed > 0 and first_said > 0
    np.testing.assert_allclose(filed[first_filed:][:40], said[first_said:][:40], atol=0.06)


def test_the_page_gets_frames_and_sound_only_while_somebody_looks(watcher: Watcher, python_path: str) -> None:
    """kiosk_bridge: no page, no JPEG; a page gets frames, sound and state."""
    bridge = NodeSpec("kiosk_bridge", "flowact_ros.nodes.kiosk_bridge", parameters={"port": 0})
    with supervise([bridge], python_path, []) as supervisor:
        supervisor.wait_active(90)
        url = watcher.until(lambda: supervisor.fact("kiosk_bridge", "url"), "the page's address")
        time.sleep(1.0)
        assert watcher.node.count_subscribers(topics.COMPRESSED) == 0
        seen = asyncio.run(look(url, watcher))
        assert len(seen[FRAME]) >= 10 and all(payload[:2] == b"\xff\xd8" for _, payload in seen[FRAME])
        assert {round((b - a) * 25) for (a, _), (b, _) in pairwise(seen[FRAME])} <= {1, 2}
        assert len(seen[AUDIO]) >= 10 and {len(payload) for _, payload in seen[AUDIO]} == {1920}
        assert b"behaviour" in seen[STATE][-1][1]
        # One clock for both: a frame's time is that of some sound.
        offsets = {round((a - f) * 1e6) % 40_000 for (a, _), (f, _) in zip(seen[AUDIO], seen[FRAME])}
        assert offsets <= {0, 1, 39_999}
        watcher.until(lambda: watcher.node.count_subscribers(topics.COMPRESSED) == 0, "nobody looks any more")


async def look(url: str, watcher: Watcher) -> dict[int, list[tuple[float, bytes]]]:
    """What a page gets, as (pts, payload) by kind, until there is enough of it."""
    seen: dict[int, list[tuple[float, bytes]]] = {FRAME: [], AUDIO: [], STATE: []}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url + "ws", origin=url.rstrip("/")) as socket,
    ):
        deadline = time.monotonic() + 60
        while (len(seen[FRAME]) < 10 or len(seen[AUDIO]) < 10) and time.monotonic() < deadline:
            message = await socket.receive(timeout=60)
            if message.type is aiohttp.WSMsgType.BINARY:
                got = unpack(message.data)
                if got.kind in seen:
                    seen[got.kind].append((got.pts, got.payload))
    return seen
