# SPDX-License-Identifier: Apache-2.0
"""The evaluation makes its steps as the live stream does: the right sound, the text in force, whole latents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import NAMED, neutral_picture
from flowact_ros.engine.interfaces import Reference, StreamState
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.evaluation.generate import draw, generate, text_at
from flowact_ros.models.codec.motion import CONTROLS, clamp, neutral

BEFORE, AFTER = 4800, 1920


@dataclass
class Echo:
    """A pipeline whose motion says which latent it is, and which notes what it was asked for."""

    context_samples: int = BEFORE
    lookahead_samples: int = AFTER
    height: int = 8
    width: int = 8
    heard: list[np.ndarray] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    drawn: int = 0

    def load_reference(self, rgb):
        return Reference(rgb)

    def start(self, reference, seed):
        return StreamState(0, seed, (), reference)

    def denoise(self, state, pcm, n_latents, text, stop=None):
        self.heard.append(pcm)
        self.texts.append(text)
        return [np.full((4, CONTROLS), state.latent_index + i, np.float32) for i in range(n_latents)]

    def advance(self, state, latents):
        return replace(state, latent_index=state.latent_index + len(latents))

    def render(self, reference, latents):
        self.drawn += len(latents)
        return np.concatenate([np.full((4, 8, 8, 3), x[0, 0], np.uint8) for x in latents])

    def motion(self, latents):
        return np.concatenate(latents)


PICTURE = np.zeros((8, 8, 3), np.uint8)


def test_every_step_hears_its_own_sound_with_context_and_look_ahead():
    pipeline = Echo()
    pcm = np.arange(7 * 3840 + 500, dtype=np.float32)  # what is no whole latent is left out
    frames, motion = generate(pipeline, PICTURE, pcm, [(0, "a")], seed=3)
    assert motion.shape == (28, CONTROLS) and motion[:, 0].tolist() == [k // 4 for k in range(28)]
    assert [len(h) for h in pipeline.heard] == [BEFORE + n * 3840 + AFTER for n in (3, 3, 1)]
    np.testing.assert_array_equal(pipeline.heard[0][:BEFORE], 0)
    np.testing.assert_array_equal(pipeline.heard[0][BEFORE:], pcm[: 3 * 3840 + AFTER])
    np.testing.assert_array_equal(pipeline.heard[1], pcm[3 * 3840 - BEFORE : 6 * 3840 + AFTER])
    assert pipeline.heard[2][-1] == 0  # behind the end is silence
    assert pipeline.drawn == 0  # nothing is drawn that nobody looks at
    assert [int(f[0, 0, 0]) for f in frames] == [k // 4 for k in range(28)]


def test_a_text_is_in_force_from_the_step_that_begins_nearest_to_it():
    told = [(0, "a"), (17, "b"), (31, "c")]
    assert [text_at(told, frame) for frame in (0, 12, 24, 36)] == ["a", "b", "b", "c"]
    pipeline = Echo()
    generate(pipeline, PICTURE, np.zeros(12 * 3840, np.float32), told, seed=0)
    assert pipeline.texts == ["a", "b", "b", "c"]


def test_true_motion_is_drawn_within_its_limits():
    pipeline = build_pipeline("debug")
    picture = neutral_picture(NAMED["mia"], pipeline.height)
    motion = neutral(8).numpy()
    motion[4:] = 5.0
    frames = draw(pipeline, picture, motion)
    assert frames.shape == (8, pipeline.height, pipeline.width, 3)
    np.testing.assert_array_equal(frames[:4], draw(pipeline, picture, motion[:4]))
    np.testing.assert_array_equal(frames, draw(pipeline, picture, clamp(torch.from_numpy(motion)).numpy()))


def test_too_little_sound_is_refused():
    with pytest.raises(ValueError, match="500 samples of sound; at least 3840"):
        generate(Echo(), PICTURE, np.zeros(500, np.float32), [(0, "a")], seed=0)
