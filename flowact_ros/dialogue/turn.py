# SPDX-License-Identifier: Apache-2.0
"""One answer on its way from a model's pieces to sentences, with what the face does meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowact_ros.dialogue.heard_text import speakable
from flowact_ros.dialogue.language_model import Cancellation, Message
from flowact_ros.dialogue.phrases import greets, manner_of
from flowact_ros.dialogue.planner import Instruction
from flowact_ros.dialogue.reply import Acted, Part, ReplyReader, Said
from flowact_ros.dialogue.sentences import SentenceSplitter

MODEL, RULES = "model", "rules"  # who wrote an answer
MAX_REPLY = 20_000  # characters that a model may write, whatever of it can be said
LONGEST_S = 60.0  # of a whole answer

Planned = tuple["Sentence", Instruction | None]


@dataclass(frozen=True)
class Sentence:
    """To be said now, after those before it."""

    text: str
    utterance_id: str
    index: int  # from 1
    last: bool = False  # known to be the last one; the end of a reply is told by ReplyEnded in any case


def stands_out(text: str) -> bool:
    """Its words alone tell how it is said."""
    return greets(text) or manner_of(text) != ""


class Turn:
    """Of a user's words and the answer to them."""

    def __init__(self, number: int, now_s: float, flush_s: float, max_sentences: int) -> None:
        self.number = number
        self.asked_s = self.progress_s = now_s
        self.first_token_s: float | None = None
        self.first_sentence_s: float | None = None
        self.source = MODEL
        self.ended = False
        self.sentences = 0
        self.messages: Sequence[Message] = ()
        self.cancellation = Cancellation(LONGEST_S)
        self._most = max_sentences
        self._reader = ReplyReader()
        self._splitter = SentenceSplitter(flush_s)
        self._plan: Acted | None = None
        self._said: set[str] = set()
        self._written = 0
        self._repeats = False

    @property
    def full(self) -> bool:
        """Enough was said, or the model goes round in circles."""
        return self.sentences >= self._most or self._written >= MAX_REPLY or self._repeats

    def owns(self, utterance_id: str) -> bool:
        return utterance_id.startswith(f"reply-{self.number}-")

    def push(self, piece: str, now_s: float) -> list[Planned]:
        """Sentences that are complete with it."""
        if self.first_token_s is None and piece.strip():
            self.first_token_s = now_s - self.asked_s
        piece = piece[: max(0, MAX_REPLY - self._written)]
        self._written += len(piece)
        return self._read(self._reader.push(piece), now_s)

    def due(self, now_s: float) -> list[Planned]:
        return self._planned(self._splitter.due(now_s), now_s)

    def finish(self, now_s: float, cut: bool) -> list[Planned]:
        """The rest, once the model has ended; of an answer that was cut without its last half sentence, if there is
        another one. Raises LanguageModelError where it makes no sense."""
        planned = self._read(self._reader.finish(), now_s)
        broken = cut and self.sentences > 0 and not self._splitter.complete
        rest = self._splitter.finish()
        return planned + ([] if broken else self._planned(rest, now_s, last=True))

    def whole(self, text: str, now_s: float) -> list[Planned]:
        """A text that is complete from the beginning, instead of a model's."""
        self._reader, self._splitter, self._plan = ReplyReader(), SentenceSplitter(), None
        self._written, self._repeats = 0, False
        sentences = self._splitter.push(text, now_s)
        sentences += self._splitter.finish()
        before, after = sentences[:-1], sentences[-1:]
        return self._planned(before, now_s) + self._planned(after, now_s, last=True)

    def _read(self, parts: Iterable[Part], now_s: float) -> list[Planned]:
        planned: list[Planned] = []
        for part in parts:
            if isinstance(part, Said):
                planned += self._planned(self._splitter.push(part.text, now_s), now_s)
                continue
            if self._splitter.complete:
                planned += self._planned(self._splitter.finish(), now_s)
            self._plan = part  # for the sentence that has begun, if one has, and those that follow
        return planned

    def _planned(self, sentences: Sequence[str], now_s: float, last: bool = False) -> list[Planned]:
        planned: list[Planned] = []
        for text in map(speakable, sentences):
            if not text or self.full:
                continue
            if text in self._said:
                self._repeats = True  # and will again
                continue
            self._said.add(text)
            self.sentences += 1
            self.progress_s = now_s
            utterance_id = f"reply-{self.number}-{self.sentences}"
            plan = self._plan
            instruction = (
                None if plan is None else Instruction(plan.behaviour, plan.action, utterance_id=utterance_id)
            )
            planned.append((Sentence(text, utterance_id, self.sentences, last), instruction))
        return planned
