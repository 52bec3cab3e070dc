# SPDX-License-Identifier: Apache-2.0
"""Which convolutions of the live renderer a runtime may compute in int8, and between which limits.

Both are measured when weights are exported. A convolution whose inputs have a few large channels loses all small ones
between two levels: one such at the end of a painter covers what it paints with grain. Those stay in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import NAMED, neutral, render
from flowact_ros.data.poses import random_movement
from flowact_ros.models.codec.appearance import Appearance
from flowact_ros.models.codec.motion import normalise
from flowact_ros.models.codec.quantise import Ranges, measure_ranges, rounded
from flowact_ros.models.codec.renderer import Renderer

FRAMES = 4  # of each named character that limits are measured on
LIVE = ("mouth", "eyes", "warp", "hands")  # what is computed for every frame
ONCE = ("stem", "fine", "down", "coarse")  # of the painters: computed once a reference, in float32
PAINTERS = ("mouth", "eyes", "hands.hand", "hands.arm")
LIMIT = 50.0  # dB; what one convolution's rounding alone may do to what its painter paints


def activations(renderer: Renderer) -> Ranges:
    """Limits of the inputs of the convolutions that may be rounded, by name, over the named characters and any motion,
    hands up in a part of it.
    """
    rng = np.random.default_rng(0)
    renderer.eval()
    shown = []
    for who in NAMED.values():
        picture = render(who, neutral(1), renderer.config.size).float() / 127.5 - 1
        motion = normalise(torch.cat([random_movement(rng, 1) for _ in range(FRAMES)]))
        with torch.inference_mode():
            appearance = renderer.appearance(picture).select(torch.zeros(len(motion), dtype=torch.long))
        shown.append((appearance, motion))

    def run() -> None:
        for appearance, motion in shown:
            renderer(appearance, motion)

    ranges = {
        name: range_
        for name, range_ in measure_ranges(renderer, run).items()
        if name.split(".")[0] in LIVE and name.split(".")[1] not in ONCE
    }
    coarse = grainy(renderer, ranges, shown[:: max(1, len(shown) // 6)])
    return {name: range_ for name, range_ in ranges.items() if name not in coarse}


@torch.inference_mode()
def grainy(
    renderer: Renderer, ranges: Ranges, shown: list[tuple[Appearance, Tensor]], limit: float = LIMIT
) -> list[str]:
    """Names of the painters' convolutions whose rounding alone is more than `limit` [dB] allows.

    shown: appearances and motions `[N, K]` to paint. What nobody sees of a hand, since it covers nothing, does not
    count.
    """
    found = []
    for part in PAINTERS:
        names = [name for name in ranges if name.startswith(f"{part}.")]
        parent, _, leaf = part.rpartition(".")
        holder, own = renderer.get_submodule(parent), renderer.get_submodule(part)
        truth = [_painted(renderer, part, *one) for one in shown]
        for name in names:
            setattr(holder, leaf, rounded(own, {name.removeprefix(f"{part}."): ranges[name]}))
            power = [_power(_painted(renderer, part, *one), true) for one, true in zip(shown, truth)]
            setattr(holder, leaf, own)
            count = sum(pixels for _, pixels in power)
            if count and 10 * np.log10(4 / max(sum(off for off, _ in power) / count, 1e-12)) < limit:
                found.append(name)
    return found


def _painted(renderer: Renderer, part: str, who: Appearance, motion: Tensor) -> tuple[Tensor, ...]:
    """What a painter makes `[n, 3, h, w]`, and how much it covers `[n, 1, h, w]`."""
    if part.startswith("hands"):
        sprites = renderer.hands.sprites(renderer.hands.shown(who.identity, motion).inputs)[part == "hands.arm"]
        return sprites[:, :3], sprites[:, 3:]
    mouth, *eyes = renderer.parts(who, motion)
    crops = mouth if part == "mouth" else torch.cat(eyes)
    return crops, torch.ones_like(crops[:, :1])


def _power(painted: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> tuple[float, float]:
    """Sum of the squared differences of colours where the truth covers, and of how much it covers."""
    off = (painted[0] - truth[0]).square() * truth[1]
    return float(off.mean(1).sum()), float(truth[1].sum())
