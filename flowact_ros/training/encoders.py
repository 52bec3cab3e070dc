# SPDX-License-Identifier: Apache-2.0
"""`flowact train audio-encoder` and `text-encoder`: the small encoders of the package, distilled from large ones."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def add_stages(stages: argparse._SubParsersAction) -> None:
    """The two sub-commands, with what they have in common."""
    audio = stages.add_parser("audio-encoder", help="the embedded audio encoder, distilled from Whisper's")
    audio.add_argument(
        "--teacher", type=Path, metavar="FILE", help="its encoder (default: what `flowact weights get` brought)"
    )
    audio.add_argument(
        "--speech", type=float, default=210.0, metavar="MINUTES", help="of speech, made and kept in files of 10"
    )
    audio.add_argument(
        "--kokoro", type=float, default=0.0, metavar="MINUTES",
        help="of speech by 24 voices of Kokoro besides (a minute takes 15 s; `flowact weights get kokoro` brings them)",
    )  # fmt: skip
    audio.add_argument(
        "--from-shipped", action="store_true", help="begin a new run with the weights in the package, not with none"
    )
    _common(audio, minutes=60.0, steps=20_000, batch=16, lr=1.5e-3)
    text = stages.add_parser("text-encoder", help="the embedded text encoder, distilled from all-MiniLM-L6-v2")
    text.add_argument(
        "--teacher", type=Path, metavar="FOLDER", help="the model (default: what `flowact weights get minilm` brought)"
    )
    text.add_argument("--count", type=int, default=24_000, help="texts to learn from")
    _common(text, minutes=5.0, steps=6000, batch=192, lr=3e-3)


def _common(stage: argparse.ArgumentParser, *, minutes: float, steps: int, batch: int, lr: float) -> None:
    stage.add_argument("--run", type=Path, required=True, help="folder for material, targets, log and state")
    stage.add_argument("--minutes", type=float, default=minutes, help="wall time of this slice")
    stage.add_argument("--steps", type=int, default=steps)
    stage.add_argument("--batch", type=int, default=batch)
    stage.add_argument("--lr", type=float, default=lr)
    stage.add_argument("--seed", type=int, default=0)
    stage.add_argument("--threads", type=int, default=1)
    stage.add_argument("--export", action="store_true", help="write weights and card into the package")


def run(args: argparse.Namespace) -> int:
    """Raises WeightsError for a teacher that is not on this machine, CheckpointError for one that is damaged."""
    from flowact_ros.training.methods import distill_audio, distill_text

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.run.mkdir(parents=True, exist_ok=True)
    (distill_audio if args.stage == "audio-encoder" else distill_text).distil(args)
    return 0


STAGES = ("audio-encoder", "text-encoder")
