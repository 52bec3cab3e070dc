# SPDX-License-Identifier: Apache-2.0
"""Draws `contact_sheet.png`: frames of the stream as it is shipped, not chosen by hand.

    .venv/bin/python docs/contact_sheet.py        # about two minutes on two cores

A row is a character: six frames while it says the shipped sentence, at equal distances, then one while it listens and
one while it thinks, in the planner's first wording of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowact_ros.dialogue.phrases import WORDINGS
from flowact_ros.engine.characters import load_character
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.session import Session
from flowact_ros.evaluation.sheets import small
from flowact_ros.media.wav import read_audio
from flowact_ros.timebase import FRAME_RATE

ROOT = Path(__file__).parents[1]
CHARACTERS = ("sofia", "walter", "leo", "nova", "amara")
SPOKEN, AFTER_S = 6, 3.0  # frames of the sentence; seconds of each behaviour after it


def row(pipeline, name: str, pcm: np.ndarray, rate: int) -> torch.Tensor:
    """uint8 [8, 3, side, side]."""
    end, after = int(len(pcm) / rate * FRAME_RATE), int(AFTER_S * FRAME_RATE)
    wanted = [int((i + 0.5) * end / SPOKEN) for i in range(SPOKEN)] + [end + after, end + 2 * after]
    pictures = []
    with Session(pipeline, load_character(name), seed=0) as session:
        session.push_audio(pcm, rate, utterance_id="demo", last=True)
        session.set_instruction(WORDINGS["speaking"][0], behaviour="speaking")
        for frame in session.frames(realtime=False):
            if frame.index == end:
                session.set_instruction(WORDINGS["listening"][0], behaviour="listening")
            if frame.index == end + after + 1:
                session.set_instruction(WORDINGS["thinking"][0], behaviour="thinking")
            if frame.index in wanted:
                pictures.append(torch.from_numpy(frame.rgb).permute(2, 0, 1))
            if frame.index >= wanted[-1]:
                break
    return small(torch.stack(pictures))


def main() -> None:
    torch.set_num_threads(1)
    pipeline = build_pipeline("avatar_cpu")
    pcm, rate = read_audio(ROOT / "config" / "demo.wav")
    rows = [torch.cat(list(row(pipeline, name, pcm, rate)), dim=2) for name in CHARACTERS]
    page = torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy()
    palette = Image.fromarray(page).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(ROOT / "docs" / "contact_sheet.png", optimize=True)


if __name__ == "__main__":
    main()
