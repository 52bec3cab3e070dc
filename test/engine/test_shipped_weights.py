# SPDX-License-Identifier: Apache-2.0
"""The shipped weights draw the character they are shown, and its mouth follows the sound. Content only, no speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowact_ros.data.characters import NAMED, feature_boxes, neutral
from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.pipeline import AvatarPipeline, build_pipeline
from flowact_ros.engine.session import Session
from flowact_ros.media.wav import read_audio

CHARACTER = "sofia"
SECONDS = 3.0


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    return build_pipeline("avatar_cpu")


def stream(pipeline: AvatarPipeline, speech: np.ndarray | None, rate: int, seconds: float) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] of an offline session that speaks `speech`, or is silent."""
    frames = []
    with Session(pipeline, load_character(CHARACTER), seed=0) as session:
        if speech is not None:
            session.push_audio(speech, rate, utterance_id="u", last=True)
        for frame in session.frames(realtime=False):
            frames.append(frame.rgb)
            if len(frames) == round(25 * seconds):
                break
    return np.stack(frames)


def mouth(frames: np.ndarray) -> np.ndarray:
    """The mouth's surroundings, grey, [T, h, w]."""
    size = frames.shape[1]
    x0, y0, x1, y1 = (int(v) for v in feature_boxes(NAMED[CHARACTER], neutral(1), size)["mouth"][0])
    return frames[:, max(0, y0 - 12) : y1 + 12, max(0, x0 - 12) : x1 + 12].mean(-1)


def movement(grey: np.ndarray) -> float:
    return float(np.abs(np.diff(grey, axis=0)).mean())


def test_characters_are_shipped() -> None:
    assert set(list_characters()) == set(NAMED) and len(NAMED) >= 16


def test_it_draws_its_reference_and_speaks(pipeline: AvatarPipeline) -> None:
    wav = Path(__file__).resolve().parents[2] / "config" / "demo.wav"
    pcm, rate = read_audio(wav)
    talking = stream(pipeline, pcm[: int(rate * SECONDS)], rate, SECONDS)
    silent = stream(pipeline, None, rate, SECONDS)
    assert talking.shape == (75, 480, 480, 3)
    # the picture is the character's, not mush: corners (background and clothes) stay those of the reference
    reference = pipeline.load_reference(load_character(CHARACTER)).rgb[::15, ::15].astype(float)
    drawn = silent[-1][::15, ::15].astype(float)
    rows, columns = (np.linspace(0, len(drawn) - 1, 12).astype(int) for _ in range(2))
    error = np.abs(drawn[rows][:, columns] - reference[rows][:, columns]).mean()
    assert error < 12
    # the mouth moves with the sound and rests without
    assert movement(mouth(talking)) > 2 * movement(mouth(silent))


def test_the_same_inputs_give_the_same_frames(pipeline: AvatarPipeline) -> None:
    first, second = (stream(pipeline, None, 24_000, 0.8) for _ in range(2))
    assert np.array_equal(first, second)
