# SPDX-License-Identifier: Apache-2.0
"""What pipelines of both kinds of latents share: sound and text to latents (`denoise`), memory (`advance`).

No threads, no clock, no hidden state: everything a step depends on is in its arguments, so that a session may keep a
snapshot a latent and rewind to any of them.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.audio_window import AudioWindow
from flowact_ros.engine.interfaces import EngineError, Reference, StreamState
from flowact_ros.engine.orders import ORDERS, Chunk, Finish, Order, Recent
from flowact_ros.engine.provenance import Provenance, processor_name
from flowact_ros.engine.runtime.base import Progress, Runtime, silent
from flowact_ros.engine.runtime.eager import Eager
from flowact_ros.engine.runtime.waits import Waits
from flowact_ros.models.codec.motion_statistics import MotionStatistics
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.precision import set_precision
from flowact_ros.timebase import FRAMES_PER_LATENT, SAMPLES_PER_LATENT

TEXT_CACHE = 256  # instructions whose embedding is kept
FIRST_STEPS = (1, 3)  # latents of the first steps of a live stream: with an empty memory, and with a filled one
P = TypeVar("P", bound="LatentPipeline")


class LatentPipeline(ABC):
    """All of `engine.interfaces.Pipeline` but its pictures, which the codec of a subclass draws.

    `start` and `denoise` make a batch of one stream; nothing below them knows how many there are.
    """

    height: int
    width: int
    control_names: tuple[str, ...] = ()
    training_motion: MotionStatistics | None = None

    def __init__(
        self,
        config: ModelConfig,
        denoiser: DiT,
        audio_encoder: nn.Module,
        text_encoder: Any,
        finish: Finish,
        *,
        device: str,
        precision: str,
        provenance: Provenance | None,
        runtime: Runtime | None,
        reach: int = 0,
    ) -> None:
        """finish: what the codec has done to what the sampler gave; reach: latents before a latent that its frames
        depend on; provenance: what is known of it before the networks are prepared for this machine; runtime: what
        computes the denoiser, None: torch itself.

        Raises ValueError for a precision that cannot be.
        """
        self.config, self.device = config, torch.device(device)
        self.runtime = runtime or Eager(self.device)
        self.overlaps = self.runtime.overlaps  # does drawing go on beside the denoiser, once it is begun?
        denoiser = denoiser.to(self.device).eval().requires_grad_(False)
        precision = set_precision(denoiser, precision, device)
        self.denoiser = self.runtime.denoiser(denoiser)
        self._provenance = replace(
            provenance or Provenance(config.name), device=device, processor=processor_name(device), denoiser=precision
        )
        self.text_encoder = text_encoder
        self.order: Order = ORDERS[config.schedule.order](config, self.denoiser, finish)
        self._reach = reach
        self._hear_by(audio_encoder)
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._reading = threading.Lock()  # streams that share this pipeline share the cache
        self._waits = Waits()

    def _hear_by(self, encoder: nn.Module) -> None:
        self.window = AudioWindow(encoder.eval().requires_grad_(False))
        self.context_samples = self.window.context_samples
        self.lookahead_samples = self.window.lookahead_samples + self.order.ahead * SAMPLES_PER_LATENT

    @property
    def provenance(self) -> Provenance:
        return replace(self._provenance, threads=torch.get_num_threads(), torch=torch.__version__)

    def with_audio_encoder(self: P, encoder: nn.Module) -> P:
        """The same networks behind another audio encoder."""
        other = copy(self)
        other._hear_by(encoder)
        return other

    @property
    def waits_ms(self) -> dict[str, float]:
        """Medians of the last steps: for how long they stood still while sound was encoded (`exposed_encode`), and
        what drawing on a GPU waited for, see `Lanes`.
        """
        return {**self._waits.medians, **self.runtime.waits_ms}

    @property
    def draws_beside(self) -> bool:
        """Does `denoise` begin to draw, so that `render` only waits for the frames? Motion with names may still be
        turned before it is drawn, which is then begun by `render`.
        """
        return self.overlaps and not self.control_names

    # ---- the codec's

    @abstractmethod
    def load_reference(self, rgb: np.ndarray) -> Reference:
        """uint8 `[H, W, 3]` of any size -> Reference. Raises ReferenceError_ with the reason."""

    @abstractmethod
    def reference_latent(self, reference: Reference) -> Tensor:
        """What the reference slot holds: the picture's own latent `[1, P, C]`."""

    @abstractmethod
    def render(self, reference: Reference, latents: Chunk) -> np.ndarray:
        """n latents -> frames uint8 `[4 * n, height, width, 3]`. A function of these two alone."""

    def draw(self, reference: Reference, latents: Iterator[Chunk]) -> Iterator[np.ndarray]:
        """The same of one latent after another; see `Pipeline`."""
        return (self.render(reference, latent) for latent in latents)

    def begin(self, reference: Reference, latents: Chunk) -> tuple[Callable[[], np.ndarray], ...]:
        """Begins to draw each latent, where nothing can change before it is drawn; else nothing."""
        return ()

    @abstractmethod
    def prepare_codec(self) -> None:
        """Compile what draws, and keep what the runtime keeps of it."""

    def prepare(self, tell: Progress = silent) -> None:
        """Do all that is slow the first time, so that the first frame has not to wait for it; tell: after each part."""
        self.prepare_codec()
        self.runtime.prepare(self.denoiser, tell)

    def warm_up(self, reference: Reference) -> None:
        """What the first steps of a stream compute, of silence and thrown away: the first time costs more.

        On a CPU nothing is drawn: `prepare` has drawn a latent, and another one costs as much as the first.
        """
        state = self.start(reference, seed=0)
        for n in FIRST_STEPS:
            silence = np.zeros(self.context_samples + n * SAMPLES_PER_LATENT + self.lookahead_samples, np.float32)
            chunk = self.denoise(state, silence, n, "")
            assert chunk is not None  # nobody stops it
            if self.device.type != "cpu":
                self.render(reference, chunk)
            state = self.advance(state, chunk)

    # ---- the stream

    @torch.inference_mode()
    def start(self, reference: Reference, seed: int) -> StreamState:
        own = self.reference_latent(reference).to(self.device)
        memory = self.order.start(MemoryBank.start(self.denoiser, own))
        # What was to be seen before the first latent is the picture itself, for as long as the codec looks back.
        recent = Recent(own[:, None].expand(-1, self._reach, -1, -1), self._reach) if self._reach else None
        return StreamState(latent_index=0, seed=seed, memory=memory, reference=reference, recent=recent)

    @torch.inference_mode()
    def denoise(
        self, state: StreamState, pcm: np.ndarray, n_latents: int, text: str, stop: Callable[[], bool] | None = None
    ) -> Chunk | None:
        """pcm float32 `[context + n * 3840 + lookahead]` at 24 kHz -> n latents under `state` and `text`.

        stop: asked before each evaluation; None is returned once it says yes.
        """
        began = time.perf_counter()
        features = self.window(pcm).unflatten(0, (-1, FRAMES_PER_LATENT))
        self._waits.note(exposed_encode=1e3 * (time.perf_counter() - began))
        if len(features) != n_latents + self.order.ahead:
            found = len(features) - self.order.ahead
            raise ValueError(f"window holds {found} latents of sound; {n_latents} were asked for")
        words = self._text(text)[:, None].expand(-1, len(features), -1, -1)
        condition = Condition(features[None].to(self.device), words)
        chunk = self.order.denoise(state, condition, n_latents, stop)
        if chunk is None:
            return None
        chunk = replace(chunk, before=state.recent)
        return self._beside(state, chunk) if self.overlaps else chunk

    def _beside(self, state: StreamState, chunk: Chunk) -> Chunk:
        """Drawing begins before anybody asks for frames, and memory is written meanwhile: both go on at a time."""
        chunk = replace(chunk, drawing=self.begin(state.reference, chunk))
        return replace(chunk, after=self.order.commit(state.memory, chunk))

    @torch.inference_mode()
    def advance(self, state: StreamState, latents: Chunk) -> StreamState:
        """State after `latents` (a whole chunk or the front of one) were committed to memory."""
        memory = self.order.commit(state.memory, latents)
        index = state.latent_index + len(latents)
        return replace(state, latent_index=index, memory=memory, recent=latents.recent)

    @torch.inference_mode()
    def refine(self, state: StreamState) -> StreamState:
        """The same state with memory's newest entry renewed (`MemoryBank.refine`). Costs one evaluation."""
        return replace(state, memory=self.order.refine(state.memory))

    @torch.inference_mode()
    def save(self, state: StreamState) -> bytes:
        """What `restore` needs to give this state again: safetensors, some 40 kB of motion."""
        tensors = {**self.order.tensors(state.memory), "latent_index": torch.tensor([state.latent_index])}
        if state.recent is not None:
            tensors["recent"] = state.recent.latents.cpu().clone(memory_format=torch.contiguous_format)
        return save(tensors)

    @torch.inference_mode()
    def restore(self, saved: bytes, reference: Reference, seed: int) -> StreamState:
        """The state that was saved. Raises EngineError for bytes that this model cannot have saved."""
        begin = self.start(reference, seed)
        bank = begin.memory if isinstance(begin.memory, MemoryBank) else begin.memory.window.bank
        try:
            tensors = load(saved)
            memory = self.order.restore(bank, tensors)
            recent = begin.recent and replace(begin.recent, latents=tensors["recent"].to(self.device))
            return replace(begin, latent_index=int(tensors["latent_index"]), memory=memory, recent=recent)
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise EngineError(f"saved memory is not of this model ({type(error).__name__}: {error})") from None

    def _text(self, text: str) -> Tensor:
        """Embedding `[1, tokens, text_dim]` of an instruction, cached by string."""
        with self._reading:
            if text in self._texts:
                self._texts.move_to_end(text)
            else:
                self._texts[text] = self.text_encoder.encode([text]).to(self.device)
                if len(self._texts) > TEXT_CACHE:
                    self._texts.popitem(last=False)
            return self._texts[text]
