# SPDX-License-Identifier: Apache-2.0
"""The queue before a recogniser: what may be dropped, what never is, and what needs no second recognition."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowact_ros.dialogue import recognition as recognition_module
from flowact_ros.dialogue.hearing import Request
from flowact_ros.dialogue.recognition import Answer, Backlog, Recognition
from flowact_ros.dialogue.recognizer import Hypothesis, RecognizerError


def request(name: str, end_s: float, *, final: bool = False, whole: bool = False) -> Request:
    return Request(name, np.zeros(10, np.float32), 1.0, end_s, final=final, whole=final or whole)


class Counting:
    """Says how much it was given, when it is let."""

    def __init__(self) -> None:
        self.calls: list[bool] = []
        self.go, self.entered = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        self.entered.set()
        assert self.go.wait(10.0)
        self.calls.append(final)
        if self.error is not None:
            raise self.error
        return Hypothesis(f"call {len(self.calls)}", 0.9, "en", 0.0, len(pcm) / 16_000, final)


@pytest.fixture
def counting():
    recognizer, answers = Counting(), []
    recognition = Recognition(recognizer, answers.append, capacity=3)
    yield recognizer, recognition, answers
    recognizer.go.set()
    assert recognition.close(10.0)


def names(answers: list[Answer]) -> list[tuple[str, bool]]:
    return [(answer.request.utterance_id, answer.request.final) for answer in answers]


def test_a_newer_partial_takes_the_place_of_an_older_one() -> None:
    backlog = Backlog(4)
    for end in (1.0, 2.0, 3.0):
        backlog.put(request("a", end))
    assert len(backlog) == 1 and backlog.dropped == 2
    assert backlog.take().end_s == 3.0 and backlog.take() is None


def test_a_final_needs_no_partial_any_more() -> None:
    backlog = Backlog(4)
    backlog.put(request("a", 1.0))
    backlog.put(request("a", 2.0, whole=True))
    backlog.put(request("a", 2.0, final=True))
    assert len(backlog) == 1 and backlog.take().final


def test_a_full_backlog_drops_the_oldest_partial_and_never_a_final() -> None:
    backlog = Backlog(3)
    for name in "abc":
        backlog.put(request(name, 1.0))
    backlog.put(request("d", 1.0, final=True))
    assert [backlog.take().utterance_id for _ in range(3)] == ["b", "c", "d"]
    for name in "abcde":
        backlog.put(request(name, 2.0, final=True))
    backlog.put(request("f", 2.0))
    assert [backlog.take().utterance_id for _ in range(5)] == list("abcde") and backlog.take() is None
    with pytest.raises(ValueError, match="capacity"):
        Backlog(0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans())), st.integers(1, 4))
def test_finals_come_out_in_order_whatever_comes(puts: list[tuple[str, bool, bool]], capacity: int) -> None:
    backlog, finals, taken = Backlog(capacity), [], []
    for number, (name, final, takes) in enumerate(puts):
        one = request(name, float(number), final=final)
        finals += [one] if final else []
        backlog.put(one)
        partials = [r for r in backlog._waiting if not r.final]
        assert len(partials) <= capacity
        assert len({r.utterance_id for r in partials}) == len(partials)
        if takes:
            taken.append(backlog.take())
    while (one := backlog.take()) is not None:
        taken.append(one)
    assert [r for r in taken if r.final] == finals
    assert len(taken) + backlog.dropped == len(puts)


def test_the_caller_is_not_kept_waiting(counting) -> None:
    recognizer, recognition, answers = counting
    recognition.put(request("a", 2.0))
    assert recognizer.entered.wait(10.0)
    recognition.put(request("a", 3.0))
    recognition.put(request("a", 4.0, final=True))
    assert answers == [] and recognition.waiting == 1 and recognition.waiting_s == 3.0
    recognizer.go.set()
    assert recognition.wait_idle(10.0)
    assert names(answers) == [("a", False), ("a", True)] and recognition.dropped == 1
    assert recognizer.calls == [False, True]
    final = answers[1].hypothesis
    assert (final.start_s, final.end_s, final.final) == (1.0, 4.0, True)


def test_a_slow_recogniser_rests_from_partial_texts(counting, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, recognition, answers = counting
    now = [100.0]
    monkeypatch.setattr(recognition_module, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    recognition.put(request("a", 2.0))
    assert recognizer.entered.wait(10.0)
    now[0] = 101.0  # it takes a second: then it rests for two
    recognizer.go.set()
    assert recognition.wait_idle(10.0)
    now[0] = 102.9
    recognition.put(request("a", 3.0))
    recognition.put(request("a", 4.0, whole=True))
    assert recognition.wait_idle(10.0)
    now[0] = 104.0
    recognition.put(request("a", 5.0))
    recognition.put(request("a", 6.0, final=True))
    assert recognition.wait_idle(10.0)
    assert [a.request.end_s for a in answers] in ([2.0, 4.0, 5.0, 6.0], [2.0, 4.0, 6.0])
    assert recognition.dropped == 5 - len(answers)


def test_what_was_recognised_ahead_is_the_final_text(counting) -> None:
    recognizer, recognition, answers = counting
    recognizer.go.set()
    for one in (request("a", 2.0, whole=True), request("a", 2.0, final=True), request("b", 2.0, final=True)):
        recognition.put(one)
        assert recognition.wait_idle(10.0)
    assert [a.hypothesis.text for a in answers] == ["call 1", "call 1", "call 2"]
    assert [a.hypothesis.final for a in answers] == [False, True, True]
    assert recognizer.calls == [True, True]  # both with the care that a final text deserves


def test_who_goes_on_speaking_is_recognised_anew(counting) -> None:
    recognizer, recognition, answers = counting
    recognizer.go.set()
    for one in (request("a", 2.0, whole=True), request("a", 5.0, final=True)):
        recognition.put(one)
        assert recognition.wait_idle(10.0)
    assert [a.hypothesis.text for a in answers] == ["call 1", "call 2"]


def test_a_failure_is_an_answer_and_not_the_end(counting) -> None:
    recognizer, recognition, answers = counting
    recognizer.go.set()
    recognizer.error = RecognizerError("out of\nmemory")
    recognition.put(request("a", 2.0, final=True))
    assert recognition.wait_idle(10.0)
    recognizer.error = None
    recognition.put(request("b", 2.0, final=True))
    assert recognition.wait_idle(10.0)
    assert answers[0].error == "out of memory" and answers[0].hypothesis.text == ""
    assert answers[0].hypothesis.final and answers[0].hypothesis.confidence == 0.0
    assert answers[1].error == "" and answers[1].hypothesis.text == "call 2"


def test_a_recogniser_that_falls_behind_answers_the_newest(counting) -> None:
    """Every utterance still gets one answer, in order, and what waits is bounded however long the room speaks."""
    recognizer, recognition, answers = counting
    recognition.put(request("a", 21.0, final=True))
    assert recognizer.entered.wait(10.0)
    for name in "bcdef":
        recognition.put(request(name, 21.0, final=True))  # 20 s each
    recognizer.go.set()
    assert recognition.wait_idle(10.0)
    assert names(answers) == [(name, True) for name in "abcdef"]
    assert [answer.hypothesis.text for answer in answers] == ["call 1", "", "", "", "call 2", "call 3"]
    assert "80 s of speech wait behind it" in answers[1].error and not answers[4].error


def test_closing_leaves_out_what_waits(counting) -> None:
    recognizer, recognition, answers = counting
    recognition.put(request("a", 2.0, final=True))
    assert recognizer.entered.wait(10.0)
    recognition.put(request("b", 2.0, final=True))
    assert not recognition.close(0.01)
    recognizer.go.set()
    assert recognition.close(10.0)
    assert names(answers) == [("a", True)]
