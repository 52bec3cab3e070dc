# SPDX-License-Identifier: Apache-2.0
"""A denoiser that runs on its own motion, clip after clip side by side: for tables, and for training material.

All of it goes through the rollout that the live stream uses (`diffusion.sampler.rollout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.performances import Performances
from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import noise_for, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.codec.motion import normalise
from flowact_ros.models.config import ModelConfig, with_overrides
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.motion_figures import figures, table


def frozen(config: ModelConfig, weights: dict[str, Tensor]) -> DiT:
    """A network with `weights`, where they are, that no step changes."""
    module = DiT(config).to(next(iter(weights.values())).device)
    module.load_state_dict(weights)
    return module.requires_grad_(False).eval()


def sentence_vectors(data: Performances) -> Tensor:
    """`[texts, 384]`, which `cut` looks texts up in."""
    return torch.from_numpy(data.vectors.astype(np.float32))


def cut(
    data: Performances, vectors: Tensor, clip: np.ndarray, start: np.ndarray, count: int
) -> tuple[Tensor, Condition]:
    """Normalised motion `[B, count, 4, K]` and conditions of `count` latents from frame `start` `[B]` of clips `[B]`.

    vectors: of all sentences, `[texts, 384]`. A latent's text is the one in force in its middle.
    """
    frames = start[:, None] + np.arange(FRAMES_PER_LATENT * count)
    motion = normalise(torch.from_numpy(data.controls[clip[:, None], frames].astype(np.float32)))
    audio = torch.from_numpy(data.sound[clip[:, None], frames].astype(np.float32))
    text = vectors[
        torch.from_numpy(data.text[clip[:, None], frames[:, FRAMES_PER_LATENT // 2 :: FRAMES_PER_LATENT]])
    ]
    split = (count, FRAMES_PER_LATENT)
    return motion.unflatten(1, split), Condition(audio.unflatten(1, split), text.unsqueeze(2))


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
    data: Performances,
    clips: int,
    steps: int,
    *,
    shuffled: bool = False,
    seed: int = 0,
    guidance: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Motion `[B, T, K]` that the model makes from the neutral pose on, and the truth of the same sound (normalised).

    shuffled: each clip hears the next one's sound, a control that must fail; guidance: its scale, for a model that was
    taught to imitate it
    """
    config = module.config
    size, device = config.schedule.chunk_latents, next(module.parameters()).device
    count = data.frames // (size * FRAMES_PER_LATENT) * size
    rows = np.arange(min(clips, len(data)))
    truth, condition = cut(data, sentence_vectors(data), rows, np.zeros_like(rows), count)
    audio = condition.audio.roll(1, 0) if shuffled else condition.audio
    condition = Condition(audio.to(device), condition.text.to(device))
    shape = (len(rows), *config.dit.latent_shape)

    def noise(first: int, number: int) -> Tensor:
        return (
            torch.cat([noise_for(seed, first + i, shape) for i in range(number)]).transpose(0, 1).to(device)
        )

    sigmas = step_sigmas(with_overrides(config, {"schedule": {"steps": steps}}).schedule)
    made = stream(module, torch.zeros(shape, device=device), condition, noise, sigmas, guidance)
    return made.cpu().flatten(1, 2), truth.flatten(1, 2)


def evaluate(
    module: DiT,
    data: Performances,
    clips: int,
    evaluations: Sequence[int],
    scales: Sequence[float] = (1.0,),
) -> str:
    """The table of free-running motion on some of `data`, by evaluations a chunk; the last also with other sound.

    scales: of guidance, a row each, for a model that was taught to imitate it
    """
    chunk = module.config.schedule.chunk_latents * FRAMES_PER_LATENT
    rows = {
        f"{steps} evaluations" + (f", guidance {scale:g}" if scale != 1 else ""): free_running(
            module, data, clips, steps, guidance=scale
        )
        for steps in evaluations
        for scale in scales
    }
    last = evaluations[-1]
    rows[f"{last}, another clip's sound"] = free_running(module, data, clips, last, shuffled=True)
    return table({name: figures(made, truth, chunk) for name, (made, truth) in rows.items()})
