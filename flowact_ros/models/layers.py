# SPDX-License-Identifier: Apache-2.0
"""Blocks of the MMDiT, with the names of the Flux family.

Activations keep the slot axis: motion tokens `[B, S, P, d]`, condition (text and sound) tokens `[B, S, Q, d]`. What
modulates them is a vector a token, or one for all tokens of a slot (`[B, S, 1, d]`). Attention is over all slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.attention import attention
from flowact_ros.models.operations import TORCH, Operations
from flowact_ros.models.rope import Rotary

KeyValue = tuple[Tensor, Tensor]  # un-rotated key and value, each [B, H, tokens, D]


@dataclass(frozen=True)
class Window:
    """What attention needs to know about the tokens of one forward pass.

    queries: rotation of the window's own tokens
    keys:    the same of the cached tokens, then of the window's own
    mask:    bool `[own tokens, cached + own tokens]`, or None when every query may look at every key
    gather:  where other processes have the rest of the window's tokens: keys or values `[..., S, T, D]` of this one's
             tokens -> those of all, in order; `keys` is then of all, `queries` of this one's
    """

    queries: Rotary
    keys: Rotary
    mask: Tensor | None
    gather: Callable[[Tensor], Tensor] | None = None


def timestep_embedding(t: Tensor, dim: int, scale: float = 1000.0) -> Tensor:
    """Sinusoidal embedding `[..., dim]` of t in [0, 1]."""
    half = dim // 2
    frequency = torch.exp(
        -math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half
    )
    angle = scale * t.float()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


class MLPEmbedder(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(inputs, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class QKNorm(nn.Module):
    """Norm of queries and keys `[B, H, N, D]` over the head width, with a learned scale each (ViT-22B).

    A layer norm, not a root-mean-square one: on a CPU it is one fused kernel, at half the time.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.key = nn.LayerNorm(dim, eps=1e-6, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.query(query), self.key(key)


class Modulation(nn.Module):
    """Shifts, scales and gates of one layer from vectors whose activation all layers share.

    Zero at first, so that a block adds nothing.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(width, count * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.linear(vec).chunk(self.count, -1)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """`[B, S, P, 3d]` -> query, key and value, each `[B, H, S, P, D]`."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(3, 0, 4, 1, 2, 5)
    return q, k, v


def joint_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, past: KeyValue | None, operations: Operations = TORCH
) -> tuple[Tensor, KeyValue]:
    """q, k, v `[B, H, S, T, D]` -> attended `[B, S, T, d]`, and this window's own un-rotated key and value."""
    slots = q.shape[2]
    if window.gather is not None:
        k, v = window.gather(torch.stack([k, v]))
    own = (k.flatten(2, 3), v.flatten(2, 3))
    key, value = own if past is None else (torch.cat([past[0], own[0]], 2), torch.cat([past[1], own[1]], 2))
    query = operations.rotate(q.flatten(2, 3), window.queries)
    out = attention(query, operations.rotate(key, window.keys), value, window.mask)
    return out.transpose(1, 2).flatten(2).unflatten(1, (slots, -1)), own


class Stream(nn.Module):
    """One side (motion or condition) of a double-stream block."""

    operations: Operations = TORCH

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, 6)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = QKNorm(width // heads)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def project(self, x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = split_heads(self.qkv(self.operations.modulated(x, shift, scale, self.qkv)), self.heads)
        return *self.norm(q, k), v

    def update(self, x: Tensor, attended: Tensor, gates: tuple[Tensor, ...]) -> Tensor:
        """x after attention and MLP; gates: the last four of the six modulations."""
        x = self.operations.gate(x, gates[0], self.proj(attended))
        normed = self.operations.modulated(x, gates[1], gates[2], self.mlp[0])
        return self.operations.gate(x, gates[3], self.mlp(normed))


class DoubleStreamBlock(nn.Module):
    """Condition tokens and motion tokens with weights of their own, joined in attention (MM-DiT)."""

    operations: Operations = TORCH

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.motion = Stream(width, heads, mlp_ratio)
        self.condition = Stream(width, heads, mlp_ratio)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        vec: Tensor,
        slot_vec: Tensor,
        window: Window,
        past: KeyValue | None,
    ) -> tuple[Tensor, Tensor, KeyValue]:
        """vec modulates the motion tokens x, slot_vec the condition tokens."""
        mod_x, mod_c = self.motion.modulation(vec), self.condition.modulation(slot_vec)
        of_condition = self.condition.project(condition, *mod_c[:2])
        of_motion = self.motion.project(x, *mod_x[:2])
        q, k, v = (torch.cat(pair, 3) for pair in zip(of_condition, of_motion))
        attended, own = joint_attention(q, k, v, window, past, self.operations)
        to_condition, to_motion = attended.split([condition.shape[2], x.shape[2]], 2)
        x = self.motion.update(x, to_motion, mod_x[2:])
        return x, self.condition.update(condition, to_condition, mod_c[2:]), own


class SingleStreamBlock(nn.Module):
    """Attention and MLP in parallel over the motion tokens."""

    operations: Operations = TORCH

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, 3)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = QKNorm(width // heads)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(
        self, x: Tensor, vec: Tensor, window: Window, past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        shift, scale, gate = self.modulation(vec)
        normed = self.operations.modulated(x, shift, scale, self.qkv, self.mlp[0])
        q, k, v = split_heads(self.qkv(normed), self.heads)
        attended, own = joint_attention(*self.norm(q, k), v, window, past, self.operations)
        return self.operations.gate(x, gate, self.proj(attended), self.mlp(normed)), own


class LastLayer(nn.Module):
    """Modulated projection to the channels of a latent; starts at zero, which is the neutral pose."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 2)
        self.linear = nn.Linear(width, channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        return self.linear(TORCH.modulate(x, *self.modulation(vec)))
