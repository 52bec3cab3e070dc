# SPDX-License-Identifier: Apache-2.0
"""Sample sheets of pictures, and how far pictures lie from the truth."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def save_sheet(rows: list[list[Tensor]], path: Path) -> None:
    """Pictures `[3, H, W]` in [-1, 1] in rows, at half their size."""
    whole = torch.cat([torch.cat(row, 2) for row in rows], 1)
    picture = Image.fromarray(((whole + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy())
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX).save(path)


def psnr(drawn: Tensor, truth: Tensor, mask: Tensor) -> float:
    """[dB] of pictures in [-1, 1] where `mask` `[N, 1, H, W]` is 1."""
    error = (drawn.clamp(-1, 1) - truth).square()
    return 10 * math.log10(4 / float((error * mask).sum() / mask.expand_as(error).sum()))
