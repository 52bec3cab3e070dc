# SPDX-License-Identifier: Apache-2.0
"""The denoiser with its tokens split over ranks.

Each rank has a share of every latent's motion tokens: some of its frames, or some rows of a spatial latent. All that
is computed token by token is computed for the share alone; keys and values are gathered in every layer, so that each
query looks at all tokens. Text and sound tokens, a few beside hundreds, are computed by all. Keys and values of memory
are held by all: rank 0 sends them when memory changes, once a chunk.

Whole latents instead of tokens would be uneven: two ranks have a chunk of three latents done in the time of two.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from flowact_ros.engine.parallel.ranks import END, FIRST_OWN, Channel
from flowact_ros.models.dit import Condition, Denoiser, DiT, Evaluation, Windows
from flowact_ros.models.layers import KeyValue, Window
from flowact_ros.models.rope import Rotary
from flowact_ros.timebase import FRAMES_PER_LATENT

EVALUATE = FIRST_OWN
KEPT = 2  # lists of memory's keys and values: of the reference alone, and of all of memory
Cache = list[KeyValue]


@dataclass(frozen=True)
class SplitWindows(Windows):
    """Windows of one rank's share, and what other ranks make theirs from: first frames of the slots `[S]`, of cached
    ones `[M]`."""

    at: Tensor
    cached_at: Tensor | None


class Share:
    """One rank's share of the tokens of every latent. Raises ValueError for more ranks than tokens."""

    def __init__(self, model: DiT, group: dist.ProcessGroup) -> None:
        self.model, self.group = model, group
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        tokens = len(model.motion_places)
        if size > tokens:
            raise ValueError(f"{size} ranks cannot share latents of {tokens} tokens; use at most {tokens}")
        bounds = [tokens * r // size for r in range(size + 1)]
        self.counts = [b - a for a, b in zip(bounds, bounds[1:])]
        self.start, self.stop = bounds[rank], bounds[rank + 1]

    def windows(self, at: Tensor, cached_at: Tensor | None) -> SplitWindows:
        whole = self.model.windows(at, cached_at)
        before = len(self.model.joint_places) - len(self.model.motion_places)  # text and sound tokens of a slot
        return SplitWindows(self._own(whole.joint, before), self._own(whole.motion, 0), at, cached_at)

    def _own(self, window: Window, before: int) -> Window:
        """before: tokens of a slot that all ranks have, which lie before the motion tokens."""
        tokens = before + sum(self.counts)
        mine = torch.tensor([*range(before), *range(before + self.start, before + self.stop)])

        def cut(table: Tensor) -> Tensor:
            return table.unflatten(0, (-1, tokens))[:, mine.to(table.device)].flatten(0, 1)

        def gather(x: Tensor) -> Tensor:
            return torch.cat([x[..., :before, :], self.gather(x[..., before:, :])], -2) if before else self.gather(x)

        queries: Rotary = (cut(window.queries[0]), cut(window.queries[1]))
        return Window(queries, window.keys, None, gather)

    def gather(self, part: Tensor) -> Tensor:
        """`[..., share, D]` of each rank -> `[..., tokens, D]`, on all of them."""
        padded = F.pad(part, (0, 0, 0, max(self.counts) - part.shape[-2])).contiguous()
        every = padded.new_empty(len(self.counts) * padded.shape[0], *padded.shape[1:])
        dist.all_gather_single(every, padded, group=self.group)
        parts = every.unflatten(0, (len(self.counts), -1))
        return torch.cat([x[..., :count, :] for x, count in zip(parts, self.counts)], -2)

    def evaluate(self, one: Evaluation) -> tuple[Tensor, Cache]:
        """As `DiT.evaluate`, with windows of this share; latents, keys and values of all tokens on every rank."""
        inside = self.model.embed(one.noisy, one.sigma, one.condition, one.guidance)
        clean, made = self.model.attend(inside.tokens(self.start, self.stop), one.windows, one.past)
        return self.gather(clean).to(one.noisy.dtype), made


class SplitDenoiser(Denoiser):
    """Rank 0's: the `DiT` that it shares with the other ranks of `channel`."""

    def __init__(self, model: DiT, channel: Channel) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._share, self._channel = Share(model, channel.group), channel
        self._sent: OrderedDict[int, tuple[int, Cache]] = OrderedDict()  # by identity: its place there, and itself

    def windows(self, at: Tensor, cached_at: Tensor | None = None, mask: Tensor | None = None) -> SplitWindows:
        """As `DiT.windows`. Raises ValueError for a mask, which only training has."""
        if mask is not None:
            raise ValueError("a denoiser that is split over ranks runs a stream, which has no mask")
        return self._share.windows(at, cached_at)

    def evaluate(self, one: Evaluation) -> tuple[Tensor, Cache]:
        """Raises RankLost."""
        noisy, sigma, condition, windows, past, guidance = one
        assert isinstance(windows, SplitWindows)  # of its own method
        batch, slots = noisy.shape[:2]
        cached = 0 if windows.cached_at is None else len(windows.cached_at)
        place, fresh = self._place(past)
        head = (EVALUATE, batch, slots, cached, guidance is not None, place, fresh)
        with self._channel.command(*(int(number) for number in head)):
            told = [noisy, sigma, condition.audio, condition.text, windows.at]
            told += [x for x in (windows.cached_at, guidance) if x is not None]
            for x in told:
                self._channel.send(x.to(noisy.device, torch.float32).contiguous())
            if fresh and past is not None:
                for x in (x for pair in past for x in pair):
                    self._channel.send(x.contiguous())
            return self._share.evaluate(one)

    def _place(self, past: Cache | None) -> tuple[int, bool]:
        """Where the other ranks keep these keys and values, and whether they must be sent; -1: there are none."""
        if past is None:
            return -1, False
        if id(past) in self._sent:
            self._sent.move_to_end(id(past))
            return self._sent[id(past)][0], False
        place = len(self._sent)
        if place == KEPT:
            place = self._sent.popitem(last=False)[1][0]
        self._sent[id(past)] = place, past
        return place, True


@torch.inference_mode()
def follow(model: DiT, channel: Channel) -> None:
    """Another rank's: takes its share in each evaluation until rank 0 has it end. Raises RankLost."""
    share, c = Share(model, channel.group), model.config.dit
    anchor = model.motion_in.weight
    kept: dict[int, Cache] = {}
    while True:
        command, batch, slots, cached, guided, place, fresh, _ = channel.hear()
        if command == END:
            return

        def take(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return channel.send(anchor.new_empty(shape, dtype=dtype))

        with channel.failing():
            noisy, sigma = take(batch, slots, *c.latent_shape), take(batch, slots)
            audio = take(batch, slots, FRAMES_PER_LATENT, c.audio_dim)
            text = take(batch, slots, c.text_tokens, c.text_dim)
            at, cached_at = take(slots), take(cached) if cached else None
            guidance = take(batch) if guided else None
            if fresh:
                tokens = [len(model.joint_places)] * c.double_blocks + [len(model.motion_places)] * c.single_blocks
                shapes = [(batch, c.heads, cached * n, c.head_dim) for n in tokens]
                kept[place] = [(take(*s, dtype=anchor.dtype), take(*s, dtype=anchor.dtype)) for s in shapes]
            windows = share.windows(at, cached_at)
            share.evaluate(Evaluation(noisy, sigma, Condition(audio, text), windows, kept.get(place), guidance))
