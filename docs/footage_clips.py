# SPDX-License-Identifier: Apache-2.0
"""Clips of a character in a style that no training has seen: material to try `flowact data prepare` and what follows.

    flowact train codec --init avatar_cpu --run runs/motion_encoder --steps 1200 --cooldown 0.5 --lr 1e-3
    python docs/footage_clips.py clips --out runs/printed
    flowact data prepare runs/printed/*.mp4 --out runs/data/printed
    flowact train codec --init runs/motion_encoder --data runs/data/printed --run runs/codec --steps 240 --lr 6e-4
    python docs/footage_clips.py judge --data runs/data/printed --truth runs/printed \
        --codecs avatar_cpu runs/codec --out sheet.png
    flowact train adapt --init avatar_cpu --codec runs/codec --data runs/data/printed --run runs/adapt --minutes 10

The style is a print in two inks, and has no colour that the shipped styles have. The clips are 640 x 480 with sound,
as a camera's would be; nothing of what is known about them goes on to the commands above.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flowact_ros.data.characters import NAMED, Identity, render, sdf
from flowact_ros.data.characters.canvas import Window
from flowact_ros.data.characters.identity import rgb
from flowact_ros.data.characters.person import Person
from flowact_ros.data.characters.styles import STYLES
from flowact_ros.data.characters.styles.outlined import OutlinedBrush
from flowact_ros.data.clips import make_performance
from flowact_ros.media.mp4 import Mp4Writer
from flowact_ros.models.codec.motion import normalise
from flowact_ros.timebase import FRAME_RATE

WIDTH, HEIGHT = 640, 480
PAPER, INK = rgb("#f7d9a8"), rgb("#3a1259")
LUMA = (0.299, 0.587, 0.114)


class PrintBrush(OutlinedBrush):
    """Three flat tones where the shipped styles have two or a gradient, on plain paper with one disc."""

    def background(self, identity: Identity, size: int, device: torch.device) -> torch.Tensor:
        line = torch.arange(size, dtype=torch.float32, device=device)
        disc = sdf.cover(torch.hypot(line[None] - 0.5 * size, line[:, None] - 0.45 * size) - 0.4 * size, 1.5)
        return (0.95 - 0.3 * disc).expand(3, size, size)

    def tint(self, window: Window, alpha: torch.Tensor, dark: tuple, light: tuple, tone: torch.Tensor) -> None:
        lit = 0.5 * sdf.smoothstep(tone, 0.22, 0.25) + 0.5 * sdf.smoothstep(tone, 0.55, 0.58)
        window.paint(alpha, window.mix(dark, light, lit))


def printed(frames: torch.Tensor) -> torch.Tensor:
    """Frames uint8 `[T, 3, H, W]` in two inks: how light a pixel is says how much of each."""
    light = (frames.float() / 255 * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    ink, paper = (torch.tensor(colour)[:, None, None] for colour in (INK, PAPER))
    return ((ink + (paper - ink) * sdf.smoothstep(light, 0.02, 0.9)) * 255).round().byte()


def write_clips(out: Path, count: int, seconds: float) -> int:
    """Clips of one character, and beside each the controls that it was drawn with, to judge by."""
    out.mkdir(parents=True, exist_ok=True)
    STYLES["outlined"] = Person(PrintBrush())  # in this process alone: characters name one of the known styles
    who = replace(NAMED["elias"], style="outlined", name="printed", glasses="none")
    for number in range(count):
        performance = make_performance(9000 + number, "validation", seconds, 0.85).performance
        controls = torch.from_numpy(np.asarray(performance.controls, np.float32))
        with Mp4Writer(out / f"{number}.mp4", WIDTH, HEIGHT, crf=16) as writer:
            side = (WIDTH - HEIGHT) // 2
            for part in controls.split(25):
                for picture in printed(render(who, part, HEIGHT)).permute(0, 2, 3, 1).numpy():
                    writer.write_frame(np.pad(picture, ((0, 0), (side, side), (0, 0)), mode="edge"))
            writer.write_audio(np.asarray(performance.pcm, np.float32))
        np.save(out / f"{number}.npy", controls.numpy())
        print(out / f"{number}.mp4")
    return 0


def judge(data: Path, truth: Path, codecs: list[str], out: Path) -> int:
    """Figures of held-out frames, and a sheet: a row of truth, then one of each codec, beside the same reference."""
    from flowact_ros.data.footage_store import read_footage
    from flowact_ros.models.config import preset
    from flowact_ros.training.stages.adapt_data import reference_of
    from flowact_ros.training.stages.codec import correlations, picture_figures
    from flowact_ros.training.stages.codec_data import held_pairs, picture, trained_on
    from flowact_ros.training.stages.codec_weights import load_codec
    from flowact_ros.training.stages.renderer import save_sheet

    config = preset("avatar_cpu")
    shots = read_footage(data)
    held = held_pairs(shots, config.renderer, references=1, frames=6)
    drawn_with = []
    for shot in shots:
        controls = torch.from_numpy(np.load(truth / f"{Path(shot.source).stem}.npy"))
        drawn_with.append(controls[round(shot.start * FRAME_RATE) :][: len(shot)])
    rows = [[held.reference[0], *held.picture]]
    for source in codecs:
        codec, _ = load_codec(source, config, "--codecs")
        codec.eval()
        with torch.no_grad():
            found, _, seen = codec.see(held.reference)
            who = codec.reference(found, seen)
            drawn = codec.renderer(who.select(held.whose), codec.encode(held.picture, seen)).clamp(-1, 1)
        rows.append([held.reference[0], *drawn])
        figures = picture_figures(drawn, held, config.renderer)
        read, true = [], []
        for shot, controls in zip(shots, drawn_with):
            _, reference = reference_of(codec, shot)
            for k in range(trained_on(shot), len(shot), 2):
                read.append(codec.encode(picture(shot, k)[None], reference)[0].float())
                true.append(normalise(controls[k]))
        figures |= correlations(torch.stack(read), torch.stack(true))
        print(source, "  ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
    save_sheet(rows, out)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    todo = parser.add_subparsers(dest="todo", required=True)
    clips = todo.add_parser("clips")
    clips.add_argument("--out", type=Path, required=True)
    clips.add_argument("--count", type=int, default=2)
    clips.add_argument("--seconds", type=float, default=15.0)
    judged = todo.add_parser("judge")
    judged.add_argument("--data", type=Path, required=True, help="folder of `flowact data prepare`")
    judged.add_argument("--truth", type=Path, required=True, help="folder of `clips`")
    judged.add_argument("--codecs", nargs="+", required=True, metavar="PRESET|FOLDER")
    judged.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.todo == "clips":
        return write_clips(args.out, args.count, args.seconds)
    return judge(args.data, args.truth, args.codecs, args.out)


if __name__ == "__main__":
    sys.exit(main())
