# SPDX-License-Identifier: Apache-2.0
"""A conversation without ROS: what was heard goes in, sentences and instructions come out while they are written.

A language model works in a thread of its own; everything else happens in whoever calls, and nothing here waits. A
model that is slow, broken or writes nonsense is replaced by the persona's own answers within `answer_timeout_s`; what
it still writes is not listened to. Each turn has a number, each sentence the id `reply-TURN-INDEX`: what belongs to an
earlier turn is stale and ignored.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from flowact_ros.dialogue.heard_text import RateLimit, clean
from flowact_ros.dialogue.history import History
from flowact_ros.dialogue.language_model import LanguageModel, LanguageModelError
from flowact_ros.dialogue.persona import Persona
from flowact_ros.dialogue.planner import Instruction
from flowact_ros.dialogue.turn import MODEL, RULES, Planned, Sentence, Turn
from flowact_ros.dialogue.writer import Writer
from flowact_ros.vocabulary import SPEAKING


class ConversationError(ValueError):
    """A setting of the conversation makes no sense."""


@dataclass(frozen=True)
class ReplyEnded:
    """All sentences of a turn are out."""

    turn: int
    sentences: int
    source: str  # MODEL or RULES
    reason: str = ""  # why the model did not write it all
    first_token_s: float | None = None  # after the user's words came
    first_sentence_s: float | None = None
    whole_s: float = 0.0


Event = Sentence | Instruction | ReplyEnded


@dataclass(frozen=True)
class ConversationConfig:
    answer_timeout_s: float = 6.0  # until the first sentence, and between two
    max_heard: int = 500  # characters of what the user said
    per_minute: float = 20.0  # utterances that are answered
    history: int = 8  # turns that the model is told
    max_sentences: int = 4  # of an answer
    flush_s: float = 0.7  # without a new piece: then a clause is said without the rest of its sentence

    def __post_init__(self) -> None:
        bounds = {
            "answer_timeout_s": (0.1, 120.0),
            "max_heard": (20, 20_000),
            "per_minute": (1.0, 600.0),
            "history": (1, 100),
            "max_sentences": (1, 50),
            "flush_s": (0.1, 10.0),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ConversationError(f"{name} must be {low:g} … {high:g}, not {getattr(self, name):g}")


@dataclass
class Counts:
    """Of a conversation so far."""

    turns: int = 0
    by_model: int = 0
    fixed: int = 0  # the persona's own answers, by choice
    fallbacks: int = 0  # the persona's, since the model gave none in time
    broken_off: int = 0  # answers of the model that stopped in the middle
    refused: int = 0
    ignored: int = 0
    interrupted: int = 0


class Conversation:
    """`hear`, `interrupt`, `spoken`, `tick` by one thread, with times of `clock`; `take` gives the events since.

    wake: called from any thread when there are events to take.
    """

    def __init__(
        self,
        persona: Persona,
        model: LanguageModel | None = None,
        config: ConversationConfig | None = None,
        *,
        wake: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or ConversationConfig()
        self.persona = persona
        self.counts = Counts()
        self.last_error = ""
        self._wake, self._clock = wake, clock
        self._system = persona.system_prompt(model.writes) if model is not None else ""
        self._fallbacks = cycle(persona.fallback)
        self._rate = RateLimit(self.config.per_minute)
        self._told_rate = False
        self._history = History(self.config.history)
        self._lock = threading.RLock()
        self._events: deque[Event] = deque()
        self._number = 0
        self._turn: Turn | None = None
        self._writer = None if model is None else Writer(model, self._system, self)

    # ------------------------------------------------------------ what goes in

    def hear(
        self,
        text: str,
        now_s: float,
        *,
        picture: bytes = b"",
        sound: np.ndarray | None = None,
        sound_rate: int = 16_000,
    ) -> bool:
        """What the user said, at its end, and for models that see and hear more of it. False if it is not answered:
        what was being answered goes on then."""
        too_long = len(text) > self.config.max_heard
        heard = clean(text[: self.config.max_heard])
        if not heard:
            self.counts.ignored += 1
            return False
        if not self._rate.allows(now_s):
            self.counts.refused += 1
            told, self._told_rate = self._told_rate, True
            if not told:
                self._say(self.persona.too_many, now_s)
            return not told
        self._told_rate = False
        self.counts.turns += 1
        if too_long or self.persona.refuses(heard):
            self.counts.refused += 1
            if too_long:
                self._say(self.persona.too_long, now_s)
            else:
                self._say(self.persona.refusal, now_s, heard=heard)
        elif fixed := self.persona.fixed_reply(heard):
            self.counts.fixed += 1
            self._say(fixed, now_s, heard=heard)
        elif self._writer is None:
            self.counts.fixed += 1
            self._say(next(self._fallbacks), now_s, heard=heard)
        else:
            more = {"picture": picture, "sound": sound, "sound_rate": sound_rate}
            self._ask(self._writer, heard, now_s, more)
        self._wake()
        return True

    def volunteer(self, text: str, now_s: float) -> None:
        """Says something that nobody asked for."""
        if text:
            self._say(text, now_s)
            self._wake()

    def interrupt(self) -> None:
        """What is being answered is not wanted any more. What was heard of it `spoken` tells."""
        with self._lock:
            if self._turn is not None:
                self.counts.interrupted += 1
                self._drop()

    def spoken(self, utterance_id: str, heard: str) -> None:
        """A sentence was said, up to there."""
        with self._lock:
            self._history.spoken(utterance_id, heard)

    def tick(self, now_s: float) -> None:
        """Time passes: what was waited for too long is given up, and what looks complete is said."""
        with self._lock:
            turn = self._turn
            if turn is None or turn.ended:
                return
            waited = now_s - turn.progress_s
            if waited >= self.config.answer_timeout_s:
                self._give_up(turn, f"no answer within {self.config.answer_timeout_s:g} s", now_s)
            else:
                self._say_sentences(turn, turn.due(now_s), now_s)
            news = bool(self._events)
        if news:
            self._wake()

    # ------------------------------------------------------------ what comes out

    def take(self) -> list[Event]:
        with self._lock:
            events, self._events = list(self._events), deque()
        return events

    @property
    def answering(self) -> bool:
        """An answer is being written."""
        with self._lock:
            return self._turn is not None and not self._turn.ended

    @property
    def ready(self) -> bool:
        """The model is loaded, or there is none."""
        return self._writer is None or self._writer.ready

    @property
    def fault(self) -> str:
        """Why the model cannot be used at all."""
        return "" if self._writer is None else self._writer.fault

    def stale(self, utterance_id: str) -> bool:
        """Does it belong to a turn that is over?"""
        with self._lock:
            return self._turn is None or not self._turn.owns(utterance_id)

    def close(self) -> None:
        with self._lock:
            self._drop()
        if self._writer is not None:
            self._writer.close()

    # ------------------------------------------------------------ turns; the lock is held from here on where it says so

    def _begin(self, heard: str, now_s: float) -> Turn:
        """With the lock: a new turn, which makes the one before stale."""
        self._drop()
        self._number += 1
        self._turn = Turn(self._number, now_s, self.config.flush_s, self.config.max_sentences)
        self._history.asked(heard)
        return self._turn

    def _drop(self) -> None:
        """With the lock."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.ended = True
            turn.cancellation.cancel()
            if self._writer is not None:
                self._writer.forget()
            self._events = deque(
                event for event in self._events if not turn.owns(getattr(event, "utterance_id", ""))
            )

    def _say(self, text: str, now_s: float, heard: str = "") -> None:
        """A turn whose text is there already."""
        with self._lock:
            turn = self._begin(heard, now_s)
            turn.source = RULES
            self._say_sentences(turn, turn.whole(text, now_s), now_s)
            self._end(turn, "", now_s)

    def _ask(self, writer: Writer, heard: str, now_s: float, more: dict[str, Any]) -> None:
        with self._lock:
            turn = self._begin(heard, now_s)
            messages = self._history.messages(self._system)
            turn.messages = [*messages[:-1], replace(messages[-1], **more)]
            if writer.ready:
                writer.ask(turn)
            else:
                self._give_up(turn, writer.fault or "the language model is still being loaded", now_s)

    def _say_sentences(self, turn: Turn, sentences: Sequence[Planned], now_s: float) -> None:
        """With the lock."""
        for sentence, instruction in sentences:
            if turn.first_sentence_s is None:
                turn.first_sentence_s = now_s - turn.asked_s
            self._history.answering(sentence.utterance_id, sentence.text)
            # The instruction first: it is there when the sentence begins to sound.
            self._events.extend([sentence] if instruction is None else [instruction, sentence])

    def _give_up(self, turn: Turn, reason: str, now_s: float) -> None:
        """With the lock: the model's answer has failed."""
        turn.cancellation.cancel()
        if self._writer is not None:
            self._writer.forget()
        self.last_error = reason
        if turn.sentences:
            self.counts.broken_off += 1
        else:
            self.counts.fallbacks += 1
            turn.source = RULES
            self._say_sentences(turn, turn.whole(next(self._fallbacks), now_s), now_s)
        self._end(turn, reason, now_s)

    def _end(self, turn: Turn, reason: str, now_s: float) -> None:
        """With the lock."""
        turn.ended = True
        if turn.source == MODEL:
            self.counts.by_model += 1
        self._events.append(
            ReplyEnded(
                turn.number,
                turn.sentences,
                turn.source,
                reason,
                turn.first_token_s,
                turn.first_sentence_s,
                now_s - turn.asked_s,
            )
        )

    # ------------------------------------------------------------ called in the writer's thread

    def piece_written(self, turn: Turn, piece: str) -> Sequence[Sentence]:
        with self._lock:
            if turn.ended:
                return ()
            now_s = self._clock()
            sentences = turn.push(piece, now_s)
            self._say_sentences(turn, sentences, now_s)
            if turn.full and turn.sentences:
                self._end(turn, "", now_s)
            elif turn.full:
                self._give_up(turn, "the model wrote nothing that could be said", now_s)
        if sentences or turn.ended:
            self._wake()
        return [sentence for sentence, _ in sentences]

    def all_written(self, turn: Turn, cut: bool) -> Sequence[Sentence]:
        with self._lock:
            if turn.ended:
                return ()
            now_s = self._clock()
            sentences = turn.finish(now_s, cut)
            self._say_sentences(turn, sentences, now_s)
            if not turn.sentences:
                raise LanguageModelError("the model wrote nothing that could be said")
            self._end(turn, "", now_s)
        self._wake()
        return [sentence for sentence, _ in sentences]

    def tone_chosen(self, turn: Turn, sentence: Sentence, action: str) -> None:
        with self._lock:
            if self._turn is turn:
                self._events.append(Instruction(SPEAKING, action, utterance_id=sentence.utterance_id))
        self._wake()

    def not_written(self, turn: Turn, reason: str) -> None:
        with self._lock:
            if not turn.ended:
                self._give_up(turn, reason, self._clock())
        self._wake()
