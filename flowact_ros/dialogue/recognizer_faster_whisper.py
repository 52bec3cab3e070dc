# SPDX-License-Identifier: Apache-2.0
"""Recogniser `faster-whisper`: Whisper models on CTranslate2, 8-bit weights on a CPU, 16-bit floats on a GPU.

Whisper's encoder hears 30 s, of which an utterance fills two or three. It is given LEAST_S, or the sound and MARGIN_S
of silence, which takes a fifth of the time; with less silence these models begin to repeat themselves. Where that
happens all the same, the whole window is heard. CTranslate2's `model.bin` is a format of plain tensors: opening one
runs no code.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from flowact_ros.dialogue.recognizer import (
    RATE,
    WINDOW_S,
    Hypothesis,
    RecognizerConfig,
    RecognizerError,
    check_sound,
    hypothesis,
    repeats,
    require,
    token_limit,
)
from flowact_ros.weights_store import advice, stored

REMEDY = "pip install faster-whisper"
LEAST_S = 10.0  # [s] of the encoder's window
MARGIN_S = 5.0  # [s] of silence behind the sound


def find_model(name: str) -> Path:
    """The folder of a model given by path or name, here or in the caches. Raises RecognizerError with the remedy."""
    given = Path(name).expanduser()
    if given.is_dir():
        if not (given / "model.bin").is_file():
            raise RecognizerError(
                f"{given} holds no model.bin: it must be the folder of a CTranslate2 Whisper model"
            )
        return given
    if folder := stored(f"faster-whisper-{name}"):
        return folder
    from faster_whisper.utils import available_models, download_model

    if name in available_models():
        try:  # what was downloaded by other programs
            return Path(download_model(name, local_files_only=True))
        except (
            OSError,
            ValueError,
        ):  # the hub's own classes for "it is not there" are OSErrors and ValueErrors
            pass
    raise RecognizerError(
        f"there is no Whisper model {name!r} on this machine: {advice('faster-whisper', name)}"
    )


class FasterWhisper:
    """A CTranslate2 Whisper model. See Recognizer."""

    def __init__(self, config: RecognizerConfig) -> None:
        require("faster_whisper", REMEDY)
        folder = find_model(config.model)
        if not (folder / "tokenizer.json").is_file():
            raise RecognizerError(
                f"{folder} holds no tokenizer.json: copy that of the original Whisper model there"
            )
        import faster_whisper

        device, _, index = config.device.partition(":")
        try:
            self._model = faster_whisper.WhisperModel(
                str(folder),
                device=device,
                device_index=int(index or 0),
                compute_type="int8" if device == "cpu" else "float16",
                cpu_threads=config.threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise RecognizerError(
                f"the model in {folder} cannot be loaded: {' '.join(str(error).split())}"
            ) from error
        multilingual = self._model.model.is_multilingual
        if config.spoken and not multilingual and config.spoken != "en":
            raise RecognizerError(
                f"{config.model} knows English only, not {config.language!r}: take one without .en"
            )
        if config.spoken and config.spoken not in self._model.supported_languages:
            raise RecognizerError(f"{config.model} does not know the language {config.language!r}")
        self._config = config
        self._multilingual = multilingual
        self._language = config.spoken or ("" if multilingual else "en")

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        """See Recognizer."""
        pcm = check_sound(pcm)
        if len(pcm) == 0:
            return Hypothesis("", 0.0, self._config.language, 0.0, 0.0, final)
        seconds = max(LEAST_S, len(pcm) / RATE + MARGIN_S)
        beams = self._config.beam_size if final else 1
        try:
            text, mean, silent, language = self._hear(pcm, min(seconds, WINDOW_S), beams)
            if seconds < WINDOW_S and repeats(text):
                text, mean, silent, language = self._hear(pcm, WINDOW_S, beams)
        except RuntimeError as error:  # CTranslate2's: out of memory, a lost GPU
            raise RecognizerError(f"faster-whisper failed: {' '.join(str(error).split())}") from error
        return hypothesis(text, mean, silent, self._config.language or language, len(pcm), final=final)

    def _hear(self, pcm: np.ndarray, seconds: float, beams: int) -> tuple[str, float, float, str]:
        """(text, mean log probability of its tokens, probability that nobody speaks, language) in a window."""
        import ctranslate2
        from faster_whisper.transcribe import get_suppressed_tokens

        model = self._model.model
        sound = np.pad(pcm, (0, round(seconds * RATE) - len(pcm)))
        frames = self._model.feature_extractor(sound)[np.newaxis, :, : round(seconds * 100)]
        encoded = model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(frames, np.float32)))
        language = self._language
        if not language:
            language = model.detect_language(encoded)[0][0][0].strip("<|>")
        tokenizer = self._tokenizer(language)
        prompt = list(tokenizer.sot_sequence)
        # Without the tokens of times these models stop at the first long pause.
        result = model.generate(
            encoded,
            [prompt],
            beam_size=beams,
            max_length=min(len(prompt) + token_limit(len(pcm)), self._model.max_length),
            max_initial_timestamp_index=50,  # Whisper's own: the text begins within the first second
            suppress_tokens=list(get_suppressed_tokens(tokenizer, [-1])),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        mean = result.scores[0] * len(tokens) / (len(tokens) + 1)  # the end of the text is a token, too
        text = tokenizer.decode([token for token in tokens if token < tokenizer.eot])
        return text, mean, result.no_speech_prob, language

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a recogniser lives as long as its process
    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(self._model.hf_tokenizer, self._multilingual, task="transcribe", language=language)
