# SPDX-License-Identifier: Apache-2.0
"""The thread in which a language model is loaded and writes; of the turns it is given, only the newest counts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from flowact_ros.dialogue.language_model import (
    PLAIN,
    Cancelled,
    CutShort,
    LanguageModel,
    LanguageModelError,
    Scorer,
)
from flowact_ros.dialogue.manners import ToneScorer
from flowact_ros.dialogue.turn import Sentence, Turn, stands_out

CLOSING_S = 2.0  # a model that does not end by then is left alone; its thread ends with the process


class Reader(Protocol):
    """Who reads what the model writes; called in the writer's thread."""

    def piece_written(self, turn: Turn, piece: str) -> Sequence[Sentence]:
        """Sentences that are complete with it."""
        ...

    def all_written(self, turn: Turn, cut: bool) -> Sequence[Sentence]:
        """The sentences that were left; `cut`: the model had more to write. Raises LanguageModelError if there was
        nothing to say."""
        ...

    def tone_chosen(self, turn: Turn, sentence: Sentence, action: str) -> None: ...

    def not_written(self, turn: Turn, reason: str) -> None:
        """The model failed before its end."""
        ...


class Writer:
    """`ask` and `forget` from any thread. A model that hangs keeps its thread; who waits for it must count the time."""

    def __init__(self, model: LanguageModel, system: str, reader: Reader) -> None:
        self.ready = False  # loaded
        self.fault = ""  # why it cannot be used at all
        self._model, self._system, self._reader = model, system, reader
        self._changed = threading.Condition()
        self._next: Turn | None = None
        self._closed = False
        self._tones: ToneScorer | None = None
        self._thread = threading.Thread(target=self._work, name="language-model", daemon=True)
        self._thread.start()

    def ask(self, turn: Turn) -> None:
        with self._changed:
            self._next = turn
            self._changed.notify()

    def forget(self) -> None:
        """What has not been begun is not wanted any more."""
        with self._changed:
            self._next = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSING_S)

    def _work(self) -> None:
        try:
            self._model.load(self._system)
            if self._model.writes == PLAIN and isinstance(self._model, Scorer):
                self._tones = ToneScorer(self._model)
                self._tones.load()
        except Exception as error:  # of libraries, and of files from anywhere: the persona answers instead
            self.fault = f"the language model cannot be used: {one_line(error)}"
            return
        self.ready = True
        while (turn := self._wait()) is not None:
            self._write(turn)
        self._model.close()

    def _wait(self) -> Turn | None:
        """The turn to answer next; None at the end."""
        with self._changed:
            while self._next is None and not self._closed:
                self._changed.wait()
            turn, self._next = self._next, None
            return None if self._closed else turn

    def _write(self, turn: Turn) -> None:
        try:
            pieces, cut = self._model.stream(turn.messages, turn.cancellation), False
            try:
                for piece in pieces:
                    self._choose_tones(turn, self._reader.piece_written(turn, piece))
                    if turn.ended:
                        return
            except CutShort:
                cut = True
            finally:
                getattr(pieces, "close", lambda: None)()
            self._choose_tones(turn, self._reader.all_written(turn, cut))
        except Cancelled:
            return
        except Exception as error:  # of any backend: the visitor is answered all the same
            self._reader.not_written(turn, one_line(error))

    def _choose_tones(self, turn: Turn, sentences: Sequence[Sentence]) -> None:
        """Of sentences whose words do not call for one by themselves."""
        if self._tones is not None:
            for sentence in sentences:
                if not stands_out(sentence.text):
                    action = self._tones.action(sentence.text, turn.cancellation)
                    self._reader.tone_chosen(turn, sentence, action)


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if text and isinstance(error, LanguageModelError) else f"{type(error).__name__}: {text}"
