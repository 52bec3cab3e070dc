# SPDX-License-Identifier: Apache-2.0
"""Blocks of the MMDiT, with the names of the Flux family.

All activations keep the slot axis: video tokens `[B, S, P, d]`, condition (text + audio) tokens `[B, S, Q, d]`.
Modulation is per slot, because slots of one window have different noise levels; it is computed once a slot, never
once a token. Attention joins a slot's condition and video tokens in that order, `Q + P` tokens a slot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.models.attention import attention
from flowact_ros.models.rope import rotate

Shifts = tuple[Tensor, ...]  # shifts, scales and gates of a layer, each [B, S, 1, d]
KeyValue = tuple[Tensor, Tensor]  # un-rotated key and value, each [B, H, S * (Q + P), D]


@dataclass(frozen=True)
class Window:
    """What attention needs to know about the slots of one forward pass.

    rotary:      tables `[S * (Q + P), D]` of the window's own tokens, see `rope.rotation`
    rotary_past: the same for the tokens of cached slots, or None without any
    mask:        bool `[own tokens, cached + own tokens]`, or None when every query may look at every key
    share:       called with own keys and values, returns those of all tokens where another thread has the others
    """

    rotary: tuple[Tensor, Tensor]
    rotary_past: tuple[Tensor, Tensor] | None
    mask: Tensor | None
    share: Callable[[Tensor, Tensor], KeyValue] | None = None


def timestep_embedding(t: Tensor, dim: int, scale: float = 1000.0) -> Tensor:
    """Sinusoidal embedding `[..., dim]` of t in [0, 1]."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
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
    """RMS norm of queries and keys `[..., 2, H, D]` over the head width, with a learned scale each.

    In float32, which is also the faster way: the CPU has no fused kernel for bfloat16.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.ones(dim))
        self.key = nn.Parameter(torch.ones(dim))

    def forward(self, qk: Tensor) -> Tensor:
        scale = torch.stack([self.query, self.key]).float().unsqueeze(1)  # [2, 1, D]
        return F.rms_norm(qk.float(), qk.shape[-1:], eps=1e-6) * scale


class Modulation(nn.Module):
    """Slot vectors `[..., S, d]` -> `count` tensors `[..., S, 1, d]`; starts at zero (identity blocks)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(width, count * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(vec)).unsqueeze(-2).chunk(self.count, -1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """`[B, S, P, 3d]` -> queries with keys `[B, S, P, 2, H, D]`, values `[B, S, P, H, D]`."""
    parts = qkv.unflatten(-1, (3, heads, -1))
    return parts[..., :2, :, :], parts[..., 2, :, :]


def rotate_past(past: list[KeyValue], window: Window) -> list[KeyValue]:
    """Cached keys to where their slots stand in the window: the same for every evaluation of a chunk."""
    assert window.rotary_past is not None  # a window for cached slots
    return [(rotate(key, window.rotary_past), value) for key, value in past]


def joint_attention(qk: Tensor, v: Tensor, window: Window, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
    """Attended `[B, S, Q + P, d]` and this window's own un-rotated key and value.

    qk: normalised `[B, S, Q + P, 2, H, D]`; v: `[B, S, Q + P, H, D]`; past: key (from `rotate_past`) and value
    """
    slots, tokens = qk.shape[1:3]
    qk, v = qk.flatten(1, 2), v.flatten(1, 2).transpose(1, 2)
    rotary = tuple(table[:, None, None] for table in window.rotary)  # one turn for queries and keys of all heads
    q, k = (t.transpose(1, 2) for t in rotate(qk, rotary).to(v.dtype).unbind(2))  # [B, H, N, D]
    own = (qk[:, :, 1].transpose(1, 2).to(v.dtype), v)
    if window.share is not None:
        k, v = window.share(k, v)
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    out = attention(q, k, v, window.mask)
    return out.transpose(1, 2).unflatten(1, (slots, tokens)).flatten(-2), own


class Stream(nn.Module):
    """One side (video or condition) of a double-stream block."""

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

    def project(self, x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        qk, v = split_heads(self.qkv(modulate(x, shift, scale)), self.heads)
        return self.norm(qk), v

    def update(self, x: Tensor, attended: Tensor, gates: tuple[Tensor, ...]) -> Tensor:
        """x after attention and MLP; gates: the last four of the six modulations."""
        x = torch.addcmul(x, gates[0], self.proj(attended))
        return torch.addcmul(x, gates[3], self.mlp(modulate(x, gates[1], gates[2])))


class DoubleStreamBlock(nn.Module):
    """Video tokens and condition tokens with weights of their own, joined in attention (MM-DiT)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.video = Stream(width, heads, mlp_ratio)
        self.condition = Stream(width, heads, mlp_ratio)

    def modulations(self, vec: Tensor) -> Shifts:
        """Six for the video tokens, six for the condition tokens."""
        return (*self.video.modulation(vec), *self.condition.modulation(vec))

    def forward(
        self, video: Tensor, condition: Tensor, mods: Shifts, window: Window, past: KeyValue | None
    ) -> tuple[Tensor, Tensor, KeyValue]:
        mod_v, mod_c = mods[:6], mods[6:]
        video_qkv = self.video.project(video, mod_v[0], mod_v[1])
        if condition.shape[2] == 0:  # another thread has it
            attended, own = joint_attention(*video_qkv, window, past)
            return self.video.update(video, attended, mod_v[2:]), condition, own
        condition_qkv = self.condition.project(condition, mod_c[0], mod_c[1])
        qk, v = (torch.cat([c, x], 2) for c, x in zip(condition_qkv, video_qkv))
        attended, own = joint_attention(qk, v, window, past)
        attended_c, attended_v = attended.split([condition.shape[2], video.shape[2]], 2)
        video = self.video.update(video, attended_v, mod_v[2:])
        return video, self.condition.update(condition, attended_c, mod_c[2:]), own


class SingleStreamBlock(nn.Module):
    """Attention and MLP in parallel over the joined tokens `[B, S, Q + P, d]`."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads, self.width, self.hidden = heads, width, mlp_ratio * width
        self.modulation = Modulation(width, 3)
        self.linear1 = nn.Linear(width, (3 + mlp_ratio) * width)
        self.linear2 = nn.Linear((1 + mlp_ratio) * width, width)
        self.norm = QKNorm(width // heads)

    def modulations(self, vec: Tensor) -> Shifts:
        """Shift, scale and gate."""
        return self.modulation(vec)

    def forward(self, x: Tensor, mods: Shifts, window: Window, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        shift, scale, gate = mods
        qkv, mlp = self.linear1(modulate(x, shift, scale)).split([3 * self.width, self.hidden], -1)
        qk, v = split_heads(qkv, self.heads)
        attended, own = joint_attention(self.norm(qk), v, window, past)
        mlp = F.gelu(mlp.contiguous())  # strided, it would run at half the speed
        return torch.addcmul(x, gate, self.linear2(torch.cat([attended, mlp], -1))), own


class LastLayer(nn.Module):
    """Modulated projection to patch channels; starts at zero, which is the reference picture itself."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 2)
        self.linear = nn.Linear(width, channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def modulations(self, vec: Tensor) -> Shifts:
        """Shift and scale."""
        return self.modulation(vec)

    def forward(self, x: Tensor, mods: Shifts) -> Tensor:
        return self.linear(modulate(x, *mods))
