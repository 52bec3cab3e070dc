# SPDX-License-Identifier: Apache-2.0
"""Attention's windows of several streams in one batch: where memory entries stand differs from stream to stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flowact_ros.models.dit import Windows
from flowact_ros.models.layers import Window
from flowact_ros.models.rope import Rotary


def stacked(windows: Sequence[Windows]) -> Windows:
    """Windows of single streams, without masks -> one whose rotations have a row for each stream, `[B, 1, N, D]`."""
    return Windows(_stacked([w.joint for w in windows]), _stacked([w.motion for w in windows]))


def _stacked(windows: Sequence[Window]) -> Window:
    return Window(_rows([w.queries for w in windows]), _rows([w.keys for w in windows]), None)


def _rows(rotations: Sequence[Rotary]) -> Rotary:
    cos, sin = (torch.stack(parts)[:, None] for parts in zip(*rotations))
    return cos, sin
