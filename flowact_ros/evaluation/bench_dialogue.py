# SPDX-License-Identifier: Apache-2.0
"""`flowact bench dialogue`: how soon a user is reacted to, answered, and let in when he interrupts.

    flowact bench dialogue                                # 50 turns, about 6 minutes; the persona's replies answer
    flowact bench dialogue --planner embedded             # SmolLM2-135M in the planner's process
    flowact bench dialogue --planner openai --url http://127.0.0.1:11434/v1 --model NAME
    flowact bench dialogue --turns 8 --listen script      # without a recogniser: its words, 0.6 s after the voice

A synthetic voice says the turns of a script into `mic`; all nodes and one page client run. Times are counted from the
last sample of the user's voice (of an interruption: from the first) to the arrival at a subscriber, which is 80 ms
before a frame is to be seen. `first_answer_s` leaves out sentences that only say that there is no answer;
`false_reactions` counts faces that took a pause for the end. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from flowact_ros.dialogue.language_model import BACKENDS
from flowact_ros.dialogue.recognizer import BACKENDS as RECOGNIZERS
from flowact_ros.dialogue.script import load_script
from flowact_ros.evaluation.bench_nodes import run_program
from flowact_ros.evaluation.load import percentiles
from flowact_ros.evaluation.recordings import word_errors

PROGRAM = "flowact_ros.nodes.benchmark_dialogue"  # only nodes/ knows ROS: it runs as a program of its own
STEPS = {
    "instruction_s": "end of speech to the planner's word to think",
    "reaction_s": "… to a face that shows it",
    "final_text_s": "… to its final text",
    "first_sentence_s": "… to the first sentence of the answer",
    "reply_s": "… to the first frame that speaks",
    "first_answer_s": "… to the first frame that speaks an answer",
    "barge_in_s": "voice that interrupts to speech that rests",
}
TARGETS = {
    ("reaction_s", "p95"): 0.4,
    ("reply_s", "p50"): 1.5,
    ("reply_s", "p95"): 2.5,
    ("barge_in_s", "p95"): 0.6,
}
REPEATED_A_MINUTE = 5.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact bench dialogue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--planner", choices=("rules", *BACKENDS), default="rules", help="who answers")
    parser.add_argument("--model", default="", help="name or path of its language model")
    parser.add_argument("--url", default="", help="of its server")
    parser.add_argument("--recognizer", choices=tuple(RECOGNIZERS), default="faster-whisper")
    parser.add_argument(
        "--listen", default="tiny.en", metavar="MODEL", help="of the recogniser (default: tiny.en), or script"
    )
    parser.add_argument("--turns", type=int, default=50, metavar="N", help="1 to 1000 (default: 50)")
    parser.add_argument(
        "--script",
        default="",
        metavar="FILE",
        help="YAML file of turns (default: the shipped dialogue_bench.yaml)",
    )
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    args = _parser().parse_args(argv)
    try:
        if not 1 <= args.turns <= 1000:
            raise ValueError(f"--turns is {args.turns}; it must lie in 1 .. 1000")
        if args.script:
            load_script(args.script)
    except ValueError as error:
        print(f"flowact bench dialogue: {error}", file=sys.stderr)
        return 2
    order = {**vars(args), "script": args.script and str(Path(args.script).expanduser().resolve())}
    load = os.getloadavg()[0]
    try:
        result = summary(run_program(PROGRAM, order), args, load)
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact bench dialogue: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0


def summary(seen: dict[str, Any], args: argparse.Namespace, load_before: float) -> dict[str, Any]:
    """What `--json` prints, from what `nodes/benchmark_dialogue.py` saw."""
    turns = seen["turns"]
    after = {
        "instruction_s": _after(turns, "ended_s", "instructed_s"),
        "reaction_s": _after(turns, "ended_s", "reacted_s"),
        "final_text_s": _after(turns, "ended_s", "heard_s"),
        "first_sentence_s": _after(turns, "ended_s", "planned_s"),
        "reply_s": _after(turns, "ended_s", "spoken_s"),
        "first_answer_s": _after(turns, "ended_s", "answered_s"),
        "barge_in_s": _after([turn for turn in turns if turn["broke_in"]], "began_s", "rested_s"),
    }
    errors = [word_errors(turn["said"], turn["heard"]) for turn in turns if turn["said"]]
    minutes = seen["seconds"] / 60
    planner = seen["planner"]
    return {
        "planner_backend": planner.get("planner_backend", args.planner),
        "model": args.model,
        "recognizer": "none: the script's words" if args.listen == "script" else args.recognizer,
        "listen": args.listen,
        "turns": len(turns),
        "answered": len(after["reply_s"]),
        "fallbacks": int(planner.get("fallbacks", 0)),
        "broken_off": int(planner.get("broken_off", 0)),
        **{name: percentiles(values) for name, values in after.items()},
        "false_reactions": sum(turn["false_reactions"] for turn in turns),
        "counts": {name: len(values) for name, values in after.items()},
        "barge_in_reason": ""
        if after["barge_in_s"]
        else "no turn broke into an answer that was still being said",
        "word_error_rate": round(sum(e for e, _ in errors) / max(1, sum(n for _, n in errors)), 4),
        "minutes": round(minutes, 2),
        "frames": seen["frames"],
        "fps": round(seen["frames"] / seen["seconds"], 2),
        "repeated_frames": seen["repeated"],
        "repeated_a_minute": round(seen["repeated"] / minutes, 2),
        "dropped_frames": seen["dropped"],
        "processes": seen["processes"],
        "page_frames": seen["page_frames"],
        "page_error": seen["page_error"],
        "machine": _machine(load_before),
        "log": [_line(turn) for turn in turns],
    }


def _machine(load_before: float) -> dict[str, Any]:
    from flowact_ros.evaluation.report import machine

    return {**machine(), "load_before": round(load_before, 2)}


def _after(turns: list[dict[str, Any]], since: str, what: str) -> list[float]:
    """Seconds from one to the other, of the turns that have both in this order."""
    pairs = [(turn[since], turn[what]) for turn in turns]
    return [
        there - begun for begun, there in pairs if begun is not None and there is not None and there >= begun
    ]


def _line(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn, with seconds since the end of the user's voice."""
    end = turn["ended_s"]
    times = {
        name: round(turn[name] - end, 3)
        for name in (
            "instructed_s",
            "reacted_s",
            "heard_s",
            "planned_s",
            "spoken_s",
            "answered_s",
            "rested_s",
        )
        if turn[name] is not None and end is not None
    }
    return {name: turn[name] for name in ("said", "heard", "answer", "broke_in", "false_reactions")} | times


def show(result: dict[str, Any]) -> None:
    """The table with its targets."""
    from flowact_ros.evaluation.report import Report

    heard = (
        result["recognizer"] if result["listen"] == "script" else f"{result['recognizer']} {result['listen']}"
    )
    report = Report(f"flowact bench dialogue: {result['turns']} turns, {result['minutes']:.1f} minutes")
    for name, text in STEPS.items():
        for share in ("p50", "p95"):
            value = result[name][share]
            value = float("nan") if value is None else value
            most = TARGETS.get((name, share))
            count = result["counts"][name]
            report.add(f"{name}.{share}", f"{text}, {share} of {count}", value, "s", most=most)
    report.add(
        "false_reactions",
        "pauses taken for the end, a turn",
        result["false_reactions"] / max(1, result["turns"]),
        digits=2,
    )
    report.add("fps", "frames a second", result["fps"], least=24.9, digits=2)
    report.add(
        "repeated", "frames repeated a minute", result["repeated_a_minute"], most=REPEATED_A_MINUTE, digits=1
    )
    report.add("answered", "turns answered", result["answered"], least=result["turns"], digits=0)
    report.add("words", "word error rate of what was heard", 100 * result["word_error_rate"], "%", digits=1)
    report.facts = {
        "answers": f"{result['planner_backend']} {result['model']}".rstrip(),
        "hearing": heard,
        "fallbacks": f"{result['fallbacks']} of {result['turns']}; {result['broken_off']} answers broken off",
        "processes": ", ".join(f"{name} {share}" for name, share in result["processes"].items()),
        "machine": ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
    }
    if result["barge_in_reason"]:
        report.facts["barge_in"] = result["barge_in_reason"]
    report.show()


if __name__ == "__main__":
    raise SystemExit(main())
