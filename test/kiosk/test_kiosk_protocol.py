# SPDX-License-Identifier: Apache-2.0
"""The messages between server and page, and the queue in front of a page."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowact_ros.kiosk import protocol
from flowact_ros.kiosk.outbox import Outbox
from flowact_ros.kiosk.protocol import AUDIO, FRAME, HELLO, STATE, ProtocolError


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
    "data", [b"", bytes(15), bytes(16), b"\x01\x02" + bytes(14), b"\x05\x01" + bytes(14)]
)
def test_foreign_messages_are_told(data):
    with pytest.raises(ProtocolError):
        protocol.unpack(data)


KEYS = ["type", "drawn", "fps", "clock", "audio", "skew_p95_ms"]


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=80), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner | st.just("stats"), max_size=6),
).map(json.dumps)))  # fmt: skip
def test_whatever_a_page_sends_is_stats_or_an_error(text):
    try:
        stats = protocol.parse_client_message(text)
    except ProtocolError as error:
        assert "\n" not in str(error)
    else:
        assert set(stats) <= set(protocol.STATS_FIELDS)
        for name, value in stats.items():
            assert isinstance(value, protocol.STATS_FIELDS[name]) and not isinstance(value, bool)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"stats","fps":NaN}', '{"type":"stats","fps":1e400}', '{"type":"stats","fps":true}',
        '{"type":"stats","clock":"' + "x" * 33 + '"}', '{"type":"stats","drawn":1.5}', "[" * 3000,
        '{"type":"stats","pad":"' + "é" * 2040 + '"}', '{"type":"say"}',
    ],
)  # fmt: skip
def test_stats_are_checked(text):
    with pytest.raises(ProtocolError):
        protocol.parse_client_message(text)


def test_outbox_drops_the_oldest_and_counts():
    box = Outbox(max_frames=3, max_audio_seconds=0.1)
    for i in range(6):
        box.put(FRAME, b"f%d" % i)
        box.put(AUDIO, b"a%d" % i, 0.04)
        box.put(STATE, b"s%d" % i)
    left = [box.get() for _ in range(len(box))]
    assert left == [b"f3", b"f4", b"a4", b"f5", b"a5", b"s5"] and box.get() is None
    assert (box.dropped_frames, box.dropped_audio) == (3, 4)
    box.put(FRAME, b"f6")  # the counts of what was taken out are right again
    assert box.get() == b"f6" and box.dropped_frames == 3
