# SPDX-License-Identifier: Apache-2.0
"""Several nodes at work: file to video, voice to instruction, frames to the page, and starts that fail."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from ros_harness import (
    ABORTED,
    LONG_S,
    Watcher,
    generator_spec,
    goal,
    loud,
    speech_messages,
    spoken,
    supervise,
    whole,
)

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, AvatarState, Instruction, Transcript
from flowact_ros.dialogue.phrases import MANNERS
from flowact_ros.kiosk.protocol import AUDIO, FRAME, STATE, unpack
from flowact_ros.launcher.supervisor import NodeSpec, SupervisorError
from flowact_ros.media.mp4 import read_mp4
from flowact_ros.media.wav import write_wav
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import audio_array

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]


def buzz(seconds: float, level: float) -> np.ndarray:
    t = np.arange(int(seconds * 16000)) / 16000
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    return (level * np.sign(np.sin(2 * np.pi * 180 * t + 0.01)) + noise).astype(np.float32)


@pytest.mark.slow
def test_the_planner_hears_and_tells_newcomers(python_path: str) -> None:
    """A voice on `mic`: listening, urgently; then thinking; who comes later is told what stands."""
    planner = NodeSpec(
        "instruction_planner", "flowact_ros.nodes.instruction_planner", namespace="robot3/avatar"
    )
    with supervise([planner], python_path, []) as supervisor:
        supervisor.wait_active(180)
        watcher = Watcher("/robot3/avatar", (topics.INSTRUCTION, topics.DIAGNOSTICS))
        late = None
        try:
            told = watcher.seen[topics.INSTRUCTION]
            watcher.until(lambda: told, "what stands")
            assert (told[-1].behaviour, told[-1].priority) == (Instruction.IDLE, 0)
            publisher = watcher.publisher(AudioChunk, topics.MIC)
            for message in speech_messages(np.concatenate([buzz(0.6, 0), buzz(1.0, 0.2)]), "", 16000):
                publisher.publish(message)
                time.sleep(0.02)  # as a microphone

            def shown(behaviour: int) -> Instruction | None:
                """The first one with it: each stands for some seconds only."""
                return next((m for m in list(told) if m.behaviour == behaviour), None)

            listening = watcher.until(lambda: shown(Instruction.LISTENING), "listening")
            assert listening.priority == Instruction.PRIORITY_URGENT and listening.text
            late = Watcher("/robot3/avatar", (topics.INSTRUCTION,))
            late.until(lambda: late.seen[topics.INSTRUCTION], "what stands, for the newcomer")
            assert late.seen[topics.INSTRUCTION][0].priority == 0
            # The microphone falls silent without a word: nobody is waited for.
            watcher.until(lambda: shown(Instruction.THINKING), "thinking")
            watcher.until(lambda: told[-1].behaviour == Instruction.IDLE, "idle")
            # What is being said: a greeting waves.
            text = Transcript(utterance_id="hello", text="Hello!", final=True)
            watcher.publisher(Transcript, topics.SPEECH_TEXT).publish(text)
            speaking = watcher.until(lambda: shown(Instruction.SPEAKING), "speaking")
            assert speaking.text in MANNERS["greeting"] and speaking.utterance_id == "hello"
        finally:
            watcher.close()
            if late is not None:
                late.close()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"threads": 65}, "65 is out of range, 0 … 64"),  # known before anything is loaded: the process ends
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
            supervisor.wait_active(180)
        assert supervisor.restarts(spec.name) == 0
    log = "\n".join(lines)
    assert says in log and "Traceback" not in log


@pytest.mark.slow
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
                watcher.until(lambda: whole(watcher, "in", len(pcm)), "the sentence")
            assert supervisor.finish("recorder", 60) == 0
            assert supervisor.fact("recorder", "missing_pictures") == 0
        np.testing.assert_array_equal(spoken(watcher.seen[topics.AUDIO], "in"), pcm)
        assert Instruction.SPEAKING in {m.behaviour for m in watcher.seen[topics.INSTRUCTION]}
    finally:
        watcher.close()
    clip = read_mp4(out)
    assert clip.frames.shape[1:] == (128, 128, 3)
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
        supervisor.wait_active(180)
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
    """What a page gets, as (pts, payload) by kind, until there is enough of it.

    Ten pictures that follow each other with at most one left out between two: a page that gets no processor time for
    a while loses some, one that is sent too few never gets there.
    """
    seen: dict[int, list[tuple[float, bytes]]] = {FRAME: [], AUDIO: [], STATE: []}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url + "ws", origin=url.rstrip("/")) as socket,
    ):
        deadline = time.monotonic() + 60
        while (
            len(seen[FRAME]) < 10 or len(seen[AUDIO]) < 10 or not seen[STATE] or b"behaviour" not in seen[STATE][-1][1]
        ) and time.monotonic() < deadline:
            message = await socket.receive(timeout=60)
            if message.type is aiohttp.WSMsgType.BINARY:
                got = unpack(message.data)
                if got.kind == FRAME and seen[FRAME] and round((got.pts - seen[FRAME][-1][0]) * 25) > 2:
                    seen[FRAME].clear()
                if got.kind in seen:
                    seen[got.kind].append((got.pts, got.payload))
    return seen


def has_found_the_avatar(watcher: Watcher) -> bool:
    values = [
        (entry.key, entry.value)
        for array in watcher.seen[topics.DIAGNOSTICS]
        for status in array.status
        if "instruction_planner" in status.name
        for entry in status.values
    ]
    return ("avatar", "found") in values


def test_a_voice_breaks_into_speech(watcher: Watcher, python_path: str) -> None:
    """Planner with `barge_in` and generator together: the user speaks, the avatar stops and listens."""
    parameters = {"barge_in": True}
    planner = NodeSpec("instruction_planner", "flowact_ros.nodes.instruction_planner", parameters=parameters)
    with supervise([planner], python_path, []) as supervisor:
        supervisor.wait_active(180)
        watcher.until(lambda: has_found_the_avatar(watcher), "a planner that knows its avatar")
        publisher = watcher.publisher(AudioChunk, topics.MIC)
        said = watcher.say(goal(loud(LONG_S, seed=50), utterance_id="a long story"))
        watcher.until(lambda: watcher.seen[topics.STATE][-1].robot_speaking, "speech")
        for message in speech_messages(np.concatenate([buzz(0.6, 0), buzz(1.0, 0.2)]), "", 16000):
            publisher.publish(message)
            time.sleep(0.02)  # as a microphone
        status, result = said.result()
        assert (status, result.error_code) == (ABORTED, Say.Result.INTERRUPTED)
        watcher.until(lambda: not watcher.seen[topics.STATE][-1].robot_speaking, "rest")
        assert len(spoken(watcher.seen[topics.AUDIO], "a long story")) < 24000 * LONG_S * 3 / 4
        watcher.until(
            lambda: AvatarState.LISTENING in [m.behaviour for m in watcher.seen[topics.STATE]], "listening"
        )
