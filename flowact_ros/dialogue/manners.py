# SPDX-License-Identifier: Apache-2.0
"""How a sentence is said, by a language model that is too small to say so itself: candidates are scored.

A few examples show the model sentences with their tone; asked for the next tone, it finds every word of a fixed list
more or less likely. How likely it finds each before a sentence that says nothing is taken off, since small models
prefer some words whatever they read.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowact_ros.dialogue.language_model import Cancellation, Scorer
from flowact_ros.dialogue.phrases import MANNERS, REACTIONS, WORDINGS
from flowact_ros.vocabulary import SPEAKING

# A tone, and the words of the motion model for it; in the order of the examples.
TONES: dict[str, tuple[str, ...]] = {
    "friendly": WORDINGS[SPEAKING],
    "cheerful": MANNERS["cheerful"],
    "serious": MANNERS["serious"],
    "explaining": MANNERS["explaining"],
    "greeting": MANNERS["greeting"],
    "surprised": REACTIONS["surprise"],
}
EXAMPLES = (
    ("The shop is on your right.", "explaining"),
    ("I am so sorry to hear that.", "serious"),
    ("Welcome, nice to see you!", "greeting"),
    ("That is wonderful news!", "cheerful"),
    ("Really? I had no idea!", "surprised"),
    ("You can take your time.", "friendly"),
    ("First you turn the handle, then the wheel moves.", "explaining"),
    ("Unfortunately it was destroyed in the war.", "serious"),
    ("Congratulations, well done!", "cheerful"),
    ("Goodbye, see you soon!", "greeting"),
)
NEUTRAL = "N/A"
MAX_SENTENCE = 200  # characters that are looked at


class ToneScorer:
    """The tone of sentences by a scoring model."""

    def __init__(self, model: Scorer) -> None:
        self._model = model
        self._prior: Sequence[float] | None = None
        self._said = 0

    def load(self) -> None:
        """Reads the examples, so that the first sentence need not wait for it."""
        self._prior = self._scores(NEUTRAL, Cancellation())

    def tone(self, sentence: str, cancellation: Cancellation) -> str:
        """One of TONES."""
        if self._prior is None:
            self.load()
        scores = self._scores(sentence[:MAX_SENTENCE], cancellation)
        gains = [score - before for score, before in zip(scores, self._prior or (), strict=True)]
        return list(TONES)[gains.index(max(gains))]

    def action(self, sentence: str, cancellation: Cancellation) -> str:
        """Words for the model of motion; of the wordings of a tone, the next one."""
        wordings = TONES[self.tone(sentence, cancellation)]
        self._said += 1
        return wordings[self._said % len(wordings)]

    def _scores(self, sentence: str, cancellation: Cancellation) -> list[float]:
        quoted = sentence.replace('"', "'")
        examples = "".join(f'Sentence: "{text}"\nTone: {tone}\n\n' for text, tone in EXAMPLES)
        return self._model.score(
            f'{examples}Sentence: "{quoted}"\nTone:', [f" {tone}" for tone in TONES], cancellation
        )
