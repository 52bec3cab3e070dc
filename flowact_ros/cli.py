# SPDX-License-Identifier: Apache-2.0
"""The `flowact` command. Every verb is a thin call into its room; heavy imports wait until a verb needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from flowact_ros.cli_options import PASSED_ON, parser


class UsageError(ValueError):
    """A command line that cannot be carried out: one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 failed, 2 a command line or an environment that cannot be, 130 interrupted."""
    from flowact_ros.launcher.streams import lasting_streams

    with lasting_streams():
        arguments = list(sys.argv[1:] if argv is None else argv)
        if arguments and arguments[0] in PASSED_ON:
            return _pass_on(arguments[0], arguments[1:])
        options = parser().parse_args(arguments)
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
        entry: Callable[[list[str]], int | None] = importlib.import_module(PASSED_ON[verb][0]).main
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

    names = _check_namespaces(options)
    _check_common(options)
    common = _shared(options)
    if len(names) > 1:
        return run_up(Options(**common, shared=names, microphone=False, without=tuple(options.without)))
    return run_up(Options(**common, microphone=not options.no_mic, without=tuple(options.without)))


def _check_namespaces(options: argparse.Namespace) -> tuple[str, ...]:
    """All that were given; `options.namespace` becomes the first. Raises UsageError for what several cannot have."""
    from flowact_ros.launcher import environment

    try:
        names = tuple(environment.checked_namespace(name) for name in options.namespace)
    except environment.EnvironmentProblem as problem:
        raise UsageError(f"--namespace: {problem}") from None
    options.namespace = names[0]
    if len(set(names)) < len(names):
        raise UsageError(f"--namespace: {max(names, key=names.count)} is given twice")
    for option in ("mic", "speaker", "listen") if len(names) > 1 else ():
        if getattr(options, option):
            raise UsageError(
                f"--{option}: is for one avatar, and {len(names)} namespaces were given; start its node by itself, in "
                f"the namespace that it is for (docs/many_robots.md)"
            )
    if len(names) > 1 and os.environ.get("ROS_SECURITY_ENABLE", "").lower() == "true":
        raise UsageError("--namespace: with SROS 2 each avatar needs a process and keys of its own; give one namespace")
    return names


def _shared(options: argparse.Namespace) -> dict:
    from pathlib import Path

    return {
        "namespace": options.namespace,
        "params_file": str(Path(options.params_file).expanduser().resolve()) if options.params_file else "",
        "preset": options.preset or "",
        "character": options.character or "",
        "device": options.device or "",
        "weights": options.weights or "",
        "listen": options.listen or "",
        "recognizer": options.recognizer or "",
        "planner": options.planner or "",
        "planner_model": options.planner_model or "",
        "planner_url": options.planner_url or "",
        "audio_encoder": options.audio_encoder or "",
        "draw_every": options.draw_every or 0,
        "host": options.host or "",
        "port": options.port,
        "device_name": options.mic or "default",
        "speaker": options.speaker or "",
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
