# SPDX-License-Identifier: Apache-2.0
"""Messages between robot and fleet, who may send them, and the speech that a robot keeps until it was heard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowact_ros.fleet.access import choose_token, refusal
from flowact_ros.fleet.backlog import MISSED, Backlog
from flowact_ros.fleet.wire import LARGEST, TOKEN_VARIABLE, WireError, pack, unpack

TOKEN = "0123456789abcdef"


def test_a_message_comes_as_it_was_sent() -> None:
    message = unpack(pack("frame", b"sound", b"", b"picture", index=7, waiting=None, name="Grüße"))
    assert (message.kind, message.parts) == ("frame", (b"sound", b"", b"picture"))
    assert message.get("index", int) == 7 and message.get("name", str) == "Grüße"
    assert message.get("waiting", str, "nobody") == "nobody" == message.get("nothing", str, "nobody")
    assert message.part(2) == b"picture" and message.part(3) == b""
    for name, kind in (("index", str), ("name", int)):
        with pytest.raises(WireError, match=f"{name} of frame is"):
            message.get(name, kind)
    with pytest.raises(WireError, match="at most"):
        pack("open", bytes(LARGEST))


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda tail: b"\x08\0\0\0" + tail), st.text()))
def test_what_is_no_message_is_refused_in_one_line(data: bytes | str) -> None:
    with pytest.raises(WireError) as refused:
        unpack(data)
    assert "\n" not in str(refused.value)


LYING = (b"[]", b"{}", b'{"kind":1,"parts":[]}', b'{"kind":"a","parts":[-1]}', b'{"kind":"a","parts":[9]}', b"[" * 999)


@pytest.mark.parametrize("head", LYING, ids=range(len(LYING)))
def test_heads_that_lie_are_refused(head: bytes) -> None:
    with pytest.raises(WireError):
        unpack(len(head).to_bytes(4, "little") + head)


def test_the_token_is_asked_for_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert choose_token("127.0.0.1") == "" and len(choose_token("0.0.0.0")) >= 32
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(ValueError, match="5 characters"):
        choose_token("0.0.0.0")
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert choose_token("127.0.0.1") == choose_token("0.0.0.0") == TOKEN
    assert refusal({}, "") == "" == refusal({"authorization": f"Bearer {TOKEN}"}, TOKEN)
    for given_token in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer ÿ"):
        assert "needs its token" in refusal({"authorization": given_token}, TOKEN)
    assert "pages" in refusal({"origin": "http://127.0.0.1:8630", "authorization": f"Bearer {TOKEN}"}, TOKEN)


def test_speech_is_kept_until_it_was_heard() -> None:
    backlog, pcm = Backlog(), np.arange(1, 2401, dtype=np.float32)
    first = backlog.push("a", pcm, 24_000, last=False)
    assert backlog.push("a", pcm, 24_000, last=True) is first
    backlog.push("b", pcm, 16_000, last=True)
    assert backlog.queued_s == pytest.approx(0.2 + 0.15)
    backlog.frame("", False, 0.35)  # nothing of it sounds yet
    for _ in range(3):
        backlog.frame("a", True, 0.2)
    np.testing.assert_array_equal(first.rest(), np.concatenate([pcm, pcm])[2880:])
    backlog.frame("b", True, 0.1)  # another one sounds: the first is over, whatever was counted
    assert [utterance.name for utterance in backlog] == ["b"]
    assert backlog.drop("a") is False and backlog.drop("b") is True and backlog.queued_s == 0
    moved = backlog.push("c", pcm, 24_000, last=True)
    backlog.frame("c", True, 0.1)
    backlog.move()
    backlog.frame("", False, 0.0)  # of the next server, which does not have it yet
    assert list(backlog) == [moved] and moved.moved and len(moved.rest()) == 1440
    for _ in range(MISSED):
        backlog.frame("", False, 0.0)
    assert not list(backlog)  # it was refused there
    backlog.push("c", pcm, 24_000, last=True)
    assert backlog.drop(None) is True and not list(backlog)
