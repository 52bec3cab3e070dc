# SPDX-License-Identifier: Apache-2.0
"""Chunks that are cut anywhere, with any channels: what is decoded is what was sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.convert import to_bytes_field


def chunk(data: bytes, *, encoding: str = "S16LE", channels: int = 1, name: str = "a", **fields: object) -> AudioChunk:
    message = AudioChunk(sample_rate=16000, channels=channels, encoding=encoding, utterance_id=name, **fields)
    message.data = to_bytes_field(data)
    return message


def speech(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, count).astype("<i2")


class Decoding:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.decode = AudioDecoder(self.said.append, clock=lambda: self.now)

    def __call__(self, messages: list[AudioChunk]) -> np.ndarray:
        return np.concatenate([self.decode(message)[0] for message in messages])


@settings(max_examples=100, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 4000), max_size=12),
    encoding=st.sampled_from(["S16LE", "F32LE"]),
    channels=st.sampled_from([1, 2, 3]),
    numbered=st.booleans(),
)
def test_a_chunk_may_end_inside_a_sample(cuts: list[int], encoding: str, channels: int, numbered: bool) -> None:
    mono = speech(1000)
    wide = np.repeat(mono[:, None], channels, axis=1)
    data = (wide if encoding == "S16LE" else (wide / np.float32(32768)).astype("<f4")).tobytes()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    messages = [
        chunk(data[a:b], encoding=encoding, channels=channels, sequence=i if numbered else 0, last=i == len(bounds) - 2)
        for i, (a, b) in enumerate(zip(bounds, bounds[1:]))
    ]
    decoding = Decoding()
    np.testing.assert_allclose(decoding(messages), mono / 32768.0, atol=1e-7)
    assert len(decoding.said) <= 1


def test_bytes_that_are_over_are_said_once_an_utterance() -> None:
    data = speech(1500).tobytes()
    decoding = Decoding()
    for name in ("a", "b"):
        pieces = [data[at : at + 101] for at in range(0, 2999, 101)]
        decoding([chunk(piece, name=name, sequence=i) for i, piece in enumerate(pieces)])
        decoding([chunk(data[:1], name=name, sequence=99, last=True)])
    starts = [line for line in decoding.said if "ends inside a sample" in line]
    assert len(starts) == 2 and "speech 'a': " in starts[0] and "speech 'b': " in starts[1]


def test_half_a_sample_does_not_spoil_the_next_sentence() -> None:
    data = speech(500)
    torn = chunk(data.tobytes()[:-1], sequence=4)
    for after in ({"sequence": 0}, {"sequence": 5, "pause": 1.5}, {"sequence": 5, "encoding": "F32LE"}):
        decoding = Decoding()
        decoding([torn])
        decoding.now += after.pop("pause", 0.0)
        whole = (data / np.float32(32768)).tobytes() if "encoding" in after else data.tobytes()
        pcm = decoding([chunk(whole, **after)])
        np.testing.assert_allclose(pcm, data / 32768.0, atol=1e-7)
    decoding = Decoding()
    decoding([chunk(data.tobytes()[:-1], sequence=4, last=True)])
    np.testing.assert_allclose(decoding([chunk(data.tobytes(), sequence=5)]), data / 32768.0)
    assert any("dropped" in line for line in decoding.said)


def test_a_repeated_chunk_is_cut_like_the_first_time() -> None:
    data = speech(300).tobytes()
    decoding = Decoding()
    first, second = chunk(data[:201], sequence=1), chunk(data[201:400], sequence=2)
    third = chunk(data[400:], sequence=3)
    whole = decoding([first, second])
    again = decoding([second])
    np.testing.assert_array_equal(again, whole[-len(again) :])
    np.testing.assert_array_equal(decoding([third]), np.frombuffer(data[400:], "<i2") / 32768.0)


@pytest.mark.parametrize("kind", ["opposite", "one of four"])
def test_channels_that_would_be_lost_are_heard_at_their_level(kind: str) -> None:
    mono = speech(3000).astype(np.float32) / 32768
    frames = np.stack([mono, -mono], 1) if kind == "opposite" else np.stack([0 * mono, 0 * mono, mono, 0 * mono], 1)
    parts = np.array_split(frames.astype("<f4"), 10)
    decoding = Decoding()
    form = {"encoding": "F32LE", "channels": frames.shape[1]}
    heard = decoding([chunk(part.tobytes(), sequence=i, **form) for i, part in enumerate(parts)])
    np.testing.assert_array_equal(heard, mono)
    assert len(decoding.said) == 1 and "heard" in decoding.said[0]
