# SPDX-License-Identifier: Apache-2.0
"""What writes replies: messages in, text out piece by piece while it is made; the seam of all language models.

A backend is loaded and used in a worker thread of the conversation. Whoever asked may cancel at any time from another
thread, and every request has a deadline: a server that hangs must not keep a robot from its visitor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

import numpy as np

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

# How a model is asked to write: JSON objects with a sentence each; text with [stage directions]; text alone.
JSON, DIRECTIONS, PLAIN = "json", "directions", "plain"


class LanguageModelError(RuntimeError):
    """A backend cannot be used, or a reply could not be made: one line that says why."""


class CutShort(LanguageModelError):
    """The model had more to write than it may: what came is a beginning. Raised after the last piece."""


class Cancelled(LanguageModelError):
    """Whoever asked for the reply does not want it any more."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. Sound and picture go to backends that hear and see, with the user's last message."""

    role: str  # SYSTEM, USER or ASSISTANT
    text: str
    picture: bytes = b""  # a JPEG or PNG file
    sound: np.ndarray | None = field(default=None, compare=False)  # float32 mono [T] of `sound_rate`
    sound_rate: int = 16_000


@dataclass(frozen=True)
class ModelSettings:
    """What the backends are made with; each uses what concerns it."""

    model: str = ""  # a name, or a path
    base_url: str = ""
    key_variable: str = (
        "OPENAI_API_KEY"  # the environment variable that holds the key; the key itself is never kept
    )
    device: str = "cpu"
    threads: int = 1
    temperature: float = 0.3
    max_tokens: int = 160
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 15.0
    retries: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "threads": (1, 256),
            "temperature": (0.0, 2.0),
            "max_tokens": (1, 4096),
            "connect_timeout_s": (0.05, 60.0),
            "read_timeout_s": (0.05, 600.0),
            "retries": (0, 10),
        }
        for name in (entry.name for entry in fields(self) if entry.name in bounds):
            low, high = bounds[name]
            if not low <= getattr(self, name) <= high:
                raise LanguageModelError(f"{name} must be {low:g} … {high:g}, not {getattr(self, name):g}")


class Cancellation:
    """Says from any thread that a reply is not wanted any more, and until when it is."""

    def __init__(self, seconds: float = float("inf")) -> None:
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def left_s(self) -> float:
        """Until the deadline; 0 when it has passed."""
        return max(0.0, self._deadline - time.monotonic())

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            for callback in self._callbacks:
                callback()

    def check(self) -> None:
        """Raises Cancelled, or LanguageModelError after the deadline."""
        if self._cancelled:
            raise Cancelled("the reply is not wanted any more")
        if self.left_s == 0.0:
            raise LanguageModelError("the reply was not complete by its deadline")

    @contextmanager
    def waking(self, callback: Callable[[], object]) -> Iterator[None]:
        """Meanwhile `cancel` calls `callback`, which ends a wait; never afterwards. It must be quick and not raise."""
        with self._lock:
            self._callbacks.append(callback)
            if self._cancelled:
                callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


class LanguageModel(Protocol):
    """A chat backend. `load`, `stream` and `close` are called by one thread."""

    writes: str  # JSON, DIRECTIONS or PLAIN: how its system prompt asks it to write
    sees: bool
    hears: bool

    def load(self, system: str) -> None:
        """Gets ready, which may take long; what the system prompt costs may be paid here. Raises LanguageModelError."""
        ...

    def stream(self, messages: Sequence[Message], cancellation: Cancellation) -> Iterator[str]:
        """The reply, piece by piece. Raises LanguageModelError, also in the middle of it; CutShort at its end."""
        ...

    def close(self) -> None:
        """Frees what `load` took."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A backend that can say how likely a text goes on in each of some ways."""

    def score(self, text: str, endings: Sequence[str], cancellation: Cancellation) -> list[float]:
        """Natural logarithm of each ending's probability after `text`."""
        ...


def _openai(settings: ModelSettings) -> LanguageModel:
    from flowact_ros.dialogue.language_model_openai import OpenAIModel

    return OpenAIModel(settings)


def _transformers(settings: ModelSettings) -> LanguageModel:
    from flowact_ros.dialogue.language_model_transformers import TransformersModel

    return TransformersModel(settings)


def _embedded(settings: ModelSettings) -> LanguageModel:
    from flowact_ros.dialogue.language_model_embedded import EmbeddedModel

    return EmbeddedModel(settings)


BACKENDS: dict[str, Callable[[ModelSettings], LanguageModel]] = {
    "openai": _openai,
    "transformers": _transformers,
    "embedded": _embedded,
}


def make_language_model(name: str, settings: ModelSettings) -> LanguageModel:
    """The backend `name`, checked but not loaded yet. Raises LanguageModelError with the remedy."""
    if name not in BACKENDS:
        raise LanguageModelError(f"unknown language model backend {name!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[name](settings)
