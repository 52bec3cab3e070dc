# SPDX-License-Identifier: Apache-2.0
"""Replies of a causal language model in this process: any that `transformers` loads, by name, folder or GGUF file.

Weights are read from safetensors or GGUF only, and no code that comes with a model is run. On a CPU its linear layers
are put into int8 where torch has kernels for that: several times faster, since reading the weights is the work.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowact_ros.dialogue.language_model import (
    DIRECTIONS,
    SYSTEM,
    USER,
    Cancellation,
    LanguageModelError,
    Message,
    ModelSettings,
)


class TransformersModel:
    """Torch and transformers are imported by `load`, in the thread that calls it."""

    writes = DIRECTIONS
    sees = hears = False

    def __init__(self, settings: ModelSettings) -> None:
        if importlib.util.find_spec("transformers") is None:
            raise LanguageModelError("the package transformers is not installed: scripts/setup --extras talk")
        if not settings.model:
            raise LanguageModelError("model is empty: give the name of a model, its folder, or a GGUF file")
        self._settings = settings
        self._path = Path(settings.model).expanduser()
        if settings.model.startswith((".", "/", "~")) or settings.model.endswith(".gguf"):
            check_path(self._path)
        self._decoder: Any = None

    def load(self, system: str) -> None:
        import torch
        from safetensors import SafetensorError

        from flowact_ros.dialogue.causal_decoder import CausalDecoder, Reading
        from flowact_ros.models.precision import best_dtype, check_device, has_int8, use_int8

        settings = self._settings
        torch.set_num_threads(settings.threads)
        try:
            check_device(settings.device)
            int8 = settings.device == "cpu" and has_int8()
            self._tokenizer, model = self._read(torch.float32 if int8 else best_dtype(settings.device))
        except (
            OSError,
            ValueError,
            ImportError,
            RuntimeError,
            KeyError,
            TypeError,
            SafetensorError,
        ) as error:
            raise LanguageModelError(
                f"{settings.model} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from None
        if not self._tokenizer.chat_template:
            raise LanguageModelError(
                f"{settings.model} has no chat template: take a model that was trained to chat"
            )
        model.eval().requires_grad_(False)
        self._most_tokens = getattr(model.config, "max_position_embeddings", None) or 1 << 30
        if int8:
            use_int8(model)
        ends = model.generation_config.eos_token_id
        ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._decoder = CausalDecoder(
            model.to(settings.device), sorted(ends), temperature=settings.temperature, seed=settings.seed
        )
        self._chat, self._scoring = Reading(), Reading()
        names = sorted(
            (name for name in self._tokenizer.get_added_vocab() if name.strip()), key=len, reverse=True
        )
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        # The system prompt is read now, so that the first visitor need not wait for it.
        self._decoder.read(self._chat, self._tokens([Message(SYSTEM, system), Message(USER, "Hello")]))

    def _read(self, dtype: Any) -> tuple[Any, Any]:
        """(tokenizer, model)"""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # nobody sees it in a node's log
        source = self._settings.model
        if self._path.suffix == ".gguf":
            from flowact_ros.dialogue.gguf_file import converted

            source = str(converted(self._path))
        elif self._path.exists():
            source = str(self._path)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
        )
        return tokenizer, model

    def close(self) -> None:
        self._decoder = None

    def stream(self, messages: Sequence[Message], cancellation: Cancellation) -> Iterator[str]:
        from tokenizers.decoders import DecodeStream

        if any(message.picture or message.sound is not None for message in messages):
            raise LanguageModelError("this backend neither sees nor hears")
        backend = self._tokenizer.backend_tokenizer
        text = DecodeStream(
            skip_special_tokens=True
        )  # a letter may be several tokens: it holds the first ones back
        try:
            tokens = self._fitting(messages)
            for token in self._decoder.generate(
                self._chat, tokens, self._settings.max_tokens, cancellation.check
            ):
                piece = text.step(backend, token)
                if piece:
                    yield piece
        except (RuntimeError, ValueError) as error:
            if isinstance(error, LanguageModelError):
                raise
            raise LanguageModelError(f"the model failed: {' '.join(str(error).split())[:200]}") from error

    def score(self, text: str, endings: Sequence[str], cancellation: Cancellation) -> list[float]:
        tokens = self._tokenizer(self._as_data(text), add_special_tokens=True)["input_ids"]
        ends = [self._tokenizer(ending, add_special_tokens=False)["input_ids"] for ending in endings]
        return self._decoder.score(self._scoring, tokens, ends, cancellation.check)

    def _fitting(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the prompt; the oldest messages after the system's are left out where the model's window ends."""
        room = self._most_tokens - self._settings.max_tokens
        system = [message for message in messages[:1] if message.role == SYSTEM]
        others = list(messages[len(system) :])
        while len(tokens := self._tokens([*system, *others])) > room:
            if len(others) <= 1:
                raise LanguageModelError(f"the prompt has {len(tokens)} tokens, the model takes {room}")
            del others[: 2 if len(others) > 2 else 1]  # what is left begins with the user
        return tokens

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        turns = [{"role": message.role, "content": self._as_data(message.text)} for message in messages]
        try:
            return self._encode(turns)
        except Exception as error:  # a template raises what it likes: some know no system role
            if turns[0]["role"] != SYSTEM or len(turns) < 2:
                raise LanguageModelError(f"the model's chat template failed: {error}") from None
            text = f"{turns[0]['content']}\n\n{turns[1]['content']}"
            return self._encode([{"role": USER, "content": text}, *turns[2:]])

    def _encode(self, turns: list[dict[str, str]]) -> list[int]:
        text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _as_data(self, text: str) -> str:
        """Without the tokens that end turns and begin others: what a visitor says must not become an instruction."""
        if self._control is None:
            return text
        while (cleaned := self._control.sub(" ", text)) != text:
            text = cleaned
        return text


def check_path(path: Path) -> None:
    """Raises LanguageModelError for a model's file or folder that cannot be one."""
    if path.is_dir():
        if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
            raise LanguageModelError(f"{path} must hold config.json and *.safetensors")
    elif not path.is_file():
        raise LanguageModelError(
            f"{path} is missing: give a folder with config.json and *.safetensors, or a GGUF file"
        )
    elif path.suffix != ".gguf":
        raise LanguageModelError(f"{path} is neither a folder nor a GGUF file")
    else:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise LanguageModelError(
                    f"{path} does not begin like a GGUF file: truncated, or something else"
                )
        missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
        if missing:
            raise LanguageModelError(
                f"GGUF files need the package {' and '.join(missing)}: scripts/setup --extras talk"
            )
