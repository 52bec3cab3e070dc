# SPDX-License-Identifier: Apache-2.0
"""`flowact train`: run one stage, or one slice of it.

    flowact train vae --data runs/data/snippets --heldout runs/data/snippets_heldout --run runs/vae --minutes 10
    flowact train decoder --data runs/data/snippets --heldout runs/data/snippets_heldout --run runs/decoder
    flowact train refine --data runs/data/snippets --heldout runs/data/snippets_heldout --run runs/refine
    flowact train latents --data runs/data/clips --out runs/latents
    flowact train stage1 --data runs/latents --heldout runs/latents_heldout --run runs/stage1 --minutes 10
    flowact train fewstep --data runs/latents --heldout runs/latents_heldout --run runs/fewstep --lr 5e-4
    flowact train export-vae --run runs/vae --data runs/data/snippets
    flowact train export-stage1 --run runs/stage1

`fewstep` goes on with the shipped denoiser and makes a sampler of three evaluations of it. `decoder` goes on with
the shipped VAE's decoder while its encoder, and so every latent, stays as it is; `refine` goes on with all of the VAE
while the latents stay near to where they were.
A stage goes on where its run folder stopped. `export-…` writes the EMA weights and their card to the package.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch

from flowact_ros.engine.pipeline import best_dtype, check_device
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.config import ModelConfig, preset
from flowact_ros.models.vae import VAE
from flowact_ros.training.export import (
    export_decoder,
    export_denoiser,
    export_refined,
    export_vae,
)
from flowact_ros.training.trainer import Trainer, TrainerConfig

NEEDED = {  # stage -> options it cannot do without
    "vae": ("run", "data", "heldout"),
    "decoder": ("run", "data", "heldout"),
    "refine": ("run", "data", "heldout"),
    "latents": ("data", "out"),
    "stage1": ("run", "data", "heldout"),
    "fewstep": ("run", "data", "heldout"),
    "export-vae": ("run", "data"),
    "export-decoder": ("run",),
    "export-refined": ("run",),
    "export-stage1": ("run",),
    "export-fewstep": ("run",),
}
RANGES = {  # option -> what it must lie in
    "minutes": (0.0, math.inf),
    "steps": (1, 10_000_000),
    "lr": (1e-9, 1.0),
    "warmup": (0, 10_000_000),
    "batch": (1, 4096),
    "nearby": (0.0, 1.0),
    "share": (1e-6, 1.0),
    "threads": (1, 64),
    "encoding_steps": (0, 1000),
    "seed": (0, 2**31 - 1),
}
LONGEST_LINE = 300  # characters of an error
PREPARED = ("stage1", "fewstep")  # stages whose material are latents; the others' are clips
VAE_STAGES = {  # stage -> what it asks of the method
    "vae": {},
    "decoder": {"edges_from": 0, "on_features": 0.8, "decoder_only": True},
    "refine": {
        "edges_from": 0,
        "edges": 0.2,
        "on_features": 0.85,
        "feature_weight": 12.0,
        "squares": 10.0,
        "crop": 128,
        "off_centre": 0.2,
        "mouths": 0.5,
        "anchor": 0.1,
    },
}


def kind(args: argparse.Namespace) -> torch.dtype:
    """What the networks multiply in."""
    return torch.float32 if args.no_bf16 else best_dtype(args.device)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="flowact train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("stage", choices=tuple(NEEDED))
    top.add_argument("--run", type=Path, help="folder of checkpoints, logs and sheets")
    top.add_argument("--out", type=Path, help="folder that receives latents or (default: the package's) weights")
    top.add_argument("--data", type=Path, nargs="+", help="training material (see `flowact data`); one or more folders")
    top.add_argument("--heldout", type=Path, help="held-out material for the sheets")
    top.add_argument("--preset", default="avatar_cpu")
    top.add_argument("--minutes", type=float, default=math.inf, help="stop after this slice")
    top.add_argument("--steps", type=int, default=4500, help="length of the learning-rate schedule")
    top.add_argument("--lr", type=float, default=5e-4)
    top.add_argument("--warmup", type=int, default=200, help="steps until the learning rate is reached")
    top.add_argument("--batch", type=int, default=8)
    top.add_argument("--nearby", type=float, default=0.25, help="share of references from the clip itself (fewstep)")
    top.add_argument("--share", type=float, default=1.0, help="of the run's weights in what export-fewstep writes")
    top.add_argument("--device", default="cpu", help="cpu or cuda; latents and all that is trained")
    top.add_argument("--threads", type=int, default=1)
    top.add_argument("--shard", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="do every N-th clip from I")
    top.add_argument(
        "--encoding-steps", type=int, metavar="N", help="gradient steps on each latent (latents; default: the preset's)"
    )
    top.add_argument("--seed", type=int, default=0)
    top.add_argument("--no-bf16", action="store_true", help="float32 also where the processor multiplies bfloat16")
    return top


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 what cannot be done, with one line that says why, 2 bad command line."""
    args = parser().parse_args(argv)
    try:
        _check(args)
    except ValueError as error:
        print(f"flowact train: {error}", file=sys.stderr)
        return 2
    try:
        return _run(args)
    except (ValueError, OSError, RuntimeError) as error:  # sizes, weights or material that do not fit or are missing
        line = " ".join(str(error).split())  # torch tells of weights that do not fit in a line a tensor
        print(f"flowact train: {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + ' …'}", file=sys.stderr)
        return 1


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that are missing or that no stage can work with."""
    for name in NEEDED[args.stage]:
        if getattr(args, name) is None:
            raise ValueError(f"{args.stage} needs --{name}")
    for name, (least, most) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must lie in {least} .. {most}")
    first, every = args.shard
    if not 0 <= first < every:
        raise ValueError(f"--shard is {first} {every}; I must lie in 0 .. N - 1")


def _check_material(args: argparse.Namespace) -> None:
    """Raises FileNotFoundError for a folder without material, held-out ones too: a sheet needs them hours later."""
    if args.stage in PREPARED:
        pattern, what, source = "[0-9]*.pt", "prepared clips", "flowact train latents"
    else:
        pattern, what, source = "*/clip.json", "clips", "flowact data"
    needed = NEEDED[args.stage]
    for folder in (*(args.data if "data" in needed else ()), *([args.heldout] if "heldout" in needed else ())):
        if not any(folder.glob(pattern)):
            raise FileNotFoundError(f"{folder} holds no {what}; make them with `{source}`")


def _run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    config = preset(args.preset)
    check_device(args.device)
    _check_material(args)
    if args.stage == "export-vae":
        export_vae(config, args.run, args.data, args.out)
        return 0
    if args.stage == "export-decoder":
        export_decoder(config, args.run, args.out)
        return 0
    if args.stage == "export-refined":
        export_refined(config, args.run, args.out)
        return 0
    if args.stage in ("export-stage1", "export-fewstep"):
        export_denoiser(config, args.run, args.stage.removeprefix("export-"), args.out, share=args.share)
        return 0
    if args.stage == "latents":
        _latents(config, args)
        return 0
    torch.manual_seed(args.seed)
    if args.stage in VAE_STAGES:
        from flowact_ros.training.methods.vae import VAEMethod

        method = VAEMethod(config, args.data, args.heldout, batch=args.batch, **VAE_STAGES[args.stage])
        if args.stage != "vae":
            method.continue_from(shipped("vae", config))
    elif args.stage == "fewstep":
        from flowact_ros.training.methods.few_step import FewStep

        method = FewStep(config, args.data, args.heldout, batch=args.batch, nearby=args.nearby)
        load_weights(shipped("mmdit", config), method.module, kind="mmdit", config=config.denoiser_contract())
    else:
        from flowact_ros.training.methods.diffusion_forcing import DiffusionForcing

        method = DiffusionForcing(config, args.data, args.heldout, batch=args.batch)
    Trainer(
        method,
        TrainerConfig(
            run=args.run,
            steps=args.steps,
            learning_rate=args.lr,
            warmup=args.warmup,
            minutes=args.minutes,
            seed=args.seed,
            bf16=kind(args) == torch.bfloat16,
            device=args.device,
        ),
    ).run()
    return 0


def shipped(name: str, config: ModelConfig) -> Path:
    return weights_dir() / config.name / f"{name}.safetensors"


def _latents(config: ModelConfig, args: argparse.Namespace) -> None:
    from flowact_ros.data.store import read_clips
    from flowact_ros.engine.audio_window import AudioWindow
    from flowact_ros.models.audio_encoder import load_audio_encoder
    from flowact_ros.models.text_encoder import load_text_encoder
    from flowact_ros.training.latents import motion_deviation, prepare

    clips = read_clips(*args.data)
    for clip in clips:
        if "identity" not in clip.info:
            raise ValueError(f"{clip.path} has no sound; latents are made of `flowact data clips`, not of snippets")
        if clip.info["size"] != config.height:
            raise ValueError(f"{clip.path} has {clip.info['size']} pixels a side; {config.name} needs {config.height}")
    vae = VAE(config.vae)
    load_weights(shipped("vae", config), vae, kind="vae", config=config.vae)
    vae.eval().to(args.device, kind(args))
    window = AudioWindow(load_audio_encoder())
    steps = config.encoding_steps if args.encoding_steps is None else args.encoding_steps
    shard = (args.shard[0], args.shard[1])
    prepare(vae, window, load_text_encoder(), clips, args.out, steps=steps, shard=shard)
    print(f"motion_scale should be about {motion_deviation(args.out):.3f}; the preset has {config.motion_scale}")


if __name__ == "__main__":
    raise SystemExit(main())
