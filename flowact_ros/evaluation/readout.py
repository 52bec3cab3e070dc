# SPDX-License-Identifier: Apache-2.0
"""How far the mouth is open, read from pixels: the ruler of every lip figure.

    flowact eval readout            # trains it on rendered training characters, about 4 minutes of one core

A small convolutional regressor looks at a square around the place of the mouth in the character's neutral picture,
wide enough for every turn of the head. At each place it says how open a mouth there would be and how much it looks
like one; the answer is the mean weighted by that (soft attention), so the mouth need not be found beforehand. It never
hears anything, and its own error on characters that it has not seen is on its card (`readout.json`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.data.characters import (
    NAMED,
    Identity,
    control_index,
    feature_boxes,
    identity_from_seed,
    mouth_opening,
    neutral,
    render,
)
from flowact_ros.data.poses import random_movement
from flowact_ros.data.splits import TRAIN_CHARACTER_SEEDS
from flowact_ros.models.checkpoint import load_weights, save_weights, weights_dir

SIDE = 96  # pixels of the square that the network sees
REACH = 0.375  # its side as a fraction of the picture's height: 192 of 512 lines
CONFIG = {"side": SIDE, "reach": REACH, "widths": [16, 32, 48]}
UNIT = 512.0  # openings are learned in lines of a 512 canvas
FRAMES_EACH = 4  # training frames of one character


class MouthReadout(nn.Module):
    """float `[B, 3, 96, 96]` in -1 .. 1 -> opening `[B]` as a fraction of the picture's height."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = CONFIG["widths"]  # type: ignore[misc]
        self.body = nn.Sequential(
            nn.Conv2d(3, a, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(a, b, 3, padding=1, stride=2),
            nn.SiLU(),
            nn.Conv2d(b, c, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(c, c, 3, padding=2, dilation=2),
            nn.SiLU(),
        )
        self.heads = nn.Conv2d(c, 2, 3, padding=1)  # opening and how much it looks like a mouth

    def forward(self, crops: Tensor) -> Tensor:
        # Contrast differs between a screen face and skin: every crop is brought to the same one.
        mean = crops.mean((2, 3), keepdim=True)
        crops = (crops - mean) / crops.std((1, 2, 3), keepdim=True).clamp_min(0.05)
        opening, score = self.heads(self.body(crops)).flatten(2).unbind(1)
        return (score.float().softmax(1) * opening.float()).sum(1) * (32.0 / UNIT)


def mouth_place(identity: Identity) -> tuple[float, float]:
    """Middle of the mouth in the neutral picture, as fractions of width and height."""
    x0, y0, x1, y1 = feature_boxes(identity, neutral(1), 512)["mouth"][0].tolist()
    return (x0 + x1) / 1024.0, (y0 + y1) / 1024.0


def crop(frames: Tensor, place: tuple[float, float]) -> Tensor:
    """uint8 `[T, 3, H, W]` (square pictures) -> float `[T, 3, 96, 96]` in -1 .. 1 around the mouth's place."""
    height, width = frames.shape[-2:]
    half = REACH * height / 2
    x = min(max(place[0] * width, half), width - half)
    y = min(max(place[1] * height, half), height - half)
    x0, y0, side = round(x - half), round(y - half), max(2, round(2 * half))
    part = frames[:, :, y0 : y0 + side, x0 : x0 + side].float()
    if part.shape[-2:] != (SIDE, SIDE):
        part = F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)
    return part / 127.5 - 1.0


@torch.inference_mode()
def read_opening(readout: MouthReadout, frames: Tensor, place: tuple[float, float]) -> np.ndarray:
    """Opening as a fraction of the picture's height, float32 `[T]`, of uint8 frames `[T, 3, H, W]`."""
    return torch.cat([readout(crop(part, place)) for part in frames.split(32)]).clamp_min(0.0).numpy()


def default_path() -> Path:
    return weights_dir() / "evaluation" / "readout.safetensors"


def load_readout(path: Path | None = None) -> tuple[MouthReadout, dict]:
    """The trained readout and its card. Raises CheckpointError."""
    readout = MouthReadout()
    card = load_weights(path or default_path(), readout, kind="readout", config=CONFIG)
    return readout.eval().requires_grad_(False), card


# ---------------------------------------------------------------- training


def draw_controls(rng: np.random.Generator, frames: int) -> Tensor:
    """Random poses; each frame with its own mouth, small openings often."""
    controls = random_movement(rng, frames)

    def put(name: str, values: np.ndarray) -> None:
        controls[:, control_index(name)] = torch.as_tensor(values, dtype=torch.float32)

    kind = rng.random(frames)
    jaw = np.where(
        kind < 0.2, 0.0, np.where(kind < 0.75, rng.uniform(0, 0.45, frames), rng.uniform(0, 1.0, frames))
    )
    put("jaw", jaw)
    put("mouth_round", rng.uniform(0, 1, frames) * (rng.random(frames) < 0.4))
    put("mouth_width", rng.uniform(-0.8, 0.9, frames))
    put("lip_press", np.where(rng.random(frames) < 0.15, rng.uniform(0.3, 1, frames), 0.0))
    for name in ("lip_upper", "lip_lower"):
        put(name, rng.uniform(0, 0.6, frames) * (kind > 0.1) * (rng.random(frames) < 0.7))
    put("teeth", rng.uniform(0, 1, frames))
    put("tongue", rng.uniform(0, 1, frames))
    return controls


def material(seed: int, characters: int, seeds: range, named: float = 0.3) -> tuple[Tensor, Tensor]:
    """(uint8 frames' surroundings of the mouth `[N, 3, 112, 112]` at half scale, openings `[N]`)."""
    rng = np.random.default_rng([seed, 0x0E4D])
    crops, openings = [], []
    for _ in range(characters):
        if rng.random() < named:
            identity = NAMED[sorted(NAMED)[rng.integers(len(NAMED))]]
        else:
            identity = identity_from_seed(int(rng.integers(seeds.start, seeds.stop)))
        controls = draw_controls(rng, FRAMES_EACH)
        frames = render(identity, controls, size=256)
        x, y = mouth_place(identity)
        x0, y0 = round(x * 256) - 56, round(y * 256) - 56
        crops.append(frames[:, :, y0 : y0 + 112, x0 : x0 + 112])
        openings.append(mouth_opening(identity, controls))
    return torch.cat(crops), torch.cat(openings)


def disturb(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Random shifts, blur, noise and light, so that pictures of a VAE are read as well as drawn ones.

    uint8 `[B, 3, 112, 112]` -> float `[B, 3, 96, 96]` in -1 .. 1. The kind of blur is drawn once a call.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    dx, dy = (int(torch.randint(0, 17, (), generator=generator)) for _ in range(2))
    x = crops[:, :, dy : dy + SIDE, dx : dx + SIDE].float() / 127.5 - 1.0
    if uniform(0, 1) < 0.5:
        x = x.flip(3)  # a mouth has no side
    kind = uniform(0, 1)
    if kind < 0.25:
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    elif kind < 0.5:
        x = F.interpolate(F.avg_pool2d(x, 2), (SIDE, SIDE), mode="bilinear")
    elif kind < 0.6:
        side = int(uniform(60, 90))
        x = F.interpolate(F.interpolate(x, (side, side), mode="bilinear"), (SIDE, SIDE), mode="bilinear")
    tint = 1 + 0.15 * (torch.rand(len(x), 3, 1, 1, generator=generator) - 0.5)
    light = 0.2 * (torch.rand(len(x), 3, 1, 1, generator=generator) - 0.5)
    x = x * tint + light
    if kind > 0.15:
        coarse = torch.randn(
            len(x), 3, 12, 12, generator=generator
        )  # the blotches of a VAE are larger than pixels
        x = x + F.interpolate(coarse, (SIDE, SIDE), mode="bilinear") * uniform(0, 0.06)
        fine = torch.randn(
            3, SIDE, SIDE, generator=generator
        )  # one pattern for the batch: drawing noise is costly
        x = x + fine * uniform(-0.05, 0.05)
    return x


def errors(read: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Correlation, and mean absolute error in lines of a 512 canvas."""
    from flowact_ros.evaluation.metrics import correlation

    return {"correlation": correlation(read, true), "mae_px_512": float(np.abs(read - true).mean() * UNIT)}


def train(
    data: tuple[Tensor, Tensor], *, steps: int, seed: int = 0, tell: Callable[[str], None] = print
) -> MouthReadout:
    """Fit a readout to `material` in `steps` batches of 32."""
    crops, openings = data
    torch.manual_seed(seed)
    module = MouthReadout()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    average = {name: t.clone() for name, t in module.state_dict().items()}
    total = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * (1 - 0.97 * step / steps)
        rows = torch.randint(0, len(crops), (32,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            read = module(disturb(crops[rows], generator))
        loss = F.smooth_l1_loss(read.float() * UNIT / 8, openings[rows] * UNIT / 8)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in module.state_dict().items():
            average[name].lerp_(value, 1 - min(0.99, (1 + step) / (10 + step)))
        total += float(loss.detach())
        if step % 200 == 199:
            tell(f"step {step + 1} of {steps}  loss {total / 200:.4f}")
            total = 0.0
    module.load_state_dict(average)
    return module.eval().requires_grad_(False)


def train_and_save(
    path: Path, *, characters: int, steps: int, seed: int = 0, tell: Callable[[str], None] = print
) -> dict:
    """Render, train, measure on held-out characters, write the weights and their card; returns the card."""
    from flowact_ros.data.splits import HELDOUT_CHARACTER_SEEDS

    began = time.monotonic()
    tell(f"drawing {characters * FRAMES_EACH} mouths")
    data = material(seed, characters, TRAIN_CHARACTER_SEEDS)
    tell(f"drawn in {time.monotonic() - began:.0f} s; training")
    module = train(data, steps=steps, seed=seed, tell=tell)
    held = material(seed + 1, 60, HELDOUT_CHARACTER_SEEDS, named=0.0)
    middle = held[0][:, :, 8 : 8 + SIDE, 8 : 8 + SIDE].float() / 127.5 - 1.0
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        clean = module(middle).numpy()
        rough = torch.cat([module(disturb(part, generator)) for part in held[0].split(1)]).numpy()
    card = {
        "command": f"flowact eval readout --characters {characters} --steps {steps} --seed {seed}",
        "steps": steps,
        "training_frames": len(data[0]),
        "heldout_renders": errors(clean, held[1].numpy()),
        "heldout_disturbed": errors(rough, held[1].numpy()),
    }
    save_weights(path, module, kind="readout", config=CONFIG, card=card, dtype=torch.float32)
    return card
