# SPDX-License-Identifier: Apache-2.0
"""The README's animation: a character greets, speaks the demo's sentence, listens, thinks.

    .venv/bin/python docs/animation.py docs/animation.webp --character sofia
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from flowact_ros.engine.characters import load_character
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.evaluation.generate import generate
from flowact_ros.media.resample import resample
from flowact_ros.media.wav import read_audio
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

SIZE, EVERY = 320, 2  # pixels; one picture in so many
SILENT = (("listening with interest, leaning forward a little", 3.0), ("thinking, looking up", 3.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--character", default="sofia")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    pcm, rate = read_audio("config/demo.wav")
    speech = resample(pcm, rate, SAMPLE_RATE)
    told, parts = [(0, "greeting warmly, one hand waving"), (round(1.6 * FRAME_RATE), "speaking")], [speech]
    for text, seconds in SILENT:
        told.append((sum(len(p) for p in parts) * FRAME_RATE // SAMPLE_RATE, text))
        parts.append(np.zeros(round(seconds * SAMPLE_RATE), np.float32))
    frames, _ = generate(build_pipeline(), load_character(args.character), np.concatenate(parts), told, args.seed)
    shown = [Image.fromarray(frame) for i, frame in enumerate(frames) if i % EVERY == 0]
    pictures = [picture.resize((SIZE, SIZE), Image.Resampling.BOX) for picture in shown]
    pictures[0].save(
        args.out, save_all=True, append_images=pictures[1:], duration=1000 * EVERY // FRAME_RATE, loop=0, quality=70
    )


if __name__ == "__main__":
    main()
