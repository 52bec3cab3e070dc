# SPDX-License-Identifier: Apache-2.0
"""`flowact eval statistics`, `watch` and `drift`: what is measured on motion alone, minutes to hours of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

VERBS = ("statistics", "watch", "drift")
NEVER = "never refined"  # the row of memory as it is
Tell = Callable[[str, float], None]


def add_parsers(verbs: Any) -> None:
    """verbs: the sub-commands of `flowact eval`."""
    statistics = verbs.add_parser(
        "statistics", help="what training motion is like, for the live watch: a file beside the weights"
    )
    statistics.add_argument("data", nargs="+", type=Path, metavar="FOLDER", help="of `flowact data motion`")
    statistics.add_argument("--out", type=Path, required=True, metavar="FILE", help="training_motion.json")
    watch = verbs.add_parser(
        "watch", help="false alarms of the live watch in an hour, and faults planted into it"
    )
    drift = verbs.add_parser(
        "drift", help="does motion drift over minutes, with and without refinement of memory"
    )
    drift.add_argument(
        "--interval", type=int, action="append", metavar="N",
        help="refine memory every N chunks, 0: never (repeatable; default: 0 and 4)",
    )  # fmt: skip
    for verb in (watch, drift):
        verb.add_argument(
            "--run", type=Path, default=Path("runs/watch"), help="folder in which motion is kept, not pictures"
        )
        verb.add_argument("--streams", type=int, default=6, metavar="N", help="side by side (default: 6)")
        verb.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of each (default: 10)")
        verb.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
        verb.add_argument("--weights", metavar="DIR", help="folder of weights (default: the shipped ones)")
        verb.add_argument("--device", default="cpu", help="cpu or cuda")
        verb.add_argument(
            "--out", type=Path, metavar="FILE", help="JSON of the figures; drift: a plot beside it"
        )


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for what cannot be measured."""
    if args.verb == "statistics":
        return
    if not 1 <= args.streams <= 64:
        raise ValueError(f"--streams is {args.streams}; it must lie in 1 .. 64")
    least = 3 if args.verb == "watch" else 2  # a minute is seen before a planted fault, and another after it
    if not least <= args.minutes <= 240:
        raise ValueError(f"--minutes is {args.minutes:g}; it must lie in {least} .. 240")
    for interval in (args.interval or []) if args.verb == "drift" else []:
        if interval < 0:
            raise ValueError(f"--interval is {interval}; it must be 0 or more")


def run(args: argparse.Namespace, tell: Tell) -> int:
    return {"statistics": _statistics, "watch": _watch, "drift": _drift}[args.verb](args, tell)


def _statistics(args: argparse.Namespace, tell: Tell) -> int:
    from flowact_ros.data.performances import read_performances
    from flowact_ros.models.codec.motion_statistics import measure

    data = read_performances(*args.data)
    measure(data.controls).save(args.out)
    print(f"{args.out}: {len(data)} performances of {data.frames} frames", file=sys.stderr)
    return 0


def _streams(args: argparse.Namespace, tell: Tell, interval: int = 0) -> tuple[Any, list, list]:
    """(pipeline, the truth's streams, the model's)."""
    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.evaluation.long_motion import long_motion

    pipeline = build_pipeline(
        args.preset,
        args.device,
        weights=args.weights,
        runtime="eager",  # nothing is drawn
        overrides={"memory": {"refine_interval": interval}},
    )
    name = "never_refined" if not interval else f"refined_every_{interval}"
    return pipeline, *long_motion(pipeline, args.run, name, args.streams, 60 * args.minutes, tell)


def _watch(args: argparse.Namespace, tell: Tell) -> int:
    from flowact_ros.evaluation.watch import false_alarms, planted

    pipeline, truth, made = _streams(args, tell)
    if pipeline.training_motion is None:
        raise ValueError(
            "the weights have no training_motion.json; make it with `flowact eval statistics FOLDER --out FILE`"
        )
    report = {
        kind: {
            "healthy": false_alarms(streams, pipeline.training_motion),
            "planted": planted(streams, pipeline.training_motion),
        }
        for kind, streams in (("truth", truth), ("model", made))
    }
    _write(args.out, report)
    print(json.dumps(report, indent=1))
    sound = all(not r["healthy"]["alarms"] and all(f["found"] == f["planted"] for f in r["planted"].values())
                for r in report.values())  # fmt: skip
    return 0 if sound else 1


def _drift(args: argparse.Namespace, tell: Tell) -> int:
    from flowact_ros.evaluation.drift import drift_row, plot, table, truth_distances
    from flowact_ros.models.config import preset
    from flowact_ros.training.lineage import commit_id

    if preset(args.preset).video is not None:
        return _pictured_drift(args, tell)
    rows, truth = [], None
    for interval in args.interval or [0, 4]:
        _, true, made = _streams(args, tell, interval)
        truth = truth_distances(true) if truth is None else truth
        rows.append(drift_row(f"refined every {interval} chunks" if interval else NEVER, made))
    assert truth is not None  # there is one interval at least
    if args.out is not None:
        asked = "".join(f" --interval {interval}" for interval in args.interval or [])
        command = f"flowact eval drift{asked} --streams {args.streams} --minutes {args.minutes:g}"
        _write(args.out, {
            "command": command, "commit": commit_id(), "seeds": args.streams,
            "truth": [round(float(x), 3) for x in truth],
            "rows": [asdict(row) for row in rows],
        })  # fmt: skip
        plot(args.out.with_suffix(".png"), rows, truth)
    print(table(rows, truth))
    return 0


def _pictured_drift(args: argparse.Namespace, tell: Tell) -> int:
    """Of a spatial preset: does a character stay itself?"""
    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.evaluation.experiments import pictured_drift as drift
    from flowact_ros.evaluation.experiments.material import configured
    from flowact_ros.evaluation.experiments.pictured import check_vae

    pipeline = build_pipeline(args.preset, args.device, weights=args.weights, runtime="eager")
    check_vae(pipeline.config, args.weights)
    streams, made = drift.prepare(pipeline, args.streams, int(args.minutes), tell), {}
    intervals = args.interval or [0, 4]
    for k, interval in enumerate(intervals):
        model = configured(pipeline.denoiser, {"memory": {"refine_interval": interval}})
        name = f"refined every {interval} chunks" if interval else NEVER
        share = 0.7 / len(intervals)
        made[name] = drift.windows(model, streams, name, tell, 0.3 + k * share, 0.3 + (k + 1) * share)
    question = "does a stream of pictures lose who it shows, and does refining memory help?"
    found = drift.compare("drift", question, streams, made, NEVER if NEVER in made else None)
    if args.out is not None:
        found.write(args.out, args.command)
        drift.plot_minutes(found, args.out)
    found.show()
    return 0


def _write(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
