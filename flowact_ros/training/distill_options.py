# SPDX-License-Identifier: Apache-2.0
"""Options of `flowact train distill`, and what they are where nobody tells."""

from __future__ import annotations

import argparse

PHASES = ("guidance", "steps", "matching")
RATES = {"guidance": 2e-4, "steps": 2e-4, "matching": 2e-5}  # learning rates of a network of 8 M
BETAS = {"guidance": (0.9, 0.99), "steps": (0.9, 0.99), "matching": (0.0, 0.999)}  # two players: no momentum
GUIDANCE = {"guidance": (1.0, 3.0), "steps": (1.0, 1.0), "matching": (1.0,)}  # scales, or the ends of a range
RANGES = {  # option -> what it must lie in
    "evaluations": (1, 24),
    "teacher_steps": (1, 50),
    "ratio": (1, 100),
    "critic_rate": (0.001, 100.0),
    "own_memory": (0.0, 1.0),
    "refresh": (1, 1_000_000),
    "patience": (1, 1000),
    "sheet_every": (1, 1_000_000),
}


def add_options(stage: argparse.ArgumentParser) -> None:
    """Options of the phases, beside those of every stage that is trained."""
    stage.add_argument("--phase", choices=PHASES, required=True)
    stage.add_argument(
        "--teacher", metavar="RUN", help="`shipped`, or the folder of a run or of exported weights that teach"
    )
    stage.add_argument(
        "--student", metavar="RUN", help="what the student begins as (default: as its teacher)"
    )
    stage.add_argument("--evaluations", type=int, default=3, help="of the student, a chunk (default: 3)")
    stage.add_argument(
        "--guidance", type=float, nargs="+", metavar="SCALE",
        help="1 is none; guidance and steps take the ends of a range (1 3 and 1 1), matching one scale (1), and "
        "--evaluate any number of them",
    )  # fmt: skip
    stage.add_argument(
        "--teacher-steps", type=int, default=24, help="of the teacher's way, in the phase steps (default: 24)"
    )
    stage.add_argument(
        "--segments", type=int, nargs="+", metavar="N",
        help="the student's steps, one number after another (default: 12 6 and --evaluations)",
    )  # fmt: skip
    stage.add_argument(
        "--ratio", type=int, default=5, help="critic's steps for each of the student's (default: 5)"
    )
    stage.add_argument(
        "--critic-rate", type=float, default=1.0, help="the critic's learning rate in units of --lr"
    )
    stage.add_argument(
        "--own-memory", type=float, default=0.5, help="share of rows whose history the student made"
    )
    stage.add_argument("--refresh", type=int, default=200, help="training steps until that is made anew")
    stage.add_argument("--patience", type=int, default=8, help="sheets without a better one until the end")
    stage.add_argument("--sheet-every", type=int, default=100, help="training steps between two sheets")
