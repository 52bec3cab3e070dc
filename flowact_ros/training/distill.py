# SPDX-License-Identifier: Apache-2.0
"""`flowact train distill`: one phase of distillation, each in a run folder of its own, each from the one before.

flowact train distill --phase guidance --teacher shipped --run runs/guidance …
flowact train distill --phase steps --teacher runs/guidance --run runs/steps …
flowact train distill --phase matching --teacher runs/guidance --student runs/steps --run runs/matching …
flowact train export-motion --run runs/matching
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from flowact_ros.models.config import ModelConfig
from flowact_ros.training.distill_options import BETAS, GUIDANCE
from flowact_ros.training.free_running import evaluate, frozen
from flowact_ros.training.lineage import DISTILLED, commit_id, denoiser_weights, run_state
from flowact_ros.training.sequences import description, sequences
from flowact_ros.training.stages.distillation import Distillation
from flowact_ros.training.stages.few_steps import StepDistillation
from flowact_ros.training.stages.guidance import GuidanceDistillation
from flowact_ros.training.stages.matching import DistributionMatching
from flowact_ros.training.trainer import Trainer, TrainerConfig


def distill(args: argparse.Namespace, config: ModelConfig, options: dict[str, Any]) -> int:
    """config: of the network; options: of the trainer, from those that all stages share.

    Raises ValueError, CheckpointError.
    """
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.evaluate:
        module = frozen(config, run_state(args.run)["ema"])
        heldout, scales = sequences(config, [args.heldout]), args.guidance or (1.0,)
        print(evaluate(module, heldout, args.clips, args.evaluate, scales))
        return 0
    if args.teacher is None:
        raise ValueError("--teacher is missing; give `shipped`, or a folder of a run or of exported weights")
    teacher, taught = denoiser_weights(args.teacher, config)
    if taught[-1]["name"] in DISTILLED:
        raise ValueError(
            f"--teacher {args.teacher} was distilled for few evaluations, and a teacher makes more: train it on some "
            "hundred steps first (`flowact train motion --from-shipped`)"
        )
    student, stages = denoiser_weights(args.student, config) if args.student else (teacher, taught)
    guidance = _guidance(args, [stage["name"] for stage in taught])
    method = _method(args, config, guidance, teacher=teacher, student=student)
    about = {
        "data": description(config, args.data), **method.data.facts, "batch": args.batch, "commit": commit_id(),
        "teacher": Path(args.teacher).name, "guidance": list(guidance), "evaluations": method.steps,
    }  # fmt: skip
    trainer_config = TrainerConfig(
        **options, stage=args.phase, earlier=stages, betas=BETAS[args.phase], about=about, ema=0.99,
        log_every=max(10, args.ratio + 1), save_every=100, sheet_every=args.sheet_every,
    )  # fmt: skip
    Trainer(method, trainer_config, args.world).run()
    return 0


def _guidance(args: argparse.Namespace, taught: list[str]) -> tuple[float, ...]:
    """The scale or the range of a phase. Raises ValueError for what the phase or the teacher does not know."""
    default = GUIDANCE[args.phase]
    found = tuple(args.guidance or default)
    if len(found) != len(default) or not all(0.0 <= a <= b <= 10.0 for a, b in zip(found, found[1:] or found)):
        wanted = "one scale" if len(default) == 1 else "the two ends of a range"
        raise ValueError(f"--guidance is {' '.join(map(str, found))}; --phase {args.phase} takes {wanted} in 0 .. 10")
    if args.phase != "guidance" and set(found) != {1.0} and "guidance" not in taught:
        raise ValueError(
            f"--teacher {args.teacher} knows no scale of guidance but 1; train --phase guidance before"
        )
    return found


def _method(args: argparse.Namespace, config: ModelConfig, guidance: tuple[float, ...], **weights: Any) -> Distillation:
    shared = {
        **weights, "batch": args.batch, "own_memory": args.own_memory, "refresh": args.refresh,
        "patience": args.patience,
    }  # fmt: skip
    places = (config, args.data, args.heldout)
    if args.phase == "guidance":
        return GuidanceDistillation(*places, steps=args.evaluations, scales=guidance, **shared)
    if args.phase == "steps":
        segments = args.segments or (12, 6, args.evaluations)
        return StepDistillation(
            *places, teacher_steps=args.teacher_steps, segments=segments, total=args.steps, scales=guidance, **shared
        )  # fmt: skip
    return DistributionMatching(
        *places, steps=args.evaluations, ratio=args.ratio, rate=args.critic_rate, guidance=guidance[0], **shared
    )  # fmt: skip
