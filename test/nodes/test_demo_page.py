# SPDX-License-Identifier: Apache-2.0
"""The demo as people see it: shipped weights, all nodes, the page in a real headless Chromium.

Every comparison is within one run and by the stream's own stamps: a machine that is slow or busy shows fewer frames
and needs longer, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cdp import Page, need_chromium
from demo_page import PATIENCE_S, Demo, Shown, picture, shown, wait_for_frames, watch

from flowact_ros.data.characters import NAMED, feature_boxes, neutral
from flowact_ros.engine.characters import load_character
from flowact_ros.evaluation.rig_readout import LINES, column, load_readout, read
from flowact_ros.media.wav import read_audio, write_wav

pytestmark = [
    pytest.mark.ros,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # half a minute on two free cores
    pytest.mark.usefixtures("domain"),
]

CHARACTER = "mia"
SENTENCE = Path(__file__).resolve().parents[2] / "config" / "demo.wav"
SOUNDING, SILENT = 60, 25  # new pictures that a comparison needs of each
OVER_S = 6.0  # without a sound for so long: the sentence is over (it pauses for less, and starts in less)
SMALL = {"width": 480, "height": 480}  # of the page: it is drawn without a GPU


@pytest.fixture
def start(python_path: str, tmp_path: Path) -> Callable[..., Demo]:
    need_chromium()
    return lambda *arguments: Demo(
        python_path, tmp_path / "log", "--character", CHARACTER, "--seconds", "580", *arguments
    )


def loudness(wav: Path) -> float:
    return float(np.sqrt(np.mean(read_audio(wav)[0] ** 2)))


def look(page: Page, url: str) -> None:
    """Opens the demo's page in a browser that runs already, and notes all frames."""
    page.send("Page.navigate", url=url)
    watch(page, (0.5, 0.5), 1.0, LINES)


def nearest_character(rgb: np.ndarray) -> str:
    """The shipped character whose neutral picture differs least, at 24 × 24 cells."""

    def cells(image: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 24)

    seen = cells(rgb)
    return min(NAMED, key=lambda name: float((cells(load_character(name)) - seen).abs().mean()))


def opening(pictures: np.ndarray) -> np.ndarray:
    """How far the mouth is open in each picture, in lines of a 512 canvas, read from its pixels."""
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    reference = torch.from_numpy(load_character(CHARACTER)).permute(2, 0, 1)
    return read(load_readout()[0], frames, reference)[:, column("opening")] * 512


def movement(rows: Shown, part: np.ndarray) -> float:
    """Mean change around the mouth from one new picture to the next within 0.2 s, in grey levels.

    Where the machine was late, the next is not the next frame.
    """
    new = np.flatnonzero(part)
    pairs = np.flatnonzero(np.diff(rows.pts[new]) < 0.2)
    assert len(pairs), f"no two of {len(new)} new pictures follow each other within 0.2 s"
    before, after = (rows.mouths(np.isin(np.arange(len(part)), new[pairs + k])) for k in (0, 1))
    x0, y0, x1, y1 = feature_boxes(NAMED[CHARACTER], neutral(1), LINES)["mouth"][0].int().tolist()
    return float(np.abs(after.astype(np.float32) - before)[:, y0:y1, x0:x1].mean())


def test_the_mouth_moves_while_its_sound_plays_and_rests_in_silence(start: Callable[..., Demo]) -> None:
    loud = 0.3 * loudness(SENTENCE)

    def heard(rows: Shown) -> bool:
        return rows.sounding(loud).sum() >= SOUNDING

    def rested(rows: Shown) -> bool:
        return rows.silent(loud / 10).sum() >= SILENT

    with Page("about:blank", **SMALL) as page, start("--wav", str(SENTENCE)) as demo:
        look(page, demo.told(r"page: (http\S+)"))
        for _ in range(3):
            rows = wait_for_frames(page, lambda rows: heard(rows) or rows.rest(loud / 10) > OVER_S, "sound")
            if heard(rows):
                break
            demo.say(SENTENCE)  # a machine that shows few new pictures needs more of it
        assert heard(rows), (
            f"{rows.sounding(loud).sum()} of {len(rows.pts)} pictures with sound; {page.stats()}"
        )
        rows = wait_for_frames(page, rested, f"{SILENT} new pictures without sound")
        stats = page.stats()
        assert page.evaluate("document.getElementById('sound').hidden") is True
        assert nearest_character(picture(page)) == CHARACTER
        assert not [line for line in page.console if "Error" in line or "Refused" in line], page.console

    # Sound leads: the context runs, what is heard goes on in content time, pictures follow it.
    assert (stats["audio"], stats["broken"]) == ("running", 0)
    at = rows.heard[~np.isnan(rows.heard)]
    assert len(at) > len(rows.heard) / 4 and at[-1] > at[0] + 2
    assert (np.diff(rows.played) >= 0).all() and rows.played[-1] > rows.played[0] + 2
    steps = np.diff(rows.pts) * 25
    assert (steps > 0.5).all() and np.abs(steps - np.round(steps)).max() < 0.01

    sounding, silent = rows.sounding(loud), rows.silent(loud / 10)
    spread = [float(np.std(opening(rows.mouths(part)))) for part in (sounding, silent)]
    motion = [movement(rows, part) for part in (sounding, silent)]
    found = (
        f"{sounding.sum()} new pictures with sound, {silent.sum()} without; opening, std in lines: {spread[0]:.2f}"
        f" and {spread[1]:.2f}; change from one to the next, grey levels: {motion[0]:.2f} and {motion[1]:.2f}"
    )
    print(found)
    assert spread[0] > 3 * spread[1] and spread[0] > 1, found
    assert motion[0] > motion[1], found


def test_without_permission_a_silent_picture_until_a_tap(start: Callable[..., Demo], tmp_path: Path) -> None:
    pcm, rate = read_audio(SENTENCE)
    wav = tmp_path / "short.wav"
    write_wav(wav, pcm[: 2 * rate], rate)
    with Page("about:blank", allow_sound=False, **SMALL) as page, start("--wav", str(wav)) as demo:
        look(page, demo.told(r"page: (http\S+)"))
        rows = wait_for_frames(page, lambda rows: rows.fresh.sum() >= 25, "25 new pictures")
        stats = page.stats()
        assert (stats["clock"], stats["audio"], stats["playing"]) == ("monotonic", "suspended", False)
        assert (np.diff(rows.pts) > 0.02).all()
        assert not rows.level.any() and not rows.played.any() and np.isnan(rows.heard).all()
        hint, x, y = page.evaluate(
            "(() => { const b = document.getElementById('sound'), r = b.getBoundingClientRect();"
            " return [b.innerText.trim(), r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        assert hint == "Tap for sound" and x > 0 and y > 0

        page.click(x, y)
        page.wait_for("window.flowact.stats().clock === 'audio'", PATIENCE_S)
        assert page.stats()["audio"] == "running"
        page.wait_for("document.getElementById('sound').hidden")
        before = page.evaluate("window.shown.length")
        loud = 0.3 * loudness(wav)
        for _ in range(3):  # each is noted only as often as the page draws
            assert "spoken:" in demo.say(wav)
            rows = shown(page, mouths=False)
            if (rows.level[before:] > loud).sum() >= 3:
                break
        assert (rows.level[before:] > loud).sum() >= 3, f"no sound after the tap: {page.stats()}"
        assert (np.diff(rows.pts) > 0.02).all(), "the picture jumped back when the sound took over"
        assert rows.played[-1] > 0 and not np.isnan(rows.heard[before:]).all()
