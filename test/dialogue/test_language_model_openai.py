# SPDX-License-Identifier: Apache-2.0
"""The client of OpenAI-compatible servers against a real one on the loopback interface, which behaves in every way."""

from __future__ import annotations

import base64
import io
import threading
import wave
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, closes, fails, floods, hangs, sends, serving, streams

from flowact_ros.dialogue import language_model_openai
from flowact_ros.dialogue.language_model import (
    SYSTEM,
    USER,
    Cancellation,
    Cancelled,
    CutShort,
    LanguageModelError,
    Message,
    ModelSettings,
    make_language_model,
)

ASKED = (Message(SYSTEM, "You are Nova."), Message(USER, "Hello?"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between tries."""
    monkeypatch.setattr(language_model_openai, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(language_model_openai, "LONGEST_WAIT_S", 0.01)


def model_of(server: ChatServer, **settings: Any) -> Any:
    return make_language_model("openai", ModelSettings(model="m", base_url=server.url, **settings))


def reply(server: ChatServer, messages: tuple[Message, ...] = ASKED, **settings: Any) -> str:
    return "".join(model_of(server, **settings).stream(messages, Cancellation()))


def test_pieces_come_as_they_are_streamed() -> None:
    with serving(streams("Hel", "lo ", "wörld.")) as server:
        pieces = list(model_of(server).stream(ASKED, Cancellation()))
    assert pieces == ["Hel", "lo ", "wörld."]
    (asked,) = server.asked
    assert asked["messages"] == [
        {"role": "system", "content": "You are Nova."},
        {"role": "user", "content": "Hello?"},
    ]
    assert asked["stream"] is True and asked["response_format"]["type"] == "json_schema"


def test_the_first_piece_is_there_before_the_last_is_written() -> None:
    with serving(hangs("First.")) as server:
        cancellation = Cancellation()
        pieces = model_of(server).stream(ASKED, cancellation)
        assert next(pieces) == "First."
        pieces.close()


def test_an_answer_that_was_cut_says_so() -> None:
    ends = b'data: {"choices": [{"delta": {"content": "One. Tw"}, "finish_reason": "length"}]}\n\n'
    with serving(sends(ends)) as server:
        pieces = model_of(server).stream(ASKED, Cancellation())
        assert next(pieces) == "One. Tw"
        with pytest.raises(CutShort):
            next(pieces)


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_knows_no_schema_is_asked_without_once_and_for_all(status: int) -> None:
    refusal = fails(status, "what is response_format")
    with serving(refusal, streams("Hi."), streams("Hi again.")) as server:
        model = model_of(server)
        assert "".join(model.stream(ASKED, Cancellation())) == "Hi."
        assert "".join(model.stream(ASKED, Cancellation())) == "Hi again."
    assert ["response_format" in asked for asked in server.asked] == [True, False, False]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_fails_for_now_is_tried_again(status: int) -> None:
    with serving(
        fails(status, Retry_After="0"), fails(status, Retry_After="soon"), streams("Fine.")
    ) as server:
        assert reply(server, retries=2) == "Fine."
    assert len(server.asked) == 3


def test_tries_are_counted() -> None:
    with (
        serving(fails(500, "out of memory")) as server,
        pytest.raises(LanguageModelError, match="out of memory"),
    ):
        reply(server, retries=1)
    assert len(server.asked) == 2


def test_a_connection_that_closes_without_an_answer_is_tried_again() -> None:
    with serving(closes, streams("Fine.")) as server:
        assert reply(server) == "Fine."


def test_what_was_said_is_not_said_twice() -> None:
    """The connection breaks in the middle of the answer: a second try would begin anew."""

    def breaks(handler: Any) -> None:
        handler.begin(Content_Length="100000")
        handler.piece("One. ")
        handler.connection.close()

    with serving(breaks, streams("One. Two.")) as server:
        pieces: list[str] = []
        with pytest.raises(LanguageModelError):
            for piece in model_of(server).stream(ASKED, Cancellation()):
                pieces.append(piece)
    assert pieces == ["One. "] and len(server.asked) == 1


def test_refusals_are_told_in_one_short_line() -> None:
    with serving(fails(401, "bad key\n" + "x" * 5000)) as server:
        with pytest.raises(LanguageModelError, match="HTTP 401: bad key x") as caught:
            reply(server)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        sends(b"data: not json\n\n"),
        sends(b'data: {"choices": 5}\n\n'),
        sends(b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'),
        sends(b'data: ["a"]\n\n'),
        sends(b"data: " + b"[" * 100_000 + b"\n\n"),
        sends(b'data: {"error": {"message": "the model broke"}}\n\n'),
        sends(b"<html>hello</html>", "text/html"),
        sends(b"\xff\xfe\x00", "application/json"),
        sends(b"data: " + b"x" * (2 << 20)),
        sends(b"x" * (2 << 20), "application/json"),
        fails(404, "no such model"),
    ],
)
def test_nonsense_is_an_error_of_one_line(answer: Any) -> None:
    with serving(answer) as server, pytest.raises(LanguageModelError) as caught:
        reply(server)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (sends(b": comment\n\nevent: x\ndata: [DONE]\n\n"), ""),
        (sends(b'data: {"choices": [], "usage": {}}\n\ndata: {"choices": [{"delta": {}}]}\r\n\r\n'), ""),
        (sends(b'data: {"choices": [{"delta": {"content": "No end"}}]}'), "No end"),
        (sends(b'{"choices": [{"message": {"content": "Whole."}}]}', "application/json"), "Whole."),
    ],
)
def test_what_servers_do_differently(answer: Any, text: str) -> None:
    with serving(answer) as server:
        assert reply(server) == text


def test_a_long_answer_is_read_as_far_as_it_is_wanted() -> None:
    with serving(floods(50_000_000)) as server:
        read = 0
        for piece in model_of(server).stream(ASKED, Cancellation()):
            read += len(piece)
            if read > 100_000:
                break
    assert server.left.wait(30)  # the server notices that nobody reads any more


def test_a_server_that_hangs_is_left_after_the_read_timeout() -> None:
    with serving(hangs()) as server, pytest.raises(LanguageModelError):
        reply(server, read_timeout_s=0.1, retries=0)


def test_a_server_that_hangs_is_left_at_the_deadline() -> None:
    with serving(hangs("One. ")) as server, pytest.raises(LanguageModelError, match="deadline"):
        for _ in model_of(server).stream(ASKED, Cancellation(0.3)):
            pass


def test_whoever_cancels_does_not_wait_for_the_server() -> None:
    with serving(hangs("One. ")) as server:
        cancellation = Cancellation()
        pieces = model_of(server, read_timeout_s=60).stream(ASKED, cancellation)
        assert next(pieces) == "One. "
        canceller = threading.Thread(target=lambda: (server.hanging.wait(30), cancellation.cancel()))
        canceller.start()
        with pytest.raises(Cancelled):
            next(pieces)
        canceller.join()
        assert not server.release.is_set()  # it hung to the end
    with pytest.raises(Cancelled):
        next(model_of(server).stream(ASKED, cancellation))


def test_nobody_there() -> None:
    with serving(streams("x")) as server:
        pass
    with pytest.raises(LanguageModelError, match="127.0.0.1"):
        reply(server)


def test_the_key_comes_from_the_environment_and_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOT_KEY", "sk-secret")
    with serving(fails(403)) as server, pytest.raises(LanguageModelError) as caught:
        reply(server, key_variable="ROBOT_KEY")
    assert server.headers[0]["Authorization"] == "Bearer sk-secret" and "secret" not in str(caught.value)
    with serving(streams("Hi.")) as server:
        assert reply(server, key_variable="NO_SUCH_KEY") == "Hi."
    assert "Authorization" not in server.headers[0]


def test_a_redirection_is_not_followed() -> None:
    with serving(streams("Stolen.")) as thief:

        def elsewhere(handler: Any) -> None:
            handler.begin(307, "text/plain", Location=thief.url + "/chat/completions")

        with serving(elsewhere) as server, pytest.raises(LanguageModelError, match="307"):
            reply(server)
    assert not thief.asked


def test_pictures_and_sound_go_with_the_question() -> None:
    sound = np.linspace(-2, 2, 160).astype(np.float32)
    question = Message(USER, "What is this?", picture=b"\x89PNG...", sound=sound, sound_rate=16_000)
    with serving(streams("A clock.")) as server:
        assert reply(server, (question,)) == "A clock."
    text, picture, heard = server.asked[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert picture["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"\x89PNG...").decode()
    with wave.open(io.BytesIO(base64.b64decode(heard["input_audio"]["data"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 160)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"model": "m", "base_url": ""}, "no address"),
        ({"model": "m", "base_url": "file:///etc/passwd"}, "no address"),
        ({"model": "m", "base_url": "http://me:pass@host/v1"}, "no password"),
        ({"model": "", "base_url": "http://host/v1"}, "model is empty"),
        ({"retries": 11}, "retries must be 0 … 10"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, complaint: str) -> None:
    with pytest.raises(LanguageModelError, match=complaint):
        make_language_model("openai", ModelSettings(**settings))
