# SPDX-License-Identifier: Apache-2.0
"""The self-forcing variant of adaptation (paper, section 2.2): memory made of the model's own latents, at little cost.

Live, every memory entry is a latent that the model made; training shows it true ones. From time to time an intermediate
model, the running mean of the weights, therefore takes some clips, puts noise on their true latents, and denoises them
again in a few steps, chunk after chunk under the memory of what it made before. These "generated-GT latents" bear the
model's own errors and still belong to the sound and the text of the clip. In a batch they stand in for the true motion
in the memory of a share of the rows; what is to be predicted stays the truth.

A row takes all of its entries from them or none: live they have one author. A clip is denoised once and cut anywhere:
motion latents at any frame, those of pictures at any latent. The peers' nearest recipe, a buffer of errors, is that of
SVI and LongLive 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.schedule import add_noise, step_sigmas
from flowact_ros.models.config import with_overrides
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.training.free_running import stream
from flowact_ros.training.sequences import Sequences, items_of, latents_of


@dataclass(frozen=True, kw_only=True)
class SelfForcing:
    """share: of rows whose memory the model made (the paper's p, which it does not tell); 0 turns the variant off."""

    share: float = 0.0
    noise: float = 0.3  # level to which true latents are noised: with more, what is made leaves what is to be predicted
    steps: int = 2  # evaluations from there back to clean latents
    refresh: int = 200  # steps between two generations of them; the first is made after as many
    clips: int = 64  # that are generated each time


class GeneratedLatents:
    """What the intermediate model made of some clips, kept as its errors: made minus true items `[M, T, *shape]`."""

    def __init__(self, options: SelfForcing, data: Sequences) -> None:
        self.options, self.data = options, data
        self.clips = np.zeros(0, np.int64)
        self.errors = torch.zeros(0)
        self.generation = 0

    def due(self, iteration: int) -> bool:
        return self.options.share > 0 and iteration // self.options.refresh != self.generation

    def make(self, module: DiT, iteration: int, generator: torch.Generator) -> None:
        """Generate latents of other clips with `module`, the intermediate model. Raises ValueError for short clips."""
        options, data, config = self.options, self.data, module.config
        size, device = config.schedule.chunk_latents, next(module.parameters()).device
        count = (data.items - 1) // (size * data.per_latent) * size
        if count == 0:
            raise ValueError(f"clips of {data.items} frames or latents hold no chunk of {size} latents after the first")
        clips = torch.randperm(len(data), generator=generator)[: options.clips].numpy()
        start = np.ones_like(clips)
        truth, condition = data.latents(clips, start, count), data.condition(clips, start, count)
        reference = data.still(clips, start - 1)  # the first item is the picture
        pure = torch.randn(truth.shape, generator=generator)
        noisy = add_noise(truth, pure, torch.full(truth.shape[:2], options.noise)).to(device)
        schedule = with_overrides(config, {"schedule": {"steps": options.steps}}).schedule
        made = stream(
            module,
            reference.to(device),
            Condition(condition.audio.to(device), condition.text.to(device)),
            lambda first, number: noisy[:, first : first + number],
            step_sigmas(schedule, options.noise),
        )
        errors = torch.zeros(len(clips), data.items, *data.shape)
        errors[:, 1 : 1 + data.per_latent * count] = items_of(made.float().cpu() - truth, data)
        self.clips, self.errors, self.generation = clips, errors, iteration // options.refresh

    def draw(self, rng: np.random.Generator, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clips `[B]` of a batch, a share of them replaced by generated ones, and their numbers in `errors` or -1."""
        number = np.full(len(clip), -1)
        if len(self.clips):
            drawn = rng.integers(len(self.clips), size=len(clip))
            number = np.where(rng.random(len(clip)) < self.options.share, drawn, -1)
            clip = np.where(number >= 0, self.clips[number], clip)
        return clip, number

    def cut(self, number: np.ndarray, start: np.ndarray, count: int) -> Tensor:
        """Errors `[B, count, P, K]` of rows with the numbers that `draw` gave; 0 where the memory is true."""
        places = start[:, None] + np.arange(self.data.per_latent * count)
        errors = latents_of(self.errors[number.clip(0)[:, None], places], count)
        return torch.where(torch.from_numpy(number >= 0)[:, None, None, None], errors, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "clips": torch.from_numpy(self.clips), "errors": self.errors, "generation": self.generation
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.clips, self.errors = state["clips"].numpy(), state["errors"]
        self.generation = state["generation"]
