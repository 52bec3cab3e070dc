# SPDX-License-Identifier: Apache-2.0
"""Speech laid into content time: nothing lost, nothing doubled, order kept, whatever happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.engine.timeline import Timeline
from flowact_ros.engine.utterance import Utterance

START = 600  # samples that must be buffered before an open utterance starts


def samples(start: int, count: int) -> np.ndarray:
    return (np.arange(start, start + count) + 1).astype(np.float32)


def timeline(*utterances: tuple[str, int, bool]) -> tuple[Timeline, list[Utterance]]:
    """(name, samples, closed) ... -> a timeline that holds them, values counting through."""
    line, made, at = Timeline(START), [], 0
    for name, count, closed in utterances:
        made.append(Utterance(name, first_push=0.0))
        line.feed(made[-1], samples(at, count), close=closed)
        at += count
    return line, made


def test_silence_where_nothing_is_queued():
    line, _ = timeline()
    line.commit(1000)
    assert line.committed == 1000 and not line.read(0, 1000).any()
    assert not line.flowing and not line.onset and not line.gathering
    assert line.supply() == (0, True)


def test_speech_is_laid_at_the_first_sample_not_committed():
    line, _ = timeline()
    line.commit(777)
    line.feed(Utterance("a"), samples(0, 100), close=True)
    assert line.onset
    line.commit(1000)
    np.testing.assert_array_equal(line.read(777, 877), samples(0, 100))
    assert not line.read(0, 777).any() and not line.read(877, 1000).any()
    assert line.speech_end == 877
    assert [(s.start, s.end, s.utterance_id) for s in line.spans(0, 1000)] == [(777, 877, "a")]


def test_an_open_utterance_waits_for_its_buffer_and_a_closed_one_does_not():
    line, (a,) = timeline(("a", START - 1, False))
    assert line.gathering and not line.onset and line.supply() == (0, True)
    assert not line.peek(10).any()
    line.commit(100)
    assert not line.read(0, 100).any()
    line.feed(a, samples(START - 1, 1))
    assert line.onset and not line.gathering and line.supply() == (START, False)
    line.commit(200)
    np.testing.assert_array_equal(line.read(100, 200), samples(0, 100))
    assert line.flowing and not line.onset


def test_peek_sees_what_commit_will_lay():
    line, _ = timeline(("a", 50, True), ("b", 80, True), ("c", 5, False))
    look = line.peek(200)
    line.commit(200)
    np.testing.assert_array_equal(look, line.read(0, 200))
    np.testing.assert_array_equal(look[:130], samples(0, 130))
    assert not look[130:].any()


def test_peek_goes_on_to_the_next_utterance_as_commit_does():
    line, _ = timeline(("a", 700, False), ("b", 100, True))
    look = line.peek(900)
    line.commit(900)
    np.testing.assert_array_equal(look, line.read(0, 900))
    assert np.count_nonzero(look) == 800


def test_running_dry_gathers_again():
    line, (a,) = timeline(("a", 700, False))
    line.commit(1000)
    np.testing.assert_array_equal(line.read(0, 700), samples(0, 700))
    assert line.underruns == 0 and line.gathering
    line.feed(a, samples(700, START - 1))
    line.commit(1100)
    assert not line.read(700, 1100).any()
    line.feed(a, samples(700 + START - 1, 1))
    assert line.onset
    line.commit(1200)
    np.testing.assert_array_equal(line.read(1100, 1200), samples(700, 100))
    assert (line.underruns, line.inserted) == (1, 400)


def test_a_rewind_before_the_gap_undoes_it():
    line, (a,) = timeline(("a", 700, False))
    line.commit(1000)
    line.rewind(650)
    line.feed(a, samples(700, 300), close=True)
    line.commit(1000)
    np.testing.assert_array_equal(line.read(0, 1000), samples(0, 1000))
    assert (line.underruns, line.inserted) == (0, 0)


def test_an_end_without_last_is_no_underrun():
    line, _ = timeline(("a", 700, False))
    line.commit(1000)
    line.close_orphan(1.0)
    line.commit(2000)
    assert line.underruns == 0 and line.inserted == 0 and line.unterminated == 1 and not line.queue


def test_the_next_utterance_ends_one_without_last():
    line, _ = timeline(("a", 700, False), ("b", 100, True))
    line.commit(1000)
    np.testing.assert_array_equal(line.read(0, 800), samples(0, 800))
    assert line.unterminated == 1 and line.underruns == 0


def test_samples_that_come_after_such_an_end_are_not_lost():
    line, (a, _) = timeline(("a", 700, False), ("b", 100, True))
    line.commit(1000)
    line.feed(a, samples(800, 50))
    assert line.gathering  # it is open again
    line.feed(a, samples(0, 0), close=True)
    line.commit(1100)
    np.testing.assert_array_equal(line.read(1000, 1050), samples(800, 50))


def test_lateness_breaks_into_speech_without_loss():
    line, _ = timeline(("a", 500, True))
    line.commit(100)
    assert line.commit_silence(140) is True
    assert line.commit_silence(160) is False  # the same break goes on
    assert line.commit_silence(160) is False
    line.commit(1000)
    np.testing.assert_array_equal(line.read(160, 560), samples(100, 400))
    assert not line.read(100, 160).any() and line.inserted == 60
    assert line.commit_silence(2000) is False and line.inserted == 60


def test_rewind_returns_speech_and_drops_silence():
    line, (a, b) = timeline(("a", 300, True), ("b", 300, True))
    line.commit(1000)
    line.rewind(250)
    assert line.committed == 250 and [u.name for u in line.queue] == ["a", "b"]
    assert (a.buffered, b.buffered) == (50, 300) and line.flowing
    assert not line.read(250, 1000).any() and line.speech_end == 250
    line.feed(Utterance("c"), samples(600, 10), close=True)
    line.commit(1000)
    np.testing.assert_array_equal(line.read(0, 610), samples(0, 610))


def test_rewind_past_the_kept_track_is_refused():
    line, _ = timeline(("a", 300_000, True))
    for end in range(10_000, 300_001, 10_000):
        line.commit(end)
        line.trim(end - 20_000)
    with pytest.raises(ValueError, match="cannot rewind to sample 0: the past is kept from sample [1-9]"):
        line.rewind(0)
    np.testing.assert_array_equal(line.read(280_000, 300_000), samples(280_000, 20_000))


def test_cancel_frees_and_purge_fades():
    line, (a, b) = timeline(("a", 5000, True), ("b", 100, True))
    line.commit(1000)
    assert line.cancel("a", 480, 900) == [a] and a.buffered == 480
    assert line.cancel("a", 480, 900) == []
    line.rewind(950)
    line.purge(480)
    line.commit(2000)
    np.testing.assert_array_equal(line.read(900, 950), samples(900, 50))
    tail = line.read(950, 1430)
    np.testing.assert_allclose(tail, samples(950, 480) * np.linspace(1, 0, 480), rtol=1e-6)
    np.testing.assert_array_equal(line.read(1430, 1530), samples(5000, 100))
    assert [(s.start, s.end, s.utterance_id) for s in line.spans(900, 2000)] == [
        (900, 950, "a"),
        (1430, 1530, "b"),
    ]
    line.feed(a, samples(0, 50))
    assert line.queued == 0  # what comes for it now is ignored


def test_cancel_of_waiting_speech_leaves_no_fade():
    line, (a, b) = timeline(("a", 500, True), ("b", 500, True))
    line.commit(200)
    assert line.cancel("b", 480, 0) == [b]
    line.purge(480)
    line.commit(1000)
    np.testing.assert_array_equal(line.read(0, 500), samples(0, 500))
    assert not line.read(500, 1000).any()


def test_cancel_ignores_what_has_left():
    line, (a,) = timeline(("a", 500, True))
    line.commit(1000)
    assert line.cancel(None, 480, 500) == []
    assert line.cancel(None, 480, 499) == [a]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_sample_is_lost_or_doubled(data):
    """Pushes of any size, ends with and without `last`, commits, stalls and rewinds in any order."""
    line = Timeline(START)
    open_utterance: Utterance | None = None
    pushed = shown = names = 0
    sound: list[np.ndarray] = []
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["push", "push", "commit", "commit", "rewind", "stall", "show"])):
            case "push":
                if open_utterance is None:
                    open_utterance, names = Utterance(str(names)), names + 1
                count = data.draw(st.integers(0, 900))
                last = data.draw(st.booleans())
                line.feed(open_utterance, samples(pushed, count), close=last)
                pushed += count
                open_utterance = None if last else open_utterance
            case "commit":
                count = data.draw(st.integers(0, 1200))
                look = line.peek(300)
                supply, bounded = line.supply()
                before = line.committed
                line.commit(before + count)
                laid = line.read(before, line.committed)
                assert np.count_nonzero(laid) >= min(count, supply)
                np.testing.assert_array_equal(laid[:300], look[:count][:300])
            case "stall":
                line.commit_silence(line.committed + data.draw(st.integers(0, 300)))
            case "rewind":
                line.rewind(data.draw(st.integers(shown, line.committed)))
            case "show":
                until = data.draw(st.integers(shown, line.committed))
                sound.append(line.read(shown, until))
                shown = until
                line.trim(shown)
    if open_utterance is not None:
        line.feed(open_utterance, samples(0, 0), close=True)
    line.commit(line.committed + pushed + 1)
    assert line.queued == 0
    sound.append(line.read(shown, line.committed))
    everything = np.concatenate(sound)
    np.testing.assert_array_equal(everything[everything != 0], samples(0, pushed))
    spans = line.spans(shown, line.committed)
    assert sum(s.end - s.start for s in spans) == np.count_nonzero(sound[-1])
