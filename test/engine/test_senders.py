# SPDX-License-Identifier: Apache-2.0
"""Whatever its habits, a sender is heard: all that was sent, once, in order; what is dropped is counted and said."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from senders import Piece, Sender, senders

from flowact_ros.engine.intake import Feed, Intake
from flowact_ros.engine.interfaces import AudioError
from flowact_ros.engine.session_config import SessionConfig

RATE = 24_000
TICK_S = 0.05
FIELDS = ("pcm", "rate", "name", "first", "sequence", "last")
MISCOUNTING = ("sequence by two", "first in bytes", "first in milliseconds", "first at half rate")
COUNTING = ("both", "first only", "sequence only", "first only, other 0", "sequence only, other 0", "from one")


def voice(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Sound in which no sample is zero and none is like another one: what is missing, doubled or put in is seen."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, int(seconds * rate)).astype(np.float32) * np.resize(
        [1.0, -1.0], int(seconds * rate)
    ).astype(np.float32)


class Listener:
    """An intake that is polled as the stream polls it; sound leaves as it would sound."""

    def __init__(self) -> None:
        self.intake = Intake(SessionConfig())
        self.feeds: list[Feed] = []
        self.now = 0.0

    def until(self, time: float) -> None:
        while self.now < time:
            self.now = min(time, self.now + TICK_S)
            self.feeds += self.intake.poll(self.now)

    def hear(self, piece: Piece) -> None:
        self.until(piece.at)
        self.feeds += self.intake.push(
            piece.pcm, piece.rate, piece.name, piece.first, piece.sequence, piece.last, now=self.now, queued=0
        )

    def end(self) -> Listener:
        self.until(self.now + 3.0)
        return self

    @property
    def pcm(self) -> np.ndarray:
        """All of it, in the order in which the timeline says it: utterance after utterance."""
        order = list(dict.fromkeys(id(feed.utterance) for feed in self.feeds))
        feeds = sorted(self.feeds, key=lambda feed: order.index(id(feed.utterance)))
        return np.concatenate([feed.pcm for feed in feeds]) if feeds else np.zeros(0, np.float32)


def balanced(listener: Listener) -> bool:
    """Every sample that came was heard or counted as dropped."""
    counts = listener.intake.counts
    return counts.received == counts.heard + sum(counts.dropped.values())


lengths = st.lists(st.sampled_from([0.03, 0.4, 1.2, 2.9]), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(sender=senders, seconds=lengths, same=st.booleans())
@example(sender=Sender("constant", "tts", True, 0.04, False, 0.3), seconds=[0.03] * 3, same=True)  # the second waits
def test_heard_is_sent(sender: Sender, seconds: list[float], same: bool) -> None:
    if same:  # one chunk twice at once is a repeat, unless what follows tells that its sentence is said again
        assume(sender.pause_s >= 0.3 or (sender.numbering in COUNTING and seconds[0] > sender.chunk_s))
    sentences = [voice(seconds[0] if same else s, 0 if same else i) for i, s in enumerate(seconds)]
    listener = Listener()
    for piece in sender.send(sentences, [RATE] * len(sentences)):
        listener.hear(piece)
    heard = listener.end().pcm
    assert balanced(listener) and not listener.intake.counts.dropped
    np.testing.assert_array_equal(heard[heard != 0], np.concatenate(sentences))
    assert listener.intake.counts.filled == (heard == 0).sum()
    if sender.numbering not in MISCOUNTING:
        assert not listener.intake.counts.lost_chunks and not listener.intake.counts.filled
    else:  # such numbers are believed for a few chunks at most
        assert listener.intake.counts.filled <= 3 * 0.2 * RATE * len(sentences)


@settings(max_examples=80, deadline=None)
@given(sender=senders, data=st.data(), seconds=lengths)
def test_heard_is_sent_at_any_rate(sender: Sender, data: st.DataObject, seconds: list[float]) -> None:
    """Voices of different rates follow each other. One that goes on under the name of another one is told so."""
    rates = [data.draw(st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 48_000, 192_000])) for _ in seconds]
    sentences = [voice(s, i, rate) for i, (s, rate) in enumerate(zip(seconds, rates))]
    listener = Listener()
    refused = 0
    for piece in sender.send(sentences, rates):
        try:
            listener.hear(piece)
        except AudioError as error:
            refused += len(piece.pcm)
            assert "changed from" in str(error) and "utterance_id of its own" in str(error)
    heard = listener.end().pcm
    counts = listener.intake.counts
    assert balanced(listener) and sum(counts.dropped.values()) == counts.dropped.get("other rate", 0) == refused
    if refused:
        assert sender.name == "tts" and not sender.ends and sender.pause_s < 1.0
        return
    wanted = sum(round(len(pcm) * RATE / rate) for pcm, rate in zip(sentences, rates))
    filled = counts.filled / min(rates) * RATE
    assert wanted - 4 * len(sentences) <= len(heard) <= wanted + filled + 4 * len(sentences)


@settings(max_examples=100, deadline=None)
@given(
    numbering=st.sampled_from(COUNTING),
    seed=st.integers(0, 2**16),
    count=st.integers(1, 40),
    name=st.sampled_from(["", "tts"]),
)
def test_every_sample_is_accounted_for_on_a_bad_way(numbering: str, seed: int, count: int, name: str) -> None:
    """Chunks are lost, doubled and delayed: what is heard was sent, in order, and the rest is counted by reason."""
    rng = np.random.default_rng(seed)
    pcm = voice(0.02 * count, seed)
    sender = Sender(numbering, name, True, 0.02, True, 0.0)
    pieces = [piece for piece in sender.send([pcm], [RATE]) if rng.random() > 0.15]
    pieces = sorted(pieces + [p for p in pieces if rng.random() < 0.15], key=lambda p: p.at + rng.uniform(0, 0.07))
    listener = Listener()
    for piece in pieces:
        listener.hear(Piece(max(listener.now, piece.at), *[getattr(piece, f) for f in FIELDS]))
    heard = listener.end().pcm
    assert balanced(listener)
    assert set(listener.intake.counts.dropped) <= {"repeated", "late"}
    voiced = heard[heard != 0]
    place = {value: i for i, value in enumerate(pcm.tolist())}
    places = [place[value] for value in voiced.tolist()]
    assert len(voiced) == listener.intake.counts.heard
    if numbering in ("both", "from one"):  # with one counter, a way that loses most looks like one that miscounts
        assert len(set(places)) >= len(places) - 4 * 480  # repeats of the first two may be a new sentence


# ---------------------------------------------------------------- cases from the field


def speak(sender: Sender, sentences: list[np.ndarray]) -> Listener:
    listener = Listener()
    for piece in sender.send(sentences, [RATE] * len(sentences)):
        listener.hear(piece)
    return listener.end()


@pytest.mark.parametrize("name", ["", "tts"])
@pytest.mark.parametrize("pause_s", [0.0, 30.0])
@pytest.mark.parametrize("chunk_s", [0.04, 1.0])
@pytest.mark.parametrize("same", [True, False])
def test_a_synthesizer_that_numbers_every_sentence_from_zero(
    name: str, pause_s: float, chunk_s: float, same: bool
) -> None:
    sentences = [voice(1.5, 0 if same else i) for i in range(3)]
    listener = speak(Sender("both", name, True, chunk_s, False, pause_s), sentences)
    np.testing.assert_array_equal(listener.pcm, np.concatenate(sentences))


@pytest.mark.parametrize("numbering", ["zeros", "none", "constant"])
def test_silence_without_numbers_is_no_repeat(numbering: str) -> None:
    pcm = voice(1.0, 1)
    pcm[:12_000] = 0.0
    listener = speak(Sender(numbering, "a", True, 0.04, True, 0.0), [pcm])
    np.testing.assert_array_equal(listener.pcm, pcm)


@pytest.mark.parametrize("paced", [True, False])
@pytest.mark.parametrize("numbering", ["zeros", "constant", "first only, other 0", "sequence only, other 0"])
def test_numbers_that_were_not_filled_in(numbering: str, paced: bool) -> None:
    pcm = voice(4.0, 1)
    listener = speak(Sender(numbering, "a", True, 0.04, paced, 0.0), [pcm])
    np.testing.assert_array_equal(listener.pcm, pcm)
    assert len({id(feed.utterance) for feed in listener.feeds}) == 1  # in one piece


def test_a_second_voice_of_another_rate_behind_one_without_an_end() -> None:
    listener = Listener()
    listener.hear(Piece(0.0, voice(0.5, 1, 16_000), 16_000, "voice", None, None, False))
    with pytest.raises(AudioError, match="utterance_id of its own for each voice"):
        listener.hear(Piece(0.1, voice(0.5, 2), RATE, "voice", None, None, False))
    listener.hear(Piece(1.2, voice(0.5, 2), RATE, "voice", None, None, False))
    assert len(listener.end().pcm) == pytest.approx(RATE, abs=2)
    assert listener.intake.counts.dropped == {"other rate": RATE // 2} and balanced(listener)


@pytest.mark.parametrize("name", ["tts", ""])
@pytest.mark.parametrize("rates", [(8_000, 11_025), (8_000, 8_000, 11_025), (8_000, 11_025, 8_000)])
def test_a_voice_of_another_rate_behind_an_end_that_waits(name: str, rates: tuple[int, ...]) -> None:
    """Sentences of one chunk whose number never moves: the first waits for others before it, which never were."""
    sender = Sender("constant", name, True, 0.04, False, 0.0)
    listener = Listener()
    for piece in sender.send([voice(0.03, i, rate) for i, rate in enumerate(rates)], rates):
        listener.hear(piece)
    heard = listener.end().pcm
    assert balanced(listener) and not listener.intake.counts.dropped
    assert abs(len(heard) - 0.03 * RATE * len(rates)) < 4 * len(rates)


def test_the_end_of_a_voice_without_an_end_is_heard() -> None:
    """The resampler keeps back 20 ms until it knows that nothing follows."""
    listener = Listener()
    listener.hear(Piece(0.0, voice(0.5, 1, 16_000), 16_000, "", None, None, False))
    assert len(listener.pcm) < 12_000
    assert len(listener.end().pcm) == pytest.approx(12_000, abs=1)
    assert listener.intake.counts.unended == 1


def test_what_a_refused_chunk_brings_about_is_not_lost() -> None:
    """A chunk out of turn waits; it is released by one that is refused itself."""
    listener = Listener()
    first, second = voice(0.1, 1), voice(0.1, 2)
    listener.hear(Piece(0.0, first, RATE, "a", None, 5, False))
    with pytest.raises(AudioError):
        listener.hear(Piece(0.01, second, 16_000, "a", None, 6, False))
    listener.hear(Piece(0.02, second, RATE, "a", None, 6, True))
    np.testing.assert_array_equal(listener.end().pcm, np.concatenate([first, second]))
    assert balanced(listener)


def test_more_utterances_than_are_remembered_lose_nothing() -> None:
    listener = Listener()
    pieces = [voice(0.1, i, 16_000) for i in range(100)]
    for i, pcm in enumerate(pieces):
        listener.hear(Piece(0.0, pcm, 16_000, str(i), 7, 7, False))
    assert len(listener.end().pcm) == pytest.approx(100 * 2400, abs=100)
    assert listener.intake.counts.heard == 100 * 1600


@pytest.mark.parametrize("ends", [True, False])
def test_a_finished_utterance_keeps_no_sound(ends: bool) -> None:
    """64 of them are remembered: with their last chunks, of up to minutes, that would be gigabytes."""
    listener = Listener()
    for i in range(3):
        listener.hear(Piece(listener.now, voice(0.5, i, 16_000), 16_000, str(i), 0, 0, ends))
        listener.end()
    for stream in listener.intake._streams.values():
        assert stream.finished and not stream.held and stream.resampler is None and not len(stream.numbering._tail)


def test_an_interrupted_utterance_stays_silent_and_the_next_one_is_heard() -> None:
    for numbering, name in [("both", "tts"), ("both", ""), ("none", "tts"), ("zeros", "tts")]:
        first, second = voice(1.0, 1), voice(1.0, 2)
        listener = Listener()
        pieces = list(Sender(numbering, name, True, 0.1, True, 1.2).send([first, second], [RATE] * 2))
        for piece in pieces[:3]:
            listener.hear(piece)
        listener.feeds[0].utterance.cancelled = True
        for piece in pieces[3:]:
            listener.hear(piece)
        np.testing.assert_array_equal(listener.end().pcm, np.concatenate([first[:7200], second]))
        assert listener.intake.counts.dropped == {"interrupted": len(first) - 7200} and balanced(listener)


def test_a_live_voice_without_names_and_numbers_is_heard_again_after_an_interruption() -> None:
    listener = Listener()
    pcm = voice(1.0, 1)
    for i, piece in enumerate(Sender("zeros", "", False, 0.1, True, 0.0).send([pcm], [RATE])):
        listener.hear(piece)
        if i == 4:
            listener.feeds[0].utterance.cancelled = True
    np.testing.assert_array_equal(listener.end().pcm, pcm)


# ---------------------------------------------------------------- what is said


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_each_loss_is_said_once_an_utterance(caplog: pytest.LogCaptureFixture) -> None:
    pieces = list(Sender("both", "a", True, 0.04, False, 0.0).send([voice(2.0, 1)], [RATE]))
    listener = Listener()
    for i, piece in enumerate(pieces):
        if i not in (5, 9, 20):  # lost
            listener.hear(piece)
        if i in (12, 30, 31):  # sent twice
            listener.hear(piece)
    listener.hear(pieces[20])  # too late
    listener.end()
    said = warnings(caplog)
    assert len(said) == 3
    assert "'a': 960 samples did not arrive; look at the sender's queue depth" in said[0]
    assert "'a': 960 samples were dropped: they came a second time" in said[1]
    assert "'a': 960 samples were dropped: they came after silence had taken their place" in said[2]
    counts = listener.intake.counts
    assert (counts.lost_chunks, counts.lost_samples, counts.filled) == (3, 2880, 2880)
    assert counts.dropped == {"repeated": 2880, "late": 960} and balanced(listener)


def test_what_an_outage_took_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A live voice without an end: nothing comes for two seconds, then it goes on with the numbers it has by then."""
    pcm = voice(4.0, 1)
    pieces = list(Sender("both", "", False, 0.04, True, 0.0).send([pcm], [RATE]))
    listener = Listener()
    for piece in [*pieces[:25], *pieces[75:]]:
        listener.hear(piece)
    np.testing.assert_array_equal(listener.end().pcm, np.concatenate([pcm[:24_000], pcm[72_000:]]))
    counts = listener.intake.counts
    assert (counts.lost_chunks, counts.lost_samples, counts.filled) == (1, 48_000, 0)
    assert any("48000 samples did not arrive" in line for line in warnings(caplog))


def test_a_missing_end_is_said_for_the_first_utterance_and_then_rarely(caplog: pytest.LogCaptureFixture) -> None:
    listener = speak(Sender("both", None, False, 0.04, True, 2.0), [voice(0.2, i) for i in range(12)])
    assert listener.intake.counts.unended == 12
    said = warnings(caplog)
    assert len(said) == 2 and "'s0': ended without a chunk with last = true" in said[0]
    assert "10 utterances so far" in said[1]


@pytest.mark.parametrize("scale", [2**15, 2**23, 2**31])
@pytest.mark.parametrize("whole", [True, False])
def test_floats_at_the_scale_of_integers(scale: int, whole: bool, caplog: pytest.LogCaptureFixture) -> None:
    pcm = voice(0.4, 1) * np.linspace(0.0, 0.9, 9600, dtype=np.float32)
    loud = pcm * np.float32(scale)
    listener = speak(Sender("both", "a", True, 0.04, False, 0.0), [np.rint(loud) if whole else loud])
    np.testing.assert_allclose(listener.pcm[960:], pcm[960:], atol=2 / 2**15 if whole else 1e-6)
    assert np.abs(listener.pcm[:960]).max() < 0.1  # the quiet beginning is no noise
    assert any("integers were divided by" in line for line in warnings(caplog))
    assert listener.intake.counts.clipped == 0


@pytest.mark.parametrize("chunk_s", [0.02, 0.5])
@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_an_offset_is_taken_out(rate: int, chunk_s: float, caplog: pytest.LogCaptureFixture) -> None:
    t = np.arange(2 * rate) / rate
    clean = (0.1 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)
    whole = Listener()
    for piece in Sender("both", "a", True, chunk_s, False, 0.0).send([clean + np.float32(0.03)], [rate]):
        whole.hear(piece)
    heard = whole.end().pcm
    plain = Listener()
    plain.hear(Piece(0.0, clean, rate, "a", 0, 0, True))
    wanted = plain.end().pcm
    middle = slice(12_000, -500)  # a step is a step, where it begins and ends
    assert np.abs(heard - wanted)[middle].max() < 0.006 and abs(float(heard[middle].mean())) < 0.002
    (said,) = warnings(caplog)
    assert "a constant offset of 0.0" in said
