# SPDX-License-Identifier: Apache-2.0
"""Chunks in any shape and order -> clean speech at 24 kHz."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.engine.intake import Feed, Intake
from flowact_ros.engine.interfaces import AudioError, AudioQueueFull
from flowact_ros.engine.session_config import SessionConfig


def samples(start: int, count: int) -> np.ndarray:
    return ((np.arange(start, start + count) + 1) / 2**20).astype(np.float32)


class Feeder:
    """An intake with what came out of it, by utterance in order of appearance."""

    def __init__(self, **config: object) -> None:
        self.intake = Intake(SessionConfig(**config))
        self.feeds: list[Feed] = []
        self.now = 0.0

    def push(self, pcm, rate=24000, name="a", first=None, sequence=None, last=False, queued=0) -> Feeder:
        self.feeds += self.intake.push(pcm, rate, name, first, sequence, last, now=self.now, queued=queued)
        return self

    def wait(self, seconds: float) -> Feeder:
        self.now += seconds
        self.feeds += self.intake.poll(self.now)
        return self

    @property
    def utterances(self) -> list[tuple[str, np.ndarray, bool]]:
        order = list(dict.fromkeys(id(feed.utterance) for feed in self.feeds))
        out = []
        for key in order:
            mine = [feed for feed in self.feeds if id(feed.utterance) == key]
            out.append((mine[0].utterance.name, np.concatenate([f.pcm for f in mine]), mine[-1].close))
        return out

    @property
    def pcm(self) -> np.ndarray:
        return np.concatenate([feed.pcm for feed in self.feeds]) if self.feeds else np.zeros(0, np.float32)


@pytest.mark.parametrize(
    ("pcm", "rate", "more", "message"),
    [
        (np.zeros((100, 2), np.float32), 24000, {}, r"shape \[100, 2\].*\[samples\]"),
        (np.zeros((), np.float32), 24000, {}, r"shape \[\]"),
        (np.zeros(10, np.int32), 24000, {}, "type int32"),
        (np.array(["a"]), 24000, {}, "type <U1"),
        (np.zeros(10, np.complex64), 24000, {}, "type complex64"),
        (np.zeros(10, np.float32), 0, {}, r"rate is 0: .*\[8000, 192000\]"),
        (np.zeros(10, np.float32), -16000, {}, "rate is -16000"),
        (np.zeros(10, np.float32), 16000.5, {}, "rate is 16000.5"),
        (np.zeros(10, np.float32), None, {}, "rate is None"),
        (np.zeros(10, np.float32), "fast", {}, "rate is 'fast'"),
        (np.zeros(10, np.float32), float("nan"), {}, "rate is nan"),
        (np.zeros(10, np.float32), 24000, {"first": -1}, "first_sample is -1"),
        (np.zeros(10, np.float32), 24000, {"sequence": 1.5}, "sequence is 1.5"),
        (np.zeros(10, np.float32), 24000, {"sequence": "x"}, "sequence is 'x'"),
        (None, 24000, {}, r"shape \[\]"),
        ([[1.0], [1.0, 2.0]], 24000, {}, "no array"),
    ],
)
def test_wrong_input_is_one_clear_line_and_changes_nothing(pcm, rate, more, message):
    feeder = Feeder()
    with pytest.raises(AudioError, match=message) as caught:
        feeder.push(pcm, rate, **more)
    assert "\n" not in str(caught.value)
    feeder.push(samples(0, 100), last=True)
    np.testing.assert_array_equal(feeder.pcm, samples(0, 100))


def test_bad_samples_become_silence_and_are_counted():
    pcm = samples(0, 100)
    pcm[[3, 50]] = np.nan, np.inf
    feeder = Feeder().push(pcm, last=True)
    wanted = samples(0, 100)
    wanted[[3, 50]] = 0.0
    np.testing.assert_array_equal(feeder.pcm, wanted)
    assert feeder.intake.counts.bad_samples == 2


def test_loud_and_integer_audio_is_scaled():
    feeder = Feeder().push(np.array([2.0, -3.0, 0.5], np.float64))
    np.testing.assert_array_equal(feeder.pcm, np.array([1.0, -1.0, 0.5], np.float32))
    assert feeder.intake.counts.clipped == 2
    feeder = Feeder().push(np.array([-32768, 16384], np.int16))
    np.testing.assert_array_equal(feeder.pcm, np.array([-1.0, 0.5], np.float32))


def test_the_callers_buffer_may_be_reused():
    buffer = samples(0, 10)
    feeder = Feeder().push(buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(feeder.pcm, samples(0, 10))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_resampling_keeps_pitch_length_and_does_not_depend_on_the_cut(rate):
    t = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    whole = Feeder().push(tone, rate, last=True).pcm
    cut = Feeder()
    for i in range(0, rate, 371):
        cut.push(tone[i : i + 371], rate, first=i, last=i + 371 >= rate)
    assert len(whole) == len(cut.pcm) == pytest.approx(24000, abs=1)
    np.testing.assert_allclose(cut.pcm, whole, atol=1e-6)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(whole)) / 24000)
    np.testing.assert_allclose(whole[1000:-1000], expected[1000:-1000], atol=2e-3)


def test_a_rate_may_not_change_inside_an_utterance():
    feeder = Feeder().push(samples(0, 100), 24000)
    with pytest.raises(AudioError, match="changed from 24000 to 16000 Hz inside utterance 'a'"):
        feeder.push(samples(0, 100), 16000)
    feeder.push(samples(100, 10), 24000, last=True).push(samples(0, 160), 16000, last=True)
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [110, 240]


def test_the_queue_is_bounded():
    feeder = Feeder(queue_s=2.0)
    feeder.push(np.zeros(16000, np.float32), 16000)
    with pytest.raises(AudioQueueFull, match="1.5 s of speech wait and 1.0 s more came: the limit is 2 s"):
        feeder.push(np.zeros(16000, np.float32), 16000, queued=36000)
    feeder.push(np.zeros(8000, np.float32), 16000, queued=36000)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_order_within_the_window_with_repeats(data):
    """Chunks shuffled by at most 3 places and sometimes sent twice come out once, in order."""
    sizes = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=25))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    by_sample, by_sequence = data.draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    base = data.draw(st.sampled_from([0, 4321]))  # a counter of the whole stream
    order = sorted(range(len(sizes)), key=lambda i: i + data.draw(st.floats(0, 2.9)))
    feeder = Feeder()
    repeats = 0
    for position, i in enumerate(order):
        again = [i]
        if position and data.draw(st.booleans()):
            again.append(order[data.draw(st.integers(max(0, position - 3), position))])
            repeats += 1
        for j in again:
            feeder.push(
                samples(int(starts[j]), sizes[j]),
                first=base + int(starts[j]) if by_sample else None,
                sequence=base + j if by_sequence else None,
                last=j == len(sizes) - 1,
            )
    feeder.wait(0.2)
    (name, pcm, closed) = feeder.utterances[0]
    np.testing.assert_array_equal(pcm, samples(0, sum(sizes)))
    assert closed and len(feeder.utterances) == 1
    counts = feeder.intake.counts
    assert (counts.repeats, counts.lost_chunks, counts.shortened) == (repeats, 0, 0)


def test_a_lost_chunk_becomes_silence_once_the_window_is_full():
    feeder = Feeder()
    for i in (0, 2, 3, 4):
        feeder.push(samples(i * 100, 100), first=i * 100, sequence=i)
    np.testing.assert_array_equal(feeder.pcm, samples(0, 100))
    feeder.push(samples(500, 100), first=500, sequence=5)
    wanted = samples(0, 600)
    wanted[100:200] = 0.0
    np.testing.assert_array_equal(feeder.pcm, wanted)
    counts = feeder.intake.counts
    assert (counts.lost_chunks, counts.lost_samples, counts.shortened) == (1, 100, 0)
    feeder.push(samples(100, 100), first=100, sequence=1)  # it comes after all: too late
    np.testing.assert_array_equal(feeder.pcm, wanted)
    assert counts.repeats == 1


def test_a_lost_chunk_is_not_waited_for_longer_than_a_moment():
    feeder = Feeder().push(samples(0, 100), first=0).push(samples(200, 100), first=200, last=True)
    assert len(feeder.wait(0.05).pcm) == 100
    assert len(feeder.wait(0.06).pcm) == 300
    assert feeder.utterances[0][2]


def test_long_gaps_are_shortened():
    feeder = Feeder().push(samples(0, 100), first=0).push(samples(0, 100), first=24000).wait(0.2)
    assert len(feeder.pcm) == 100 + 4800 + 100
    assert not feeder.pcm[100:4900].any()
    counts = feeder.intake.counts
    assert (counts.lost_samples, counts.shortened) == (23900, 1)
    feeder.push(samples(100, 100), first=24100)
    np.testing.assert_array_equal(feeder.pcm[4900:], samples(0, 200))


def test_overlaps_are_heard_once():
    feeder = Feeder().push(samples(0, 100), first=0).push(samples(60, 100), first=60)
    np.testing.assert_array_equal(feeder.pcm, samples(0, 160))


def test_a_stream_that_counts_from_elsewhere_starts_after_a_moment():
    feeder = Feeder().push(samples(0, 100), first=7777)
    assert len(feeder.pcm) == 0
    assert len(feeder.wait(0.11).pcm) == 100
    feeder.push(samples(100, 10), first=7877, last=True)
    feeder.push(samples(0, 10), name="b", first=7887)  # the next one goes on counting: no wait
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [110, 10]


def test_names_may_be_used_again_after_an_end():
    feeder = Feeder()
    for _ in range(3):
        feeder.push(samples(0, 50), name="", first=0).push(samples(50, 50), name="", first=50, last=True)
    feeder.push(samples(50, 50), name="", first=50, last=True)  # a repeat of the end
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [100, 100, 100]
    assert feeder.intake.counts.repeats == 1


def test_a_publisher_that_begins_anew_is_heard():
    feeder = Feeder()
    for i in range(100):
        feeder.push(samples(i * 480, 480), first=i * 480, sequence=i)
    feeder.push(samples(0, 480), first=0, sequence=0)
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [48000, 480]
    feeder = Feeder()
    for first in (*range(0, 4320, 480), 0):
        feeder.push(samples(first, 480), first=first)
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [4320, 480]
    feeder = Feeder().push(samples(0, 480), first=0, last=True)
    feeder.push(samples(0, 480), first=0, last=True)  # at once: a repeat
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [480]
    feeder.wait(2).push(samples(0, 480), first=0, last=True)  # later: said again
    assert [len(pcm) for _, pcm, _ in feeder.utterances] == [480, 480]


def test_the_next_utterance_of_a_name_may_overtake_the_end_of_the_last():
    feeder = Feeder().push(samples(0, 100), name="", sequence=0)
    feeder.push(samples(500, 100), name="", sequence=2)
    feeder.push(samples(100, 100), name="", sequence=1, last=True)
    assert [(len(pcm), closed) for _, pcm, closed in feeder.utterances] == [(200, True), (100, False)]


def test_an_end_without_a_beginning_is_nothing():
    assert not Feeder().push(np.zeros(0, np.float32), last=True).feeds


def test_what_is_remembered_is_bounded():
    feeder = Feeder()
    for i in range(500):
        feeder.push(samples(0, 5), name=str(i), first=0, last=True)
    assert len(feeder.intake._streams) <= 64


def test_a_finished_utterance_keeps_no_sound():
    """A resampler holds buffers as long as the longest chunk: 64 clips of 25 s would be 250 MB."""
    feeder = Feeder()
    for i in range(3):
        feeder.push(samples(0, 8000), rate=48_000, name=str(i), first=0)
        assert feeder.intake._streams[str(i)].resampler is not None
        feeder.push(samples(8000, 8000), rate=48_000, name=str(i), first=8000, last=True)
        assert feeder.intake._streams[str(i)].resampler is None
    assert len(feeder.pcm) == pytest.approx(3 * 8000, abs=3)


@pytest.mark.parametrize("sequences", [True, False])
def test_one_absurd_place_does_not_silence_the_rest(sequences):
    feeder = Feeder()
    for i in range(40):
        first = 10**15 if i == 5 else i * 480
        feeder.push(samples(i * 480, 480), first=first, sequence=i if sequences else None)
        feeder.wait(0.02)
    heard = np.isin(samples(0, 40 * 480), feeder.pcm)
    assert heard[-(30 if sequences else 18) * 480 :].all()
    assert len(feeder.pcm) <= 42 * 480 + 2 * 4800
