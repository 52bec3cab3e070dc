# SPDX-License-Identifier: Apache-2.0
"""Short random movements that cover the control space evenly (a performance is far less varied)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import clamp_controls, control_index, neutral

HANDS = 0.35  #: How often each hand comes in.


def random_movement(rng: np.random.Generator, frames: int) -> Tensor:
    """Controls `[frames, K]` that glide (or, for lids and lips, snap) from one random pose to another."""
    controls = neutral(frames)
    ramp = torch.linspace(0, 1, frames)

    def glide(name: str, low: float, high: float, chance: float = 1.0, travel: float = 0.5) -> None:
        if rng.random() > chance:
            return
        a = rng.uniform(low, high)
        b = a + travel * (rng.uniform(low, high) - a)
        controls[:, control_index(name)] = torch.as_tensor(a + (b - a) * ramp, dtype=torch.float32)

    pose = {
        "head_yaw": 0.3,
        "head_pitch": 0.2,
        "head_roll": 0.18,
        "head_x": 0.03,
        "head_y": 0.03,
        "head_z": 0.9,
    }
    for name, limit in pose.items():
        glide(name, -limit, limit, 0.9, 0.3)
    for name in ("gaze_x", "gaze_y"):
        glide(name, -0.95, 0.95, 0.9)
    lids = rng.random()
    if lids < 0.6:  # both lids together, often in the middle of a blink; now and then one alone
        middle = rng.uniform(-2, frames + 1)
        blink = torch.clamp(1.3 - (torch.arange(frames) - middle).abs() / rng.uniform(1.5, 4.0), 0, 1)
        for name in (
            ("blink_left", "blink_right") if lids < 0.5 else (str(rng.choice(["blink_left", "blink_right"])),)
        ):
            controls[:, control_index(name)] = blink
    elif lids < 0.75:  # heavy lids
        amount = rng.uniform(0.1, 0.9)
        for name in ("blink_left", "blink_right"):
            glide(name, max(0.0, amount - 0.05), min(1.0, amount + 0.05))
    glide("eye_wide", -0.8, 0.9, 0.4)
    glide("squint", 0.0, 1.0, 0.35)
    raised = rng.uniform(-0.8, 1.0)
    for name in ("brow_left", "brow_right"):
        glide(name, max(-1, raised - 0.2), min(1, raised + 0.2), 0.8)
    glide("brow_inner", -0.8, 0.8, 0.5)
    glide("jaw", 0.0, 0.95, 0.75, 0.8)
    glide("jaw_x", -0.9, 0.9, 0.35)
    glide("mouth_width", -0.8, 0.9, 0.7, 0.8)
    glide("mouth_round", 0.0, 1.0, 0.4, 0.8)
    for name in ("lip_upper", "lip_lower", "teeth", "tongue"):
        glide(name, 0.0, 1.0, 0.4, 0.8)
    glide("lip_press", 0.0, 1.0, 0.15, 1.0)
    glide("smile", -0.6, 1.0, 0.7)
    glide("smirk", -0.9, 0.9, 0.4)
    glide("cheek", 0.0, 0.8, 0.3)
    for name in ("shoulder_x", "shoulder_y"):
        glide(name, -0.6, 0.6, 0.6, 0.3)
    glide("breath", 0.0, 1.0, 0.9, 0.2)
    for side, outer, inner in (("left", 0.08, 0.54), ("right", 0.92, 0.46)):
        if rng.random() < HANDS:  # from the waving hand beside the head to the one at the chin
            glide(f"hand_{side}_x", min(outer, inner), max(outer, inner), travel=0.3)
            glide(f"hand_{side}_y", 0.56, 1.12)
            glide(f"hand_{side}_angle", -0.9, 0.9)
            glide(f"hand_{side}_open", 0.0, 1.0)
            glide(f"hand_{side}_point", 0.0, 1.0, 0.4)
            if rng.random() < 0.2:
                controls[:, control_index(f"hand_{side}_point")] = 1.0
    return clamp_controls(controls)
