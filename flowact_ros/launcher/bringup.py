# SPDX-License-Identifier: Apache-2.0
"""Which nodes `flowact up` and `flowact demo` start, and what the demo does with them. No ROS in here."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowact_ros.kiosk.browser import open_page
from flowact_ros.launcher.claim import Claim
from flowact_ros.launcher.environment import log_folder
from flowact_ros.launcher.log_file import file_log, sweep
from flowact_ros.launcher.resources import FIRST_PORT, config_file
from flowact_ros.launcher.supervisor import (
    EXIT_BAD_SETUP,
    BadSetup,
    NodeSpec,
    Supervisor,
    SupervisorError,
)
from flowact_ros.launcher.talk import SCRIPT, TalkProblem, echo_mode, parameters, with_conversation

START_TIMEOUT_S = 180.0  # a cold disk and a slow board included
SPEECH_DELAY_S = 1.0  # the face is seen before it speaks
# Errors that end a node are told by `run_up` and `run_demo`, in the node's name.
_NOTABLE = re.compile(r"\[(WARN|ERROR|FATAL)\]|Traceback|^\S+ ended|^error:")


@dataclass(frozen=True)
class Options:
    """What the command line decided; every field has the meaning of the option of its name."""

    namespace: str = "avatar"
    shared: tuple[str, ...] = ()  # the namespaces of several avatars, whose generators share one process and model
    params_file: str = ""
    preset: str = ""
    character: str = ""
    device: str = ""
    weights: str = ""
    talk: bool = False
    script: str = ""
    listen: str = ""  # SCRIPT: the script's own words, without a recogniser
    recognizer: str = ""
    planner: str = ""
    planner_model: str = ""
    planner_url: str = ""
    audio_encoder: str = ""
    draw_every: int = 0
    host: str = ""
    port: int | None = None
    wav: str = ""
    text: str = ""
    microphone: bool = True
    device_name: str = "default"
    speaker: str = ""
    mic_as_speech: bool = False
    seconds: float = 0.0
    record: str = ""
    browser: bool = True
    without: tuple[str, ...] = ()
    log_level: str = ""
    log_file: str = ""
    verbose: bool = False


def node_specs(options: Options) -> list[NodeSpec]:
    """The nodes, with their parameters: those of the file, and above them those of the command line.

    Raises SupervisorError for a node to be left out that there is not.
    """
    return _shared_specs(options) if options.shared else _specs(options)


def _shared_specs(options: Options) -> list[NodeSpec]:
    """Of several namespaces: one generator for all; the others' nodes each, with pages on ports behind each other."""
    specs = []
    for number, namespace in enumerate(options.shared):
        port = 0 if options.port == 0 else (options.port or FIRST_PORT) + number
        own = replace(options, namespace=namespace, shared=(), port=port)
        for spec in _specs(own):
            if spec.name != "avatar_generator":
                specs.append(replace(spec, label=f"{namespace}/{spec.name}"))
            elif number == 0:
                module = "flowact_ros.nodes.shared_generator"
                specs.insert(0, replace(spec, module=module, namespaces=options.shared))
    return specs


def _specs(options: Options) -> list[NodeSpec]:
    """Of one namespace."""
    common: dict[str, Any] = {
        "namespace": options.namespace,
        "params_file": options.params_file or str(config_file("flowact.yaml")),
        "log_level": options.log_level,
    }
    generator = {
        key: value
        for key, value in (
            ("preset", options.preset),
            ("character", options.character),
            ("device", options.device),
            ("weights_dir", options.weights),
            ("audio_backend", options.audio_encoder),
            ("draw_every", options.draw_every),
        )
        if value
    }
    page: dict[str, Any] = {"host": options.host} if options.host else {}
    if options.port is not None:
        page["port"] = options.port
    specs = [
        NodeSpec("avatar_generator", "flowact_ros.nodes.avatar_generator", parameters=generator, **common),
        NodeSpec("kiosk_bridge", "flowact_ros.nodes.kiosk_bridge", parameters=page, **common),
        NodeSpec(
            "instruction_planner",
            "flowact_ros.nodes.instruction_planner",
            parameters=parameters(options),
            **common,
        ),
        NodeSpec("speech_synthesizer", "flowact_ros.nodes.speech_synthesizer", **common),
    ]
    if options.listen and options.listen != SCRIPT:
        hears: dict[str, Any] = {"model": options.listen}
        if options.recognizer:
            hears["recognizer"] = options.recognizer
        if echo := echo_mode(options):
            hears["echo"] = echo
        specs.append(
            NodeSpec("speech_recognizer", "flowact_ros.nodes.speech_recognizer", parameters=hears, **common)
        )
    capture = "flowact_ros.nodes.audio_capture"
    if options.microphone or options.mic_as_speech:
        role = "speech" if options.mic_as_speech else "mic"
        source = {"role": role, "source": "microphone", "device": options.device_name}
        specs.append(NodeSpec("microphone", capture, parameters=source, **common))
    if options.speaker:
        module = "flowact_ros.nodes.audio_player"
        specs.append(NodeSpec("audio_player", module, parameters={"device": options.speaker}, **common))
    if options.wav:
        source = {"role": "speech", "source": "file", "file": options.wav, "start_delay": SPEECH_DELAY_S}
        specs.append(NodeSpec("speech_source", capture, parameters=source, **common))
    if options.script:
        user = {"script": options.script, "transcribe": options.listen == SCRIPT}
        module = "flowact_ros.nodes.scripted_user"
        specs.append(NodeSpec("scripted_user", module, parameters=user, oneshot=True, **common))
    if options.record:
        film: dict[str, Any] = {"path": options.record, "seconds": float(options.seconds)}
        if options.talk:  # both sides of it are heard, and read
            film |= {"voices": True, "captions": True}
        specs.append(NodeSpec("recorder", "flowact_ros.nodes.recorder", parameters=film, oneshot=True, **common))
    unknown = set(options.without) - {spec.name for spec in specs}
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise SupervisorError(f"no node is called {', '.join(sorted(unknown))}; there are {names}")
    return [spec for spec in specs if spec.name not in options.without]


def environment(*, private: bool) -> dict[str, str]:
    """What nodes get beside our own environment; `private`: on this machine only, away from other robots' topics."""
    added = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
    if private:
        added["ROS_DOMAIN_ID"] = os.environ.get("ROS_DOMAIN_ID") or str(random.randint(1, 101))
        if "ROS_LOCALHOST_ONLY" not in os.environ:
            added["ROS_AUTOMATIC_DISCOVERY_RANGE"] = os.environ.get(
                "ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"
            )
    return added


def say_command(domain: str, namespace: str) -> str:
    """What a person types to have this demo speak: with our own `flowact`, which need not be on the PATH."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "flowact" else "flowact"
    name = "" if namespace == Options.namespace else f" --namespace {namespace}"
    return f'ROS_DOMAIN_ID={domain} {program} say{name} "Good morning"'


def say(text: str) -> None:
    print(text, flush=True)


def run_up(options: Options) -> int:
    """Runs the nodes until SIGINT or SIGTERM. A node that cannot configure stays up and says why; without any node
    that works there is nothing to wait for. Returns the exit status."""
    stop = _stop_on_signals()
    log, path = _log(options)
    specs = node_specs(options)
    with contextlib.ExitStack() as stack:
        for namespace in options.shared or (options.namespace,):
            claim = _claim(namespace, os.environ.get("ROS_DOMAIN_ID", ""))
            stack.enter_context(contextlib.closing(claim))
        supervisor = stack.enter_context(Supervisor(specs, environment=environment(private=False), log=log))
        say(f"starting; log: {path}")
        lacking: list[str] = []
        try:
            _wait_active(supervisor, stop)
            if not stop.is_set():
                lacking = [node for node, state in supervisor.shared().items() if state != "active"]
                others = f" but {', '.join(lacking)}" if lacking else ""
                say(f"all nodes{others} are active{_page_line(supervisor)}")
        except SupervisorError as error:
            if not supervisor.failed():
                say(f"error: {error}")
        told: list[str] = []
        while not stop.wait(0.2):
            for node in [node for node, state in supervisor.shared().items() if state == "active"]:
                if node in lacking:
                    lacking.remove(node)
                    say(f"{node} is active")
            failed = supervisor.failed()
            for name in (name for name in failed if name not in told):
                others = "" if len(failed) == len(specs) else " (the other nodes stay up; end with Ctrl-C)"
                print(f"error: {supervisor.failure(name)}{others}", file=sys.stderr, flush=True)
            for name in (name for name in told if supervisor.state(name) == "active"):
                say(f"{name} is active{_page_line(supervisor) if name.endswith('kiosk_bridge') else ''}")
            told = failed + [name for name in told if name not in failed and supervisor.state(name) != "active"]
            if len(failed) == len(specs):
                return _failed(SupervisorError("no node is left that works"), supervisor)
        say("stopping")
    return 0


def _claim(namespace: str, domain: str) -> Claim:
    claim = Claim(namespace, domain)
    if claim.holder:
        say(
            f"warning: process {claim.holder} has an avatar in /{namespace}, domain {domain or '0'}, already: "
            f"both will speak and be seen on the same topics; end it, or give this one another --namespace"
        )
    return claim


def _failed(error: SupervisorError, supervisor: Supervisor) -> int:
    """Says why it ends; the exit status: of a bad setup if that is what all failures were."""
    print(f"error: {error}", file=sys.stderr)
    failures = [supervisor.failure(name) for name in supervisor.failed()]
    bad_setup = bool(failures) and all(isinstance(failure, BadSetup) for failure in failures)
    return EXIT_BAD_SETUP if bad_setup else 1


def run_demo(options: Options) -> int:
    """The main job: a page on which the avatar speaks, then listens and idles. Returns the exit status."""
    stop = _stop_on_signals()
    log, path = _log(options)
    added = environment(private=True)
    if options.talk:
        try:
            options = with_conversation(options, say)
        except TalkProblem as problem:
            print(f"error: {problem}", file=sys.stderr)
            return EXIT_BAD_SETUP
    began = time.monotonic()
    browser: Any = None
    specs = node_specs(options)
    claim = _claim(options.namespace, added["ROS_DOMAIN_ID"])
    with contextlib.closing(claim), Supervisor(specs, environment=added, log=log) as supervisor:
        say(f"starting; log: {path}")
        try:
            _wait_active(supervisor, stop)
            if stop.is_set():
                return 0
            say(f"ready after {time.monotonic() - began:.1f} s{_page_line(supervisor)}")
            say(f"to talk to it from another terminal: {say_command(added['ROS_DOMAIN_ID'], options.namespace)}")
            url = supervisor.fact("kiosk_bridge", "url") if "kiosk_bridge" not in options.without else None
            if options.browser and url:
                browser = open_page(url, kiosk=False)
            with _speaking(options, added):
                return _run_demo_until_end(supervisor, options, stop)
        except SupervisorError as error:
            return _failed(error, supervisor)
        finally:
            if browser is not None and hasattr(browser, "close"):
                browser.close()


@contextlib.contextmanager
def _speaking(options: Options, added: dict[str, str]) -> Iterator[None]:
    """Has the avatar say the text as anybody would: `flowact say`, whose words appear as they are spoken."""
    if not options.text:
        yield
        return
    starter = Path(__file__).with_name("start_node.py")
    command = [sys.executable, str(starter), "flowact_ros.cli", "say", "--namespace", options.namespace]
    process = subprocess.Popen(
        [*command, "--", options.text], env={**os.environ, **added}, start_new_session=True
    )
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
            say("")  # behind the words


def _run_demo_until_end(supervisor: Supervisor, options: Options, stop: threading.Event) -> int:
    if options.record:
        # The recorder counts content time by stamps; the clock on the wall only guards against a stream that stands.
        guard = time.monotonic() + options.seconds * 3 + 60 if options.seconds else float("inf")
        while (
            not stop.is_set()
            and supervisor.wait_exit("recorder", 0.2) is None
            and time.monotonic() < guard
            and not _script_ended(supervisor, options)
        ):
            _fail_if_stuck(supervisor)
        if supervisor.wait_exit("recorder", 0.0) is None:
            supervisor.finish("recorder", 40.0)
        frames = supervisor.fact("recorder", "frames") or 0
        if not frames or supervisor.exit_code("recorder"):
            raise SupervisorError(f"nothing was recorded into {options.record}")
        missing = supervisor.fact("recorder", "missing_pictures") or 0
        say(f"{options.record}: {frames / 25:.2f} s" + (f", {missing} frames missing" if missing else ""))
        return _told_turns(supervisor, options)
    until = time.monotonic() + options.seconds if options.seconds else float("inf")
    while not stop.is_set() and time.monotonic() < until and not _script_ended(supervisor, options):
        _fail_if_stuck(supervisor)
        stop.wait(0.2)
    return _told_turns(supervisor, options)


def _script_ended(supervisor: Supervisor, options: Options) -> bool:
    return bool(options.script) and supervisor.wait_exit("scripted_user", 0.0) is not None


def _told_turns(supervisor: Supervisor, options: Options) -> int:
    """Says how the script went; the exit status."""
    if not options.script:
        return 0
    turns = supervisor.fact("scripted_user", "turns") or 0
    answered = supervisor.fact("scripted_user", "answered") or 0
    say(f"{turns} turns, {answered} answered")
    return 0 if turns and answered == turns else 1


def _fail_if_stuck(supervisor: Supervisor) -> None:
    """A demo without one of its nodes is none. Raises SupervisorError."""
    for name in supervisor.failed():
        raise supervisor.failure(name)


def _wait_active(supervisor: Supervisor, stop: threading.Event) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not stop.is_set():
        try:
            supervisor.wait_active(0.3)
            return
        except SupervisorError:
            if supervisor.failed() or time.monotonic() > deadline:
                raise


def _page_line(supervisor: Supervisor) -> str:
    pages = [name for name in supervisor.names if name.endswith("kiosk_bridge")]
    urls = [url for name in pages if (url := supervisor.fact(name, "url"))]
    return f"; {'page' if len(urls) == 1 else 'pages'}: {', '.join(urls)}" if urls else ""


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _log(options: Options) -> tuple[Callable[[str], None], Path]:
    """A log of all lines in a file; on the terminal only what is notable, or all with --verbose."""

    def show(line: str) -> None:
        if options.verbose or _NOTABLE.search(line):
            print(line, file=sys.stderr, flush=True)

    if options.log_file:
        path = Path(options.log_file).expanduser()
    else:
        path = log_folder(os.environ) / f"flowact-{time.strftime('%Y%m%d-%H%M%S')}.log"
    try:
        if not options.log_file:
            sweep(path.parent)
        return file_log(path, show)[0], path
    except OSError:
        path = Path(tempfile.gettempdir()) / f"flowact-{os.getpid()}.log"
        return file_log(path, show)[0], path
