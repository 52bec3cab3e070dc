# SPDX-License-Identifier: Apache-2.0
"""The verbs of `flowact` and their options. Nothing heavy is imported for `--help`."""

from __future__ import annotations

import argparse

from flowact_ros.vocabulary import AUDIO_ENCODERS, DRAW_EVERY

EXAMPLES = {
    "": """examples:
  flowact demo                                 a page with a character that speaks, listens and idles
  flowact demo --wav hello.wav --seconds 10 --record out.mp4 --headless
  flowact demo --text "Good morning, everybody!"
  flowact say "Good morning"                   through an avatar that runs already
  flowact doctor                               what is installed, and what to do about problems""",
    "demo": """examples:
  flowact demo
  flowact demo --wav hello.wav
  flowact demo --text "Good morning, everybody!"
  flowact demo --mic-as-speech                 the character speaks what you say
  flowact demo --talk                          it listens, thinks and answers
  flowact demo --talk --planner openai --planner-url http://127.0.0.1:11434/v1 --planner-model NAME
  flowact demo --script config/dialogue.yaml --headless --record talk.mp4
  flowact demo --wav hello.wav --seconds 10 --record out.mp4 --headless""",
    "up": """examples:
  flowact up
  flowact up --params-file robot.yaml --namespace robot1/avatar
  flowact up --namespace robot1/avatar robot2/avatar   two avatars that share one model
  flowact up --without kiosk_bridge""",
    "say": """examples:
  flowact say "Good morning"
  flowact say "Stop, please" --policy interrupt
  flowact say --wav hello.wav
  echo "Good morning" | flowact say -
  flowact say --wav alarm.wav --policy interrupt --priority 200""",
}
#: Verbs with parsers of their own, in the rooms that know their options: the module, and what it is for.
PASSED_ON = {
    "train": ("flowact_ros.training.main", "train a stage of the model"),
    "data": ("flowact_ros.data.prepare", "make or prepare training data"),
    "eval": ("flowact_ros.evaluation.main", "measure quality: `flowact eval quick`"),
    "bench": ("flowact_ros.evaluation.bench", "measure speed and latency of the live stream"),
    "render": ("flowact_ros.evaluation.render", "write a film of a character that says a sound file, on any devices"),
    "serve": ("flowact_ros.fleet.serve", "a fleet: streams for robots without a GPU, on Ray Serve"),
    "record": ("flowact_ros.nodes.bag_record_command", "record a running avatar into a rosbag2 recording"),
    "replay": ("flowact_ros.nodes.bag_replay_command", "make the frames of a recording again, and verify them"),
    "soak": ("flowact_ros.evaluation.soak", "run for hours, with --chaos while things break, and report"),
    "weights": ("flowact_ros.weights_cli", "get models of recognisers, planners and encoders"),
    "presets": ("flowact_ros.presets_cli", "how large the models are, and what a chunk costs"),
    "export": ("flowact_ros.export_cli", "write the networks as ONNX files"),
    "doctor": ("flowact_ros.launcher.doctor", "what is installed, and what to do about problems"),
    "security": ("flowact_ros.nodes.security_policy", "print the SROS 2 policy of the nodes"),
}
RECOGNIZERS = ("faster-whisper", "whisper", "transformers")
PLANNERS = ("rules", "embedded", "transformers", "openai")


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    flowact = argparse.ArgumentParser(
        prog="flowact",
        description="A living face for robots with a screen: speech in, a talking character out.",
        epilog=EXAMPLES[""],
        formatter_class=raw,
    )
    verbs = flowact.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(name: str, help_: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name, help=help_, description=help_, epilog=EXAMPLES[name], formatter_class=raw
        )

    demo = add("demo", "all nodes, and a page on which the avatar speaks, then listens and idles")
    _common(demo)
    demo.add_argument("--wav", metavar="FILE", help="what it says; - for a pipe (default: the shipped sentence)")
    demo.add_argument("--text", metavar="TEXT", help="what it says instead, by the speech synthesizer")
    demo.add_argument("--talk", action="store_true", help="a conversation: it hears you, thinks and answers")
    demo.add_argument("--script", metavar="FILE", help="a conversation with the user of a YAML file; no microphone")
    demo.add_argument("--mic-as-speech", action="store_true", help="it says what the microphone hears")
    demo.add_argument("--mic", metavar="DEVICE", help="microphone: part of its name, its index, or default")
    demo.add_argument("--no-mic", action="store_true", help="no microphone")
    demo.add_argument("--seconds", type=float, default=0.0, metavar="N", help="end after N seconds")
    demo.add_argument("--record", metavar="FILE.mp4", help="write a video with sound")
    demo.add_argument(
        "--headless", action="store_true", help="no browser, and no microphone unless asked for"
    )
    demo.add_argument("--no-browser", action="store_true", help="do not open the page")

    up = add("up", "start the nodes and keep them running: restart on crash, one log")
    _common(up, several=True)
    up.add_argument("--mic", metavar="DEVICE", help="microphone: part of its name, its index, or default")
    up.add_argument("--no-mic", action="store_true", help="no microphone")
    up.add_argument(
        "--without", action="append", default=[], metavar="NODE", help="leave a node out (repeatable)"
    )

    say = add("say", "speak a text or a sound file through an avatar that runs already")
    say.add_argument("words", nargs="?", metavar="TEXT", help="what it says; - for a pipe")
    say.add_argument("--wav", metavar="FILE", help="wav, flac, ogg or mp3 instead; - for a pipe")
    say.add_argument("--text", default="", help="what the file says, for logs, captions and feedback")
    say.add_argument("--namespace", default="avatar", help="of the avatar (default: avatar)")
    say.add_argument(
        "--policy", choices=("queue", "interrupt", "reject"), default="queue", help="while it speaks"
    )
    say.add_argument("--priority", type=int, default=0, help="0 … 255: interrupts only the same or less")
    say.add_argument("--timeout", type=float, default=10.0, metavar="S", help="wait so long for the avatar")

    for name, (_, help_) in PASSED_ON.items():
        verbs.add_parser(name, help=help_, add_help=False)
    return flowact


def _common(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    if several:
        help_ = "of all topics (default: avatar); several: as many avatars, whose generators share one model"
        parser.add_argument("--namespace", nargs="+", default=["avatar"], metavar="NAMESPACE", help=help_)
    else:
        parser.add_argument("--namespace", default="avatar", help="of all topics (default: avatar)")
    parser.add_argument("--params-file", metavar="FILE", help="ROS parameters (default: config/flowact.yaml)")
    parser.add_argument("--preset", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--weights", metavar="DIR", help="of the model; random: untrained ones, for speed runs")
    parser.add_argument("--listen", metavar="MODEL", help="turn what is heard into text: tiny.en, base, a path")
    parser.add_argument("--recognizer", choices=RECOGNIZERS, help="with --listen or --talk: what runs that model")
    parser.add_argument("--planner", choices=PLANNERS, help="who answers (--talk: embedded if it is there)")
    parser.add_argument("--planner-model", metavar="MODEL", help="name or path of its language model")
    parser.add_argument("--planner-url", metavar="URL", help="of its server, such as http://127.0.0.1:11434/v1")
    parser.add_argument("--audio-encoder", choices=AUDIO_ENCODERS, help="what moves the lips hears by")
    parser.add_argument("--character", help="name of a shipped character")
    parser.add_argument(
        "--draw-every", type=int, choices=DRAW_EVERY, metavar="N",
        help="1, 2 or 4: draw every N-th frame, on a processor that cannot draw 25 a second",
    )  # fmt: skip
    parser.add_argument("--speaker", metavar="DEVICE", help="play on this machine: part of its name, index, or default")
    parser.add_argument("--host", help="address of the page (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port of the page; 0 takes any free one")
    parser.add_argument("--log-level", choices=("debug", "info", "warn", "error"), default="info")
    parser.add_argument("--log-file", metavar="FILE", help="where the log goes (default: ~/.ros/log)")
    parser.add_argument("--verbose", action="store_true", help="show the whole log here as well")
