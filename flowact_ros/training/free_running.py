# SPDX-License-Identifier: Apache-2.0
"""A denoiser that runs on its own latents, clip after clip side by side: for tables, and for training material.

All of it goes through the rollout that the live stream uses (`diffusion.sampler.rollout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import initial_noise, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.config import ModelConfig, with_overrides
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.training.motion_figures import table
from flowact_ros.training.sequences import Sequences, items_of


def frozen(config: ModelConfig, weights: dict[str, Tensor]) -> DiT:
    """A network with `weights`, where they are, that no step changes."""
    module = DiT(config).to(next(iter(weights.values())).device)
    module.load_state_dict(weights)
    return module.requires_grad_(False).eval()


@torch.no_grad()
def stream(
    module: DiT,
    reference: Tensor,
    condition: Condition,
    noise: Callable[[int, int], Tensor],
    sigmas: Sequence[float],
    guidance: float | None = None,
) -> Tensor:
    """Latents `[B, count, P, K]` of streams that begin at `reference` `[B, P, K]`, in whole chunks.

    noise, guidance: as of `rollout`
    """
    size, count = module.config.schedule.chunk_latents, condition.audio.shape[1]
    parts = (condition.slots(k, k + size) for k in range(0, count // size * size, size))
    bank = MemoryBank.start(module, reference)
    every = rollout(module, bank, parts, noise, sigmas, guidance=guidance)
    return torch.cat([latents for latents, _ in every], 1)


def free_running(
    module: DiT,
    data: Sequences,
    clips: int,
    steps: int,
    *,
    shuffled: bool = False,
    seed: int = 0,
    guidance: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Items `[B, T, *shape]` that the model makes from the neutral pose on, and the truth of the same sound.

    shuffled: each clip hears the next one's sound, a control that must fail; guidance: its scale, for a model that was
    taught to imitate it
    """
    config = module.config
    size, device = config.schedule.chunk_latents, next(module.parameters()).device
    count = data.items // (size * data.per_latent) * size
    rows = np.arange(min(clips, len(data)))
    start = np.zeros_like(rows)
    truth, condition = data.latents(rows, start, count), data.condition(rows, start, count)
    audio = condition.audio.roll(1, 0) if shuffled else condition.audio
    condition = Condition(audio.to(device), condition.text.to(device))
    seeds = range(seed, seed + len(rows))

    def noise(first: int, number: int) -> Tensor:
        return initial_noise(config, seeds, first, number).to(device)

    sigmas = step_sigmas(with_overrides(config, {"schedule": {"steps": steps}}).schedule)
    made = stream(module, data.still(rows, start - 1).to(device), condition, noise, sigmas, guidance)
    return items_of(made.cpu(), data), items_of(truth, data)


def evaluate(
    module: DiT,
    data: Sequences,
    clips: int,
    evaluations: Sequence[int],
    scales: Sequence[float] = (1.0,),
) -> str:
    """The table of free-running streams on some of `data`, by evaluations a chunk; the last also with other sound.

    scales: of guidance, a row each, for a model that was taught to imitate it
    """
    chunk = module.config.schedule.chunk_latents * data.per_latent
    rows = {
        f"{steps} evaluations" + (f", guidance {scale:g}" if scale != 1 else ""): free_running(
            module, data, clips, steps, guidance=scale
        )
        for steps in evaluations
        for scale in scales
    }
    last = evaluations[-1]
    rows[f"{last}, another clip's sound"] = free_running(module, data, clips, last, shuffled=True)
    return table({name: data.figures(made, truth, chunk) for name, (made, truth) in rows.items()})
