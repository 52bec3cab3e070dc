# SPDX-License-Identifier: Apache-2.0
"""Named expressions, as other programs ask for them, in the wordings with which the character shows them.

Names are those of `hri_msgs/Expression` that the motion model has something for; by valence and arousal the nearest
one is found, with the places that Russell's circumplex of affect (1980) gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowact_ros.dialogue.phrases import MANNERS, REACTIONS, WORDINGS
from flowact_ros.vocabulary import IDLE, REACTING, SPEAKING, THINKING


@dataclass(frozen=True)
class Expression:
    """behaviour, text: while the character is silent; spoken: its wording while it speaks."""

    behaviour: str
    text: str
    spoken: str


_NEUTRAL = Expression(IDLE, WORDINGS[IDLE][0], WORDINGS[SPEAKING][0])
_HAPPY = Expression(REACTING, REACTIONS["smile"][0], MANNERS["cheerful"][1])
_SURPRISED = Expression(REACTING, REACTIONS["surprise"][0], WORDINGS[SPEAKING][0])
_DOUBTING = Expression(THINKING, WORDINGS[THINKING][2], MANNERS["serious"][0])
# The model learned this look in speech; in silence it is the same one: brows lowered and together, no smile.
_SERIOUS = Expression(REACTING, MANNERS["serious"][1], MANNERS["serious"][1])
EXPRESSIONS: dict[str, Expression] = {
    "neutral": _NEUTRAL,
    "happy": _HAPPY,
    "excited": _HAPPY,
    "surprised": _SURPRISED,
    "amazed": _SURPRISED,
    "confused": _DOUBTING,
    "skeptical": _DOUBTING,
    "suspicious": _DOUBTING,
    "sad": _SERIOUS,
    "disappointed": _SERIOUS,
    "angry": _SERIOUS,
    "annoyed": _SERIOUS,
}
#: Valence and arousal, each -1 .. 1.
_PLACES = {
    "neutral": (0.0, 0.0),
    "happy": (0.8, 0.4),
    "surprised": (0.2, 0.9),
    "sad": (-0.8, -0.4),
    "angry": (-0.7, 0.7),
}


def expression_of(name: str, valence: float = 0.0, arousal: float = 0.0) -> Expression:
    """By its name (any case); without one by valence and arousal, -1 .. 1.

    Raises ValueError for a name that is not known, naming those that are, and for numbers out of range.
    """
    wanted = name.strip().lower()
    if not wanted:
        if not all(-1.0 <= value <= 1.0 for value in (valence, arousal)):
            raise ValueError(f"valence is {valence:g} and arousal is {arousal:g}: each must be -1 … 1")
        wanted = min(_PLACES, key=lambda known: math.dist(_PLACES[known], (valence, arousal)))
    found = EXPRESSIONS.get(wanted)
    if found is None:
        raise ValueError(f"expression {name[:40]!r} cannot be shown: must be one of {', '.join(EXPRESSIONS)}")
    return found
