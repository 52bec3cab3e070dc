# SPDX-License-Identifier: Apache-2.0
"""The `flowact` command. Every verb is a thin call into its room; heavy imports wait until a verb needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from flowact_ros.vocabulary import AUDIO_ENCODERS

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
  flowact up --without kiosk_bridge""",
    "say": """examples:
  flowact say "Good morning"
  flowact say "Stop, please" --policy interrupt
  flowact say --wav hello.wav
  echo "Good morning" | flowact say -
  flowact say --wav alarm.wav --policy interrupt --priority 200""",
}
_PASSED_ON = {
    "train": ("flowact_ros.training.main", "train a stage of the model"),
    "data": ("flowact_ros.data.prepare", "make or prepare training data"),
    "eval": ("flowact_ros.evaluation.main", "measure quality: `flowact eval quick`"),
    "bench": ("flowact_ros.evaluation.bench", "measure speed and latency of the live stream"),
    "weights": ("flowact_ros.weights_cli", "get models of recognisers, planners and encoders"),
    "doctor": ("flowact_ros.launcher.doctor", "what is installed, and what to do about problems"),
}


_RECOGNIZERS = ("faster-whisper", "whisper", "transformers")
_PLANNERS = ("rules", "embedded", "transformers", "openai")


class UsageError(ValueError):
    """A command line that cannot be carried out: one line."""


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="flowact",
        description="A living face for robots with a screen: speech in, a talking character out.",
        epilog=EXAMPLES[""],
        formatter_class=raw,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

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
    _common(up)
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

    for name, (_, help_) in _PASSED_ON.items():
        verbs.add_parser(name, help=help_, add_help=False)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", default="avatar", help="of all topics (default: avatar)")
    parser.add_argument("--params-file", metavar="FILE", help="ROS parameters (default: config/flowact.yaml)")
    parser.add_argument("--preset", help="model preset (default: avatar_cpu)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--listen", metavar="MODEL", help="turn what is heard into text: tiny.en, base, a path")
    parser.add_argument("--recognizer", choices=_RECOGNIZERS, help="with --listen or --talk: what runs that model")
    parser.add_argument("--planner", choices=_PLANNERS, help="who answers (--talk: embedded if it is there)")
    parser.add_argument("--planner-model", metavar="MODEL", help="name or path of its language model")
    parser.add_argument("--planner-url", metavar="URL", help="of its server, such as http://127.0.0.1:11434/v1")
    parser.add_argument("--audio-encoder", choices=AUDIO_ENCODERS, help="what moves the lips hears by")
    parser.add_argument("--character", help="name of a shipped character")
    parser.add_argument("--host", help="address of the page (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port of the page; 0 takes any free one")
    parser.add_argument("--log-level", choices=("debug", "info", "warn", "error"), default="info")
    parser.add_argument("--log-file", metavar="FILE", help="where the log goes (default: ~/.ros/log)")
    parser.add_argument("--verbose", action="store_true", help="show the whole log here as well")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 failed, 2 a command line or an environment that cannot be, 130 interrupted."""
    from flowact_ros.launcher.streams import lasting_streams

    with lasting_streams():
        arguments = list(sys.argv[1:] if argv is None else argv)
        if arguments and arguments[0] in _PASSED_ON:
            return _pass_on(arguments[0], arguments[1:])
        options = _parser().parse_args(arguments)
        return _carry_out(options)


def _carry_out(options: argparse.Namespace) -> int:
    from flowact_ros.launcher.environment import EnvironmentProblem

    try:
        return {"demo": _demo, "up": _up, "say": _say}[options.verb](options)
    except (UsageError, FileNotFoundError, EnvironmentProblem) as error:
        print(f"flowact {options.verb}: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"flowact {options.verb}: {_broken_package(error)}", file=sys.stderr)
        return 2
    except (ValueError, RuntimeError) as error:
        print(f"flowact {options.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _pass_on(verb: str, arguments: list[str]) -> int:
    """These verbs have their own parsers, in the rooms that know their options."""
    import importlib

    try:
        entry: Callable[[list[str]], int | None] = importlib.import_module(_PASSED_ON[verb][0]).main
    except ImportError as error:
        print(f"flowact {verb}: {_broken_package(error)}", file=sys.stderr)
        return 2
    try:
        return int(entry(arguments) or 0)
    except KeyboardInterrupt:
        return 130


def _broken_package(error: ImportError) -> str:
    """One line on a package that is missing, or there and not usable."""
    from flowact_ros.launcher.environment import import_advice

    advice = import_advice((error.name or "").partition(".")[0] or "rclpy", os.environ)
    return f"{' '.join(str(error).split())}; {advice}"


def _check_common(options: argparse.Namespace) -> None:
    from pathlib import Path

    if options.params_file and not Path(options.params_file).expanduser().is_file():
        raise UsageError(f"--params-file: there is no file {options.params_file}")
    if options.port is not None and not 0 <= options.port <= 65535:
        raise UsageError(f"--port: {options.port} is not 0 … 65535")
    _check_environment(options)
    if options.character:
        from flowact_ros.engine.characters import list_characters

        if options.character not in list_characters():
            raise UsageError(
                f"--character: {options.character!r} is not one of {', '.join(list_characters())}"
            )


def _check_environment(options: argparse.Namespace) -> None:
    """Before anything is started or read. Raises UsageError or EnvironmentProblem."""
    from flowact_ros.launcher import environment

    try:
        options.namespace = environment.checked_namespace(options.namespace)
    except environment.EnvironmentProblem as problem:
        raise UsageError(f"--namespace: {problem}") from None
    environment.check(os.environ)


def _check_sound(path: str) -> str:
    """The absolute path of a readable sound file: of a copy if it comes through a pipe. Raises UsageError."""
    import atexit
    from pathlib import Path

    from flowact_ros.media.errors import MediaError
    from flowact_ros.media.wav import as_file, read_audio

    given = Path(path).expanduser()
    try:
        file = as_file(given)
        if file != given.resolve():
            atexit.register(file.unlink, missing_ok=True)
        read_audio(file)
    except MediaError as error:
        raise UsageError(f"--wav: {error}") from None
    return str(file)


def _demo(options: argparse.Namespace) -> int:
    from pathlib import Path

    from flowact_ros.launcher.bringup import Options, run_demo
    from flowact_ros.launcher.resources import config_file

    _check_common(options)
    sources = ("wav", "text", "mic_as_speech", "talk", "script")
    given = [name for name in sources if getattr(options, name)]
    if len(given) > 1:
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{names}: give one of the two")
    if options.text is not None and not options.text.strip():
        raise UsageError("--text: there is nothing to say")
    if not 0 <= options.seconds <= 86_400:
        raise UsageError(f"--seconds: {options.seconds:g} is not 0 … 86400 (0: until Ctrl-C)")
    record = ""
    if options.record:
        target = Path(options.record).expanduser()
        if target.suffix.lower() != ".mp4" or not target.resolve().parent.is_dir():
            raise UsageError(f"--record: {options.record} must be an .mp4 file in a folder that exists")
        record = str(target.resolve())
    wav = ""
    if options.wav or not given:
        wav = _check_sound(options.wav or str(config_file("demo.wav")))
    script = _check_script(options)
    return run_demo(
        Options(
            **_shared(options),
            wav=wav,
            text=options.text or "",
            talk=options.talk or bool(script),
            script=script,
            microphone=not script and _wants_microphone(options),
            mic_as_speech=options.mic_as_speech,
            seconds=options.seconds,
            record=record,
            browser=not (options.headless or options.no_browser),
        )
    )


def _wants_microphone(options: argparse.Namespace) -> bool:
    return bool(options.mic) or not (options.no_mic or (options.headless and not options.talk))


def _check_script(options: argparse.Namespace) -> str:
    """The absolute path of a script that can be played, "" without one. Raises UsageError."""
    from pathlib import Path

    from flowact_ros.dialogue.script import ScriptError, load_script
    from flowact_ros.launcher.talk import SCRIPT

    if not options.script:
        if options.listen == SCRIPT:
            raise UsageError(f"--listen {SCRIPT}: goes with --script, whose words are to take a recogniser's place")
        return ""
    if options.mic:
        raise UsageError("--script and --mic: the script's user speaks instead of a microphone; give one of the two")
    try:
        load_script(options.script)
    except ScriptError as error:
        raise UsageError(f"--script: {error}") from None
    return str(Path(options.script).expanduser().resolve())


def _up(options: argparse.Namespace) -> int:
    from flowact_ros.launcher.bringup import Options, run_up

    _check_common(options)
    shared = _shared(options)
    return run_up(Options(**shared, microphone=not options.no_mic, without=tuple(options.without)))


def _shared(options: argparse.Namespace) -> dict:
    from pathlib import Path

    return {
        "namespace": options.namespace,
        "params_file": str(Path(options.params_file).expanduser().resolve()) if options.params_file else "",
        "preset": options.preset or "",
        "character": options.character or "",
        "device": options.device or "",
        "listen": options.listen or "",
        "recognizer": options.recognizer or "",
        "planner": options.planner or "",
        "planner_model": options.planner_model or "",
        "planner_url": options.planner_url or "",
        "audio_encoder": options.audio_encoder or "",
        "host": options.host or "",
        "port": options.port,
        "device_name": options.mic or "default",
        "log_level": options.log_level,
        "log_file": options.log_file or "",
        "verbose": options.verbose,
    }


def _say(options: argparse.Namespace) -> int:
    from flowact_ros.media.wav import read_audio

    if not 0 <= options.priority <= 255:
        raise UsageError(f"--priority: {options.priority} is not 0 … 255")
    if not options.timeout > 0:
        raise UsageError(f"--timeout: {options.timeout:g} is not above 0")
    _check_environment(options)
    pcm, rate, text = None, 0, options.text
    if options.wav and options.words is None:
        pcm, rate = read_audio(_check_sound(options.wav))
    elif options.wav or options.words is None or options.text:
        raise UsageError('give a text, as in flowact say "Good morning", or --wav FILE (and --text, what it says)')
    else:
        text = (sys.stdin.read() if options.words == "-" else options.words).strip()
        if not text:
            raise UsageError("there is nothing to say: the text is empty")
    say = _import_say()

    return say(
        pcm,
        rate,
        text=text,
        namespace=options.namespace,
        policy=options.policy,
        priority=options.priority,
        timeout_s=options.timeout,
    )


def _import_say() -> Callable[..., int]:
    """Raises ImportError, whatever a broken ROS raises."""
    try:
        from flowact_ros.nodes.say_client import say
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"ROS 2 cannot be used ({type(error).__name__}: {error})", name="rclpy") from error
    return say


if __name__ == "__main__":
    sys.exit(main())
