# SPDX-License-Identifier: Apache-2.0
"""The shipped weights draw the shipped characters, and move them with sound and text. Content only, no speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import NAMED
from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.interfaces import Frame, ReferenceError_
from flowact_ros.engine.pipeline import AvatarPipeline, build_pipeline
from flowact_ros.engine.session import Session
from flowact_ros.media.wav import read_audio
from flowact_ros.models.codec.appearance import Appearance
from flowact_ros.models.codec.motion import control_index

CHARACTER = "sofia"


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    return build_pipeline("avatar_cpu")


def stream(pipeline: AvatarPipeline, speech: np.ndarray | None, rate: int, seconds: float) -> list[Frame]:
    """Frames of an offline session that speaks `speech`, or is silent."""
    frames = []
    with Session(pipeline, load_character(CHARACTER), seed=0) as session:
        if speech is not None:
            session.push_audio(speech, rate, utterance_id="u", last=True)
        for frame in session.frames(realtime=False):
            frames.append(frame)
            if len(frames) == round(25 * seconds):
                break
    return frames


def control(frames: list[Frame], name: str) -> np.ndarray:
    return np.array([frame.motion[control_index(name)] for frame in frames])


def test_characters_are_shipped_and_can_be_drawn(pipeline: AvatarPipeline) -> None:
    assert set(list_characters()) == set(NAMED) and len(NAMED) >= 16
    for name in list_characters():
        pipeline.load_reference(load_character(name))  # raises where it cannot


def test_it_draws_its_reference_and_speaks(pipeline: AvatarPipeline) -> None:
    pcm, rate = read_audio(Path(__file__).resolve().parents[2] / "config" / "demo.wav")
    talking = stream(pipeline, pcm[: int(rate * 3)], rate, 3.0)
    silent = stream(pipeline, None, rate, 3.0)
    assert talking[0].rgb.shape == (480, 480, 3)
    # the picture is the character's: the background, which nothing moves, is the reference's
    corner = load_character(CHARACTER)[:40, :40].astype(float)
    assert np.abs(silent[-1].rgb[:40, :40] - corner).mean() < 6
    # the mouth opens with the sound and rests without; the face lives all the same
    assert control(talking, "jaw").std() > 3 * control(silent, "jaw").std()
    assert control(talking, "jaw").max() > 0.3
    assert control(silent, "head_yaw").std() > 0.003 and control(silent, "breath").std() > 0.03
    changes = [np.abs(a.rgb.astype(int) - b.rgb).max() for a, b in zip(silent[25:], silent[26:])]
    assert min(changes) > 0


def test_the_same_inputs_give_the_same_frames(pipeline: AvatarPipeline) -> None:
    first, second = (stream(pipeline, None, 24_000, 0.8) for _ in range(2))
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "kind",
    ["noise", "grey", "black", "gradient", "upside down", "a robot upside down", "on its side", "too small a face"],
)
def test_what_is_no_character_is_refused(pipeline: AvatarPipeline, kind: str) -> None:
    y, x = np.mgrid[0:480, 0:480]
    images = {
        "noise": np.random.default_rng(0).integers(0, 256, (480, 480, 3), dtype=np.uint8),
        "grey": np.full((480, 480, 3), 128, np.uint8),
        "gradient": np.stack([x // 2, y // 2, (x + y) // 4], -1).astype(np.uint8),
        "black": np.zeros((480, 480, 3), np.uint8),
        "upside down": load_character("mia")[::-1].copy(),
        "a robot upside down": load_character("coral")[::-1].copy(),
        "on its side": np.rot90(load_character("mia")).copy(),
        "too small a face": np.pad(load_character("mia")[::4, ::4], ((190, 190), (190, 190), (0, 0))),
    }
    with pytest.raises(ReferenceError_, match="use a picture in the style of the shipped characters"):
        pipeline.load_reference(images[kind])


def test_what_does_not_move_is_refused(pipeline: AvatarPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn with an open mouth and closed lids before it is accepted: a renderer that only copies it is found out."""
    whole = pipeline.codec.render

    def copies(who: Appearance, motion: torch.Tensor) -> np.ndarray:
        return whole(who, who.own.expand(len(motion), -1))

    monkeypatch.setattr(pipeline.codec, "render", copies)
    with pytest.raises(ReferenceError_, match="the mouth of this image does not move"):
        pipeline.load_reference(load_character("mia"))
