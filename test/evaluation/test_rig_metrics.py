# SPDX-License-Identifier: Apache-2.0
"""Every figure of rig series on made-up series: one case that must pass, one that must fail."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.evaluation import events, intervals
from flowact_ros.evaluation import rig_metrics as m
from flowact_ros.evaluation.metrics import MetricError
from flowact_ros.evaluation.rig_readout import READ, UNITS, column
from flowact_ros.models.codec.motion import control_index, neutral

SECONDS = 40
T = 25 * SECONDS
BLINK = np.array([0.3, 0.9, 1.0, 0.6, 0.2])


def smooth(rng: np.random.Generator, frames: int, width: int = 9) -> np.ndarray:
    noise = np.convolve(rng.standard_normal(frames + width), np.hanning(width + 2), "same")[:frames]
    return noise / noise.std()


def living(seed: int, *, blink_every: float = 4.0, frames: int = T) -> np.ndarray:
    """A series of somebody who talks, blinks, looks about and turns the head."""
    rng = np.random.default_rng(seed)
    out = np.zeros((frames, len(READ)), np.float32)
    for name, unit in zip(READ, UNITS):
        out[:, column(name)] = 0.3 * unit * smooth(rng, frames)
    out[:, column("opening")] = 0.04 * np.clip(smooth(rng, frames, 5), 0, None)
    for name in ("yaw", "pitch", "roll"):
        out[:, column(name)] = 0.08 * smooth(rng, frames, 41)
    out[:, [column("lid_left"), column("lid_right")]] = 0.02
    for at in np.arange(30, frames - 10, int(25 * blink_every)):
        out[at : at + 5, column("lid_left")] = BLINK
        out[at : at + 5, column("lid_right")] = BLINK
    gaze = np.zeros(frames)
    for at in np.arange(45, frames, 50):
        gaze[at:] = rng.choice([-0.5, 0.0, 0.5])
    out[:, column("gaze_x")] = gaze + 0.01 * rng.standard_normal(frames)
    out[:, column("gaze_y")] = 0.01 * rng.standard_normal(frames)
    return out


def take(seed: int = 0, **how) -> m.Take:
    return m.Take(living(seed, **how), kinds=((0, "idle"),))


def changed(t: m.Take, **columns) -> m.Take:
    series = t.series.copy()
    for name, value in columns.items():
        series[:, column(name)] = value
    return m.Take(series, t.phonemes, t.kinds)


TRUE = [take(1), take(2)]


def slipped(takes: list[m.Take]) -> list[m.Take]:
    """The lips of every clip with the sound of the next one."""
    lips = [takes[(k + 1) % len(takes)].series[:, :4] for k in range(len(takes))]
    out = [t.series.copy() for t in takes]
    for series, other in zip(out, lips, strict=True):
        series[:, :4] = np.resize(other, (len(series), 4))
    return [m.Take(series, t.phonemes, t.kinds) for series, t in zip(out, takes, strict=True)]


# ---------------------------------------------------------------- lips


def test_lips_that_follow_correlate_and_those_of_another_clip_do_not():
    assert m.curve_correlation(TRUE, TRUE, "opening") == pytest.approx(1.0)
    assert abs(m.curve_correlation(slipped(TRUE), TRUE, "opening")) < 0.2
    assert m.curve_correlation(m.frozen(TRUE), TRUE, "opening") == 0.0


def test_late_lips_are_told_in_seconds():
    late = [changed(t, opening=np.roll(t.series[:, column("opening")], 2)) for t in TRUE]
    assert m.opening_lag_s(late, TRUE) == pytest.approx(0.08, abs=0.005)
    assert abs(m.opening_lag_s(TRUE, TRUE)) < 1e-6
    assert np.isnan(m.opening_lag_s(m.frozen(TRUE), TRUE))


def bilabial_take() -> m.Take:
    """Opens to 0.05 between closures of p b m at every second."""
    series = np.zeros((250, len(READ)), np.float32)
    series[:, column("opening")] = 0.05
    phonemes = []
    for second in range(1, 9):
        series[25 * second : 25 * second + 3, column("opening")] = 0.0
        phonemes.append(Phoneme("PBM"[second % 3], second + 0.01, second + 0.1))
    return m.Take(series, phonemes, ((0, "speaking"),))


def test_closures_are_counted_and_a_half_open_mouth_is_none():
    true = [bilabial_take()]
    assert m.closures(true, true) == [(8, 8)]
    half = [changed(true[0], opening=np.maximum(true[0].series[:, 0], 0.012))]
    assert m.closure_ratio(half, true).value == 0.0
    early = [changed(true[0], opening=np.roll(true[0].series[:, 0], 12))]
    assert m.closure_ratio(early, true).value == 0.0
    silent = m.Take(true[0].series, [], true[0].kinds)
    both = m.closure_ratio([*true, *half, silent], [*true, *true, silent])
    assert (both.value, both.n) == (0.5, 16) and both.low < 0 and both.high > 1  # a clip of each kind says little


def test_spread_of_timid_lips_is_their_share():
    timid = [changed(t, opening=0.6 * t.series[:, 0]) for t in TRUE]
    assert m.spread_ratio(timid, TRUE, "opening") == pytest.approx(0.6, rel=1e-4)
    assert m.spread_ratio(TRUE, TRUE, "opening") == pytest.approx(1.0)


def test_babbling_in_silence_is_told_and_rest_is_not():
    true = bilabial_take()
    quiet = [changed(true, opening=0.01)]
    babbling = [changed(true, opening=0.02 + 0.01 * np.sin(np.arange(250)))]
    assert m.silence_ratio(quiet, quiet) < 0.01
    assert m.silence_ratio(babbling, quiet) > 1.5


# ---------------------------------------------------------------- eyes


def test_blinks_are_counted_with_their_interval():
    ratio = m.blink_ratio(TRUE, TRUE)
    assert ratio.n == ratio.n_truth == 20 and ratio.value == 1.0 and ratio.low < 1.0 < ratio.high
    none = m.blink_ratio(m.frozen(TRUE), TRUE)
    assert none.value == 0.0 and none.high < 0.8
    often = m.blink_ratio([take(1, blink_every=1.5), take(2, blink_every=1.5)], TRUE)
    assert often.value > 2 and often.low > 1.2


def test_a_flutter_around_the_border_is_one_blink():
    lid = np.array([0, 0.4, 0.6, 0.48, 0.6, 0.45, 0.6, 0.1, 0, 0, 0.7, 0.2])
    assert [(b.start, b.end) for b in events.lid_blinks(lid)] == [(2, 7), (10, 11)]


def test_lids_that_close_apart_are_told():
    assert m.lids_together(TRUE) == (1.0, 20)
    apart = [changed(t, lid_right=np.roll(t.series[:, column("lid_right")], 4)) for t in TRUE]
    assert m.lids_together(apart)[0] < 0.1
    one = [changed(t, lid_right=0.0) for t in TRUE]
    assert m.lids_together(one)[0] == 0.0
    assert np.isnan(m.lids_together(m.frozen(TRUE))[0])


def test_saccades_are_counted_and_slow_gaze_has_none():
    rate = m.saccade_ratio(TRUE, TRUE)
    assert rate.value == 1.0 and 10 < rate.n < 40
    slow = [changed(t, gaze_x=0.6 * np.sin(np.arange(t.frames) / 60)) for t in TRUE]
    assert m.saccade_ratio(slow, TRUE).value == 0.0


def test_what_is_read_of_closed_eyes_is_no_saccade():
    still = changed(TRUE[0], gaze_x=0.0, gaze_y=0.0)
    shut = still.series[:, column("lid_left")] > 0.25
    blinking = changed(still, gaze_x=np.where(shut, 0.8, 0.0))
    assert m.saccade_ratio([blinking], [TRUE[0]]).n == 0


def test_gaze_spread_and_the_share_on_the_viewer():
    assert m.gaze_spread_ratio(TRUE, TRUE) == 1.0 == m.viewer_ratio(TRUE, TRUE)
    staring = [changed(t, gaze_x=0.0, gaze_y=0.0, yaw=0.0, pitch=0.0) for t in TRUE]
    assert m.gaze_spread_ratio(staring, TRUE) < 0.05 and m.viewer_ratio(staring, TRUE) > 1.2
    turned = changed(staring[0], yaw=0.2)
    assert not events.on_viewer(turned.series).any()
    held = changed(turned, gaze_x=-0.2 / events.EYE_TURN)  # the eyes take the head's turn back
    assert events.on_viewer(held.series).all()


# ---------------------------------------------------------------- head and hands


def test_a_still_head_has_no_spread():
    still = [changed(t, yaw=0.1) for t in TRUE]  # a turned head that does not move
    assert m.spread_ratio(still, TRUE, "yaw") < 1e-4
    assert m.spread_ratio(TRUE, TRUE, "yaw") == pytest.approx(1.0)


def waving(place: float, side: str = "right", seen: float = 1.0) -> m.Take:
    series = np.zeros((200, len(READ)), np.float32)
    series[:, column("hand_left_y")] = series[:, column("hand_right_y")] = 1.2
    series[100:, column(f"hand_{side}_in")] = seen
    series[100:, column(f"hand_{side}_x")] = 0.5 + (0.3 if side == "right" else -0.3)
    series[100:, column(f"hand_{side}_y")] = place
    return m.Take(series, kinds=((0, "idle"), (100, "greeting")))


def test_hands_are_counted_where_the_behaviour_has_one_and_may_be_either():
    true = [waving(0.65)]
    assert m.hand_presence(true).value == 1.0
    assert m.hand_presence_ratio([waving(0.65, "left")], true).value == 1.0
    assert m.hand_presence_ratio([waving(0.65, seen=0.2)], true).value == 0.0
    half = m.hand_presence_ratio([waving(0.65), waving(0.65, seen=0.2)], true)
    assert (half.value, half.n) == (0.5, 2) and half.low < 0.5 < half.high
    assert m.hand_place_error([waving(0.65, "left")], true) == pytest.approx(0.0, abs=1e-6)
    assert m.hand_place_error([waving(0.85)], true) == pytest.approx(0.2, abs=1e-5)
    assert np.isnan(m.hand_presence(TRUE).value) and np.isnan(m.hand_presence_ratio(true, TRUE).value)


# ---------------------------------------------------------------- smoothness


def test_movement_acceleration_and_jerk_of_a_trembling_copy():
    rng = np.random.default_rng(5)
    trembling = [
        m.Take(t.series + 0.02 * rng.standard_normal(t.series.shape).astype(np.float32), t.phonemes, t.kinds)
        for t in TRUE
    ]
    assert m.change_ratio(TRUE, TRUE, 2) == 1.0
    assert m.change_ratio(trembling, TRUE, 3) > m.change_ratio(trembling, TRUE, 2) > 1.15
    assert m.change_ratio(m.frozen(TRUE), TRUE, 1) == 0.0


def test_jumps_at_the_ends_of_chunks_are_told_from_those_inside():
    jumpy = []
    for t in TRUE:
        series = t.series.copy()
        for k, first in enumerate(range(0, t.frames, m.CHUNK)):
            series[first : first + m.CHUNK, :16] += 0.15 * (-1) ** k * np.asarray(UNITS, np.float32)
        jumpy.append(m.Take(series, t.phonemes, t.kinds))
    assert m.jump_ratio(TRUE, TRUE) == 1.0
    assert m.jump_ratio(jumpy, TRUE) > 1.5
    assert np.isnan(m.jump(m.frozen(TRUE)))


def test_mean_motion_has_no_events():
    mean = m.mean_motion(TRUE)
    assert m.blink_ratio(mean, TRUE).value == m.saccade_ratio(mean, TRUE).value == 0.0
    assert m.spread_ratio(mean, TRUE, "yaw") < 1e-6
    np.testing.assert_allclose(mean[0].series[5], np.concatenate([t.series for t in TRUE]).mean(0), atol=1e-5)


def test_drift_shows_in_the_spread():
    assert m.spread_ratio(m.drifting(TRUE), TRUE, "yaw") > 1.2


def test_takes_of_other_clips_are_refused_with_both_lengths():
    with pytest.raises(MetricError, match=r"\[1000\] and \[500\]"):
        m.curve_correlation([take(1)], [take(1, frames=500)], "opening")


# ---------------------------------------------------------------- raw motion, intervals


def test_a_series_of_raw_motion_has_its_events():
    motion = neutral(100).numpy()
    motion[40:44, [control_index("blink_left"), control_index("blink_right")]] = 1.0
    motion[60:, control_index("hand_left_y")] = 0.7
    motion[:, control_index("head_yaw")] = 0.1
    series = events.of_motion(motion)
    assert len(events.blinks(series)) == 1 and events.hand_seen(series).sum() == 40
    assert series[0, column("yaw")] == pytest.approx(0.1)


def test_intervals_of_counts():
    r = intervals.rate(0, 10)
    assert (r.value, r.low) == (0.0, 0.0) and r.high == pytest.approx(0.369, abs=1e-3)  # 3.69 events at most
    r = intervals.rate(100, 10)
    assert r.low == pytest.approx(8.136, abs=1e-2) and r.high == pytest.approx(12.163, abs=1e-2)
    same = intervals.rate_ratio(100, 10, 100, 10)
    assert same.value == 1.0 and same.low == pytest.approx(1 / same.high, rel=1e-6) and 0.7 < same.low < 0.8
    assert intervals.rate_ratio(0, 10, 50, 10).high < 0.1
    assert np.isnan(intervals.rate_ratio(0, 1, 0, 1).value)
    with pytest.raises(ValueError, match="above 0"):
        intervals.rate(3, 0)
