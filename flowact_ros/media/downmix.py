# SPDX-License-Identifier: Apache-2.0
"""Many channels to one, so that no sound is lost: not by opposite phase, not among channels that are silent."""

from __future__ import annotations

import numpy as np

_LIVE = 1e-3  # of the loudest channel's energy: 30 dB below it a channel holds noise
_CANCELLED = 0.25  # of the energy that channels without a relation to each other would have in their mean


class Downmix:
    """The mean of the channels that carry sound; where they cancel each other, the loudest one.

    It goes by all that was heard so far, so that one sender's chunks are mixed alike. remark: what is not usual about
    the channels, once something is.
    """

    def __init__(self) -> None:
        self.remark = ""
        self._sums: np.ndarray | None = None  # [C, C] of products of channels

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """float32 [n, C] -> float32 [n]. Another C than before begins anew."""
        channels = frames.shape[1]
        if channels == 1:
            return np.ascontiguousarray(frames[:, 0], dtype=np.float32)
        wide = frames.astype(np.float64)
        sums = wide.T @ wide
        if self._sums is not None and self._sums.shape == sums.shape:
            sums += self._sums
        self._sums = sums
        energy = np.diag(sums)
        live = np.flatnonzero(energy >= _LIVE * energy.max()) if energy.max() > 0 else np.arange(channels)
        mixed = sums[np.ix_(live, live)].sum() / len(live) ** 2
        if mixed < _CANCELLED * energy[live].mean() / len(live):
            loudest = int(energy.argmax())
            self.remark = f"{len(live)} channels cancel each other: only channel {loudest} is heard; send mono"
            live = np.array([loudest])
        elif len(live) < channels:
            named = ", ".join(str(channel) for channel in live)
            self.remark = f"of {channels} channels only {named} carry sound: only they are heard"
        return wide[:, live].mean(axis=1).astype(np.float32)
