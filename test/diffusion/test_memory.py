# SPDX-License-Identifier: Apache-2.0
"""The memory bank: its slots, the fake-causal mask, caches against recomputation, refinement."""

from __future__ import annotations

import torch
from tiny import CONFIG, SHAPE, condition, make_model, noise
from torch import Tensor

from flowact_ros.diffusion.kv_cache import REFERENCE_AT, entry_cache, join
from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.config import preset
from flowact_ros.models.dit import Condition

REFERENCE = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


def filled(model, sizes: tuple[int, ...]) -> MemoryBank:  # type: ignore[no-untyped-def]
    bank = MemoryBank.start(model, REFERENCE)
    for i, n in enumerate(sizes):
        g = torch.Generator().manual_seed(i)
        bank = bank.commit(model, torch.randn(2, n, *SHAPE, generator=g), condition(n, i, rows=2))
    return bank


def test_slots_of_the_bank() -> None:
    bank = filled(make_model(), (3, 3, 1, 2, 3, 3))
    assert [entry.index for entry in bank.entries] == [6, 8, 11, 14]  # last latents of the last four chunks
    assert (bank.latents, bank.commits) == (15, 6)
    assert all(entry.latent.shape == (2, 1, *SHAPE) for entry in bank.entries)
    none = filled(make_model(preset("debug", {"memory": {"long_term": 0}})), (3, 3))
    assert [entry.index for entry in none.entries] == [5]


def fake_causal(memory_slots: int, stream_slots: int) -> Tensor:
    """Slot mask bool `[S, S]` (True = row may look at column) of reference + `memory_slots` + `stream_slots`.

    Paper, section 2.1: the stream sees all, memory entries only themselves and the reference, so that a memory
    entry's keys and values never change after they were made.
    """
    clean = 1 + memory_slots
    mask = torch.eye(clean + stream_slots, dtype=torch.bool)
    mask[:, 0] = True
    mask[clean:] = True
    return mask


def test_cached_memory_equals_one_pass_under_the_fake_causal_mask() -> None:
    """Reference, memory and stream in one forward pass, masked, give what the caches give."""
    model, slots = make_model(), 3
    told = condition(slots, 9, rows=2)
    told = Condition(
        torch.zeros_like(told.audio), told.text
    )  # in one pass a frame would hear the slot beside it
    committed = torch.randn(2, slots, *SHAPE)
    bank = MemoryBank.start(model, REFERENCE).commit(model, committed, told)
    stream, sigma = torch.randn(2, slots, *SHAPE), torch.tensor([[0.9, 0.9, 0.9], [0.4, 0.4, 0.4]])
    cached = bank.predictor(model, told)(stream, sigma)

    nothing = Condition(torch.zeros(2, 1, 4, 384), torch.zeros(2, 1, 1, 384))
    every = Condition.cat([nothing, told.slots(2, 3), told])
    latents = torch.cat([REFERENCE[:, None], committed[:, -1:], stream], 1)
    windows = model.windows(torch.tensor([REFERENCE_AT, -4.0, 0.0, 4.0, 8.0]), mask=fake_causal(1, slots))
    whole, _ = model(latents, torch.cat([torch.zeros(2, 2), sigma], 1), every, windows)
    torch.testing.assert_close(whole[:, -slots:], cached, rtol=1e-4, atol=1e-5)


def test_cached_entries_equal_recomputed_ones_wherever_they_stand() -> None:
    model = make_model()
    bank = filled(model, (3, 3, 1, 2, 3))
    for entry in bank.entries:
        again = entry_cache(model, bank.reference, entry.latent, entry.condition)
        assert all(torch.equal(a, b) for old, new in zip(entry.cache, again) for a, b in zip(old, new))


def test_what_the_stream_does_never_changes_memory() -> None:
    model = make_model()
    bank = filled(model, (3, 3))
    before = [t.clone() for layer in join([bank.reference, *(e.cache for e in bank.entries)]) for t in layer]
    following = bank.commit(model, torch.randn(2, 3, *SHAPE), condition(3, 7, rows=2))
    kept = join([following.reference, *(e.cache for e in following.entries[:-1])])
    assert all(torch.equal(a, b) for a, b in zip(before, [t for layer in kept for t in layer]))

    mask = fake_causal(2, 2)
    assert mask.tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, False, True, False, False],
        [True, True, True, True, True],
        [True, True, True, True, True],
    ]


def test_every_input_counts() -> None:
    model = make_model()
    bank, told = filled(model, (3, 3)), condition(3, 1, rows=2)
    stream, sigma = torch.randn(2, 3, *SHAPE), torch.full((2, 3), 0.7)
    base = bank.predictor(model, told)(stream, sigma)
    other = condition(3, 2, rows=2)
    for changed in (Condition(other.audio, told.text), Condition(told.audio, other.text)):
        assert not torch.allclose(bank.predictor(model, changed)(stream, sigma), base, atol=1e-4)
    assert not torch.allclose(filled(model, (3,)).predictor(model, told)(stream, sigma), base, atol=1e-4)
    assert not torch.allclose(bank.predictor(model, told)(stream, sigma / 2), base, atol=1e-4)
    moved = MemoryBank(
        bank.reference, bank.entries, bank.latents + 1
    )  # the same entries, a latent longer ago
    assert not torch.allclose(moved.predictor(model, told)(stream, sigma), base, atol=1e-4)


def test_an_hour_into_a_stream_nothing_is_different() -> None:
    model = make_model()
    bank, told = filled(model, (3, 3)), condition(3, 1, rows=2)
    later = MemoryBank(
        bank.reference,
        tuple(type(e)(e.latent, e.condition, e.cache, e.index + 22_500) for e in bank.entries),
        bank.latents + 22_500,
    )
    stream, sigma = torch.randn(2, 3, *SHAPE), torch.full((2, 3), 0.7)
    assert torch.equal(
        later.predictor(model, told)(stream, sigma), bank.predictor(model, told)(stream, sigma)
    )


def test_refinement_renews_only_the_short_term_latent_on_its_interval() -> None:
    model = make_model(preset("debug", {"memory": {"refine_interval": 2}}))
    bank = MemoryBank.start(model, REFERENCE[:1])
    told = [condition(3, i) for i in range(4)]
    chunks = list(rollout(model, bank, told, noise, step_sigmas(CONFIG.schedule)))
    made, banks = [x for x, _ in chunks], [b for _, b in chunks]
    renewed = [not torch.equal(b.entries[-1].latent, x[:, -1:]) for b, x in zip(banks, made)]
    assert renewed == [False, True, False, True]
    again = banks[0].refine(model)
    assert torch.equal(again.entries[-1].latent, banks[0].refine(model).entries[-1].latent)
    assert again.entries[-1].index == banks[0].entries[-1].index
    assert MemoryBank.start(model, REFERENCE).refine(model).entries == ()
