# SPDX-License-Identifier: Apache-2.0
"""What people do at the screen: touch to talk and to stop, by hand and by keyboard, and the page's own microphone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import aiohttp
import numpy as np
import pytest
from cdp import Page
from page_client import PATIENCE_S, receive, run
from synthetic import SyntheticStream

from flowact_ros.kiosk.display import Display
from flowact_ros.kiosk.hub import PageEvent
from flowact_ros.kiosk.protocol import VOICE, pack
from flowact_ros.kiosk.server import KioskError, KioskServer

IDLE = {"behaviour": "IDLE", "speaking": False, "listens": True}
SPEAKING = {"behaviour": "SPEAKING", "speaking": True, "listens": True}
BUTTON = "(b => b.hidden ? '' : b.textContent.trim() + (b.disabled ? '' : '!'))(document.getElementById('turn'))"
FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


class Kiosk:
    """A server whose pages may do everything, what they did, and a page in a browser."""

    def __init__(self, server: KioskServer, page: Page, events: list[PageEvent]) -> None:
        self.server, self.page, self.events = server, page, events

    def shows(self, label: str) -> None:
        """A label ends with ! when it can be pressed."""
        self.page.wait_for(f"{BUTTON} === {label!r}")

    def did(self, act: Callable[[], object], *kinds: tuple[str, object]) -> None:
        """What people do, and nothing else, comes of `act`."""
        self.events.clear()
        act()
        self.page.wait_until(lambda: len(self.events) >= len(kinds), f"{kinds}, got {self.events}")
        time.sleep(0.15)
        assert [(event.kind, event.value) for event in self.events] == list(kinds)
        assert {event.page for event in self.events} == {self.name}

    @property
    def name(self) -> str:
        return str(self.page.stats()["page"])

    def turn(self, **turn: str) -> None:
        self.server.set_state({**IDLE, "turn": {"page": self.name, **turn}})


def kiosk(talk: str, flags: tuple[str, ...] = (), **size: int):
    events: list[PageEvent] = []
    display = Display(talk=talk, stop=True)
    with KioskServer(port=0, display=display, on_event=events.append) as server:
        with SyntheticStream(server, flashes=False, states=False), Page(server.url, flags=flags, **size) as page:
            server.set_state(IDLE)
            page.wait_for("window.flowact.stats().drawn > 10")
            yield Kiosk(server, page, events)


@pytest.fixture(scope="module")
def push():
    yield from kiosk("push")


@pytest.fixture(scope="module")
def tablet():
    """An upright one that gives the page a microphone, in which something beeps."""
    yield from kiosk("page", FAKE_MICROPHONE, width=480, height=800)


@pytest.mark.browser
def test_touch_to_stop(push):
    push.server.set_state(SPEAKING)
    push.shows("Touch to stop!")
    push.did(lambda: push.page.click(*push.page.middle("#turn")), ("stop", None))
    push.did(lambda: push.page.key(" "), ("stop", None))
    push.did(lambda: push.page.click(300, 120), ("stop", None))  # the face


@pytest.mark.browser
def test_touch_to_talk_and_to_end_it(push):
    push.server.set_state(IDLE)
    push.shows("Touch to talk!")
    push.did(lambda: push.page.click(*push.page.middle("#turn")), ("talk", True))
    push.turn(phase="opening")
    push.shows("One moment")
    push.turn(phase="open")
    push.shows("I'm listening!")
    push.did(lambda: push.page.click(*push.page.middle("#turn")), ("talk", False))
    push.server.set_state({**IDLE, "behaviour": "THINKING"})
    push.shows("Thinking")


@pytest.mark.browser
def test_held_it_is_a_push_to_talk_key(push):
    push.server.set_state(IDLE)
    push.shows("Touch to talk!")
    push.did(lambda: push.page.hold(*push.page.middle("#turn"), 0.6), ("talk", True), ("talk", False))
    push.did(lambda: push.page.key(" "), ("talk", True))  # a short press leaves it on
    # By keyboard or by a screen reader the button is clicked without a pointer.
    push.did(lambda: push.page.evaluate("document.getElementById('turn').click()"), ("talk", True))


@pytest.mark.browser
def test_a_tap_on_a_busy_page_is_no_hold(push):
    """The page learns of its end long after the finger has left."""
    push.server.set_state(IDLE)
    push.shows("Touch to talk!")
    push.page.evaluate(
        "addEventListener('pointerdown', () => { const end = performance.now() + 1500;"
        " while (performance.now() < end); }, { once: true })"
    )
    push.did(lambda: push.page.click(*push.page.middle("#turn")), ("talk", True))


@pytest.mark.browser
def test_others_see_who_has_the_turn_and_that_something_failed(push):
    push.server.set_state({**IDLE, "turn": {"page": "another", "phase": "open"}})
    push.shows("Somebody is talking")
    push.events.clear()
    push.page.key(" ")
    push.server.set_state({**IDLE, "turn": {"page": push.name, "problem": "The microphone does not answer"}})
    push.shows("The microphone does not answer")
    assert not push.events


@pytest.mark.browser
def test_the_microphone_of_the_page_is_open_during_a_turn_only(tablet):
    tablet.shows("Touch to talk!")
    tablet.events.clear()
    tablet.page.click(*tablet.page.middle("#turn"))
    tablet.page.wait_until(lambda: tablet.events, "the wish to talk")
    tablet.turn(phase="open")
    tablet.page.wait_until(lambda: len(tablet.events) > 30, "a voice")
    assert (tablet.events[0].kind, tablet.events[0].value) == ("talk", True)
    voice = [event for event in tablet.events if event.kind == "voice"]
    assert {event.rate for event in voice} == {16_000} and {len(event.value) for event in voice} == {1280}
    pcm = np.concatenate([np.frombuffer(event.value, "<i2") for event in voice]).astype(float)
    assert 100 < np.abs(pcm).max() <= 32767  # the browser's beeps
    tablet.server.set_state(IDLE)  # the turn is over
    tablet.shows("Touch to talk!")

    def silent() -> bool:
        """What was on its way has come, and nothing more is sent."""
        count = len(tablet.events)
        time.sleep(1.0)  # in which an open microphone sends 25 times
        return len(tablet.events) == count

    tablet.page.wait_until(silent, "the microphone's end")
    assert silent()


@pytest.mark.browser
def test_a_page_that_gets_no_microphone_says_so(push):
    """Its browser has none, or does not allow it."""
    with KioskServer(port=0, display=Display(talk="page"), on_event=push.events.append) as server:
        with SyntheticStream(server, flashes=False, states=False), Page(server.url) as page:
            server.set_state(IDLE)
            page.wait_for(f"{BUTTON} === 'Touch to talk!'")
            push.events.clear()
            page.key(" ")
            page.wait_for(f"/microphone/.test({BUTTON})")
            page.wait_until(lambda: [e.value for e in push.events if e.kind == "talk"] == [True, False], "its end")


def closes(server: KioskServer, *messages: str | bytes) -> list[int | None]:
    """The code with which a page that sends this is closed; None: it is not."""

    async def send() -> list[int | None]:
        codes: list[int | None] = []
        async with aiohttp.ClientSession() as session:
            for message in messages:
                page = await session.ws_connect(
                    server.origin + "/ws", headers={"Origin": server.origin}, max_msg_size=0, autoping=False
                )
                await receive(page, 2)
                await (page.send_bytes(message) if isinstance(message, bytes) else page.send_str(message))
                # Messages are read in order: it is closed before this is answered, or it is not closed at all.
                with contextlib.suppress(ConnectionError):
                    await page.ping()
                while (answer := await page.receive(timeout=PATIENCE_S)).type is aiohttp.WSMsgType.BINARY:
                    pass  # the state
                codes.append(None if answer.type is aiohttp.WSMsgType.PONG else page.close_code)
                await page.close()
        return codes

    return run(send())


TALK, STOP, SOUND = '{"type":"talk","on":true}', '{"type":"stop"}', pack(VOICE, bytes(640), rate=16_000)


def test_a_page_does_only_what_it_may():
    events: list[PageEvent] = []
    for display, codes in (
        (Display(), [1008, 1008, 1008]),
        (Display(stop=True), [1008, None, 1008]),
        (Display(talk="push"), [None, 1008, 1008]),
        (Display(talk="page"), [None, 1008, None]),
    ):
        with KioskServer(port=0, display=display, on_event=events.append) as server:
            assert closes(server, TALK, STOP, SOUND) == codes
    assert [event.kind for event in events if event.kind != "left"] == ["stop", "talk", "talk", "voice"]
    assert sum(event.kind == "left" for event in events) == 12
    with pytest.raises(KioskError, match="on_event"):
        KioskServer(port=0, display=Display(stop=True))
