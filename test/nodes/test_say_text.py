# SPDX-License-Identifier: Apache-2.0
"""`say` with a text: sentence by sentence through the service `synthesize`, ours and that of a robot's own voice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.task import Future
from ros_harness import ABORTED, CANCELED, SUCCEEDED, goal, loud
from say_harness import Caller, Voice, say_program

from flowact_msgs.action import Say
from flowact_msgs.srv import Synthesize
from flowact_ros.nodes import sentence_maker
from flowact_ros.nodes.convert import to_duration
from flowact_ros.nodes.say_server import MAX_TEXT

pytestmark = pytest.mark.usefixtures("within")


@pytest.fixture
def voice() -> list[Voice]:
    return []


@pytest.fixture
def caller(voice: list[Voice], monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    monkeypatch.setattr(sentence_maker, "SERVICE_WAIT_S", 0.3)
    with say_program(lambda context: voice.append(Voice(context)) or voice[0]) as caller:
        caller.until(lambda: caller.mouth.say._maker._client.service_is_ready())
        yield caller


def follow(caller: Caller, sent: Say.Goal, speed: float = 0.4) -> tuple[int, Any, list[Any]]:
    """(status, result, feedback) of a goal, with its sound leaving meanwhile."""
    feedback: list[Any] = []
    future = caller.client.send_goal_async(sent, lambda message: feedback.append(message.feedback))
    caller.until(future.done)
    asked = future.result().get_result_async()

    def done() -> bool:
        caller.mouth.engine.speak(speed, caller.mouth.say.frame_left)
        return asked.done()

    caller.until(done)
    for _ in range(30):
        caller.executor.spin_once(timeout_sec=0.01)  # feedback that came with it
    return asked.result().status, asked.result().result, feedback


def test_a_text_is_spoken_sentence_by_sentence(caller: Caller, voice: list[Voice]) -> None:
    text = "One two three.  Four\nfive, five! Six?"
    status, result, feedback = follow(caller, Say.Goal(text=text, utterance_id="t"))
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, Say.Result.NONE, "")
    assert result.spoken_text == "One two three. Four five, five! Six?"
    assert voice[0].asked == ["One two three.", "Four five, five!", "Six?"]
    engine = caller.mouth.engine
    assert engine.ended == ["t"]
    sound = np.concatenate(engine.heard["t"])
    assert len(sound) == round(24000 * (1.5 + 0.12 + 1.5 + 0.12 + 0.5))
    assert np.allclose(sound[6000::12000][:3], [0.01, 0.02, 0.03], atol=1e-3)  # resampled, in order
    told = [f.word for f in feedback]
    heard = [word for before, word in zip(["", *told], told) if word and word != before]
    assert heard == ["One", "two", "three", "Four", "five", "five", "Six"]
    frames = [f.frames for f in feedback]
    assert frames == sorted(frames) and {f.phase for f in feedback} <= {1, 2}


def test_a_long_text_starts_at_once_and_is_made_on_the_way(caller: Caller, voice: list[Voice]) -> None:
    long = " ".join(f"This is sentence number {i}." for i in range(60))  # 150 s
    (handle,) = caller.send([Say.Goal(text=long, utterance_id="long")])
    caller.until(lambda: caller.mouth.engine.queued_s > sentence_maker.PREFETCH_S)
    time.sleep(0.3)
    assert len(voice[0].asked) < 6
    (ready,) = caller.send([goal(loud(0.5), utterance_id="behind")])
    asked = [h.get_result_async() for h in (handle, ready)]
    caller.until(
        lambda: caller.mouth.engine.speak(2.0, caller.mouth.say.frame_left) or all(f.done() for f in asked)
    )
    assert caller.mouth.engine.ended == ["long", "behind"] and len(voice[0].asked) == 60
    assert asked[0].result().result.spoken_text == long


def test_a_voice_that_is_slow_says_all_of_it(caller: Caller, voice: list[Voice]) -> None:
    """Between two sentences more frames leave than any break has: the goal goes on all the same."""
    answer_now = threading.Event()

    def speak(request: Synthesize.Request, response: Synthesize.Response) -> None:
        if len(voice[0].asked) == 2:
            assert answer_now.wait(20)
        voice[0].speak(request, response)

    voice[0].answer = speak
    (handle,) = caller.send([Say.Goal(text="One two. Three four.", utterance_id="slow")])
    asked, mouth = handle.get_result_async(), caller.mouth
    caller.until(lambda: len(voice[0].asked) == 2 and mouth.engine.queued)
    mouth.engine.speak(10.0, mouth.say.frame_left)
    answer_now.set()
    caller.until(lambda: mouth.engine.queued)
    mouth.say.frame_left(SimpleNamespace(utterance_id=""))  # made before its sound came
    caller.until(lambda: mouth.engine.speak(0.2, mouth.say.frame_left) or asked.done())
    assert asked.result().result.spoken == to_duration(1.0 + 0.12 + 1.0)


def test_cancelled_while_it_is_spoken(caller: Caller, voice: list[Voice]) -> None:
    text = "One two three four. Five six seven eight. " * 6
    (handle,) = caller.send([Say.Goal(text=text)])
    caller.until(lambda: caller.mouth.engine.queued_s > 2.0)
    caller.mouth.engine.speak(3.2, caller.mouth.say.frame_left)  # a sentence, the pause and two words
    cancel = handle.cancel_goal_async()
    caller.until(cancel.done)
    caller.mouth.engine.speak(0.2, caller.mouth.say.frame_left)
    ((status, result),) = caller.results([handle])
    assert (status, result.error_code) == (CANCELED, Say.Result.INTERRUPTED)
    assert result.spoken_text == "One two three four. Five six"
    assert len(voice[0].asked) < 6


def test_cancelled_while_it_is_made(caller: Caller, voice: list[Voice]) -> None:
    voice[0].answer = lambda request, response: time.sleep(0.5) or voice[0].speak(request, response)
    (handle,) = caller.send([Say.Goal(text="Hello there.")])
    caller.until(lambda: voice[0].asked)
    cancel = handle.cancel_goal_async()
    caller.until(cancel.done)
    ((status, result),) = caller.results([handle])
    assert (status, result.error_code, result.spoken_text) == (CANCELED, Say.Result.INTERRUPTED, "")
    time.sleep(0.5)
    assert follow(caller, Say.Goal(text="Again."))[0] == SUCCEEDED
    assert not caller.mouth.engine.ended[:-1]  # nothing of the first one was heard


def fails(code: int, message: str) -> Callable[[Any, Any], None]:
    def answer(request: Any, response: Any) -> None:
        response.error_code, response.error_msg = code, message

    return answer


BROKEN = [
    (fails(Synthesize.Response.SYNTHESIZER_ERROR, "no licence"), Say.Result.SYNTHESIZER_ERROR, "no licence"),
    (fails(Synthesize.Response.UNKNOWN_VOICE, "no voice"), Say.Result.SYNTHESIZER_ERROR, "no voice"),
    (fails(Synthesize.Response.NOT_ACTIVE, ""), Say.Result.NO_SYNTHESIZER, "not active"),
    (fails(Synthesize.Response.NOTHING_TO_SAY, "?"), Say.Result.NOTHING_TO_SAY, "'Hello.' can be pronounced"),
    (fails(99, ""), Say.Result.SYNTHESIZER_ERROR, "error 99"),
    (lambda request, response: None, Say.Result.SYNTHESIZER_ERROR, "sample_rate is 0 Hz"),
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_synthesizer_that_cannot(caller: Caller, voice: list[Voice], number: int) -> None:
    voice[0].answer, code, says = BROKEN[number]
    status, result, _ = follow(caller, Say.Goal(text="Hello."))
    assert (status, result.error_code, result.spoken_text) == (ABORTED, code, "")
    assert says in result.error_msg and "\n" not in result.error_msg


def test_what_was_made_is_spoken_before_the_error(caller: Caller, voice: list[Voice]) -> None:
    def answer(request: Any, response: Any) -> None:
        failing = fails(Synthesize.Response.SYNTHESIZER_ERROR, "broken")
        (voice[0].speak if len(voice[0].asked) < 2 else failing)(request, response)

    voice[0].answer = answer
    status, result, _ = follow(caller, Say.Goal(text="One two. Three four. Five.", utterance_id="t"))
    assert (status, result.error_code, result.error_msg) == (ABORTED, Say.Result.SYNTHESIZER_ERROR, "broken")
    assert result.spoken_text == "One two." and caller.mouth.engine.ended == ["t"]
    assert follow(caller, goal(loud(0.2)))[0] == SUCCEEDED  # the next one is not kept from its turn


def test_sentences_that_cannot_be_pronounced_are_passed_over(caller: Caller, voice: list[Voice]) -> None:
    def answer(request: Any, response: Any) -> None:
        silent = fails(Synthesize.Response.NOTHING_TO_SAY, "?")
        (silent if "…" in request.text or "!" in request.text else voice[0].speak)(request, response)

    voice[0].answer = answer
    status, result, _ = follow(caller, Say.Goal(text="… One two. !!!", utterance_id="t"))
    assert (status, result.spoken_text) == (SUCCEEDED, "One two.")
    assert caller.mouth.engine.ended == ["t"]


def test_words_that_cannot_be_are_left_out(caller: Caller, voice: list[Voice]) -> None:
    def answer(request: Any, response: Any) -> None:
        voice[0].speak(request, response)
        response.words[0].end, response.words[1].start = response.words[0].start, to_duration(77.0)

    voice[0].answer = answer
    status, _, feedback = follow(caller, Say.Goal(text="One two three."))
    assert status == SUCCEEDED and {f.word for f in feedback} <= {"", "three"}


def test_an_answer_that_does_not_come(
    caller: Caller, voice: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentence_maker, "ANSWER_WAIT_S", 0.3)
    voice[0].answer = lambda request, response: time.sleep(1.0)
    # The stand-in blocks the executor that the mouth shares with it: time passes for both.
    status, result, _ = follow(caller, Say.Goal(text="Hello."))
    assert (status, result.error_code) == (ABORTED, Say.Result.SYNTHESIZER_ERROR)


def test_a_request_that_is_lost_is_made_again(
    caller: Caller, voice: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the synthesizer is killed in mid-sentence and started again: the text is said, all of it and once."""
    monkeypatch.setattr(sentence_maker, "ASK_AGAIN_S", 0.3)
    client = caller.mouth.say._maker._client
    ask, lost = client.call_async, []

    def losing(request: Synthesize.Request) -> Future:
        if request.text == "Three four." and not lost:
            lost.append(request.text)
            return Future()
        return ask(request)

    monkeypatch.setattr(client, "call_async", losing)
    status, result, _ = follow(caller, Say.Goal(text="One two. Three four. Five."))
    assert (status, result.spoken_text) == (SUCCEEDED, "One two. Three four. Five.")
    assert lost == ["Three four."] and voice[0].asked == ["One two.", "Three four.", "Five."]


def test_without_a_synthesizer() -> None:
    with say_program() as caller:
        ((status, result),) = caller.results(caller.send([Say.Goal(text="Hello.")]))
        assert (status, result.error_code) == (ABORTED, Say.Result.NO_SYNTHESIZER)
        assert (
            "/synthesize" in result.error_msg
            and "ros2 run flowact_ros speech_synthesizer" in result.error_msg
        )
        ((_, result),) = caller.results(caller.send([Say.Goal(text="x" * (MAX_TEXT + 1))]))
        assert result.error_code == Say.Result.SYNTHESIZER_ERROR and str(MAX_TEXT) in result.error_msg
        handles = caller.send([goal(loud(0.2), utterance_id="ready")])
        caller.until(lambda: caller.mouth.engine.queued)
        caller.mouth.engine.speak(1.0, caller.mouth.say.frame_left)
        assert caller.results(handles)[0][0] == SUCCEEDED
