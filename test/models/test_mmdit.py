# SPDX-License-Identifier: Apache-2.0
"""The fake-causal mask does not leak, and cached memory equals recomputed memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowact_ros.engine.kv_cache import entry_cache, join, read_positions, reference_cache
from flowact_ros.engine.memory import Condition, MemoryBank
from flowact_ros.models.config import ModelConfig, debug
from flowact_ros.models.mmdit import MMDiT, fake_causal, in_slot, patchify, unpatchify

CONFIG = debug()


def make_model(config: ModelConfig = CONFIG) -> MMDiT:
    torch.manual_seed(1)
    model = MMDiT(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # zero-initialised gates would make every test pass
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(slots: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    c, (h, w) = CONFIG.vae.latent_channels, CONFIG.latent_size
    return (
        torch.randn(1, slots, c, h, w, generator=g),
        torch.randn(1, c, h, w, generator=g),
        torch.rand(1, slots, generator=g),
        torch.randn(1, slots, 4, 384, generator=g),
        torch.randn(1, slots, 1, 384, generator=g),
    )


def test_patchify_is_invertible() -> None:
    x = torch.randn(2, 3, 8, 4, 6)
    torch.testing.assert_close(unpatchify(patchify(x, 2), 2, (2, 3)), x)


def test_mask_table() -> None:
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert fake_causal(2, 2).int().tolist() == expected


@pytest.mark.parametrize("which", [0, 2, 3, 4])  # latents, noise level, audio, text of the stream
def test_stream_changes_no_memory_activation(which: int) -> None:
    model, slots, clean = make_model(), 6, 4
    assert len(model.double_blocks) + len(model.single_blocks) >= 3
    window = model.window(torch.arange(slots), None, fake_causal(3, 2))
    base = list(inputs(slots))
    other = [t.clone() for t in base]
    other[which][:, clean:] += 0.37
    tokens = clean * model.tokens_per_slot
    (out_a, made_a), (out_b, made_b) = model(*base, window), model(*other, window)
    for (k_a, v_a), (k_b, v_b) in zip(made_a, made_b):
        assert torch.equal(k_a[:, :, :tokens], k_b[:, :, :tokens])
        assert torch.equal(v_a[:, :, :tokens], v_b[:, :, :tokens])
    assert torch.equal(out_a[:, :clean], out_b[:, :clean])
    assert not torch.allclose(out_a[:, clean:], out_b[:, clean:])  # and the stream does see it


def test_without_the_mask_memory_would_change() -> None:
    model, window = make_model(), make_model().window(torch.arange(4), None, None)
    base = list(inputs(4))
    other = [t.clone() for t in base]
    other[0][:, 3:] += 0.37
    assert not torch.allclose(model(*base, window)[0][:, :3], model(*other, window)[0][:, :3])


def test_cached_passes_equal_one_masked_pass() -> None:
    """Reference, short-term and stream in three passes give what one masked pass over all slots gives."""
    model = make_model()
    noisy, reference, sigma, audio, text = inputs(4)
    noisy[:, 0], audio[:, 0], text[:, 0], sigma[:, :2] = 0, 0, 0, 0
    recent = torch.cat([torch.zeros_like(noisy[:, :2]), noisy[:, 1:2].expand(-1, 2, -1, -1, -1)], 1)
    cached, stream = read_positions(CONFIG.memory.long_term, 1, 2)
    joint = model.window(torch.cat([cached, stream]), None, fake_causal(1, 2))
    whole, _ = model(noisy, reference, sigma, audio, text, joint, recent=recent)
    anchor = reference_cache(model, reference)
    entry = entry_cache(model, anchor, reference, noisy[:, 1:2], sigma[:, 1:2], audio[:, 1:2], text[:, 1:2])
    window = model.window(stream, cached, None)
    rest = (noisy[:, 2:], reference, sigma[:, 2:], audio[:, 2:], text[:, 2:])
    split, _ = model(*rest, window, join([anchor, entry]), recent=recent[:, 2:])
    torch.testing.assert_close(split, whole[:, 2:], rtol=1e-4, atol=1e-5)


def test_cache_parity_over_evictions() -> None:
    """After more commits than the bank holds, its caches equal those of a bank made anew from its latents."""
    model, long_term = make_model(), CONFIG.memory.long_term
    latents, reference, _, audio, text = inputs(8)
    bank = MemoryBank.start(model, reference)
    for k in range(8):
        bank = bank.commit(model, latents[:, k : k + 1], Condition(audio[:, k : k + 1], text[:, k : k + 1]))
    assert len(bank.entries) == long_term + 1 and 8 - len(bank.entries) >= 3  # three evictions and more
    fresh = MemoryBank.start(model, reference)
    for entry in bank.entries:
        fresh = fresh.commit(model, entry.latents, entry.condition)
    condition = Condition(audio[:, :2], text[:, :2])
    noisy, sigma = latents[:, :2], torch.full((1, 2), 0.7)
    torch.testing.assert_close(
        bank.predictor(model, condition)(noisy, sigma), fresh.predictor(model, condition)(noisy, sigma)
    )
    torch.testing.assert_close(bank.entries[0].latents, latents[:, 8 - len(bank.entries)].unsqueeze(1))


def test_positions_are_right_aligned() -> None:
    cached, stream = read_positions(3, 2, 3)
    assert cached.tolist() == [0, 3, 4] and stream.tolist() == [5, 6, 7]


def test_guidance_is_an_input() -> None:
    model = make_model()
    window = model.window(torch.arange(2), None, None)
    plain, _ = model(*inputs(2), window)
    same, _ = model(*inputs(2), window, guidance=torch.ones(1))
    other, _ = model(*inputs(2), window, guidance=torch.full((1,), 3.0))
    torch.testing.assert_close(plain, same)
    assert not torch.allclose(plain, other)


def test_the_evaluations_of_a_chunk_share_their_context() -> None:
    """`forward` for each noise level, and `predict` after one `context`: the same."""
    model = make_model()
    noisy, reference, _, audio, text = inputs(3)
    bank = MemoryBank.start(model, reference)
    for k in range(2):
        bank = bank.commit(model, noisy[:, k : k + 1], Condition(audio[:, k : k + 1], text[:, k : k + 1]))
    predict = bank.predictor(model, Condition(audio, text))
    cached, stream = read_positions(CONFIG.memory.long_term, 2, 3)
    window = model.window(stream, cached, None)
    past = join([bank.anchor, *(entry.cache for entry in bank.entries)])
    recent = bank.short_term.latents.expand(-1, 3, -1, -1, -1)
    for level in (0.9, 0.4):
        x, sigma = noisy + level * torch.randn_like(noisy), torch.full((1, 3), level)
        whole, _ = model(x, reference, sigma, audio, text, window, past, recent=recent)
        torch.testing.assert_close(predict(x, sigma), whole)
    torch.testing.assert_close(past[0][0][:, :, : model.tokens_per_slot], bank.anchor[0][0])  # still un-rotated


def test_memory_keeps_the_tokens_that_move() -> None:
    """An entry without the tokens that stand still holds what a pass over the others alone makes of them."""
    config = replace(CONFIG, memory=replace(CONFIG.memory, still=0.2))
    model, patch, n = make_model(config), CONFIG.mmdit.patch, CONFIG.tokens_per_latent
    latents, reference, _, audio, text = inputs(4)
    tokens = patchify(latents, patch)
    tokens[:, :2, n // 2 :] *= 0.01
    latents = unpatchify(tokens, patch, CONFIG.grid)
    bank = MemoryBank.start(model, reference)
    for k in range(4):
        bank = bank.commit(model, latents[:, k : k + 1], Condition(audio[:, k : k + 1], text[:, k : k + 1]))
    assert [len(entry.tokens) for entry in bank.entries] == [n // 2, n // 2, n, n]
    held = [entry.cache[0][0].shape[2] - model.condition_tokens for entry in bank.entries]
    assert held == [n // 2, n // 2, n, n]
    condition, sigma = Condition(audio[:, :2], text[:, :2]), torch.full((1, 2), 0.7)
    found = bank.predictor(model, condition)(latents[:, 2:], sigma)
    full = MemoryBank.start(model, reference)
    model.config = CONFIG
    for entry in bank.entries:
        full = full.commit(model, entry.latents, entry.condition)
    whole = full.predictor(model, condition)(latents[:, 2:], sigma)
    assert not torch.allclose(found, whole)
    # keys of the last two entries are those of a bank that keeps all, rotated to the same places
    mine, others = bank.context(model, condition).past, full.context(model, condition).past
    last = 2 * model.tokens_per_slot
    torch.testing.assert_close(mine[0][0][:, :, -last:], others[0][0][:, :, -last:])
    kept = in_slot(torch.arange(n // 2), model.condition_tokens)
    start = model.tokens_per_slot  # behind the reference
    torch.testing.assert_close(mine[0][0][:, :, start : start + len(kept)], others[0][0][:, :, start + kept])


def test_memory_in_which_nothing_moves_is_heard_and_read_only() -> None:
    """An entry without a video token still has its sound and its text."""
    model = make_model(replace(CONFIG, memory=replace(CONFIG.memory, still=1.0)))
    latents, reference, _, audio, text = inputs(2)
    condition = Condition(audio, text)
    bank = MemoryBank.start(model, reference).commit(model, 1e-3 * latents, condition)
    assert bank.entries[0].cache[0][0].shape[2] == model.condition_tokens
    found = bank.predictor(model, condition, settled=1e6)(latents, torch.full((1, 2), 0.7))
    assert found.shape == latents.shape and found.isfinite().all()
