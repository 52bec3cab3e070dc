# SPDX-License-Identifier: Apache-2.0
"""Trains the readout of the rig (`rig_readout.py`) on renderer frames.

    flowact eval readout --run runs/readout --minutes 20      # goes on where the run folder stopped
    flowact eval readout --run runs/readout --export          # measures, writes weights and card to the package

Every step paints one new character in a few poses and learns from a batch of all that were painted so far. Poses are
those of performances and, in half of the frames, wide ones that performances seldom reach. Characters come from seeds
that neither training nor evaluation uses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowact_ros.data.characters import (
    Identity,
    feature_boxes,
    identity_from_seed,
    landmarks,
    mouth_opening,
    render,
)
from flowact_ros.data.clips import make_performance
from flowact_ros.evaluation.events import of_motion
from flowact_ros.evaluation.rig_readout import (
    CONFIG,
    FACE,
    LANDMARKS,
    LINES,
    READ,
    SMALL,
    UNITS,
    Readout,
    column,
    default_path,
)
from flowact_ros.models.checkpoint import save_weights
from flowact_ros.models.codec.motion import RIG, clamp, control_index, neutral

#: Seeds of characters that only the readout learns from, and those that it is tested on.
LEARN_SEEDS = range(8_000_000, 9_000_000)
TEST_SEEDS = range(9_000_000, 9_000_096)
BATCH = 32
FRESH = 3  # frames of a new character a step
FIRST = 60  # characters painted before the first step
KEPT = 12_000  # frames in memory
BANK = 32  # performances whose poses are used
RATE = 2e-3


def targets(identity: Identity, controls: Tensor) -> Tensor:
    """What a perfect readout would say of frames painted from raw motion `[T, K]`: float `[T, R]`."""
    return torch.from_numpy(of_motion(controls.numpy(), mouth_opening(identity, controls).numpy()))


def poses(rng: np.random.Generator, bank: Tensor, frames: int) -> Tensor:
    """Raw motion `[frames, K]` of unrelated poses: of performances, or wide."""
    rows = bank[torch.from_numpy(rng.integers(len(bank), size=frames))].clone()
    wide = neutral(frames)
    for i, control in enumerate(RIG):
        amount = rng.uniform(-3, 3, frames) * control.scale * (rng.random(frames) < 0.7)
        wide[:, i] += torch.from_numpy(amount).float()

    def put(name: str, values: np.ndarray) -> None:
        wide[:, control_index(name)] = torch.from_numpy(values).float()

    shut = rng.uniform(0, 1, frames) * (rng.random(frames) < 0.4)
    other = rng.uniform(0, 1, frames) * (rng.random(frames) < 0.4)
    apart = rng.random(frames) < 0.2  # lids mostly move together, but a wink has to be read as one
    put("blink_left", shut)
    put("blink_right", np.where(apart, other, shut))
    raised = rng.uniform(-0.9, 1, frames)
    for name in ("brow_left", "brow_right"):
        put(name, raised + rng.normal(0, 0.25, frames) * (rng.random(frames) < 0.5))
    kind = rng.random(frames)
    put(
        "jaw",
        np.where(
            kind < 0.2, 0, np.where(kind < 0.75, rng.uniform(0, 0.45, frames), rng.uniform(0, 1, frames))
        ),
    )
    put("mouth_round", rng.uniform(0, 1, frames) * (rng.random(frames) < 0.5))
    put("lip_press", rng.uniform(0, 1, frames) * (rng.random(frames) < 0.25))
    for side, middle in (("left", 0.27), ("right", 0.73)):
        up = rng.random(frames) < 0.35
        put(
            f"hand_{side}_x",
            np.where(
                up, middle + rng.uniform(-0.2, 0.2, frames), RIG[control_index(f"hand_{side}_x")].neutral
            ),
        )
        put(f"hand_{side}_y", np.where(up, rng.uniform(0.5, 1.15, frames), 1.2))
        put(f"hand_{side}_angle", rng.uniform(-0.7, 0.7, frames) * up)
        put(f"hand_{side}_open", rng.uniform(0, 1, frames) * up)
        put(f"hand_{side}_point", rng.uniform(0, 1, frames) * (up & (rng.random(frames) < 0.3)))
    return clamp(torch.where(torch.from_numpy(rng.random((frames, 1)) < 0.5), wide, rows))


def performed(split: str, count: int, first: int = 0) -> Tensor:
    """Raw motion of performances, one under the other."""
    return torch.cat(
        [
            torch.from_numpy(make_performance(k, split, 12.0).performance.controls)
            for k in range(first, first + count)
        ]
    )


def _bank(path: Path) -> Tensor:
    """Poses of training performances, kept in a file: speech takes a while to make."""
    if not path.exists():
        torch.save(performed("train", BANK), path)
    return torch.load(path, weights_only=True)


@dataclass
class Painted:
    """Frames uint8 `[N, 3, 192, 192]`, what is to be read of them `[N, R]`, where landmarks lie `[N, 4, 2]`."""

    frames: Tensor
    read: Tensor
    places: Tensor

    def __add__(self, other: Painted) -> Painted:
        return Painted(*(torch.cat(pair)[-KEPT:] for pair in zip(self.parts(), other.parts())))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.frames, self.read, self.places


def paint(identity: Identity, controls: Tensor) -> Painted:
    found = landmarks(identity, controls, LINES)
    face = feature_boxes(identity, controls, LINES)["face"]
    found["head"] = (face[:, :2] + face[:, 2:]) / 2
    places = torch.stack([found[name] for name in LANDMARKS], 1) / LINES - 0.5
    return Painted(render(identity, controls, size=LINES), targets(identity, controls), places)


def material(seed: int, characters: int, seeds: range, bank: Tensor, frames: int = FRESH) -> Painted:
    """Characters number `seed`, `seed + 1`, … in random poses."""
    parts = []
    for number in range(seed, seed + characters):
        rng = np.random.default_rng([number, 0x0E4D])
        identity = identity_from_seed(int(rng.integers(seeds.start, seeds.stop)))
        parts.append(paint(identity, poses(rng, bank, frames)).parts())
    return Painted(*(torch.cat(group) for group in zip(*parts)))


_TWIN = [READ.index(n.replace("left", "@").replace("right", "left").replace("@", "right")) for n in READ]
_SIGN = torch.tensor([-1.0 if n in ("gaze_x", "yaw", "roll") else 1.0 for n in READ])


def flipped(read: Tensor) -> Tensor:
    """What is read of the mirrored picture."""
    out = read[:, _TWIN] * _SIGN
    for name in ("hand_left_x", "hand_right_x"):
        out[:, column(name)] = 1.0 - out[:, column(name)]
    return out


def disturb(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and light as a network's pictures have them; of one kind for the batch `[B, 3, S, S]`."""
    side = x.shape[-1]
    kind = rng.random()
    if kind < 0.2:
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    elif kind < 0.45:
        less = int(rng.uniform(0.5, 0.9) * side)
        x = F.interpolate(
            F.interpolate(x, (less, less), mode="bilinear", antialias=True), (side, side), mode="bilinear"
        )
    tint = torch.from_numpy(rng.uniform(0.92, 1.08, (len(x), 3, 1, 1))).float()
    light = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(x), 3, 1, 1))).float()
    x = x * tint + light
    if rng.random() < 0.5:
        coarse = torch.from_numpy(
            rng.normal(0, rng.uniform(0, 0.06), (len(x), 3, side // 8, side // 8))
        ).float()
        x = x + F.interpolate(coarse, (side, side), mode="bilinear")
    if rng.random() < 0.5:
        x = x + torch.from_numpy(rng.normal(0, rng.uniform(0, 0.04), (3, side, side))).float()
    return x


def loss_of(readout: Readout, part: Painted, rng: np.random.Generator) -> Tensor:
    frames, read, places = part.frames.float() / 127.5 - 1.0, part.read, part.places
    if rng.random() < 0.5:
        frames, read = frames.flip(3), flipped(read)
        places = places[:, [1, 0, 2, 3]] * torch.tensor([-1.0, 1.0])
    frames = disturb(frames, rng)
    found, turn, hands = readout.finder(
        F.interpolate(frames, (SMALL, SMALL), mode="bilinear", antialias=True)
    )
    # The closer looks learn beside what the first network finds, with its usual error.
    jitter = torch.from_numpy(rng.normal(0, 0.006, places.shape)).float()
    face = torch.cat([readout.face(frames, places + jitter), turn], 1)
    loss = F.smooth_l1_loss(face, read[:, : len(FACE)] / torch.tensor(UNITS), beta=0.5)
    loss = loss + 10 * F.smooth_l1_loss(found, places, beta=0.01)
    true = read[:, len(FACE) :].view(-1, 2, 3)
    loss = loss + F.binary_cross_entropy_with_logits(hands[:, :, 0], true[:, :, 0])
    away = (hands[:, :, 1:] + 0.5 - true[:, :, 1:]).abs() * true[:, :, :1]
    return loss + 4 * away.sum() / true[:, :, 0].sum().clamp_min(1.0) / 2


def train(
    run: Path,
    *,
    minutes: float,
    steps: int,
    seed: int = 0,
    rate: float = RATE,
    tell: Callable[[str], None] = print,
) -> None:
    """Go on with the run in folder `run` for `minutes`, at most to step `steps`, where the learning rate ends."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    readout = Readout()
    optimizer = torch.optim.AdamW(readout.parameters(), lr=rate, weight_decay=0.02)
    average = {k: v.clone() for k, v in readout.state_dict().items()}
    step, spent, state = 0, 0.0, run / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        readout.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, spent = saved["average"], saved["step"], saved["spent"]
    began = time.monotonic()

    def save() -> None:
        whole = spent + time.monotonic() - began
        record = {"net": readout.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
        torch.save({**record, "step": step, "spent": whole, "seed": seed}, state.with_suffix(".partial"))
        state.with_suffix(".partial").replace(state)

    bank = _bank(run / "poses.pt")
    first = max(0, step - KEPT // FRESH)
    kept = material(1000 * seed + first, FIRST, LEARN_SEEDS, bank)
    total: list[float] = []
    while step < steps and time.monotonic() - began < 60 * minutes:
        rng = np.random.default_rng([seed, step, 0x5EED])
        kept = kept + material(1000 * seed + FIRST + step, 1, LEARN_SEEDS, bank)
        rows = torch.from_numpy(rng.integers(len(kept.frames), size=BATCH))
        for group in optimizer.param_groups:
            group["lr"] = (
                rate * min(1, (step + 1) / 60) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
            )
        loss = loss_of(readout, Painted(*(x[rows] for x in kept.parts())), rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(readout.parameters(), 1.0)
        optimizer.step()
        step += 1
        for name, value in readout.state_dict().items():
            average[name].lerp_(value, 1 - min(0.995, (1 + step) / (10 + step)))
        total.append(float(loss.detach()))
        if step % 50 == 0:
            tell(f"step {step} of {steps}  loss {np.mean(total[-50:]):.4f}  {time.monotonic() - began:.0f} s")
            save()
    save()


# ---------------------------------------------------------------- its own error


def errors(seen: np.ndarray, true: np.ndarray) -> dict[str, dict[str, float]]:
    """Of every column: correlation, explained share of the variance (R2), mean absolute error. Places of hands only
    where there is one; of `_in` the share of frames in which presence is told right, at the border of one half."""
    out: dict[str, dict[str, float]] = {}
    for i, name in enumerate(READ):
        a, b = seen[:, i].astype(np.float64), true[:, i].astype(np.float64)
        if name.endswith("_in"):
            out[name] = {
                "right": round(float(((a > 0.5) == (b > 0.5)).mean()), 4),
                "share": round(float(b.mean()), 4),
            }
            continue
        if name.startswith("hand"):
            there = true[:, column(name[:-1] + "in")] > 0.5
            a, b = a[there], b[there]
        residual, spread = ((a - b) ** 2).mean(), b.var()
        out[name] = {
            "correlation": round(float(np.corrcoef(a, b)[0, 1]), 4),
            "r2": round(float(1 - residual / spread), 4),
            "mae": round(float(np.abs(a - b).mean()), 5),
        }
    return out


@torch.inference_mode()
def tested(readout: Readout, characters: int = 48) -> dict[str, dict]:
    """Error on characters and performances that the readout has not seen: clean renders, and disturbed ones."""
    bank = performed("validation", 12)
    parts = []
    for k in range(characters):
        rng = np.random.default_rng([k, 0x7E57])
        rows = torch.from_numpy(rng.integers(len(bank), size=8))
        parts.append(paint(identity_from_seed(TEST_SEEDS[k]), bank[rows]))
    wide = [material(k, 1, TEST_SEEDS, bank) for k in range(characters)]
    out = {}
    for label, group in (("performances", parts), ("wide", wide)):
        true = torch.cat([p.read for p in group]).numpy()
        clean = torch.cat([readout(p.frames.float() / 127.5 - 1.0) for p in group]).numpy()
        out[label] = errors(clean, true)
        if label == "performances":
            rng = np.random.default_rng(0)
            rough = torch.cat([readout(disturb(p.frames.float() / 127.5 - 1.0, rng)) for p in group]).numpy()
            out["disturbed"] = errors(rough, true)
    return out


def export(run: Path, path: Path | None = None) -> dict:
    """Measure the run's averaged weights, write them and their card; returns the card."""
    saved = torch.load(run / "state.pt", weights_only=True)
    readout = Readout()
    readout.load_state_dict(saved["average"])
    readout.eval().requires_grad_(False)
    card = {
        "command": "flowact eval readout --run runs/readout; flowact eval readout --run runs/readout --export",
        "steps": saved["step"],
        "seed": saved["seed"],
        "minutes": round(saved["spent"] / 60, 1),
        "learned_from": f"{FIRST * FRESH + saved['step'] * FRESH} frames, characters {LEARN_SEEDS.start} and up",
        "tested_on": f"characters {TEST_SEEDS.start} to {TEST_SEEDS.stop - 1}",
        "errors": tested(readout),
    }
    save_weights(
        path or default_path(), readout, kind="rig_readout", config=CONFIG, card=card, dtype=torch.float16
    )
    return card
