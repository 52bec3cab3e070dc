# SPDX-License-Identifier: Apache-2.0
"""Rotation and norm against their definitions."""

from __future__ import annotations

import torch

from flowact_ros.models.layers import QKNorm
from flowact_ros.models.rope import rotate, rotation, token_positions

AXES = (4, 6, 6)


def test_tokens_stand_at_their_slot_and_place() -> None:
    places = torch.tensor([[0.0, 0, 0], [1, 0, 1], [1, 1, 0]])
    found = token_positions(torch.tensor([-4.0, 8.0]), places)
    assert found.tolist() == [[-4, 0, 0], [-3, 0, 1], [-3, 1, 0], [8, 0, 0], [9, 0, 1], [9, 1, 0]]


def test_rotation_turns_pairs_by_position_times_frequency() -> None:
    positions = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
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
    torch.nn.init.normal_(norm.query.weight)
    torch.nn.init.normal_(norm.key.weight)
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    for found, x, scale in zip(norm(query, key), (query, key), (norm.query.weight, norm.key.weight)):
        centred = x - x.mean(-1, keepdim=True)
        torch.testing.assert_close(
            found, scale * centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        )
