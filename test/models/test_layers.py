# SPDX-License-Identifier: Apache-2.0
"""Rotation, norm and attention against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flowact_ros.models import attention as module
from flowact_ros.models.attention import attention
from flowact_ros.models.layers import QKNorm
from flowact_ros.models.rope import rotate, rotation, token_positions

AXES = (4, 6, 6)


def test_rotation_turns_pairs_by_position_times_frequency() -> None:
    positions = token_positions(torch.tensor([3.0]), (2, 2), 1)[0]  # [5, 3]: slot 3, middle and four places
    x = torch.randn(5, 16)
    found = rotate(x, rotation(positions, AXES, 100.0))
    frequencies = [
        (axis, 100.0 ** -(2 * i / width)) for axis, width in enumerate(AXES) for i in range(width // 2)
    ]
    for token in range(5):
        for pair, (axis, frequency) in enumerate(frequencies):
            angle = positions[token, axis] * frequency
            turned = torch.complex(x[token, pair], x[token, pair + 8]) * torch.polar(torch.tensor(1.0), angle)
            torch.testing.assert_close(found[token, [pair, pair + 8]], torch.view_as_real(turned))


def test_scores_depend_on_the_distance_only() -> None:
    q, k = torch.randn(16), torch.randn(16)

    def score(a: float, b: float) -> torch.Tensor:
        return rotate(q, rotation(torch.full((3,), a), AXES, 100.0)) @ rotate(
            k, rotation(torch.full((3,), b), AXES, 100.0)
        )

    torch.testing.assert_close(score(2.0, 5.0), score(7.0, 10.0))
    assert not torch.allclose(score(2.0, 5.0), score(2.0, 6.0))


def test_norm_of_queries_and_keys() -> None:
    norm = QKNorm(8)
    torch.nn.init.normal_(norm.query)
    torch.nn.init.normal_(norm.key)
    qk = torch.randn(2, 3, 4, 2, 5, 8)
    found = norm(qk)
    for part, scale in enumerate((norm.query, norm.key)):
        x = qk[..., part, :, :]
        wanted = scale * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(found[..., part, :, :], wanted)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bfloat16_on_a_processor(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 7, 16), torch.randn(2, 3, 9, 16), torch.randn(2, 3, 9, 16)
    mask = torch.rand(7, 9) > 0.4 if masked else None
    if mask is not None:
        mask[:, 0] = True
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    low = [t.bfloat16() for t in (q, k, v)]
    used = []
    by_products = module._by_products
    monkeypatch.setattr(module, "_by_products", lambda *a: (used.append(1), by_products(*a))[1])
    with torch.inference_mode():
        found = attention(*low, mask)
    assert used and found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.03)
    torch.testing.assert_close(attention(q, k, v, mask), exact)
    assert attention(*(t.requires_grad_() for t in low), mask).requires_grad and len(used) == 1  # training
