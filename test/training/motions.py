# SPDX-License-Identifier: Apache-2.0
"""Tiny performances for tests: the jaw and the head follow the sound, everything else is noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowact_ros.models.codec.motion import CONTROLS, control_index, denormalise, neutral

FRAMES = 150


def performances(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    loud = rng.standard_normal((count, FRAMES, 1)).astype(np.float32)
    motion = 0.1 * rng.standard_normal((count, FRAMES, CONTROLS)).astype(np.float32)
    for name in ("jaw", "head_yaw"):
        motion[..., control_index(name)] = loud[..., 0]
    raw = denormalise(neutral(1).new_tensor(motion)).numpy()
    np.savez(
        folder / "0000000.npz",
        controls=raw.astype(np.float16),
        sound=np.broadcast_to(loud, (count, FRAMES, 384)).astype(np.float16),
        text=np.tile(np.arange(count)[:, None] % 2, (1, FRAMES)).astype(np.int16),
        texts=np.array(["idle", "speaking"]),
        vectors=rng.standard_normal((2, 384)).astype(np.float16),
    )
    return folder
