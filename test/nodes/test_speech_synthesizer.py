# SPDX-License-Identifier: Apache-2.0
"""The node that speaks texts, with its real voice: alone, and behind `say`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_harness import SUCCEEDED
from say_harness import Caller, say_program

from flowact_msgs.action import Say
from flowact_msgs.srv import Synthesize
from flowact_ros.dialogue.speech import Speech
from flowact_ros.nodes import speech_synthesizer, topics
from flowact_ros.nodes.convert import audio_array, from_time
from flowact_ros.nodes.speech_synthesizer import MAX_TEXT, SpeechSynthesizer
from flowact_ros.nodes.yielding import LOWER

pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
pytestmark = pytest.mark.usefixtures("within")


@pytest.fixture(scope="module")
def caller(within: None) -> Iterator[Caller]:
    with say_program(lambda context: SpeechSynthesizer(context=context)) as caller:
        caller.synthesizer = caller.node.create_client(Synthesize, topics.SYNTHESIZE)
        caller.until(caller.synthesizer.service_is_ready)
        yield caller


def ask(caller: Caller, **fields: Any) -> Synthesize.Response:
    future = caller.synthesizer.call_async(Synthesize.Request(**fields))
    caller.until(future.done)
    return future.result()


def test_sound_with_the_times_of_its_words(caller: Caller) -> None:
    answer = ask(caller, text="Good morning, everybody.", voice="heart", locale="en-GB")
    assert (answer.error_code, answer.error_msg) == (0, "")
    pcm, rate = audio_array(answer.audio)
    assert rate == 24000 and answer.audio.last and 0.1 < np.abs(pcm).max() <= 1.0
    assert [word.text for word in answer.words] == ["Good", "morning", "everybody"]
    times = [(w.start.sec + w.start.nanosec / 1e9, w.end.sec + w.end.nanosec / 1e9) for w in answer.words]
    assert all(a < b for a, b in times) and times == sorted(times) and times[-1][1] <= len(pcm) / rate
    assert from_time(answer.audio.header.stamp) > 0


def test_it_loads_with_a_low_priority_and_speaks_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started again while a face is on the screen, it would take frames from that."""
    spoken: list[tuple[str, int]] = []

    class Voice:
        voices = ("heart",)

        def synthesize(self, text: str, **options: float) -> Speech:
            spoken.append((text, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
            return Speech(np.zeros(2400, np.float32), [], [])

    monkeypatch.setattr(speech_synthesizer, "load_synthesizer", lambda name: Voice())
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with say_program(lambda context: SpeechSynthesizer(context=context)) as caller:
        caller.synthesizer = caller.node.create_client(Synthesize, topics.SYNTHESIZE)
        caller.until(caller.synthesizer.service_is_ready)
        assert ask(caller, text="Hello.").error_code == 0
    assert spoken == [(speech_synthesizer.WARM_UP, min(19, own + LOWER)), ("Hello.", own)]


REFUSED = {
    "nothing": ({"text": ""}, Synthesize.Response.NOTHING_TO_SAY, "no letter or digit"),
    "marks": ({"text": "?! …"}, Synthesize.Response.NOTHING_TO_SAY, "no letter or digit"),
    "other script": ({"text": "日本語です"}, Synthesize.Response.NOTHING_TO_SAY, "pronounced"),
    "voice": ({"text": "a", "voice": "../x"}, Synthesize.Response.UNKNOWN_VOICE, "'../x'; available: heart"),
    "locale": ({"text": "a", "locale": "de-DE"}, Synthesize.Response.UNKNOWN_VOICE, "'de-DE'"),
    "length": ({"text": "a" * (MAX_TEXT + 1)}, Synthesize.Response.SYNTHESIZER_ERROR, "at most 2000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(caller: Caller, name: str) -> None:
    fields, code, says = REFUSED[name]
    answer = ask(caller, **fields)
    assert answer.error_code == code and says in answer.error_msg and "\n" not in answer.error_msg
    assert not answer.audio.data and not answer.words


@pytest.mark.parametrize(
    "text", ["$(rm -rf /tmp/x); `id`", "%s %n {0} \\x00", "<speak>hi</speak>", "hi\x07\x1b[2J"]
)
def test_hostile_texts_are_only_read_out(caller: Caller, text: str) -> None:
    assert ask(caller, text=text).error_code == 0


def test_say_speaks_through_it(caller: Caller) -> None:
    (handle,) = caller.send([Say.Goal(text="Good morning. How are you?", utterance_id="hello")])
    asked = handle.get_result_async()
    caller.until(lambda: caller.mouth.engine.speak(0.5, caller.mouth.say.frame_left) or asked.done())
    assert asked.result().status == SUCCEEDED
    assert asked.result().result.spoken_text == "Good morning. How are you?"
    assert np.abs(np.concatenate(caller.mouth.engine.heard["hello"])).max() > 0.1


def test_it_says_that_it_is_not_active(caller: Caller) -> None:
    assert caller.change("deactivate", node="speech_synthesizer")
    answer = ask(caller, text="hello")
    assert (answer.error_code, answer.error_msg) == (
        Synthesize.Response.NOT_ACTIVE,
        "the speech synthesizer is not active",
    )
    assert caller.change("activate", node="speech_synthesizer")
    assert ask(caller, text="hello").error_code == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"voice": "basso"}, "unknown hibari voice 'basso'"),
        ({"backend": "flite", "voice": "?"}, "unknown flite voice"),
    ],
)
def test_settings_that_cannot_be_are_told_at_configure(within: None, fields: dict, says: str) -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    overrides = [Parameter(name, value=value) for name, value in fields.items()]
    node = SpeechSynthesizer(context=context, parameter_overrides=overrides)
    node.trigger_configure()
    assert node.state == "unconfigured" and says in node.last_error
    node.stop()
    node.destroy_node()
    context.try_shutdown()
