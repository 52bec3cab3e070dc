# SPDX-License-Identifier: Apache-2.0
"""A causal language model run token by token, with the keys and values of what it has read kept for the next request.

Requests share their beginning (the system prompt, the conversation so far): only what is new is read. `Reading` keeps
one such beginning; a decoder may have several, for prompts of different kinds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from flowact_ros.dialogue.language_model import CutShort

TOP_P = 0.9
REPETITION_PENALTY = 1.1  # small models say the same again and again without
READ_AT_ONCE = 64  # tokens of a prompt: between two such blocks a cancelled request ends


class Reading:
    """Tokens that the model has read, and its keys and values of them."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.cache = DynamicCache()

    def rewind(self, tokens: Sequence[int]) -> int:
        """Keeps what is common with `tokens`; how many those are. The last token is always read again: its output is
        what comes next."""
        common = 0
        for old, new in zip(self.tokens, tokens[:-1], strict=False):
            if old != new:
                break
            common += 1
        return self.keep(common)

    def keep(self, count: int) -> int:
        """Forgets all but the first `count` tokens; how many are left, which may be none."""
        # Layers with a sliding window have forgotten their beginning and cannot go back.
        slides = any(getattr(layer, "is_sliding", False) for layer in self.cache.layers)
        if count == 0 or (slides and self.cache.get_seq_length() > count):
            self.tokens, self.cache = [], DynamicCache()
        elif (surplus := self.cache.get_seq_length() - count) > 0:
            self.cache.crop(-surplus)
            self.tokens = self.tokens[:count]
        return len(self.tokens)


class CausalDecoder:
    """Not to be used by two threads at once."""

    def __init__(self, model: Any, ends: Sequence[int], *, temperature: float, seed: int) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._random = torch.Generator(device="cpu").manual_seed(seed)
        self._sampled = temperature > 0
        processors: list[Any] = [RepetitionPenaltyLogitsProcessor(REPETITION_PENALTY)]
        if self._sampled:
            processors += [TemperatureLogitsWarper(temperature), TopPLogitsWarper(TOP_P)]
        self._processors = LogitsProcessorList(processors)
        self._lock = threading.Lock()
        self.read_tokens = 0  # in total: what the cache saves can be seen by it

    @torch.inference_mode()
    def read(
        self, reading: Reading, tokens: Sequence[int], check: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Logits [V] of what follows `tokens`."""
        at = reading.rewind(tokens)
        logits = torch.empty(0)
        while at < len(tokens):
            check()
            block = list(tokens[at : at + READ_AT_ONCE])
            logits = self._forward(reading, block)
            at += len(block)
        return logits

    def _forward(self, reading: Reading, block: list[int]) -> Tensor:
        ids = torch.tensor([block], device=self._model.device)
        try:
            out = self._model(input_ids=ids, past_key_values=reading.cache, use_cache=True, logits_to_keep=1)
        except BaseException:
            reading.keep(0)  # how far it got nobody knows
            raise
        reading.tokens += block
        self.read_tokens += len(block)
        return out.logits[0, -1].float().cpu()

    @torch.inference_mode()
    def generate(
        self, reading: Reading, tokens: Sequence[int], most: int, check: Callable[[], None] = lambda: None
    ) -> Iterator[int]:
        """The tokens that follow, without the one that ends the text; `check` raises to end it before.

        Raises CutShort after `most` of them.
        """
        logits = self.read(reading, tokens, check)
        written: list[int] = []
        while len(written) < most:
            # The penalty is for what the model has said itself: what it was told it may well repeat.
            seen = torch.tensor([written], dtype=torch.long)
            scores = self._processors(seen, logits[None])[0]
            if self._sampled:
                token = int(torch.multinomial(torch.softmax(scores, -1), 1, generator=self._random))
            else:
                token = int(scores.argmax())
            if token in self._ends:
                return
            written.append(token)
            yield token
            check()
            if len(written) < most:
                logits = self._forward(reading, [token])
        raise CutShort("the answer reached max_tokens")

    @torch.inference_mode()
    def score(
        self,
        reading: Reading,
        tokens: Sequence[int],
        endings: Sequence[Sequence[int]],
        check: Callable[[], None],
    ) -> list[float]:
        """log P(ending | tokens) of each ending; all are read at once, as a batch that shares the beginning."""
        first = torch.log_softmax(self.read(reading, tokens, check), -1)
        totals = [float(first[ending[0]]) for ending in endings]
        longest = max(len(ending) for ending in endings)
        if longest == 1:
            return totals
        check()
        rows = [list(ending[:-1]) + [ending[-1]] * (longest - len(ending)) for ending in endings]
        ids = torch.tensor(
            rows, device=self._model.device
        )  # [N, longest - 1]; what pads the end nobody looks at
        reading.cache.batch_repeat_interleave(len(rows))
        try:
            out = self._model(input_ids=ids, past_key_values=reading.cache, use_cache=True)
        finally:
            reading.cache.batch_select_indices(torch.tensor([0], device=self._model.device))
            reading.keep(len(reading.tokens))
        logs = torch.log_softmax(out.logits.float(), -1).cpu()  # [N, longest - 1, V]
        for row, ending in enumerate(endings):
            totals[row] += sum(float(logs[row, at, token]) for at, token in enumerate(ending[1:]))
        return totals
