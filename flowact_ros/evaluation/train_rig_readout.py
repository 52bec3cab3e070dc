# SPDX-License-Identifier: Apache-2.0
"""Trains the readout of the rig (`rig_readout.py`) on renderer frames.

    flowact eval readout --run runs/readout --minutes 20      # goes on where the run folder stopped
    flowact eval readout --run runs/places --places           # teaches the shipped weights to find places better
    flowact eval readout --run runs/readout --export          # measures, writes weights and card to the package

Every step paints one new character, at rest and in a few poses, and learns from a batch of all that were painted so
far. Poses are those of performances and, in half of the frames, wide ones that performances seldom reach. Characters
come from seeds that neither training nor evaluation uses.
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
    FACE,
    LANDMARKS,
    LINES,
    READ,
    UNITS,
    Readout,
    column,
    load_readout,
)
from flowact_ros.models.codec.motion import RIG, clamp, control_index, neutral
from flowact_ros.training.muon import Muon

#: Seeds of characters that only the readout learns from, and those that it is tested on.
LEARN_SEEDS = range(8_000_000, 9_000_000)
TEST_SEEDS = range(9_000_000, 9_000_096)
BATCH = 32
FRESH = 3  # frames of a new character a step
FIRST = 60  # characters painted before the first step
KEPT = 4_000  # characters in memory
BANK = 32  # performances whose poses are used
RATE = 2e-3
#: Errors of places, of the canvas, beside which parts learn: the finder's, and a smaller one. Two corrections leave
#: 0.002 to 0.003. With eyes found 5 % too near to each other a mouth is read as wider, by its usual amount.
FOUND, LEFT = 0.014, 0.006
PLACES_EVERY = 2  # steps a new character where places alone are taught
CORRECTION = ("eye_offset", "mouth_offset")  # parts of a Readout that correct places


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
    """Characters, each in some poses and at rest, which is its last picture: frames uint8 `[C, F + 1, 3, 192, 192]`,
    what is to be read of the poses `[C, F, R]`, where landmarks lie `[C, F + 1, 4, 2]`."""

    frames: Tensor
    read: Tensor
    places: Tensor

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.frames, self.read, self.places


class Kept:
    """The last KEPT characters, overwritten in turn."""

    def __init__(self, first: Painted) -> None:
        self.painted = Painted(*(x.new_empty(KEPT, *x.shape[1:]) for x in first.parts()))
        self.count = 0
        self.add(first)

    def add(self, new: Painted) -> None:
        at = (torch.arange(len(new.frames)) + self.count) % KEPT
        for kept, fresh in zip(self.painted.parts(), new.parts()):
            kept[at] = fresh
        self.count += len(at)

    def batch(self, rng: np.random.Generator) -> Rows:
        """BATCH poses of characters at random."""
        who = torch.from_numpy(rng.integers(min(self.count, KEPT), size=BATCH))
        pose = torch.from_numpy(rng.integers(self.painted.read.shape[1], size=BATCH))
        p = self.painted
        return Rows(
            p.frames[who, pose], p.frames[who, -1], p.read[who, pose],
            torch.stack([p.places[who, pose], p.places[who, -1]]),
        )  # fmt: skip


@dataclass
class Rows:
    """A batch: frames and references uint8 `[B, 3, S, S]`, readings `[B, R]`, places of both `[2, B, 4, 2]`."""

    frames: Tensor
    references: Tensor
    read: Tensor
    places: Tensor


def paint(identity: Identity, controls: Tensor) -> Painted:
    every = torch.cat([controls, neutral(1)])
    found = landmarks(identity, every, LINES)
    face = feature_boxes(identity, every, LINES)["face"]
    found["head"] = (face[:, :2] + face[:, 2:]) / 2
    places = torch.stack([found[name] for name in LANDMARKS], 1) / LINES - 0.5
    return Painted(
        render(identity, every, size=LINES)[None], targets(identity, controls)[None], places[None].float()
    )


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


def mirrored(places: Tensor) -> Tensor:
    """Landmarks `[..., 4, 2]` of the mirrored picture."""
    return places[..., [1, 0, 2, 3], :] * torch.tensor([-1.0, 1.0])


def disturb(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and light as a network's pictures have them; of one kind for the batch `[B, 3, H, W]`."""
    high, wide = x.shape[-2:]
    kind = rng.random()
    if kind < 0.2:
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    elif kind < 0.45:
        share = rng.uniform(0.5, 0.9)
        less = int(share * high), int(share * wide)
        x = F.interpolate(F.interpolate(x, less, mode="bilinear", antialias=True), (high, wide), mode="bilinear")
    tint = torch.from_numpy(rng.uniform(0.92, 1.08, (len(x), 3, 1, 1))).float()
    light = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(x), 3, 1, 1))).float()
    x = x * tint + light
    if rng.random() < 0.5:
        coarse = torch.from_numpy(
            rng.normal(0, rng.uniform(0, 0.06), (len(x), 3, high // 8, wide // 8))
        ).float()
        x = x + F.interpolate(coarse, (high, wide), mode="bilinear")
    if rng.random() < 0.5:
        x = x + torch.from_numpy(rng.normal(0, rng.uniform(0, 0.04), (3, high, wide))).float()
    return x


def loss_of(readout: Readout, rows: Rows, rng: np.random.Generator) -> Tensor:
    frames, references = rows.frames.float() / 127.5 - 1.0, rows.references.float() / 127.5 - 1.0
    read, places = rows.read, rows.places
    if rng.random() < 0.5:
        frames, references, read, places = frames.flip(3), references.flip(3), flipped(read), mirrored(places)
    frames = disturb(frames, rng)
    if rng.random() < 0.5:  # a reference is seldom as spoiled as what is drawn of it
        references = disturb(references, rng)
    found, neutral = readout.find(frames), readout.find(references)
    # The closer looks learn beside the corrected places, with their usual error.
    near = places + LEFT * _noise(rng, places.shape)
    face = torch.cat(
        [readout.face(frames, near[0], references, near[1]), readout.finder.turn(found, neutral)], 1
    )
    loss = F.smooth_l1_loss(face, read[:, : len(FACE)] / torch.tensor(UNITS), beta=0.5)
    loss = loss + 5 * F.smooth_l1_loss(torch.stack([found.places, neutral.places]), places, beta=0.01)
    loss = loss + offset_loss(readout, torch.cat([frames, references]), places.flatten(0, 1), rng)
    true = read[:, len(FACE) :].view(-1, 2, 3)
    loss = loss + F.binary_cross_entropy_with_logits(found.hands[:, :, 0], true[:, :, 0])
    away = (found.hands[:, :, 1:] + 0.5 - true[:, :, 1:]).abs() * true[:, :, :1]
    return loss + 4 * away.sum() / true[:, :, 0].sum().clamp_min(1.0) / 2


def places_loss_of(readout: Readout, rows: Rows, rng: np.random.Generator) -> Tensor:
    """Of the correction of places alone."""
    frames, places = rows.frames.float() / 127.5 - 1.0, rows.places[0]
    if rng.random() < 0.5:
        frames, places = frames.flip(3), mirrored(places)
    return offset_loss(readout, frames, places, rng, lambda cut: disturb(cut, rng))


def offset_loss(
    readout: Readout,
    frames: Tensor,
    places: Tensor,
    rng: np.random.Generator,
    spoil: Callable[[Tensor], Tensor] = lambda cut: cut,
) -> Tensor:
    """From where the finder or a first correction may have put the landmarks."""
    far = torch.from_numpy(rng.choice([FOUND, LEFT], (len(places), 1, 1))).float()
    near = places + far * _noise(rng, places.shape)
    return 20 * F.smooth_l1_loss(readout.offsets(frames, near, spoil)[:, :3], (places - near)[:, :3], beta=0.003)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).float()


def train(
    run: Path,
    *,
    minutes: float,
    steps: int,
    seed: int = 0,
    rate: float = RATE,
    places: bool = False,
    tell: Callable[[str], None] = print,
) -> None:
    """Go on with the run in folder `run` for `minutes`, at most to step `steps`, where the learning rate ends.

    places: begin with the shipped weights, and teach the correction of places alone. Raises ValueError for a run that
    teaches other parts.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    readout = load_readout()[0].train().requires_grad_(True) if places else Readout()
    taught = [p for name, p in readout.named_parameters() if not places or name.split(".")[0] in CORRECTION]
    loss_fn, every = (places_loss_of, PLACES_EVERY) if places else (loss_of, 1)
    optimizer = Muon(taught, lr=rate, weight_decay=0.02)
    average = {k: v.clone() for k, v in readout.state_dict().items()}
    step, spent, state = 0, 0.0, run / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        if saved.get("places", False) != places:
            raise ValueError(f"{run} was begun {'without' if places else 'with'} --places; name another --run")
        readout.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, spent = saved["average"], saved["step"], saved["spent"]
    began = time.monotonic()

    def save() -> None:
        whole = spent + time.monotonic() - began
        record = {"net": readout.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
        record |= {"step": step, "spent": whole, "seed": seed, "places": places}
        torch.save(record, state.with_suffix(".partial"))
        state.with_suffix(".partial").replace(state)

    bank = _bank(run / "poses.pt")
    kept = Kept(material(1000 * seed + max(0, step - KEPT), FIRST, LEARN_SEEDS, bank))
    total: list[float] = []
    while step < steps and time.monotonic() - began < 60 * minutes:
        rng = np.random.default_rng([seed, step, 0x5EED])
        if step % every == 0:
            kept.add(material(1000 * seed + FIRST + step, 1, LEARN_SEEDS, bank))
        for group in optimizer.param_groups:
            group["lr"] = (
                rate * min(1, (step + 1) / 60) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
            )
        loss = loss_fn(readout, kept.batch(rng), rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(taught, 1.0)
        optimizer.step()
        step += 1
        for name, value in readout.state_dict().items():
            average[name].lerp_(value, 1 - min(0.995, (1 + step) / (10 + step)))
        total.append(float(loss.detach()))
        if step % 50 == 0:
            tell(f"step {step} of {steps}  loss {np.mean(total[-50:]):.4f}  {time.monotonic() - began:.0f} s")
            save()
    save()
