# SPDX-License-Identifier: Apache-2.0
"""The planner's phrases: what the model is told, in words it was trained with, and which words call for what."""

from __future__ import annotations

import re

from flowact_ros.vocabulary import IDLE, LISTENING, SPEAKING, THINKING

# Of the wordings that the model knows, those with which the shipped weights draw the sharpest eyes (docs/decisions.md).
WORDINGS: dict[str, tuple[str, ...]] = {
    IDLE: ("calm and neutral, waiting", "standing still and waiting for somebody to come"),
    LISTENING: (
        "listening with interest, leaning forward a little",
        "hearing a question, eyes on the visitor",
    ),
    THINKING: (
        "thinking, looking away for a moment",
        "considering the answer, hand to the chin",
        "pondering with a slight frown",
    ),
    SPEAKING: ("talking to the viewer", "answering a question", "telling something in a relaxed tone"),
}
# At a pause of who speaks: a new wording of listening is what the model answers with a nod, or with raised brows.
NODS = ("listening closely, nodding now and then", "nodding along while the visitor talks")
REACTIONS: dict[str, tuple[str, ...]] = {
    "smile": ("smiling warmly", "reacting with a warm smile"),
    "laugh": ("laughing", "laughing heartily"),
    "surprise": ("surprised, eyebrows raised", "reacting with surprise"),
}
# How something is said, by its text; without one, or if nothing in it stands out: "speaking" of the table above.
MANNERS: dict[str, tuple[str, ...]] = {
    "serious": ("speaking seriously, without a smile", "speaking with a concerned look"),
    "cheerful": ("telling good news with a bright face", "speaking cheerfully with a smile"),
    "explaining": ("explaining with raised hands", "speaking with both hands"),
    "greeting": ("saying hello with a raised hand", "greeting a visitor and waving a hand"),
}
# Words of the user that call for a reaction; whole words, any case.
_KEYWORDS = (
    ("laugh", r"laugh|haha+|funny|joke|hilarious|lol"),
    ("surprise", r"surprise[ds]?|wow|really\?|unbelievable|amazing|incredible"),
    ("smile", r"smile|thanks?|thank you|lovely|nice|great|hello|hi|good morning"),
)
# Words of the avatar that call for a manner, the strongest first.
_MANNER_KEYWORDS = (
    ("serious", r"sorry|unfortunately|sadly|regret|careful|caution|warning|danger(?:ous)?|emergency"),
    ("cheerful", r"great|wonderful|lovely|amazing|wow|congratulations|happy|glad|haha+|funny|joke|thanks?"),
    ("explaining", r"because|for example|turn (?:left|right)|(?:the|your) (?:left|right)|straight on"),
)
# At the beginning, but for "well, " and the like; or the end of a conversation, wherever it stands.
_GREETING = re.compile(
    r"^\W*(?:(?:oh|well|so|ah)\W+)?(?:hello|hi|hey|welcome|greetings|good (?:morning|afternoon|evening|day))(?![\w-])"
    r"|\b(?:good ?bye|bye|see you (?:soon|later|again|tomorrow))\b",
    re.IGNORECASE,
)


def _patterns(keywords: tuple[tuple[str, str], ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((kind, re.compile(rf"\b(?:{words})(?!\w)", re.IGNORECASE)) for kind, words in keywords)


_KEYWORD_PATTERNS, _MANNER_PATTERNS = _patterns(_KEYWORDS), _patterns(_MANNER_KEYWORDS)


def reaction_to(text: str) -> str | None:
    """The reaction a text calls for ("laugh", "surprise", "smile"), or None. The strongest wins."""
    for kind, pattern in _KEYWORD_PATTERNS:
        if pattern.search(text):
            return kind
    return None


def manner_of(text: str) -> str:
    """How a text is said ("serious", "cheerful", "explaining"), or "" for no way in particular."""
    return next((kind for kind, pattern in _MANNER_PATTERNS if pattern.search(text)), "")


def greets(text: str) -> bool:
    """Does it begin with a greeting, or say goodbye?"""
    return _GREETING.search(text) is not None
