# SPDX-License-Identifier: Apache-2.0
"""What happens in a rig series: blinks, saccades, looks at the viewer, hands, closures of the lips.

A series is float `[T, R]` at 25/s in the columns of `rig_readout.READ`, read from pixels or made of raw motion by
`of_motion`. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.evaluation.rig_readout import READ, column
from flowact_ros.models.codec.motion import control_index
from flowact_ros.models.codec.motion_statistics import OPEN, SHUT, Blink, lid_blinks
from flowact_ros.models.codec.motion_statistics import opening as mouth_open
from flowact_ros.timebase import FRAME_RATE

EYE_TURN = 0.55  # [rad] an eye turned to gaze = 1
JUMP = 0.25  # a saccade turns the gaze by at least so much within three frames
ON_VIEWER = 0.2  # the line of sight meets the viewer when it is less than this (in gaze) beside him
BILABIALS = ("P", "B", "M")
CLOSED = 0.15  # of the range of the opening
HAND_IN = 0.5  # probability from which a hand counts as seen
LOWEST_HAND = 1.0  # a palm whose middle lies above this share of the canvas is in the picture
AVERAGE_GAPE = 0.125  # opening of an average face with the jaw all down, fraction of the canvas

_CONTROLS = {  # column of a series: control of the rig, where the names differ
    "width": "mouth_width", "round": "mouth_round", "press": "lip_press", "lid_left": "blink_left",
    "lid_right": "blink_right", "yaw": "head_yaw", "pitch": "head_pitch", "roll": "head_roll",
}  # fmt: skip


def get(series: np.ndarray, name: str) -> np.ndarray:
    return series[:, column(name)]


def blinks(series: np.ndarray) -> list[Blink]:
    """Blinks of the eyes: closures of the more closed lid, so that a wink counts once."""
    return lid_blinks(np.maximum(get(series, "lid_left"), get(series, "lid_right")))


def together(series: np.ndarray) -> tuple[int, int]:
    """(blinks in which the second lid shuts too, its peak within one frame of the first's; all blinks)."""
    left, right = get(series, "lid_left"), get(series, "lid_right")
    both = 0
    found = blinks(series)
    for blink in found:
        first, last = max(0, blink.start - 2), blink.end + 2
        a, b = left[first:last], right[first:last]
        # The lids rest shut for a frame or two: every frame near the deepest one is a peak.
        near_a, near_b = np.flatnonzero(a > a.max() - 0.15), np.flatnonzero(b > b.max() - 0.15)
        apart = np.abs(near_a[:, None] - near_b[None, :]).min()
        both += bool(min(a.max(), b.max()) > SHUT - 0.1 and apart <= 1)
    return both, len(found)


def gaze(series: np.ndarray) -> np.ndarray:
    """Gaze `[T, 2]` with what is read of closed eyes replaced by a line from before to behind the blink."""
    shut = np.maximum(get(series, "lid_left"), get(series, "lid_right")) > OPEN
    shut = shut | np.roll(shut, 1) | np.roll(shut, -1)
    out = np.stack([get(series, "gaze_x"), get(series, "gaze_y")], 1).astype(np.float64)
    times, seen = np.arange(len(out)), np.flatnonzero(~shut)
    if len(seen):
        for i in (0, 1):
            out[:, i] = np.interp(times, seen, out[seen, i])
    return out


def saccades(series: np.ndarray) -> list[int]:
    """First frames of saccades: the gaze turns by JUMP or more within three frames, and rests in between."""
    turned = gaze(series)
    reach = np.zeros(len(turned))
    reach[3:] = np.hypot(*(turned[3:] - turned[:-3]).T)
    out: list[int] = []
    k = 0
    while k < len(reach):
        if reach[k] > JUMP:
            out.append(k)
            k += 5
            while k < len(reach) and reach[k] > JUMP:
                k += 1
        else:
            k += 1
    return out


def on_viewer(series: np.ndarray) -> np.ndarray:
    """bool `[T]`: the eyes look at the viewer, whatever the head does."""
    turned = gaze(series)
    x = turned[:, 0] + get(series, "yaw") / EYE_TURN
    y = turned[:, 1] + get(series, "pitch") / EYE_TURN
    return np.hypot(x, y) < ON_VIEWER


def hand_seen(series: np.ndarray) -> np.ndarray:
    """bool `[T]`: at least one hand is in the picture."""
    return np.maximum(get(series, "hand_left_in"), get(series, "hand_right_in")) > HAND_IN


def hand_places(series: np.ndarray) -> np.ndarray:
    """Places `[N, 2]` of all hands seen, mirrored to one side: how far from the middle, and how high."""
    out = []
    for side in ("left", "right"):
        there = get(series, f"hand_{side}_in") > HAND_IN
        across = np.abs(get(series, f"hand_{side}_x")[there] - 0.5)
        out.append(np.stack([across, get(series, f"hand_{side}_y")[there]], 1))
    return np.concatenate(out)


def closures(opening: np.ndarray, phonemes: Sequence[Phoneme], span: float) -> tuple[int, int]:
    """(closures of p b m in which the opening falls below CLOSED of `span`, all of them).

    span: the range of the truth's opening. A closure may come a frame before or behind its sound.
    """
    done = total = 0
    for p in phonemes:
        first = int(np.floor(p.start_s * FRAME_RATE)) - 1
        last = int(np.ceil(p.end_s * FRAME_RATE)) + 1
        if p.symbol not in BILABIALS or first < 0 or last > len(opening):
            continue
        total += 1
        done += bool(opening[first:last].min() < CLOSED * span)
    return done, total


def of_motion(motion: np.ndarray, opening: np.ndarray | None = None) -> np.ndarray:
    """A series `[T, R]` of raw motion `[T, K]`, without pictures: for rates of events over long stretches.

    opening: where known, as `mouth_opening` has it; else that of an average face.
    """

    def control(name: str) -> np.ndarray:
        return motion[:, control_index(name)]

    out = np.zeros((len(motion), len(READ)), np.float32)
    for i, name in enumerate(READ):
        if name == "opening":
            out[:, i] = AVERAGE_GAPE * mouth_open(motion) if opening is None else opening
        elif name.endswith("_in"):
            out[:, i] = control(name.replace("_in", "_y")) < LOWEST_HAND
        else:
            out[:, i] = control(_CONTROLS.get(name, name))
    return out
