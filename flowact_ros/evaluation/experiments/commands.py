# SPDX-License-Identifier: Apache-2.0
"""The experiments as sub-commands of `flowact eval`: options, checks, and which pipeline each of them needs."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Verb:
    """One experiment. seeds, minutes, frames: defaults of `--seeds`, and of `--minutes` and `--frames` of a seed; None
    where the experiment has no such option.
    """

    help: str
    seeds: int = 6
    minutes: float | None = None
    frames: int | None = None


VERBS: dict[str, Verb] = {
    "memory": Verb("parts and sizes of the memory bank: which does motion need", minutes=1.2),
    "distillation": Verb("quality against evaluations a chunk, of teacher and student", minutes=1.2),
    "self-forcing": Verb("speed of drift of two denoisers, trained with and without it"),
    "horizon": Verb("gestures in several phases that last longer than the memory"),
    "lipsync": Verb("classes of phonemes, confusion, lag, recorded speech", minutes=3.2),
    "schedule": Verb("the diagonal against the sequential schedule at equal evaluations", minutes=2.8),
    "temperature": Verb("gaze or lips by the width of the noise they begin as, on the validation split", minutes=2.0),
    "sigma": Verb("the renderer under motion noise: edges, flicker, fidelity", frames=24),
    "resolution": Verb("speed at 480, 720 and 1080 lines, and which part limits it", seeds=5),
    "styles": Verb("true motion through renderers, style by style", seeds=3, frames=16),
}
TEMPERATURES = {"gaze": (1.0, 1.05, 1.1, 1.15, 1.2), "lips": (0.1, 0.3, 0.6, 1.0)}
DRAWS = ("sigma", "resolution", "styles")  # a renderer is needed
PICTURED = ("memory", "self-forcing")  # also of spatial presets, where identity can be lost
LEAST_SEEDS = 3  # an interval over fewer says nothing


def add_parsers(verbs: Any) -> None:
    """verbs: the sub-commands of `flowact eval`."""
    made = {}
    for name, verb in VERBS.items():
        made[name] = parser = verbs.add_parser(
            name, help=verb.help, description=f"{verb.help[0].upper()}{verb.help[1:]}.",
            epilog=f"example: flowact eval {name} {_EXAMPLES.get(name, '')}--out docs/experiments/{name}.json",
        )  # fmt: skip
        if name == "self-forcing":
            _self_forcing_options(parser)
        else:
            parser.add_argument(
                "--seeds", type=int, default=verb.seeds, metavar="N", help=f"repetitions (default: {verb.seeds})"
            )
        if verb.minutes is not None:
            parser.add_argument(
                "--minutes", type=float, default=verb.minutes, metavar="N",
                help=f"of motion a seed (default: {verb.minutes:g})",
            )  # fmt: skip
        if verb.frames is not None:
            parser.add_argument(
                "--frames", type=int, default=verb.frames, metavar="N", help=f"a seed (default: {verb.frames})"
            )
        if name in DRAWS:
            parser.add_argument("--runtime", default="auto", help="of the renderer: auto, openvino or eager")
        parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
        parser.add_argument("--weights", metavar="DIR", help="folder of weights (default: the shipped ones)")
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
        parser.add_argument("--threads", type=int, default=0, help="threads of the model (default: torch's own choice)")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
        parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of the figures; a plot beside it")
    made["horizon"].add_argument("--clips", type=int, default=4, metavar="N", help="a seed (default: 4)")
    kinds = "a run folder, a folder of exported weights, or a .safetensors file"
    made["distillation"].add_argument(
        "--teacher", metavar="RUN|FOLDER|FILE",
        help=f"denoiser that was not distilled, beside that of --weights: {kinds}",
    )  # fmt: skip
    made["distillation"].add_argument(
        "--student", metavar="RUN|FOLDER|FILE", help=f"distilled denoiser, beside that of --weights: {kinds}"
    )  # fmt: skip
    made["temperature"].add_argument(
        "--of", choices=tuple(TEMPERATURES), default="gaze", help="of the gaze (default) or the lips"
    )
    made["temperature"].add_argument(
        "--temperatures", type=float, nargs="+", metavar="N",
        help="values of schedule.gaze_temperature (default: 1.0 1.05 1.1 1.15 1.2) or schedule.lips_temperature (0.1 "
        "0.3 0.6 1.0)",
    )  # fmt: skip
    made["temperature"].add_argument(
        "--denoiser", metavar="RUN|FOLDER|FILE",
        help=f"{kinds} (default: that of --weights)",
    )  # fmt: skip
    made["lipsync"].add_argument(
        "--wav", action="append", default=[], metavar="FILE", help="recorded speech (repeatable)"
    )
    made["styles"].add_argument(
        "--renderer", action="append", required=True, metavar="RUN",
        help="run of `flowact train renderer`, e.g. one that was trained `--without` a style (repeatable)",
    )  # fmt: skip


_EXAMPLES = {
    "distillation": "--student runs/student ",
    "self-forcing": "--with runs/forced --without runs/plain ",
    "lipsync": "--wav speech.wav ",
    "styles": "--renderer runs/without_robots ",
}


def _self_forcing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with", dest="with_", required=True, metavar="RUN", help="run (or file) of the denoiser trained with it"
    )
    parser.add_argument("--without", required=True, metavar="RUN", help="that of the one trained without")
    parser.add_argument("--streams", type=int, default=8, metavar="N", help="side by side (default: 8)")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of each (default: 10)")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/watch"), help="folder in which motion is kept (default: runs/watch)"
    )


def told(argv: Sequence[str]) -> str:
    """The command line as a table's JSON names it: without `--json`; of absolute paths, which are one machine's own,
    the last part.
    """
    parts = [Path(part).name if part.startswith("/") else part for part in argv if part != "--json"]
    return shlex.join(["flowact", "eval", *parts])


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for what cannot be measured."""
    ranges: dict[str, tuple[float, float]] = {"threads": (0, 64)}
    if args.verb == "self-forcing":
        ranges |= {"streams": (3, 64), "minutes": (3, 240)}
    else:
        ranges["seeds"] = (LEAST_SEEDS, 64)
        ranges |= {"minutes": (0.2, 60)} if hasattr(args, "minutes") else {}
        ranges |= {"frames": (12, 240)} if hasattr(args, "frames") else {}
        ranges |= {"clips": (1, 64)} if args.verb == "horizon" else {}
    for value in args.temperatures if args.verb == "temperature" else []:
        if not 0 < value <= 2:
            raise ValueError(f"--temperatures holds {value:g}; each must lie above 0, up to 2")
    for name, (low, high) in ranges.items():
        if not low <= getattr(args, name) <= high:
            raise ValueError(f"--{name} is {getattr(args, name):g}; it must lie in {low:g} .. {high:g}")
    if args.out is not None and args.out.suffix != ".json":
        raise ValueError(f"--out is {args.out}; name a .json file, the plot is written beside it as .png")


def run(args: argparse.Namespace, tell: Tell) -> int:
    import torch

    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.models.config import preset

    if args.threads:
        torch.set_num_threads(args.threads)
    pictured = preset(args.preset).video is not None
    if pictured and args.verb not in PICTURED:
        raise ValueError(
            f"{args.verb} measures motion, and preset {args.preset} denoises pictures; of it there are drift, "
            f"{' and '.join(PICTURED)}"
        )
    runtime = args.runtime if args.verb in DRAWS else "eager"  # else nothing is drawn
    pipeline = build_pipeline(args.preset, args.device, weights=args.weights, runtime=runtime)
    if pictured:
        from flowact_ros.evaluation.experiments.pictured import check_vae

        runs = (args.with_, args.without) if args.verb == "self-forcing" else ()
        check_vae(pipeline.config, args.weights, *runs)
    if args.verb == "self-forcing" and not pictured:
        return _self_forcing(args, pipeline, tell)
    table = {
        "memory": _memory, "self-forcing": _pictured_self_forcing,
        "distillation": _distillation, "horizon": _horizon, "lipsync": _lipsync,
        "schedule": _schedule, "temperature": _temperature, "sigma": _sigma, "resolution": _resolution,
        "styles": _styles,
    }[args.verb](args, pipeline, tell)  # fmt: skip
    if args.preset == "debug":
        table.facts["weights"] = "random: the figures say nothing about quality"
    if args.out is not None:
        table.write(args.out, args.command)
    if args.json:
        print(json.dumps(table.record(args.command), indent=1, ensure_ascii=False))
    else:
        table.show()
    return 0


def _speech(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments.material import CLIP_S, speech

    return speech(pipeline, args.seeds, args.minutes, tell, min(CLIP_S, 60 * args.minutes))


def _memory(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import memory, pictured_memory

    if pipeline.config.video is not None:
        return pictured_memory.compare(pipeline, _speech(args, pipeline, tell), tell)
    return memory.compare(pipeline.denoiser, _speech(args, pipeline, tell), tell)


def _distillation(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.clips import behaviour_clips
    from flowact_ros.evaluation.experiments import distillation
    from flowact_ros.evaluation.experiments.material import SIZE, load_denoiser, material
    from flowact_ros.evaluation.recognition import Recogniser
    from flowact_ros.evaluation.rig_readout import load_readout

    distilled = pipeline.config.schedule.solver == "euler"
    models = [("student" if distilled else "teacher", pipeline.denoiser)]
    for at, name, source in ((0, "teacher", args.teacher), (2, "another student", args.student)):
        if source is not None:
            models.insert(at, (name, load_denoiser(source, pipeline.config).to(pipeline.device)))
    speech = _speech(args, pipeline, tell)
    tell("a recogniser of behaviours", 0.2)
    acted = material(pipeline, behaviour_clips(args.seeds, SIZE), list(range(args.seeds)))
    recogniser = Recogniser(load_readout()[1]["errors"]["performances"])
    return distillation.compare(models, speech, acted, recogniser, tell)


def _horizon(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import horizon

    return horizon.compare(pipeline.denoiser, horizon.performances(pipeline, args.seeds, args.clips), tell)


def _lipsync(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import lipsync
    from flowact_ros.evaluation.experiments.plot import matrices

    said = lipsync.recordings(args.wav)  # first of all: a file that cannot be read is told at once
    table, confusions = lipsync.compare(pipeline, _speech(args, pipeline, tell), said, tell)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        path = args.out.with_name(f"{args.out.stem}_confusion.png")
        parts = [(name, lipsync.shares(counts)) for name, counts in zip(("truth", "model"), confusions)]
        matrices(path, "row: the phoneme's class, column: what the mouth is taken for [%]", lipsync.NAMES, parts)
    return table


def _schedule(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import schedule

    return schedule.compare(pipeline.denoiser, _speech(args, pipeline, tell), tell)


def _temperature(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import temperature
    from flowact_ros.evaluation.experiments.material import load_denoiser

    model = pipeline.denoiser
    if args.denoiser is not None:
        model = load_denoiser(args.denoiser, pipeline.config).to(pipeline.device)
    clips = temperature.dialogues(pipeline, args.seeds, args.minutes, tell)
    compare = {"gaze": temperature.compare, "lips": temperature.compare_lips}[args.of]
    return compare(model, clips, list(dict.fromkeys(args.temperatures or TEMPERATURES[args.of])), tell)


def _sigma(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import sigma

    return sigma.compare(pipeline, args.seeds, args.frames, tell)


def _resolution(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.engine.runtime.base import choose
    from flowact_ros.evaluation.experiments import resolution
    from flowact_ros.models.checkpoint import read_card, weights_dir

    ranges = None
    if args.preset != "debug" and choose(args.runtime).rounds:  # as the live stream
        folder = Path(args.weights) if args.weights else weights_dir() / pipeline.config.name
        ranges = read_card(folder / "renderer.safetensors")["activations"]
    return resolution.compare(pipeline, args.seeds, args.runtime, ranges, tell)


def _styles(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import styles

    codecs = [("shipped", pipeline.codec)]
    codecs += [(Path(run).name, styles.load_renderer(run, pipeline.config)) for run in args.renderer]
    return styles.compare(pipeline, codecs, args.seeds, args.frames, tell)


def _pictured_self_forcing(args: argparse.Namespace, pipeline: Any, tell: Tell) -> Any:
    from flowact_ros.evaluation.experiments import pictured_drift as drift
    from flowact_ros.evaluation.experiments.material import load_denoiser

    streams, made = drift.prepare(pipeline, args.streams, int(args.minutes), tell), {}
    for k, (name, source) in enumerate((("with", args.with_), ("without", args.without))):
        model = load_denoiser(source, pipeline.config).to(pipeline.device)
        start = 0.3 + 0.35 * k
        made[name] = drift.windows(model, streams, f"the denoiser trained {name} it", tell, start, start + 0.35)
    question = "does memory of the model's own, in training, keep a character itself?"
    table = drift.compare("self-forcing", question, streams, made, "without")
    if args.out is not None:
        drift.plot_minutes(table, args.out)
    return table


def _self_forcing(args: argparse.Namespace, pipeline: Any, tell: Tell) -> int:
    from flowact_ros.evaluation.experiments import self_forcing
    from flowact_ros.evaluation.experiments.material import load_denoiser
    from flowact_ros.evaluation.long_motion import long_motion
    from flowact_ros.training.lineage import commit_id

    names, streams, truth = ("with", "without"), [], []
    for k, source in enumerate((args.with_, args.without)):
        pipeline.denoiser = load_denoiser(source, pipeline.config).to(pipeline.device)
        name = f"denoiser_{self_forcing.fingerprint(pipeline.denoiser)}"
        tell(f"the denoiser trained {names[k]} it", 0.45 * k)
        truth, made = long_motion(pipeline, args.run, name, args.streams, 60 * args.minutes)
        streams.append(made)
    tell("bootstrap", 0.9)
    record = self_forcing.compare(names, streams, truth)
    record |= {"command": args.command, "commit": commit_id()}
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self_forcing.plot(args.out.with_suffix(".png"), record, truth)
    print(json.dumps(record, indent=1, ensure_ascii=False) if args.json else self_forcing.table(record))
    return 0
