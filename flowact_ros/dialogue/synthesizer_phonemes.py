# SPDX-License-Identifier: Apache-2.0
"""One phoneme inventory (ARPABET) for all speech backends, and the clean-up that every backend's times go through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowact_ros.dialogue.speech import Phoneme
from flowact_ros.timebase import SAMPLE_RATE

SILENCE = "SIL"
VOWELS = ("AA", "AE", "AH", "AX", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N",
    "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
INVENTORY = (*VOWELS, *CONSONANTS, SILENCE)

# symbol of the inventory -> how (hibari, flite, espeak) write it. hibari: misaki's alphabet; flite: CMU lower case;
# espeak: its own ASCII mnemonics (en-us), a diphthong is one symbol.
_TABLE: dict[str, tuple[str, str, str]] = {
    "AA": ("ɑ a", "aa", "A: A A@ A:2 a: aa"),
    "AE": ("æ", "ae", "a a# {"),
    "AH": ("ʌ", "ah", "V V:"),
    "AX": ("ə ᵊ ɐ ɨ", "ax", "@ @2 @5 @# a2 @L I2#"),
    "AO": ("ɔ ɒ o", "ao", "O: O 0 O2 O@ o@ o:"),
    "AW": ("W", "aw", "aU"),
    "AY": ("I", "ay", "aI aI@ aI3"),
    "EH": ("ɛ e", "eh", "E e e@ E2 E#"),
    "ER": ("ɜ ɚ", "er axr", "3: 3 @r"),
    "EY": ("A", "ey", "eI"),
    "IH": ("ɪ ᵻ", "ih ix", "I I2 I# i@ i@3"),
    "IY": ("i", "iy", "i: i i2"),
    "OW": ("O Q", "ow", "oU oU#"),
    "OY": ("Y", "oy", "OI"),
    "UH": ("ʊ", "uh", "U U@ U:"),
    "UW": ("u", "uw", "u: u ju:"),
    "B": ("b", "b", "b"),
    "CH": ("ʧ", "ch", "tS"),
    "D": ("d T ɾ", "d dx", "d t# d# *"),
    "DH": ("ð", "dh", "D"),
    "F": ("f", "f", "f"),
    "G": ("ɡ", "g", "g"),
    "HH": ("h", "hh", "h"),
    "JH": ("ʤ", "jh", "dZ"),
    "K": ("k x", "k", "k x"),
    "L": ("l", "l", "l l# l/ @l"),
    "M": ("m", "m em", "m m-"),
    "N": ("n", "n en", "n n- ?n"),
    "NG": ("ŋ", "ng", "N"),
    "P": ("p", "p", "p"),
    "R": ("ɹ r", "r", "r r- r/ R"),
    "S": ("s", "s", "s"),
    "SH": ("ʃ", "sh", "S"),
    "T": ("t ʔ", "t", "t t2 ?"),
    "TH": ("θ", "th", "T"),
    "V": ("v", "v", "v v#"),
    "W": ("w", "w", "w"),
    "Y": ("j", "y", "j"),
    "Z": ("z", "z", "z z/ z#"),
    "ZH": ("ʒ", "zh", "Z"),
    SILENCE: ("", "pau", "_ _: _! _^_ _| |"),
}


def _column(index: int) -> dict[str, str]:
    return {theirs: ours for ours, row in _TABLE.items() for theirs in row[index].split()}


FROM_HIBARI = _column(0)
FROM_FLITE = _column(1)
FROM_ESPEAK = _column(2)


def loudness_db(pcm: np.ndarray, hop_s: float = 0.005) -> np.ndarray:
    """Level of a 20 ms window every ``hop_s`` seconds, dB below the loudest window, float32 [ceil(seconds / hop_s)].

    Digital silence is -120 dB.
    """
    hop = round(hop_s * SAMPLE_RATE)
    count = max(1, -(-len(pcm) // hop))
    half = round(0.010 * SAMPLE_RATE)
    energy = np.concatenate([[0.0], np.cumsum(pcm.astype(np.float64) ** 2)])
    centre = np.arange(count) * hop + hop // 2
    low, high = np.clip(centre - half, 0, len(pcm)), np.clip(centre + half, 0, len(pcm))
    power = (energy[high] - energy[low]) / np.maximum(high - low, 1)
    level = 10.0 * np.log10(np.maximum(power, 1e-12))
    if level.max() <= -119.0:
        return np.full(count, -120.0, np.float32)
    return np.maximum(level - level.max(), -120.0).astype(np.float32)


def tile(phonemes: Sequence[Phoneme], pcm: np.ndarray, *, gate_db: float = -45.0) -> list[Phoneme]:
    """Phonemes in order -> the same phonemes tiling [0, len(pcm) / rate] exactly.

    Backends give the last sound before a pause the pause as well (a final "d" of 300 ms, heard for 30): what is
    quieter than ``gate_db`` below the loudest part of the speech, next to a pause or an end, becomes silence. Silences
    are merged.
    """
    total = len(pcm) / SAMPLE_RATE
    hop = 0.005
    loud = loudness_db(pcm, hop) > gate_db
    sounding = [p for p in phonemes if p.symbol != SILENCE and p.end_s > p.start_s]
    runs: list[list[Phoneme]] = []
    for phoneme in sounding:  # runs of speech between silences
        if runs and phoneme.start_s - runs[-1][-1].end_s < 0.010:
            runs[-1].append(phoneme)
        else:
            runs.append([phoneme])
    out: list[Phoneme] = []
    for run in runs:
        first, last = run[0], run[-1]
        start, end = max(0.0, first.start_s), min(total, last.end_s)
        heard = np.flatnonzero(loud[int(start / hop) : max(int(start / hop) + 1, int(end / hop))])
        if len(heard):  # 60 ms before: the closure of a plosive cannot be heard
            start = max(start, start + heard[0] * hop - 0.06)
            end = min(end, int(start / hop) * hop + 0.03 + (heard[-1] + 1) * hop, end)
        out += [_inside(p, start, end, total) for p in run]
    return _fill(out, total)


def _inside(p: Phoneme, start: float, end: float, total: float) -> Phoneme:
    """A phoneme cut to [start, end]; what is reduced to nothing keeps 20 ms, so that none is lost."""
    first, last = min(max(p.start_s, start), end), min(max(p.end_s, start), end)
    if last - first < 0.02:
        last = min(first + 0.02, max(p.end_s, first + 0.005), total)
    return Phoneme(p.symbol, first, last, p.stressed)


def _fill(phonemes: list[Phoneme], total: float) -> list[Phoneme]:
    """Make times increase and put silence where nothing is said."""
    out: list[Phoneme] = []
    now = 0.0
    for p in phonemes:
        start, end = max(p.start_s, now), min(max(p.end_s, p.start_s), total)
        if end <= start:
            continue
        if start - now > 1e-9:
            if start - now < 0.010 and out:  # too short for a pause
                out[-1] = Phoneme(out[-1].symbol, out[-1].start_s, start, out[-1].stressed)
            else:
                out.append(Phoneme(SILENCE, now, start))
        out.append(Phoneme(p.symbol, start, end, p.stressed))
        now = end
    if total - now > 1e-9:
        out.append(Phoneme(SILENCE, now, total))
    return out
