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
from flowact_ros.evaluation.generate import generate
from flowact_ros.evaluation.sheets import small
from flowact_ros.media.resample import resample
from flowact_ros.media.wav import read_audio
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

ROOT = Path(__file__).parents[1]
CHARACTERS = ("sofia", "walter", "leo", "nova", "amara")
SPOKEN, AFTER_S = 6, 3.0  # frames of the sentence; seconds of each behaviour after it


def row(pipeline, name: str, pcm: np.ndarray) -> torch.Tensor:
    """uint8 [8, 3, side, side]."""
    end, after = int(len(pcm) / SAMPLE_RATE * FRAME_RATE), int(AFTER_S * FRAME_RATE)
    wanted = [int((i + 0.5) * end / SPOKEN) for i in range(SPOKEN)] + [end + after, end + 2 * after]
    quiet = np.zeros(int((2 * AFTER_S + 1) * SAMPLE_RATE), np.float32)
    told = [(0, "speaking"), (end, "listening"), (end + after + 1, "thinking")]
    instructions = [(at, WORDINGS[kind][0]) for at, kind in told]
    frames, _ = generate(pipeline, load_character(name), np.concatenate([pcm, quiet]), instructions, seed=0)
    pictures = [torch.from_numpy(np.array(f)).permute(2, 0, 1) for k, f in enumerate(frames) if k in wanted]
    return small(torch.stack(pictures))


def main() -> None:
    torch.set_num_threads(1)
    pipeline = build_pipeline("avatar_cpu")
    pcm, rate = read_audio(ROOT / "config" / "demo.wav")
    pcm = resample(pcm, rate, SAMPLE_RATE)
    rows = [torch.cat(list(row(pipeline, name, pcm)), dim=2) for name in CHARACTERS]
    page = torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy()
    palette = Image.fromarray(page).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(ROOT / "docs" / "contact_sheet.png", optimize=True)


if __name__ == "__main__":
    main()
