# SPDX-License-Identifier: Apache-2.0
"""`flowact eval`: measures of quality.

flowact eval quick                      # about 20 minutes of one core; a table
flowact eval quick --json --out runs/eval --wav speech.wav
flowact eval quick --audio-encoder whisper   # heard by Whisper: flowact weights get whisper-tiny.en
flowact eval sheets --out runs/sheets   # contact sheets of every behaviour, to look at
flowact eval readout --minutes 20       # train the readout of the rig: what is read from pixels
flowact eval statistics runs/data/motion --out FILE   # what training motion is like, for the live watch
flowact eval watch                      # an hour of motion: false alarms of the live watch, and planted faults
flowact eval drift                      # does motion drift over minutes?
flowact eval memory --out FILE.json     # an experiment: settings compared over seeds, a table and a plot. Others are
                                        # distillation, self-forcing, horizon, lipsync, schedule, temperature, sigma,
                                        # resolution and styles
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowact_ros.evaluation import motion_commands
from flowact_ros.evaluation.experiments import commands as experiments
from flowact_ros.models.precision import PRECISIONS
from flowact_ros.models.settings import settings_of
from flowact_ros.vocabulary import AUDIO_ENCODERS, EMBEDDED, WHISPER
from flowact_ros.weights_store import WeightsError, find_audio_weights


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    quick = verbs.add_parser(
        "quick",
        help="lips, eyes, head, hands, sharpness and behaviours on held-out characters, voices and sentences",
        epilog="example: flowact eval quick --json --out runs/eval",
    )
    quick.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    quick.add_argument("--clips", type=int, default=6, help="clips that mostly speak (default: 6)")
    quick.add_argument("--seconds", type=float, default=10.0, metavar="N", help="their length (default: 10)")
    quick.add_argument(
        "--behaviours", type=int, default=3, metavar="N", help="clips with all behaviours (default: 3)"
    )
    quick.add_argument(
        "--minutes", type=float, default=10.0, metavar="N", help="of motion for rates of events (default: 10)"
    )
    quick.add_argument(
        "--split",
        default="heldout",
        choices=("heldout", "validation"),
        help="where settings are tried: validation",
    )
    quick.add_argument("--character", default="mia", help="named character who says --wav")
    quick.add_argument(
        "--wav", action="append", default=[], metavar="FILE", help="recorded speech (repeatable)"
    )
    quick.add_argument("--strict", action="store_true", help="exit status 1 when a target is missed")
    sheets = verbs.add_parser("sheets", help="contact sheets of every behaviour")
    sheets.add_argument(
        "--character", action="append", default=[], help="named character, repeatable (default: mia and nova)"
    )
    for verb in (quick, sheets):
        verb.add_argument(
            "--weights", metavar="DIR", help="folder of the networks' weights (default: the shipped ones)"
        )
        verb.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
        verb.add_argument("--device", default="cpu", help="cpu or cuda")
        verb.add_argument("--runtime", default="auto", help="of the renderer: auto, openvino or eager")
        verb.add_argument("--precision", default="auto", help=f"of the denoiser: {', '.join(PRECISIONS)}")
        verb.add_argument(
            "--threads", type=int, default=0, help="threads of the model (default: torch's own choice)"
        )
        verb.add_argument(
            "--audio-encoder", default=EMBEDDED, choices=AUDIO_ENCODERS, help="who hears (default: embedded)"
        )
        verb.add_argument(
            "--audio-path", metavar="FILE",
            help="weights of that encoder (default: the installed ones, of whisper those of `flowact weights get`)",
        )  # fmt: skip
        verb.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE",
            help="change a setting of the preset, e.g. schedule.steps=8 (repeatable)",
        )  # fmt: skip
        verb.add_argument("--seed", type=int, default=0, help="of the stream's noise")
        verb.add_argument(
            "--out", type=Path, metavar="DIR", help="folder of contact sheets, curves and report.json"
        )

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
        "--places", action="store_true",
        help="go on from the shipped weights, and teach only where eyes and mouth lie",
    )  # fmt: skip
    done = readout.add_mutually_exclusive_group()
    done.add_argument(
        "--export", action="store_true", help="measure the run's weights and write them to the package"
    )
    done.add_argument("--measure", action="store_true", help="print the error of the shipped weights")
    motion_commands.add_parsers(verbs)
    experiments.add_parsers(verbs)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed or a target missed under --strict, 2 bad command line."""
    args = _parser().parse_args(argv)
    args.command = experiments.told(sys.argv[1:] if argv is None else argv)
    try:
        _check(args)
    except ValueError as error:
        print(f"flowact eval: {error}", file=sys.stderr)
        return 2
    try:
        if args.verb in motion_commands.VERBS:
            with progress() as tell:
                return motion_commands.run(args, tell)
        if args.verb in experiments.VERBS:
            with progress() as tell:
                return experiments.run(args, tell)
        return {"quick": _quick, "sheets": _sheets, "readout": _readout}[args.verb](args)
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
    if args.verb in motion_commands.VERBS:
        return motion_commands.check(args)
    if args.verb in experiments.VERBS:
        return experiments.check(args)
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
    for name in args.character if args.verb == "sheets" else [args.character]:
        if name not in NAMED:
            raise ValueError(f"--character {name!r} does not exist; there are {', '.join(NAMED)}")
    if args.verb == "sheets":
        if args.out is None:
            raise ValueError("sheets need a folder; say --out DIR")
        return
    for name, (low, high) in (
        ("clips", (1, 64)),
        ("seconds", (2, 60)),
        ("behaviours", (0, 64)),
        ("minutes", (1, 240)),
    ):
        if not low <= getattr(args, name) <= high:
            raise ValueError(f"--{name} is {getattr(args, name):g}; it must lie in {low} .. {high}")


def _pipeline(args: argparse.Namespace) -> Any:
    import torch

    from flowact_ros.engine.pipeline import build_pipeline, motion_pipeline

    if args.threads:
        torch.set_num_threads(args.threads)
    pipeline = build_pipeline(
        args.preset,
        args.device,
        weights=args.weights,
        runtime=args.runtime,
        audio_backend=args.audio_encoder,
        audio_path=find_audio_weights(args.audio_encoder, args.audio_path),
        overrides=settings_of(args.set),
        precision=args.precision,
    )
    return motion_pipeline(pipeline)


def heard_by_whisper(pipeline: Any, args: argparse.Namespace) -> tuple[Any, str]:
    """(the pipeline with Whisper's encoder, or None with the reason why it is not there)."""
    from flowact_ros.models.audio_encoder import load_audio_encoder

    if args.audio_encoder == WHISPER:
        return pipeline, ""
    try:
        path = find_audio_weights(WHISPER)
    except WeightsError as error:
        return None, f"not measured: {error}"
    return pipeline.with_audio_encoder(load_audio_encoder(WHISPER, path)), ""


def _quick(args: argparse.Namespace) -> int:
    from flowact_ros.data.augment import missing_voices
    from flowact_ros.evaluation.quick import Quick, Settings
    from flowact_ros.evaluation.report import machine
    from flowact_ros.evaluation.rig_readout import load_readout

    pipeline = _pipeline(args)
    readout, card = load_readout()
    names = ("clips", "seconds", "behaviours", "minutes", "character", "seed", "split", "out")
    chosen = {name: getattr(args, name) for name in names}
    settings = Settings(**chosen, controls=min(3, args.clips - 1), wavs=tuple(args.wav))
    whisper, lacking = heard_by_whisper(pipeline, args)
    with progress() as tell:
        report = Quick(pipeline, readout, card, settings, tell, whisper).run()
    facts = {"preset": args.preset, "split": args.split, "seed": args.seed, "set": args.set}
    facts["audio_encoder"] = args.audio_encoder
    if lacking:
        facts["lips_heard_by_whisper"] = lacking
    missing = missing_voices(args.split)
    facts["voices"] = f"hibari speaks for {', '.join(missing)}, not installed" if missing else "all of the split"
    if args.preset == "debug":
        facts["weights"] = "random: the figures say nothing about quality"
    report.facts = {**facts, "machine": machine(), "readout": error_line(card), **report.facts}
    report.facts["nfe"] = pipeline.config.schedule.steps
    if args.out is not None:
        (args.out / "report.json").write_text(report.json() + "\n", encoding="utf-8")
    if args.json:
        print(report.json())
    else:
        report.show()
        if args.out is not None:
            print(f"contact sheets and curves: {args.out}")
    missed = [f.key for f in report.figures if f.met is False]
    return 1 if args.strict and missed else 0


def error_line(card: dict[str, Any]) -> str:
    """The readout's own error in one line: correlation with the truth on renders that it has not seen."""
    seen = card["errors"]["performances"]
    parts = [f"{name} {e['correlation']:.2f}" if "correlation" in e else f"{name} {e['right']:.2f} right"
             for name, e in seen.items()]  # fmt: skip
    return "read from pixels of unseen characters with correlation " + ", ".join(parts)


def _sheets(args: argparse.Namespace) -> int:
    from flowact_ros.evaluation.sheets import behaviour_sheet

    pipeline = _pipeline(args)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.character or ["mia", "nova"]:
        path = args.out / f"{name}.png"
        behaviour_sheet(pipeline, name, path, seed=args.seed)
        print(path)
    return 0


class progress:
    """A bar on stderr where that is a terminal, else a line now and then. Gives `tell(text, done)`."""

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

    from flowact_ros.evaluation.rig_readout import load_readout
    from flowact_ros.evaluation.rig_readout_errors import export, tested
    from flowact_ros.evaluation.train_rig_readout import train

    torch.set_num_threads(max(1, min(torch.get_num_threads(), 2)))
    if args.measure:
        found = tested(load_readout()[0])
    elif args.export:
        if not (args.run / "state.pt").is_file():
            raise ValueError(
                f"{args.run} holds no training run; train one with `flowact eval readout --run {args.run}`"
            )
        found = export(args.run)["errors"]
    else:
        train(
            args.run, minutes=args.minutes, steps=args.steps, seed=args.seed, rate=args.rate, places=args.places
        )
        return 0
    for group, figures in found.items():
        print(group)
        for name, error in figures.items():
            print(f"  {name:14s} " + "  ".join(f"{key} {value:.4f}" for key, value in error.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
