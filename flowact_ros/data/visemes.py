# SPDX-License-Identifier: Apache-2.0
"""Phonemes -> mouth controls at 25 frames/s, with co-articulation.

Dominance functions after Cohen & Massaro (1993), "Modeling coarticulation in synthetic visual speech": every phoneme
has a target per control and a dominance that fades with the distance from it; a control is the mean of all targets
weighted by dominance. Lips of rounded vowels reach far ahead, the jaw of a schwa yields to its neighbours, an "s" holds
the jaw shut. What must not be averaged away, the closure of p b m and the lip on the teeth of f v, is laid over the
blend afterwards.

Frame k stands for the instant (k + 0.5) / 25, the middle of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.dialogue.synthesizer_phonemes import INVENTORY, SILENCE, VOWELS, loudness_db
from flowact_ros.models.codec.motion_statistics import MOUTH
from flowact_ros.timebase import FRAME_RATE

MOUTH_CONTROLS = tuple(name for name in MOUTH if name != "jaw_x")  # no sound moves the jaw to the side
BILABIALS = ("P", "B", "M")
LABIODENTALS = ("F", "V")
REST_AFTER = 0.2  # [s] silence of this length brings the mouth to rest
STEP = 0.005  # [s] resolution of the blend

# Targets in the order of MOUTH_CONTROLS. lip_press of the bilabials is added later, as a closure.
# fmt: off
_TARGETS: dict[str, tuple[float, ...]] = {
    #       jaw  width round upper lower press teeth tongue
    "AA": (0.90, 0.10, 0.00, 0.30, 0.45, 0.0, 0.30, 0.15),
    "AE": (0.84, 0.45, 0.00, 0.40, 0.50, 0.0, 0.50, 0.20),
    "AH": (0.66, 0.10, 0.00, 0.25, 0.35, 0.0, 0.30, 0.15),
    "AX": (0.38, 0.10, 0.00, 0.20, 0.25, 0.0, 0.30, 0.15),
    "AO": (0.72, -0.40, 0.60, 0.25, 0.35, 0.0, 0.10, 0.05),
    "EH": (0.62, 0.40, 0.00, 0.35, 0.40, 0.0, 0.50, 0.25),
    "ER": (0.32, -0.20, 0.40, 0.30, 0.35, 0.0, 0.40, 0.25),
    "IH": (0.34, 0.45, 0.00, 0.30, 0.35, 0.0, 0.55, 0.30),
    "IY": (0.20, 0.85, 0.00, 0.35, 0.40, 0.0, 0.75, 0.30),
    "UH": (0.34, -0.40, 0.60, 0.20, 0.25, 0.0, 0.15, 0.10),
    "UW": (0.20, -0.75, 0.95, 0.15, 0.20, 0.0, 0.00, 0.00),
    "B":  (0.10, 0.00, 0.00, 0.00, 0.00, 0.0, 0.00, 0.00),
    "M":  (0.10, 0.00, 0.00, 0.00, 0.00, 0.0, 0.00, 0.00),
    "P":  (0.10, 0.00, 0.00, 0.00, 0.00, 0.0, 0.00, 0.00),
    "F":  (0.10, 0.15, 0.00, 0.45, 0.00, 0.0, 0.95, 0.00),
    "V":  (0.12, 0.15, 0.00, 0.40, 0.00, 0.0, 0.90, 0.00),
    "TH": (0.20, 0.20, 0.00, 0.30, 0.30, 0.0, 0.60, 0.95),
    "DH": (0.22, 0.15, 0.00, 0.25, 0.30, 0.0, 0.50, 0.85),
    "T":  (0.11, 0.25, 0.00, 0.30, 0.35, 0.0, 0.75, 0.40),
    "D":  (0.12, 0.20, 0.00, 0.30, 0.35, 0.0, 0.70, 0.45),
    "N":  (0.14, 0.20, 0.00, 0.25, 0.30, 0.0, 0.55, 0.50),
    "L":  (0.30, 0.15, 0.00, 0.25, 0.30, 0.0, 0.40, 0.80),
    "S":  (0.08, 0.40, 0.00, 0.40, 0.45, 0.0, 1.00, 0.00),
    "Z":  (0.10, 0.35, 0.00, 0.40, 0.45, 0.0, 0.95, 0.00),
    "SH": (0.12, -0.35, 0.65, 0.50, 0.55, 0.0, 0.85, 0.00),
    "ZH": (0.13, -0.30, 0.60, 0.45, 0.50, 0.0, 0.80, 0.00),
    "CH": (0.12, -0.30, 0.60, 0.50, 0.55, 0.0, 0.85, 0.10),
    "JH": (0.13, -0.30, 0.58, 0.45, 0.50, 0.0, 0.80, 0.10),
    "K":  (0.26, 0.10, 0.00, 0.20, 0.25, 0.0, 0.35, 0.00),
    "G":  (0.28, 0.10, 0.00, 0.20, 0.25, 0.0, 0.35, 0.00),
    "NG": (0.28, 0.10, 0.00, 0.20, 0.25, 0.0, 0.35, 0.00),
    "HH": (0.36, 0.10, 0.00, 0.20, 0.25, 0.0, 0.30, 0.05),
    "R":  (0.20, -0.25, 0.45, 0.25, 0.30, 0.0, 0.35, 0.15),
    "W":  (0.12, -0.75, 0.95, 0.10, 0.15, 0.0, 0.00, 0.00),
    "Y":  (0.18, 0.60, 0.00, 0.30, 0.35, 0.0, 0.65, 0.30),
    SILENCE: (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}
# A diphthong glides from one vowel to another, the first for a little more than half of the time.
_GLIDES = {"AW": ("AA", "UW"), "AY": ("AA", "IY"), "EY": ("EH", "IY"), "OW": ("AO", "UW"), "OY": ("AO", "IY")}
# How strongly a phoneme holds its target against its neighbours (jaw, lips' shape, teeth and tongue); 1 if not named.
_HOLD: dict[str, tuple[float, float, float]] = {
    "AA": (1.3, 1.0, 1.0), "AE": (1.3, 1.2, 1.0), "AO": (1.3, 1.6, 1.0), "AH": (1.3, 1.0, 1.0), "EH": (1.3, 1.2, 1.0),
    "UW": (1.0, 2.4, 1.2), "UH": (1.0, 1.6, 1.0), "IY": (1.0, 1.6, 1.0),
    "AX": (0.6, 0.5, 0.6), "HH": (0.15, 0.1, 0.1), "K": (0.5, 0.25, 0.5), "G": (0.5, 0.25, 0.5), "NG": (0.6, 0.3, 0.5),
    "T": (1.2, 0.4, 1.2), "D": (1.1, 0.4, 1.2), "N": (1.0, 0.4, 1.2), "L": (0.8, 0.4, 1.4), "R": (0.7, 1.0, 0.8),
    "S": (1.8, 0.8, 1.6), "Z": (1.6, 0.8, 1.5), "SH": (1.6, 1.6, 1.5), "ZH": (1.5, 1.5, 1.5),
    "CH": (1.6, 1.6, 1.5), "JH": (1.6, 1.5, 1.5),
    "TH": (1.1, 0.6, 2.0), "DH": (0.9, 0.5, 1.6), "F": (1.8, 0.9, 2.2), "V": (1.6, 0.9, 2.0),
    "W": (1.4, 2.2, 1.6), "Y": (0.9, 1.2, 1.0),
    "P": (1.4, 0.5, 1.6), "B": (1.4, 0.5, 1.6), "M": (1.4, 0.5, 1.6), SILENCE: (1.0, 1.0, 1.0),
}
# fmt: on
# Reach of a target, time constants [s] (before its sound, after it) per control: lips round ~120 ms ahead.
_REACH = {
    "jaw": (0.036, 0.036),
    "mouth_width": (0.060, 0.045),
    "mouth_round": (0.070, 0.045),
    "lip_upper": (0.040, 0.036),
    "lip_lower": (0.040, 0.036),
    "lip_press": (0.040, 0.036),
    "teeth": (0.040, 0.036),
    "tongue": (0.030, 0.030),
}
_GROUP = dict(zip(MOUTH_CONTROLS, (0, 1, 1, 1, 1, 0, 2, 2)))
LEAD = 0.045  # [s] the mouth shapes a vowel before it is heard
CLOSURE_FADE = 0.050  # [s] from open lips to closed ones and back
QUIET_DB, LOUD_DB = -32.0, -4.0  # range of a vowel's level (below the loudest) that changes how far it opens


def mouth(phonemes: Sequence[Phoneme], pcm: np.ndarray, frames: int) -> np.ndarray:
    """Mouth controls float32 [frames, 8] in the order of MOUTH_CONTROLS.

    ``phonemes`` with times in seconds from the start of ``pcm`` (float32 [T] at 24 kHz); what lies behind ``frames`` is
    ignored. Silence of 200 ms or more brings the mouth to rest (all zero). Raises ValueError for an unknown symbol.
    """
    unknown = sorted({p.symbol for p in phonemes} - set(INVENTORY))
    if unknown:
        raise ValueError(f"unknown phoneme {unknown[0]!r}; the inventory is {' '.join(INVENTORY)}")
    times = (np.arange(frames) + 0.5) / FRAME_RATE
    if not any(p.symbol != SILENCE for p in phonemes):
        return np.zeros((frames, len(MOUTH_CONTROLS)), np.float32)
    parts = _targets(_with_pauses(phonemes, frames / FRAME_RATE), _opening(phonemes, pcm))
    grid = np.arange(0.0, frames / FRAME_RATE + STEP, STEP)
    out = np.empty((frames, len(MOUTH_CONTROLS)))
    for i, name in enumerate(MOUTH_CONTROLS):
        out[:, i] = np.interp(times, grid, _smooth(_blend(parts, i, name, grid), 0.014))
    closed = _closure(phonemes, times)
    press = MOUTH_CONTROLS.index("lip_press")
    out[:, press] = np.maximum(out[:, press], closed)
    bite = _bite(phonemes, times)[:, None]
    held = np.asarray(_TARGETS["F"])
    for name in ("jaw", "lip_lower", "teeth", "lip_upper"):
        i = MOUTH_CONTROLS.index(name)
        out[:, i] += bite[:, 0] * (held[i] - out[:, i])
    low = np.array([-1.0 if name == "mouth_width" else 0.0 for name in MOUTH_CONTROLS])
    out = np.where(np.abs(out) < 2e-3, 0.0, out)
    return np.clip(out, low, 1.0).astype(np.float32)


Part = tuple[str, float, float, float]  # symbol of _TARGETS, start, end, how far it opens


def _with_pauses(phonemes: Sequence[Phoneme], total: float) -> list[Phoneme]:
    """The phonemes with silence wherever the list leaves time open, and rest before the start and after the end."""
    out: list[Phoneme] = [Phoneme(SILENCE, -1.0, 0.0)]
    now = 0.0
    for p in phonemes:
        if p.start_s > now + 0.001:
            out.append(Phoneme(SILENCE, now, p.start_s))
        out.append(p)
        now = max(now, p.end_s)
    return [*out, Phoneme(SILENCE, now, max(total, now) + 1.0)]


def _opening(phonemes: Sequence[Phoneme], pcm: np.ndarray) -> dict[tuple[float, str], float]:
    """How far every vowel opens: 0.72 (mumbled) .. 1.1 (loud, stressed), from its level in the clip."""
    level = loudness_db(np.asarray(pcm, np.float32), STEP) if len(pcm) else np.full(1, -120.0, np.float32)
    voiced = level[level > -30.0]
    level = level - (np.percentile(voiced, 95) if len(voiced) else 0.0)
    out = {}
    for p in phonemes:
        if p.symbol not in VOWELS:
            continue
        heard = level[int(p.start_s / STEP) : max(int(p.start_s / STEP) + 1, int(p.end_s / STEP))]
        loud = np.clip((heard.max(initial=-60.0) - QUIET_DB) / (LOUD_DB - QUIET_DB), 0.0, 1.0)
        out[p.start_s, p.symbol] = 0.72 + 0.33 * float(loud) + (0.06 if p.stressed else 0.0)
    return out


def _targets(phonemes: Sequence[Phoneme], opening: dict[tuple[float, str], float]) -> list[Part]:
    parts: list[Part] = []
    for p in phonemes:
        size = opening.get((p.start_s, p.symbol), 1.0)
        if p.symbol in _GLIDES:
            first, second = _GLIDES[p.symbol]
            turn = p.start_s + 0.62 * p.duration_s
            parts += [(first, p.start_s, turn, size), (second, turn, p.end_s, 0.9 * size)]
        else:
            parts.append((p.symbol, p.start_s, p.end_s, size))
    return parts


def _blend(parts: Sequence[Part], index: int, name: str, grid: np.ndarray) -> np.ndarray:
    """Weighted mean of the targets of one control on the time grid [G]."""
    before, after = _REACH[name]
    top, bottom = np.zeros_like(grid), np.full_like(grid, 1e-9)
    for symbol, start, end, size in parts:
        target = _TARGETS[symbol][index]
        hold = _HOLD.get(symbol, (1.0, 1.0, 1.0))[_GROUP[name]]
        duration = end - start
        lead = after_ = 0.0
        if symbol == SILENCE:
            # A short pause lets the mouth half open, a long one closes it; it yields to what is said around it.
            hold = 0.25 + 0.75 * min(1.0, duration / REST_AFTER)
            lead, after_ = -0.02, 0.05  # lips part before the first sound and close a little after the last
            if duration > REST_AFTER:
                hold *= 6.0
        elif symbol not in BILABIALS and symbol not in LABIODENTALS:
            lead = LEAD
        if symbol in VOWELS and name in ("jaw", "lip_upper", "lip_lower"):
            target = min(1.0, target * size)
        edge = min(0.3 * duration, 0.03)
        low, high = start - lead + edge + after_, end - 0.5 * lead - edge - 0.05 * (symbol == SILENCE)
        if high < low:
            low = high = (low + high) / 2
        first, last = np.searchsorted(grid, (low - 8 * before, high + 8 * after))
        t = grid[first:last]
        distance = np.maximum(low - t, 0.0) / before + np.maximum(t - high, 0.0) / after
        weight = hold * np.exp(-(distance**1.3))
        top[first:last] += weight * target
        bottom[first:last] += weight
    return top / bottom


def _smooth(values: np.ndarray, sigma_s: float) -> np.ndarray:
    """Gaussian low-pass, no delay."""
    half = int(4 * sigma_s / STEP)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * STEP / sigma_s) ** 2)
    return np.convolve(np.pad(values, half, mode="edge"), kernel / kernel.sum(), mode="valid")


def _bump(times: np.ndarray, start: float, end: float, fade: float) -> np.ndarray:
    """1 inside [start, end], falling to 0 within ``fade`` seconds outside, with zero slope at both ends."""
    distance = np.maximum(start - times, 0.0) + np.maximum(times - end, 0.0)
    x = np.clip(distance / fade, 0.0, 1.0)
    return 1.0 - x * x * x * (x * (6.0 * x - 15.0) + 10.0)


def _closure(phonemes: Sequence[Phoneme], times: np.ndarray) -> np.ndarray:
    """lip_press [frames]: 1 while p b m keep the lips together. A closure shorter than a frame still fills one."""
    out = np.zeros_like(times)
    for p in phonemes:
        if p.symbol in BILABIALS and p.duration_s > 0:
            # A plosive is closed for the first part of its time (the burst and breath behind it come from open lips).
            open_at = p.end_s if p.symbol == "M" else p.start_s + 0.75 * p.duration_s
            middle = (p.start_s + open_at) / 2
            half = max((open_at - p.start_s) / 2 - 0.008, 0.0201)  # > half a frame: one frame lies inside
            out = np.maximum(out, _bump(times, middle - half, middle + half, CLOSURE_FADE))
    return out


def _bite(phonemes: Sequence[Phoneme], times: np.ndarray) -> np.ndarray:
    """How much f v hold the lower lip to the upper teeth, [frames] in 0..1."""
    out = np.zeros_like(times)
    for p in phonemes:
        if p.symbol in LABIODENTALS and p.duration_s > 0:
            middle = (p.start_s + p.end_s) / 2
            half = max(p.duration_s / 2 - 0.015, 0.0201)
            out = np.maximum(out, _bump(times, middle - half, middle + half, CLOSURE_FADE))
    return out
