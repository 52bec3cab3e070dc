# SPDX-License-Identifier: Apache-2.0
"""Recogniser `whisper`: OpenAI's own package, the reference of the others.

Its checkpoints are pickles. They are opened in a child process with `weights_only`, once: `flowact weights get` keeps
the result as safetensors, which is what is loaded here.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

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
from flowact_ros.weights_store import MODEL, WeightsError, advice, stored, unpickle

REMEDY = "pip install openai-whisper"


def find_model(name: str) -> Path:
    """A .safetensors or .pt file given by path, or by a name of the weights store. Raises RecognizerError."""
    given = Path(name).expanduser()
    if given.suffix in (".pt", ".safetensors"):
        if not given.is_file():
            raise RecognizerError(f"there is no file {given}")
        return given
    if folder := stored(f"whisper-{name}"):
        return folder / MODEL
    raise RecognizerError(f"there is no Whisper model {name!r} on this machine: {advice('whisper', name)}")


def read_checkpoint(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """(dimensions, tensors) of a checkpoint; a .pt is converted on the way. Raises RecognizerError."""
    from safetensors import SafetensorError, safe_open

    with tempfile.TemporaryDirectory() as folder:
        try:
            if path.suffix == ".pt":
                path = unpickle(path, Path(folder) / "model.safetensors")
            with safe_open(str(path), framework="pt") as file:
                dimensions = json.loads((file.metadata() or {})["dims"])
                # A copy: the mapped file of the folder above is gone when this returns.
                return dimensions, {name: file.get_tensor(name).clone() for name in file.keys()}
        except WeightsError as error:
            raise RecognizerError(str(error)) from error
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RecognizerError(
                f"{path} is no Whisper checkpoint ({' '.join(str(error).split())}): give OpenAI's .pt, or get it by "
                "`flowact weights get whisper-tiny.en`"
            ) from error


class Whisper:
    """A model of the package openai-whisper. See Recognizer."""

    def __init__(self, config: RecognizerConfig) -> None:
        require("whisper", REMEDY)
        path = find_model(config.model)
        import torch
        import whisper
        from whisper.tokenizer import LANGUAGES

        dimensions, tensors = read_checkpoint(path)
        try:
            model = whisper.Whisper(whisper.ModelDimensions(**dimensions))
            model.load_state_dict(tensors)
            self._model = model.to(config.device).eval()
        except (TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RecognizerError(f"{path} cannot be loaded: {reason}") from error
        if config.device == "cpu":
            torch.set_num_threads(config.threads)
        if config.spoken and config.spoken not in LANGUAGES:
            raise RecognizerError(f"Whisper does not know the language {config.language!r}")
        if config.spoken not in ("", "en") and not self._model.is_multilingual:
            raise RecognizerError(
                f"{config.model} knows English only, not {config.language!r}: take one without .en"
            )
        self._whisper = whisper
        self._config = config

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        """See Recognizer."""
        pcm = check_sound(pcm)
        config, whisper = self._config, self._whisper
        if len(pcm) == 0:
            return Hypothesis("", 0.0, config.language, 0.0, 0.0, final)
        beams = config.beam_size if final else 1
        options = whisper.DecodingOptions(
            language=config.spoken or (None if self._model.is_multilingual else "en"),
            beam_size=beams if beams > 1 else None,
            sample_len=min(token_limit(len(pcm)), self._model.dims.n_text_ctx // 2),
            without_timestamps=False,  # without them Whisper stops at the first long pause
            fp16=config.device != "cpu",
        )
        try:
            mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(pcm), self._model.dims.n_mels)
            result = whisper.decode(self._model, mel.to(self._model.device), options)
        except RuntimeError as error:  # torch's: out of memory, a lost GPU
            raise RecognizerError(f"whisper failed: {' '.join(str(error).split())[:200]}") from error
        locale = config.language or result.language
        return hypothesis(
            result.text, result.avg_logprob, result.no_speech_prob, locale, len(pcm), final=final
        )
