# SPDX-License-Identifier: Apache-2.0
"""Stage 1: chunkwise diffusion forcing under the memory layout and the fake-causal mask (paper, section 2.2).

    flowact train latents --data runs/data/clips --out runs/latents
    flowact train stage1 --data runs/latents --heldout runs/latents_heldout --run runs/stage1 --minutes 10

A batch is a set of places in clips, each with the memory that the live stream would have there: reference, up to L
older chunk ends, the previous latent. Memory latents are disturbed, since the live stream's are never perfect. The
stream's 1 to 3 latents share one noise level; rectified-flow targets; cells of mouth and eyes weigh more.

Gradients flow through the reference and the short-term entry; older entries are computed without, which halves the
cost of a full bank and changes little, since all entries go through the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowact_ros.engine.kv_cache import entry_cache, join, read_positions, reference_cache
from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.engine.sampler import chunk_noise, rollout
from flowact_ros.engine.schedule import add_noise, step_sigmas, training_sigmas
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.config import ModelConfig
from flowact_ros.models.mmdit import MMDiT
from flowact_ros.models.vae import VAE
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.latents import load_prepared

# chance of a bank with 0, 1, .. 4 entries; a full one costs twice as much as a small one and teaches little more
ENTRIES = (0.04, 0.56, 0.1, 0.06, 0.24)
CHUNKS = (0.2, 0.1, 0.7)  # chance of a stream of 1, 2, 3 latents
SIGMA_FLOOR = 0.3  # below it the velocity's 1 / sigma^2 no longer grows
NEARBY = 0.8  # share of samples whose reference is a moment of the clip itself
REACH = 6  # latents (0.96 s) before and after within which it is looked for
PULLED = 0.5  # share of samples whose memory is pulled towards the reference, as `memory.retain` does
LEAST_RETAINED = 0.4
HELDOUT_LATENTS = 24  # of each held-out clip, rolled out for the sheet


class DiffusionForcing:
    nearby = NEARBY

    def __init__(
        self,
        config: ModelConfig,
        data: Sequence[Path],
        heldout: Path,
        *,
        batch: int = 8,
        drop: float = 0.08,
        memory_noise: float = 0.15,
        generated: float = 0.5,
    ) -> None:
        self.config, self.batch_size, self.drop, self.memory_noise = config, batch, drop, memory_noise
        self.generated = generated
        self.module = MMDiT(config)
        self.clips, self.texts = load_prepared(*data)
        self.heldout_folder = heldout
        self.lengths = np.array([len(clip["latents"]) for clip in self.clips], dtype=float)
        self.sigmas = step_sigmas(config.schedule)

    # -- batches ---------------------------------------------------------------------------------------------------

    def batch(self, generator: torch.Generator) -> dict[str, Tensor | int]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        entries = int(rng.choice(len(ENTRIES), p=ENTRIES))
        stream = int(rng.choice((1, 2, 3), p=CHUNKS))
        rows = [self._place(rng, entries, stream) for _ in range(self.batch_size)]
        out: dict[str, Tensor | int] = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        keep_audio = torch.rand(self.batch_size, generator=generator) >= self.drop
        keep_text = torch.rand(self.batch_size, generator=generator) >= self.drop
        out["audio"] = out["audio"] * keep_audio[:, None, None, None]
        out["text"] = out["text"] * keep_text[:, None, None, None]
        out["sigma"] = training_sigmas(self.batch_size, self.config.schedule, generator)[:, None].expand(-1, stream)
        level = torch.randn(self.batch_size, entries, generator=generator).abs().mul(self.memory_noise).clamp_max(0.6)
        out["memory_level"] = level
        pulled = torch.rand(self.batch_size, generator=generator) < PULLED
        share = LEAST_RETAINED + (1 - LEAST_RETAINED) * torch.rand(self.batch_size, generator=generator)
        out["retained"] = torch.where(pulled, share, torch.ones(()))
        out["entries"] = entries
        out["generated"] = entries > 0 and float(torch.rand((), generator=generator)) < self.generated
        return out

    def _place(self, rng: np.random.Generator, entries: int, stream: int) -> dict[str, Tensor]:
        """One clip position: rows [entries + stream] of latents, audio, text, weight, and the reference."""
        clip = self.clips[rng.choice(len(self.clips), p=self.lengths / self.lengths.sum())]
        # chunk ends backwards from the short-term latent; live chunks are 3 latents, sometimes fewer
        steps = rng.choice((1, 2, 3), size=max(0, entries - 1), p=(0.12, 0.08, 0.8))
        back = np.concatenate([[0], np.cumsum(steps)])[:entries]
        least = int(back[-1]) + 1 if entries else 0
        start = int(rng.integers(least, len(clip["latents"]) - stream + 1))
        index = [start - 1 - int(b) for b in back[::-1]] + list(range(start, start + stream))
        reference = self._reference(rng, clip, start, start + stream)
        return {
            "reference": reference,
            "latents": (clip["latents"][index].float() - reference) / self.config.motion_scale,
            "audio": clip["audio"][index].float(),
            "text": self.texts[clip["text"][index]],
            "weight": clip["weight"][index[entries:]].float(),
            **({"code": clip["code"][index]} if "code" in clip else {}),
        }

    def _reference(self, rng: np.random.Generator, clip: dict[str, Tensor], start: int, stop: int) -> Tensor:
        """The neutral picture, or most often a moment near by at which the mouth was (nearly) closed.

        A reference in the pose of the moment makes the mean over all that may come a sharp picture: the head where
        the reference has it. With the neutral picture alone the pose was open, and three evaluations drew its blur.
        """
        if rng.random() >= self.nearby:
            return clip["reference"].float()
        places = np.arange(max(0, start - REACH), min(len(clip["latents"]), stop + REACH))
        opening = clip["opening"].unflatten(0, (-1, FRAMES_PER_LATENT)).mean(1)[places].numpy()
        closed = places[opening <= max(0.012, float(opening.min()) + 0.004)]
        return clip["latents"][int(rng.choice(closed))].float()

    # -- loss ------------------------------------------------------------------------------------------------------

    def predict(self, batch: dict, noisy: Tensor, memory: Tensor) -> Tensor:
        """Clean stream latents from `noisy` `[B, S, ...]`, under memory latents `memory` `[B, M, ...]`."""
        model, entries = self.module, batch["entries"]
        reference, audio, text = batch["reference"], batch["audio"], batch["text"]
        anchor = reference_cache(model, reference)
        caches = [anchor]
        for i in range(entries):
            with torch.set_grad_enabled(torch.is_grad_enabled() and i == entries - 1):
                sigma = noisy.new_full((len(noisy), 1), self.config.schedule.memory_sigma)
                row = slice(i, i + 1)
                caches.append(entry_cache(model, anchor, reference, memory[:, row], sigma, audio[:, row], text[:, row]))
        cached, stream = read_positions(self.config.memory.long_term, entries, noisy.shape[1], noisy.device)
        window = model.window(stream, cached, None)
        recent = memory[:, -1:] if entries else torch.zeros_like(noisy[:, :1])
        return model(
            noisy,
            reference,
            batch["sigma"],
            audio[:, entries:],
            text[:, entries:],
            window,
            join(caches),
            recent=recent.expand_as(noisy),
        )[0]

    @torch.no_grad()
    def generate(self, batch: dict, memory: Tensor) -> Tensor:
        """The short-term latent as this model would have made it, `[B, 1, ...]` (paper: generated-GT-latents).

        One evaluation from pure noise under the older entries: it has the model's own blur, which the next chunk must
        not hand on. The target stays the truth.
        """
        entries = batch["entries"]
        own = {
            "reference": batch["reference"],
            "audio": batch["audio"][:, :entries],
            "text": batch["text"][:, :entries],
            "sigma": memory.new_ones(len(memory), 1),
            "entries": entries - 1,
        }
        return self.predict(own, torch.randn_like(memory[:, -1:]), memory[:, :-1]).float()

    def step(self, batch: dict, iteration: int) -> dict[str, Tensor]:
        entries = batch["entries"]
        clean, memory = batch["latents"][:, entries:], batch["latents"][:, :entries]
        memory = add_noise(memory, torch.randn_like(memory), batch["memory_level"])
        if batch["generated"]:
            memory = torch.cat([memory[:, :-1], self.generate(batch, memory)], 1)
        memory = memory * batch["retained"][:, None, None, None, None]
        noisy = add_noise(clean, torch.randn_like(clean), batch["sigma"])
        predicted = self.predict(batch, noisy, memory).float()
        error = (predicted - clean).square().mean(2)  # [B, S, h, w]
        weighted = (batch["weight"] * error).mean((-1, -2))
        # the velocity's error is the clean latents' error / sigma
        loss = (weighted / batch["sigma"].clamp_min(SIGMA_FLOOR).square()).mean()
        still = (batch["weight"] * clean.square().mean(2)).mean((-1, -2)).mean()
        return {"loss": loss, "error": weighted.mean().detach(), "still": still}

    # -- sheets ----------------------------------------------------------------------------------------------------

    def _roll(self, module: MMDiT, clip: dict, texts: Tensor, audio: Tensor, count: int) -> Tensor:
        """Reference-relative latents `[1, count, C, h, w]` of a free-running stream of chunks, on the CPU."""
        device = next(module.parameters()).device
        bank = MemoryBank.start(module, clip["reference"].float().unsqueeze(0).to(device))
        size = self.config.schedule.chunk_latents
        words = texts[clip["text"]]
        conditions = [
            Condition(audio[None, k : k + size].float().to(device), words[None, k : k + size].to(device))
            for k in range(0, count, size)
        ]
        shape = tuple(clip["reference"].shape)

        def noise(first: int, number: int) -> Tensor:
            return chunk_noise(self.config.schedule, 0, first, number, shape).to(device)

        return torch.cat([latents for latents, _ in rollout(module, bank, conditions, noise, self.sigmas)], 1).cpu()

    def sheet(self, module: MMDiT, path: Path) -> dict[str, float]:
        """Free-running rollouts of held-out clips: error with true and with another clip's sound, and pictures."""
        self.heldout, self.heldout_texts = load_prepared(self.heldout_folder)
        vae = VAE(self.config.vae)
        load_weights(weights_dir() / self.config.name / "vae.safetensors", vae, kind="vae", config=self.config.vae)
        figures: dict[str, list[float]] = {"true": [], "shuffled": [], "still": [], "motion": []}
        pictures = []
        for number, clip in enumerate(self.heldout[:6]):
            count = min(HELDOUT_LATENTS, len(clip["latents"]))
            other = self.heldout[(number + 1) % len(self.heldout)]["audio"]
            reference = clip["reference"].float()
            clean = (clip["latents"][:count].float() - reference) / self.config.motion_scale
            weight = clip["weight"][:count].float()
            mouth = weight * (weight > weight.amax((1, 2), keepdim=True) * 0.5)  # the mouth's cells weigh most
            for name, audio in (("true", clip["audio"]), ("shuffled", other)):
                rolled = self._roll(module, clip, self.heldout_texts, audio[:count], count)[0].float()
                error = ((rolled - clean).square().mean(1) * mouth).sum() / mouth.sum()
                figures[name].append(float(error))
                if name == "true":
                    kept = rolled
            figures["still"].append(float((clean.square().mean(1) * mouth).sum() / mouth.sum()))
            moved, should = (float((z[1:] - z[:-1]).square().mean()) for z in (kept, clean))
            figures["motion"].append(moved / should)
            if number < 3:
                both = torch.stack([kept, clean])[:, 6:12] * self.config.motion_scale + reference
                video = vae.decode(both)[0].clamp(-1, 1)[:, ::4]  # [2, 6, 3, H, W]
                pictures += [torch.cat(list(row), -1) for row in video]
        grid = torch.nn.functional.avg_pool2d(torch.cat(pictures, -2), 2)
        Image.fromarray(((grid + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(path)
        return {name: sum(values) / len(values) for name, values in figures.items()}
