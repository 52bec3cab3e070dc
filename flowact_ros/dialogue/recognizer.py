# SPDX-License-Identifier: Apache-2.0
"""Speech to text: the protocol of recognisers, what they return, and the registry of backends.

Backends: `faster-whisper` (CTranslate2, int8: the fastest on a CPU, the default), `whisper` (OpenAI's own package) and
`transformers` (any speech-to-text model of that library). Each is imported only when it is chosen, and runs on one
thread unless told otherwise, since the face needs the other core. Nothing here downloads: `flowact weights get` does.
"""

from __future__ import annotations

import importlib.util
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flowact_ros.timebase import ENCODER_RATE

RATE = ENCODER_RATE  # [Hz] of the sound that every recogniser hears
NO_SPEECH = 0.6  # Whisper's own limits: from this probability of "nobody speaks" on,
UNSURE = -1.0  # ... together with a mean log probability below this, a text is what the network made up
LOOP_RATIO = 2.4  # a text that compresses better than this says the same again and again
TOKENS_PER_S = 12  # nobody speaks faster than this: a network caught in a loop is stopped there
TOKENS_MORE = 16
WINDOW_S = 30.0  # [s] what a Whisper model hears at once

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


class RecognizerError(ValueError):
    """Sound cannot be turned into text: one line with the reason and the remedy."""


@dataclass(frozen=True)
class Hypothesis:
    """What was said, as far as the recogniser can tell. Times count from the first sample that it was given."""

    text: str
    confidence: float  # 0 … 1: the mean probability of its tokens; negative if the recogniser gives none
    locale: str  # BCP 47, such as "en"; empty if unknown
    start_s: float
    end_s: float
    final: bool


@dataclass(frozen=True)
class RecognizerConfig:
    """Which backend runs which model, and how."""

    backend: str = "faster-whisper"
    model: str = "tiny.en"  # a name that the backend knows, or the path of a local model
    language: str = ""  # BCP 47, such as "en" or "pt-BR"; empty: the model decides each time
    device: str = "cpu"
    threads: int = 1
    beam_size: int = 1  # hypotheses that are followed side by side in a final recognition; 1 is greedy

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise RecognizerError(f"unknown recogniser {self.backend!r}; available: {', '.join(BACKENDS)}")
        if not self.model.strip():
            raise RecognizerError("the recogniser's model is empty: give a name such as tiny.en, or a path")
        if self.language and not _LANGUAGE.fullmatch(self.language):
            raise RecognizerError(
                f"language {self.language!r} is no BCP 47 tag such as en or pt-BR (empty: the model decides)"
            )
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise RecognizerError(f"device {self.device!r} must be cpu, cuda or cuda:N")
        if not 1 <= self.threads <= 64:
            raise RecognizerError(f"threads is {self.threads}; it must lie in 1 … 64")
        if not 1 <= self.beam_size <= 10:
            raise RecognizerError(f"beam_size is {self.beam_size}; it must lie in 1 … 10")

    @property
    def spoken(self) -> str:
        """The language without its region, as models know it: "pt" of "pt-BR"; empty: the model decides."""
        return self.language.partition("-")[0].lower()


class Recognizer(Protocol):
    """Sound of one utterance in, text out. Called from one thread at a time."""

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        """What is said in float32 mono samples [T] at RATE, 30 s at most.

        final: takes the time it needs; otherwise a quick guess will do, since more of the utterance is to come.
        Raises RecognizerError.
        """
        ...


def _faster_whisper(config: RecognizerConfig) -> Recognizer:
    from flowact_ros.dialogue.recognizer_faster_whisper import FasterWhisper

    return FasterWhisper(config)


def _whisper(config: RecognizerConfig) -> Recognizer:
    from flowact_ros.dialogue.recognizer_whisper import Whisper

    return Whisper(config)


def _transformers(config: RecognizerConfig) -> Recognizer:
    from flowact_ros.dialogue.recognizer_transformers import Transformers

    return Transformers(config)


BACKENDS: dict[str, Callable[[RecognizerConfig], Recognizer]] = {
    "faster-whisper": _faster_whisper,
    "whisper": _whisper,
    "transformers": _transformers,
}


def load_recognizer(config: RecognizerConfig) -> Recognizer:
    """The configured backend with its model in memory. Raises RecognizerError with the remedy for what is missing."""
    return BACKENDS[config.backend](config)


def require(package: str, remedy: str) -> None:
    """Raises RecognizerError with the remedy unless the package is installed."""
    if importlib.util.find_spec(package) is None:
        raise RecognizerError(f"this recogniser needs the package {package.replace('_', '-')}: {remedy}")


def check_sound(pcm: np.ndarray) -> np.ndarray:
    """The samples as float32 [T]. Raises RecognizerError for what no recogniser takes."""
    if pcm.ndim != 1 or pcm.dtype.kind != "f":
        raise RecognizerError(f"a recogniser hears mono float samples [T], not {pcm.dtype} {list(pcm.shape)}")
    if len(pcm) > WINDOW_S * RATE:
        raise RecognizerError(
            f"{len(pcm) / RATE:.1f} s are more than a recogniser hears at once ({WINDOW_S:g} s)"
        )
    if not np.isfinite(pcm).all():
        raise RecognizerError("the recogniser got NaN or infinite samples; expected finite samples")
    return np.ascontiguousarray(pcm, dtype=np.float32)


def token_limit(samples: int) -> int:
    """How many tokens a text of so many samples can have."""
    return TOKENS_MORE + math.ceil(TOKENS_PER_S * samples / RATE)


def repeats(text: str) -> bool:
    """Does the text end by saying the same twice, as networks do that are caught in a loop?"""
    said = re.findall(r"\w+", text.casefold())
    return any(said[-n:] == said[-2 * n : -n] for n in range(1, len(said) // 2 + 1))


def hypothesis(
    text: str, mean_logprob: float, no_speech: float, locale: str, samples: int, *, final: bool
) -> Hypothesis:
    """What a network returned, as a Hypothesis: without the texts that networks make up when nobody speaks.

    mean_logprob: of the text's tokens; no_speech: probability that nobody speaks, 0 where the network has none.
    """
    text = " ".join(text.split())
    raw = text.encode()
    loops = len(raw) > 40 and len(raw) / len(zlib.compress(raw)) > LOOP_RATIO
    if loops or not math.isfinite(mean_logprob) or (no_speech > NO_SPEECH and mean_logprob < UNSURE):
        text = ""
    confidence = min(1.0, math.exp(min(mean_logprob, 0.0))) if text else 0.0
    return Hypothesis(text, confidence, locale, 0.0, samples / RATE, final)
