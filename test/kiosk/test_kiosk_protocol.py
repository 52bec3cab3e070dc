# SPDX-License-Identifier: Apache-2.0
"""The messages between server and page, and the queue in front of a page."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.kiosk import protocol
from flowact_ros.kiosk.outbox import Outbox
from flowact_ros.kiosk.protocol import AUDIO, FRAME, HELLO, STATE, VOICE, ProtocolError


@given(
    st.sampled_from([FRAME, AUDIO, STATE, HELLO]),
    st.binary(max_size=50),
    st.floats(allow_nan=False),
    st.integers(0, 2**40),
    st.integers(0, 65_535),
)
def test_messages_survive_packing(kind, payload, pts, sequence, rate):
    data = protocol.pack(kind, payload, pts=pts, sequence=sequence, rate=rate)
    assert protocol.unpack(data) == (kind, rate, sequence % 2**32, pts, payload)
    assert data[:4] == bytes([kind, 1]) + rate.to_bytes(2, "little") and data[16:] == payload


@pytest.mark.parametrize(
    "data", [b"", bytes(15), bytes(16), b"\x01\x02" + bytes(14), b"\x06\x01" + bytes(14)]
)
def test_foreign_messages_are_told(data):
    with pytest.raises(ProtocolError):
        protocol.unpack(data)


KEYS = ["type", "drawn", "fps", "clock", "audio", "skew_p95_ms", "frame", "want", "on"]
KINDS = ["stats", "got", "quality", "talk", "stop", "auto", "low"]


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=80), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner | st.sampled_from(KINDS), max_size=6),
).map(json.dumps)))  # fmt: skip
def test_whatever_a_page_sends_is_a_request_or_an_error(text):
    try:
        kind, value = protocol.parse_request(text)
    except ProtocolError as error:
        assert "\n" not in str(error)
        return
    if kind == "stats":
        assert set(value) <= set(protocol.STATS_FIELDS)
        for name, figure in value.items():
            assert isinstance(figure, protocol.STATS_FIELDS[name]) and not isinstance(figure, bool)
    else:
        right = {"got": range(2**32), "quality": ("auto", "full", "low"), "talk": (True, False), "stop": (None,)}
        assert value in right[kind]


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"stats","fps":NaN}', '{"type":"stats","fps":1e400}', '{"type":"stats","fps":true}',
        '{"type":"stats","clock":"' + "x" * 33 + '"}', '{"type":"stats","drawn":1.5}', "[" * 3000,
        '{"type":"stats","pad":"' + "é" * 2040 + '"}', '{"type":"say"}', '{"type":["stats"]}', '{"type":"got"}',
        '{"type":"got","frame":-1}', '{"type":"got","frame":true}', '{"type":"quality","want":"best"}',
        '{"type":"talk"}', '{"type":"talk","on":1}', "null", "7",
    ],
)  # fmt: skip
def test_requests_are_checked(text):
    with pytest.raises(ProtocolError):
        protocol.parse_request(text)


def voice(rate=16_000, pcm=bytes(1280), kind=VOICE):
    return protocol.pack(kind, pcm, rate=rate, sequence=3)


def test_a_voice_is_checked():
    assert protocol.parse_voice(voice()) == (VOICE, 16_000, 3, 0.0, bytes(1280))
    for data, says in (
        (voice(kind=FRAME), "kind 1"), (voice(rate=4_000), "4000 Hz"), (voice(pcm=b""), "0 bytes"),
        (voice(pcm=bytes(3)), "3 bytes"), (voice(rate=8_000, pcm=bytes(4_002)), "4002 bytes"), (b"\x05", "shorter"),
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match=says):
            protocol.parse_voice(data)


def test_outbox_drops_the_oldest_counts_and_sends_sound_first():
    box = Outbox(max_frames=3, max_audio_seconds=0.1)
    for i in range(6):
        box.put(FRAME, b"f%d" % i)
        box.put(AUDIO, b"a%d" % i, 0.04)
        box.put(STATE, b"s%d" % i)
    left = [box.get() for _ in range(len(box))]
    assert left == [b"s5", b"a4", b"a5", b"f3", b"f4", b"f5"] and box.get() is None
    assert (box.dropped_frames, box.dropped_audio) == (3, 4)
    box.put(FRAME, b"f6")  # the counts of what was taken out are right again
    assert box.get() == b"f6" and box.dropped_frames == 3
