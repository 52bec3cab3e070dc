# SPDX-License-Identifier: Apache-2.0
"""`flowact train codec`, `adapt` and `export-codec`: your own footage. Options, and what they run.

flowact train codec --init avatar_cpu --run runs/motion_encoder --steps 1200 --cooldown 0.5 --lr 1e-3
flowact data prepare talks/*.mp4 --out runs/data/mine
flowact train codec --init runs/motion_encoder --data runs/data/mine --run runs/codec --steps 240 --lr 6e-4
flowact train adapt --init avatar_cpu --codec runs/codec --data runs/data/mine --run runs/adapt --minutes 10
flowact train export-codec --run runs/codec --out weights/mine
flowact train export-motion --run runs/adapt --out weights/mine
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowact_ros.models.config import ModelConfig
from flowact_ros.training.lineage import FOOTAGE, commit_id
from flowact_ros.training.trainer import Trainer, TrainerConfig

INTERVALS = {"log_every": 10, "sheet_every": 100, "save_every": 50}  # steps: footage is learned in minutes
EMA = 0.99


def add_stages(stages: Any, network: Callable[..., None], training: Callable[..., None]) -> None:
    """Add the sub-commands to `stages`; network, training: add the options that all stages share."""
    codec = stages.add_parser("codec", help="renderer and motion encoder, by themselves on your footage")
    codec.add_argument(
        "--data", type=Path, nargs="+", default=[],
        help="folders made by `flowact data prepare`; without them the motion encoder alone, on drawn characters",
    )  # fmt: skip
    codec.add_argument(
        "--alone", type=int, metavar="N", help="steps after which the renderer learns, too (default: it stays as it is)"
    )
    _init(codec)
    training(codec, lr=4e-4, batch=1, steps=2000, optimizer="muon")

    adapt = stages.add_parser("adapt", help="the denoiser, on the motion of your footage")
    adapt.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders made by `flowact data prepare`"
    )
    adapt.add_argument(
        "--codec", required=True, metavar="PRESET|FOLDER",
        help="what reads the footage's motion: a run of `codec`, an exported folder, or the one in the package",
    )  # fmt: skip
    adapt.add_argument(
        "--replay", type=Path, nargs="+", default=[],
        help="folders made by `flowact data motion`, of which as much is mixed in as there is footage",
    )  # fmt: skip
    _init(adapt)
    training(adapt, lr=2e-4, batch=16, steps=500, optimizer="muon")

    export = stages.add_parser("export-codec", help="the EMA weights of a run of `codec`, and their cards")
    export.add_argument("--run", type=Path, required=True)
    network(export)
    export.add_argument("--out", type=Path, help="folder that receives the weights (default: the package's)")


def _init(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--init", metavar="PRESET|FOLDER",
        help="weights that a new run begins with: those in the package, an exported folder or a run (default: none)",
    )  # fmt: skip


def codec(args: argparse.Namespace, config: ModelConfig, options: dict[str, Any]) -> int:
    """options: of the trainer, from those that all stages share. Raises ValueError, CheckpointError."""
    from flowact_ros.data.footage_store import read_footage
    from flowact_ros.models.codec.motion_encoder import Codec
    from flowact_ros.training.stages.codec import CodecStage
    from flowact_ros.training.stages.codec_weights import STAGE, load_codec

    _begin(args)
    shots = read_footage(*args.data) if args.data else []
    network, earlier = load_codec(args.init, config) if _new(args) else (Codec(config.renderer), [])
    stage = CodecStage(network, shots, references=args.batch, alone=math.inf if args.alone is None else args.alone)
    about = {
        "footage": [folder.name for folder in args.data], "shots": len(shots), "references": args.batch,
        "alone": args.alone, "commit": commit_id(),
    }  # fmt: skip
    run = TrainerConfig(
        **options, **INTERVALS, clip=0.5, ema=EMA, about=about, stage=STAGE, earlier=earlier
    )
    _run(Trainer(stage, run, args.world))
    return 0


def adapt(args: argparse.Namespace, config: ModelConfig, options: dict[str, Any]) -> int:
    """options: of the trainer, from those that all stages share. Raises ValueError, CheckpointError."""
    from flowact_ros.data.footage_store import read_footage
    from flowact_ros.training.stages.adapt import adaptation, load_denoiser

    _begin(args)
    weights, earlier = load_denoiser(args.init, config) if _new(args) else (None, [])  # before minutes of reading
    method = adaptation(config, args.run, args.codec, read_footage(*args.data), args.replay, batch=args.batch)
    if weights is not None:
        method.module.load_state_dict(weights)
    about = {
        "footage": [folder.name for folder in args.data], "replay": [folder.name for folder in args.replay],
        "performances": len(method.data), "batch": args.batch, "commit": commit_id(),
    }  # fmt: skip
    run = TrainerConfig(
        **options, **INTERVALS, betas=(0.9, 0.99), weight_decay=0.02, ema=EMA, about=about, stage=FOOTAGE,
        earlier=earlier,
    )  # fmt: skip
    _run(Trainer(method, run, args.world))
    return 0


def export(args: argparse.Namespace, config: ModelConfig, options: dict[str, Any]) -> int:
    from flowact_ros.training.stages.codec_weights import export_codec

    for path in export_codec(config, args.run, args.out):
        print(path)
    return 0


def _begin(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)


def _new(args: argparse.Namespace) -> bool:
    """Whether a run begins, and with weights that were trained before."""
    return bool(args.init) and not (args.run / "state.pt").exists()


def _run(trainer: Trainer) -> None:
    """Train, with figures before and after."""
    if trainer.fresh:
        trainer.evaluate()
    before = trainer.iteration
    trainer.run()
    if trainer.iteration > before and trainer.iteration % trainer.config.sheet_every:
        trainer.evaluate()


STAGES = {"codec": codec, "adapt": adapt, "export-codec": export}
