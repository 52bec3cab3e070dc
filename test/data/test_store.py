# SPDX-License-Identifier: Apache-2.0
"""Clips on disk: arrays as they were, JPEG frames close to it and indexed alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowact_ros.data.store import read_clips, write_clip


def frames() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:48]
    ramps = [np.stack([4 * x + k, 4 * y, 100 + 0 * x]).astype(np.uint8) for k in range(6)]
    return np.stack(ramps)


def test_jpeg_frames_read_like_the_array(tmp_path: Path) -> None:
    info = {"frames": 6, "size": 48, "instruction": []}
    for name, jpeg in (("a", False), ("b", True)):
        write_clip(tmp_path / name, {"frames": frames(), "opening": np.arange(6.0)}, info, jpeg=jpeg)
    plain, packed = read_clips(tmp_path)
    assert not (packed.path / "frames.npy").exists()
    assert np.array_equal(packed.array("opening"), np.arange(6.0))
    got, want = packed.array("frames"), plain.array("frames")
    assert len(got) == 6 and got.shape == want.shape
    for index in (3, -1, slice(2, 5), slice(4, 99), (slice(1, 3), slice(None), slice(8, 20), slice(0, 7))):
        assert got[index].shape == want[index].shape
        assert np.abs(got[index].astype(int) - want[index]).mean() < 2.0
    # each frame is its own, not its neighbour
    assert [int(np.abs(got[3].astype(int) - w).mean(axis=(1, 2))[0] * 10) for w in want].index(
        min(int(np.abs(got[3].astype(int) - w).mean(axis=(1, 2))[0] * 10) for w in want)
    ) == 3
