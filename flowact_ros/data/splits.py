# SPDX-License-Identifier: Apache-2.0
"""What training never sees: the characters, voices and sentences of the evaluation, all fixed in this file.

`validation` has characters of its own and is what training sheets show and settings are chosen on; `heldout` also has
its own voices and sentences, and only `flowact eval` looks at it.
"""

from __future__ import annotations

import re

SPLITS = ("train", "heldout", "validation")

# Characters: seeds of ``identity_from_seed``. All named characters are training characters.
TRAIN_CHARACTER_SEEDS = range(0, 1_000_000)
# Pictures for the VAE (`data.prepare`) draw seeds from 1,000,000 (training) and from 5,000,000 (all other splits).
VALIDATION_CHARACTER_SEEDS = range(6_000_000, 6_000_064)
HELDOUT_CHARACTER_SEEDS = range(7_000_000, 7_000_064)
CHARACTER_SEEDS = {
    "train": TRAIN_CHARACTER_SEEDS,
    "validation": VALIDATION_CHARACTER_SEEDS,
    "heldout": HELDOUT_CHARACTER_SEEDS,
}

# Voices: (backend, factors of the vocal tract). 1.1 = a tract 10 % shorter: higher pitch and formants.
# flite's awb and hibari between 0.89 and 0.95 speak in the evaluation only.
TRAIN_VOICES: tuple[tuple[str, tuple[float, float], float], ...] = (  # backend, factor range, share
    ("hibari", (0.96, 1.18), 0.40),
    ("hibari", (0.76, 0.88), 0.20),
    ("flite:slt", (0.85, 1.15), 0.14),
    ("flite:rms", (0.90, 1.15), 0.14),
    ("flite:kal16", (0.90, 1.15), 0.07),
    ("espeak", (0.90, 1.10), 0.05),
)
HELDOUT_VOICES: tuple[tuple[str, tuple[float, float], float], ...] = (
    ("hibari", (0.89, 0.95), 0.6),
    ("flite:awb", (0.95, 1.05), 0.4),
)

# Kokoro's voices speak where they are asked for (--kokoro): all other material is the same without them.
KOKORO_TRACT = (0.88, 1.14)
HELDOUT_KOKORO = ("af_nova", "am_michael", "bf_isabella", "bm_george")

HELDOUT_SENTENCES: tuple[str, ...] = (
    "Please mind the gap between the platform and the moving bridge.",
    "Bob made popcorn for five of my best friends.",
    "The museum opens at half past nine on every weekday morning.",
    "You will find the elevator behind the blue sofa in the lobby.",
    "A warm apple pie makes a rainy evening much better.",
    "My favorite number is forty two, and yours?",
    "Could you show me your ticket before we move along?",
    "Bumblebees hum above the purple poppies.",
    "We have seven vegan wraps and a pumpkin soup today.",
    "Doctor Palmer will be with you in about fifteen minutes.",
    "Papa bought a big brown bag of plums.",
    "What a wonderful surprise to meet you here!",
    "The quick brown fox jumps over the lazy dog.",
    "Why did the robot cross the road? Because it was programmed by the chicken.",
    "Walk past the fountain, then take the wide stairs on your right.",
    "She sells sea shells by the sea shore.",
    "Maybe we should move the meeting to Monday.",
    "The weather map promises fog in the valley and sun above it.",
    "Ba va ma fa pa wa.",
    "Open up, breathe out, and hum a simple melody.",
    "Would you rather have tea, coffee, or a cup of cocoa?",
    "Thumbs up for everybody who voted for the park.",
    "How about a photo in front of the old harbor?",
    "The shop assistant wrapped a bouquet of pale pink peonies.",
)


def normalized(sentence: str) -> str:
    """A sentence without case, punctuation and spacing, for comparing."""
    return re.sub(r"[^a-z0-9]+", " ", sentence.lower()).strip()


HELDOUT_TEXTS = frozenset(normalized(s) for s in HELDOUT_SENTENCES)


def check_split(split: str) -> str:
    """The split's name; raises ValueError for an unknown one."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; it is one of {', '.join(SPLITS)}")
    return split
