# SPDX-License-Identifier: Apache-2.0
"""Which parts of the memory bank does motion need, and would other sizes do better?

Settings of the one network, which was trained with reference, short-term latent and a queue of three: queues of other
lengths, a queue sized by content, no short-term latent, no reference, and memory with noise on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from flowact_ros.diffusion.kv_cache import Cache, join
from flowact_ros.diffusion.memory import Entry, MemoryBank, Predict
from flowact_ros.diffusion.schedule import add_noise
from flowact_ros.evaluation.experiments.material import Material, Tell, configured, run, within
from flowact_ros.evaluation.experiments.motion_figures import SOME, columns, row, truth_again
from flowact_ros.evaluation.experiments.table import Figure, Row, Table
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.timebase import FRAMES_PER_LATENT

MOST = 7  # entries of a queue that is sized by content
NOVEL = 0.5  # controls' scales: an older entry is seen when it differs so much from all newer ones that are


@dataclass(frozen=True)
class Setting:
    """What the stream sees of its memory. long_term: None for as many as the preset has; noise: level of the noise on
    entries, of which the network is not told (in training it was not either); by_content: of `MOST` older entries only
    those that differ from newer ones.
    """

    name: str
    long_term: int | None = None
    short_term: bool = True
    reference: bool = True
    noise: float = 0.0
    by_content: bool = False


SETTINGS = (
    *(Setting(f"long-term {n}", long_term=n) for n in (0, 1, 3, 5, 7)),
    Setting("sized by content", long_term=MOST, by_content=True),
    Setting("short-term off", short_term=False),
    Setting("reference off", reference=False),
    Setting("noise 0.1 on memory", noise=0.1),
    Setting("noise 0.3 on memory", noise=0.3),
)
Make = Callable[..., np.ndarray]


def reference_of(model: DiT) -> str:
    """The setting that the model's preset has. Raises ValueError where none of `SETTINGS` is."""
    for setting in SETTINGS:
        if setting.long_term == model.config.memory.long_term and not setting.by_content:
            return setting.name
    sizes = ", ".join(str(s.long_term) for s in SETTINGS if s.long_term is not None and not s.by_content)
    raise ValueError(f"memory.long_term is {model.config.memory.long_term}; the experiment compares {sizes}")


@dataclass(eq=False)
class Seen:
    """Entries that the stream saw, counted."""

    entries: int = 0
    steps: int = 0


@dataclass(frozen=True, eq=False)
class VariedBank:
    """A `MemoryBank` of which the stream sees what `setting` says; for `sampler.rollout`."""

    bank: MemoryBank
    setting: Setting
    seen: Seen

    @property
    def latents(self) -> int:
        return self.bank.latents

    def predictor(self, model: DiT, condition: Condition, guidance: float | None = None) -> Predict:
        entries = self.bank.entries
        if not self.setting.short_term:
            entries = entries[:-1]
        if self.setting.by_content:
            entries = novel(entries)
        self.seen.entries += len(entries)
        self.seen.steps += 1
        if self.setting.reference:
            return replace(self.bank, entries=entries).predictor(model, condition, guidance)
        return _without_reference(model, entries, self.bank.latents, condition)

    def commit(self, model: DiT, latents: Tensor, condition: Condition) -> VariedBank:
        if self.setting.noise:
            generator = torch.Generator().manual_seed(self.bank.latents)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            latents = add_noise(latents, noise, torch.full(latents.shape[:2], self.setting.noise).to(latents))
        bank = self.bank.commit(model, latents, condition)
        if not self.setting.reference:
            entry = bank.entries[-1]
            alone = replace(entry, cache=_alone(model, entry.latent, entry.condition))
            bank = replace(bank, entries=(*bank.entries[:-1], alone))
        return replace(self, bank=bank)


def novel(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The newest entry, and of the older ones those that differ by `NOVEL` (root mean square over controls) from every
    newer one that is kept: a queue is long while much happens and short at rest. For one stream.
    """
    kept: list[Entry] = []
    for entry in reversed(entries):
        apart = [float((entry.latent - other.latent).square().mean().sqrt()) for other in kept]
        if all(distance > NOVEL for distance in apart):
            kept.append(entry)
    return tuple(reversed(kept))


def _alone(model: DiT, latent: Tensor, condition: Condition) -> Cache:
    """`kv_cache.entry_cache` of an entry that does not see the reference either."""
    newest = torch.tensor([-float(FRAMES_PER_LATENT)], device=latent.device)
    return model(latent, latent.new_zeros(latent.shape[:2]), condition, model.windows(newest))[1]


def _without_reference(model: DiT, entries: Sequence[Entry], first: int, condition: Condition) -> Predict:
    """`MemoryBank.predictor` of a stream that does not see the reference."""
    device, slots = condition.audio.device, condition.audio.shape[1]
    new = torch.arange(slots, dtype=torch.float32, device=device) * FRAMES_PER_LATENT
    if not entries:
        windows = model.windows(new)
        return lambda noisy, sigma: model(noisy, sigma, condition, windows)[0]
    at = [-float(FRAMES_PER_LATENT * (first - entry.index)) for entry in entries]
    windows, past = model.windows(new, torch.tensor(at, device=device)), join([entry.cache for entry in entries])
    return lambda noisy, sigma: model(noisy, sigma, condition, windows, past)[0]


def motion_under(
    model: DiT, material: Material, setting: Setting, tell: Tell = lambda text, done: None, make: Make = run
) -> tuple[np.ndarray, list[float]]:
    """(raw motion `[B, T, K]`, mean number of entries that each clip saw).

    make: what runs the model under a memory, and gives an array whose rows are the clips
    """
    if setting.long_term is not None:
        model = configured(model, {"memory": {"long_term": setting.long_term}})
    # Streams side by side have memories of one size: where content decides, each runs alone.
    parts = material.each() if setting.by_content else [material]
    made, counts = [], []
    for k, part in enumerate(parts):
        seen = Seen()
        done = within(tell, setting.name, k / len(parts), (k + 1) / len(parts))
        made.append(make(model, part, bank=partial(_begin, setting, seen), tell=done))
        counts += [seen.entries / seen.steps] * len(part.clips)
    return np.concatenate(made), counts


def _begin(setting: Setting, seen: Seen, model: DiT, reference: Tensor) -> VariedBank:
    return VariedBank(MemoryBank.start(model, reference), setting, seen)


def _share(tell: Tell, k: int, text: str, done: float) -> None:
    tell(text, 0.2 + 0.8 * (k + done) / len(SETTINGS))


def trained_with(model: DiT) -> dict[str, str]:
    """For the record beside the table."""
    return {"trained_with": f"reference, short-term latent, {model.config.memory.taught} long-term entries"}


def compare(model: DiT, material: Material, tell: Tell) -> Table:
    """The experiment, on motion."""
    reference = reference_of(model)
    rows: list[Row] = []
    for k, setting in enumerate(SETTINGS):
        motion, counts = motion_under(model, material, setting, partial(_share, tell, k))
        made = row(setting.name, material, motion, SOME)
        made.values["entries"] = [float(np.mean(c)) for c in material.by_seed(counts)]
        rows.append(made)
    rows.append(truth_again(material, SOME))
    return Table(
        "memory", "which parts of the memory bank does motion need?",
        [*columns(SOME), Figure("entries", "entries that a chunk sees", None, 1)], rows, material.count, reference,
        trained_with(model),
    )  # fmt: skip
