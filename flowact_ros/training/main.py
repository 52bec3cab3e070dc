# SPDX-License-Identifier: Apache-2.0
"""`flowact train`: run one stage, or one slice of it. A stage goes on where its run folder stopped.

flowact train motion --data runs/data/motion --heldout runs/data/motion_heldout --run runs/motion --minutes 60
flowact train distill --phase steps --teacher runs/motion --data … --heldout … --run runs/steps
flowact train export-motion --run runs/motion
flowact train codec --init runs/motion_encoder --data runs/data/mine --run runs/codec --steps 240
flowact train adapt --init avatar_cpu --codec runs/codec --data runs/data/mine --run runs/adapt --minutes 10
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flowact_ros.data.characters import STYLES
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.config import UNDISTILLED, ModelConfig, preset, video_of
from flowact_ros.models.precision import best_dtype, check_device
from flowact_ros.models.settings import settings_of
from flowact_ros.training import encoders, footage
from flowact_ros.training.config_file import with_file
from flowact_ros.training.distill_options import RANGES as DISTILL_RANGES
from flowact_ros.training.distill_options import RATES, add_options
from flowact_ros.training.lineage import FIRST, commit_id, sampled
from flowact_ros.training.trainer import OPTIMIZERS, Trainer, TrainerConfig
from flowact_ros.training.world import World, leave, whole

RANGES = {  # option -> what it must lie in
    "minutes": (0.0, math.inf),
    "steps": (1, 10_000_000),
    "lr": (1e-9, 1.0),
    "warmup": (0, 10_000_000),
    "cooldown": (0.0, 1.0),
    "batch": (1, 4096),
    "accumulate": (1, 4096),
    "clips": (1, 4096),
    "alone": (0, 10_000_000),
    "threads": (1, 64),
    "seed": (0, 2**31 - 1),
    "self_forcing": (0.0, 1.0),
    "self_forcing_noise": (0.05, 1.0),
    "self_forcing_steps": (1, 50),
    "self_forcing_refresh": (1, 1_000_000),
    "self_forcing_clips": (1, 100_000),
    **DISTILL_RANGES,
}
LONGEST_LINE = 300  # characters of an error


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="flowact train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = top.add_subparsers(dest="stage", required=True)

    motion = stages.add_parser("motion", help="the denoiser, on motion, or on latents of pictures")
    _material(motion)
    for name, kind, default, what in (
        ("", float, 0.0, "share of the rows whose memory the model made itself (self-forcing variant)"),
        ("-noise", float, 0.3, "level to which true motion is noised for that"),
        ("-steps", int, 2, "evaluations that denoise it again"),
        ("-refresh", int, 200, "training steps until it is made anew"),
        ("-clips", int, 64, "clips that it is made of each time"),
    ):
        motion.add_argument(
            f"--self-forcing{name}", type=kind, default=default, help=f"{what} (default: {default})"
        )
    _training(motion, lr=1e-3, batch=32, steps=20_000, optimizer="muon")
    _checkpointing(motion)
    _from_shipped(motion)

    distill = stages.add_parser("distill", help="the denoiser, taught to need few evaluations by itself")
    _material(distill)
    add_options(distill)
    _training(distill, lr=None, batch=16, steps=3000, optimizer="adamw")
    _checkpointing(distill)

    renderer = stages.add_parser(
        "renderer", help="the codec, on characters that are drawn as they are needed"
    )
    renderer.add_argument(
        "--parts", nargs="+", choices=("faces", "hands", "whole"), default=["faces", "hands", "whole"],
        help="kinds of steps that are taken in turn",
    )  # fmt: skip
    renderer.add_argument(
        "--painters", type=Path, metavar="RUN", help="take mouth and eyes of this run, which trains faces"
    )
    renderer.add_argument(
        "--without", choices=STYLES, metavar="STYLE",
        help=f"draw no character of this style ({', '.join(STYLES)}), for `flowact eval styles`",
    )  # fmt: skip
    _training(renderer, lr=1.2e-3, batch=2, steps=30_000, optimizer="muon")
    _from_shipped(renderer)

    footage.add_stages(stages, _network, _training)
    encoders.add_stages(stages)

    vae = stages.add_parser("vae", help="the spatial presets' codec, on characters that are drawn as they are needed")
    _training(vae, lr=1.5e-3, batch=4, steps=12_000, optimizer="muon")
    vae.set_defaults(preset="avatar_spatial_debug")

    for name, what in (("export-motion", "denoiser"), ("export-renderer", "codec"), ("export-vae", "spatial codec")):
        export = stages.add_parser(
            name, help=f"the EMA weights of a run of the {what}, and their card, into the package"
        )
        export.add_argument("--run", type=Path, required=True)
        _network(export)
        export.add_argument(
            "--out", type=Path, help="folder that receives the weights (default: the package's)"
        )
        if name == "export-vae":
            export.set_defaults(preset="avatar_spatial_debug")
        if name == "export-renderer":
            export.add_argument(
                "--painters", type=Path, metavar="RUN", help="the run that trained mouth and eyes, if it was another"
            )
    return top


def _material(stage: argparse.ArgumentParser) -> None:
    """Options of the denoiser's stages."""
    stage.add_argument(
        "--data", type=Path, nargs="+", required=True,
        help="folders made by `flowact data motion`, for a spatial preset by `flowact data latents`",
    )  # fmt: skip
    stage.add_argument("--heldout", type=Path, required=True, help="the same of the heldout split")
    stage.add_argument(
        "--evaluate", type=int, nargs="+", metavar="N", help="only print the table of free-running streams"
    )
    stage.add_argument("--clips", type=int, default=64, help="held-out clips of that table")


def _network(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--preset", default="avatar_cpu")
    stage.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change the preset, e.g. dit.width=512"
    )


def _from_shipped(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--from-shipped", action="store_true", help="begin a new run with the weights in the package, not with none"
    )


def _checkpointing(stage: argparse.ArgumentParser) -> None:
    """Of stages whose network is a stack of blocks."""
    stage.add_argument(
        "--checkpoint-activations", action="store_true",
        help="compute what is inside a block again on the way back: a third more arithmetic, a fraction of the memory",
    )  # fmt: skip


def _training(
    stage: argparse.ArgumentParser, *, lr: float | None, batch: int, steps: int, optimizer: str
) -> None:
    """Options of every stage that is trained."""
    stage.add_argument("--run", type=Path, required=True, help="folder of checkpoints, logs and sheets")
    _network(stage)
    stage.add_argument("--config", type=Path, metavar="YAML", help="file of options; those given here win")
    stage.add_argument("--minutes", type=float, default=math.inf, help="stop after this slice")
    stage.add_argument("--steps", type=int, default=steps, help="length of the learning-rate schedule")
    stage.add_argument(
        "--cooldown", type=float, default=0.3, help="share of the steps over which the rate falls"
    )
    stage.add_argument("--lr", type=float, default=lr)
    stage.add_argument("--warmup", type=int, default=200, help="steps until the learning rate is reached")
    stage.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default=optimizer)
    stage.add_argument("--batch", type=int, default=batch)
    stage.add_argument("--accumulate", type=int, default=1, help="batches a step, in each process (default: 1)")
    stage.add_argument("--device", default="cpu", help="cpu or cuda")
    stage.add_argument("--threads", type=int, default=1)
    stage.add_argument("--seed", type=int, default=0)
    stage.add_argument(
        "--no-bf16", action="store_true", help="float32 also where the processor multiplies bfloat16"
    )


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 what cannot be done, with one line that says why, 2 bad command line."""
    try:
        args = parser().parse_args(with_file(sys.argv[1:] if argv is None else argv))
    except (ValueError, OSError) as error:  # of the file of options
        print(f"flowact train: {error}", file=sys.stderr)
        return 2
    for name, (least, most) in RANGES.items():
        value = getattr(args, name, None)
        if value is not None and not least <= value <= most:
            option = name.replace("_", "-")
            print(f"flowact train: --{option} is {value}; it must lie in {least} .. {most}", file=sys.stderr)
            return 2
    try:
        if "device" in args:
            check_device(args.device)
            args.world = World.join(args.device)
        return STAGES[args.stage](args)
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # sizes, weights or material that do not fit or are missing
        line = " ".join(str(error).split())  # torch tells of weights that do not fit in a line a tensor
        print(
            f"flowact train: {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + ' …'}",
            file=sys.stderr,
        )
        return 1
    finally:
        leave()


def model(args: argparse.Namespace, schedule: dict[str, Any] | None = None) -> ModelConfig:
    """The preset with its changes. schedule: a stage's, where --set says no other. Raises ConfigError, ValueError."""
    if args.set and getattr(args, "out", args.run) is None:
        raise ValueError("--set changes the network, so its weights are not the package's; --out says where to")
    asked = settings_of(args.set)
    return preset(args.preset, {**asked, "schedule": {**(schedule or {}), **asked.get("schedule", {})}})


def _trainer_options(args: argparse.Namespace) -> dict[str, Any]:
    """What all stages tell the trainer alike."""
    bf16 = not args.no_bf16 and best_dtype(args.device) == torch.bfloat16
    names = ("run", "steps", "cooldown", "warmup", "optimizer", "minutes", "seed", "accumulate")
    rest = {"learning_rate": args.lr, "bf16": bf16, "device": args.world.device}
    rest["checkpoint_activations"] = getattr(args, "checkpoint_activations", False)
    return {**{name: getattr(args, name) for name in names}, **rest}


def _take_shipped(
    trainer: Trainer, args: argparse.Namespace, name: str, load: Callable[[Path, Any], dict[str, Any]]
) -> None:
    """load: gives the network the weights of a file and returns their card. Raises CheckpointError as it does."""
    if args.from_shipped and trainer.fresh:
        module = trainer.method.module
        card = load(weights_dir() / args.preset / f"{name}.safetensors", module)
        trainer.take_over(module.state_dict(), card)


def _motion(args: argparse.Namespace) -> int:
    from flowact_ros.training.free_running import evaluate, frozen
    from flowact_ros.training.sequences import description
    from flowact_ros.training.stages.adaptation import Adaptation
    from flowact_ros.training.stages.self_forcing import SelfForcing

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    self_forcing = SelfForcing(
        share=args.self_forcing,
        noise=args.self_forcing_noise,
        steps=args.self_forcing_steps,
        refresh=args.self_forcing_refresh,
        clips=args.self_forcing_clips,
    )
    method = Adaptation(
        model(args, UNDISTILLED), args.data, args.heldout, batch=args.batch, self_forcing=self_forcing
    )
    about = {
        "data": description(method.config, args.data), **method.data.facts, "batch": args.batch, "commit": commit_id()
    }  # fmt: skip
    if self_forcing.share:
        about["self_forcing"] = asdict(self_forcing)
    config = TrainerConfig(
        **_trainer_options(args), betas=(0.9, 0.99), weight_decay=0.02, ema=0.998, log_every=10, save_every=50,
        about=about, stage=FIRST,
    )  # fmt: skip
    trainer = Trainer(method, config, args.world)
    load = partial(load_weights, kind="denoiser", config=method.config.denoiser_contract())
    _take_shipped(trainer, args, "denoiser", load)
    if args.evaluate:  # at these numbers of evaluations a chunk
        module = frozen(method.config, whole(trainer.ema))
        print(evaluate(module, method.heldout, args.clips, args.evaluate))
    else:
        trainer.run()
    return 0


def _distill(args: argparse.Namespace) -> int:
    from flowact_ros.training.distill import distill

    if args.lr is None:
        args.lr = RATES[args.phase]
    schedule = sampled(args.phase, {"evaluations": args.evaluations})
    return distill(args, model(args, schedule), _trainer_options(args))


def _export_motion(args: argparse.Namespace) -> int:
    from flowact_ros.training.export import export_denoiser

    print(export_denoiser(model(args), args.run, args.out))
    return 0


def _renderer(args: argparse.Namespace) -> int:
    from flowact_ros.models.codec.renderer import Renderer
    from flowact_ros.training.stages.renderer import RendererStage
    from flowact_ros.training.wider import load_wider

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net = Renderer(model(args).renderer)
    stage = RendererStage(net, references=args.batch, parts=args.parts, painters=args.painters, without=args.without)
    about = {"references": args.batch, "data_seed": args.seed, "parts": args.parts}
    if args.without:
        about["without"] = args.without
    intervals = {"log_every": 20, "sheet_every": 400, "save_every": 100}
    config = TrainerConfig(
        **_trainer_options(args), clip=0.5, skip_above=40.0, ema=0.995, about=about, stage="renderer", **intervals
    )
    trainer = Trainer(stage, config, args.world)
    _take_shipped(trainer, args, "renderer", load_wider)
    trainer.run()
    return 0


def _export_renderer(args: argparse.Namespace) -> int:
    from flowact_ros.training.export import export_renderer

    print(export_renderer(model(args), args.run, args.out, args.painters))
    return 0


def _vae(args: argparse.Namespace) -> int:
    from flowact_ros.models.codec.video_vae import VideoVAE
    from flowact_ros.training.stages.vae import VAEStage

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    video = video_of(model(args))
    stage = VAEStage(VideoVAE(video.vae), video, clips=args.batch)
    config = TrainerConfig(
        **_trainer_options(args), clip=0.5, skip_above=40.0, ema=0.998, log_every=20, sheet_every=400, save_every=100,
        about={"clips": args.batch, "data_seed": args.seed, "commit": commit_id()}, stage="vae",
    )  # fmt: skip
    Trainer(stage, config, args.world).run()
    return 0


def _export_vae(args: argparse.Namespace) -> int:
    from flowact_ros.training.export import export_vae

    print(export_vae(model(args), args.run, args.out))
    return 0


def _footage(args: argparse.Namespace) -> int:
    options = _trainer_options(args) if "lr" in args else {}
    return footage.STAGES[args.stage](args, model(args, UNDISTILLED), options)


STAGES = {
    **dict.fromkeys(footage.STAGES, _footage),
    **dict.fromkeys(encoders.STAGES, encoders.run),
    "motion": _motion,
    "distill": _distill,
    "export-motion": _export_motion,
    "renderer": _renderer,
    "export-renderer": _export_renderer,
    "vae": _vae,
    "export-vae": _export_vae,
}


if __name__ == "__main__":
    raise SystemExit(main())
