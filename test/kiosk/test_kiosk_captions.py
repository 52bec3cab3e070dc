# SPDX-License-Identifier: Apache-2.0
"""Captions of both sides and the cue of the user's turn, in a real browser; what is touched: test_kiosk_touch.py."""

from __future__ import annotations

import pytest
from cdp import Page
from synthetic import SyntheticStream

TEXT = "document.getElementById('{}').textContent"
SHOWN = "!document.getElementById('{}').hidden"


def text(page: Page, name: str) -> object:
    return page.evaluate(TEXT.format(name))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(900, 500), (400, 700)])
def test_captions_and_the_turn(server, width: int, height: int) -> None:
    with (
        SyntheticStream(server, flashes=False, states=False) as stream,
        Page(server.url, width=width, height=height) as page,
    ):
        page.wait_for("window.flowact.stats().drawn > 10")
        for name in ("heard", "said", "turn"):
            assert page.evaluate(f"!({SHOWN.format(name)})")
        now = float(page.evaluate("window.flowact.stats().contentTime"))  # type: ignore[arg-type]
        assert now > stream.base
        idle = {"behaviour": "IDLE", "speaking": False, "listens": True}
        server.set_state(idle)
        page.wait_for(f"{SHOWN.format('turn')} && {TEXT.format('turn')}.trim() === 'Your turn'")
        server.set_state(
            {**idle, "behaviour": "LISTENING", "heard": {"text": "<b>When</b> do you", "pts": now}}
        )
        page.wait_for(f"{TEXT.format('turn')}.trim() === 'Listening'")
        page.wait_for(f"{TEXT.format('heard')} === '<b>When</b> do you'")
        assert page.evaluate("document.querySelectorAll('b').length") == 0
        # What comes later is not shown earlier: its time is still to come.
        now = float(page.evaluate("window.flowact.stats().contentTime"))  # type: ignore[arg-type]
        speaking = {"behaviour": "SPEAKING", "speaking": True, "listens": True}
        server.set_state({**speaking, "said": {"text": "We", "pts": now}})
        # Seen where it belongs, at one and the same time: some seconds after its last word it goes.
        inside = "(r => r.left >= 0 && r.right <= innerWidth && r.bottom <= innerHeight && r.top > innerHeight / 2)"
        box = "document.getElementById('said').getBoundingClientRect()"
        page.wait_for(f"{TEXT.format('said')} === 'We' && {SHOWN.format('said')} && {inside}({box})")
        server.set_state({**speaking, "said": {"text": "We open", "pts": now + 1e6}})
        page.wait_for("window.flowact.stats().state.said.text === 'We open'")
        assert text(page, "said") == "We" and page.evaluate(f"!({SHOWN.format('turn')})")
        page.wait_for(f"!({SHOWN.format('said')})")  # some seconds after its last word
        # Switched off, no text is to be seen; whose turn it is remains.
        page.key("c")
        now = float(page.evaluate("window.flowact.stats().contentTime"))  # type: ignore[arg-type]
        server.set_state({**idle, "said": {"text": "Until five", "pts": now}})
        page.wait_for(SHOWN.format("turn"))
        page.wait_for(f"window.flowact.stats().contentTime > {now + 0.2}")
        assert page.evaluate(f"!({SHOWN.format('said')})")
        page.key("c")
        server.set_state({**idle, "said": {"text": "Until six", "pts": now + 0.5}})
        page.wait_for(f"{TEXT.format('said')} === 'Until six'")


def test_nobody_has_a_turn_where_nobody_hears_him(server) -> None:
    with SyntheticStream(server, flashes=False, states=False), Page(server.url) as page:
        page.wait_for("window.flowact.stats().drawn > 5")
        for state in ({}, {"listens": False}, {"listens": True, "speaking": True}, {"listens": "yes"}):
            server.set_state({"behaviour": "IDLE", "mark": len(state), **state})
            page.wait_for(f"window.flowact.stats().state.mark === {len(state)}")
            assert page.evaluate(f"!({SHOWN.format('turn')})")
