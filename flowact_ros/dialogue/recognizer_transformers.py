# SPDX-License-Identifier: Apache-2.0
"""Recogniser `transformers`: any sequence-to-sequence speech model of that library, such as Whisper or Moonshine.

The model is a folder, or a name that is in the hub's cache on this machine; only safetensors are opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flowact_ros.dialogue.recognizer import (
    RATE,
    Hypothesis,
    RecognizerConfig,
    RecognizerError,
    check_sound,
    hypothesis,
    require,
    token_limit,
)

REMEDY = "pip install transformers"
_PROMPT = 4  # tokens a Whisper decoder begins with: start, language, task, no times


class Transformers:
    """A model of transformers' AutoModelForSpeechSeq2Seq. See Recognizer."""

    def __init__(self, config: RecognizerConfig) -> None:
        require("transformers", REMEDY)
        import torch
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

        given = Path(config.model).expanduser()
        name = str(given) if given.is_dir() else config.model
        looks_like_path = given.is_absolute() or config.model.startswith(("./", "../", "~"))
        if looks_like_path and not given.is_dir():
            raise RecognizerError(f"there is no folder {given}")
        try:
            self._processor = AutoProcessor.from_pretrained(name, local_files_only=True)
            model = AutoModelForSpeechSeq2Seq.from_pretrained(
                name, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            if not given.is_dir() and isinstance(error, OSError):
                raise RecognizerError(
                    f"{config.model} is neither a folder nor a model in the hub's cache on this machine; where there "
                    f"is a network: hf download {config.model}"
                ) from error
            reason = " ".join(str(error).split())[:200]
            raise RecognizerError(f"no speech model can be loaded from {name}: {reason}") from error
        if config.device == "cpu":
            torch.set_num_threads(config.threads)
        self._torch = torch
        self._model = model.to(
            config.device, torch.float32 if config.device == "cpu" else torch.float16
        ).eval()
        self._config = config
        english = getattr(model.generation_config, "is_multilingual", None) is False
        self._locale = config.language or ("en" if english else "")
        self._options = self._language_options()

    def _language_options(self) -> dict[str, Any]:
        """What `generate` is told beside the sound. Raises RecognizerError for a language unknown to the model."""
        generation, config = self._model.generation_config, self._config
        # Without the tokens of times Whisper stops at the first long pause; other models have none.
        times = {"return_timestamps": True, "force_unique_generate_call": True}
        if getattr(generation, "no_timestamps_token_id", None) is None:
            times = {}
        if not getattr(generation, "is_multilingual", False):
            if config.spoken not in ("", "en") and getattr(generation, "is_multilingual", None) is False:
                raise RecognizerError(f"{config.model} knows English only, not {config.language!r}")
            return times
        known = getattr(generation, "lang_to_id", None) or {}
        if config.spoken and f"<|{config.spoken}|>" not in known:
            raise RecognizerError(f"{config.model} does not know the language {config.language!r}")
        return {**times, "task": "transcribe", "language": config.spoken or None}

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        """See Recognizer."""
        pcm = check_sound(pcm)
        if len(pcm) == 0:
            return Hypothesis("", 0.0, self._config.language, 0.0, 0.0, final)
        model, torch = self._model, self._torch
        try:
            inputs = self._processor(pcm, sampling_rate=RATE, return_tensors="pt").to(
                model.device, model.dtype
            )
            with torch.inference_mode():
                out = model.generate(
                    **inputs,
                    num_beams=self._config.beam_size if final else 1,
                    do_sample=False,
                    max_length=min(token_limit(len(pcm)) + _PROMPT, self._positions()),
                    return_dict_in_generate=True,
                    output_scores=True,
                    **self._options,
                )
        except IndexError:  # this is how transformers' Whisper takes it when there is not a single token
            return Hypothesis("", 0.0, self._locale, 0.0, len(pcm) / RATE, final)
        except RuntimeError as error:  # torch's: out of memory, a lost GPU
            raise RecognizerError(f"transformers failed: {' '.join(str(error).split())[:200]}") from error
        text = self._processor.batch_decode(out.sequences, skip_special_tokens=True)[0]
        return hypothesis(text, self._mean_logprob(out), 0.0, self._locale, len(pcm), final=final)

    def _positions(self) -> int:
        """How many tokens the decoder has places for, those it begins with included."""
        config = self._model.config
        return int(getattr(config, "max_target_positions", None) or config.max_position_embeddings)

    def _mean_logprob(self, out: Any) -> float:
        """Of the tokens that were generated, up to the end of the text."""
        beams = getattr(out, "beam_indices", None)
        scores = self._model.compute_transition_scores(
            out.sequences, out.scores, beams, normalize_logits=True
        )[0]
        tokens = out.sequences[0, -len(scores) :]
        end = self._model.generation_config.eos_token_id
        ends = self._torch.isin(tokens, self._torch.tensor(end, device=tokens.device)).nonzero().flatten()
        kept = scores[: int(ends[0]) + 1] if len(ends) else scores
        return float(kept[kept.isfinite()].mean()) if len(kept) else 0.0
