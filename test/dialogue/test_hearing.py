# SPDX-License-Identifier: Apache-2.0
"""Utterances: every word of them, one final request each, and a pause recognised before it is the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.dialogue.hearing import Hearing, HearingConfig, HearingError, Request
from flowact_ros.dialogue.vad import VoiceEvent

RATE = 1000  # one sample a millisecond: times are easily read
PLAIN = {"preroll_s": 0.4, "tail_s": 0.2, "partial_interval_s": 0.0, "pause_s": 0.0}


def ramp(first: int, last: int) -> np.ndarray:
    """Samples that say where they are [ms]."""
    return np.arange(first, last, dtype=np.float32)


class Listener:
    """Pushes 10 ms at a time, with a detector that is right: voices [ms], and the hangover it waits for."""

    def __init__(
        self, voices: list[tuple[int, int]], hangover: int = 600, onset: int = 100, **config: float
    ) -> None:
        self.hearing = Hearing(RATE, HearingConfig(**{**PLAIN, **config}), "t")
        self._voices, self._hangover, self._onset = voices, hangover, onset
        self._at = 0
        self.asked_at: list[int] = []

    def push(self, until: int) -> list[Request]:
        found = []
        while self._at < until:
            self._at += 10
            events, quiet = [], None
            for start, end in self._voices:
                if self._at == start + self._onset:
                    events.append(VoiceEvent(True, start / RATE))
                if self._at == end + self._hangover:
                    events.append(VoiceEvent(False, end / RATE))
                elif end < self._at < end + self._hangover:
                    quiet = end / RATE
            new = self.hearing.push(ramp(self._at - 10, self._at), events, quiet)
            self.asked_at += [self._at] * len(new)
            found += new
        return found


def test_an_utterance_with_what_is_around_it() -> None:
    listener = Listener([(1000, 3000)])
    (request,) = listener.push(5000)
    assert (request.utterance_id, request.final, request.whole) == ("t-1", True, True)
    assert (request.start_s, request.end_s) == (1.0, 3.0)
    np.testing.assert_array_equal(request.pcm, ramp(600, 3200))
    assert listener.asked_at == [3600] and not listener.hearing.speaking


def test_a_voice_at_the_very_beginning() -> None:
    (request,) = Listener([(0, 1000)]).push(2000)
    np.testing.assert_array_equal(request.pcm, ramp(0, 1200))


def test_ids_count_and_nothing_is_heard_twice() -> None:
    requests = Listener([(500, 1000), (1250, 2000)], hangover=200).push(3000)
    assert [request.utterance_id for request in requests] == ["t-1", "t-2"]
    # The preroll of the second would reach back to 850: what belongs to the first stays with it.
    assert requests[0].pcm[-1] == 1199 and requests[1].pcm[0] == 1200


def test_partials_while_somebody_speaks() -> None:
    listener = Listener([(1000, 4400)], partial_interval_s=1.0)
    requests = listener.push(6000)
    assert [(r.final, r.whole) for r in requests] == [(False, False)] * 3 + [(True, True)]
    assert listener.asked_at == [2000, 3000, 4000, 5000]
    assert [r.end_s for r in requests] == [2.0, 3.0, 4.0, 4.4]
    for request in requests[:3]:
        np.testing.assert_array_equal(request.pcm, ramp(600, round(request.end_s * RATE)))


def test_a_pause_is_recognised_ahead_once() -> None:
    listener = Listener([(1000, 2000)], pause_s=0.2)
    ahead, final = listener.push(4000)
    assert listener.asked_at == [2200, 2600]
    assert (ahead.final, ahead.whole, ahead.end_s) == (False, True, final.end_s)
    np.testing.assert_array_equal(ahead.pcm, final.pcm)


def test_a_pause_inside_a_sentence_is_recognised_and_the_sentence_goes_on() -> None:
    hearing = Hearing(RATE, HearingConfig(**{**PLAIN, "pause_s": 0.2}))
    assert hearing.push(ramp(0, 1000), [VoiceEvent(True, 0.5)], None) == []
    (first,) = hearing.push(ramp(1000, 1300), [], 1.0)
    assert hearing.push(ramp(1300, 1500), [], 1.0) == []
    assert hearing.push(ramp(1500, 2000), [], None) == []
    (second,) = hearing.push(ramp(2000, 2300), [], 2.0)
    (final,) = hearing.push(ramp(2300, 2600), [VoiceEvent(False, 2.0)], None)
    assert [r.end_s for r in (first, second, final)] == [1.0, 2.0, 2.0]
    assert {r.utterance_id for r in (first, second, final)} == {"heard-1"}
    np.testing.assert_array_equal(second.pcm, final.pcm)


def test_too_long_is_cut_where_it_is_quietest() -> None:
    hearing = Hearing(RATE, HearingConfig(**{**PLAIN, "longest_s": 5.0}))
    sound = np.full(8000, 0.5, np.float32)
    sound[3900:4100] = 0.0
    requests = []
    for start in range(0, 8000, 100):
        events = [VoiceEvent(True, 0.0)] if start == 0 else []
        requests += hearing.push(sound[start : start + 100], events)
    (cut,) = requests
    assert (cut.final, cut.utterance_id) == (True, "heard-1") and 3.9 <= cut.end_s <= 4.1
    (rest,) = hearing.finish()
    assert (rest.final, rest.utterance_id, rest.start_s) == (True, "heard-2", cut.end_s)
    assert len(cut.pcm) + len(rest.pcm) == 8000


def test_a_click_has_an_empty_text_but_has_one() -> None:
    (request,) = Listener([(1000, 1100)]).push(3000)
    assert request.final and len(request.pcm) == 0


def test_finish_ends_what_goes_on_and_begins_anew() -> None:
    listener = Listener([(1000, 9000)])
    assert listener.push(2000) == []
    (request,) = listener.hearing.finish()
    assert request.final and (request.start_s, request.end_s) == (1.0, 2.0)
    assert listener.hearing.finish() == []
    hearing = listener.hearing
    (again,) = hearing.push(ramp(0, 2000), [VoiceEvent(True, 0.5), VoiceEvent(False, 1.0)])
    assert again.utterance_id == "t-2"
    np.testing.assert_array_equal(again.pcm, ramp(100, 1200))


def test_an_old_origin_stays_with_its_request() -> None:
    hearing = Hearing(RATE)
    hearing.origin_ns = 5
    hearing.push(ramp(0, 1000), [VoiceEvent(True, 0.1)])
    (request,) = hearing.push(ramp(1000, 2000), [VoiceEvent(False, 0.9)])
    hearing.origin_ns = 7
    assert request.origin_ns == 5


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(30, 400), st.integers(2, 900)), min_size=1, max_size=5),
    partial=st.sampled_from([0.0, 0.5, 2.0]),
    pause=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_each_utterance_has_one_final_request_and_all_its_sound(spans, partial, pause) -> None:
    voices, at = [], 0
    for quiet, length in spans:
        start = at + 10 * quiet
        at = start + 10 * length
        voices.append((start, at))
        at += 200
    listener = Listener(
        voices,
        hangover=200,
        onset=10,
        partial_interval_s=partial,
        pause_s=pause,
        longest_s=5.0,
        shortest_s=0.0,
    )
    requests = listener.push(at + 1000)
    finals = [r for r in requests if r.final]
    assert len({r.utterance_id for r in finals}) == len(finals)
    assert requests[-1].final and not listener.hearing.speaking
    heard = np.concatenate([r.pcm for r in finals])
    assert np.all(np.diff(heard) > 0)
    for start, end in voices:
        assert set(range(start, end)) <= set(heard.astype(int))
    for request in requests:
        assert 0 <= request.start_s <= request.end_s and len(request.pcm) <= 5.5 * RATE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preroll_s", -1),
        ("tail_s", 3),
        ("partial_interval_s", 0.05),
        ("pause_s", 5),
        ("longest_s", 60),
        ("shortest_s", 9),
    ],
)
def test_bad_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(HearingError, match=name):
        HearingConfig(**{name: value})
