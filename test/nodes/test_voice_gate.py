# SPDX-License-Identifier: Apache-2.0
"""A live voice as utterances: nothing between them, nothing of them lost, numbered anew each."""

from __future__ import annotations

import numpy as np

from flowact_ros.nodes.audio_capture import PREROLL_S, GatedChunk, VoiceGate

RATE = 16000


def scene() -> np.ndarray:
    """1 s quiet, 1 s buzz, 2 s quiet, 1 s buzz, 2 s quiet."""
    t = np.arange(RATE) / RATE
    buzz = 0.2 * np.sign(np.sin(2 * np.pi * 200 * t + 0.01))
    quiet = np.random.default_rng(0).standard_normal(2 * RATE) * 1e-4
    return np.concatenate([quiet[:RATE], buzz, quiet, buzz, quiet]).astype(np.float32)


def gated(block: int) -> list[GatedChunk]:
    gate, sound = VoiceGate(RATE), scene()
    chunks = [gate.push(sound[i : i + block]) for i in range(0, len(sound), block)]
    return [chunk for chunk in chunks if chunk is not None]


def test_two_utterances_with_their_whole_sound() -> None:
    chunks = gated(640)
    names = sorted({chunk.utterance_id for chunk in chunks})
    assert names == ["live-1", "live-2"]
    for number, name in enumerate(names):
        mine = [chunk for chunk in chunks if chunk.utterance_id == name]
        assert [chunk.sequence for chunk in mine] == list(range(len(mine)))
        assert [chunk.last for chunk in mine] == [False] * (len(mine) - 1) + [True]
        ends = [chunk.first_sample + len(chunk.pcm) for chunk in mine]
        assert [chunk.first_sample for chunk in mine] == [0, *ends[:-1]]
        whole = np.concatenate([chunk.pcm for chunk in mine])
        start = (1 + 3 * number) * RATE
        buzz = scene()[start : start + RATE]
        at = int(np.argmax(np.abs(whole) > 0.1))
        np.testing.assert_array_equal(whole[at : at + RATE], buzz)
        assert at <= PREROLL_S * RATE + 640


def test_the_cut_into_blocks_loses_nothing() -> None:
    for block in (320, 640, 1600):
        voiced = sum(int((np.abs(chunk.pcm) > 0.1).sum()) for chunk in gated(block))
        assert voiced == 2 * RATE
