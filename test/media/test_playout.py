# SPDX-License-Identifier: Apache-2.0
"""Sound at its time on a simulated device: its clock runs differently, its driver jitters, its queue is long."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.media.playout import Playout
from flowact_ros.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

LEAD_S = 0.08  # how long before its time sound is sent
FRAME_S = SAMPLES_PER_FRAME / SAMPLE_RATE
T0 = 1000.0  # when the first sample is to be heard
PULSE_S = 0.4  # a click at every multiple of it


def clicks(frame: int) -> np.ndarray:
    """float32 [960]: a short pulse where the content time is a multiple of PULSE_S."""
    t = (np.arange(SAMPLES_PER_FRAME) + frame * SAMPLES_PER_FRAME) / SAMPLE_RATE
    return np.exp(-((((t + PULSE_S / 2) % PULSE_S - PULSE_S / 2) / 2e-4) ** 2)).astype(np.float32)


def tone(frame: int) -> np.ndarray:
    t = (np.arange(SAMPLES_PER_FRAME) + frame * SAMPLES_PER_FRAME) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)


def play(
    playout: Playout,
    seconds: float,
    *,
    sound=clicks,
    ppm: float = 0.0,
    block: int = 480,
    latency_s: float = 0.02,
    jitter_s: float = 0.0,
    lost: range = range(0),
    shift=lambda frame: 0.0,
    stall=lambda t: 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What a device plays, and the true time [s] at which each of its samples is heard.

    ppm: how much faster its clock is than ours; jitter_s: error of what the driver tells; lost: frames that never
    come; shift: added to a frame's time; stall: added to the device's time (a device that stood still).
    """
    rng = np.random.default_rng(0)
    out, heard, frame = [], [], 0
    rate = playout.rate * (1 + ppm * 1e-6)
    for n in range(int(seconds * playout.rate / block)):
        now = T0 + n * block / rate
        now += stall(now - T0)
        while now >= T0 + frame * FRAME_S - LEAD_S:
            if frame not in lost:
                playout.push(sound(frame), T0 + frame * FRAME_S + shift(frame))
            frame += 1
        at = now + latency_s
        out.append(playout.pull(block, at + rng.uniform(-jitter_s, jitter_s)))
        heard.append(at + np.arange(block) / rate)
    return np.concatenate(out), np.concatenate(heard)


def click_errors(out: np.ndarray, heard: np.ndarray, after: float = 0.0) -> np.ndarray:
    """[s] how much later than its time each click was heard."""
    loud = np.flatnonzero(out > 0.3)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 100) + 1)
    times = np.array([np.average(heard[g], weights=out[g]) for g in groups if len(g)]) - T0
    times = times[times > after]
    return (times + PULSE_S / 2) % PULSE_S - PULSE_S / 2


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_sound_is_heard_at_its_time(rate: int) -> None:
    out, heard = play(Playout(rate), 5.0)
    errors = click_errors(out, heard)
    assert len(errors) >= 11 and np.abs(errors).max() < 1e-4


@pytest.mark.parametrize("ppm", [-300.0, 100.0])
def test_a_device_whose_clock_drifts_stays_in_time(ppm: float) -> None:
    """Without correction 300 ppm would be 12 ms after these 40 s."""
    playout = Playout(48000)
    out, heard = play(playout, 40.0, ppm=ppm, jitter_s=0.004)
    errors = click_errors(out, heard)
    assert len(errors) >= 99 and np.abs(errors).max() < 0.003
    figures = playout.figures()
    assert figures.drift_ppm == pytest.approx(ppm, abs=0.35 * abs(ppm))
    assert abs(figures.skew_p50_s) < 0.002 and figures.skew_p95_s < 0.006
    assert (figures.skips, figures.gaps, figures.missing_s) == (0, 0, 0.0)


def test_a_tone_stays_clean_while_the_pace_is_corrected() -> None:
    out, heard = play(Playout(48000), 15.0, sound=tone, ppm=200)
    part, t = out[-9600:], heard[-9600:] - T0
    basis = np.stack([np.sin(2 * np.pi * 1000 * t), np.cos(2 * np.pi * 1000 * t)], 1)
    rest = part - basis @ np.linalg.lstsq(basis, part, rcond=None)[0]
    assert 10 * np.log10((part**2).mean() / (rest**2).mean()) > 60
    assert np.abs(np.diff(out)).max() < 0.5 * 2 * np.pi * 1000 / 48000 * 1.1  # no click anywhere


def test_a_device_that_stood_still_is_in_time_again_with_one_cut() -> None:
    playout = Playout(48000)
    out, heard = play(playout, 12.0, stall=lambda t: 0.3 if t > 4 else 0.0)
    assert np.abs(click_errors(out, heard, after=6.0)).max() < 0.002
    assert playout.figures().skips == 1


def test_lost_pieces_keep_the_time() -> None:
    playout = Playout(48000)
    out, heard = play(playout, 8.0, lost=range(52, 58))
    assert np.abs(click_errors(out, heard)).max() < 1e-3
    assert playout.figures().gaps == 1


def test_a_queue_that_is_longer_than_the_lead_delays_and_says_so() -> None:
    playout = Playout(48000)
    out, heard = play(playout, 12.0, latency_s=0.2)
    errors = click_errors(out, heard, after=6.0)
    figures = playout.figures()
    assert len(errors) > 10 and errors.min() > 0.1 and np.ptp(errors) < 0.002
    assert figures.delay_s == pytest.approx(float(np.median(errors)), abs=0.003)
    assert figures.skew_p50_s == pytest.approx(figures.delay_s, abs=0.003)


def test_a_wished_delay_is_no_skew() -> None:
    playout = Playout(48000, delay_s=0.12)
    out, heard = play(playout, 5.0)
    assert click_errors(out, heard) == pytest.approx(0.12, abs=1e-3)
    assert playout.figures().skew_p95_s < 1e-3


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_another_stream_begins_at_its_own_time(step: float) -> None:
    """As after a new start of the generator: what was queued of the old one is not heard."""
    playout = Playout(48000)
    playout.push(np.ones(960, np.float32), T0)
    assert playout.pull(480, T0 + 0.01).max() == pytest.approx(1.0, abs=0.01)
    playout.push(np.full(960, -1, np.float32), T0 + step)
    assert playout.pull(480, T0 + step + 0.01).min() == pytest.approx(-1.0, abs=0.01)


def test_before_any_sound_there_is_silence() -> None:
    playout = Playout(48000)
    assert not playout.pull(100, T0).any()
    figures = playout.figures()
    assert (figures.skew_p95_s, figures.missing_s) == (0.0, 0.0)
