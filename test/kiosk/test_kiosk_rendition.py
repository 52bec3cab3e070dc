# SPDX-License-Identifier: Apache-2.0
"""Pictures follow the link: fewer and smaller ones over a bad one, all of them again when it is good."""

from __future__ import annotations

import asyncio

import aiohttp
import numpy as np
import pytest
from cdp import Page
from page_client import open_socket, receive, run, wait_for
from slow_link import SlowLink
from synthetic import SyntheticStream

from flowact_ros.kiosk.protocol import FRAME
from flowact_ros.kiosk.rendition import LADDER, LOW_LEVEL, PATIENCE_S, Link
from flowact_ros.media.jpeg import decode_jpeg, encode_jpeg


class Trial:
    """A link on a clock of its own, with a page that answers every 0.4 s."""

    def __init__(self) -> None:
        self.now = 100.0
        self.link = Link(self.now)
        self.frame, self.dropped = 0, 0

    def seconds(self, count: int, delay: float = 0.02, lost: int = 0, answers: bool = True) -> list[int]:
        """Levels after each second: of frames that take `delay`, while `lost` are dropped in front of the link."""
        levels = []
        for _ in range(count):
            for _ in range(25):
                self.frame += 1
                if self.frame % self.link.rendition.every == 0:
                    self.link.sent(self.frame, self.now)
                    if answers and self.frame % 10 == 0:
                        self.link.got(self.frame, self.now + delay)
                self.now += 0.04
            self.dropped += lost
            self.link.tick(self.dropped, self.now)
            levels.append(self.link.level)
        return levels


def test_a_good_link_gets_everything():
    trial = Trial()
    assert set(trial.seconds(60)) == {0} and trial.link.rendition.quality is None


@pytest.mark.parametrize("trouble", [{"delay": 0.9}, {"lost": 3}])
def test_a_bad_link_gets_less_step_by_step(trouble):
    levels = Trial().seconds(20, **trouble)
    assert levels[-1] == len(LADDER) - 1 and levels == sorted(levels)
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))


def test_a_page_that_falls_silent_is_on_a_bad_link():
    trial = Trial()
    trial.seconds(3)
    assert not trial.link.full(trial.now)
    assert trial.seconds(12, answers=False)[-1] >= 2
    assert trial.link.full(trial.now)  # nothing is sent after it until it answers, but for a frame a second
    assert not trial.link.full(trial.now + 1.1)
    trial.link.got(trial.frame, trial.now)
    assert not trial.link.full(trial.now)


def test_pages_that_never_answer_are_judged_by_what_is_lost_alone():
    trial = Trial()
    assert set(trial.seconds(30, answers=False)) == {0} and not trial.link.full(trial.now)


def test_it_comes_back_and_patience_grows_with_each_mistake():
    trial = Trial()
    trial.seconds(2, lost=5)
    assert trial.link.level == 1
    levels = trial.seconds(int(PATIENCE_S) + 2)
    assert levels[0] == 1 and levels[-1] == 0
    trial.seconds(1, lost=5)  # it was a mistake
    assert trial.link.level == 1
    assert set(trial.seconds(int(PATIENCE_S) + 5)) == {1}
    assert trial.seconds(int(PATIENCE_S))[-1] == 0


def test_wishes():
    trial = Trial()
    trial.link.wish("low")
    assert trial.link.level == LOW_LEVEL and trial.seconds(40)[-1] == LOW_LEVEL
    trial.link.wish("full")
    assert set(trial.seconds(10, lost=9)) == {0}
    trial.link.wish("auto")
    assert trial.seconds(4, lost=9)[-1] > 0


def test_every_rendition_is_smaller_than_the_one_before():
    rng = np.random.default_rng(1)
    picture = np.kron(rng.integers(0, 255, (40, 40, 3), np.uint8), np.ones((6, 6, 1), np.uint8))
    jpeg = encode_jpeg(picture)
    made = [(rendition, rendition.of(jpeg)) for rendition in LADDER]
    assert made[0][1] is jpeg
    rates = [len(data) / rendition.every for rendition, data in made]
    assert rates == sorted(rates, reverse=True)
    assert [decode_jpeg(data).shape[0] for _, data in made] == [240 // rendition.shrink for rendition in LADDER]


def test_a_page_that_wishes_for_less_gets_less_and_the_other_all(server):
    jpeg = encode_jpeg(np.full((64, 64, 3), 90, np.uint8))

    async def watch():
        async with aiohttp.ClientSession() as session:
            modest, other = [await open_socket(session, server, server.origin) for _ in range(2)]
            for page in (modest, other):
                await receive(page, 2)
            await modest.send_str('{"type": "quality", "want": "low"}')
            await modest.send_str('{"type": "stats"}')
            while server.stats()["reduced_pages"] != 1:
                await asyncio.sleep(0.01)
            for i in range(12):
                server.push_frame(jpeg, i / 25)
                await asyncio.sleep(0.02)
            return await receive(modest, 12 // LADDER[LOW_LEVEL].every), await receive(other, 12)

    less, everything = run(watch())
    every = LADDER[LOW_LEVEL].every
    assert [(m.kind, m.sequence, m.rate) for m in less] == [(FRAME, n, every) for n in range(every, 13, every)]
    assert decode_jpeg(less[0].payload).shape == (64, 64, 3) and less[0].payload != jpeg
    assert [(m.sequence, m.rate) for m in everything] == [(n, 0) for n in range(1, 13)]


def test_what_only_begins_like_a_jpeg_harms_no_link(server):
    async def watch():
        async with aiohttp.ClientSession() as session:
            page = await open_socket(session, server, server.origin)
            await receive(page, 2)
            await page.send_str('{"type": "quality", "want": "low"}')
            while not server.stats()["reduced_pages"]:
                await asyncio.sleep(0.01)
            for _ in range(3):
                server.push_frame(b"\xff\xd8" + bytes(100), 0.0)
            for i in range(3):
                await asyncio.sleep(0.05)
                server.push_frame(encode_jpeg(np.zeros((16, 16, 3), np.uint8)), 1.0 + i)
            return await receive(page, 1)

    assert run(watch())[0].sequence == 6


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_behind_a_slow_link_keeps_the_face_and_loses_frames(server):
    """Frames of noise need 1.4 MB/s; 0.25 MB/s come through. What is drawn stays near its time."""
    with SyntheticStream(server, flashes=False, noise=True), SlowLink(server.port, 250_000) as link:
        with Page(f"http://127.0.0.1:{link.port}/", width=400, height=300) as page:
            page.wait_for("window.flowact.stats().drawn > 5")
            page.wait_until(lambda: any(p["rendition"] >= 2 for p in server.stats()["pages"]), "fewer frames")
            drawn = page.stats()["drawn"]
            page.wait_for(f"window.flowact.stats().drawn > {drawn + 20}")
            assert page.evaluate("window.flowact.video.reduced") is True
            page.wait_until(lambda: page.stats()["connections"] == 1 and page.stats()["fps"] > 3, "it still moves")
            # Somebody at the screen may insist.
            page.key("s")
            page.evaluate(
                "(() => { const s = document.querySelector('select[name=quality]'); s.value = 'low';"
                " s.dispatchEvent(new Event('input', { bubbles: true })); })()"
            )
            page.wait_until(lambda: any(p["rendition"] >= LOW_LEVEL for p in server.stats()["pages"]), "the wish")
    wait_for(lambda: server.clients == 0)
