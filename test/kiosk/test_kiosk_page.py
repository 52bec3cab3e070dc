# SPDX-License-Identifier: Apache-2.0
"""The page in a real headless Chromium: picture, sound, their agreement, and coming back after a break."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest
from cdp import Page
from PIL import Image
from synthetic import FLASH_EVERY, SyntheticStream

from flowact_ros.kiosk.server import KioskServer
from flowact_ros.timebase import FRAME_RATE

pytestmark = pytest.mark.browser

# The walking bar's left edge in the drawn picture, -1 on a flash, with the pts the page says it has drawn.
READ_PICTURE = """(() => {
  const c = document.getElementById('picture'), row = c.getContext('2d').getImageData(0, c.height / 2, c.width, 1).data;
  const pts = window.flowact.video.drawnPts;
  if (row[2] > 200 && row[4 * 239 + 2] > 200) return [pts, -1];
  for (let x = 0; x < c.width; x += 1) if (row[4 * x] > 150) return [pts, x];
  return [pts, -2];
})()"""

# Every refresh: when the picture flashes and when the beep of the same second leaves the loudspeaker, both in
# performance time and found in the pixels and samples themselves, not through the page's own book-keeping.
WATCH_FLASHES = """(() => {
  const { audio, video } = window.flowact;
  const analyser = audio.context.createAnalyser();
  analyser.fftSize = 2048;
  audio.output.connect(analyser);
  const wave = new Float32Array(2048);
  window.flashes = []; window.beeps = [];
  let white = false, lastBeep = -1;
  (function look() {
    requestAnimationFrame(look);
    const pixel = video.context.getImageData(2, 2, 1, 1).data, now = performance.now();
    if (pixel[0] > 200 && !white) window.flashes.push(now);
    white = pixel[0] > 200;
    analyser.getFloatTimeDomainData(wave);
    const rendered = audio.context.currentTime, stamp = audio.context.getOutputTimestamp();
    const first = wave.findIndex((v) => Math.abs(v) > 0.1);
    if (first > 0 && rendered - lastBeep > 0.5) {
      lastBeep = rendered;
      const at = rendered - (2048 - first) / audio.context.sampleRate;
      window.beeps.push(stamp.performanceTime + (at - stamp.contextTime) * 1000);
    }
  })();
})()"""

# How far content time and performance time drift apart from one refresh to the next, and whether that is of another
# clock than the one before.
WATCH_STEPS = """(() => {
  window.steps = [];
  let last = null;
  (function look() {
    requestAnimationFrame(look);
    const now = performance.now(), at = window.flowact.clock.at(now);
    const source = window.flowact.stats().clock;
    if (last) window.steps.push([(at - last.at) * 1000 - (now - last.now), source !== last.source]);
    last = { now, at, source };
  })();
})()"""


@pytest.fixture(scope="module")
def quiet_page():
    """A page to which nothing is streamed, for the modules it is made of."""
    with KioskServer(port=0) as running, Page(running.url) as page:
        page.wait_for("window.flowact")
        yield page


def in_step(page, samples=120, worst_ms=40.0):
    """Waits for a stretch of sound (2 s of screen refreshes) in which the 95th percentile of |pts drawn - pts heard|
    is within the bar: a machine busy with other tests may miss it for a while, a wrong clock never gets there."""

    def good():
        skew = np.abs(page.evaluate("window.flowact.skewSamples()")[-samples:])
        return skew.size == samples and np.quantile(skew, 0.95) <= worst_ms

    page.wait_until(good, f"skew p95 <= {worst_ms} ms", 60)
    assert page.stats()["clock"] == "audio"


@pytest.mark.slow
def test_picture_moves_with_the_sound(server):
    with SyntheticStream(server) as stream, Page(server.url) as page:
        page.wait_for("window.flowact.stats().clock === 'audio'")
        page.evaluate(WATCH_FLASHES)
        seen = []
        deadline = time.monotonic() + 60
        while len(seen) < 40 or (len(set(seen)) <= 15 and time.monotonic() < deadline):
            pts, x = page.evaluate(READ_PICTURE)
            index = round((pts - stream.base) * FRAME_RATE)
            seen.append(index)
            # what is on the canvas is the frame with that pts, not a neighbour
            expected = -1 if index % FLASH_EVERY == 0 else index * 8 % 216
            assert abs(x - expected) <= 2, (index, x, expected)
            time.sleep(0.05)
        assert len(set(seen)) > 15 and seen == sorted(seen)
        in_step(page)
        page.wait_for("window.flashes.length > 4 && window.beeps.length > 4")
        flashes, beeps = page.evaluate("[window.flashes, window.beeps]")
        apart = [min((flash - beep for beep in beeps), key=abs) for flash in flashes[1:]]
        assert abs(np.median(apart)) <= 45, apart
        assert page.evaluate("document.getElementById('sound').hidden") is True
        stats = page.stats()
        assert stats["audio"] == "running" and stats["broken"] == 0

        def whole():
            """For a while no picture is missing: the server drops some in front of a page that stands still."""
            before = page.stats()
            page.wait_for(f"window.flowact.stats().drawn > {before['drawn'] + 25}")
            return page.stats()["missing"] == before["missing"]

        page.wait_until(whole, "a stream that is whole", 120)
        assert not [line for line in page.console if "Error" in line or "Refused" in line], page.console
        page.wait_until(lambda: [p for p in server.stats()["pages"] if p["clock"] == "audio"], "stats arrive")


def test_without_permission_the_picture_runs_and_a_tap_brings_sound(server):
    with SyntheticStream(server), Page(server.url, allow_sound=False) as page:
        page.wait_for("window.flowact.stats().drawn > 30")
        stats = page.stats()
        assert (stats["clock"], stats["audio"], stats["playing"]) == ("monotonic", "suspended", False)
        hint = page.evaluate(
            "(() => { const b = document.getElementById('sound'), r = b.getBoundingClientRect();"
            " return [b.innerText.trim(), r.width > 80 && r.height >= 44,"
            " document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2).closest('#sound') !== null]; })()"
        )
        assert hint == ["Tap for sound", True, True]
        page.evaluate(WATCH_STEPS)
        page.click(300, 200)  # anywhere
        page.wait_for("window.flowact.stats().clock === 'audio'")
        page.wait_for("document.getElementById('sound').hidden")
        in_step(page)
        steps, changes = map(np.array, zip(*page.evaluate("window.steps")))
        assert np.median(np.abs(steps)) < 5 and changes.any()
        near = np.convolve(changes, np.ones(5), "same") > 0
        assert np.abs(steps[near]).max() < 80  # the change of clocks is not a jump; that of a starved browser is
        assert page.stats()["jumps"] == 0


@pytest.mark.slow
def test_it_comes_back_after_the_server(server):
    port = server.port
    with Page(server.url) as page:
        with SyntheticStream(server):
            page.wait_for("window.flowact.stats().drawn > 20")
            first = page.stats()
        server.close()
        page.wait_for("document.body.dataset.connection === 'reconnecting'")
        assert page.evaluate("document.getElementById('corner-state').textContent") == "reconnecting"
        time.sleep(0.5)
        with KioskServer(port=port) as again, SyntheticStream(again):
            page.wait_for(f"window.flowact.stats().drawn > {first['drawn'] + 30}")
            stats = page.stats()
            assert (
                stats["connection"] == "live" and stats["connections"] == 2 and stats["run"] != first["run"]
            )
            in_step(page)


def asks_for_socket(connection: socket.socket) -> bool:
    """Browsers open connections beforehand as well, on which nothing comes."""
    connection.settimeout(1.0)
    try:
        return b"/ws" in connection.recv(16, socket.MSG_PEEK)
    except OSError:
        return False


@pytest.mark.slow
def test_a_connection_that_nobody_answers_is_made_anew(server):
    """The server stands still while the page opens its connection, or the network takes it away just then."""
    port = server.port
    with Page(server.url) as page:
        page.wait_for("window.flowact?.stats().connection === 'live'")
        server.close()
        asked = []
        with socket.create_server(("127.0.0.1", port)) as silent:
            silent.settimeout(60.0)
            while not any(map(asks_for_socket, asked)):
                asked.append(silent.accept()[0])
        try:
            with KioskServer(port=port):
                page.wait_for("window.flowact.stats().connection === 'live'", 60)
        finally:
            for connection in asked:
                connection.close()


@pytest.mark.slow
def test_a_pause_of_the_stream_is_shown_and_survived(server):
    with SyntheticStream(server) as stream, Page(server.url) as page:
        page.wait_for("window.flowact.stats().clock === 'audio'")
        stream.paused.set()
        page.wait_for("document.body.classList.contains('stalled')")
        assert page.stats()["clock"] == "monotonic" and page.stats()["connection"] == "live"
        page.wait_for("document.getElementById('announcer').textContent === 'no picture'")
        stream.paused.clear()
        page.wait_for(
            "!document.body.classList.contains('stalled') && window.flowact.stats().clock === 'audio'"
        )
        in_step(page)


@pytest.mark.parametrize("set_by_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_stops_neither_picture_nor_sound(server, set_by_s):
    """Stamps follow the machine's clock: of a robot that starts with a wrong one they move when it is set."""
    with SyntheticStream(server) as stream, Page(server.url) as page:
        page.wait_for("window.flowact.stats().clock === 'audio'")
        before = stream.base
        stream.base += set_by_s
        middle = before + set_by_s / 2
        beyond = f"> {middle}" if set_by_s > 0 else f"< {middle}"
        page.wait_for(f"window.flowact.stats().drawnPts !== null && window.flowact.stats().drawnPts {beyond}")
        page.wait_for(f"window.flowact.stats().heardPts !== null && window.flowact.stats().heardPts {beyond}")
        in_step(page)


def test_without_sound_in_the_stream_the_picture_still_runs(server):
    with SyntheticStream(server, sound=False), Page(server.url) as page:
        page.wait_for("window.flowact.stats().drawn > 50")
        stats = page.stats()
        assert stats["clock"] == "monotonic" and stats["audio"] == "running" and stats["skew"]["count"] == 0


def test_lost_late_doubled_and_reordered_sound_leaves_no_skew(server):
    with SyntheticStream(server, damage=0.05, jitter_s=0.05), Page(server.url) as page:
        page.wait_for("window.flowact.stats().gaps > 3")
        in_step(page)

        def undisturbed():
            """Pieces are lost, and the sound is not begun anew for it: a browser without a processor does so, too."""
            before = page.stats()
            page.wait_for(f"window.flowact.stats().gaps > {before['gaps'] + 3}")
            return page.stats()["skips"] == before["skips"]

        page.wait_until(undisturbed, "lost pieces without a new beginning", 120)


def test_a_fast_server_clock_is_followed_by_at_most_half_a_percent(server):
    with SyntheticStream(server, pace=1.01) as stream, Page(server.url) as page:
        page.wait_for("window.flowact.stats().pace > 1.001")
        paces = []

        def steadily_faster():
            paces.append(page.stats()["pace"])
            return len(paces) > 10 and min(paces[-10:]) > 1.0002

        page.wait_until(steadily_faster, "the page keeps running faster", 60)
        assert 0.995 <= min(paces) and max(paces) <= 1.005
        in_step(page)
        assert stream.server.stats()["clients"] == 1


def test_resampler_is_seamless_and_says_when_each_sample_is(quiet_page):
    """Pieces of a tone, resampled at changing ratios, equal the tone at the times the resampler claims."""
    script = """import('/audio.js').then(({ StreamResampler }) => {
      const tone = (n) => Math.sin(2 * Math.PI * 300 * n / 24000);
      const run = (ratios) => {
        const r = new StreamResampler();
        let given = 0, made = 0, worst = 0, worstGap = 0, previous = null;
        for (let k = 0; k < 50; k += 1) {
          const length = [960, 1, 2, 957, 480][k % 5], ratio = ratios[k % ratios.length];
          const input = Float32Array.from({ length }, (_, i) => tone(given + i));
          const { samples, start } = r.push(input, ratio);
          samples.forEach((v, j) => { if (k) worst = Math.max(worst, Math.abs(v - tone(given + start + j / ratio))); });
          if (samples.length) {
            if (previous !== null) worstGap = Math.max(worstGap, Math.abs(given + start - previous));
            previous = given + start + samples.length / ratio;
          }
          given += length; made += samples.length;
        }
        return { worst, worstGap, given, made };
      };
      return { same: run([1]), drift: run([1.005, 0.995, 1, 1.002]), double: run([2]) };
    })"""
    result = quiet_page.evaluate(script)
    for name, ratio, worst in (("same", 1.0, 1e-6), ("drift", 1.0, 1e-4), ("double", 2.0, 1e-3)):
        assert result[name]["worst"] < worst and result[name]["worstGap"] < 1e-6
        assert abs(result[name]["made"] - ratio * result[name]["given"]) < 30 * ratio


def test_scheduled_pieces_join_to_the_sample(quiet_page):
    """The browser plays back-to-back pieces exactly as one: what the player relies on instead of a worklet."""
    script = """(async () => {
      const rate = 24000, context = new OfflineAudioContext(1, rate, rate);
      let at = 100;
      const expected = new Float32Array(rate);
      for (let k = 0; at < rate - 1000; k += 1) {
        const length = 955 + (k * 7) % 11, buffer = context.createBuffer(1, length, rate);
        const data = Float32Array.from({ length }, (_, i) => Math.sin((at + i) * 0.37) * 0.9);
        buffer.copyToChannel(data, 0);
        expected.set(data, at);
        const source = context.createBufferSource();
        source.buffer = buffer; source.connect(context.destination); source.start(at / rate);
        at += length;
      }
      const out = (await context.startRendering()).getChannelData(0);
      return out.reduce((worst, v, i) => Math.max(worst, Math.abs(v - expected[i])), 0);
    })()"""
    assert quiet_page.evaluate(script) < 1e-4


def test_broken_pictures_and_hostile_states_change_nothing(server):
    with Page(server.url) as page:
        page.wait_for("window.flowact?.stats().connection === 'live'")
        for k in range(5):
            server.push_frame(b"\xff\xd8" + bytes(100), k / 25)
        evil = "<img src=x onerror=window.hacked=1>" * 20
        server.set_state(
            {"behaviour": evil, "message": evil, evil: {"a": [evil]}, "fps": None, "speaking": 7}
        )
        page.wait_for("document.getElementById('waiting-text').textContent.startsWith('<img src=x')")
        page.key("d")
        page.wait_for("window.flowact.stats().broken === 5")
        page.wait_for("document.getElementById('details-list').textContent.includes('onerror')")
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.evaluate("window.hacked") is None
        with SyntheticStream(server):
            page.wait_for("window.flowact.stats().drawn > 20")


def test_looks_and_keys(server, tmp_path):
    """Full-bleed picture, edge colours beside it, a corner with words; D and F do what they say."""
    with SyntheticStream(server, flashes=False), Page(server.url, width=900, height=500) as page:
        page.wait_for("window.flowact.stats().drawn > 30")
        time.sleep(1.2)  # the picture fades in
        shot = np.asarray(Image.open(page.screenshot(tmp_path / "page.png")).convert("RGB")).astype(int)
        assert shot.shape == (500, 900, 3)
        # the picture's teal up to its top, and beside it the same, darker towards the screen's edge
        assert shot[60, 450, 1] > 50
        assert np.abs(shot[60, 215] - shot[60, 450]).max() < 16 and shot[60, 3].sum() < shot[60, 215].sum()
        page.wait_for("/speaking|ready/.test(document.getElementById('corner-state').textContent)")
        assert page.evaluate("document.getElementById('announcer').getAttribute('aria-live')") == "polite"
        assert page.evaluate("document.getElementById('details').hidden") is True
        page.key("d")
        page.wait_for("!document.getElementById('details').hidden")
        details = page.evaluate("document.getElementById('details').innerText")
        assert (
            "240 × 240" in details and "behaviour" in details and "underruns" in details and " fps" in details
        )
        page.key("d")
        page.wait_for("document.getElementById('details').hidden")
        page.key("f")
        page.wait_for("document.fullscreenElement !== null")
        page.key("f")
        page.wait_for("document.fullscreenElement === null")


@pytest.mark.parametrize("bare", [False, True])
def test_on_an_upright_screen_the_picture_stands_behind_a_counter(server, tmp_path, bare):
    with SyntheticStream(server, flashes=False), Page(server.url, width=400, height=700) as page:
        page.wait_for("window.flowact.stats().drawn > 30")
        if bare:  # without captions, and nobody to touch it for: no counter
            page.key("c")
        time.sleep(1.6)  # picture and counter fade in
        shot = np.asarray(Image.open(page.screenshot(tmp_path / "page.png")).convert("RGB")).astype(int)
        assert shot.shape == (700, 400, 3)
        end = 697 if bare else 521  # 176 px of counter
        top = end - 380
        # teal from there to the lowest line, the same above it, darker towards the screen's edge
        assert np.abs(shot[end, 100] - shot[top, 100]).max() < 16 and shot[top, 100, 1] > 50
        assert (
            np.abs(shot[top - 18, 100] - shot[top, 100]).max() < 16
            and shot[3, 100].sum() < shot[top, 100].sum()
        )
        if not bare:
            assert shot[620, 100].max() <= 48 and shot[620, 100, 0] < shot[620, 100, 1]  # dark, of its hue
