# SPDX-License-Identifier: Apache-2.0
"""`flowact eval`: measures of quality.

flowact eval quick                      # about 6 minutes of one core; a table and contact sheets
flowact eval quick --json --out runs/eval --wav speech.wav
flowact eval readout --minutes 20       # train the readout of the rig: what is read from pixels
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    quick = verbs.add_parser(
        "quick",
        help="picture, lips, identity and motion on held-out characters, voices and sentences",
        epilog="example: flowact eval quick --json --out runs/eval",
    )
    quick.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    quick.add_argument(
        "--weights", metavar="DIR", help="folder of vae and mmdit weights (default: the shipped ones)"
    )
    quick.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    quick.add_argument("--device", default="cpu", help="cpu or cuda")
    quick.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "int8"))
    quick.add_argument(
        "--threads", type=int, default=0, help="threads of the model (default: torch's own choice)"
    )
    quick.add_argument(
        "--split",
        default="heldout",
        choices=("heldout", "validation"),
        help="where settings are tried: validation",
    )
    quick.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the preset, e.g. schedule.temperature=0.5 (repeatable)",
    )
    quick.add_argument("--clips", type=int, default=6, help="held-out clips (default: 6)")
    quick.add_argument(
        "--seconds", type=float, default=10.0, metavar="N", help="length of a clip (default: 10)"
    )
    quick.add_argument(
        "--long", type=float, default=120.0, metavar="N", help="seconds of the drift run; 0 leaves it out"
    )
    quick.add_argument("--character", default="mia", help="named character of the drift run and of --wav")
    quick.add_argument(
        "--wav", action="append", default=[], metavar="FILE", help="recorded speech (repeatable)"
    )
    quick.add_argument(
        "--audio-backend",
        default="embedded",
        choices=("embedded", "whisper"),
        help="who hears (default: embedded)",
    )
    quick.add_argument(
        "--audio-path",
        metavar="FILE",
        help="weights of that encoder (default: the shipped or converted ones)",
    )
    quick.add_argument("--seed", type=int, default=0, help="of the stream's noise")
    quick.add_argument("--out", type=Path, metavar="DIR", help="contact sheets, lip curves and report.json")
    quick.add_argument("--strict", action="store_true", help="exit status 1 when a target is missed")

    readout = verbs.add_parser(
        "readout", help="train the readout of the rig on rendered characters, or export it"
    )
    readout.add_argument(
        "--run", type=Path, default=Path("runs/readout"), help="folder; training goes on there"
    )
    readout.add_argument("--minutes", type=float, default=1e9, metavar="N", help="stop after this slice")
    readout.add_argument(
        "--steps", type=int, default=1600, help="batches of 32 frames, in all slices together"
    )
    readout.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    readout.add_argument("--seed", type=int, default=0)
    readout.add_argument(
        "--export", action="store_true", help="measure the run's weights and write them to the package"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed or a target missed under --strict, 2 bad command line."""
    args = _parser().parse_args(argv)
    try:
        _check(args)
    except ValueError as error:
        print(f"flowact eval: {error}", file=sys.stderr)
        return 2
    try:
        return _quick(args) if args.verb == "quick" else _readout(args)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        print(f"flowact eval: {error}; install the extras train and dev", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact eval: {error}", file=sys.stderr)
        return 1


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that nothing can be measured or trained with."""
    if args.verb == "readout":
        if args.steps < 1:
            raise ValueError(f"--steps is {args.steps}; it must be 1 or more")
        if not args.minutes > 0:
            raise ValueError(f"--minutes is {args.minutes:g}; it must be above 0")
        if not 0 < args.rate < 1:
            raise ValueError(f"--rate is {args.rate:g}; it must lie between 0 and 1")
        return
    from flowact_ros.data.characters import NAMED

    settings_of(args.set)
    if not 0 <= args.threads <= 64:
        raise ValueError(f"--threads is {args.threads}; it must lie in 0 .. 64")
    if not 1 <= args.clips <= 64:
        raise ValueError(f"--clips is {args.clips}; it must lie in 1 .. 64")
    if not 2.0 <= args.seconds <= 60.0:
        raise ValueError(f"--seconds is {args.seconds:g}; it must lie in 2 .. 60")
    if not (args.long == 0 or 12.0 <= args.long <= 7200.0):
        raise ValueError(f"--long is {args.long:g}; it must be 0 or lie in 12 .. 7200")
    if args.character not in NAMED:
        raise ValueError(f"--character {args.character!r} does not exist; there are {', '.join(NAMED)}")


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """["a.b=1", "a.c=x"] -> {"a": {"b": 1, "c": "x"}}; values as in YAML. Raises ValueError for what is no pair."""
    import yaml

    tree: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {pair!r} is no KEY=VALUE; e.g. --set schedule.temperature=0.5")
        *groups, name = key.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = yaml.safe_load(value)
    return tree


def _quick(args: argparse.Namespace) -> int:
    import torch

    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.evaluation.quick import Quick, Settings
    from flowact_ros.evaluation.readout import load_readout
    from flowact_ros.evaluation.report import machine
    from flowact_ros.models.checkpoint import read_card, weights_dir
    from flowact_ros.models.config import preset

    changes = settings_of(args.set)
    if args.threads:
        torch.set_num_threads(args.threads)
    pipeline = build_pipeline(
        args.preset,
        args.device,
        weights=args.weights,
        dtype=args.dtype,
        audio_backend=args.audio_backend,
        audio_path=args.audio_path,
        # the canvas itself: nothing is resized before measuring
        overrides={**changes, "lines": preset(args.preset).height},
    )
    readout, card = load_readout()
    settings = Settings(
        clips=args.clips,
        seconds=args.seconds,
        controls=min(3, args.clips),
        named=2,
        long_s=args.long,
        wavs=tuple(args.wav),
        character=args.character,
        seed=args.seed,
        split=args.split,
        out=args.out,
    )
    facts: dict[str, object] = {"machine": machine(), "preset": args.preset, "seed": args.seed}
    facts |= {"split": args.split, "set": args.set, "audio_backend": args.audio_backend}
    if args.preset == "debug":
        facts["weights"] = "random: the figures say nothing about quality"
    else:
        folder = Path(args.weights) if args.weights else weights_dir() / args.preset
        facts["weights"] = {
            name: {
                k: v
                for k, v in read_card(folder / f"{name}.safetensors").items()
                if k in ("steps", "iteration", "commit")
            }
            for name in ("vae", "mmdit")
        }
    error = card["heldout_renders"]
    rough = card["heldout_disturbed"]
    facts["readout"] = (
        f"mouth openings are read with correlation {error['correlation']:.3f} and {error['mae_px_512']:.2f} px mean "
        f"error on held-out renders, {rough['correlation']:.3f} and {rough['mae_px_512']:.2f} px on spoiled ones"
    )
    with progress(args.json) as tell:
        report = Quick(pipeline, readout, settings, tell).run()
    report.facts = {**facts, **report.facts}
    if args.out is not None:
        (args.out / "report.json").write_text(report.json() + "\n", encoding="utf-8")
    if args.json:
        print(report.json())
    else:
        report.show()
        if args.out is not None:
            print(f"contact sheets and curves: {args.out}")
    missed = [f.key for f in report.figures if f.passed is False]
    return 1 if args.strict and missed else 0


class progress:
    """A bar on stderr where that is a terminal, else a line now and then. Gives `tell(text, done)`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> Callable[[str, float], None]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (BarColumn(24), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self.bar = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self.bar.start()
        task = self.bar.add_task("starting", total=1.0)
        last = [""]

        def tell(text: str, done: float) -> None:
            self.bar.update(task, completed=done, description=text)
            if not sys.stderr.isatty() and text != last[0]:
                last[0] = text
                print(f"{100 * done:3.0f} %  {text}", file=sys.stderr, flush=True)

        return tell

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


def _readout(args: argparse.Namespace) -> int:
    import torch

    from flowact_ros.evaluation.train_rig_readout import export, train

    torch.set_num_threads(max(1, min(torch.get_num_threads(), 2)))
    if not args.export:
        train(args.run, minutes=args.minutes, steps=args.steps, seed=args.seed, rate=args.rate)
        return 0
    if not (args.run / "state.pt").is_file():
        raise ValueError(
            f"{args.run} holds no training run; train one with `flowact eval readout --run {args.run}`"
        )
    for group, figures in export(args.run)["errors"].items():
        print(group)
        for name, error in figures.items():
            print(f"  {name:14s} " + "  ".join(f"{key} {value:.4f}" for key, value in error.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
