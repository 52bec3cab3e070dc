# SPDX-License-Identifier: Apache-2.0
"""Recogniser `faster-whisper`: Whisper models on CTranslate2, 8-bit weights on a CPU, 16-bit floats on a GPU.

CTranslate2's `model.bin` is a format of plain tensors: opening one runs no code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowact_ros.dialogue.recognizer import (
    Hypothesis,
    RecognizerConfig,
    RecognizerError,
    check_sound,
    hypothesis,
    require,
    token_limit,
)
from flowact_ros.weights_store import advice, stored

REMEDY = "pip install faster-whisper"


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
        self._language = config.spoken or (None if multilingual else "en")

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        """See Recognizer."""
        pcm = check_sound(pcm)
        if len(pcm) == 0:
            return Hypothesis("", 0.0, self._config.language, 0.0, 0.0, final)
        try:
            found, info = self._model.transcribe(
                pcm,
                language=self._language,
                beam_size=self._config.beam_size if final else 1,
                temperature=0.0,  # no second tries with chance in them: the same sound gives the same text
                condition_on_previous_text=False,
                without_timestamps=True,
                max_new_tokens=token_limit(len(pcm)),
                log_prob_threshold=None,
                no_speech_threshold=None,  # judged below, as for the other backends
            )
            segments = list(found)
        except RuntimeError as error:  # CTranslate2's: out of memory, a lost GPU
            raise RecognizerError(f"faster-whisper failed: {' '.join(str(error).split())}") from error
        tokens = sum(len(segment.tokens) for segment in segments)
        mean = sum(segment.avg_logprob * len(segment.tokens) for segment in segments) / max(tokens, 1)
        silent = min((segment.no_speech_prob for segment in segments), default=1.0)
        locale = self._config.language or info.language
        return hypothesis("".join(s.text for s in segments), mean, silent, locale, len(pcm), final=final)
