# SPDX-License-Identifier: Apache-2.0
"""Unshown frames and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.engine.interfaces import StreamState
from flowact_ros.engine.ring import Ring, RingEntry, Snapshot


def entry(latent: int) -> RingEntry:
    frames = np.full((4, 2, 2, 3), latent, np.uint8)
    frames += np.arange(4, dtype=np.uint8)[:, None, None, None] * 10
    motion = np.zeros((4, 1), np.float32)
    before = Snapshot(StreamState(latent, 0, f"m{latent}", None), None, 0, 0)
    return RingEntry(latent, frames, motion, before, "", motion)


@pytest.fixture
def ring() -> Ring:
    ring = Ring()
    for latent in (2, 3, 4, 6):  # 5 was skipped
        ring.push(entry(latent))
    return ring


def test_pictures_by_frame(ring):
    assert ring.picture(7) is None and ring.picture(28) is None
    for frame in (8, 11, 14, 19, 24, 27):
        assert ring.picture(frame)[0, 0, 0] == frame // 4 + 10 * (frame % 4)
    for skipped in range(20, 24):
        assert ring.picture(skipped) is None and ring.entry(skipped) is None


def test_shown_latents_go_only_when_whole(ring):
    ring.drop_before(11)
    assert ring.picture(11) is not None and len(ring) == 4
    ring.drop_before(12)
    assert ring.picture(11) is None and len(ring) == 3


def test_unshown_frames_are_counted_without_gaps(ring):
    assert [ring.unshown(frame) for frame in (0, 8, 9, 19, 20, 24, 27, 28, 40)] == [16, 16, 15, 5, 4, 4, 1, 0, 0]


def test_truncate_gives_the_snapshot_before_the_cut(ring):
    assert ring.truncate(7) is None and len(ring) == 4
    assert ring.truncate(5).state.memory == "m6"
    assert ring.truncate(3).state.memory == "m3"
    assert [e.latent for e in ring] == [2]
    assert ring.truncate(0).state.memory == "m2" and len(ring) == 0
    assert ring.truncate(0) is None


def test_order_is_kept(ring):
    with pytest.raises(ValueError, match="latent 6 pushed after latent 6"):
        ring.push(entry(6))
